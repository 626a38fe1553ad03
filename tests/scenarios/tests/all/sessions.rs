//! Cameras that allow one session, or two (K8): filmed, failed over and handed back like any other.

use understudy_core::contract::{
    api::{CameraEdit, FailoverView, Phase},
    heartbeat::{CameraFault, CameraStatus},
};
use understudy_demo::rig::{Plan, eventually};
use understudy_scenarios::{Fleet, PATIENCE, gaps, plan};

/// Cameras that allow one session, one, two, and any number; the simulator refuses the next with 453.
const ALLOWED: [Option<u32>; 4] = [Some(1), Some(1), Some(2), None];

/// A fleet with such cameras, which people know of (`declared`) or don't.
async fn fleet(declared: bool) -> anyhow::Result<Fleet> {
    let mut servers = plan().servers;
    servers[0] = servers[0].clone().with_lines();
    let fleet = Fleet::start(Plan {
        servers,
        enroll_cameras: false,
        ..plan()
    })
    .await?;
    let mut cameras = fleet.rig.cameras("recorder-1", 0..ALLOWED.len())?;
    for (camera, allowed) in cameras.iter_mut().zip(ALLOWED) {
        camera.max_sessions = allowed.filter(|_| declared);
        if let Some(allowed) = allowed {
            let behaviour = serde_json::json!({ "max_sessions": allowed });
            fleet.rig.simulator.behave(camera.id.as_str(), &behaviour).await?;
        }
    }
    fleet.rig.api.add_cameras(&cameras).await?;
    fleet.films("recorder-1", 4).await?;
    fleet
        .server("recorder-1", "to be protected", |view| view.protected)
        .await?;
    Ok(fleet)
}

/// The cameras that allow one session are shown as held by the recording server, with `words`.
async fn held_by_original(fleet: &Fleet, words: &str) -> anyhow::Result<()> {
    let words = format!("held by recorder-1: {words}");
    eventually("two cameras to be held elsewhere", PATIENCE, async || {
        let cameras = fleet.rig.api.cameras().await.map_err(|error| error.to_string())?;
        let held: Vec<&str> = cameras
            .iter()
            .filter(|view| {
                let status = view.status.as_ref();
                matches!(status, Some(CameraStatus::Lost { fault: CameraFault::HeldElsewhere, detail }) if detail.starts_with(&words))
            })
            .map(|view| view.camera.id.as_str())
            .collect();
        if held == ["cam-001", "cam-002"] {
            Ok(())
        } else {
            Err(format!("{cameras:?}"))
        }
    })
    .await?;
    Ok(())
}

fn assert_told(failover: &FailoverView, words: &str) {
    let told = failover.steps.iter().any(|step| step.what.contains(words));
    assert!(told, "{words:?} is none of {:?}", failover.steps);
}

#[tokio::test]
async fn k8_cameras_with_few_sessions_are_failed_over_and_handed_back() -> anyhow::Result<()> {
    let mut fleet = fleet(true).await?;

    // By hand, while the recording server is well: what allows one session is let go of first, what allows two is
    // filmed by both for a moment, both ways.
    fleet.rig.api.start_failover("recorder-1").await?;
    fleet.phase("recorder-1", Phase::Serving).await?;
    fleet.films("failover-1", 4).await?;
    fleet.rig.api.stop_failover("recorder-1").await?;
    fleet.whole_again(&["recorder-1"], 4).await?;
    for (camera, numbers) in fleet.recorded("recorder-1")? {
        let (gaps, one) = (gaps(&numbers), ["cam-001", "cam-002"].contains(&camera.as_str()));
        assert!(gaps.len() <= if one { 2 } else { 0 }, "{camera}: {gaps:?}");
    }

    // Cut off from the host, it films on and holds the only session: the stand-in says so, and films the others.
    fleet.rig.server("recorder-1").cut();
    fleet.phase("recorder-1", Phase::Serving).await?;
    fleet.films("failover-1", 2).await?;
    held_by_original(&fleet, "this camera allows 1 session").await?;
    // It hears that it is on standby, and lets go.
    fleet.rig.server("recorder-1").mend();
    fleet.films("failover-1", 4).await?;
    fleet.rig.api.stop_failover("recorder-1").await?;
    fleet.whole_again(&["recorder-1"], 4).await?;

    // Dead, it holds nothing.
    fleet.rig.server("recorder-1").kill();
    fleet.phase("recorder-1", Phase::Serving).await?;
    fleet.films("failover-1", 4).await?;
    fleet.rig.stop().await;
    Ok(())
}

#[tokio::test]
async fn k8_j8_cameras_that_nobody_said_allow_one_session_are_handed_over_all_the_same() -> anyhow::Result<()>
{
    // Given cameras that allow one session without anybody's knowing,
    let mut fleet = fleet(false).await?;
    fleet.files("recorder-1", 4).await?;
    // and one that the failover server can't film for now, so that the planned switch has to wait for it,
    let simulator = &fleet.rig.simulator;
    let mjpeg = serde_json::json!({ "unsupported_codec": "mjpeg" });
    simulator.behave("cam-004", &mjpeg).await?;
    // when the recording server is drained,
    fleet.rig.api.drain("recorder-1", Some("failover-1")).await?;
    // then those are handed over while the other is waited for: the failover server is refused, and the recording
    // server lets go. The steps name them, and say what to do.
    fleet.films("failover-1", 3).await?;
    let failover = fleet.phase("recorder-1", Phase::TakingOver).await?;
    for camera in ["cam-001", "cam-002"] {
        assert_told(&failover, camera);
        assert!(failover.first_frames.keys().any(|films| films.as_str() == camera));
    }
    assert_told(&failover, "held by recorder-1");
    assert_told(&failover, "--max-sessions 1");
    assert_eq!(
        failover.waits_for,
        "failover-1 to film 1 camera(s) that recorder-1 films"
    );
    let well = serde_json::json!({ "unsupported_codec": false });
    fleet.rig.simulator.behave("cam-004", &well).await?;
    fleet.phase("recorder-1", Phase::Serving).await?;
    fleet.films("failover-1", 4).await?;
    // On the way back they are held until the failover server stops; that is said, too.
    fleet.rig.api.stop_failover("recorder-1").await?;
    let failover = fleet.phase("recorder-1", Phase::Completed).await?;
    assert_told(&failover, "failover-1 held cam-001, cam-002 until now");
    fleet.whole_again(&["recorder-1"], 4).await?;
    for (camera, numbers) in fleet.recorded("recorder-1")? {
        let (gaps, one) = (gaps(&numbers), ["cam-001", "cam-002"].contains(&camera.as_str()));
        assert!(gaps.len() <= if one { 2 } else { 0 }, "{camera}: {gaps:?}");
        // The longest pause between two tries, letting go, and a second to the next key frame.
        let longest = gaps.iter().map(|gap| gap.end - gap.start).max().unwrap_or(0);
        assert!(longest <= 15 * 15, "{camera}: {gaps:?}");
    }

    // Cut off from the host, the recording server films on: the failover says who holds them.
    fleet.rig.server("recorder-1").cut();
    let failover = fleet.phase("recorder-1", Phase::Serving).await?;
    assert_told(
        &failover,
        "held by recorder-1, which is not heard: cam-001, cam-002",
    );
    held_by_original(&fleet, "this camera allows no session beside that").await?;
    // Somebody does what is said there, and it holds also when the failover is over.
    let edit = CameraEdit {
        max_sessions: Some(1),
        ..CameraEdit::default()
    };
    for camera in ["cam-001", "cam-002"] {
        fleet.rig.api.edit_camera(camera, &edit).await?;
    }
    held_by_original(&fleet, "this camera allows 1 session").await?;
    fleet.rig.server("recorder-1").mend();
    fleet.films("failover-1", 4).await?;
    fleet.rig.api.stop_failover("recorder-1").await?;
    fleet.whole_again(&["recorder-1"], 4).await?;
    let cameras = fleet.rig.api.cameras().await?;
    let known = cameras.iter().map(|view| view.camera.max_sessions);
    assert_eq!(known.collect::<Vec<_>>(), [Some(1), Some(1), None, None]);
    // Now they are let go of before the failover server asks.
    fleet.rig.api.drain("recorder-1", Some("failover-1")).await?;
    let failover = fleet.phase("recorder-1", Phase::Serving).await?;
    assert_told(&failover, "recorder-1 lets go of cam-001, cam-002 first");
    fleet.films("failover-1", 4).await?;
    fleet.rig.stop().await;
    Ok(())
}
