//! Which servers are alive, and whether the host could tell: the monitor's pure part.
//!
//! Beats come in on two paths, the broker and a direct connection; out come observations, on each change and
//! every second. Silence is measured from the last beat on any path, or from the moment since which the host can
//! hear, if that is later. Nothing here decides on a failover.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::{
    contract::{
        heartbeat::{Evidence, Farewell, Heartbeat, Observation, Package, Paths, Started, Storage},
        rpc::Looked,
    },
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
/// For how long the host is taken for blind, once it sees again, for a server that it has not heard since: each
/// takes its own time to connect again, up to 5 s between two tries, and then some to sign in. The same for one
/// that a monitor has only just begun to watch.
const SEES_AGAIN: Duration = Duration::from_secs(15);
/// From here on the monitor has been held up itself, and not only been late: it looks every 100 ms.
const STANDSTILL: Duration = Duration::from_secs(1);
/// What had arrived while it was held up has been read by then.
const CATCH_UP: Duration = Duration::from_secs(1);
/// The longest interval that a beat may claim, so that a wrong one does not hide a dead server.
const LONGEST_INTERVAL: Duration = Duration::from_secs(10);
/// The observer of what the host has seen itself.
const HOST: &str = "monitor";
/// For how long what somebody saw who looked for a server is worth something; it is looked for again meanwhile.
const SIGHT: Duration = Duration::from_secs(6);
/// The most failover servers that are asked to look for one server.
const WITNESSES: usize = 3;
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
    /// The domain of the host itself.
    home: Option<DomainId>,
    servers: BTreeMap<ServerId, Subject>,
    /// Why the host's own link to the broker is down; none while it is up.
    broker_down: Option<String>,
    /// Where nothing may be concluded from silence, as of the last tick.
    blind: Blindness,
    ticked: Option<Monotonic>,
}

/// Where nothing may be concluded from silence, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Blindness {
    /// Anywhere: the host's own link to the broker is down, and nobody is heard directly.
    pub everywhere: Option<String>,
    /// In these domains: none of their servers is heard, and the last ones went at once. A domain of which one
    /// is still heard is in reach, so that the silence of the others is their own.
    pub domains: BTreeMap<DomainId, String>,
}

impl Blindness {
    /// Whether there is any.
    #[must_use]
    pub fn is_any(&self) -> bool {
        self.everywhere.is_some() || !self.domains.is_empty()
    }

    /// Why nothing may be concluded from the silence of a server of `domain`; none if something may.
    #[must_use]
    pub fn of(&self, domain: &DomainId) -> Option<&str> {
        self.everywhere
            .as_deref()
            .or(self.domains.get(domain).map(String::as_str))
    }
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
    /// Until when, by the last tick that found so, the host could not have heard it, and why.
    deaf: Option<(Monotonic, String)>,
    /// What it said when it went, and the sequence number of that beat.
    farewell: Option<(Farewell, u64)>,
    /// What it says of its start.
    started: Option<Started>,
    /// What of these is not among the evidence yet, and who saw it.
    untold: Vec<(String, String)>,
    /// Nobody of its domain was heard since it is overdue, and somebody there is not missed yet: it may be the first of
    /// a domain that is cut off.
    first: bool,
    /// What others saw who looked for it since it is missed.
    sights: BTreeMap<Observer, Sight>,
}

/// The servers of each domain.
type ByDomain<'a> = BTreeMap<&'a DomainId, Vec<&'a Subject>>;

/// Who looked for a server that is missed; none: the host itself.
type Observer = Option<ServerId>;

#[derive(Clone, Debug)]
struct Sight {
    at: Monotonic,
    looked: Looked,
    /// Whether the observer is somewhere else than both the host and the server: cut off with neither of them.
    elsewhere: bool,
}

impl Presence {
    /// Knows no server, and no broker yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            home: None,
            servers: BTreeMap::new(),
            broker_down: Some("not connected yet".to_owned()),
            blind: Blindness::default(),
            ticked: None,
        }
    }

    /// The same, of a host in the domain `home`.
    #[must_use]
    pub fn at(home: Option<DomainId>) -> Self {
        Self { home, ..Self::new() }
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
        subject.speak(&server, &self.blind, now).into_iter().collect()
    }

    /// A server that is missed was looked for in another way, by the host itself or by a failover server that it is
    /// paired with: what was seen is evidence, and said at once if it is news. It makes nobody heard.
    ///
    /// Only where a whole domain vanished at once it counts for more: see `Subject::is_given_up`.
    pub fn looked(
        &mut self,
        server: &ServerId,
        observer: Option<&ServerId>,
        looked: Looked,
        now: Moment,
    ) -> Vec<Seen> {
        let from = observer.map(|observer| self.servers.get(observer).map(|known| known.domain.clone()));
        let home = self.home.clone();
        let Some(subject) = self.servers.get_mut(server) else {
            return Vec::new();
        };
        if subject.is_heard(now.monotonic) {
            return Vec::new();
        }
        let elsewhere = from
            .flatten()
            .is_some_and(|domain| home.is_some_and(|home| home != domain) && domain != subject.domain);
        let who = observer.map_or_else(|| HOST.to_owned(), ToString::to_string);
        let before = subject.sights.insert(
            observer.cloned(),
            Sight {
                at: now.monotonic,
                looked: looked.clone(),
                elsewhere,
            },
        );
        if before.is_some_and(|before| before.looked == looked) {
            return Vec::new();
        }
        subject.untold.push((who, looked.seen));
        subject.speak(server, &self.blind, now).into_iter().collect()
    }

    /// Servers that were heard once and are not any more: to be looked for in another way.
    #[must_use]
    pub fn missed(&self, now: Moment) -> BTreeSet<ServerId> {
        let missed = |subject: &Subject| subject.ever_heard && !subject.is_heard(now.monotonic);
        let servers = self.servers.iter().filter(|(_, subject)| missed(subject));
        servers.map(|(server, _)| server.clone()).collect()
    }

    /// Which of the failover servers that a missed server is paired with are to be asked to look for it: some that are
    /// heard, of as many domains as there are.
    #[must_use]
    pub fn witnesses(&self, server: &ServerId, paired_with: &[ServerId], now: Moment) -> Vec<ServerId> {
        let mut by_domain: BTreeMap<&DomainId, Vec<&ServerId>> = BTreeMap::new();
        for other in paired_with.iter().filter(|other| *other != server) {
            if let Some(subject) = self.servers.get(other)
                && subject.is_heard(now.monotonic)
            {
                by_domain.entry(&subject.domain).or_default().push(other);
            }
        }
        let firsts = by_domain.values().filter_map(|servers| servers.first());
        let others = by_domain.values().flat_map(|servers| servers.iter().skip(1));
        firsts
            .chain(others)
            .take(WITNESSES)
            .map(|witness| (*witness).clone())
            .collect()
    }

    /// Time has passed. What changed is said at once, the rest once a second.
    pub fn tick(&mut self, now: Moment) -> Vec<Seen> {
        self.note_standstill(now.monotonic);
        self.look(now.monotonic);
        let blind = &self.blind;
        self.servers
            .iter_mut()
            .filter_map(|(server, subject)| subject.speak(server, blind, now))
            .collect()
    }

    /// Where nothing may be concluded from silence, as of the last tick.
    #[must_use]
    pub fn blindness(&self) -> &Blindness {
        &self.blind
    }

    /// A monitor that was frozen or suspended saw nothing meanwhile, neither beats nor that others were cut off too:
    /// nobody's silence counts until each has had the time to be heard again.
    fn note_standstill(&mut self, now: Monotonic) {
        let stood_still = self
            .ticked
            .replace(now)
            .map_or(Duration::ZERO, |before| now.since(before));
        if stood_still < STANDSTILL {
            return;
        }
        let why = format!(
            "the monitor itself stood still for {:.1} s",
            stood_still.as_secs_f64()
        );
        for subject in self.servers.values_mut() {
            subject.deaf = Some((Monotonic(now.0 + CATCH_UP), why.clone()));
        }
    }

    /// Looks where it is blind, and notes for each server until when it could not have been heard.
    fn look(&mut self, now: Monotonic) {
        let (blind, newest) = {
            let domains = self.by_domain();
            (self.cut_off(&domains, now), newest(&domains, now))
        };
        let before = std::mem::replace(&mut self.blind, blind);
        for subject in self.servers.values_mut().filter(|subject| !subject.is_heard(now)) {
            subject.first = newest
                .get(&subject.domain)
                .is_some_and(|newest| subject.may_be_first(*newest, now));
            // Whoever was given up before the rest of its domain vanished too is given the same time as they are.
            let waits = subject.ever_heard && subject.excuse(now).is_some();
            let goes_on = waits || before.domains.contains_key(&subject.domain);
            let why = match goes_on {
                true => subject.blind_for(&self.blind, now),
                false => self.blind.of(&subject.domain),
            };
            let why = why.map(ToOwned::to_owned);
            let why = why.or_else(|| subject.unreachable_without_broker(self.broker_down.as_deref()));
            if let Some(why) = why {
                subject.deaf = Some((now, why));
            }
        }
    }

    fn by_domain(&self) -> ByDomain<'_> {
        let mut domains = ByDomain::new();
        for subject in self.servers.values() {
            domains.entry(&subject.domain).or_default().push(subject);
        }
        domains
    }

    fn cut_off(&self, domains: &ByDomain<'_>, now: Monotonic) -> Blindness {
        let directly = self.servers.values().any(|subject| subject.paths(now).direct);
        if let (Some(why), false) = (&self.broker_down, directly) {
            let everywhere =
                format!("the host has no link to the broker ({why}) and hears no server directly");
            return Blindness {
                everywhere: Some(everywhere),
                domains: BTreeMap::new(),
            };
        }
        let cut_off = domains
            .iter()
            .filter_map(|(&domain, known)| Some((domain.clone(), vanished_together(domain, known, now)?)));
        Blindness {
            everywhere: None,
            domains: cut_off.collect(),
        }
    }
}

/// The last beat of any server in each domain of which one is heard.
fn newest(domains: &ByDomain<'_>, now: Monotonic) -> BTreeMap<DomainId, Monotonic> {
    let heard = domains
        .iter()
        .filter(|(_, known)| known.iter().any(|subject| subject.is_heard(now)));
    heard
        .filter_map(|(&domain, known)| {
            let last = known.iter().map(|subject| subject.last).max()?;
            Some((domain.clone(), last))
        })
        .collect()
}

/// Why the silence of a whole domain proves nothing, if it does not: none of its servers is heard, and of those
/// whose silence counts the last ones, two at least, went at once. One that was never heard is silent from the
/// start of watching: so they all are when the monitor itself has just started.
fn vanished_together(domain: &DomainId, known: &[&Subject], now: Monotonic) -> Option<String> {
    if known.iter().any(|subject| subject.is_heard(now)) {
        return None;
    }
    let last = known.iter().map(|subject| subject.last).max()?;
    let together = known
        .iter()
        .filter(|subject| {
            let not_back = subject.ever_heard && subject.excuse(now).is_some();
            not_back || last.since(subject.last) <= AT_ONCE
        })
        .count();
    if together < 2 {
        return None;
    }
    let all = known.len();
    Some(if known.iter().any(|subject| subject.ever_heard) {
        format!(
            "{together} of {all} servers of {domain} vanished at once, and none is heard: more likely the host is cut off from it"
        )
    } else {
        format!(
            "none of the {all} servers of {domain} has been heard since the monitor started: the host may be cut off from it"
        )
    })
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
            deaf: Some((
                now,
                "it has not been heard since the monitor began to watch it".to_owned(),
            )),
            farewell: None,
            started: None,
            untold: Vec::new(),
            first: false,
            sights: BTreeMap::new(),
        }
    }

    /// Its last word, and the first after a start. A beat of before the farewell may come after it.
    fn take_words(&mut self, beat: &Heartbeat) {
        if let Some(farewell) = beat.farewell {
            if self.farewell.is_none() {
                self.tell(format!("it {}", farewell.words()));
            }
            self.farewell = Some((farewell, beat.sequence));
        } else if beat.started.is_some() || self.farewell.is_some_and(|(_, last)| beat.sequence > last) {
            self.farewell = None;
        }
        if self.started != beat.started
            && let Some(started) = &beat.started
        {
            let before = started
                .before
                .map_or("is here for the first time", |before| before.words());
            self.tell(format!("it has started; before that it {before}"));
        }
        self.started.clone_from(&beat.started);
    }

    /// The host has heard something that belongs to the evidence.
    fn tell(&mut self, seen: String) {
        self.untold.push((HOST.to_owned(), seen));
    }

    fn take(&mut self, path: Path, beat: Heartbeat, now: Monotonic) {
        match path {
            Path::Broker => self.broker = Some(now),
            Path::Direct => self.direct = Some(now),
        }
        self.take_words(&beat);
        self.sights.clear();
        self.last = now;
        self.ever_heard = true;
        self.domain = beat.domain;
        self.interval = Duration::from_millis(beat.interval_ms).min(LONGEST_INTERVAL);
        self.package = beat.package;
        self.storage = beat.storage;
    }

    /// For how long a path is alive after a beat on it.
    fn worth(&self) -> Duration {
        self.interval * MISSED_BEATS + LATENESS
    }

    fn paths(&self, now: Monotonic) -> Paths {
        let alive = |last: Option<Monotonic>| last.is_some_and(|at| now.since(at) < self.worth());
        Paths {
            broker: alive(self.broker),
            direct: alive(self.direct),
        }
    }

    /// Whether nobody of its domain, whose newest beat is this, has been heard since its own next beat is overdue. Others
    /// that beat far more rarely are not waited for.
    fn may_be_first(&self, newest: Monotonic, now: Monotonic) -> bool {
        let overdue = Monotonic(self.last.0 + self.interval + LATENESS);
        newest < overdue && now.since(self.last) < self.worth() + AT_ONCE
    }

    fn is_heard(&self, now: Monotonic) -> bool {
        let paths = self.paths(now);
        paths.broker || paths.direct
    }

    /// Why the host could not hear it a moment ago, if it has not been heard since: its silence does not count yet.
    fn excuse(&self, now: Monotonic) -> Option<&str> {
        let (until, why) = self.deaf.as_ref()?;
        let unheard_since = self.last < *until || !self.ever_heard;
        (unheard_since && now.since(*until) < SEES_AGAIN).then_some(why.as_str())
    }

    /// Why nothing is to be heard of it while the host's link to the broker is down: nothing came directly from
    /// it even before, so that the broker was its only path.
    fn unreachable_without_broker(&self, down: Option<&str>) -> Option<String> {
        let down = down?;
        let had_direct_path = match (self.broker, self.direct) {
            (Some(broker), Some(direct)) => broker.since(direct) < self.worth(),
            (_, direct) => direct.is_some(),
        };
        (!had_direct_path).then(|| {
            format!("the host has no link to the broker ({down}), and this server is heard in no other way")
        })
    }

    /// Whether somebody who is cut off neither with the host nor with the server can't reach it either, and nobody can.
    /// That somebody is in a third domain: what a failover server beside the host can't reach, the host can't, and the
    /// one beside the server went with it.
    fn is_given_up(&self, now: Monotonic) -> bool {
        let fresh = || self.sights.values().filter(|sight| now.since(sight.at) < SIGHT);
        let answers = fresh().any(|sight| sight.looked.answers);
        !answers && fresh().any(|sight| sight.elsewhere)
    }

    /// Why nothing may be concluded from its silence, as far as that is the host's own. That its whole domain vanished
    /// at once is no reason any more once others have given it up too.
    fn blind_for<'a>(&self, blind: &'a Blindness, now: Monotonic) -> Option<&'a str> {
        let anywhere = blind.everywhere.as_deref();
        anywhere.or_else(|| blind.of(&self.domain).filter(|_| !self.is_given_up(now)))
    }

    /// For how long nothing was heard of it although the host could hear.
    fn silent(&self, blind: bool, now: Monotonic) -> Duration {
        match &self.deaf {
            Some((until, _)) if !blind => now.since(self.last.max(*until)),
            _ => now.since(self.last),
        }
    }

    fn speak(&mut self, server: &ServerId, blind: &Blindness, now: Moment) -> Option<Seen> {
        let paths = self.paths(now.monotonic);
        let heard = paths.broker || paths.direct;
        let blind = match heard {
            true => None,
            false => self
                .blind_for(blind, now.monotonic)
                .or(self.excuse(now.monotonic))
                .or(self.first.then_some(
                    "it may be the first of its domain: nobody there was heard since it is overdue",
                )),
        };
        let blind = blind.map(ToOwned::to_owned);
        let silent = match heard {
            true => Duration::ZERO,
            false => self.silent(blind.is_some(), now.monotonic),
        };
        let mut observation = Observation {
            server: server.clone(),
            silent_ms: u64::try_from(silent.as_millis()).unwrap_or(u64::MAX),
            paths,
            package: self.package.clone(),
            storage: self.storage.clone(),
            blind: blind.is_some(),
            farewell: self.farewell.map(|(farewell, _)| farewell).filter(|_| !heard),
            started: self.started.clone().filter(|_| heard),
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
        if transitions.is_empty() && !due && self.untold.is_empty() {
            return None;
        }
        for (observer, word) in std::mem::take(&mut self.untold) {
            self.write_down(observer, word, now);
        }
        for transition in &transitions {
            self.note(*transition, &observation, blind.as_deref(), now);
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
                "no heartbeat on any path for {} ms; it beats every {} ms, and {}",
                observation.silent_ms,
                self.interval.as_millis(),
                farewell_words(observation)
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
                "recording volume {:?}{}: {}",
                self.storage.state,
                match self.storage.full {
                    true => ", full although retention should have made room",
                    false => "",
                },
                self.storage.evidence
            ),
            Transition::Blinded => blind.unwrap_or_default().to_owned(),
            Transition::SeesAgain => "the host can see again".to_owned(),
        };
        self.write_down(HOST.to_owned(), seen, now);
    }

    fn write_down(&mut self, observer: String, seen: String, now: Moment) {
        self.evidence.push(Evidence {
            at: now.wall,
            observer,
            seen,
        });
        let surplus = self.evidence.len().saturating_sub(EVIDENCE_LINES);
        self.evidence.drain(..surplus);
    }
}

/// What a server that is not heard had said when it went.
#[must_use]
pub fn farewell_words(observation: &Observation) -> &'static str {
    observation
        .farewell
        .map_or("went without a word", |farewell| farewell.words())
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
