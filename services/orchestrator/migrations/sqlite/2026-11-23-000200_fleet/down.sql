DROP TABLE fleet_records;
