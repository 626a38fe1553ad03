//! What this server is assigned to: read from `assignment.json`, which the recording service writes.
//!
//! The file is replaced as a whole, never written into, so whatever is read is one assignment.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use understudy_core::{
    assignment::{Assignment, Epoch, Restore, Role},
    ids::FailoverId,
};
use understudy_runtime::{TraceContext, trace};

/// How often the file is looked at.
const POLL: Duration = Duration::from_millis(250);
const FILE: &str = "assignment.json";
const TRACE: &str = "assignment.trace";

/// Recordings to be fetched, and since when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Order {
    /// The epoch of the assignment that says so.
    pub(crate) epoch: Epoch,
    /// What is to be fetched.
    pub(crate) restore: Restore,
    /// What the assignment is a part of, if that is recorded.
    pub(crate) trace: Option<TraceContext>,
}

/// The assignment in a server's data folder; none if it has none yet.
///
/// # Errors
/// The file's; one that is no assignment is [`io::ErrorKind::InvalidData`].
pub(crate) async fn assignment(data: &Path) -> io::Result<Option<Assignment>> {
    match tokio::fs::read(data.join(FILE)).await {
        Ok(json) => serde_json::from_slice(&json).map(Some).map_err(io::Error::from),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// What an assignment in a server's data folder says is to be fetched.
#[must_use]
pub(crate) fn order(assignment: &Assignment, data: &Path) -> Option<Order> {
    let Role::Films(films) = &assignment.role else {
        return None;
    };
    let restore = films.restore.clone()?;
    Some(Order {
        epoch: assignment.epoch,
        restore,
        trace: trace::kept(&data.join(TRACE), &assignment.epoch.to_string()),
    })
}

/// Whether a server with this assignment gives out what it recorded for `failover`, and adds nothing to it.
pub(crate) fn hands_back(assignment: Option<&Assignment>, failover: &FailoverId) -> bool {
    matches!(assignment.map(|each| &each.role), Some(Role::HandsBack { failover: given }) if given == failover)
}

/// Follows the file until the shutdown. One that can't be read changes nothing: it is tried again.
pub(crate) async fn follow(data: PathBuf, orders: watch::Sender<Option<Order>>, shutdown: CancellationToken) {
    let mut poll = tokio::time::interval(POLL);
    let mut unreadable = false;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = poll.tick() => {}
        }
        match assignment(&data).await {
            Ok(assignment) => {
                unreadable = false;
                let order = assignment
                    .as_ref()
                    .and_then(|assignment| order(assignment, &data));
                orders.send_if_modified(|known| {
                    let changed = *known != order;
                    *known = order;
                    changed
                });
            }
            Err(error) if !unreadable => {
                unreadable = true;
                tracing::warn!(%error, "the assignment can't be read; the last one holds");
            }
            Err(_) => {}
        }
    }
}
