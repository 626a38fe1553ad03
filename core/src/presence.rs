//! Which servers are alive, and whether the host could tell: the monitor's pure part.
//!
//! Beats come in on two paths, the broker and a direct connection; out come observations, on each change and
//! every second. Silence is measured from the last beat on any path. Nothing here decides on a failover.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    contract::heartbeat::{Evidence, Heartbeat, Observation, Package, Paths, Storage},
    ids::{DomainId, ServerId},
    time::{Moment, Monotonic},
};

/// How often each server is spoken of when nothing changes.
pub const REPEAT: Duration = Duration::from_secs(1);
/// A path is alive while a beat came on it within this many intervals.
const MISSED_BEATS: u32 = 2;
/// Added to the missed beats: what a busy network or machine may be late by.
const LATENESS: Duration = Duration::from_millis(150);
/// Servers whose silence began within this time of one another vanished together.
const AT_ONCE: Duration = Duration::from_secs(2);
/// The longest interval that a beat may claim, so that a wrong one does not hide a dead server.
const LONGEST_INTERVAL: Duration = Duration::from_secs(10);
/// The evidence kept of one server: the newest lines.
const EVIDENCE_LINES: usize = 8;

/// On which way a beat came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// Through the broker.
    Broker,
    /// By the agent's direct connection to the monitor.
    Direct,
}

/// What changed about a server, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transition {
    /// Heard for the first time.
    Appeared,
    /// Heard on no path any more.
    Vanished,
    /// Heard again.
    Returned,
    /// Heard directly, but not through the broker any more.
    BusDegraded,
    /// Heard through the broker again.
    BusRestored,
    /// Not heard directly any more, but through the broker.
    DirectLost,
    /// Heard directly again.
    DirectRestored,
    /// Its recording service has another state.
    Package,
    /// Its recording volume has another state.
    Storage,
    /// The host can't tell any more whether it is there.
    Blinded,
    /// The host can tell again.
    SeesAgain,
}

/// An observation, and where it belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The domain of the server.
    pub domain: DomainId,
    /// What changed since the last one; empty when it is only said again.
    pub transitions: Vec<Transition>,
    /// What is to be published.
    pub observation: Observation,
}

/// All servers, as the monitor knows them.
#[derive(Clone, Debug)]
pub struct Presence {
    servers: BTreeMap<ServerId, Subject>,
    /// Why the host's own link to the broker is down; none while it is up.
    broker_down: Option<String>,
    /// Why nothing may be concluded from silence, as of the last tick.
    blind: Option<String>,
}

#[derive(Clone, Debug)]
struct Subject {
    domain: DomainId,
    /// Last beat on any path; the start of watching before the first.
    last: Monotonic,
    ever_heard: bool,
    broker: Option<Monotonic>,
    direct: Option<Monotonic>,
    interval: Duration,
    package: Package,
    storage: Storage,
    evidence: Vec<Evidence>,
    said: Option<(Observation, Monotonic)>,
}

impl Presence {
    /// Knows no server, and no broker yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            servers: BTreeMap::new(),
            broker_down: Some("not connected yet".to_owned()),
            blind: None,
        }
    }

    /// Watches exactly the enrolled servers: silence of a new one counts from now, others are forgotten.
    pub fn watch(&mut self, enrolled: impl IntoIterator<Item = (ServerId, DomainId)>, now: Moment) {
        let enrolled: BTreeMap<ServerId, DomainId> = enrolled.into_iter().collect();
        self.servers.retain(|server, _| enrolled.contains_key(server));
        for (server, domain) in enrolled {
            let subject = self
                .servers
                .entry(server)
                .or_insert_with(|| Subject::new(domain.clone(), now.monotonic));
            subject.domain = domain;
        }
    }

    /// The host's own link to the broker is up, or down for a reason.
    pub fn broker(&mut self, down: Option<String>, now: Moment) -> Vec<Seen> {
        self.broker_down = down;
        self.tick(now)
    }

    /// A beat came in. Of a server that is not watched it starts the watching. Only this server is spoken of;
    /// call [`Presence::tick`] often (every 100 ms) for the others.
    pub fn beat(&mut self, path: Path, beat: Heartbeat, now: Moment) -> Vec<Seen> {
        let subject = self
            .servers
            .entry(beat.server.clone())
            .or_insert_with(|| Subject::new(beat.domain.clone(), now.monotonic));
        let server = beat.server.clone();
        subject.take(path, beat, now.monotonic);
        subject
            .speak(&server, self.blind.as_deref(), now)
            .into_iter()
            .collect()
    }

    /// Time has passed. What changed is said at once, the rest once a second.
    pub fn tick(&mut self, now: Moment) -> Vec<Seen> {
        self.blind = self.blindness(now.monotonic);
        let blind = self.blind.as_deref();
        self.servers
            .iter_mut()
            .filter_map(|(server, subject)| subject.speak(server, blind, now))
            .collect()
    }

    /// Why nothing may be concluded from silence; none if something may.
    #[must_use]
    pub fn blindness(&self, now: Monotonic) -> Option<String> {
        let known: Vec<&Subject> = self
            .servers
            .values()
            .filter(|subject| subject.ever_heard)
            .collect();
        let directly = known.iter().any(|subject| subject.paths(now).direct);
        if let (Some(why), false) = (&self.broker_down, directly) {
            return Some(format!(
                "the host has no link to the broker ({why}) and hears no server directly"
            ));
        }
        let mut vanished: Vec<Monotonic> = known
            .iter()
            .filter(|subject| !subject.is_heard(now))
            .map(|subject| subject.last)
            .collect();
        vanished.sort();
        let together = vanished
            .iter()
            .enumerate()
            .map(|(place, first)| {
                let end = vanished.partition_point(|last| last.since(*first) <= AT_ONCE);
                end - place
            })
            .max()
            .unwrap_or(0);
        (together >= 2 && together * 2 > known.len()).then(|| {
            format!(
                "{together} of {} servers vanished at once: more likely the host is cut off",
                known.len()
            )
        })
    }
}

impl Default for Presence {
    fn default() -> Self {
        Self::new()
    }
}

impl Subject {
    fn new(domain: DomainId, now: Monotonic) -> Self {
        Self {
            domain,
            last: now,
            ever_heard: false,
            broker: None,
            direct: None,
            interval: REPEAT,
            package: Package::default(),
            storage: Storage::default(),
            evidence: Vec::new(),
            said: None,
        }
    }

    fn take(&mut self, path: Path, beat: Heartbeat, now: Monotonic) {
        match path {
            Path::Broker => self.broker = Some(now),
            Path::Direct => self.direct = Some(now),
        }
        self.last = now;
        self.ever_heard = true;
        self.domain = beat.domain;
        self.interval = Duration::from_millis(beat.interval_ms).min(LONGEST_INTERVAL);
        self.package = beat.package;
        self.storage = beat.storage;
    }

    fn paths(&self, now: Monotonic) -> Paths {
        let worth = self.interval * MISSED_BEATS + LATENESS;
        let alive = |last: Option<Monotonic>| last.is_some_and(|at| now.since(at) < worth);
        Paths {
            broker: alive(self.broker),
            direct: alive(self.direct),
        }
    }

    fn is_heard(&self, now: Monotonic) -> bool {
        let paths = self.paths(now);
        paths.broker || paths.direct
    }

    fn speak(&mut self, server: &ServerId, blind: Option<&str>, now: Moment) -> Option<Seen> {
        let paths = self.paths(now.monotonic);
        let silent = if paths.broker || paths.direct {
            Duration::ZERO
        } else {
            now.monotonic.since(self.last)
        };
        let mut observation = Observation {
            server: server.clone(),
            silent_ms: u64::try_from(silent.as_millis()).unwrap_or(u64::MAX),
            paths,
            package: self.package.clone(),
            storage: self.storage.clone(),
            blind: blind.is_some(),
            evidence: Vec::new(),
        };
        let transitions = match &self.said {
            Some((old, _)) => transitions(old, &observation, self.ever_heard),
            None if self.ever_heard => vec![Transition::Appeared],
            None => Vec::new(),
        };
        let due = self
            .said
            .as_ref()
            .is_none_or(|(_, at)| now.monotonic.since(*at) >= REPEAT);
        if transitions.is_empty() && !due {
            return None;
        }
        for transition in &transitions {
            self.note(*transition, &observation, blind, now);
        }
        observation.evidence.clone_from(&self.evidence);
        self.said = Some((observation.clone(), now.monotonic));
        Some(Seen {
            domain: self.domain.clone(),
            transitions,
            observation,
        })
    }

    fn note(&mut self, transition: Transition, observation: &Observation, blind: Option<&str>, now: Moment) {
        let seen = match transition {
            Transition::Appeared => "heard for the first time".to_owned(),
            Transition::Vanished => format!(
                "no heartbeat on any path for {} ms; it beats every {} ms",
                observation.silent_ms,
                self.interval.as_millis()
            ),
            Transition::Returned => "heard again".to_owned(),
            Transition::BusDegraded => "heard directly, but not through the broker".to_owned(),
            Transition::BusRestored => "heard through the broker again".to_owned(),
            Transition::DirectLost => "heard through the broker, but not directly".to_owned(),
            Transition::DirectRestored => "heard directly again".to_owned(),
            Transition::Package => format!(
                "recording service {:?}: {}",
                self.package.state, self.package.evidence
            ),
            Transition::Storage => format!(
                "recording volume {:?}: {}",
                self.storage.state, self.storage.evidence
            ),
            Transition::Blinded => blind.unwrap_or_default().to_owned(),
            Transition::SeesAgain => "the host can see again".to_owned(),
        };
        self.evidence.push(Evidence {
            at: now.wall,
            observer: "monitor".to_owned(),
            seen,
        });
        let surplus = self.evidence.len().saturating_sub(EVIDENCE_LINES);
        self.evidence.drain(..surplus);
    }
}

/// What changed between two observations of one server.
#[must_use]
pub fn transitions(old: &Observation, new: &Observation, ever_heard: bool) -> Vec<Transition> {
    let heard = |observation: &Observation| observation.paths.broker || observation.paths.direct;
    let presence = match (heard(old), heard(new)) {
        (true, false) => Some(Transition::Vanished),
        (false, true) => Some(Transition::Returned),
        (false, false) => None,
        (true, true) => match (old.paths, new.paths) {
            (Paths { broker: true, .. }, Paths { broker: false, .. }) => Some(Transition::BusDegraded),
            (Paths { broker: false, .. }, Paths { broker: true, .. }) => Some(Transition::BusRestored),
            (Paths { direct: true, .. }, Paths { direct: false, .. }) => Some(Transition::DirectLost),
            (Paths { direct: false, .. }, Paths { direct: true, .. }) => Some(Transition::DirectRestored),
            _ => None,
        },
    };
    let sight = match (old.blind, new.blind) {
        (false, true) => Some(Transition::Blinded),
        (true, false) => Some(Transition::SeesAgain),
        _ => None,
    };
    presence
        .into_iter()
        .filter(|_| ever_heard)
        .chain((old.package != new.package).then_some(Transition::Package))
        .chain((old.storage != new.storage).then_some(Transition::Storage))
        .chain(sight)
        .collect()
}
