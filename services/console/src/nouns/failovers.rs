//! `failovers`: starting, watching and ending them.

use serde::Deserialize;
use understudy_core::{
    contract::{
        api::{Problem, StartMode},
        rpc::{OrchestratorReply as Reply, OrchestratorRequest as Request},
    },
    ids::{CameraId, ServerId},
};

use super::{Asked, by, confirmed};
use crate::{
    answer::{self, Outcome},
    backend::{Backend, unexpected},
    http::Call,
};

/// The body of `POST servers/{id}/failover`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Start {
    /// Which failover server; the closest match without it.
    stand_in: Option<ServerId>,
    mode: StartMode,
    by: Option<String>,
}

/// The body of `POST servers/{id}/replacement`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Replace {
    /// Which server takes the place; the failover server without it.
    successor: Option<ServerId>,
    by: Option<String>,
}

/// The body of `POST failovers/{id}/overlay`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Offers {
    answer: Keep,
    /// For which cameras; all that are open without any.
    #[serde(default)]
    cameras: Vec<CameraId>,
    by: Option<String>,
}

/// What is to become of what was changed in a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Keep {
    Apply,
    Drop,
}

pub(super) async fn list(backend: &Backend, call: &Call) -> Outcome {
    let query = call.query(&["server", "active"])?;
    let value = |name: &str| {
        query
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    };
    let active = match value("active") {
        None => None,
        Some("true") => Some(true),
        Some("false") => Some(false),
        Some(other) => {
            return Err(Problem::invalid(format!(
                "active={other:?}: true or false is possible"
            )));
        }
    };
    match backend.orchestrator(Request::ListFailovers).await? {
        Reply::Failovers(mut failovers) => {
            failovers.retain(|view| {
                value("server").is_none_or(|server| view.server.as_str() == server)
                    && active.is_none_or(|active| view.phase.is_final() != active)
            });
            answer::json(&failovers)
        }
        other => Err(unexpected(&other)),
    }
}

pub(super) async fn get(backend: &Backend, call: &Call) -> Outcome {
    one(backend, Request::GetFailover(call.id("failover")?)).await
}

pub(super) async fn start(backend: &Backend, call: &Call) -> Outcome {
    let body: Start = call.json_or_default()?;
    let request = Request::StartFailover {
        server: call.id("server")?,
        stand_in: body.stand_in,
        by: by(body.by)?,
        mode: body.mode,
    };
    one(backend, confirmed(call, request)?).await
}

pub(super) async fn stop(backend: &Backend, call: &Call) -> Outcome {
    let body: Asked = call.json_or_default()?;
    let request = Request::StopFailover {
        server: call.id("server")?,
        by: by(body.by)?,
    };
    one(backend, confirmed(call, request)?).await
}

pub(super) async fn replacement(backend: &Backend, call: &Call) -> Outcome {
    let request = Request::GetReplacement(call.id("server")?);
    match backend.orchestrator(request).await? {
        Reply::Replacement(view) => answer::json(&view),
        other => Err(unexpected(&other)),
    }
}

pub(super) async fn replace(backend: &Backend, call: &Call) -> Outcome {
    let body: Replace = call.json_or_default()?;
    let request = Request::Replace {
        server: call.id("server")?,
        successor: body.successor,
        by: by(body.by)?,
    };
    one(backend, confirmed(call, request)?).await
}

pub(super) async fn stop_restoration(backend: &Backend, call: &Call) -> Outcome {
    let body: Asked = call.json_or_default()?;
    let request = Request::StopRestoration {
        failover: call.id("failover")?,
        by: by(body.by)?,
    };
    one(backend, confirmed(call, request)?).await
}

pub(super) async fn answer_offers(backend: &Backend, call: &Call) -> Outcome {
    let body: Offers = call.json()?;
    one(
        backend,
        Request::AnswerOffers {
            failover: call.id("failover")?,
            cameras: body.cameras,
            apply: body.answer == Keep::Apply,
            by: by(body.by)?,
        },
    )
    .await
}

async fn one(backend: &Backend, request: Request) -> Outcome {
    match backend.orchestrator(request).await? {
        Reply::Failover(view) => answer::json(&view),
        other => Err(unexpected(&other)),
    }
}
