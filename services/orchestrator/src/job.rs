//! What waits for the task that owns the fleet.

use tokio::sync::oneshot;
use understudy_core::{
    contract::rpc::{Answer, OrchestratorReply, OrchestratorRequest},
    fleet::Input,
    ids::FailoverId,
};
use understudy_runtime::TraceContext;

/// Something for the fleet.
pub(crate) struct Job {
    /// The trace that it belongs to: whatever follows from it continues it.
    pub(crate) trace: TraceContext,
    pub(crate) work: Work,
}

/// What it is.
pub(crate) enum Work {
    /// Something happened.
    Input(Box<Input>),
    /// Somebody asks.
    Request(OrchestratorRequest, oneshot::Sender<Answer<OrchestratorReply>>),
}

impl Job {
    /// Something happened, in the trace `trace`.
    pub(crate) fn input(trace: TraceContext, input: Input) -> Self {
        Self {
            trace,
            work: Work::Input(Box::new(input)),
        }
    }
}

/// An id that was never used.
pub(crate) fn fresh() -> FailoverId {
    FailoverId::new(uuid::Uuid::now_v7().to_string()).expect("a UUID has only hexadecimal digits and hyphens")
}
