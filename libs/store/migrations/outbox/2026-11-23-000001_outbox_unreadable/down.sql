DROP TABLE outbox_unreadable;
