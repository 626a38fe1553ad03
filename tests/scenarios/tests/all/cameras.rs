//! One bad camera is reported with its reason, and the others don't notice.

use serde_json::json;
use understudy_core::contract::heartbeat::CameraFault;
use understudy_demo::rig::Plan;
use understudy_scenarios::{Fleet, gaps, plan};

#[tokio::test]
async fn e1_each_fault_of_a_camera_is_named_and_the_others_dont_notice() -> anyhow::Result<()> {
    let mut fleet = Fleet::filming(Plan { cameras: 6, ..plan() }).await?;
    let faults = [
        (
            "cam-001",
            json!({ "refuse_password": true }),
            CameraFault::Unauthorized,
        ),
        ("cam-002", json!({ "mute": true }), CameraFault::Silent),
        ("cam-003", json!({ "garbage": true }), CameraFault::Garbage),
        (
            "cam-004",
            json!({ "unreachable": true }),
            CameraFault::Unreachable,
        ),
        (
            "cam-005",
            json!({ "unsupported_codec": true }),
            CameraFault::UnsupportedCodec,
        ),
    ];
    for (camera, behaviour, _) in &faults {
        fleet.rig.simulator.behave(camera, behaviour).await?;
        fleet
            .rig
            .simulator
            .behave(camera, &json!({ "drop": true }))
            .await?;
    }
    for (camera, _, fault) in &faults {
        let detail = fleet.lost(camera, *fault).await?;
        assert!(!detail.is_empty(), "{camera}: the reason is in words");
        assert!(
            !detail.contains(understudy_demo::rig::CAMERA_PASSWORD),
            "{camera}: {detail}"
        );
    }
    let view = fleet.films("recorder-1", 1).await?;
    assert_eq!(view.cameras, 6);

    let well = json!({
        "refuse_password": false, "mute": false, "garbage": false,
        "unreachable": false, "unsupported_codec": false,
    });
    for (camera, ..) in &faults {
        fleet.rig.simulator.behave(camera, &well).await?;
    }
    fleet.films("recorder-1", 6).await?;
    assert!(
        fleet.rig.server("recorder-1").stop().await,
        "it stops when asked to"
    );
    let recorded = fleet.recorded("recorder-1")?;
    assert_eq!(
        gaps(&recorded["cam-006"]),
        [],
        "the sixth camera was filmed throughout"
    );
    fleet.rig.stop().await;
    Ok(())
}
