//! One failover, from its trigger to the end of failback: a state machine without a fleet around it.
//!
//! What it needs to know is handed to it as [`Around`]; it moves by one transition at a time ([`Failover::advance`]),
//! so that its caller can turn each into assignments before the next. It is level-triggered: a lost or repeated
//! input does no harm, and a restart goes on from what was persisted. Which assignment follows from its state
//! is for the fleet to say.

mod advance;
pub(crate) mod begin;
mod handing_back;
mod licenses;
pub mod overlay;
pub(crate) mod planned;
mod replacement;
mod sessions;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde::{Deserialize, Serialize};

pub use self::{
    begin::Beginning,
    handing_back::RETURN_PATIENCE,
    licenses::{LicenseMove, MoveState},
    replacement::Replacement,
};
use crate::{
    contract::{
        api::{Considered, FailoverReason, FailoverView, Phase, ReasonKind, Step},
        heartbeat::{DamagedSegment, Progress, ServerReport},
    },
    ids::{CameraId, FailoverId, ServerId},
    policy::{Failback, Range},
    selection::Selection,
    settings::BundleHash,
    time::{Moment, Monotonic, Timestamp},
    trigger::Cause,
};

/// The steps that a failover keeps; beyond them waiting is no longer noted, only phases are.
const MOST_STEPS: usize = 200;

/// One failover: everything about it that must outlive the process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failover {
    /// Which.
    pub id: FailoverId,
    /// The recording server.
    pub server: ServerId,
    /// Where it is.
    pub phase: Phase,
    /// Why; the reason of the last fault, if the server failed again during failback.
    pub reason: FailoverReason,
    /// Whether the reason has cleared, or a person ended the failover.
    pub reason_cleared: bool,
    /// Who started it by hand; none if it started by itself.
    pub started_by: Option<String>,
    /// The failover server that this person chose.
    pub wanted: Option<ServerId>,
    /// The settings of before the fault, which are restored in the end (G6).
    pub settings: BundleHash,
    /// What people changed of them meanwhile, for the failover server only (E13).
    #[serde(default)]
    pub overlay: overlay::Overlay,
    /// What the failover server does.
    pub range: Range,
    /// What becomes of the recordings.
    pub failback: Failback,
    /// Failover servers that bear or bore the identity in this failover, in order.
    pub holders: Vec<Holder>,
    /// The recording server films until the failover server does: on, or again when that one fails.
    pub overlap: bool,
    /// It is a planned switch (J8): neither server stops before the other films all that it films.
    #[serde(default)]
    pub planned: bool,
    /// Cameras that the recording server has let go of although it films on, since they allow one session, or none beside its
    /// own.
    #[serde(default)]
    pub released: BTreeSet<CameraId>,
    /// A person started it again while it was being handed back; a failover server is sought.
    pub again: bool,
    /// The failover is to end: who wants it.
    pub ending: Option<Ending>,
    /// The failover server whose recordings may be fetched now: it has closed all of them.
    pub source: Option<ServerId>,
    /// How far the restoration is, of the source that is fetched from now.
    pub progress: Progress,
    /// What was fetched from sources before this one.
    pub delivered: Progress,
    /// Why fetching does not go on, by the recording server's own word; empty while it does.
    pub fetching_waits: String,
    /// What could not be handed back; the first thousand.
    pub damaged: Vec<DamagedSegment>,
    /// How many segments could not be.
    #[serde(default)]
    pub damaged_count: u64,
    /// Of these, the ones of sources before this one.
    #[serde(default)]
    pub damaged_before: u64,
    /// Why this failover server.
    pub selection: Vec<Considered>,
    /// What it waits for, in words; empty when for nothing.
    pub waits_for: String,
    /// Its steps, oldest first.
    pub steps: Vec<Step>,
    /// When it was decided.
    pub started_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// From the last sign of the server, or the last one without the fault, to the decision; 0 by hand.
    pub detection_ms: u64,
    /// From the decision to `serving`.
    pub takeover_ms: Option<u64>,
    /// When each camera was first heard to film on the failover server that bears the identity, or bore it last.
    #[serde(default)]
    pub first_frames: BTreeMap<CameraId, Timestamp>,
    /// Moves of the licence keys, in order.
    pub moves: Vec<LicenseMove>,
    /// Why the ledger has to be asked again; empty when it has answered.
    #[serde(default)]
    pub licenses_wait: String,
    /// What was given up of the recordings, in words; empty when nothing was.
    #[serde(default)]
    pub given_up: String,
    /// Another server has taken the recording server's place for good, and is [`Failover::server`] since (H1).
    #[serde(default)]
    pub replaced: Option<Replacement>,
    #[serde(skip)]
    decided: Mark,
    /// Since when the failover server has been without its assignment.
    #[serde(skip)]
    untaken_since: Mark,
    /// How many failover servers were replaced because they did not take theirs.
    #[serde(skip)]
    passed_over: u32,
    #[serde(skip)]
    incomplete_since: Mark,
}

/// A monotonic time that the process remembers for as long as it lives; no part of what is stored.
#[derive(Clone, Copy, Debug, Default)]
struct Mark(Option<Monotonic>);

impl PartialEq for Mark {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}
impl Eq for Mark {}

/// A failover server that bears or bore the identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Which.
    pub server: ServerId,
    /// What it is to do for the failover now.
    pub holding: Holding,
    /// Cameras that it has no room for, lowest priority first.
    pub disabled: Vec<CameraId>,
    /// If its recordings arrived: up to which beginning of its filming, so that it erases none that it has made since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arrived_up_to: Option<u64>,
    /// Its part of [`Failover::delivered`].
    #[serde(default)]
    pub delivered: Progress,
}

/// What a failover server is to do for a failover.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Holding {
    /// It films.
    Films,
    /// It films no more, and keeps its recordings until they are fetched.
    Owes,
    /// It is to erase its recordings: they arrived, or were dropped by the policy or by a person.
    Erases,
    /// It has taken the recording server's place for good: its recordings are to become its own.
    Keeps,
    /// It said that it has none any more.
    Done,
}

/// How a failover came to its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ending {
    /// Who ended it; none if the reason had cleared.
    pub by: Option<String>,
}

/// What a failover has to know of the fleet around it.
pub struct Around<'a> {
    /// The recording server.
    pub original: Side<'a>,
    /// The failover servers of [`Failover::holders`], in the same order.
    pub holders: Vec<Side<'a>>,
    /// Enabled cameras of the settings, each to be run by the recording server.
    pub cameras: &'a BTreeSet<CameraId>,
    /// The same with what people changed meanwhile: each to be run by the failover server.
    pub stand_in_cameras: &'a BTreeSet<CameraId>,
    /// Of these, the ones that allow one session only.
    pub one_session: &'a BTreeSet<CameraId>,
    /// A reason for a failover of the recording server that holds now.
    pub cause: Option<Cause>,
    /// Whether this failover's reason has cleared.
    pub cleared: bool,
    /// What a recording server that failed several times has still to do before it is handed back to, in words;
    /// none if nothing.
    pub unsettled: Option<String>,
    /// Once it is over: the recording server's settings by which it could be handed back to again, or what that would
    /// wait for, in words.
    pub reopens: Result<BundleHash, String>,
    /// C5.
    pub stop_automatically: bool,
    /// For how long a failover server may leave its assignment untaken before another one is sought.
    pub patience: Duration,
    /// Seeks a failover server, other than the one named.
    pub select: &'a dyn Fn(&Failover, Option<&ServerId>) -> Selection,
    /// The cameras that a failover server has no room for.
    pub surplus: &'a dyn Fn(&ServerId) -> Vec<CameraId>,
}

/// How one of the servers of a failover is.
#[derive(Clone, Copy, Debug)]
pub struct Side<'a> {
    /// Whether it is heard.
    pub heard: bool,
    /// Whether it is heard through the broker, so that an assignment would reach it.
    pub connected: bool,
    /// Whether it is in maintenance: nothing new is to begin with it by itself.
    pub maintenance: bool,
    /// Why it has to be given up as a failover server, in words.
    pub failed: Option<&'a str>,
    /// What it said last, if it said that it has its newest assignment.
    pub reached: Option<&'a ServerReport>,
    /// What it said last, by whichever assignment.
    pub said: Option<&'a ServerReport>,
}

impl Failover {
    /// The failover server that bears the identity now.
    #[must_use]
    pub fn stand_in(&self) -> Option<&Holder> {
        self.holders
            .iter()
            .find(|holder| holder.holding == Holding::Films)
    }

    /// The failover server that bears the identity, or bore it last.
    #[must_use]
    pub fn last_stand_in(&self) -> Option<&ServerId> {
        self.stand_in()
            .or(self.holders.last())
            .map(|holder| &holder.server)
    }

    /// What `server` is to do for this failover.
    #[must_use]
    pub fn holding(&self, server: &ServerId) -> Option<Holding> {
        self.holders
            .iter()
            .find(|holder| holder.server == *server)
            .map(|holder| holder.holding)
    }

    /// Enters the failover servers that it keeps busy, and strikes off those that it has let go.
    pub(crate) fn mark_busy(&self, busy: &mut BTreeMap<ServerId, FailoverId>) {
        for holder in &self.holders {
            if holder.holding != Holding::Done {
                busy.insert(holder.server.clone(), self.id.clone());
            } else if busy.get(&holder.server) == Some(&self.id) {
                busy.remove(&holder.server);
            }
        }
    }

    /// Whether nothing of it is left to be done: it ended, all copies are erased and the licences are back.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.phase.is_final()
            && self.holders.iter().all(|holder| holder.holding == Holding::Done)
            && self.licenses_settled()
    }

    /// Whether the recording server is to film, and not the failover server alone.
    #[must_use]
    pub fn original_films(&self) -> bool {
        match self.phase {
            Phase::TakingOver | Phase::Serving => self.overlap || self.ending.is_some(),
            Phase::Selecting | Phase::Restoring | Phase::Replacing | Phase::Completed | Phase::Aborted => {
                true
            }
        }
    }

    /// The failover as it is shown.
    #[must_use]
    pub fn view(&self) -> FailoverView {
        FailoverView {
            id: self.id.clone(),
            server: self.server.clone(),
            stand_in: self.last_stand_in().cloned(),
            phase: self.phase,
            reason: self.reason.clone(),
            reason_cleared: self.reason_cleared,
            planned: self.planned,
            replaces: self.replaced.as_ref().map(|replaced| replaced.original.clone()),
            waits_for: self.waits_for.clone(),
            started_at: self.started_at,
            ended_at: self.ended_at,
            detection_ms: self.detection_ms,
            takeover_ms: self.takeover_ms,
            disabled: self
                .stand_in()
                .or(self.holders.last())
                .map(|holder| holder.disabled.clone())
                .unwrap_or_default(),
            progress: self.total_progress(),
            unread: self.unread(),
            damaged: self.damaged.clone(),
            damaged_count: self.damaged_count,
            overlay: self.overlay.changes(),
            selection: self.selection.clone(),
            licenses_settled: self.licenses_settled(),
            steps: self.steps.clone(),
            first_frames: self.first_frames.clone(),
            trace: None,
        }
    }

    fn is_automatic(&self) -> bool {
        self.reason.kind != ReasonKind::Manual
    }

    /// Writes down what happened, once it has.
    fn note(&mut self, phase: Phase, what: impl Into<String>, now: Moment) {
        if phase == self.phase && self.steps.len() >= MOST_STEPS {
            return;
        }
        self.phase = phase;
        self.steps.push(Step {
            at: now.wall,
            phase,
            what: what.into(),
        });
    }

    /// Writes down what a person did beside its course.
    pub(crate) fn say(&mut self, what: String, now: Moment) {
        self.note(self.phase, what, now);
    }

    /// Says what it waits for.
    fn wait(&mut self, what: impl Into<String>) {
        self.waits_for = what.into();
    }

    fn set_holding(&mut self, server: &ServerId, holding: Holding) {
        for holder in self.holders.iter_mut().filter(|holder| holder.server == *server) {
            holder.holding = holding;
        }
    }
}
