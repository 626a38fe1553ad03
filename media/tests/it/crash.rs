//! Invariant 9: a kill costs two fragments at most, and leaves nothing behind that is not in the index.

use std::{process::Stdio, time::Duration};

use understudy_core::policy::Range;
use understudy_media::{
    archive::{Archive, Filter, Verdict},
    film::{Film, Studio},
};
use understudy_simulator::{Simulator, SimulatorConfig};

use crate::rig::{DEADLINE, camera, camera_id, failover, ffprobe, numbers, quick, server};

const ARCHIVE: &str = "UNDERSTUDY_TEST_ARCHIVE";
const CAMERAS: &str = "UNDERSTUDY_TEST_CAMERAS";
const COUNT: u32 = 4;

/// Not a test by itself: the process that is killed.
#[tokio::test(flavor = "multi_thread")]
async fn child_that_films() -> anyhow::Result<()> {
    let (Ok(folder), Ok(url)) = (std::env::var(ARCHIVE), std::env::var(CAMERAS)) else {
        return Ok(());
    };
    let studio = Studio::new(Archive::open(folder, server())?, quick_but_long()).await?;
    let simulator = Simulator::start(SimulatorConfig::default()).await?;
    let cameras = (1..=COUNT).map(|number| {
        let mut camera = camera(&simulator, number);
        camera.url = format!("{url}{}", camera_id(number));
        camera
    });
    let film = Film {
        identity: server(),
        failover: Some(failover("f-1")),
        range: Range::Full,
        cameras: cameras.collect(),
    };
    studio.film(film).await;
    tokio::time::sleep(DEADLINE * 2).await;
    Ok(())
}

fn quick_but_long() -> understudy_media::film::StudioConfig {
    understudy_media::film::StudioConfig {
        segment_seconds: 600,
        ..quick()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn e1_a_kill_in_the_middle_of_a_segment_costs_two_fragments_at_most() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let simulator = Simulator::start(SimulatorConfig {
        cameras: COUNT,
        ..SimulatorConfig::default()
    })
    .await?;
    let mut child = tokio::process::Command::new(std::env::current_exe()?)
        .args(["crash::child_that_films", "--exact", "--nocapture"])
        .env(ARCHIVE, folder.path())
        .env(CAMERAS, format!("rtsp://{}/", simulator.address()))
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let end = tokio::time::Instant::now() + DEADLINE;
    let frames_sent = |number| {
        simulator.sent(camera_id(number).as_str(), 0).map_or(0, |sent| {
            sent.sessions.first().map_or(0, |session| session.frames.len())
        })
    };
    while (1..=COUNT).any(|number| frames_sent(number) < 60) {
        anyhow::ensure!(tokio::time::Instant::now() < end, "the cameras were never filmed");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    child.start_kill()?;
    let killed_at_us = understudy_runtime::clock::wall().as_millis() * 1000;
    child.wait().await?;
    // What an earlier crash may have left: an empty file, and a file that holds nothing whole.
    let day = folder.path().join("cam-001").join("2026-01-01");
    std::fs::create_dir_all(&day)?;
    std::fs::write(day.join("00-00-00.000-recorder-1.mp4"), b"")?;
    std::fs::write(day.join("00-00-01.000-recorder-1.mp4"), b"\0\0\0\x18ftyp cut off")?;

    let archive = Archive::open(folder.path(), server())?;
    assert!(
        !archive.manifest(&failover("f-1"), true).await?.complete,
        "what was left is not indexed yet"
    );
    let recovered = archive.recover().await?;
    assert_eq!(
        (recovered.indexed.len(), recovered.removed.len()),
        (COUNT as usize, 2)
    );
    assert!(recovered.failed.is_empty() && recovered.dropped.is_empty());
    let manifest = archive.manifest(&failover("f-1"), true).await?;
    assert!(manifest.complete, "all that was filmed for it is indexed");
    assert_eq!(manifest.segments.len(), COUNT as usize);
    for segment in &manifest.segments {
        let file = archive.file(&segment.path)?;
        assert_eq!(archive.verify(segment).await?, Verdict::Whole);
        let recorded = numbers(&file)?;
        assert_eq!(ffprobe(&file)?.1, recorded.len() as u64);
        assert_eq!(segment.frames, recorded.len() as u64);
        let sent = simulator.sent(segment.camera.as_str(), 0)?;
        let last_sent = sent.sessions[0]
            .frames
            .iter()
            .rev()
            .find(|frame| frame.1 < killed_at_us);
        let last_sent = last_sent.expect("frames were sent").0;
        let lost = last_sent - recorded[recorded.len() - 1];
        // Two fragments of a quarter of a second, at 15 frames a second.
        assert!(lost <= 8, "{lost} frames of {} are lost", segment.camera);
    }
    assert_eq!(archive.recover().await?.indexed.len(), 0, "nothing is left to do");
    std::fs::remove_file(archive.file(&manifest.segments[0].path)?)?;
    assert_eq!(
        archive.recover().await?.dropped,
        [manifest.segments[0].path.clone()]
    );
    assert_eq!(
        archive.segments(Filter::default()).await?.len(),
        COUNT as usize - 1
    );
    simulator.stop().await;
    Ok(())
}
