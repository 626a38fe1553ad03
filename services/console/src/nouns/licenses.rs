//! `licenses`.

use serde::Deserialize;
use understudy_core::{
    contract::rpc::{LicenseReply as Reply, LicenseRequest as Request},
    ids::ServerId,
};

use crate::{
    answer::{self, Outcome},
    backend::{Backend, unexpected},
    http::Call,
};

/// The body of `POST licenses`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Add {
    /// The signed text.
    key: String,
    /// Who uses it.
    server: ServerId,
}

pub(super) async fn list(backend: &Backend) -> Outcome {
    ask(backend, Request::List).await
}

pub(super) async fn add(backend: &Backend, call: &Call) -> Outcome {
    let Add { key, server } = call.json()?;
    ask(backend, Request::Add { key, server }).await
}

pub(super) async fn remove(backend: &Backend, call: &Call) -> Outcome {
    ask(backend, Request::Remove(call.id("license")?)).await
}

async fn ask(backend: &Backend, request: Request) -> Outcome {
    match backend.license(request).await? {
        Reply::Licenses(licenses) => answer::json(&licenses),
        other @ Reply::Moved { .. } => Err(unexpected(&other)),
    }
}
