//! From the outbox to the broker: messages that were stored with the change that they tell of leave at once,
//! and again after a crash, until the broker has confirmed them.

use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error,
    future::Future,
    sync::Arc,
    time::Duration,
};

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
    /// The oldest messages after number `after` (0: from the first one on) that were not sent, `limit` at
    /// most, with their numbers. What can't be read is not among them: the source sets it aside and says so.
    fn pending(
        &self,
        after: i64,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<(i64, Message)>, SourceError>> + Send;

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
            match round(&bus, &source).await {
                Ok(()) => condition.ready(),
                Err(error) => condition.not_ready(format!("the outbox can't be read: {error}")),
            }
            if shutdown.is_cancelled() {
                // The last round began after the last change.
                return;
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

/// Messages that leave in their order: exchange, and routing key.
type Series = (String, String);

fn series(message: &Message) -> Series {
    // One order for all facts; for everything else one for each receiver.
    let key = if message.exchange == names::EVENTS {
        String::new()
    } else {
        message.routing_key.clone()
    };
    (message.exchange.clone(), key)
}

/// Sends what is pending, page by page up to the end. What can't be sent stays, and so does what comes after it
/// in its series: however many pages that fills, the others' turn comes.
async fn round<S: OutboxSource>(bus: &Bus, source: &S) -> Result<(), SourceError> {
    let mut stuck: BTreeSet<Series> = BTreeSet::new();
    let mut after = 0;
    while *bus.link().borrow() == Link::Up {
        let page = source.pending(after, BATCH).await?;
        let Some((last, _)) = page.last() else { break };
        after = *last;
        let mut pending: BTreeMap<Series, Vec<(i64, Message)>> = BTreeMap::new();
        for (id, message) in page {
            let series = series(&message);
            if !stuck.contains(&series) {
                pending.entry(series).or_default().push((id, message));
            }
        }
        let sending = pending.into_iter().map(|(series, messages)| async move {
            let count = messages.len();
            let sent = send(bus, messages).await;
            let stuck = (sent.len() < count).then_some(series);
            (sent, stuck)
        });
        let mut sent = Vec::new();
        for (ids, series) in join_all(sending).await {
            sent.extend(ids);
            stuck.extend(series);
        }
        if !sent.is_empty() {
            source.sent(&sent).await?;
        }
    }
    Ok(())
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
