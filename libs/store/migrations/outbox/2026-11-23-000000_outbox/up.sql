CREATE TABLE outbox (
    id      INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    service TEXT NOT NULL,
    message TEXT NOT NULL
);
CREATE INDEX outbox_by_service ON outbox (service, id);
