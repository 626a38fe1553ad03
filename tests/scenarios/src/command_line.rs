//! The command line, as a person uses it on a fleet, with nobody at its terminal.

use std::process::{Output, Stdio};

use crate::{Fleet, PATIENCE, executable};

/// What became of a command.
///
/// # Errors
/// If it can't be started, or does not end.
pub async fn command(fleet: &Fleet, arguments: &[&str]) -> anyhow::Result<Output> {
    let output = tokio::process::Command::new(executable())
        .args(arguments)
        .env("UNDERSTUDY_URL", format!("http://{}", fleet.rig.api_address))
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    Ok(tokio::time::timeout(PATIENCE, output).await??)
}

/// What a command says that succeeds.
///
/// # Errors
/// As [`command`], and if it fails.
pub async fn told(fleet: &Fleet, arguments: &[&str]) -> anyhow::Result<String> {
    let output = command(fleet, arguments).await?;
    anyhow::ensure!(output.status.success(), "{arguments:?}: {output:?}");
    Ok(String::from_utf8(output.stdout)?)
}
