CREATE TABLE outbox_unreadable (
    id      INTEGER PRIMARY KEY NOT NULL,
    service TEXT NOT NULL,
    message TEXT NOT NULL,
    why     TEXT NOT NULL
);
