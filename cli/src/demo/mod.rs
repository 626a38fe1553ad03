//! `understudy demo`: the main job, told once, with a report of it.

use std::path::PathBuf;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use understudy_demo::{
    DemoError,
    display::Display,
    story::{self, Failure as Fault, Options},
};

use crate::failure::Failure;

#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// How many cameras
    #[arg(long, default_value_t = 90, value_parser = clap::value_parser!(u16).range(1..=999))]
    cameras: u16,
    /// How the recording server is taken away
    #[arg(long, value_enum, default_value_t)]
    failure: Fault,
    /// Write the report, as JSON
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Leave the folder with logs and recordings, and say where it is
    #[arg(long)]
    keep: bool,
}

/// Tells it. What was promised and did not hold is a failure.
pub(crate) async fn run(arguments: DemoArgs) -> Result<(), Failure> {
    let executable = std::env::current_exe().map_err(Failure::while_doing("can't find this executable"))?;
    let options = Options {
        executable,
        cameras: usize::from(arguments.cameras),
        failure: arguments.failure,
        keep: arguments.keep,
        simulator: Vec::new(),
    };
    let display = Display::new();
    let told = tokio::select! {
        told = story::tell(&options, &display) => told,
        // Dropped, it ends its processes and removes its folder.
        () = interrupted() => {
            display.end();
            return Err(Failure::Failed("interrupted: everything it started was ended and removed".to_owned()));
        }
    };
    display.end();
    let report = told.map_err(|error| match error {
        DemoError::Lacking(what) => Failure::Usage(what),
        other => Failure::Failed(other.to_string()),
    })?;
    if let Some(file) = arguments.report {
        let text =
            serde_json::to_string_pretty(&report).map_err(Failure::while_doing("can't write the report"))?;
        std::fs::write(&file, text + "\n")
            .map_err(Failure::while_doing(format!("can't write {}", file.display())))?;
    }
    let output = crate::output::Output { json: false };
    for line in report.lines() {
        output.line(line)?;
    }
    match report.figures.broken.as_slice() {
        [] => Ok(()),
        broken => Err(Failure::Failed(format!(
            "not everything that was promised held:\n{}",
            broken.join("\n")
        ))),
    }
}

/// Somebody ends it: by Ctrl-C, or by SIGTERM.
async fn interrupted() {
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        // Then it ends as it always did, by the signal itself.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}
