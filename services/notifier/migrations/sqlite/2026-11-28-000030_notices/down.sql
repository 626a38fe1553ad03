DROP TABLE notices_seen;
DROP TABLE notices_told;
DROP TABLE notices;
