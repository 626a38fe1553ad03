DROP TABLE license_moves;
DROP TABLE license_keys;
