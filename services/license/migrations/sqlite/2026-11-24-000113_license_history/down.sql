DROP TABLE license_history;
