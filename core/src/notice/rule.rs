//! What one receiver wants to be told of, and when not to be disturbed.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Cause;
use crate::{
    contract::event::{Event, Fact},
    ids::{DomainId, ServerId},
};

/// The pattern of all events.
pub const ALL: &str = "*";
/// What a receiver that does not say otherwise is told of.
pub const TOLD: [&str; 12] = [
    "failover.started",
    "failover.waiting",
    "failover.serving",
    "failover.restoring",
    "failover.completed",
    "failover.aborted",
    "server.unprotected",
    "server.storage_degraded",
    "server.conflict",
    "server.replaced",
    "server.returned",
    "license.short",
];
/// What wakes a receiver that does not say otherwise: nobody films, or not everything. That a failover began and
/// works is no reason to.
pub const URGENT: [&str; 3] = ["failover.waiting", "failover.aborted", "server.conflict"];

/// One receiver.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// Its name, as it is configured.
    pub name: String,
    /// Patterns of events that it is told of: a name, `failover.*`, or `*`.
    pub events: Vec<String>,
    /// Only of these domains; of any, if empty.
    pub domains: Vec<DomainId>,
    /// Only of these servers, as whom it is about or who stands in; of any, if empty.
    pub servers: Vec<ServerId>,
    /// When it is not disturbed.
    pub quiet: Option<Quiet>,
    /// Patterns of events that it is told of in quiet hours too.
    pub urgent: Vec<String>,
    /// Whether each fact is a message of its own; else what waits of one story is put into one.
    pub each: bool,
    /// For how long more of the same story is waited for.
    pub gather: Duration,
}

impl Rule {
    /// Whether it is told of `fact`.
    #[must_use]
    pub fn wants(&self, fact: &Fact, cause: &Cause<'_>) -> bool {
        let named = |server: &ServerId| cause.servers.contains(&server);
        any_matches(&self.events, fact.event.name())
            && (self.domains.is_empty() || self.domains.contains(&fact.domain))
            && (self.servers.is_empty() || self.servers.iter().any(named))
    }

    /// Whether `fact` is told in quiet hours too: what the receiver says, and what was lost.
    #[must_use]
    pub fn is_urgent(&self, fact: &Fact) -> bool {
        let lost = matches!(&fact.event, Event::FailoverServing { lost, .. } if !lost.is_empty());
        let name = fact.event.name();
        any_matches(&self.urgent, name) || (lost && any_matches(&self.urgent, "failover.waiting"))
    }
}

/// Whether a pattern (a name, `failover.*`, or `*`) covers an event's name.
#[must_use]
pub fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some("") => true,
        Some(entity) => entity.ends_with('.') && name.starts_with(entity),
        None => pattern == name,
    }
}

fn any_matches(patterns: &[String], name: &str) -> bool {
    patterns.iter().any(|pattern| matches(pattern, name))
}

/// A time of day in which only what is urgent is told, by the clock on the wall where the receivers live. May go
/// over midnight. The end is no part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quiet {
    /// Minutes since midnight.
    pub from: u16,
    /// Minutes since midnight.
    pub until: u16,
}

impl Quiet {
    /// Reads `22:00-06:30`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (from, until) = text.split_once('-')?;
        let quiet = Self {
            from: minutes(from)?,
            until: minutes(until)?,
        };
        // From 7 to 7 might be all day, or never.
        (quiet.from != quiet.until).then_some(quiet)
    }

    /// Whether a minute of the day lies in it.
    #[must_use]
    pub fn holds(self, minute: u16) -> bool {
        if self.from < self.until {
            (self.from..self.until).contains(&minute)
        } else {
            minute >= self.from || minute < self.until
        }
    }
}

fn minutes(text: &str) -> Option<u16> {
    let (hours, minutes) = text.trim().split_once(':')?;
    let number = |text: &str, below: u16| -> Option<u16> {
        let digits = !text.is_empty() && text.len() <= 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|number| digits && *number < below)
    };
    Some(number(hours, 24)? * 60 + number(minutes, 60)?)
}
