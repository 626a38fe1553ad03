//! The server's own queue: what the host wants it to be, and the settings for that.
//!
//! Reads and sorts; decides nothing. What can't be understood goes to the dead letters with its reason, and
//! what came is acknowledged only after the shell has it on disk.

use std::time::Duration;

use tokio::sync::mpsc;
use understudy_bus::{Bus, Incoming, Queue, Subscription};
use understudy_core::{
    assignment::Assignment,
    contract::{
        heartbeat::SealedBundle,
        names::{ASSIGNMENT_TYPE, BUNDLE_TYPE},
    },
    ids::ServerId,
    settings::Bundle,
};
use understudy_runtime::seal::FleetKey;

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
}

/// The server's queue.
pub(crate) struct Inbox {
    server: ServerId,
    key: FleetKey,
    subscription: Subscription,
}

impl Inbox {
    pub(crate) fn open(bus: &Bus, server: &ServerId, key: FleetKey) -> Self {
        Self {
            server: server.clone(),
            key,
            subscription: bus.subscribe(Queue::assignments(server)),
        }
    }

    /// Hands over what comes, batch by batch, until shutdown.
    pub(crate) async fn run(mut self, batches: mpsc::Sender<Batch>) {
        while let Some(first) = self.subscription.next().await {
            let batch = self.drain(first).await;
            if batches.send(batch).await.is_err() {
                return;
            }
        }
    }

    async fn drain(&mut self, first: Incoming) -> Batch {
        let mut batch = Batch::default();
        let mut next = Some(first);
        while let Some(incoming) = next {
            self.sort(incoming, &mut batch).await;
            if batch.receipts.len() >= BATCH {
                break;
            }
            next = tokio::time::timeout(DRAINED, self.subscription.next())
                .await
                .unwrap_or(None);
        }
        batch.keep_newest();
        batch
    }

    async fn sort(&self, incoming: Incoming, batch: &mut Batch) {
        match self.read(&incoming) {
            Ok(Letter::Assignment(assignment)) => batch.assignments.push(assignment),
            Ok(Letter::Bundle(sealed, bundle)) => batch.bundles.push((sealed, bundle)),
            Err(why) => {
                tracing::error!(
                    message.id = incoming.id,
                    message.kind = incoming.kind,
                    why,
                    "message refused"
                );
                incoming.dead(&why).await;
                return;
            }
        }
        batch.receipts.push(incoming);
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
            BUNDLE_TYPE => {
                let sealed: SealedBundle = incoming.json().map_err(|error| error.to_string())?;
                let bundle = self.key.open(&sealed).map_err(|error| error.to_string())?;
                Ok(Letter::Bundle(sealed, bundle))
            }
            other => Err(format!(
                "messages of type {other:?} don't belong in an assignment queue"
            )),
        }
    }
}

enum Letter {
    Assignment(Assignment),
    Bundle(SealedBundle, Bundle),
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
