//! What lies in the archive plays, whatever happened to the process that wrote it.

use std::{path::Path, process::Command};

use tokio::time::Instant;
use understudy_demo::{frames, rig::Plan};
use understudy_scenarios::{Fleet, assert_only_takeovers_missing, plan};

/// `ffprobe` reads the file and counts as many video packets as there are numbered frames.
fn plays(path: &Path, codec: &str) -> anyhow::Result<()> {
    let output = Command::new("ffprobe")
        .args(["-v", "error", "-select_streams", "v", "-count_packets"])
        .args([
            "-show_entries",
            "stream=codec_name,nb_read_packets",
            "-of",
            "csv=p=0",
        ])
        .arg(path)
        .output()?;
    let (said, complaints) = (
        String::from_utf8(output.stdout)?,
        String::from_utf8_lossy(&output.stderr),
    );
    let numbers = frames::numbers(path)?.len();
    assert!(
        output.status.success() && complaints.is_empty(),
        "{}: {complaints}",
        path.display()
    );
    assert_eq!(said.trim(), format!("{codec},{numbers}"), "{}", path.display());
    Ok(())
}

async fn films_and_survives_a_kill(codec: &str, probed: &str, more: &[&str]) -> anyhow::Result<()> {
    let mut fleet_plan = Plan { cameras: 2, ..plan() };
    fleet_plan.simulator.extend(["--codec", codec].map(str::to_owned));
    fleet_plan
        .simulator
        .extend(more.iter().map(|flag| (*flag).to_owned()));
    let mut fleet = Fleet::filming(fleet_plan).await?;
    fleet.files("recorder-1", 4).await?;

    let killed = Instant::now();
    fleet.rig.server("recorder-1").ingest.kill();
    let before = fleet.files("recorder-1", 4).await?.len();
    fleet.rig.server("recorder-1").ingest.start()?;
    fleet.files("recorder-1", before + 4).await?;
    fleet.unfilmed = killed.elapsed();
    assert!(
        fleet.rig.server("recorder-1").stop().await,
        "it stops when asked to"
    );

    let archive = fleet.rig.server("recorder-1").archive();
    for (_, path) in frames::files(&archive)? {
        plays(&path, probed)?;
    }
    assert_only_takeovers_missing(&frames::recorded(&archive)?, 1, fleet.unfilmed);
    fleet.rig.stop().await;
    Ok(())
}

#[tokio::test]
async fn e1_every_h264_file_plays_after_a_kill_of_the_recorder() -> anyhow::Result<()> {
    films_and_survives_a_kill("h264", "h264", &[]).await
}

#[tokio::test]
async fn e1_every_h265_file_with_sound_plays_after_a_kill_of_the_recorder() -> anyhow::Result<()> {
    films_and_survives_a_kill("h265", "hevc", &["--audio"]).await
}

#[tokio::test]
async fn e1_retention_by_age_removes_the_oldest_and_keeps_filming() -> anyhow::Result<()> {
    let mut fleet = Fleet::start(Plan {
        enroll_cameras: false,
        cameras: 2,
        ..plan()
    })
    .await?;
    let mut cameras = fleet.rig.cameras("recorder-1", 0..2)?;
    cameras[0].retention.max_age_seconds = Some(10);
    fleet.rig.api.add_cameras(&cameras).await?;
    fleet.films("recorder-1", 2).await?;

    let archive = fleet.rig.server("recorder-1").archive();
    understudy_demo::rig::eventually("the oldest to go", understudy_scenarios::PATIENCE, async || {
        let recorded = frames::recorded(&archive).map_err(|error| error.to_string())?;
        let first = |camera: &str| recorded.get(camera).and_then(|numbers| numbers.first().copied());
        let span = |camera: &str| recorded.get(camera).map_or(0, |numbers| numbers.len());
        // The kept camera goes on growing; the limited one has lost its beginning.
        match (first("cam-001"), first("cam-002")) {
            (Some(_), Some(_)) if span("cam-002") > 30 * 15 && span("cam-001") < 20 * 15 => Ok(()),
            other => Err(format!(
                "{other:?}, {} and {} frames",
                span("cam-001"),
                span("cam-002")
            )),
        }
    })
    .await?;
    fleet.films("recorder-1", 2).await?;
    fleet.rig.stop().await;
    Ok(())
}
