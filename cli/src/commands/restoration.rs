//! `understudy restoration`.

use std::io::{IsTerminal, Write};

use clap::Subcommand;
use reqwest::Method;
use serde_json::json;
use understudy_core::contract::api::{FailoverView, Phase};

use super::failover::resolve;
use crate::{
    client::{Connection, who},
    failure::Failure,
    output::{phase, size},
};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// End the synchronisation: what was not transferred completely is removed, what was stays
    Stop {
        /// The failover's id, or its recording server's
        which: String,
        /// Don't ask
        #[arg(long)]
        yes: bool,
    },
}

pub(crate) async fn run(connection: &Connection, command: Command) -> Result<(), Failure> {
    let Command::Stop { which, yes } = command;
    let (api, output) = (connection.client()?, connection.output());
    let id = resolve(&api, &which).await?;
    let view: FailoverView = api.get_as(&format!("failovers/{id}")).await?;
    if view.phase == Phase::Restoring && !yes && !confirmed(&lost(&view))? {
        return output.done("nothing was changed");
    }
    let path = format!("failovers/{id}/restoration/stop");
    let answer = api.send(Method::POST, &path, &json!({ "by": who() })).await?;
    output.answer(answer, |view: FailoverView| {
        format!("{}: {}", view.id, phase(view.phase))
    })
}

/// What would be lost, by the last report.
fn lost(view: &FailoverView) -> String {
    let progress = view.progress;
    format!(
        "{} of recordings ({} segments) were not handed back to {} yet, and would be removed.",
        size(progress.bytes_total.saturating_sub(progress.bytes_done)),
        progress.segments_total.saturating_sub(progress.segments_done),
        view.server,
    )
}

fn confirmed(question: &str) -> Result<bool, Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::Usage(format!("{question} Say --yes if that is wanted")));
    }
    let mut terminal = std::io::stderr();
    write!(terminal, "{question} Go on? [y/N] ")?;
    terminal.flush()?;
    let mut answer = String::new();
    std::io::stdin()
        .read_line(&mut answer)
        .map_err(Failure::while_doing("can't read the answer"))?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}
