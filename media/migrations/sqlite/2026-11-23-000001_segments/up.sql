CREATE TABLE segments (
    path        TEXT    NOT NULL PRIMARY KEY,
    camera      TEXT    NOT NULL,
    recorded_by TEXT    NOT NULL,
    failover    TEXT,
    start_ms    BIGINT  NOT NULL,
    end_ms      BIGINT  NOT NULL,
    bytes       BIGINT  NOT NULL,
    frames      BIGINT  NOT NULL,
    blake3      TEXT    NOT NULL,
    -- 'closed': the file is there. 'expired': it was handed over from another server and retention took it.
    state       TEXT    NOT NULL
);
CREATE INDEX segments_by_camera ON segments (camera, start_ms);
CREATE INDEX segments_by_failover ON segments (failover);

-- From when on this server filmed, and for which failover; what it left unindexed is attributed by this.
CREATE TABLE filming (
    id         INTEGER NOT NULL PRIMARY KEY,
    since_ms   BIGINT  NOT NULL,
    failover   TEXT,
    ended      BOOLEAN NOT NULL
);
