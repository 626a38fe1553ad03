//! `understudy replace`.

use clap::Args;
use reqwest::Method;
use serde_json::json;
use understudy_core::{
    contract::api::{FailoverView, Phase, ReplacementView},
    ids::ServerId,
    server::Mode,
};

use crate::{
    client::{Connection, who},
    confirm::Consent,
    failure::Failure,
    output::{phase, table},
};

#[derive(Debug, Args)]
pub(crate) struct ReplaceArgs {
    /// The recording server that is failed over
    server: ServerId,
    /// By which server: its failover server, or another recording server without cameras; its failover server without
    /// it
    #[arg(long, value_name = "SERVER")]
    by: Option<ServerId>,
    /// Only show which servers could take its place, and why others can't
    #[arg(long, conflicts_with = "by")]
    candidates: bool,
    #[command(flatten)]
    consent: Consent,
}

pub(crate) async fn run(connection: &Connection, arguments: ReplaceArgs) -> Result<(), Failure> {
    let (api, output) = (connection.client()?, connection.output());
    let ReplaceArgs {
        server,
        by,
        candidates,
        consent,
    } = arguments;
    let path = format!("servers/{server}/replacement");
    if candidates {
        return output.answer(api.get(&path).await?, |view: ReplacementView| overview(&view));
    }
    // Whoever decides sees the others too; a server that is replaced already is none any more.
    if !connection.json
        && let Ok(view) = api.get_as::<ReplacementView>(&path).await
    {
        eprintln!("{}", overview(&view));
    }
    let body = json!({ "successor": by, "by": who() });
    match consent.send(&api, Method::POST, &path, Some(&body)).await? {
        Some(answer) => output.answer(answer, |view: FailoverView| told(&view)),
        None => output.done("nothing was changed"),
    }
}

fn overview(view: &ReplacementView) -> String {
    let rows = view.candidates.iter().map(|candidate| {
        let mode = match candidate.mode {
            Mode::Failover => "failover server",
            _ => "recording server",
        };
        [
            candidate.server.to_string(),
            candidate.name.clone(),
            mode.to_owned(),
            if candidate.offered { "yes" } else { "no" }.to_owned(),
            candidate.why.clone(),
        ]
    });
    let none = format!("no server could take the place of {}", view.server);
    let head = ["server", "name", "is", "offered", "why"];
    let text = table(head, rows.collect(), &none);
    match view.refused.as_str() {
        "" => text,
        refused => format!("{refused}\n{text}"),
    }
}

fn told(view: &FailoverView) -> String {
    let original = view
        .replaces
        .as_ref()
        .map_or_else(String::new, ToString::to_string);
    let then = match view.phase {
        Phase::Completed => String::new(),
        other => format!(
            "; failover {} is {}: understudy failover watch {}",
            view.id,
            phase(other),
            view.id
        ),
    };
    format!("{} has taken the place of {original} for good{then}", view.server)
}
