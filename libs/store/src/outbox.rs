//! Messages that are stored in the transaction that makes them true, and published after it.
//!
//! The rows of one service leave in the order in which they came. What is in a message is the bus's affair.

use diesel::{prelude::*, sqlite::SqliteConnection};
use diesel_migrations::{EmbeddedMigrations, embed_migrations};

/// The table, for [`super::Store::open`], which runs it before the service's own.
pub(crate) const MIGRATIONS: EmbeddedMigrations = embed_migrations!("migrations/outbox");

mod schema {
    #![allow(missing_docs)]

    diesel::table! {
        outbox (id) {
            id -> BigInt,
            service -> Text,
            message -> Text,
        }
    }
}

use schema::outbox;

/// Stores a message to be published, within the caller's transaction.
///
/// # Errors
/// The database's.
pub fn push(connection: &mut SqliteConnection, service: &str, message: &str) -> QueryResult<()> {
    diesel::insert_into(outbox::table)
        .values((outbox::service.eq(service), outbox::message.eq(message)))
        .execute(connection)
        .map(drop)
}

/// The oldest messages of `service` that were not published yet, `limit` at most.
///
/// # Errors
/// The database's.
pub fn pending(
    connection: &mut SqliteConnection,
    service: &str,
    limit: usize,
) -> QueryResult<Vec<(i64, String)>> {
    outbox::table
        .filter(outbox::service.eq(service))
        .order(outbox::id.asc())
        .limit(i64::try_from(limit).unwrap_or(i64::MAX))
        .select((outbox::id, outbox::message))
        .load(connection)
}

/// Forgets messages that were published.
///
/// # Errors
/// The database's.
pub fn sent(connection: &mut SqliteConnection, ids: &[i64]) -> QueryResult<()> {
    diesel::delete(outbox::table.filter(outbox::id.eq_any(ids)))
        .execute(connection)
        .map(drop)
}
