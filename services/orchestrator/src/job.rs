//! What waits for the task that owns the fleet.

use tokio::sync::oneshot;
use understudy_core::{
    contract::rpc::{Answer, OrchestratorReply, OrchestratorRequest},
    fleet::Input,
    ids::FailoverId,
};

/// Something for the fleet.
pub(crate) enum Job {
    /// Something happened.
    Input(Input),
    /// Somebody asks.
    Request(OrchestratorRequest, oneshot::Sender<Answer<OrchestratorReply>>),
}

/// An id that was never used.
pub(crate) fn fresh() -> FailoverId {
    FailoverId::new(uuid::Uuid::now_v7().to_string()).expect("a UUID has only hexadecimal digits and hyphens")
}
