CREATE TABLE license_keys (
    id TEXT NOT NULL PRIMARY KEY,
    holder TEXT NOT NULL,
    entry TEXT NOT NULL
);
CREATE TABLE license_moves (
    failover TEXT NOT NULL PRIMARY KEY,
    move TEXT NOT NULL
);
