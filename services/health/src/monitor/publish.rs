//! Observations on their way to the broker: the newest of each server, never a queue of old ones.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures::StreamExt;
use tokio::sync::Notify;
use understudy_bus::{Bus, Message};
use understudy_core::{
    contract::heartbeat::Observation,
    ids::{DomainId, ServerId},
};
use understudy_runtime::{Process, TraceContext};

/// Observations under way at once: a confirm takes a millisecond or so, and a thousand servers are spoken of
/// each second.
const AT_ONCE: usize = 32;

type Newest = BTreeMap<ServerId, (DomainId, Observation, Option<TraceContext>)>;

#[derive(Default)]
struct Shared {
    newest: Mutex<Newest>,
    wake: Notify,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Newest> {
        // A map that is whole at any time.
        self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where observations are put.
pub(crate) struct Outgoing(Arc<Shared>);

/// Where they are taken from.
pub(crate) struct Observations(Arc<Shared>);

/// Bounded by the number of servers: a newer observation replaces the one before.
pub(crate) fn queue() -> (Outgoing, Observations) {
    let shared = Arc::<Shared>::default();
    (Outgoing(Arc::clone(&shared)), Observations(shared))
}

impl Outgoing {
    /// With the trace of what is wrong with the server, if anything is.
    pub(crate) fn put(&self, domain: DomainId, observation: Observation, trace: Option<TraceContext>) {
        self.0
            .lock()
            .insert(observation.server.clone(), (domain, observation, trace));
        self.0.wake.notify_one();
    }
}

/// Publishes until shutdown. What can't be published is let go: the next one is at most a second away.
pub(crate) async fn run(bus: Bus, observations: Observations, process: Process) {
    let shutdown = process.shutdown();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = observations.0.wake.notified() => {}
        }
        let batch = std::mem::take(&mut *observations.0.lock());
        let sent = futures::stream::iter(batch.into_values()).for_each_concurrent(AT_ONCE, |(domain, observation, trace)| {
            let bus = bus.clone();
            async move {
                let message = Message::observation(&domain, &observation);
                let trace = trace.unwrap_or(message.trace);
                let message = Message { trace, ..message };
                if let Err(error) = bus.publish(message).await {
                    tracing::debug!(server = %observation.server, %error, "an observation did not get through");
                }
            }
        });
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = sent => {}
        }
    }
}
