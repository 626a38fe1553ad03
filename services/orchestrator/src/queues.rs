//! Keeps an assignment queue for each enrolled server, also on a broker that came back empty.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::{
    sync::{Notify, watch},
    time::sleep,
};
use tokio_util::sync::CancellationToken;
use understudy_bus::{Bus, Link};
use understudy_core::ids::ServerId;

/// Until a queue that could not be declared is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Declares queues whenever the servers change or the broker comes back, until the shutdown; wakes the outbox
/// then, since what it could not deliver may be deliverable now.
pub(crate) async fn keep(
    bus: Bus,
    mut servers: watch::Receiver<BTreeSet<ServerId>>,
    wake: Arc<Notify>,
    shutdown: CancellationToken,
) {
    let mut link = bus.link();
    loop {
        let wanted = servers.borrow_and_update().clone();
        let up = matches!(*link.borrow_and_update(), Link::Up | Link::Blocked { .. });
        let declared = if up { declare(&bus, &wanted).await } else { true };
        if up {
            wake.notify_one();
        }
        tokio::select! {
            changed = servers.changed() => if changed.is_err() { return },
            changed = link.changed() => if changed.is_err() { return },
            () = sleep(RETRY), if !declared => {}
            () = shutdown.cancelled() => return,
        }
    }
}

/// Whether all could be declared.
async fn declare(bus: &Bus, servers: &BTreeSet<ServerId>) -> bool {
    let mut all = true;
    for server in servers {
        if let Err(error) = bus.declare_assignment_queue(server).await {
            tracing::warn!(%server, %error, "the assignment queue could not be declared");
            all = false;
        }
    }
    all
}
