//! `understudy restoration`.

use clap::Subcommand;
use reqwest::Method;
use serde_json::json;
use understudy_core::contract::api::FailoverView;

use super::failover::resolve;
use crate::{
    client::{Connection, who},
    confirm::Consent,
    failure::Failure,
    output::phase,
};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// End the synchronisation: what was not transferred completely is removed, what was stays
    Stop {
        /// The failover's id, or its recording server's
        which: String,
        #[command(flatten)]
        consent: Consent,
    },
}

pub(crate) async fn run(connection: &Connection, command: Command) -> Result<(), Failure> {
    let Command::Stop { which, consent } = command;
    let (api, output) = (connection.client()?, connection.output());
    let id = resolve(&api, &which).await?;
    let path = format!("failovers/{id}/restoration/stop");
    let body = json!({ "by": who() });
    match consent.send(&api, Method::POST, &path, Some(&body)).await? {
        None => output.done("nothing was changed"),
        Some(answer) => output.answer(answer, |view: FailoverView| {
            format!("{}: {}", view.id, phase(view.phase))
        }),
    }
}
