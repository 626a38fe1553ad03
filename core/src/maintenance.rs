//! Maintenance: for a while, what happens to a server is meant, and nobody stands in for it unasked.
//!
//! It has an end, always: what is forgotten must not leave a server unprotected.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    contract::api::{MaintenanceOrder, Problem},
    time::{Moment, Monotonic, Timestamp},
};

/// The longest maintenance.
pub const LONGEST: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// The longest reason, in bytes.
const WHY_MAX: usize = 500;

/// A server's maintenance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Maintenance {
    /// Until when, by the host's wall clock.
    pub until: Timestamp,
    /// Since when.
    pub since: Timestamp,
    /// Why, in words.
    pub why: String,
    /// Who said so.
    pub by: String,
}

impl Maintenance {
    /// What a person orders.
    ///
    /// # Errors
    /// If it has no end, ends in the past or in more than [`LONGEST`], or nobody says why.
    pub fn order(order: MaintenanceOrder, by: String, now: Moment) -> Result<Self, Problem> {
        let since = now.wall;
        let until = match (order.until, order.for_ms) {
            (Some(until), None) => until,
            (None, Some(millis)) => {
                let millis = i64::try_from(millis).unwrap_or(i64::MAX);
                Timestamp(since.as_millis().saturating_add(millis))
            }
            _ => {
                let detail = "say how long the maintenance lasts: either \"until\" (a time in milliseconds since \
                              1970) or \"for_ms\" (a duration in milliseconds)";
                return Err(Problem::invalid(detail));
            }
        };
        if until <= since {
            return Err(Problem::invalid(
                "the maintenance would end before it begins: choose an end that lies ahead",
            ));
        }
        if length(since, until) > LONGEST {
            return Err(Problem::invalid(
                "a maintenance lasts 7 days at most, so that a server is not left unprotected by mistake: choose an \
                 earlier end, and set it again if need be",
            ));
        }
        let why = order.why.trim().to_owned();
        if why.is_empty() || why.len() > WHY_MAX || why.chars().any(char::is_control) {
            return Err(Problem::invalid(format!(
                "say why, in one line of at most {WHY_MAX} bytes: it is shown to everybody who wonders"
            )));
        }
        Ok(Self {
            until,
            since,
            why,
            by,
        })
    }
}

fn length(from: Timestamp, to: Timestamp) -> Duration {
    Duration::from_millis(u64::try_from(to.as_millis().saturating_sub(from.as_millis())).unwrap_or(0))
}

/// A maintenance that goes on, with what only this process knows of it.
#[derive(Clone, Debug)]
pub(crate) struct Ongoing {
    pub(crate) order: Maintenance,
    /// When it ends, whatever becomes of the wall clock; as soon as the time is known.
    ends: Option<Monotonic>,
}

impl Ongoing {
    pub(crate) fn new(order: Maintenance) -> Self {
        Self { order, ends: None }
    }

    /// Whether its time is over. A clock that is set back doesn't make it longer; one that is set forward may
    /// end it early, which protects the server.
    pub(crate) fn is_over(&mut self, now: Moment) -> bool {
        let left = length(now.wall, self.order.until).min(LONGEST);
        let ends = *self.ends.get_or_insert(Monotonic(now.monotonic.0 + left));
        now.wall >= self.order.until || now.monotonic >= ends
    }
}
