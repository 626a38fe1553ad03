//! `servers`, with their pairings and failover settings.

use serde::Deserialize;
use understudy_core::{
    contract::{
        api::{MaintenanceOrder, Problem, Protection, ServerView},
        rpc::{OrchestratorReply as Reply, OrchestratorRequest as Request},
    },
    ids::ServerId,
    server::Server,
    time::Timestamp,
};

use super::{Asked, by, confirmed};
use crate::{
    answer::{self, Outcome},
    backend::{Backend, unexpected},
    http::Call,
};

/// The body of `PUT servers/{id}/maintenance`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Maintain {
    until: Option<Timestamp>,
    for_ms: Option<u64>,
    why: String,
    by: Option<String>,
}

pub(super) async fn list(backend: &Backend) -> Outcome {
    answer::json(&all(backend).await?)
}

async fn all(backend: &Backend) -> Result<Vec<ServerView>, Problem> {
    match backend.orchestrator(Request::ListServers).await? {
        Reply::Servers(servers) => Ok(servers),
        other => Err(unexpected(&other)),
    }
}

pub(super) async fn get(backend: &Backend, call: &Call) -> Outcome {
    let id: ServerId = call.id("server")?;
    let servers = all(backend).await?;
    let view = servers.iter().find(|view| view.server.id == id);
    answer::json(view.ok_or_else(|| Problem::not_found("server", &id))?)
}

pub(super) async fn add(backend: &Backend, call: &Call) -> Outcome {
    enrol(backend, call.json()?).await
}

pub(super) async fn put(backend: &Backend, call: &Call) -> Outcome {
    let id: ServerId = call.id("server")?;
    let server: Server = call.json()?;
    if server.id != id {
        let detail = format!(
            "the address says {id}, the body says {}: an id can't be changed",
            server.id
        );
        return Err(Problem::invalid(detail));
    }
    enrol(backend, server).await
}

async fn enrol(backend: &Backend, server: Server) -> Outcome {
    match backend.orchestrator(Request::AddServer(server)).await? {
        Reply::Server(view) => answer::json(&view),
        other => Err(unexpected(&other)),
    }
}

pub(super) async fn edit(backend: &Backend, call: &Call) -> Outcome {
    let request = Request::EditServer {
        server: call.id("server")?,
        edit: call.json()?,
    };
    match backend.orchestrator(confirmed(call, request)?).await? {
        Reply::Server(view) => answer::json(&view),
        other => Err(unexpected(&other)),
    }
}

pub(super) async fn erase(backend: &Backend, call: &Call) -> Outcome {
    let request = Request::EraseServer(call.id("server")?);
    match backend.orchestrator(confirmed(call, request)?).await? {
        Reply::Server(view) => answer::json(&view),
        other => Err(unexpected(&other)),
    }
}

pub(super) async fn begin_maintenance(backend: &Backend, call: &Call) -> Outcome {
    let body: Maintain = call.json()?;
    let request = Request::BeginMaintenance {
        server: call.id("server")?,
        order: MaintenanceOrder {
            until: body.until,
            for_ms: body.for_ms,
            why: body.why,
        },
        by: by(body.by)?,
    };
    one(backend, request).await
}

pub(super) async fn end_maintenance(backend: &Backend, call: &Call) -> Outcome {
    let body: Asked = call.json_or_default()?;
    let request = Request::EndMaintenance {
        server: call.id("server")?,
        by: by(body.by)?,
    };
    one(backend, request).await
}

async fn one(backend: &Backend, request: Request) -> Outcome {
    match backend.orchestrator(request).await? {
        Reply::Server(view) => answer::json(&view),
        other => Err(unexpected(&other)),
    }
}

pub(super) async fn remove(backend: &Backend, call: &Call) -> Outcome {
    let request = Request::RemoveServer(call.id("server")?);
    match backend.orchestrator(confirmed(call, request)?).await? {
        Reply::Done => answer::done(),
        other => Err(unexpected(&other)),
    }
}

pub(super) async fn pairing(backend: &Backend, call: &Call) -> Outcome {
    answer::json(
        &protection(backend, Request::GetProtection(call.id("server")?))
            .await?
            .pairing,
    )
}

pub(super) async fn set_pairing(backend: &Backend, call: &Call) -> Outcome {
    let request = Request::SetPairing {
        server: call.id("server")?,
        pairing: call.json()?,
    };
    answer::json(&protection(backend, confirmed(call, request)?).await?.pairing)
}

pub(super) async fn policy(backend: &Backend, call: &Call) -> Outcome {
    answer::json(
        &protection(backend, Request::GetProtection(call.id("server")?))
            .await?
            .policy,
    )
}

pub(super) async fn set_policy(backend: &Backend, call: &Call) -> Outcome {
    let request = Request::SetPolicy {
        server: call.id("server")?,
        policy: call.json()?,
    };
    answer::json(&protection(backend, confirmed(call, request)?).await?.policy)
}

async fn protection(backend: &Backend, request: Request) -> Result<Protection, Problem> {
    match backend.orchestrator(request).await? {
        Reply::Protection(protection) => Ok(protection),
        other => Err(unexpected(&other)),
    }
}
