//! From the outbox to the broker: messages that were stored with the change that they tell of leave at once,
//! and again after a crash, until the broker has confirmed them.

use std::{collections::BTreeMap, error::Error, future::Future, sync::Arc, time::Duration};

use futures::future::join_all;
use tokio::sync::Notify;
use understudy_core::contract::names;
use understudy_runtime::Process;

use crate::{Bus, Link, Message, PublishError};

/// Messages read at once.
const BATCH: usize = 512;
/// How often the outbox is looked at without having been woken, and what could not be sent is tried again.
const REPAIR: Duration = Duration::from_secs(1);

/// An error of whoever keeps the outbox.
pub type SourceError = Box<dyn Error + Send + Sync>;

/// Whoever keeps an outbox.
pub trait OutboxSource: Send + Sync + 'static {
    /// The oldest messages that were not sent, `limit` at most, with their numbers.
    fn pending(&self, limit: usize) -> impl Future<Output = Result<Vec<(i64, Message)>, SourceError>> + Send;

    /// These were sent.
    fn sent(&self, ids: &[i64]) -> impl Future<Output = Result<(), SourceError>> + Send;
}

/// Sends what is in the outbox until the process ends: when woken, when the broker comes back, and once a
/// second. Facts leave in their order, and so do the messages of each server; what one server's queue does
/// not take is tried again later and holds up nobody else.
pub fn pump<S: OutboxSource>(bus: Bus, source: S, wake: Arc<Notify>, process: &Process) {
    let shutdown = process.shutdown();
    let condition = process.condition("outbox");
    condition.ready();
    process.spawn("outbox", async move {
        let mut link = bus.link();
        loop {
            let again = match round(&bus, &source).await {
                Ok(again) => {
                    condition.ready();
                    again
                }
                Err(error) => {
                    condition.not_ready(format!("the outbox can't be read: {error}"));
                    false
                }
            };
            if shutdown.is_cancelled() {
                // The last round began after the last change.
                return;
            }
            if again {
                continue;
            }
            tokio::select! {
                () = wake.notified() => {}
                // An error means that the bus ends, and so does the process.
                _ = link.changed() => {}
                () = tokio::time::sleep(REPAIR) => {}
                () = shutdown.cancelled() => {}
            }
        }
    });
}

/// Sends what is pending; returns whether there may be more to send at once.
async fn round<S: OutboxSource>(bus: &Bus, source: &S) -> Result<bool, SourceError> {
    if *bus.link().borrow() != Link::Up {
        return Ok(false);
    }
    let pending = source.pending(BATCH).await?;
    let full = pending.len() == BATCH;
    if pending.is_empty() {
        return Ok(false);
    }
    let mut series: BTreeMap<(String, String), Vec<(i64, Message)>> = BTreeMap::new();
    for (id, message) in pending {
        // One order for all facts; for everything else one for each receiver.
        let key = if message.exchange == names::EVENTS {
            String::new()
        } else {
            message.routing_key.clone()
        };
        series
            .entry((message.exchange.clone(), key))
            .or_default()
            .push((id, message));
    }
    let sent = join_all(series.into_values().map(|series| send(bus, series))).await;
    let sent: Vec<i64> = sent.into_iter().flatten().collect();
    if !sent.is_empty() {
        source.sent(&sent).await?;
    }
    Ok(full && !sent.is_empty())
}

/// Sends one series in its order, up to the first that does not get through.
async fn send(bus: &Bus, series: Vec<(i64, Message)>) -> Vec<i64> {
    let mut sent = Vec::with_capacity(series.len());
    for (id, message) in series {
        let (kind, routing_key) = (message.kind.clone(), message.routing_key.clone());
        match bus.publish(message).await {
            Ok(()) => sent.push(id),
            Err(error @ (PublishError::Unroutable { .. } | PublishError::Refused { .. })) => {
                tracing::warn!(kind, routing_key, %error, "kept for later");
                break;
            }
            Err(error) => {
                tracing::debug!(kind, routing_key, %error, "kept for later");
                break;
            }
        }
    }
    sent
}
