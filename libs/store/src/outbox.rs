//! Messages that are stored in the transaction that makes them true, and published after it.
//!
//! The rows of one service leave in the order in which they came. What is in a message is the bus's affair.

use std::fmt::Display;

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

    diesel::table! {
        outbox_unreadable (id) {
            id -> BigInt,
            service -> Text,
            message -> Text,
            why -> Text,
        }
    }
}

use schema::{outbox, outbox_unreadable};

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

/// The oldest messages of `service` after number `after` (0: from the first one on) that were not published
/// yet, `limit` at most.
///
/// # Errors
/// The database's.
pub fn pending(
    connection: &mut SqliteConnection,
    service: &str,
    after: i64,
    limit: usize,
) -> QueryResult<Vec<(i64, String)>> {
    outbox::table
        .filter(outbox::service.eq(service).and(outbox::id.gt(after)))
        .order(outbox::id.asc())
        .limit(i64::try_from(limit).unwrap_or(i64::MAX))
        .select((outbox::id, outbox::message))
        .load(connection)
}

/// As [`pending`], each as what `read` makes of it. One row that no version of this can read must not stop all others
/// for good: it is set aside.
///
/// # Errors
/// The database's.
pub fn readable<T, E: Display>(
    connection: &mut SqliteConnection,
    service: &str,
    after: i64,
    limit: usize,
    read: impl Fn(&str) -> Result<T, E>,
) -> QueryResult<Vec<(i64, T)>> {
    let rows = pending(connection, service, after, limit)?;
    let mut messages = Vec::with_capacity(rows.len());
    for (id, row) in rows {
        match read(&row) {
            Ok(message) => messages.push((id, message)),
            Err(error) => {
                tracing::error!(id, %error, "a message of the outbox can't be read; it is kept in outbox_unreadable");
                set_aside(connection, id, &error.to_string())?;
            }
        }
    }
    Ok(messages)
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

/// Moves a message that nobody can read to the table `outbox_unreadable`, with the reason, within the caller's
/// transaction: it stops nothing any more, and a person can still look at it.
///
/// # Errors
/// The database's.
pub fn set_aside(connection: &mut SqliteConnection, id: i64, why: &str) -> QueryResult<()> {
    let (service, message): (String, String) = outbox::table
        .find(id)
        .select((outbox::service, outbox::message))
        .first(connection)?;
    diesel::insert_into(outbox_unreadable::table)
        .values((
            outbox_unreadable::id.eq(id),
            outbox_unreadable::service.eq(service),
            outbox_unreadable::message.eq(message),
            outbox_unreadable::why.eq(why),
        ))
        .execute(connection)?;
    diesel::delete(outbox::table.find(id))
        .execute(connection)
        .map(drop)
}

/// Messages of `service` that were set aside, oldest first: number, message, and why.
///
/// # Errors
/// The database's.
pub fn unreadable(
    connection: &mut SqliteConnection,
    service: &str,
) -> QueryResult<Vec<(i64, String, String)>> {
    outbox_unreadable::table
        .filter(outbox_unreadable::service.eq(service))
        .order(outbox_unreadable::id.asc())
        .select((
            outbox_unreadable::id,
            outbox_unreadable::message,
            outbox_unreadable::why,
        ))
        .load(connection)
}
