DROP TABLE filming;
DROP TABLE segments;
