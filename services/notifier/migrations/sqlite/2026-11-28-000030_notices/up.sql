-- What is to be told and was not yet.
CREATE TABLE notices (
    number BIGINT PRIMARY KEY NOT NULL,
    notice TEXT NOT NULL
);
-- What was told to whom, and how often it was repeated since.
CREATE TABLE notices_told (
    receiver TEXT NOT NULL,
    about TEXT NOT NULL,
    told TEXT NOT NULL,
    PRIMARY KEY (receiver, about)
);
-- The ids of the newest facts that were heard.
CREATE TABLE notices_seen (
    number INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    fact TEXT NOT NULL
);
