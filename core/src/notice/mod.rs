//! Who is told of what: of the facts on the bus, which become messages to people and programs, when, and how often.
//!
//! Each receiver has a [`Rule`]. A fact has a [`Cause`]: what has been told of it already is counted instead of told
//! again, and what waits for a receiver that is told in whole is put into one message per story (one failover, one
//! domain's protection). A message is stored before it is sent, and given up, loudly, once it has waited for longer
//! than [`Settings::give_up`]. A receiver that can't be reached is tried again with growing pauses, in order; one that
//! refuses a message gets the others meanwhile.
//!
//! What a message says, and how it is sent, is the service's affair.

mod cause;
mod rule;
mod waiting;

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use serde::{Deserialize, Serialize};

pub use cause::Cause;
pub use rule::{ALL, Quiet, Rule, TOLD, URGENT, matches};

use crate::{
    contract::event::Fact,
    time::{Monotonic, Timestamp},
};

/// Facts of which the ids are remembered, so that one that the broker hands out again is not told again: more than
/// it hands out before the first is acknowledged.
pub const SEEN_KEPT: usize = 512;
/// The most that is remembered of what was told. The oldest is forgotten, and would be told again.
pub const TOLD_KEPT: usize = 10_000;
/// The most facts in one message; what is beyond is counted.
pub const FACTS_IN_A_NOTICE: usize = 50;
/// For how long [`State::idle`] lets the service wait: quiet hours end by the clock on the wall.
const LONGEST_IDLE: Duration = Duration::from_secs(10);

/// What holds for all receivers.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The receivers.
    pub rules: Vec<Rule>,
    /// For how long the same is counted and not told again.
    pub repeat: Duration,
    /// For how long a message is tried from its first attempt on, not counting the time in which the notifier did not
    /// run.
    pub give_up: Duration,
    /// The most messages that wait for one receiver; the oldest is given up for a new one.
    pub most_waiting: usize,
    /// The pause after the first failure; it doubles with each.
    pub first_pause: Duration,
    /// The longest pause.
    pub longest_pause: Duration,
}

/// Now, as decisions here need it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// For durations.
    pub monotonic: Monotonic,
    /// Minutes since midnight where the receivers live, for quiet hours.
    pub local_minutes: u16,
}

/// One fact in a message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Item {
    /// The fact's id on the bus.
    pub id: String,
    /// The fact; the newest, if it was repeated.
    pub fact: Fact,
    /// How often it was repeated.
    pub repeats: u32,
    /// What it has in common with its repetitions.
    pub about: String,
}

/// One message to one receiver.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Notice {
    /// Its number: later ones have higher ones.
    pub number: u64,
    /// The same for each attempt to send it, and no other's: the id of its first fact, and its receiver.
    pub id: String,
    /// For whom.
    pub receiver: String,
    /// The story that it is a part of.
    pub story: String,
    /// When its first fact happened, by the host's clock. Only shown.
    pub since: Timestamp,
    /// Whether it is sent in quiet hours too.
    pub urgent: bool,
    /// What it tells, in order; never empty.
    pub items: Vec<Item>,
    /// How many facts besides had no room in it.
    pub more: u32,
    /// How often it was tried.
    pub attempts: u32,
    /// From the first attempt to the last, not counting the time in which the notifier did not run.
    pub waited_ms: u64,
}

/// What was told of one cause to one receiver.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Told {
    /// How often it happened again since, without being told.
    pub repeats: u32,
    /// The newest of those.
    pub last: Option<Item>,
}

/// Whom, and of what: the key of what was told.
pub type Key = (String, String);

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// A fact was heard, with its id on the bus.
    Fact(String, Fact),
    /// A message was taken by its receiver.
    Sent(u64),
    /// It was not.
    Failed {
        /// Which.
        number: u64,
        /// Why, in words.
        why: String,
        /// The receiver was there, and takes this one message not.
        refused: bool,
        /// 0 to 1000, drawn by the service, so that not all try again at the same moment.
        luck: u16,
    },
    /// Time has passed.
    Tick,
}

/// What has to be done, in this order: everything that is stored in one transaction, then what is sent.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Remember that the fact with this id was heard.
    Seen(String),
    /// Store a message, or what has become of it.
    Save(Notice),
    /// Forget a message: its receiver has it.
    Remove(u64),
    /// Store what was told.
    SaveTold(Key, Told),
    /// Forget what was told.
    ForgetTold(Key),
    /// Forget a message, put it among the dead letters, and say so.
    GiveUp(Notice, String),
    /// Send a message. Its receiver gets no other before [`Input::Sent`] or [`Input::Failed`].
    Send(Notice),
}

/// A message that waits, with what need not outlive a restart.
#[derive(Clone, Debug, PartialEq)]
struct Waiting {
    notice: Notice,
    /// Not before.
    due: Monotonic,
    /// Since when `waited_ms` is not counted yet.
    counted: Monotonic,
}

/// A receiver that can't be reached.
#[derive(Clone, Debug, Default, PartialEq)]
struct Line {
    /// The number of the message that is being sent.
    sending: Option<u64>,
    /// Failures since the last success.
    failures: u32,
    /// Nothing is sent before.
    due: Monotonic,
}

/// Everything that is to be told, and was.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    waiting: BTreeMap<u64, Waiting>,
    told: BTreeMap<Key, (Told, Monotonic)>,
    seen: VecDeque<String>,
    lines: BTreeMap<String, Line>,
    next: u64,
}

/// Goes one step. The state is changed as if all effects were carried out; if that fails, it has to be restored.
pub fn step(state: &mut State, settings: &Settings, input: Input, now: Now) -> Vec<Effect> {
    let mut effects = Vec::new();
    match input {
        Input::Fact(id, fact) => state.hear(settings, &id, &fact, now, &mut effects),
        Input::Sent(number) => state.sent(number, &mut effects),
        Input::Failed {
            number,
            why,
            refused,
            luck,
        } => state.failed(settings, number, (&why, refused, luck), now, &mut effects),
        Input::Tick => {}
    }
    state.tell_repeats(settings, now, &mut effects);
    state.dispatch(settings, now, &mut effects);
    effects
}

impl State {
    /// As it was stored. What was being sent may have arrived, and is sent again, under the same id.
    ///
    /// Messages to receivers that are no more are given up: carry the effects out.
    #[must_use]
    pub fn restore(
        settings: &Settings,
        notices: Vec<Notice>,
        told: Vec<(Key, Told)>,
        seen: Vec<String>,
        now: Now,
    ) -> (Self, Vec<Effect>) {
        let mut state = Self {
            // It was told an unknown time ago: the time in which it is not told again begins anew.
            told: told
                .into_iter()
                .map(|(key, told)| (key, (told, now.monotonic)))
                .collect(),
            seen: seen.into(),
            next: notices.iter().map(|notice| notice.number + 1).max().unwrap_or(1),
            ..Self::default()
        };
        let mut effects = Vec::new();
        for notice in notices {
            if settings.rules.iter().any(|rule| rule.name == notice.receiver) {
                let number = notice.number;
                state.wait(notice, now.monotonic, now);
                state.take_repeats(number, &mut effects);
            } else {
                let why = "no receiver of this name is configured any more".to_owned();
                effects.push(Effect::GiveUp(notice, why));
            }
        }
        let gone: Vec<Key> = state
            .told
            .keys()
            .filter(|(receiver, _)| !settings.rules.iter().any(|rule| rule.name == *receiver))
            .cloned()
            .collect();
        for key in gone {
            state.told.remove(&key);
            effects.push(Effect::ForgetTold(key));
        }
        (state, effects)
    }

    /// Messages that wait for a receiver, and for how long the one that waits longest does, in milliseconds.
    #[must_use]
    pub fn waiting_for(&self, receiver: &str, now: Now) -> (usize, u64) {
        let of_it = self
            .waiting
            .values()
            .filter(|waiting| waiting.notice.receiver == receiver);
        let ages = of_it.map(|waiting| waiting.waited(now).1);
        ages.fold((0, 0), |(count, oldest), age| (count + 1, age.max(oldest)))
    }

    /// For how long nothing is to be done if nothing happens.
    #[must_use]
    pub fn idle(&self, settings: &Settings, now: Now) -> Duration {
        let quiet = |notice: &Notice| {
            let rule = settings.rules.iter().find(|rule| rule.name == notice.receiver);
            let quiet = rule.and_then(|rule| rule.quiet);
            !notice.urgent && quiet.is_some_and(|quiet| quiet.holds(now.local_minutes))
        };
        let sends = self.waiting.values().filter_map(|waiting| {
            let line = self.lines.get(&waiting.notice.receiver);
            let free = line.is_none_or(|line| line.sending.is_none()) && !quiet(&waiting.notice);
            free.then(|| {
                let due = line.map_or(waiting.due, |line| waiting.due.max(line.due));
                due.since(now.monotonic)
            })
        });
        let repeats = self
            .told
            .values()
            .map(|(_, since)| settings.repeat.saturating_sub(now.monotonic.since(*since)));
        sends
            .chain(repeats)
            .min()
            .unwrap_or(LONGEST_IDLE)
            // Quiet hours hold back what is due: the clock on the wall is looked at once in a while.
            .clamp(Duration::from_millis(100), LONGEST_IDLE)
    }
}
