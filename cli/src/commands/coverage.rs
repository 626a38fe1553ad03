//! `understudy coverage`: who is protected by whom, and what is missing.

use clap::Args;
use serde_json::json;
use understudy_core::{
    contract::api::{DomainView, ServerView},
    server::Mode,
};

use crate::{
    client::{Connection, understood},
    failure::Failure,
    output::{list, table},
};

#[derive(Debug, Args)]
pub(crate) struct CoverageArgs {}

pub(crate) async fn run(connection: &Connection) -> Result<(), Failure> {
    let (api, output) = (connection.client()?, connection.output());
    let (domains, servers) = (api.get("domains").await?, api.get("servers").await?);
    if output.json {
        let both = json!({ "domains": domains, "servers": servers });
        return output.answer(both, |_: serde_json::Value| "");
    }
    let domains: Vec<DomainView> = understood(domains)?;
    let servers: Vec<ServerView> = understood(servers)?;
    output.line(overview(&domains, &servers))
}

fn overview(domains: &[DomainView], servers: &[ServerView]) -> String {
    let row = |view: &ServerView| {
        [
            view.server.domain.to_string(),
            view.label.clone(),
            if view.protected { "yes".into() } else { "no".into() },
            list(&view.paired_with),
            view.warnings.join("; "),
        ]
    };
    let recording = servers.iter().filter(|view| view.server.mode == Mode::Recording);
    let head = [
        "domain",
        "recording server",
        "protected",
        "paired with",
        "remarks",
    ];
    let mut text = table(head, recording.map(row).collect(), "there is no recording server");
    for domain in domains {
        for gap in &domain.gaps {
            text.push_str(&format!("\n{}: {gap}", domain.id));
        }
    }
    text
}
