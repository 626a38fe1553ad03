//! The fleet's records on disk: one row for each, by kind and id, as JSON that version N+1 can read.

use diesel::{prelude::*, sqlite::SqliteConnection};
use diesel_migrations::{EmbeddedMigrations, embed_migrations};
use understudy_core::fleet::{Record, RecordKey};

/// The orchestrator's tables.
pub(crate) const MIGRATIONS: EmbeddedMigrations = embed_migrations!("migrations/sqlite");

diesel::table! {
    fleet_records (kind, id) {
        kind -> Text,
        id -> Text,
        record -> Text,
    }
}

/// A change to one record.
pub(crate) enum Change {
    /// Store it in the place of the one of the same key.
    Save(Box<Record>),
    /// Remove it.
    Delete(RecordKey),
}

/// Every record.
pub(crate) fn load(connection: &mut SqliteConnection) -> QueryResult<Vec<Record>> {
    let rows: Vec<String> = fleet_records::table
        .select(fleet_records::record)
        .load(connection)?;
    rows.iter()
        .map(|json| {
            serde_json::from_str(json)
                .map_err(|error| diesel::result::Error::DeserializationError(error.into()))
        })
        .collect()
}

/// Stores one change, within the caller's transaction.
pub(crate) fn store(connection: &mut SqliteConnection, change: &Change) -> QueryResult<()> {
    match change {
        Change::Save(record) => {
            let key = record.key();
            let json = serde_json::to_string(record)
                .map_err(|error| diesel::result::Error::SerializationError(error.into()))?;
            let row = (
                fleet_records::kind.eq(key.kind),
                fleet_records::id.eq(key.id),
                fleet_records::record.eq(json),
            );
            diesel::replace_into(fleet_records::table)
                .values(row)
                .execute(connection)
        }
        Change::Delete(key) => {
            diesel::delete(fleet_records::table.find((&key.kind, &key.id))).execute(connection)
        }
    }
    .map(drop)
}
