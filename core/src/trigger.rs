//! When one server's failure is a reason for a failover, and when that reason has cleared.
//!
//! Fed with what the monitor observes of one server; says what it adds up to under a policy. It never
//! concludes anything from the silence of the monitor itself, or from that of a host that may be cut off.

mod damping;

use std::time::Duration;

use crate::{
    contract::{
        api::{FailoverReason, ReasonKind},
        heartbeat::{Evidence, Observation, PackageState, Storage, StorageState},
    },
    policy::Policy,
    presence::farewell_words,
    time::{Moment, Monotonic},
};

pub use self::damping::{FAULT_WINDOW, LONGEST_HOLD};
use self::damping::{Faults, Spells};

/// The monitor speaks of each server every second; after this long without a word nothing is known.
pub const OBSERVATION_WORTH: Duration = Duration::from_secs(3);
/// For how long a recording service must be abnormal: a restart of it takes less.
pub const PACKAGE_PATIENCE: Duration = Duration::from_secs(1);
/// For how long a server must have been well before a reason counts as cleared: more than two heartbeats. One that
/// failed several times has to stay well for longer ([`Trigger::has_settled`]).
pub const STABILITY: Duration = Duration::from_secs(1);

/// What is known of one server.
#[derive(Clone, Debug, Default)]
pub struct Trigger {
    last: Option<Seen>,
    ever_heard: bool,
    abnormal_since: Option<Monotonic>,
    heard_since: Option<Monotonic>,
    running_since: Option<Monotonic>,
    undamaged_since: Option<Monotonic>,
    normal_since: Option<Monotonic>,
    roomy_since: Option<Monotonic>,
    /// When the server last said that each is well.
    ran_at: Option<Monotonic>,
    normal_at: Option<Monotonic>,
    roomy_at: Option<Monotonic>,
    faults: Faults,
    spells: Spells,
    /// What was before counts for nothing: its maintenance ended then.
    excused: Option<Monotonic>,
}

#[derive(Clone, Debug)]
struct Seen {
    observation: Observation,
    at: Monotonic,
}

/// A reason for a failover.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// The reason, with its evidence.
    pub reason: FailoverReason,
    /// For how long it has held: since the last sign of the server, or since its recording service or its volume was
    /// last seen to be well.
    pub lasts: Duration,
}

impl Trigger {
    /// Nothing observed yet. `ever_heard` says whether the server was heard at any time since its enrolment:
    /// one that never was can't be missed.
    #[must_use]
    pub fn new(ever_heard: bool) -> Self {
        Self {
            ever_heard,
            ..Self::default()
        }
    }

    /// Takes in what the monitor saw.
    pub fn observe(&mut self, observation: Observation, now: Monotonic) {
        let heard = is_heard(&observation);
        let package = observation.package.state;
        let storage = observation.storage.state;
        self.ever_heard |= heard;
        hold(&mut self.abnormal_since, is_abnormal(package), now);
        self.spells.note(is_abnormal(package), now);
        hold(&mut self.heard_since, heard, now);
        hold(&mut self.running_since, package == PackageState::Running, now);
        hold(&mut self.undamaged_since, storage != StorageState::Damaged, now);
        hold(&mut self.normal_since, storage == StorageState::Normal, now);
        hold(&mut self.roomy_since, !observation.storage.full, now);
        note(&mut self.ran_at, heard && package == PackageState::Running, now);
        note(&mut self.normal_at, heard && storage == StorageState::Normal, now);
        note(&mut self.roomy_at, heard && !observation.storage.full, now);
        self.last = Some(Seen { observation, at: now });
    }

    /// Whether the server was ever heard.
    #[must_use]
    pub fn ever_heard(&self) -> bool {
        self.ever_heard
    }

    /// What the monitor saw last.
    #[must_use]
    pub fn observation(&self) -> Option<&Observation> {
        self.last.as_ref().map(|seen| &seen.observation)
    }

    /// What the monitor saw last, if that is worth anything still, and the host can see.
    fn fresh(&self, now: Monotonic) -> Option<&Seen> {
        self.last
            .as_ref()
            .filter(|seen| now.since(seen.at) < OBSERVATION_WORTH && !seen.observation.blind)
    }

    /// Whether the server is heard now.
    #[must_use]
    pub fn is_heard(&self, now: Monotonic) -> bool {
        self.fresh(now).is_some_and(|seen| is_heard(&seen.observation))
    }

    /// Whether the server is heard through the broker now, so that an assignment would reach it.
    #[must_use]
    pub fn is_connected(&self, now: Monotonic) -> bool {
        self.fresh(now).is_some_and(|seen| seen.observation.paths.broker)
    }

    /// For how long nothing has been heard of the server, as far as anybody can tell.
    #[must_use]
    pub fn silent(&self, now: Monotonic) -> Duration {
        match self.fresh(now) {
            Some(seen) if !is_heard(&seen.observation) => {
                Duration::from_millis(seen.observation.silent_ms) + now.since(seen.at)
            }
            _ => Duration::ZERO,
        }
    }

    /// Why the server could not take anything on now, in words; none if it could.
    #[must_use]
    pub fn unfit(&self, now: Monotonic) -> Option<String> {
        let Some(seen) = self.fresh(now) else {
            return Some("is not observed at the moment".to_owned());
        };
        let observation = &seen.observation;
        if !is_heard(observation) {
            Some("is not heard".to_owned())
        } else if observation.package.state != PackageState::Running {
            Some(format!(
                "has a recording service that is {}",
                package_words(observation.package.state)
            ))
        } else if observation.storage.state == StorageState::Damaged {
            Some("has a damaged recording volume".to_owned())
        } else if !observation.paths.broker {
            // Assignments travel by the broker: it would never hear of what it is to take on.
            Some("is heard directly, but not through the broker".to_owned())
        } else {
            None
        }
    }

    /// Why the server has to be given up as a stand-in, in words: not heard for `patience`, its recording service
    /// abnormal for longer than a restart takes, or its volume damaged. None while it may go on.
    #[must_use]
    pub fn lost(&self, patience: Duration, now: Monotonic) -> Option<String> {
        let seen = self.fresh(now)?;
        if is_heard(&seen.observation) {
            if self.is_abnormal_for_long(now) || seen.observation.storage.state == StorageState::Damaged {
                return self.unfit(now);
            }
            return None;
        }
        (self.ever_heard && self.silent(now) >= patience).then(|| "is not heard any more".to_owned())
    }

    /// The reason for a failover that `policy` names and that holds now (C1–C4).
    #[must_use]
    pub fn cause(&self, policy: &Policy, now: Moment) -> Option<Cause> {
        if !policy.automatic {
            return None;
        }
        let seen = self.fresh(now.monotonic)?;
        let unheard = self.silent(now.monotonic);
        let silent = self.counted(unheard, now.monotonic);
        let from = match silent < unheard {
            true => " since its maintenance ended",
            false => "",
        };
        let since = |well: Option<Monotonic>| well.map_or(Duration::ZERO, |at| now.monotonic.since(at));
        let (kind, lasts, summary) =
            if policy.on_disconnection && self.ever_heard && silent >= policy.disconnection() {
                (
                    ReasonKind::Disconnection,
                    silent,
                    format!(
                        "not heard for {:.1} s{from}; it {}",
                        silent.as_secs_f64(),
                        farewell_words(&seen.observation)
                    ),
                )
            } else if policy.on_storage && is_ill(&seen.observation.storage, policy) {
                let well = match seen.observation.storage.state {
                    StorageState::Normal => self.roomy_at,
                    StorageState::Degraded | StorageState::Damaged => self.normal_at,
                };
                (ReasonKind::Storage, since(well), storage_words(&seen.observation))
            } else if policy.on_package && self.is_abnormal_for_long(now.monotonic) {
                (
                    ReasonKind::Package,
                    since(self.ran_at),
                    package_summary(&seen.observation),
                )
            } else if policy.on_package
                && let Some(times) = self.is_abnormal_too_often(now.monotonic)
            {
                let often = format!("{times} times within a minute");
                let summary = package_summary(&seen.observation);
                (
                    ReasonKind::Package,
                    since(self.ran_at),
                    format!("{summary}, {often}"),
                )
            } else {
                return None;
            };
        Some(Cause {
            reason: FailoverReason {
                evidence: evidence(&seen.observation, &summary, now),
                kind,
                summary,
            },
            lasts: self.counted(lasts, now.monotonic),
        })
    }

    /// Whether it has been heard without a break for [`STABILITY`].
    #[must_use]
    pub fn has_returned(&self, now: Moment) -> bool {
        let lasts = |at: Monotonic| now.monotonic.since(at) >= STABILITY;
        self.is_heard(now.monotonic) && self.heard_since.is_some_and(lasts)
    }

    /// Whether a reason of `kind` has cleared and nothing else speaks against the server (C5): it has been
    /// heard, running and with a volume that takes recordings for [`STABILITY`].
    #[must_use]
    pub fn has_cleared(&self, kind: ReasonKind, policy: &Policy, now: Moment) -> bool {
        let lasts = |since: Option<Monotonic>| since.is_some_and(|at| now.monotonic.since(at) >= STABILITY);
        let counts = kind == ReasonKind::Storage || policy.on_storage;
        let volume = match counts {
            true => self.normal_since,
            false => self.undamaged_since,
        };
        let has_room = !(counts && policy.full_is_damage) || lasts(self.roomy_since);
        self.is_heard(now.monotonic)
            && lasts(self.heard_since)
            && lasts(self.running_since)
            && lasts(volume)
            && has_room
    }

    /// Whatever was wrong with the server until now was meant: every duration counts from here on.
    pub fn excuse(&mut self, now: Monotonic) {
        self.excused = Some(now);
        self.spells = Spells::default();
    }

    /// As much of a duration up to now as counts.
    fn counted(&self, duration: Duration, now: Monotonic) -> Duration {
        self.excused
            .map_or(duration, |excused| duration.min(now.since(excused)))
    }

    /// Counts the faults of the server: to be told the time often, under the policy of then.
    pub fn count_faults(&mut self, policy: &Policy, now: Moment) {
        let reason = self.cause(policy, now);
        let well = reason.is_none() && self.has_cleared(ReasonKind::Disconnection, policy, now);
        self.faults.note(reason.is_some(), well, now.monotonic);
    }

    /// Whether the server has been well for as long as its faults ask of it, so that it may be handed back to: at
    /// once after the first, and for [`LONGEST_HOLD`] at most, however many there were within [`FAULT_WINDOW`].
    #[must_use]
    pub fn has_settled(&self, now: Monotonic) -> bool {
        self.faults.are_over(now)
    }

    /// What it has to do for that, in words.
    #[must_use]
    pub fn what_settles(&self, now: Monotonic) -> String {
        let (times, hold) = (self.faults.recent(now), self.faults.hold(now).as_secs());
        format!("stay well for {hold} s: it failed {times} times within an hour")
    }

    fn is_abnormal_too_often(&self, now: Monotonic) -> Option<usize> {
        self.abnormal_since?;
        self.spells.too_many(now)
    }

    fn is_abnormal_for_long(&self, now: Monotonic) -> bool {
        self.abnormal_since
            .is_some_and(|since| self.counted(now.since(since), now) > PACKAGE_PATIENCE)
    }
}

/// Keeps the time since which `holds` has held without a break.
fn hold(since: &mut Option<Monotonic>, holds: bool, now: Monotonic) {
    if holds {
        since.get_or_insert(now);
    } else {
        *since = None;
    }
}

/// Keeps the time at which `holds` held last.
fn note(at: &mut Option<Monotonic>, holds: bool, now: Monotonic) {
    if holds {
        *at = Some(now);
    }
}

/// Whether a server is heard on any path.
#[must_use]
pub fn is_heard(observation: &Observation) -> bool {
    observation.paths.broker || observation.paths.direct
}

fn is_abnormal(state: PackageState) -> bool {
    match state {
        PackageState::Running | PackageState::Starting => false,
        PackageState::Crashed
        | PackageState::Disabled
        | PackageState::Uninstalled
        | PackageState::NotAnswering
        | PackageState::WrongVersion => true,
    }
}

fn package_words(state: PackageState) -> &'static str {
    match state {
        PackageState::Running => "running",
        PackageState::Starting => "starting",
        PackageState::Crashed => "crashed",
        PackageState::Disabled => "disabled",
        PackageState::Uninstalled => "uninstalled",
        PackageState::NotAnswering => "not answering",
        PackageState::WrongVersion => "of the wrong version",
    }
}

fn package_summary(observation: &Observation) -> String {
    let state = package_words(observation.package.state);
    with_evidence(
        format!("recording service {state}"),
        &observation.package.evidence,
    )
}

/// Whether a volume is a reason for a failover under a policy that names volumes.
fn is_ill(storage: &Storage, policy: &Policy) -> bool {
    storage.state != StorageState::Normal || (policy.full_is_damage && storage.full)
}

fn storage_words(observation: &Observation) -> String {
    let state = match observation.storage.state {
        StorageState::Normal if observation.storage.full => "full although retention should have made room",
        StorageState::Normal => "normal",
        StorageState::Degraded => "degraded",
        StorageState::Damaged => "damaged",
    };
    with_evidence(format!("recording volume {state}"), &observation.storage.evidence)
}

fn with_evidence(words: String, evidence: &str) -> String {
    if evidence.is_empty() {
        words
    } else {
        format!("{words}: {evidence}")
    }
}

/// What was observed, or, if the observer gave no words for it, what was concluded.
fn evidence(observation: &Observation, summary: &str, now: Moment) -> Vec<Evidence> {
    if observation.evidence.is_empty() {
        vec![Evidence {
            at: now.wall,
            observer: "orchestrator".to_owned(),
            seen: summary.to_owned(),
        }]
    } else {
        observation.evidence.clone()
    }
}
