-- Why the file is not what its row says; null as far as anybody knows.
ALTER TABLE segments ADD COLUMN damaged TEXT;

-- Files without a row whose failover does not follow from when they begin, since the clock was set back.
CREATE TABLE taken (
    path     TEXT NOT NULL PRIMARY KEY,
    failover TEXT
);
