//! The host's side: who is given the right to act, and when it is certain that nobody else has it.
//!
//! It remembers nothing beyond its process. Each start begins with a fence: a revocation through every queue that
//! there is, those of servers that a restored database knows nothing of included. Until [`OUTLAST`] after the
//! broker confirmed it nothing is granted. So a crash, a restore from a backup and a lost broker are one case.

use std::collections::BTreeMap;

use super::{ASK_AGAIN, Claim, OUTLAST, Word};
use crate::{
    assignment::Epoch,
    ids::{Incarnation, ServerId},
    time::{Moment, Monotonic},
};

/// What happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// The fleet says who is to act for an identity: the server, by the epoch of its newest assignment.
    Holder {
        /// For whom.
        identity: ServerId,
        /// Who; nobody when the identity is gone.
        holder: Option<(ServerId, Epoch)>,
    },
    /// A server says what it claims.
    Claimed(Claim),
    /// The broker has confirmed a publication, or has returned it because there is no such queue: then no echo can
    /// come back through it either.
    Confirmed(Ticket),
    /// Time has passed.
    Tick,
}

/// Names a publication, so that its confirm is known.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ticket {
    /// A revocation to every queue.
    Fence,
    /// A revocation to one server, about one claim.
    Revocation(Claim),
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Publish [`Word::Revoke`] to every queue that there is, then say [`Input::Confirmed`].
    Fence,
    /// Publish [`Word::Revoke`] to a server's queue, then say [`Input::Confirmed`] with the ticket.
    Revoke(ServerId, Ticket),
    /// Publish to a server's queue.
    Grant(ServerId, Word),
}

/// Who has the right to act, for all identities.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Granter {
    fence: Fence,
    seats: BTreeMap<ServerId, Seat>,
    /// The newest claim of each server.
    claims: BTreeMap<ServerId, Claim>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Fence {
    sent: Option<Monotonic>,
    confirmed: Option<Monotonic>,
}

/// The right to act for one identity.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Seat {
    wanted: Option<(ServerId, Epoch)>,
    held: Option<Held>,
    /// Who had it last, and since when nobody else can have had it.
    last: Option<(ServerId, Incarnation, Monotonic)>,
    /// When it was last free of whoever had it.
    freed: Option<Monotonic>,
}

/// Somebody may have the right.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Held {
    claim: Claim,
    revoked: Option<Monotonic>,
    confirmed: Option<Monotonic>,
}

impl Granter {
    /// A host that has just started: it knows nothing of who has the right.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes one input and says what is to be done about it.
    pub fn step(&mut self, input: Input, now: Moment) -> Vec<Effect> {
        let now = now.monotonic;
        let mut effects = Vec::new();
        match input {
            Input::Holder { identity, holder } => {
                self.seats.entry(identity).or_default().wanted = holder;
            }
            Input::Claimed(claim) => self.claimed(claim, now, &mut effects),
            Input::Confirmed(Ticket::Fence) => {
                self.fence.confirmed.get_or_insert(now);
            }
            Input::Confirmed(Ticket::Revocation(claim)) => {
                for held in self.seats.values_mut().filter_map(|seat| seat.held.as_mut()) {
                    // A confirm of an earlier grant's revocation says nothing of a later one.
                    if held.claim == claim && held.revoked.is_some() {
                        held.confirmed.get_or_insert(now);
                    }
                }
            }
            Input::Tick => {}
        }
        self.go_on(now, &mut effects);
        effects
    }

    fn claimed(&mut self, claim: Claim, now: Monotonic, effects: &mut Vec<Effect>) {
        let older = |known: &Claim| known.incarnation == claim.incarnation && known.number > claim.number;
        if self.claims.get(&claim.server).is_some_and(older) {
            return;
        }
        for seat in self.seats.values_mut() {
            let Some(held) = &seat.held else { continue };
            let same_start = held.claim.server == claim.server && held.claim.incarnation == claim.incarnation;
            if same_start && claim.number > held.claim.number {
                // Its own word that the right is over, for good.
                seat.free(now);
            } else if held.claim == claim && held.revoked.is_none() {
                // The grant was lost, or is under way still.
                effects.push(seat.grant(&claim, now));
            }
        }
        self.claims.insert(claim.server.clone(), claim);
    }

    fn go_on(&mut self, now: Monotonic, effects: &mut Vec<Effect>) {
        let Some(confirmed) = self.fence.confirmed else {
            if self.fence.sent.is_none_or(|at| now.since(at) >= ASK_AGAIN) {
                self.fence.sent = Some(now);
                effects.push(Effect::Fence);
            }
            return;
        };
        if now.since(confirmed) < OUTLAST {
            return;
        }
        for (identity, seat) in &mut self.seats {
            seat.free_if_over(now);
            let claim = seat.wanted.as_ref().and_then(|(server, epoch)| {
                let claim = self.claims.get(server)?;
                (claim.wants.as_ref() == Some(&(identity.clone(), *epoch))).then_some(claim)
            });
            match (&mut seat.held, claim) {
                (Some(held), claim) if Some(&held.claim) != claim || held.revoked.is_some() => {
                    effects.extend(held.revoke(now));
                }
                (None, Some(claim)) => {
                    let claim = claim.clone();
                    effects.push(seat.grant(&claim, now));
                    seat.held = Some(Held {
                        claim,
                        revoked: None,
                        confirmed: None,
                    });
                }
                _ => {}
            }
        }
    }
}

impl Seat {
    /// Answers a claim.
    fn grant(&mut self, claim: &Claim, now: Monotonic) -> Effect {
        let since = match &self.last {
            Some((server, incarnation, since))
                if *server == claim.server && *incarnation == claim.incarnation =>
            {
                *since
            }
            _ => self.freed.unwrap_or(now),
        };
        self.last = Some((claim.server.clone(), claim.incarnation.clone(), since));
        let word = Word::Grant {
            claim: claim.clone(),
            alone_ms: u64::try_from(now.since(since).as_millis()).unwrap_or(u64::MAX),
        };
        Effect::Grant(claim.server.clone(), word)
    }

    fn free(&mut self, now: Monotonic) {
        self.held = None;
        self.freed = Some(now);
    }

    /// After a revocation nothing has to be heard of the server: its last echo is older than a lease.
    fn free_if_over(&mut self, now: Monotonic) {
        let confirmed = self.held.as_ref().and_then(|held| held.confirmed);
        if confirmed.is_some_and(|at| now.since(at) >= OUTLAST) {
            self.free(now);
        }
    }
}

impl Held {
    /// Takes it away, and again until the broker confirms.
    fn revoke(&mut self, now: Monotonic) -> Option<Effect> {
        let waits = self.revoked.is_some_and(|at| now.since(at) < ASK_AGAIN);
        if waits || self.confirmed.is_some() {
            return None;
        }
        self.revoked = Some(now);
        let ticket = Ticket::Revocation(self.claim.clone());
        Some(Effect::Revoke(self.claim.server.clone(), ticket))
    }
}
