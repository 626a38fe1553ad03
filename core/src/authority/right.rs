//! The server's side: what it may do now. Nothing of it is ever persisted; an assignment read from the disk lets a
//! server film, never act.

use super::{ASK_AGAIN, Claim, ECHO_AGAIN, LEASE, SKEW, Word};
use crate::{
    assignment::{Assignment, Epoch},
    ids::{Incarnation, ServerId},
    time::{Moment, Monotonic},
};

/// What happens to it.
#[derive(Clone, Debug, PartialEq)]
pub enum Input<'a> {
    /// It consumes its queue: on a new connection, or anew on the old one.
    Listening,
    /// It does not any more, or was told that its consumer is cancelled.
    Deaf,
    /// An assignment came in, or was read from the disk. Comes before anything is done about it.
    Assigned(&'a Assignment),
    /// Something else came in through its queue.
    Heard(Word),
    /// Something came in through its queue that it can't read: it may have been a revocation.
    Garbled,
    /// Time has passed.
    Tick,
}

/// What it is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Tell the host; may be lost or come late.
    Claim(Claim),
    /// Send this through its own queue, on the connection on which it consumes.
    Echo(Word),
}

/// A server's right to act.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Right {
    server: ServerId,
    incarnation: Incarnation,
    assigned: Option<Assigned>,
    listening: bool,
    number: u64,
    /// Since when it is alone with the right.
    granted: Option<Monotonic>,
    /// The echo that is under way.
    outstanding: Option<(u64, Monotonic)>,
    sequence: u64,
    /// When the last echo was sent that came back.
    fresh: Option<Monotonic>,
    claimed_at: Option<Monotonic>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Assigned {
    epoch: Epoch,
    bears: Option<ServerId>,
}

impl Right {
    /// A server that has just started, and has none.
    #[must_use]
    pub fn new(server: ServerId, incarnation: Incarnation) -> Self {
        Self {
            server,
            incarnation,
            assigned: None,
            listening: false,
            number: 0,
            granted: None,
            outstanding: None,
            sequence: 0,
            fresh: None,
            claimed_at: None,
        }
    }

    /// Takes one input and says what is to be done about it.
    pub fn step(&mut self, input: Input<'_>, now: Moment) -> Vec<Effect> {
        match input {
            Input::Listening => {
                self.end();
                self.listening = true;
            }
            Input::Deaf => {
                self.end();
                self.listening = false;
            }
            Input::Assigned(assignment) => self.assigned(assignment),
            Input::Heard(word) => self.hear(word, now),
            Input::Garbled => self.end(),
            Input::Tick => {}
        }
        self.go_on(now.monotonic)
    }

    /// Whether it may act at this very moment. Asked right before each action; an action under way can't be
    /// called back.
    #[must_use]
    pub fn may_act(&self, now: Moment) -> bool {
        let fresh = self.fresh.is_some_and(|sent| now.monotonic.since(sent) < LEASE);
        self.granted.is_some() && fresh
    }

    /// Why it may not act at this very moment, in words; none if it may.
    #[must_use]
    pub fn why_not(&self, now: Moment) -> Option<&'static str> {
        let bears = self
            .assigned
            .as_ref()
            .is_some_and(|assigned| assigned.bears.is_some());
        if self.may_act(now) {
            None
        } else if !bears {
            Some("it bears no identity")
        } else if !self.listening {
            Some("it does not hear its queue: it has no connection to the broker")
        } else if self.granted.is_none() {
            Some("the host has not granted it")
        } else {
            Some("its own messages don't come back through its queue")
        }
    }

    /// Since when nobody else can have done anything about an event that it sees, if it has been given the right.
    #[must_use]
    pub fn alone_since(&self) -> Option<Monotonic> {
        self.granted
    }

    /// What it claims now.
    #[must_use]
    pub fn claim(&self) -> Claim {
        let bears = |assigned: &Assigned| Some((assigned.bears.clone()?, assigned.epoch));
        Claim {
            server: self.server.clone(),
            incarnation: self.incarnation.clone(),
            number: self.number,
            wants: self.assigned.as_ref().and_then(bears),
        }
    }

    /// Any assignment but the very one that it has ends the right, those that are refused included.
    fn assigned(&mut self, assignment: &Assignment) {
        let new = Assigned {
            epoch: assignment.epoch,
            bears: assignment.role.identity().cloned(),
        };
        if self.assigned.as_ref() == Some(&new) {
            return;
        }
        self.end();
        if self.assigned.as_ref().is_none_or(|known| known.epoch < new.epoch) {
            self.assigned = Some(new);
        }
    }

    fn hear(&mut self, word: Word, now: Moment) {
        match word {
            Word::Revoke => self.end(),
            Word::Grant { claim, alone_ms } => {
                if self.listening && claim.wants.is_some() && claim == self.claim() {
                    // The host's clock may run faster than this one.
                    let alone = std::time::Duration::from_millis(alone_ms) * 4 / 5;
                    let since = Monotonic(now.monotonic.0.saturating_sub(alone) + SKEW);
                    self.granted.get_or_insert(since);
                }
            }
            Word::Echo {
                incarnation,
                number,
                sequence,
            } => {
                let own = incarnation == self.incarnation && number == self.number;
                if let Some((_, sent)) = self
                    .outstanding
                    .take_if(|(under_way, _)| own && *under_way == sequence)
                {
                    self.fresh = Some(sent);
                }
            }
        }
    }

    /// The right is over, and whatever was given for it is void from now on.
    fn end(&mut self) {
        self.number += 1;
        self.granted = None;
        self.outstanding = None;
        self.fresh = None;
        self.claimed_at = None;
    }

    /// Claims, and echoes: one under way at most, given up after a lease.
    fn go_on(&mut self, now: Monotonic) -> Vec<Effect> {
        let mut effects = Vec::new();
        let due = |at: Option<Monotonic>, every| at.is_none_or(|at| now.since(at) >= every);
        // A first word even without an assignment: that everything of before is void.
        let answered = self.granted.is_some() || (self.claim().wants.is_none() && self.claimed_at.is_some());
        if !answered && due(self.claimed_at, ASK_AGAIN) {
            self.claimed_at = Some(now);
            effects.push(Effect::Claim(self.claim()));
        }
        let wants = self.listening
            && self
                .assigned
                .as_ref()
                .is_some_and(|assigned| assigned.bears.is_some());
        let lost = self.outstanding.is_some_and(|(_, sent)| now.since(sent) >= LEASE);
        if lost {
            self.outstanding = None;
        }
        if wants && self.outstanding.is_none() && due(self.fresh, ECHO_AGAIN) {
            self.sequence += 1;
            self.outstanding = Some((self.sequence, now));
            effects.push(Effect::Echo(Word::Echo {
                incarnation: self.incarnation.clone(),
                number: self.number,
                sequence: self.sequence,
            }));
        }
        effects
    }
}
