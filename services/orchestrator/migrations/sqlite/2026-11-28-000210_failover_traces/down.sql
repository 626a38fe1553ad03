DROP TABLE failover_traces;
