//! `licenses`.

use std::collections::BTreeMap;

use serde::Deserialize;
use understudy_core::{
    camera::Camera,
    contract::{
        api::LicenseKeyView,
        rpc::{
            LicenseReply as Reply, LicenseRequest as Request, OrchestratorReply as Answered,
            OrchestratorRequest as Ask,
        },
    },
    ids::{CameraId, ServerId},
    license::shortage,
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

pub(super) async fn history(backend: &Backend) -> Outcome {
    match backend.license(Request::History).await? {
        Reply::History(happenings) => answer::json(&happenings),
        other => Err(unexpected(&other)),
    }
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
        Reply::Licenses(mut licenses) => {
            licenses.unlicensed = match licenses.needed {
                true => unlicensed(backend, &licenses.keys).await,
                false => None,
            };
            answer::json(&licenses)
        }
        other => Err(unexpected(&other)),
    }
}

/// The ledger knows keys, and the orchestrator cameras. That it can't be asked now keeps nobody from the ledger.
async fn unlicensed(backend: &Backend, keys: &[LicenseKeyView]) -> Option<BTreeMap<ServerId, Vec<CameraId>>> {
    match backend.orchestrator(Ask::ListCameras).await {
        Ok(Answered::Cameras(views)) => {
            let cameras: Vec<Camera> = views.into_iter().map(|view| view.camera).collect();
            Some(shortage::unlicensed(keys, &cameras))
        }
        Ok(_) => None,
        Err(problem) => {
            tracing::warn!(%problem, "which cameras have no licence is not known now");
            None
        }
    }
}
