//! One file per noun: each turns a request into a question to the service that owns the noun.

mod cameras;
mod dead_letters;
mod domains;
mod events;
mod failovers;
mod licenses;
mod openapi;
mod servers;
mod snapshots;

use std::sync::Arc;

use serde::Deserialize;
use understudy_core::contract::{api::Problem, rpc::OrchestratorRequest as Request};

use crate::{
    answer::Outcome,
    http::{Api, Call},
    routes::Operation as Op,
};

/// The parameter that brings the token of an answer that said what would be lost (G7).
const CONFIRMATION: &str = "confirmation";

/// The longest name of a person that is stored with what they asked for.
const BY_MAX: usize = 128;

/// Carries out what was found in the table.
#[expect(clippy::cognitive_complexity, reason = "one line for each line of the table")]
pub(crate) async fn carry_out(api: &Arc<Api>, operation: Op, call: &Call) -> Outcome {
    match operation {
        // These read them themselves.
        Op::FollowEvents
        | Op::ListCameras
        | Op::ListFailovers
        | Op::ListSnapshots
        | Op::ListDeadLetters
        | Op::DropDeadLetter => {}
        Op::EditServer
        | Op::RemoveServer
        | Op::EraseServer
        | Op::SetPairing
        | Op::SetPolicy
        | Op::StartFailover
        | Op::StopFailover
        | Op::StopRestoration
        | Op::ReplaceServer => {
            drop(call.query(&[CONFIRMATION])?);
        }
        _ => drop(call.query(&[])?),
    }
    let backend = &api.backend;
    match operation {
        Op::ListDomains => domains::list(backend).await,
        Op::ListServers => servers::list(backend).await,
        Op::AddServer => servers::add(backend, call).await,
        Op::GetServer => servers::get(backend, call).await,
        Op::PutServer => servers::put(backend, call).await,
        Op::EditServer => servers::edit(backend, call).await,
        Op::RemoveServer => servers::remove(backend, call).await,
        Op::EraseServer => servers::erase(backend, call).await,
        Op::BeginMaintenance => servers::begin_maintenance(backend, call).await,
        Op::EndMaintenance => servers::end_maintenance(backend, call).await,
        Op::GetPairing => servers::pairing(backend, call).await,
        Op::SetPairing => servers::set_pairing(backend, call).await,
        Op::GetPolicy => servers::policy(backend, call).await,
        Op::SetPolicy => servers::set_policy(backend, call).await,
        Op::StartFailover => failovers::start(backend, call).await,
        Op::StopFailover => failovers::stop(backend, call).await,
        Op::GetReplacement => failovers::replacement(backend, call).await,
        Op::ReplaceServer => failovers::replace(backend, call).await,
        Op::ListFailovers => failovers::list(backend, call).await,
        Op::GetFailover => failovers::get(backend, call).await,
        Op::StopRestoration => failovers::stop_restoration(backend, call).await,
        Op::AnswerOffers => failovers::answer_offers(backend, call).await,
        Op::ListCameras => cameras::list(backend, call).await,
        Op::AddCameras => cameras::add(backend, call).await,
        Op::GetCamera => cameras::get(backend, call).await,
        Op::EditCamera => cameras::edit(backend, call).await,
        Op::RemoveCamera => cameras::remove(backend, call).await,
        Op::TakeSnapshot => snapshots::take(backend, call).await,
        Op::ListSnapshots => snapshots::list(backend, call).await,
        Op::GetSnapshot => snapshots::get(backend, call).await,
        Op::ListLicenses => licenses::list(backend).await,
        Op::ListLicenseHistory => licenses::history(backend).await,
        Op::AddLicense => licenses::add(backend, call).await,
        Op::RemoveLicense => licenses::remove(backend, call).await,
        Op::ListDeadLetters => dead_letters::list(backend, call).await,
        Op::GetDeadLetter => dead_letters::get(backend, call).await,
        Op::ReplayDeadLetter => dead_letters::replay(backend, call).await,
        Op::DropDeadLetter => dead_letters::remove(backend, call).await,
        Op::FollowEvents => events::follow(api, call),
        Op::OpenApi => openapi::document(),
    }
}

/// With the token that the call brings, if it does.
fn confirmed(call: &Call, request: Request) -> Result<Request, Problem> {
    let token = call.query(&[CONFIRMATION])?.pop();
    Ok(match token {
        Some((_, confirmation)) => Request::Confirmed {
            confirmation,
            request: Box::new(request),
        },
        None => request,
    })
}

/// What a request that changes a failover may say besides.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Asked {
    by: Option<String>,
}

/// Who asks, as they say themselves: kept with a failover as its evidence.
fn by(name: Option<String>) -> Result<String, Problem> {
    match name.as_deref().map(str::trim) {
        None | Some("") => Ok(String::from("somebody through the API")),
        Some(name) if name.len() > BY_MAX || name.chars().any(char::is_control) => Err(Problem::invalid(
            format!("\"by\" has to be a name of at most {BY_MAX} bytes, on one line"),
        )),
        Some(name) => Ok(name.to_owned()),
    }
}
