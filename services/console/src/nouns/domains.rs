//! `domains`.

use understudy_core::contract::rpc::{OrchestratorReply as Reply, OrchestratorRequest as Request};

use crate::{
    answer::{self, Outcome},
    backend::{Backend, unexpected},
};

pub(super) async fn list(backend: &Backend) -> Outcome {
    match backend.orchestrator(Request::ListDomains).await? {
        Reply::Domains(domains) => answer::json(&domains),
        other => Err(unexpected(&other)),
    }
}
