//! What a message says: to people a subject and a text, to programs the facts.

mod words;

use std::{collections::BTreeMap, fmt::Write as _};

use jiff::tz::TimeZone;
use serde_json::{Value, json};
use understudy_core::{
    ids::ServerId,
    notice::{Item, Notice},
    time::Timestamp,
};

use self::words::Words;

/// The names of servers as people know them, by their ids; an id without one stands for itself.
pub(crate) type Names = BTreeMap<ServerId, String>;

/// How grave it is, as syslog has it (RFC 5424, table 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Severity {
    Notice,
    Warning,
    Critical,
}

impl Severity {
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Critical => 2,
            Self::Warning => 4,
            Self::Notice => 5,
        }
    }
}

/// One message, written.
#[derive(Clone, Debug)]
pub(crate) struct Letter {
    /// The same for each attempt.
    pub(crate) id: String,
    /// For whom.
    pub(crate) receiver: String,
    /// What it is a part of.
    pub(crate) story: String,
    /// When the newest of it happened.
    pub(crate) at: Timestamp,
    /// The name of the newest event.
    pub(crate) event: &'static str,
    pub(crate) severity: Severity,
    pub(crate) urgent: bool,
    pub(crate) subject: String,
    pub(crate) text: String,
    facts: Vec<Value>,
    more: u32,
}

impl Letter {
    /// Writes `notice`, with times in UTC and in `zone`.
    pub(crate) fn write(notice: &Notice, names: &Names, zone: &TimeZone) -> Self {
        let words: Vec<(&Item, Words)> = notice
            .items
            .iter()
            .map(|item| (item, Words::of(&item.fact.event, names)))
            .collect();
        let newest = notice.items.last().map(|item| &item.fact);
        let at = newest.map_or(notice.since, |fact| fact.at);
        let severity = words.iter().map(|(_, words)| words.severity).max();
        Self {
            id: notice.id.clone(),
            receiver: notice.receiver.clone(),
            story: notice.story.clone(),
            at,
            event: newest.map_or("trial", |fact| fact.event.name()),
            severity: severity.unwrap_or(Severity::Notice),
            urgent: notice.urgent,
            subject: subject(&words, notice.more),
            text: text(&words, notice, zone),
            facts: notice.items.iter().map(fact).collect(),
            more: notice.more,
        }
    }

    /// A trial message, for a receiver.
    pub(crate) fn trial(receiver: &str, id: String, at: Timestamp, zone: &TimeZone) -> Self {
        Self {
            id,
            receiver: receiver.to_owned(),
            story: "trial".to_owned(),
            at,
            event: "trial",
            severity: Severity::Notice,
            urgent: false,
            subject: "Understudy: a trial message".to_owned(),
            text: format!(
                "This is a trial message to {receiver:?}, sent at {}.\n\nNothing has happened. Whoever reads it will be told of failovers.\n",
                both(at, zone)
            ),
            facts: Vec::new(),
            more: 0,
        }
    }

    /// For programs.
    pub(crate) fn json(&self) -> Value {
        json!({
            "id": self.id,
            "receiver": self.receiver,
            "about": self.story,
            "time": rfc3339(self.at),
            "event": self.event,
            "urgent": self.urgent,
            "subject": self.subject,
            "text": self.text,
            "facts": self.facts,
            "more": self.more,
        })
    }
}

fn fact(item: &Item) -> Value {
    let fact = &item.fact;
    // An event is an object with its name and its fields in `data`.
    let event = serde_json::to_value(&fact.event).unwrap_or_default();
    json!({
        "id": item.id,
        "name": fact.event.name(),
        "domain": fact.domain,
        "time": rfc3339(fact.at),
        "repeats": item.repeats,
        "data": event.get("data"),
    })
}

fn subject(words: &[(&Item, Words)], more: u32) -> String {
    // The newest; but what is graver goes before what is newer.
    let gravest = words.iter().map(|(_, words)| words.severity).max();
    let shown = words
        .iter()
        .rev()
        .find(|(_, words)| words.is_end || Some(words.severity) == gravest);
    let headline = shown.map_or("something happened", |(_, words)| &words.headline);
    let others = words.len().saturating_sub(1) + more as usize;
    let others = match others {
        0 => String::new(),
        others => format!(" (and {others} more)"),
    };
    // A mail's subject is one line.
    let line = format!("Understudy: {headline}{others}");
    line.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

fn text(words: &[(&Item, Words)], notice: &Notice, zone: &TimeZone) -> String {
    let mut text = String::new();
    for (item, words) in words {
        let _ = writeln!(text, "{}", both(item.fact.at, zone));
        let _ = writeln!(text, "  {}.", words.headline);
        for line in &words.details {
            let _ = writeln!(text, "  {line}");
        }
        if item.repeats > 0 {
            let _ = writeln!(
                text,
                "  The same was told {} more time(s); this is the last.",
                item.repeats
            );
        }
        text.push('\n');
    }
    if notice.more > 0 {
        let _ = writeln!(
            text,
            "{} more, for which this message has no room: `understudy events` has them.\n",
            notice.more
        );
    }
    // What to do about the last of it: what was to be done before is done or overtaken.
    if let Some(todo) = words.iter().rev().find_map(|(_, words)| words.todo.as_ref()) {
        let _ = writeln!(text, "What to do: {todo}\n");
    }
    let _ = writeln!(text, "About {}, domain {}.", notice.story, domain(notice));
    text
}

fn domain(notice: &Notice) -> String {
    let newest = notice.items.last();
    newest.map_or_else(|| "-".to_owned(), |item| item.fact.domain.to_string())
}

/// A time as people read it: in UTC, and where they live.
pub(crate) fn both(at: Timestamp, zone: &TimeZone) -> String {
    let time = jiff::Timestamp::from_millisecond(at.as_millis()).unwrap_or_default();
    let utc = time
        .to_zoned(TimeZone::UTC)
        .strftime("%Y-%m-%d %H:%M:%S UTC")
        .to_string();
    let local = time.to_zoned(zone.clone());
    if local.offset() == jiff::tz::Offset::UTC {
        return utc;
    }
    format!("{utc} ({})", local.strftime("%Y-%m-%d %H:%M:%S %Z"))
}

/// A time as programs read it (RFC 3339), with milliseconds.
pub(crate) fn rfc3339(at: Timestamp) -> String {
    let time = jiff::Timestamp::from_millisecond(at.as_millis()).unwrap_or_default();
    format!("{time:.3}")
}

/// Minutes since midnight in `zone`.
pub(crate) fn local_minutes(at: Timestamp, zone: &TimeZone) -> u16 {
    let time = jiff::Timestamp::from_millisecond(at.as_millis()).unwrap_or_default();
    let time = time.to_zoned(zone.clone());
    u16::from(time.hour().unsigned_abs()) * 60 + u16::from(time.minute().unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone() -> TimeZone {
        TimeZone::get("Europe/Berlin").expect("a time zone")
    }

    #[test]
    fn k4_times_are_in_utc_and_where_people_live() {
        let summer = Timestamp(1_782_864_000_000);
        assert_eq!(
            both(summer, &zone()),
            "2026-07-01 00:00:00 UTC (2026-07-01 02:00:00 CEST)"
        );
        assert_eq!(both(summer, &TimeZone::UTC), "2026-07-01 00:00:00 UTC");
        assert_eq!(rfc3339(summer), "2026-07-01T00:00:00.000Z");
    }

    #[test]
    fn k4_quiet_hours_follow_summer_time() {
        // Midnight UTC, once in summer, once in winter.
        assert_eq!(local_minutes(Timestamp(1_782_864_000_000), &zone()), 120);
        assert_eq!(local_minutes(Timestamp(1_767_225_600_000), &zone()), 60);
    }
}
