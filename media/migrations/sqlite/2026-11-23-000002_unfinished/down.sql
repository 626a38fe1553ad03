DROP TABLE taken;
ALTER TABLE segments DROP COLUMN damaged;
