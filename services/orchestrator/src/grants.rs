//! The right to act, granted and taken away.
//!
//! A shell around [`understudy_core::authority::granter`], which decides: in go who is to act for whom, what servers
//! claim, and what the broker has confirmed; out come words for servers' own queues. Nothing is stored: each start
//! begins with a fence, which takes the right from everybody.

use std::{collections::BTreeMap, time::Duration};

use tokio::{
    sync::watch,
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;
use understudy_bus::{Bus, Incoming, Message, PublishError, Queue};
use understudy_core::{
    assignment::Epoch,
    authority::{
        Word,
        granter::{Effect, Granter, Input, Ticket},
    },
    contract::names,
    ids::ServerId,
};
use understudy_runtime::clock;

/// How often time passes for it.
const TICK: Duration = Duration::from_millis(100);

/// Who is to act for each identity.
pub(crate) type Holders = BTreeMap<ServerId, (ServerId, Epoch)>;

/// What became of a publication whose confirm matters.
type Published = (Option<Ticket>, Result<(), PublishError>);

/// Grants and takes away until the shutdown.
pub(crate) async fn keep(bus: Bus, mut holders: watch::Receiver<Holders>, shutdown: CancellationToken) {
    let mut claims = bus.subscribe(Queue::heartbeats(&["*.claim.*"]));
    let mut desk = Desk {
        bus,
        granter: Granter::new(),
        known: Holders::new(),
        // Bounded: each seat repeats what is not confirmed once a second, and a publication ends within five.
        sending: JoinSet::new(),
        fence: false,
    };
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            Some(done) = desk.sending.join_next() => match done {
                Ok(published) => desk.published(published),
                Err(error) => tracing::error!(%error, "a word about the right to act was not published"),
            },
            changed = holders.changed() => {
                if changed.is_err() {
                    return;
                }
                let holders = holders.borrow_and_update().clone();
                desk.held_by(holders);
            }
            incoming = claims.next() => match incoming {
                Some(incoming) => desk.claimed(incoming).await,
                None => return,
            },
            _ = ticks.tick() => desk.step(Input::Tick),
        }
    }
}

struct Desk {
    bus: Bus,
    granter: Granter,
    known: Holders,
    sending: JoinSet<Published>,
    /// Whether the fence of this start is confirmed.
    fence: bool,
}

impl Desk {
    fn step(&mut self, input: Input) {
        for effect in self.granter.step(input, clock::now()) {
            match effect {
                Effect::Fence => self.send(Message::fence(), Some(Ticket::Fence)),
                Effect::Revoke(server, ticket) => {
                    tracing::info!(%server, "the right to act is taken away");
                    self.send(Message::word(&server, &Word::Revoke), Some(ticket));
                }
                Effect::Grant(server, word) => {
                    tracing::info!(%server, "the right to act is granted");
                    self.send(Message::word(&server, &word), None);
                }
            }
        }
    }

    fn send(&mut self, message: Message, ticket: Option<Ticket>) {
        let bus = self.bus.clone();
        self.sending
            .spawn(async move { (ticket, bus.publish(message).await) });
    }

    fn published(&mut self, (ticket, result): Published) {
        match (ticket, result) {
            // Returned: there is no such queue, and no echo comes back through it either.
            (Some(ticket), Ok(()) | Err(PublishError::Unroutable { .. })) => {
                if ticket == Ticket::Fence && !std::mem::replace(&mut self.fence, true) {
                    tracing::info!("nobody has the right to act; it is granted anew in a moment");
                }
                self.step(Input::Confirmed(ticket));
            }
            (Some(Ticket::Fence), Err(error @ PublishError::Refused { .. })) => {
                tracing::warn!(
                    %error,
                    "a server's queue takes nothing, so that nobody is given the right to act; tried again"
                );
            }
            (_, Err(error)) => tracing::debug!(%error, "a word about the right to act is tried again"),
            (None, Ok(())) => {}
        }
    }

    /// The fleet has changed.
    fn held_by(&mut self, holders: Holders) {
        let before = std::mem::replace(&mut self.known, holders.clone());
        for identity in before.keys().filter(|identity| !holders.contains_key(*identity)) {
            self.step(Input::Holder {
                identity: identity.clone(),
                holder: None,
            });
        }
        for (identity, holder) in holders {
            if before.get(&identity) != Some(&holder) {
                self.step(Input::Holder {
                    identity,
                    holder: Some(holder),
                });
            }
        }
    }

    async fn claimed(&mut self, incoming: Incoming) {
        if incoming.kind != names::CLAIM_TYPE {
            return incoming
                .dead(format!("a claim was expected, not {:?}", incoming.kind))
                .await;
        }
        match incoming.json() {
            Ok(claim) => self.step(Input::Claimed(claim)),
            Err(error) => incoming.dead(error.to_string()).await,
        }
    }
}
