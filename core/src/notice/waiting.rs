//! What waits: how it gets there, when it is sent, and what becomes of it.

use std::time::Duration;

use super::{
    Cause, Effect, FACTS_IN_A_NOTICE, Item, Key, Notice, Now, Rule, SEEN_KEPT, Settings, State, TOLD_KEPT,
    Told, Waiting,
};
use crate::{
    contract::event::{Event, Fact},
    time::Monotonic,
};

/// Damaged segments that are kept of a fact, and pieces of evidence: a message is read by people.
const DETAILS_KEPT: usize = 20;

impl Waiting {
    /// For how long it has waited, and the same in milliseconds.
    pub(super) fn waited(&self, now: Now) -> (Duration, u64) {
        let waited = Duration::from_millis(self.notice.waited_ms) + now.monotonic.since(self.counted);
        (waited, u64::try_from(waited.as_millis()).unwrap_or(u64::MAX))
    }
}

impl State {
    /// A fact: for each receiver that wants it a message, or a part of one, or one more that is counted.
    pub(super) fn hear(
        &mut self,
        settings: &Settings,
        id: &str,
        fact: &Fact,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let cause = Cause::of(fact);
        let wanted: Vec<&Rule> = settings
            .rules
            .iter()
            .filter(|rule| rule.wants(fact, &cause))
            .collect();
        if wanted.is_empty() || self.seen.iter().any(|seen| seen == id) {
            return;
        }
        self.seen.push_back(id.to_owned());
        while self.seen.len() > SEEN_KEPT {
            self.seen.pop_front();
        }
        effects.push(Effect::Seen(id.to_owned()));
        let item = Item {
            id: id.to_owned(),
            fact: shortened(fact),
            repeats: 0,
            about: cause.about.clone(),
        };
        for rule in wanted {
            self.tell(settings, rule, &cause.story, item.clone(), now, effects);
        }
    }

    fn tell(
        &mut self,
        settings: &Settings,
        rule: &Rule,
        story: &str,
        item: Item,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        if self.is_repetition(rule, story, &item, effects) {
            return;
        }
        let key = (rule.name.clone(), item.about.clone());
        self.remember(
            key,
            Told {
                repeats: 0,
                last: None,
            },
            now,
            effects,
        );
        if !rule.each && self.join(rule, story, &item, now, effects) {
            return;
        }
        self.make(settings, rule, story, item, now, effects);
    }

    /// Counts a repetition: in the message that waits, or beside what was told.
    fn is_repetition(&mut self, rule: &Rule, story: &str, item: &Item, effects: &mut Vec<Effect>) -> bool {
        let sending = self.sending(&rule.name);
        let same = self.waiting.values_mut().find_map(|waiting| {
            let notice = &mut waiting.notice;
            let at = notice.items.iter().position(|known| known.about == item.about)?;
            gathers(notice, rule, story, sending).then_some((notice, at))
        });
        if let Some((notice, at)) = same {
            let known = &mut notice.items[at];
            known.repeats = known.repeats.saturating_add(1).saturating_add(item.repeats);
            known.fact = item.fact.clone();
            // The newest state last, as it happened.
            if !rule.each {
                notice.items[at..].rotate_left(1);
            }
            notice.urgent |= rule.is_urgent(&item.fact);
            effects.push(Effect::Save(notice.clone()));
            return true;
        }
        let key = (rule.name.clone(), item.about.clone());
        let Some((told, _)) = self.told.get_mut(&key) else {
            return false;
        };
        told.repeats = told.repeats.saturating_add(1);
        told.last = Some(item.clone());
        effects.push(Effect::SaveTold(key, told.clone()));
        true
    }

    /// Puts it into the message of its story that waits, if there is one.
    fn join(&mut self, rule: &Rule, story: &str, item: &Item, now: Now, effects: &mut Vec<Effect>) -> bool {
        let sending = self.sending(&rule.name);
        let mut all = self.waiting.values_mut();
        let Some(waiting) = all.find(|waiting| gathers(&waiting.notice, rule, story, sending)) else {
            return false;
        };
        if waiting.notice.items.len() < FACTS_IN_A_NOTICE {
            waiting.notice.items.push(item.clone());
        } else {
            waiting.notice.more = waiting.notice.more.saturating_add(1);
        }
        if rule.is_urgent(&item.fact) {
            waiting.notice.urgent = true;
            waiting.due = waiting.due.min(now.monotonic);
        }
        effects.push(Effect::Save(waiting.notice.clone()));
        true
    }

    fn make(
        &mut self,
        settings: &Settings,
        rule: &Rule,
        story: &str,
        item: Item,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let sending = self.sending(&rule.name);
        let numbers: Vec<u64> = self
            .waiting
            .values()
            .filter(|waiting| waiting.notice.receiver == rule.name)
            .map(|waiting| waiting.notice.number)
            .collect();
        if numbers.len() >= settings.most_waiting.max(1)
            && let Some(oldest) = numbers.into_iter().find(|number| Some(*number) != sending)
            && let Some(given_up) = self.waiting.remove(&oldest)
        {
            let why = format!(
                "{} messages wait for this receiver, and no more are kept",
                settings.most_waiting
            );
            effects.push(Effect::GiveUp(given_up.notice, why));
        }
        let urgent = rule.is_urgent(&item.fact);
        let notice = Notice {
            number: self.next,
            id: format!("{}-{}", item.id, rule.name),
            receiver: rule.name.clone(),
            story: story.to_owned(),
            since: item.fact.at,
            urgent,
            items: vec![item],
            more: 0,
            attempts: 0,
            waited_ms: 0,
        };
        self.next += 1;
        effects.push(Effect::Save(notice.clone()));
        let wait = if urgent { Duration::ZERO } else { rule.gather };
        self.wait(notice, Monotonic(now.monotonic.0 + wait), now);
    }

    pub(super) fn wait(&mut self, notice: Notice, due: Monotonic, now: Now) {
        let waiting = Waiting {
            due,
            counted: now.monotonic,
            notice,
        };
        self.waiting.insert(waiting.notice.number, waiting);
    }

    fn remember(&mut self, key: Key, told: Told, now: Now, effects: &mut Vec<Effect>) {
        if self.told.len() >= TOLD_KEPT {
            let oldest = self.told.iter().min_by_key(|(_, (_, since))| *since);
            if let Some(key) = oldest.map(|(key, _)| key.clone()) {
                self.told.remove(&key);
                effects.push(Effect::ForgetTold(key));
            }
        }
        effects.push(Effect::SaveTold(key.clone(), told.clone()));
        self.told.insert(key, (told, now.monotonic));
    }

    /// What was repeated while it was not told again is told in one message, with their number.
    pub(super) fn tell_repeats(&mut self, settings: &Settings, now: Now, effects: &mut Vec<Effect>) {
        let over: Vec<Key> = self
            .told
            .iter()
            .filter(|(_, (_, since))| now.monotonic.since(*since) >= settings.repeat)
            .map(|(key, _)| key.clone())
            .collect();
        for key in over {
            let Some((told, _)) = self.told.remove(&key) else {
                continue;
            };
            effects.push(Effect::ForgetTold(key.clone()));
            let rule = settings.rules.iter().find(|rule| rule.name == key.0);
            if let (Some(rule), Some(last)) = (rule, told.last) {
                // The newest of them is told; the others are its repetitions.
                let item = Item {
                    repeats: told.repeats.saturating_sub(1),
                    ..last
                };
                let story = Cause::of(&item.fact).story;
                self.tell(settings, rule, &story, item, now, effects);
            }
        }
    }

    pub(super) fn sent(&mut self, number: u64, effects: &mut Vec<Effect>) {
        let Some(waiting) = self.waiting.remove(&number) else {
            return;
        };
        let line = self.lines.entry(waiting.notice.receiver).or_default();
        line.sending = None;
        line.failures = 0;
        effects.push(Effect::Remove(number));
    }

    pub(super) fn failed(
        &mut self,
        settings: &Settings,
        number: u64,
        (why, refused, luck): (&str, bool, u16),
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let Some(waiting) = self.waiting.get_mut(&number) else {
            return;
        };
        let line = self.lines.entry(waiting.notice.receiver.clone()).or_default();
        line.sending = None;
        // How long it was held back by quiet hours before the first attempt does not count.
        if waiting.notice.attempts == 0 {
            waiting.counted = now.monotonic;
        }
        let (waited, waited_ms) = waiting.waited(now);
        waiting.notice.waited_ms = waited_ms;
        waiting.counted = now.monotonic;
        waiting.notice.attempts = waiting.notice.attempts.saturating_add(1);
        // A receiver that refuses one message is there: only that message waits.
        if refused {
            line.failures = 0;
            waiting.due = Monotonic(now.monotonic.0 + pause(settings, waiting.notice.attempts, luck));
        } else {
            line.failures = line.failures.saturating_add(1);
            line.due = Monotonic(now.monotonic.0 + pause(settings, line.failures, luck));
        }
        if waited >= settings.give_up {
            let why = format!("after {} attempt(s): {why}", waiting.notice.attempts);
            let notice = waiting.notice.clone();
            self.waiting.remove(&number);
            effects.push(Effect::GiveUp(notice, why));
        } else {
            effects.push(Effect::Save(waiting.notice.clone()));
            self.take_repeats(number, effects);
        }
    }

    /// What was repeated while a message was under way is told with it, since it did not arrive.
    pub(super) fn take_repeats(&mut self, number: u64, effects: &mut Vec<Effect>) {
        let Some(waiting) = self.waiting.get_mut(&number) else {
            return;
        };
        let notice = &mut waiting.notice;
        let mut changed = false;
        for item in &mut notice.items {
            let key = (notice.receiver.clone(), item.about.clone());
            let Some((told, _)) = self.told.get_mut(&key) else {
                continue;
            };
            let Some(last) = told.last.take() else {
                continue;
            };
            item.fact = last.fact;
            item.repeats = item.repeats.saturating_add(std::mem::take(&mut told.repeats));
            effects.push(Effect::SaveTold(key, told.clone()));
            changed = true;
        }
        if changed {
            effects.push(Effect::Save(notice.clone()));
        }
    }

    /// Sends to each receiver that is free the oldest message that may be sent now.
    pub(super) fn dispatch(&mut self, settings: &Settings, now: Now, effects: &mut Vec<Effect>) {
        for rule in &settings.rules {
            let line = self.lines.entry(rule.name.clone()).or_default();
            if line.sending.is_some() || line.due > now.monotonic {
                continue;
            }
            let quiet = rule.quiet.is_some_and(|quiet| quiet.holds(now.local_minutes));
            let next = self.waiting.values().find(|waiting| {
                waiting.notice.receiver == rule.name
                    && waiting.due <= now.monotonic
                    && (!quiet || waiting.notice.urgent)
            });
            if let Some(waiting) = next {
                line.sending = Some(waiting.notice.number);
                effects.push(Effect::Send(waiting.notice.clone()));
            }
        }
    }

    fn sending(&self, receiver: &str) -> Option<u64> {
        self.lines.get(receiver).and_then(|line| line.sending)
    }
}

/// Whether what is told of a story to a receiver still goes into this message, which is not the one that is being sent.
fn gathers(notice: &Notice, rule: &Rule, story: &str, sending: Option<u64>) -> bool {
    notice.receiver == rule.name && notice.story == story && Some(notice.number) != sending
}

/// The pause after failure number `failures`: between half of it and all of it.
fn pause(settings: &Settings, failures: u32, luck: u16) -> Duration {
    let doubled = 2_u32.saturating_pow(failures.saturating_sub(1).min(30));
    let whole = settings
        .first_pause
        .saturating_mul(doubled)
        .min(settings.longest_pause);
    whole.mul_f64(0.5 + f64::from(luck.min(1000)) / 2000.0)
}

/// A fact without the details that no message has room for.
fn shortened(fact: &Fact) -> Fact {
    let mut fact = fact.clone();
    match &mut fact.event {
        Event::FailoverCompleted { damaged, .. } => damaged.truncate(DETAILS_KEPT),
        Event::FailoverStarted { reason, .. } | Event::FailoverWaiting { reason, .. } => {
            reason.evidence.truncate(DETAILS_KEPT);
        }
        _ => {}
    }
    fact
}
