//! What is to be told, on disk: the notifier's own tables, in a file of its own. It never holds up who decides.

use diesel::{dsl::max, prelude::*, sqlite::SqliteConnection};
use diesel_migrations::{EmbeddedMigrations, embed_migrations};
use serde::{Serialize, de::DeserializeOwned};
use understudy_core::notice::{Effect, Key, Notice, SEEN_KEPT, Told};
use understudy_store::outbox;

use crate::outbox::{SERVICE, dead_letter};

/// The notifier's tables.
pub(crate) const MIGRATIONS: EmbeddedMigrations = embed_migrations!("migrations/sqlite");

diesel::table! {
    notices (number) {
        number -> BigInt,
        notice -> Text,
    }
}

diesel::table! {
    notices_told (receiver, about) {
        receiver -> Text,
        about -> Text,
        told -> Text,
    }
}

diesel::table! {
    notices_seen (number) {
        number -> BigInt,
        fact -> Text,
    }
}

/// What was stored.
pub(crate) struct Stored {
    pub(crate) notices: Vec<Notice>,
    pub(crate) told: Vec<(Key, Told)>,
    pub(crate) seen: Vec<String>,
}

/// Everything as it was stored.
pub(crate) fn load(connection: &mut SqliteConnection) -> QueryResult<Stored> {
    let notices: Vec<String> = notices::table
        .select(notices::notice)
        .order(notices::number.asc())
        .load(connection)?;
    let told: Vec<(String, String, String)> = notices_told::table.load(connection)?;
    let seen = notices_seen::table
        .select(notices_seen::fact)
        .order(notices_seen::number.asc())
        .load(connection)?;
    Ok(Stored {
        notices: notices
            .iter()
            .map(|json| read(json))
            .collect::<QueryResult<_>>()?,
        told: told
            .into_iter()
            .map(|(receiver, about, told)| Ok(((receiver, about), read(&told)?)))
            .collect::<QueryResult<_>>()?,
        seen,
    })
}

/// Stores one effect, within the caller's transaction. What is to be sent is not its affair.
pub(crate) fn store(connection: &mut SqliteConnection, effect: &Effect) -> QueryResult<()> {
    match effect {
        Effect::Seen(fact) => seen(connection, fact),
        Effect::Save(notice) => {
            let row = (
                notices::number.eq(number(notice.number)),
                notices::notice.eq(write(notice)?),
            );
            diesel::replace_into(notices::table)
                .values(row)
                .execute(connection)
                .map(drop)
        }
        Effect::Remove(gone) => remove(connection, *gone),
        Effect::SaveTold((receiver, about), told) => {
            let row = (
                notices_told::receiver.eq(receiver),
                notices_told::about.eq(about),
                notices_told::told.eq(write(told)?),
            );
            diesel::replace_into(notices_told::table)
                .values(row)
                .execute(connection)
                .map(drop)
        }
        Effect::ForgetTold((receiver, about)) => diesel::delete(notices_told::table.find((receiver, about)))
            .execute(connection)
            .map(drop),
        Effect::GiveUp(notice, why) => {
            remove(connection, notice.number)?;
            outbox::push(connection, SERVICE, &write(&dead_letter(notice, why))?)
        }
        Effect::Send(_) => Ok(()),
    }
}

fn remove(connection: &mut SqliteConnection, gone: u64) -> QueryResult<()> {
    diesel::delete(notices::table.find(number(gone)))
        .execute(connection)
        .map(drop)
}

fn seen(connection: &mut SqliteConnection, fact: &str) -> QueryResult<()> {
    diesel::insert_into(notices_seen::table)
        .values(notices_seen::fact.eq(fact))
        .execute(connection)?;
    let newest: Option<i64> = notices_seen::table
        .select(max(notices_seen::number))
        .first(connection)?;
    let kept = i64::try_from(SEEN_KEPT).unwrap_or(i64::MAX);
    let old = notices_seen::number.le(newest.unwrap_or_default().saturating_sub(kept));
    diesel::delete(notices_seen::table.filter(old))
        .execute(connection)
        .map(drop)
}

fn number(of: u64) -> i64 {
    i64::try_from(of).unwrap_or(i64::MAX)
}

fn read<T: DeserializeOwned>(json: &str) -> QueryResult<T> {
    serde_json::from_str(json).map_err(|error| diesel::result::Error::DeserializationError(error.into()))
}

fn write(value: &impl Serialize) -> QueryResult<String> {
    serde_json::to_string(value).map_err(|error| diesel::result::Error::SerializationError(error.into()))
}
