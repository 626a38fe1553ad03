//! What is done about an event, once or at least once. The intent is durable before anything is done.
//!
//! Doors and outputs happen at most once for one cause, on whichever server: they need the right to act, and what
//! another server may have done already is not made up for. Notifications happen at least once, on both servers if
//! need be, with a key that is the same on both.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::right::Right;
use crate::time::{Moment, Monotonic};

/// For how long what needs the right waits for it.
pub const WAITS: Duration = Duration::from_secs(30);
/// The most that waits.
pub const MOST_WAITING: usize = 1_000;
/// The keys of done actions that are remembered, against an event that a device sends again.
pub const REMEMBERED: usize = 10_000;

/// What an action promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Promise {
    /// At most once for one cause: doors, outputs.
    NeverTwice,
    /// At least once: notifications, PTZ, audio, a rule's recording.
    NeverMissed,
}

/// Something that is to be done about an event.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Cause {
    /// Made of device, event, device time and action: the same on every server that sees the event.
    pub key: String,
    /// What is promised.
    pub promise: Promise,
}

/// How far an action is. Stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// It is about to be done, or was when the process died.
    Intended,
    /// It is over: done, or given up.
    Over,
}

/// What happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// An event came in, at this time or later: what is read after a pause may have waited since the last read.
    Seen(Cause, Monotonic),
    /// The intent is durable.
    Stored(Cause),
    /// It was done.
    Done(Cause),
    /// Time has passed.
    Tick,
}

/// What is to be done, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Make it durable; after [`Stage::Intended`] say [`Input::Stored`].
    Store(Cause, Stage),
    /// Do it now, then say [`Input::Done`].
    Perform(Cause),
    /// Forget it: it was long ago.
    Forget(Cause),
    /// It is not done, and a person may want to know why.
    GiveUp(Cause, &'static str),
}

/// The actions of one server.
#[derive(Clone, Debug, Default)]
pub struct Actions {
    known: BTreeMap<Cause, Stage>,
    over: VecDeque<Cause>,
    waiting: VecDeque<(Cause, Monotonic)>,
}

impl Actions {
    /// A server that has just started, with what its disk knows. What may be missing is done again; what may have
    /// been done is not.
    #[must_use]
    pub fn restore(known: impl IntoIterator<Item = (Cause, Stage)>) -> (Self, Vec<Effect>) {
        let mut actions = Self {
            known: known.into_iter().collect(),
            ..Self::default()
        };
        let mut effects = Vec::new();
        for (cause, stage) in actions.known.clone() {
            match (stage, cause.promise) {
                (Stage::Over, _) => actions.over.push_back(cause),
                (Stage::Intended, Promise::NeverMissed) => effects.push(Effect::Perform(cause)),
                (Stage::Intended, Promise::NeverTwice) => {
                    effects.extend(actions.give_up(cause, "it may have been done before the restart"));
                }
            }
        }
        (actions, effects)
    }

    /// Takes one input and says what is to be done about it.
    pub fn step(&mut self, input: Input, right: &Right, now: Moment) -> Vec<Effect> {
        match input {
            Input::Seen(cause, at) => self.seen(cause, at, right, now),
            Input::Stored(cause) => self.stored(cause, right, now),
            Input::Done(cause) => self.over(cause),
            Input::Tick => self.look_at_waiting(right, now),
        }
    }

    fn seen(&mut self, cause: Cause, at: Monotonic, right: &Right, now: Moment) -> Vec<Effect> {
        let waits = self.waiting.iter().any(|(waiting, _)| *waiting == cause);
        if waits || self.known.contains_key(&cause) {
            return Vec::new();
        }
        match cause.promise {
            Promise::NeverMissed => self.intend(cause),
            Promise::NeverTwice if self.waiting.len() >= MOST_WAITING => {
                vec![Effect::GiveUp(cause, "too much waits for the right to act")]
            }
            Promise::NeverTwice => {
                self.waiting.push_back((cause, at));
                self.look_at_waiting(right, now)
            }
        }
    }

    fn intend(&mut self, cause: Cause) -> Vec<Effect> {
        self.known.insert(cause.clone(), Stage::Intended);
        vec![Effect::Store(cause, Stage::Intended)]
    }

    /// The right is asked for again: storing took its time.
    fn stored(&mut self, cause: Cause, right: &Right, now: Moment) -> Vec<Effect> {
        if self.known.get(&cause) != Some(&Stage::Intended) {
            return Vec::new();
        }
        if cause.promise == Promise::NeverMissed || right.may_act(now) {
            return vec![Effect::Perform(cause)];
        }
        self.give_up(cause, "the right to act was lost before it was done")
    }

    fn look_at_waiting(&mut self, right: &Right, now: Moment) -> Vec<Effect> {
        let mut effects = Vec::new();
        for (cause, at) in std::mem::take(&mut self.waiting) {
            match right.alone_since() {
                Some(since) if at < since => {
                    effects.extend(self.give_up(cause, "another server may have done it"));
                }
                Some(_) if right.may_act(now) => effects.extend(self.intend(cause)),
                _ if now.monotonic.since(at) >= WAITS => {
                    effects.extend(self.give_up(cause, "the right to act did not come in time"));
                }
                _ => self.waiting.push_back((cause, at)),
            }
        }
        effects
    }

    fn give_up(&mut self, cause: Cause, why: &'static str) -> Vec<Effect> {
        let mut effects = vec![Effect::GiveUp(cause.clone(), why)];
        effects.extend(self.over(cause));
        effects
    }

    fn over(&mut self, cause: Cause) -> Vec<Effect> {
        if self.known.insert(cause.clone(), Stage::Over) == Some(Stage::Over) {
            return Vec::new();
        }
        self.over.push_back(cause.clone());
        let mut effects = vec![Effect::Store(cause, Stage::Over)];
        while self.over.len() > REMEMBERED {
            if let Some(old) = self.over.pop_front() {
                self.known.remove(&old);
                effects.push(Effect::Forget(old));
            }
        }
        effects
    }
}
