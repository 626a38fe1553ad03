//! Records cameras for a while and prints what it cost: CPU time and memory per camera, and how long it took
//! from the start until the last camera's first frame was on disk. What `make bench` compares with ffmpeg.

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use anyhow::Context;
use clap::Parser;
use tokio::time::Instant;
use understudy_core::{
    camera::{Camera, Credentials, RecordingMode, Retention},
    contract::heartbeat::CameraStatus,
    ids::{CameraId, ServerId},
    policy::Range,
};
use understudy_media::{
    archive::{Archive, Filter},
    film::{Film, Studio, StudioConfig},
};

/// Records cameras for a while and prints what it cost, as one JSON object.
#[derive(Parser)]
struct Arguments {
    /// The address of each camera, with `{}` where its number stands, e.g. rtsp://127.0.0.1:8554/cam-{}.
    #[arg(long)]
    url: String,
    /// How many cameras; numbered from 001.
    #[arg(long, default_value_t = 1)]
    cameras: u32,
    /// For how long.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// How long a segment is.
    #[arg(long, default_value_t = 60)]
    segment_seconds: u64,
    /// Where to.
    #[arg(long)]
    archive: PathBuf,
    #[arg(long)]
    user: Option<String>,
    #[arg(long, default_value = "")]
    password: String,
}

/// CPU time in seconds and resident memory in KiB of this process, by `/proc/self` (proc(5)).
fn usage() -> anyhow::Result<(f64, u64)> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<u64>().ok());
    let ticks = ticks(11)
        .zip(ticks(12))
        .context("no CPU time in /proc/self/stat")?;
    let status = std::fs::read_to_string("/proc/self/status")?;
    let rss = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .context("no VmRSS")?;
    let rss = rss.trim().trim_end_matches(" kB").parse()?;
    #[allow(clippy::cast_precision_loss, reason = "a few thousand ticks")]
    let seconds = (ticks.0 + ticks.1) as f64 / 100.0;
    Ok((seconds, rss))
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let archive = Archive::open(&arguments.archive, ServerId::new("bench")?)?;
    let config = StudioConfig {
        segment_seconds: arguments.segment_seconds,
        ..StudioConfig::default()
    };
    let studio = Studio::new(archive.clone(), config).await?;
    let mut statuses = studio.statuses();
    let base = usage()?;
    let started = Instant::now();
    let cameras = (1..=arguments.cameras)
        .map(|number| camera(&arguments, number))
        .collect::<Result<_, _>>()?;
    let server = ServerId::new("bench")?;
    studio
        .film(Film {
            identity: server,
            failover: None,
            range: Range::Full,
            cameras,
        })
        .await;
    let mut recording = BTreeSet::new();
    let mut ready = None;
    let end = started + Duration::from_secs(arguments.seconds);
    let mut settled: Option<(Instant, f64)> = None;
    loop {
        let status = tokio::time::timeout_at(end, statuses.recv()).await;
        let Ok(Some((id, status))) = status else { break };
        match status {
            CameraStatus::Recording => drop(recording.insert(id)),
            CameraStatus::Lost { detail, .. } => eprintln!("{id}: {detail}"),
            _ => {}
        }
        if ready.is_none() && recording.len() == arguments.cameras as usize {
            ready = Some(started.elapsed());
            settled = Some((Instant::now(), usage()?.0));
        }
    }
    let (cpu, rss) = usage()?;
    let (since, cpu_before) = settled.context("not all cameras were recorded")?;
    let seconds = since.elapsed().as_secs_f64();
    studio.close().await;
    let segments = archive.segments(Filter::default()).await?;
    let count = f64::from(arguments.cameras);
    #[allow(clippy::cast_precision_loss, reason = "kilobytes")]
    let rss_mib = rss.saturating_sub(base.1) as f64 / 1024.0 / count;
    println!(
        "{{\"cameras\": {}, \"recording_all_seconds\": {:.3}, \"cpu_percent_per_camera\": {:.3}, \"rss_mib_per_camera\": {rss_mib:.3}, \"base_rss_mib\": {}, \"segments\": {}, \"frames\": {}}}",
        arguments.cameras,
        ready.unwrap_or_default().as_secs_f64(),
        (cpu - cpu_before) / seconds / count * 100.0,
        base.1 / 1024,
        segments.len(),
        segments.iter().map(|segment| segment.frames).sum::<u64>(),
    );
    Ok(())
}

fn camera(arguments: &Arguments, number: u32) -> anyhow::Result<Camera> {
    let id = format!("{number:03}");
    Ok(Camera {
        id: CameraId::new(format!("cam-{id}"))?,
        name: format!("Camera {number}"),
        server: ServerId::new("bench")?,
        url: arguments.url.replace("{}", &id),
        credentials: arguments.user.clone().map(|username| Credentials {
            username,
            password: arguments.password.clone(),
        }),
        recording: RecordingMode::Continuous,
        retention: Retention::default(),
        priority: 0,
        max_sessions: None,
        transport: understudy_core::camera::Transport::default(),
        enabled: true,
    })
}
