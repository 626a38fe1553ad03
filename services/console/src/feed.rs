//! Facts from the bus, kept for a while and passed on to everybody who listens.
//!
//! The latest are kept in memory so that somebody who comes late, or was cut off, misses nothing; a restart
//! of the console forgets them. Who reads too slowly is let go: nothing waits for a reader.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::broadcast;
use understudy_bus::{Bus, Queue};
use understudy_core::{
    contract::event::{Event, Fact},
    time::Timestamp,
};

/// How far a reader may fall behind: a failover of a thousand cameras, each with an event.
const BEHIND_MAX: usize = 1_024;

/// A fact with the id of its message: CloudEvents' `id`.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) id: String,
    pub(crate) fact: Fact,
}

/// The facts of late, and those to come.
pub(crate) struct Feed {
    recent_max: usize,
    recent: Mutex<VecDeque<Arc<Entry>>>,
    sender: broadcast::Sender<Arc<Entry>>,
}

impl Feed {
    /// Keeps the latest `recent_max`.
    pub(crate) fn new(recent_max: usize) -> Self {
        let (sender, _) = broadcast::channel(BEHIND_MAX);
        Self {
            recent_max,
            recent: Mutex::default(),
            sender,
        }
    }

    /// Passes one on.
    pub(crate) fn add(&self, entry: Entry) {
        let entry = Arc::new(entry);
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.push_back(entry.clone());
        while recent.len() > self.recent_max {
            recent.pop_front();
        }
        // Sent while the lock is held, so that `read` sees it exactly once. Nobody may be listening.
        let _ = self.sender.send(entry);
    }

    /// Those of late that came after the one called `after` (all, if it is not known any more), and the
    /// receiver of those to come.
    pub(crate) fn read(&self, after: Option<&str>) -> (Vec<Arc<Entry>>, broadcast::Receiver<Arc<Entry>>) {
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let known = after.and_then(|id| recent.iter().position(|entry| entry.id == id));
        let skipped = known.map_or(0, |position| position + 1);
        (
            recent.iter().skip(skipped).cloned().collect(),
            self.sender.subscribe(),
        )
    }
}

/// Which facts somebody wants; what says nothing wants all.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filter {
    /// Names such as `failover.started`, `failover.*` or `*`; any of them.
    pub(crate) names: Vec<String>,
    /// Any of these domains.
    pub(crate) domains: Vec<String>,
    /// Any of these servers takes part.
    pub(crate) servers: Vec<String>,
    /// Not from before.
    pub(crate) since: Option<Timestamp>,
}

/// The fields of events that name a server.
const SERVERS: [&str; 6] = ["server", "stand_in", "from", "to", "successor", "replaced_by"];

impl Filter {
    /// Whether this one is wanted.
    pub(crate) fn wants(&self, fact: &Fact) -> bool {
        let name = fact.event.name();
        let matches = |pattern: &String| match pattern.strip_suffix('*') {
            Some(beginning) => name.starts_with(beginning),
            None => name == pattern,
        };
        (self.names.is_empty() || self.names.iter().any(matches))
            && (self.domains.is_empty() || self.domains.iter().any(|domain| domain == fact.domain.as_str()))
            && self.since.is_none_or(|since| fact.at >= since)
            && (self.servers.is_empty() || self.takes_part(&fact.event))
    }

    fn takes_part(&self, event: &Event) -> bool {
        // Events are few: whatever they name is read from what is sent anyway.
        let json = serde_json::to_value(event).unwrap_or_default();
        let mut named = SERVERS.iter().filter_map(|field| json["data"][*field].as_str());
        named.any(|server| self.servers.iter().any(|wanted| wanted == server))
    }
}

/// Takes facts from the bus into the feed until the shutdown.
pub(crate) async fn follow(bus: Bus, feed: Arc<Feed>) {
    let mut facts = bus.subscribe(Queue::events(&["#"]));
    while let Some(message) = facts.next().await {
        match message.fact() {
            Ok(fact) => feed.add(Entry {
                id: message.id.clone(),
                fact,
            }),
            // A later version may know more events: what can't be read is no fault of anybody here.
            Err(error) => {
                tracing::debug!(kind = %message.kind, %error, "an event that this version can't read")
            }
        }
        message.ack().await;
    }
}

#[cfg(test)]
mod tests {
    use understudy_core::{
        ids::{DomainId, ServerId},
        time::Timestamp,
    };

    use super::*;

    fn entry(id: &str) -> Entry {
        let server = ServerId::new("recorder-1").expect("an id");
        let fact = Fact {
            domain: DomainId::new("east").expect("an id"),
            at: Timestamp(0),
            event: Event::ServerRecovered { server },
        };
        Entry {
            id: id.to_owned(),
            fact,
        }
    }

    fn ids(entries: &[Arc<Entry>]) -> Vec<&str> {
        entries.iter().map(|entry| entry.id.as_str()).collect()
    }

    #[test]
    fn who_was_cut_off_goes_on_where_it_stopped() {
        let feed = Feed::new(3);
        for id in ["a", "b", "c", "d"] {
            feed.add(entry(id));
        }
        assert_eq!(ids(&feed.read(None).0), ["b", "c", "d"]);
        assert_eq!(ids(&feed.read(Some("c")).0), ["d"]);
        assert_eq!(
            ids(&feed.read(Some("a")).0),
            ["b", "c", "d"],
            "what is not known any more is no end"
        );
    }

    #[test]
    fn between_the_old_and_the_new_nothing_is_missed_or_told_twice() {
        let feed = Feed::new(8);
        feed.add(entry("a"));
        let (recent, mut coming) = feed.read(None);
        feed.add(entry("b"));
        assert_eq!(ids(&recent), ["a"]);
        assert_eq!(coming.try_recv().expect("one came").id, "b");
        assert!(coming.try_recv().is_err());
    }

    fn filter(names: &[&str]) -> Filter {
        Filter {
            names: names.iter().map(|&name| name.to_owned()).collect(),
            ..Filter::default()
        }
    }

    #[test]
    fn events_are_chosen_by_name() {
        let fact = entry("a").fact;
        let wants = |patterns: &[&str]| filter(patterns).wants(&fact);
        assert!(wants(&[]) && wants(&["*"]) && wants(&["server.*"]) && wants(&["server.recovered"]));
        assert!(!wants(&["server"]) && !wants(&["failover.*"]));
        assert!(wants(&["failover.*", "server.recovered"]));
    }

    #[test]
    fn events_are_chosen_by_domain_server_and_time() {
        let license = serde_json::json!({
            "domain": "east", "at": 50, "name": "license.transferred",
            "data": { "failover": "f", "from": "recorder-1", "to": "standby-1", "devices": 2 },
        });
        let fact: Fact = serde_json::from_value(license).expect("a fact");
        let wants = |domain: &str, server: &str, since: i64| {
            let all = Filter {
                names: Vec::new(),
                domains: vec![domain.to_owned()],
                servers: vec!["recorder-9".to_owned(), server.to_owned()],
                since: Some(Timestamp(since)),
            };
            all.wants(&fact)
        };
        assert!(wants("east", "recorder-1", 50) && wants("east", "standby-1", 49));
        assert!(!wants("west", "standby-1", 50), "another domain");
        assert!(!wants("east", "standby-2", 50), "another server");
        assert!(!wants("east", "f", 50), "no server");
        assert!(!wants("east", "standby-1", 51), "before");
    }
}
