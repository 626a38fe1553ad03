//! `make bench`: measures what is promised in numbers, beside the peers, in one run, and writes
//! `target/bench.json` (one flat object; its names stand in `design.md`, and the limits in [`limits`]).

mod failback;
mod limits;
mod orchestrator;
mod recording;
mod traces;
mod usage;

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, ensure};
use clap::Parser;
use understudy_core::policy::Policy;
use understudy_demo::{
    report::Report,
    rig::{Plan, ServerPlan},
};

use crate::{limits::Measured, orchestrator::Decided};

/// Measures Understudy beside its peers.
#[derive(Parser)]
struct Arguments {
    /// The `understudy` executable.
    #[arg(long, default_value = "target/debug/understudy")]
    executable: PathBuf,
    /// Where the figures go.
    #[arg(long, default_value = "target/bench.json")]
    output: PathBuf,
    /// How many cameras.
    #[arg(long, default_value_t = 90)]
    cameras: usize,
    /// Only the orchestrator's figures
    #[arg(long)]
    orchestrator: bool,
    /// Only what traces cost
    #[arg(long)]
    traces: bool,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let executable = arguments
        .executable
        .canonicalize()
        .context("build it first: cargo build")?;
    let folder = tempfile::Builder::new().prefix("understudy-bench-").tempdir()?;
    let demo = |failure| {
        demo(
            &executable,
            arguments.cameras,
            failure,
            folder.path().join("report.json"),
        )
    };

    if arguments.traces {
        let traces = traces::measure(&executable, arguments.cameras, folder.path()).await?;
        return Measured::of_traces(&traces).publish(&arguments.output);
    }
    let sizes = orchestrators(&executable, folder.path()).await?;
    if arguments.orchestrator {
        return Measured::of_orchestrators(&sizes).publish(&arguments.output);
    }
    eprintln!("manual failover of {} cameras", arguments.cameras);
    let manual = demo("manual")?;
    eprintln!("drain and return of {} cameras", arguments.cameras);
    let planned = demo("planned")?;
    eprintln!("kill -9 with a disconnection duration of 1 s");
    let killed = demo("kill")?;
    eprintln!("recording beside ffmpeg");
    let recording_folder = folder.path().join("recording");
    std::fs::create_dir_all(&recording_folder)?;
    let plan = plan(executable.clone(), recording_folder, arguments.cameras);
    let recording = recording::measure(plan).await?;
    eprintln!("failback beside rsync");
    let failback = failback::measure(&executable, &folder.path().join("failback")).await?;
    let traces = traces::measure(&executable, arguments.cameras, folder.path()).await?;

    Measured::new(&manual, &planned, &killed, &recording, &failback)
        .and(Measured::of_orchestrators(&sizes))
        .and(Measured::of_traces(&traces))
        .publish(&arguments.output)
}

/// A fleet of each size.
async fn orchestrators(executable: &Path, folder: &Path) -> anyhow::Result<[Decided; 3]> {
    let mut sizes = [Decided::default(); 3];
    for (measured, size) in sizes.iter_mut().zip([10, 100, 1_000]) {
        eprintln!("failovers in a fleet of {size} servers");
        *measured = orchestrator::measure(executable, &folder.join(format!("fleet-{size}")), size).await?;
    }
    Ok(sizes)
}

fn demo(executable: &Path, cameras: usize, failure: &str, report: PathBuf) -> anyhow::Result<Report> {
    let status = Command::new(executable)
        .args([
            "demo",
            "--cameras",
            &cameras.to_string(),
            "--failure",
            failure,
            "--report",
        ])
        .arg(&report)
        .stdout(std::process::Stdio::null())
        .status()?;
    ensure!(status.success(), "the demo ({failure}) failed");
    Ok(serde_json::from_str(&std::fs::read_to_string(&report)?)?)
}

fn plan(executable: PathBuf, folder: PathBuf, cameras: usize) -> Plan {
    let flags = [
        "--codec",
        "h264",
        "--bitrate",
        "2000",
        "--fps",
        "15",
        "--gop",
        "15",
    ];
    Plan {
        executable,
        folder,
        cameras,
        enroll_cameras: true,
        simulator: flags.map(str::to_owned).to_vec(),
        servers: vec![ServerPlan::recording("recorder-1", "Recording server 1", 100)],
        beat: Duration::from_millis(500),
        segment: Duration::from_secs(60),
        policy: Policy::default(),
        extra_configuration: String::new(),
        host_address: None,
    }
}
