-- The trace that each failover is a part of: beside its record, since nothing is decided by it.
CREATE TABLE failover_traces (
    failover TEXT NOT NULL PRIMARY KEY,
    trace TEXT NOT NULL,
    cause TEXT
);
