//! The fleet's records on disk: one row for each, by kind and id, as JSON that version N+1 can read.

use diesel::{prelude::*, sqlite::SqliteConnection};
use diesel_migrations::{EmbeddedMigrations, embed_migrations};
use understudy_core::{
    fleet::{Record, RecordKey},
    ids::FailoverId,
};

use crate::traces::Traced;

/// The orchestrator's tables.
pub(crate) const MIGRATIONS: EmbeddedMigrations = embed_migrations!("migrations/sqlite");

diesel::table! {
    fleet_records (kind, id) {
        kind -> Text,
        id -> Text,
        record -> Text,
    }
}

diesel::table! {
    failover_traces (failover) {
        failover -> Text,
        trace -> Text,
        cause -> Nullable<Text>,
    }
}

/// A change to one record.
pub(crate) enum Change {
    /// Store it in the place of the one of the same key.
    Save(Box<Record>),
    /// Remove it.
    Delete(RecordKey),
    /// Store which trace a failover is a part of.
    Trace(FailoverId, Traced),
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
            if key.kind == "failover" {
                diesel::delete(failover_traces::table.find(&key.id)).execute(connection)?;
            }
            diesel::delete(fleet_records::table.find((&key.kind, &key.id))).execute(connection)
        }
        Change::Trace(failover, traced) => {
            let row = (
                failover_traces::failover.eq(failover.as_str()),
                failover_traces::trace.eq(traced.context.to_string()),
                failover_traces::cause.eq(traced.cause.map(|cause| cause.to_string())),
            );
            diesel::replace_into(failover_traces::table)
                .values(row)
                .execute(connection)
        }
    }
    .map(drop)
}

/// The trace of each failover. A row that can't be read is none: nothing depends on it.
pub(crate) fn load_traces(connection: &mut SqliteConnection) -> QueryResult<Vec<(FailoverId, Traced)>> {
    let rows: Vec<(String, String, Option<String>)> = failover_traces::table.load(connection)?;
    let read = |(failover, context, cause): (String, String, Option<String>)| {
        let traced = Traced {
            context: context.parse().ok()?,
            cause: cause.and_then(|cause| cause.parse().ok()),
        };
        Some((FailoverId::new(failover).ok()?, traced))
    };
    Ok(rows.into_iter().filter_map(read).collect())
}
