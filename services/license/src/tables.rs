//! The ledger on disk: its own tables, written in one transaction with what is to be told.

use diesel::{dsl::max, prelude::*, sqlite::SqliteConnection};
use diesel_migrations::{EmbeddedMigrations, embed_migrations};
use serde::de::DeserializeOwned;
use understudy_core::{
    contract::api::LicenseHappening,
    ids::FailoverId,
    license::{Change, Entry, Ledger, Move, history::MOST_KEPT},
};

/// The ledger's tables.
pub(crate) const MIGRATIONS: EmbeddedMigrations = embed_migrations!("migrations/sqlite");

diesel::table! {
    license_keys (id) {
        id -> Text,
        holder -> Text,
        entry -> Text,
    }
}

diesel::table! {
    license_moves (failover) {
        failover -> Text,
        #[sql_name = "move"]
        moved -> Text,
    }
}

diesel::table! {
    license_history (id) {
        id -> BigInt,
        happening -> Text,
    }
}

/// Writes down what happened, and forgets what is older than what is kept.
pub(crate) fn note(connection: &mut SqliteConnection, happening: &LicenseHappening) -> QueryResult<()> {
    let row = license_history::happening.eq(write(happening)?);
    diesel::insert_into(license_history::table)
        .values(row)
        .execute(connection)?;
    let newest: Option<i64> = license_history::table
        .select(max(license_history::id))
        .first(connection)?;
    let kept = i64::try_from(MOST_KEPT).unwrap_or(i64::MAX);
    let old = license_history::id.le(newest.unwrap_or_default().saturating_sub(kept));
    diesel::delete(license_history::table.filter(old))
        .execute(connection)
        .map(drop)
}

/// What happened, newest first.
pub(crate) fn history(connection: &mut SqliteConnection) -> QueryResult<Vec<LicenseHappening>> {
    let rows: Vec<String> = license_history::table
        .select(license_history::happening)
        .order(license_history::id.desc())
        .load(connection)?;
    rows.iter().map(|json| read(json)).collect()
}

/// The ledger as it was stored.
pub(crate) fn load(connection: &mut SqliteConnection) -> QueryResult<Ledger> {
    let keys: Vec<String> = license_keys::table.select(license_keys::entry).load(connection)?;
    let moves: Vec<(String, String)> = license_moves::table.load(connection)?;
    let keys = keys
        .iter()
        .map(|json| read(json))
        .collect::<QueryResult<Vec<Entry>>>()?;
    let moves = moves
        .iter()
        .map(|(failover, json)| {
            let failover = FailoverId::new(failover).map_err(unreadable)?;
            Ok((failover, read(json)?))
        })
        .collect::<QueryResult<Vec<(FailoverId, Move)>>>()?;
    Ok(Ledger::restore(keys, moves))
}

/// Stores one change, within the caller's transaction.
pub(crate) fn store(connection: &mut SqliteConnection, change: &Change) -> QueryResult<()> {
    match change {
        Change::SaveKey(entry) => {
            let row = (
                license_keys::id.eq(entry.payload.id.as_str()),
                license_keys::holder.eq(entry.holder.as_str()),
                license_keys::entry.eq(write(entry)?),
            );
            diesel::replace_into(license_keys::table)
                .values(row)
                .execute(connection)
        }
        Change::DeleteKey(key) => diesel::delete(license_keys::table.find(key.as_str())).execute(connection),
        Change::SaveMove(failover, what) => {
            let row = (
                license_moves::failover.eq(failover.as_str()),
                license_moves::moved.eq(write(what)?),
            );
            diesel::replace_into(license_moves::table)
                .values(row)
                .execute(connection)
        }
    }
    .map(drop)
}

fn read<T: DeserializeOwned>(json: &str) -> QueryResult<T> {
    serde_json::from_str(json).map_err(unreadable)
}

fn write(value: &impl serde::Serialize) -> QueryResult<String> {
    serde_json::to_string(value).map_err(|error| diesel::result::Error::SerializationError(error.into()))
}

fn unreadable(error: impl std::error::Error + Send + Sync + 'static) -> diesel::result::Error {
    diesel::result::Error::DeserializationError(error.into())
}
