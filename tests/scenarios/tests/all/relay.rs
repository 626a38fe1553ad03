//! Live view goes on at the server that films, whichever that is, and nobody connects to the camera twice.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use serde_json::json;
use tokio::process::Command;
use understudy_core::{
    camera::Transport,
    contract::api::{CameraView, Phase, SnapshotView, SnapshotsView},
    ids::ServerId,
    policy::{Policy, Range},
};
use understudy_demo::{
    frames,
    rig::{Plan, eventually},
};
use understudy_scenarios::{
    Fleet, PATIENCE,
    command_line::{command, told},
    gaps, plan,
};

/// Has a picture of a camera kept, by the command line.
pub(crate) async fn snapshot(fleet: &Fleet, camera: &str) -> anyhow::Result<SnapshotView> {
    let text = told(fleet, &["camera", "snapshot", camera, "--json"]).await?;
    Ok(serde_json::from_str(&text)?)
}

/// All pictures of a camera, by the API.
pub(crate) async fn snapshots(fleet: &Fleet, camera: &str) -> anyhow::Result<SnapshotsView> {
    Ok(fleet.rig.api.get(&format!("cameras/{camera}/snapshots")).await?)
}

/// Where a picture lies in an archive.
pub(crate) fn picture_in(archive: &Path, picture: &SnapshotView) -> PathBuf {
    archive.join(format!("{}/snapshots/{}.jpg", picture.camera, picture.id))
}

/// Where a camera can be watched, once that is at `server`.
pub(crate) async fn watched_at(fleet: &Fleet, camera: &str, server: &str) -> anyhow::Result<String> {
    let what = format!("{camera} can be watched at {server}");
    let relay = eventually(&what, PATIENCE, async || {
        let path = format!("cameras/{camera}");
        let view: CameraView = fleet
            .rig
            .api
            .get(&path)
            .await
            .map_err(|error| error.to_string())?;
        match (&view.filmed_by, &view.relay) {
            (Some(by), Some(relay)) if by.as_str() == server => Ok(relay.clone()),
            _ => Err(format!("{view:?}")),
        }
    });
    Ok(relay.await?)
}

async fn play(url: &str) -> anyhow::Result<()> {
    play_from(&[], url).await
}

/// A program, in another place if `enter` leads there.
pub(crate) fn program(enter: &[String], name: &str) -> Command {
    let mut words = enter.iter().map(String::as_str).chain([name]);
    let mut command = Command::new(words.next().unwrap_or(name));
    command.args(words);
    command
}

/// What ffmpeg makes of two seconds of it: decodes every picture, and complains of none.
pub(crate) async fn play_from(enter: &[String], url: &str) -> anyhow::Result<()> {
    let output = program(enter, "ffmpeg")
        .args(["-v", "error", "-rtsp_transport", "tcp", "-i", url])
        .args(["-frames:v", "30", "-f", "null", "-"])
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(PATIENCE, output)
        .await
        .context("ffmpeg hangs")??;
    let complaints = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success() && complaints.is_empty(),
        "{url}: {complaints}"
    );
    Ok(())
}

/// What ffprobe says of an address at which there is nothing.
async fn refused(url: &str) -> anyhow::Result<String> {
    refused_from(&[], url).await
}

/// The same from another place.
pub(crate) async fn refused_from(enter: &[String], url: &str) -> anyhow::Result<String> {
    let output = program(enter, "ffprobe")
        .args(["-v", "error", "-rtsp_transport", "tcp", url])
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(PATIENCE, output)
        .await
        .context("ffprobe hangs")??;
    ensure!(!output.status.success(), "{url} can be watched");
    Ok(String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Whether any program takes it for a picture.
async fn is_jpeg(file: &Path) -> anyhow::Result<()> {
    let output = Command::new("ffprobe")
        .args([
            "-v",
            "error",
            "-show_entries",
            "stream=codec_name,width,height",
            "-of",
            "csv=p=0",
        ])
        .arg(file)
        .output()
        .await?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(said.trim() == "mjpeg,320,240", "{said} {output:?}");
    Ok(())
}

#[tokio::test]
async fn d2_a4_g2_live_view_follows_the_camera_and_nothing_is_recorded_on_the_failover_server()
-> anyhow::Result<()> {
    // Given a fleet whose failover is live-only, and a viewer of the recording server,
    let policy = Policy {
        range: Range::LiveOnly,
        ..plan().policy
    };
    let mut fleet = Fleet::filming(Plan { policy, ..plan() }).await?;
    let before = watched_at(&fleet, "cam-001", "recorder-1").await?;
    play(&before).await?;
    // when the recording server dies,
    fleet.rig.server("recorder-1").kill();
    fleet.phase("recorder-1", Phase::Serving).await?;
    // the camera is watched at the failover server, under the same path,
    let during = watched_at(&fleet, "cam-001", "failover-1").await?;
    assert_ne!(before, during);
    assert!(during.ends_with("/cam-001"), "{during}");
    let (one, two, three) = tokio::join!(play(&during), play(&during), play(&during));
    one.and(two).and(three)?;
    // by any number of people over one session with it,
    let account = fleet.rig.simulator.account().await?;
    let sessions = &account["cam-001"].sessions;
    assert_eq!(sessions.len(), 2, "one for each server: {sessions:?}");
    // and nothing is recorded, but for a picture that somebody asks for.
    let taken = snapshot(&fleet, "cam-001").await?;
    assert_eq!(
        (taken.held_by.as_str(), taken.taken_by.as_str()),
        ("failover-1", "failover-1")
    );
    let archive = fleet.rig.server("failover-1").archive();
    assert_eq!(frames::files(&archive)?, []);
    let picture = std::fs::read(picture_in(&archive, &taken))?;
    assert_eq!(frames::hash(&picture), taken.blake3);
    is_jpeg(&picture_in(&archive, &taken)).await?;
    let listed = snapshots(&fleet, "cam-001").await?;
    assert_eq!(listed.snapshots, std::slice::from_ref(&taken));
    assert_eq!(
        listed.unreached.len(),
        1,
        "the recording server is dead: {listed:?}"
    );

    // Back on standby it offers nothing.
    fleet.rig.server("recorder-1").start()?;
    fleet.is_back("recorder-1").await?;
    fleet.rig.api.stop_failover("recorder-1").await?;
    fleet.phase("recorder-1", Phase::Completed).await?;
    fleet.stands_by("failover-1").await?;
    let nothing = refused(&during).await?;
    assert!(nothing.contains("404"), "{nothing}");
    play(&watched_at(&fleet, "cam-001", "recorder-1").await?).await?;
    assert_eq!(frames::files(&archive)?, []);
    // The picture is handed back, with the hash that it had, and the copy is gone.
    assert!(!picture_in(&archive, &taken).exists());
    let there = picture_in(&fleet.rig.server("recorder-1").archive(), &taken);
    assert_eq!(frames::hash(&std::fs::read(there)?), taken.blake3);
    let back = SnapshotView {
        held_by: ServerId::new("recorder-1")?,
        ..taken.clone()
    };
    let listed = snapshots(&fleet, "cam-001").await?;
    assert_eq!((listed.snapshots, listed.unreached), (vec![back], vec![]));
    // It is given out where the cameras' picture of now is asked for too, and no other is.
    let file = fleet.rig.plan.folder.join("picture.jpg");
    let path = file.to_string_lossy().into_owned();
    told(
        &fleet,
        &["camera", "snapshots", "cam-001", &taken.id, "--save", &path],
    )
    .await?;
    assert_eq!(std::fs::read(&file)?, picture);
    let now = told(&fleet, &["camera", "snapshot", "cam-002", "--save", &path]).await?;
    assert!(now.contains("is kept on recorder-1"), "{now}");
    is_jpeg(&file).await?;
    let nobody = command(&fleet, &["camera", "snapshot", "cam-009"]).await?;
    assert_eq!(nobody.status.code(), Some(1), "{nobody:?}");
    fleet.rig.stop().await;
    Ok(())
}

#[tokio::test]
async fn e1_a_camera_is_switched_to_udp_and_goes_through_a_failover() -> anyhow::Result<()> {
    let mut fleet = Fleet::filming(plan()).await?;
    told(&fleet, &["camera", "edit", "cam-001", "--transport", "udp"]).await?;
    let view: CameraView = fleet.rig.api.get("cameras/cam-001").await?;
    assert_eq!(view.camera.transport, Transport::Udp);
    // From now on what is lost on the way is missing, of that camera only.
    let lossy = json!({ "udp_loss": 0.05 });
    for camera in ["cam-001", "cam-002"] {
        fleet.rig.simulator.behave(camera, &lossy).await?;
    }
    fleet.films("recorder-1", 4).await?;
    fleet.files("recorder-1", 12).await?;
    fleet.rig.server("recorder-1").kill();
    fleet.phase("recorder-1", Phase::Serving).await?;
    fleet.films("failover-1", 4).await?;
    fleet.files("failover-1", 12).await?;
    let recorded = fleet.recorded("failover-1")?;
    let missing = |camera: &str| gaps(&recorded[camera]).len();
    assert!(missing("cam-001") > 0, "{recorded:?}");
    assert_eq!(missing("cam-002"), 0);
    fleet.films("failover-1", 4).await?;
    fleet.rig.stop().await;
    Ok(())
}
