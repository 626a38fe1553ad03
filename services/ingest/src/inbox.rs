//! The server's own queue: what the host wants it to be, and the settings for that.
//!
//! Reads and sorts; decides nothing. The right to act ([`crate::acting`]) hears of each message first. What can't be understood goes to the dead letters with its reason, and
//! what came is acknowledged only after the shell has it on disk.

use std::time::Duration;

use tokio::sync::{mpsc, watch};
use understudy_bus::{Bus, Incoming, Queue, Subscription};
use understudy_core::{
    assignment::Assignment,
    authority::{Word, right},
    contract::{
        heartbeat::SealedBundle,
        names::{ASSIGNMENT_TYPE, BUNDLE_TYPE, RIGHT_TYPE},
    },
    ids::ServerId,
    settings::Bundle,
};
use understudy_runtime::TraceContext;

use crate::{acting::Acting, opener::Opener};

/// A queue that has nothing more for this long is drained.
const DRAINED: Duration = Duration::from_millis(2);
/// The most messages taken at once. The broker hands out no more than the prefetch before they are
/// acknowledged, so that this is reached only after an outage.
const BATCH: usize = 64;

/// What had come when the queue was drained.
#[derive(Default)]
pub(crate) struct Batch {
    /// The assignments that may matter: those of the highest epoch (more than one only in a conflict).
    pub(crate) assignments: Vec<Assignment>,
    /// Settings, as received and opened.
    pub(crate) bundles: Vec<(SealedBundle, Bundle)>,
    /// To be acknowledged once all of it is on disk.
    pub(crate) receipts: Vec<Incoming>,
    /// The trace of the newest of them: what is done about them continues it.
    pub(crate) trace: Option<TraceContext>,
}

/// The server's queue.
pub(crate) struct Inbox {
    server: ServerId,
    opener: Opener,
    acting: Acting,
    subscription: Subscription,
}

impl Inbox {
    pub(crate) fn open(bus: &Bus, server: &ServerId, opener: Opener, acting: Acting) -> Self {
        Self {
            server: server.clone(),
            opener,
            acting,
            subscription: bus.subscribe(Queue::assignments(server)),
        }
    }

    /// See [`Subscription::consumption`].
    pub(crate) fn consumption(&self) -> watch::Receiver<Option<u64>> {
        self.subscription.consumption()
    }

    /// Hands over what comes, batch by batch, until shutdown.
    pub(crate) async fn run(mut self, batches: mpsc::Sender<Batch>) {
        while let Some(first) = self.subscription.next().await {
            let batch = self.drain(first).await;
            // Words about the right to act go no further.
            if batch.receipts.is_empty() {
                continue;
            }
            if batches.send(batch).await.is_err() {
                return;
            }
        }
    }

    async fn drain(&mut self, first: Incoming) -> Batch {
        let mut batch = Batch::default();
        let mut sealed = Vec::new();
        let mut next = Some(first);
        while let Some(incoming) = next {
            self.acting.hears_on(incoming.consumption);
            match self.read(&incoming) {
                Ok(Letter::Assignment(assignment)) => {
                    // At once, whatever becomes of it: whoever acts now acts by an assignment that is over.
                    self.acting.step(right::Input::Assigned(&assignment));
                    batch.trace = Some(incoming.trace);
                    batch.assignments.push(assignment);
                    batch.receipts.push(incoming);
                }
                Ok(Letter::Bundle(bundle)) => {
                    batch.trace = Some(incoming.trace);
                    sealed.push((incoming, bundle));
                }
                Ok(Letter::Word(word)) => {
                    self.acting.step(right::Input::Heard(word));
                    incoming.ack().await;
                }
                Err(why) => {
                    self.acting.step(right::Input::Garbled);
                    refuse(incoming, &why).await;
                }
            }
            if batch.receipts.len() + sealed.len() >= BATCH {
                break;
            }
            next = tokio::time::timeout(DRAINED, self.subscription.next())
                .await
                .unwrap_or(None);
        }
        self.open_all(sealed, &mut batch).await;
        batch.keep_newest();
        batch
    }

    /// Opens all bundles at once. One that can't be opened now is sent again by the host for as long as this
    /// server does not say that it has it.
    async fn open_all(&self, letters: Vec<(Incoming, SealedBundle)>, batch: &mut Batch) {
        if letters.is_empty() {
            return;
        }
        let (incoming, sealed): (Vec<_>, Vec<_>) = letters.into_iter().unzip();
        let opened = match self.opener.open(&sealed).await {
            Ok(opened) => opened,
            Err(error) => vec![Err(error.to_string()); sealed.len()],
        };
        for ((incoming, sealed), opened) in incoming.into_iter().zip(sealed).zip(opened) {
            match opened {
                Ok(bundle) => {
                    batch.bundles.push((sealed, bundle));
                    batch.receipts.push(incoming);
                }
                Err(why) => refuse(incoming, &why).await,
            }
        }
    }

    fn read(&self, incoming: &Incoming) -> Result<Letter, String> {
        match incoming.kind.as_str() {
            ASSIGNMENT_TYPE => {
                let assignment: Assignment = incoming.json().map_err(|error| error.to_string())?;
                if assignment.server == self.server {
                    Ok(Letter::Assignment(assignment))
                } else {
                    Err(format!(
                        "an assignment for {}, in the queue of {}",
                        assignment.server, self.server
                    ))
                }
            }
            RIGHT_TYPE => incoming
                .json()
                .map(Letter::Word)
                .map_err(|error| error.to_string()),
            BUNDLE_TYPE => incoming
                .json()
                .map(Letter::Bundle)
                .map_err(|error| error.to_string()),
            other => Err(format!(
                "messages of type {other:?} don't belong in an assignment queue"
            )),
        }
    }
}

async fn refuse(incoming: Incoming, why: &str) {
    tracing::error!(
        message.id = incoming.id,
        message.kind = incoming.kind,
        why,
        "message refused"
    );
    incoming.dead(why).await;
}

enum Letter {
    Assignment(Assignment),
    Bundle(SealedBundle),
    Word(Word),
}

impl Batch {
    /// Older assignments than the newest say nothing that matters: the newest replaces them whole.
    fn keep_newest(&mut self) {
        let newest = self.assignments.iter().map(|assignment| assignment.epoch).max();
        self.assignments
            .retain(|assignment| Some(assignment.epoch) == newest);
        self.assignments.dedup();
    }
}
