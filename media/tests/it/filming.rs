//! What is filmed is in the archive: every frame, in files that any player opens.

use std::collections::BTreeSet;

use understudy_core::{camera::RecordingMode, contract::heartbeat::CameraStatus, policy::Range};
use understudy_media::{archive::Verdict, film::Film};
use understudy_simulator::{AuthScheme, BehaviourChange, Codec, SimulatorConfig};

use crate::rig::{Rig, camera, camera_id, failover, ffprobe, numbers, server, until};

/// Films two cameras over several segments, and holds the files against what the cameras say they sent.
async fn nothing_is_missing(cameras: SimulatorConfig, codecs: &[&str]) -> anyhow::Result<()> {
    let rig = Rig::start(SimulatorConfig {
        cameras: 2,
        ..cameras
    })
    .await?;
    all_is_recorded(rig, codecs).await
}

/// The same with the two cameras of this rig.
async fn all_is_recorded(rig: Rig, codecs: &[&str]) -> anyhow::Result<()> {
    rig.film(rig.cameras(2)).await;
    for number in [1, 2] {
        rig.until_segments(number, 2).await?;
    }
    rig.studio.stop_filming().await;
    for number in [1, 2] {
        let segments = rig.segments(number).await?;
        let mut recorded = Vec::new();
        for segment in &segments {
            let file = rig.archive.file(&segment.path)?;
            let in_file = numbers(&file)?;
            assert_eq!(segment.frames, in_file.len() as u64, "{}", segment.path);
            assert_eq!(rig.archive.verify(segment).await?, Verdict::Whole);
            let (found, frames) = ffprobe(&file)?;
            assert_eq!(
                (found, frames),
                (codecs.iter().map(ToString::to_string).collect(), segment.frames)
            );
            recorded.extend(in_file);
        }
        let (first, last) = (recorded[0], recorded[recorded.len() - 1]);
        assert_eq!(
            recorded,
            (first..=last).collect::<Vec<_>>(),
            "a frame is missing or twice"
        );
        for pair in segments.windows(2) {
            assert_eq!(
                pair[0].end, pair[1].start,
                "segments follow each other without a gap"
            );
        }
        let sent = rig.simulator.sent(camera_id(number).as_str(), 0)?;
        assert_eq!(sent.sessions.len(), 1, "one session per camera");
        let first_key = sent.sessions[0]
            .frames
            .iter()
            .find(|frame| frame.2 == 1)
            .map(|frame| frame.0);
        assert_eq!(
            first_key,
            Some(first),
            "recording begins with the first key frame that was sent"
        );
    }
    rig.end().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn e1_every_frame_of_an_h264_camera_is_recorded_across_segments() -> anyhow::Result<()> {
    nothing_is_missing(
        SimulatorConfig {
            auth: AuthScheme::Digest,
            ..SimulatorConfig::default()
        },
        &["h264"],
    )
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn e1_every_frame_of_an_h265_camera_is_recorded_across_segments() -> anyhow::Result<()> {
    let cameras = SimulatorConfig {
        codec: Codec::H265,
        auth: AuthScheme::Basic,
        ..SimulatorConfig::default()
    };
    nothing_is_missing(cameras, &["hevc"]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn e1_a_cameras_sound_is_recorded_with_its_pictures() -> anyhow::Result<()> {
    nothing_is_missing(
        SimulatorConfig {
            audio: true,
            ..SimulatorConfig::default()
        },
        &["aac", "h264"],
    )
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn e1_a_session_is_kept_alive_with_a_camera_that_soon_forgets() -> anyhow::Result<()> {
    let cameras = SimulatorConfig {
        session_timeout: 2,
        ..SimulatorConfig::default()
    };
    nothing_is_missing(cameras, &["h264"]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn e1_a_camera_whose_rtp_info_is_wrong_is_recorded_like_any_other() -> anyhow::Result<()> {
    let rig = Rig::start(SimulatorConfig {
        cameras: 2,
        audio: true,
        ..SimulatorConfig::default()
    })
    .await?;
    let wrong = BehaviourChange {
        wrong_rtp_info: Some(true),
        ..BehaviourChange::default()
    };
    for number in [1, 2] {
        rig.simulator.change(camera_id(number).as_str(), &wrong)?;
    }
    all_is_recorded(rig, &["aac", "h264"]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_failovers_recordings_begin_without_a_new_session() -> anyhow::Result<()> {
    let rig = Rig::start(SimulatorConfig::default()).await?;
    rig.film(rig.cameras(1)).await;
    rig.until_recording(1).await?;
    rig.film_for(Some(failover("f-1")), rig.cameras(1)).await;
    rig.until_segments(1, 2).await?;
    assert!(
        !rig.archive.manifest(&failover("f-1"), true).await?.complete,
        "it still films for it"
    );
    rig.studio.stop_filming().await;

    let manifest = rig.archive.manifest(&failover("f-1"), true).await?;
    assert!(manifest.complete && !manifest.segments.is_empty());
    let before: Vec<_> = rig
        .segments(1)
        .await?
        .into_iter()
        .filter(|segment| segment.failover.is_none())
        .collect();
    assert_eq!(before.len(), 1);
    let numbers_of = |path: &str| numbers(&rig.path().join(path));
    let last_before = numbers_of(&before[0].path)?.pop();
    let first_after = numbers_of(&manifest.segments[0].path)?[0];
    assert_eq!(last_before, Some(first_after - 1), "no frame lies between them");
    assert_eq!(rig.simulator.sent("cam-001", 0)?.sessions.len(), 1);
    // What it filmed after the beginning up to which it arrived is not erased.
    let begun = manifest.begun.expect("it began to film for it");
    assert_eq!(rig.archive.erase(&failover("f-1"), Some(begun - 1)).await?, None);
    assert_eq!(
        rig.archive.erase(&failover("f-1"), Some(begun)).await?,
        Some(manifest.segments.len())
    );
    assert_eq!(rig.segments(1).await?, before);
    rig.end().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn d2_with_the_range_without_recording_cameras_are_live_and_nothing_is_written() -> anyhow::Result<()> {
    let rig = Rig::start(SimulatorConfig {
        cameras: 2,
        ..SimulatorConfig::default()
    })
    .await?;
    let range = Range::LiveOnly;
    rig.studio
        .film(Film {
            identity: server(),
            failover: None,
            range,
            cameras: rig.cameras(1),
        })
        .await;
    until("the camera is live", || {
        rig.status(1) == Some(CameraStatus::LiveOnly)
    })
    .await?;
    let mut live_only = camera(&rig.simulator, 2);
    live_only.recording = RecordingMode::LiveOnly;
    rig.film(vec![camera(&rig.simulator, 1), live_only]).await;
    rig.until_recording(1).await?;
    until("the other is live", || {
        rig.status(2) == Some(CameraStatus::LiveOnly)
    })
    .await?;
    rig.studio.stop_filming().await;
    assert!(rig.segments(2).await?.is_empty());
    assert_eq!(
        rig.simulator.sent("cam-001", 0)?.sessions.len(),
        1,
        "the same session was live and recorded"
    );
    rig.end().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn cameras_that_are_not_wanted_any_more_are_let_go_and_others_stay() -> anyhow::Result<()> {
    let rig = Rig::start(SimulatorConfig {
        cameras: 2,
        ..SimulatorConfig::default()
    })
    .await?;
    let mut statuses = rig.studio.statuses();
    rig.film(rig.cameras(2)).await;
    rig.until_recording(1).await?;
    rig.until_recording(2).await?;
    let mut disabled = camera(&rig.simulator, 2);
    disabled.enabled = false;
    rig.film(vec![camera(&rig.simulator, 1), disabled]).await;
    until("the session of the second camera has ended", || {
        rig.simulator
            .sent("cam-002", 0)
            .is_ok_and(|sent| sent.sessions[0].ended_at.is_some())
    })
    .await?;
    assert!(matches!(rig.status(2), Some(CameraStatus::Disabled { .. })));
    assert_eq!(rig.status(1), Some(CameraStatus::Recording));
    let mut told = BTreeSet::new();
    while let Ok((id, status)) = statuses.try_recv() {
        if status == CameraStatus::Recording {
            told.insert(id);
        }
    }
    assert_eq!(told, BTreeSet::from([camera_id(1), camera_id(2)]));
    rig.end().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_a_picture_in_the_archive() -> anyhow::Result<()> {
    for codec in [Codec::H264, Codec::H265] {
        let rig = Rig::start(SimulatorConfig {
            codec,
            ..SimulatorConfig::default()
        })
        .await?;
        assert!(
            rig.studio.snapshot(&camera_id(1)).await.is_err(),
            "nothing is filmed yet"
        );
        rig.film_for(Some(failover("f-1")), rig.cameras(1)).await;
        rig.until_recording(1).await?;
        let picture = rig.studio.snapshot(&camera_id(1)).await?;
        assert!(picture.path.starts_with("cam-001/snapshots/"));
        assert_eq!(rig.archive.verify(&picture).await?, Verdict::Whole);
        assert_eq!(
            ffprobe(&rig.archive.file(&picture.path)?)?,
            (BTreeSet::from(["mjpeg".to_owned()]), 1)
        );
        let manifest = rig.archive.manifest(&failover("f-1"), false).await?;
        assert!(
            manifest.segments.contains(&picture),
            "it is handed back with the recordings"
        );
        rig.end().await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn h3_what_was_filmed_for_a_failover_becomes_the_servers_own_without_a_frame_lost() -> anyhow::Result<()>
{
    // Given a server that films for a failover,
    let rig = Rig::start(SimulatorConfig::default()).await?;
    rig.film_for(Some(failover("f-1")), rig.cameras(1)).await;
    rig.until_segments(1, 1).await?;
    assert!(rig.archive.films_for(&failover("f-1")).await?);
    // when it films on for itself,
    rig.film(rig.cameras(1)).await;
    // then nothing is filmed for the failover after a while, though it never stopped,
    let end = tokio::time::Instant::now() + crate::rig::DEADLINE;
    while rig.archive.films_for(&failover("f-1")).await? {
        anyhow::ensure!(tokio::time::Instant::now() < end, "it still films for it");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let manifest = rig.archive.manifest(&failover("f-1"), true).await?;
    assert!(manifest.complete && !manifest.segments.is_empty());
    // and all of it is its own when it is kept: again changes nothing.
    assert_eq!(rig.archive.keep(&failover("f-1")).await?, manifest.segments.len());
    assert_eq!(rig.archive.keep(&failover("f-1")).await?, 0);
    assert!(rig.archive.failovers().await?.is_empty());
    let before = rig.segments(1).await?.len();
    rig.until_segments(1, before + 1).await?;
    rig.studio.stop_filming().await;
    let segments = rig.segments(1).await?;
    let mut recorded = Vec::new();
    for segment in &segments {
        assert_eq!(segment.failover, None, "{}", segment.path);
        recorded.extend(numbers(&rig.archive.file(&segment.path)?)?);
    }
    let (first, last) = (recorded[0], recorded[recorded.len() - 1]);
    assert_eq!(recorded, (first..=last).collect::<Vec<_>>());
    let sent = rig.simulator.sent(camera_id(1).as_str(), 0)?;
    assert_eq!(sent.sessions.len(), 1, "one session");
    rig.end().await;
    Ok(())
}
