//! Cameras that allow one session, or two (K8): filmed, failed over and handed back like any other.

use understudy_core::contract::{
    api::Phase,
    heartbeat::{CameraFault, CameraStatus},
};
use understudy_demo::rig::{Plan, eventually};
use understudy_scenarios::{Fleet, PATIENCE, gaps, plan};

/// Cameras that allow one session, one, two, and any number; the simulator refuses the next with 453.
const ALLOWED: [Option<u32>; 4] = [Some(1), Some(1), Some(2), None];

async fn fleet() -> anyhow::Result<Fleet> {
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
        camera.max_sessions = allowed;
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

#[tokio::test]
async fn k8_cameras_with_few_sessions_are_failed_over_and_handed_back() -> anyhow::Result<()> {
    let mut fleet = fleet().await?;

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
    eventually("two cameras to be held elsewhere", PATIENCE, async || {
        let cameras = fleet.rig.api.cameras().await.map_err(|error| error.to_string())?;
        let held: Vec<&str> = cameras
            .iter()
            .filter(|view| {
                let status = view.status.as_ref();
                matches!(status, Some(CameraStatus::Lost { fault: CameraFault::HeldElsewhere, detail }) if !detail.is_empty())
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
