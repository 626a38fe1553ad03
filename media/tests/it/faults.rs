//! Each fault has its name, stays with its camera, and ends by itself when its cause does.

use std::process::Command;

use understudy_core::contract::heartbeat::{CameraFault, CameraStatus};
use understudy_media::{archive::Archive, camera::Session, film::Studio};
use understudy_simulator::{AuthScheme, BehaviourChange, Garbage, Simulator, SimulatorConfig, Switch};

use crate::rig::{DEADLINE, Rig, camera, camera_id, numbers, quick, server, until};

fn lost(rig: &Rig, number: u32) -> Option<CameraFault> {
    match rig.status(number) {
        Some(CameraStatus::Lost { fault, .. }) => Some(fault),
        _ => None,
    }
}

fn misbehave(rig: &Rig, number: u32, change: BehaviourChange) -> anyhow::Result<()> {
    Ok(rig.simulator.change(camera_id(number).as_str(), &change)?)
}

#[tokio::test(flavor = "multi_thread")]
async fn e1_each_bad_camera_is_named_with_its_reason_and_the_others_do_not_notice() -> anyhow::Result<()> {
    let cameras = SimulatorConfig {
        cameras: 9,
        auth: AuthScheme::Digest,
        ..SimulatorConfig::default()
    };
    let rig = Rig::start(cameras).await?;
    let on = Some(Switch::On(true));
    misbehave(
        &rig,
        3,
        BehaviourChange {
            unsupported_codec: on_as(),
            ..BehaviourChange::default()
        },
    )?;
    misbehave(
        &rig,
        4,
        BehaviourChange {
            mute: Some(true),
            ..BehaviourChange::default()
        },
    )?;
    misbehave(
        &rig,
        5,
        BehaviourChange {
            garbage: on,
            ..BehaviourChange::default()
        },
    )?;
    let rtsp = Some(Switch::Value(Garbage::Rtsp));
    misbehave(
        &rig,
        6,
        BehaviourChange {
            garbage: rtsp,
            ..BehaviourChange::default()
        },
    )?;
    misbehave(
        &rig,
        7,
        BehaviourChange {
            unreachable: Some(true),
            ..BehaviourChange::default()
        },
    )?;
    misbehave(
        &rig,
        8,
        BehaviourChange {
            max_sessions: Some(Switch::Value(1)),
            ..BehaviourChange::default()
        },
    )?;
    let held = camera(&rig.simulator, 8);
    let holder = Session::open(&held, DEADLINE).await?;

    let mut wanted = rig.cameras(9);
    wanted[1].credentials = Some(understudy_core::camera::Credentials {
        username: "admin".to_owned(),
        password: "not-the-password".to_owned(),
    });
    wanted[8].url = "rtsp://127.0.0.1:1/nobody-listens".to_owned();
    rig.film(wanted).await;
    let expected = [
        (2, CameraFault::Unauthorized),
        (3, CameraFault::UnsupportedCodec),
        (4, CameraFault::Silent),
        (5, CameraFault::Garbage),
        (6, CameraFault::Garbage),
        (7, CameraFault::Unreachable),
        (8, CameraFault::HeldElsewhere),
        (9, CameraFault::Unreachable),
    ];
    for (number, fault) in expected {
        let what = format!("camera {number} is lost: {fault:?}");
        if let Err(error) = until(&what, || lost(&rig, number) == Some(fault)).await {
            anyhow::bail!("{error}, but is {:?}", rig.status(number));
        }
    }
    rig.until_segments(1, 2).await?;
    assert_eq!(rig.status(1), Some(CameraStatus::Recording));
    for status in rig.studio.now().into_values() {
        assert!(!format!("{status:?}").contains("not-the-password"));
    }
    drop(holder);
    rig.until_recording(8).await?;
    rig.studio.stop_filming().await;
    let mut recorded = Vec::new();
    for segment in rig.segments(1).await? {
        recorded.extend(numbers(&rig.archive.file(&segment.path)?)?);
    }
    let (first, last) = (recorded[0], recorded[recorded.len() - 1]);
    assert_eq!(recorded, (first..=last).collect::<Vec<_>>());
    rig.end().await;
    Ok(())
}

fn on_as<T>() -> Option<Switch<T>> {
    Some(Switch::On(true))
}

#[tokio::test(flavor = "multi_thread")]
async fn e1_a_camera_that_comes_back_is_recorded_again() -> anyhow::Result<()> {
    let rig = Rig::start(SimulatorConfig {
        cameras: 3,
        ..SimulatorConfig::default()
    })
    .await?;
    rig.film(rig.cameras(3)).await;
    for number in [1, 2, 3] {
        rig.until_recording(number).await?;
    }
    misbehave(
        &rig,
        1,
        BehaviourChange {
            drop: on_as(),
            ..BehaviourChange::default()
        },
    )?;
    misbehave(
        &rig,
        2,
        BehaviourChange {
            mute: Some(true),
            ..BehaviourChange::default()
        },
    )?;
    until("the mute camera is noticed", || {
        lost(&rig, 2) == Some(CameraFault::Silent)
    })
    .await?;
    misbehave(
        &rig,
        2,
        BehaviourChange {
            mute: Some(false),
            ..BehaviourChange::default()
        },
    )?;
    for number in [1, 2, 3] {
        rig.until_recording(number).await?;
    }
    until("the dropped camera has a second session", || {
        rig.simulator
            .sent("cam-001", 0)
            .is_ok_and(|sent| sent.sessions.len() == 2)
    })
    .await?;
    assert_eq!(
        rig.simulator.sent("cam-003", 0)?.sessions.len(),
        1,
        "the third did not notice"
    );
    rig.end().await;
    Ok(())
}

/// A volume of its own, unmounted at the end.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// None where it can't be mounted.
    fn mount(megabytes: u32) -> anyhow::Result<Option<Self>> {
        let folder = tempfile::tempdir()?;
        let options = format!("size={megabytes}m");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "none"])
            .arg(folder.path())
            .status();
        Ok(mounted.is_ok_and(|status| status.success()).then(|| Self(folder)))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn e1_a_full_disk_is_a_fault_and_recording_goes_on_when_there_is_room() -> anyhow::Result<()> {
    let Some(disk) = SmallDisk::mount(8)? else {
        understudy_runtime::testing::left_out("no tmpfs can be mounted here (not root)");
        return Ok(());
    };
    let archive = Archive::open(disk.0.path().join("archive"), server())?;
    let studio = Studio::new(archive.clone(), quick()).await?;
    let simulator = Simulator::start(SimulatorConfig::default()).await?;
    let film = understudy_media::film::Film {
        identity: server(),
        failover: None,
        range: understudy_core::policy::Range::Full,
        cameras: vec![camera(&simulator, 1)],
    };
    studio.film(film).await;
    let status = || studio.now().remove(&camera_id(1));
    until("it is recorded", || status() == Some(CameraStatus::Recording)).await?;

    let filler = disk.0.path().join("filler");
    fill(&filler);
    let full = || {
        matches!(
            status(),
            Some(CameraStatus::Lost {
                fault: CameraFault::Storage,
                ..
            })
        )
    };
    until("the full disk is noticed", full).await?;
    std::fs::remove_file(&filler)?;
    until("it is recorded again", || {
        status() == Some(CameraStatus::Recording)
    })
    .await?;
    studio.close().await;
    simulator.stop().await;
    for segment in archive
        .segments(understudy_media::archive::Filter::default())
        .await?
    {
        assert_eq!(
            archive.verify(&segment).await?,
            understudy_media::archive::Verdict::Whole
        );
    }
    Ok(())
}

fn fill(file: &std::path::Path) {
    use std::io::Write;
    let Ok(mut file) = std::fs::File::create(file) else {
        return;
    };
    while file.write_all(&[0; 4096]).is_ok() {}
}
