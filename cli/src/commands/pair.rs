//! `understudy pair`.

use clap::Args;
use reqwest::Method;
use understudy_core::{contract::api::ServerView, ids::ServerId, policy::Pairing};

use crate::{
    client::{Connection, understood},
    confirm::Consent,
    failure::Failure,
    output::list,
};

#[derive(Debug, Args)]
pub(crate) struct PairArgs {
    /// The recording server
    server: ServerId,
    /// The failover servers that may stand in for it, instead of those up to now; without any, shows them
    stand_ins: Vec<ServerId>,
    /// Every failover server, those added later included
    #[arg(long, conflicts_with = "stand_ins")]
    all: bool,
    /// None: the recording server is unprotected
    #[arg(long, conflicts_with_all = ["stand_ins", "all"])]
    none: bool,
    #[command(flatten)]
    consent: Consent,
}

pub(crate) async fn run(connection: &Connection, arguments: PairArgs) -> Result<(), Failure> {
    let (api, output) = (connection.client()?, connection.output());
    let PairArgs {
        server,
        stand_ins,
        all,
        none,
        consent,
    } = arguments;
    let path = format!("servers/{server}/pairings");
    let wanted = if all {
        Some(Pairing::All)
    } else if none || !stand_ins.is_empty() {
        Some(Pairing::Servers(stand_ins.into_iter().collect()))
    } else {
        None
    };
    let answer = match &wanted {
        Some(wanted) => match consent.send(&api, Method::PUT, &path, Some(wanted)).await? {
            Some(answer) => answer,
            None => return output.done("nothing was changed"),
        },
        None => api.get(&path).await?,
    };
    if output.json {
        return output.answer(answer, |_: Pairing| "");
    }
    let pairing: Pairing = understood(answer)?;
    let view: ServerView = api.get_as(&format!("servers/{server}")).await?;
    output.line(shown(&pairing, &view))
}

fn shown(pairing: &Pairing, view: &ServerView) -> String {
    let name = &view.server.name;
    let mut text = match pairing {
        Pairing::All => format!(
            "{name} is paired with every failover server: {}",
            list(&view.paired_with)
        ),
        Pairing::Servers(servers) if servers.is_empty() => {
            format!("{name} is paired with no failover server")
        }
        Pairing::Servers(servers) => format!("{name} is paired with {}", list(servers)),
    };
    for warning in &view.warnings {
        text.push_str("\nwarning: ");
        text.push_str(warning);
    }
    text
}
