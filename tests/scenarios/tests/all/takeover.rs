//! Who takes over, when, and what is said of it.

use nix::sys::signal::Signal;
use understudy_core::{
    contract::api::{Phase, ReasonKind, ServerState},
    ids::ServerId,
    policy::{Pairing, Policy},
};
use understudy_demo::{frames, rig::ServerPlan};
use understudy_scenarios::{Fleet, plan};

#[tokio::test]
async fn a5_c2_c7_e11_a_dead_server_is_replaced_by_the_closest_match_under_its_name() -> anyhow::Result<()> {
    // Long enough for those who look for it to have answered.
    let policy = Policy {
        disconnection_ms: 2000,
        ..plan().policy
    };
    let mut fleet = Fleet::filming(understudy_demo::rig::Plan { policy, ..plan() }).await?;
    let before = fleet.rig.api.server("recorder-1").await?;
    assert_eq!(before.label, "North gate (4/10)", "b5");

    fleet.rig.server("recorder-1").kill();

    let failover = fleet.phase("recorder-1", Phase::Serving).await?;
    assert_eq!(
        failover.stand_in,
        Some(ServerId::new("failover-1")?),
        "{:?}",
        failover.selection
    );
    assert_eq!(
        failover.selection.len(),
        2,
        "a1, a2: both were considered: {:?}",
        failover.selection
    );
    assert_eq!(failover.reason.kind, ReasonKind::Disconnection);
    // Who missed it, and who looked for it then: the host, and each failover server that it is paired with.
    let evidence = &failover.reason.evidence;
    for (observer, words) in [
        ("monitor", "no heartbeat on any path"),
        ("monitor", "looked for from the host"),
        ("failover-1", "looked for from failover-1"),
        ("failover-2", "looked for from failover-2"),
    ] {
        let mut lines = evidence.iter().filter(|line| line.observer == observer);
        assert!(
            lines.any(|line| line.seen.contains(words)),
            "c7: {observer}: {words}: {evidence:?}"
        );
    }
    assert!(failover.detection_ms >= 2000, "f5: {failover:?}");
    assert!(failover.takeover_ms.is_some(), "f5: {failover:?}");
    let sum = "understudy_failover_downtime_seconds_sum";
    let orchestrator = &fleet.rig.host.orchestrator;
    let downtime = orchestrator.figures(sum, &[r#"mode="automatic""#]).await;
    let at_most = (failover.detection_ms + failover.takeover_ms.unwrap_or_default()) as f64 / 1000.0;
    assert!(
        matches!(downtime.as_deref(), Some([seconds]) if (2.0..=at_most).contains(seconds)),
        "f5: {downtime:?} s: {failover:?}"
    );
    let stand_in = fleet.films("failover-1", 4).await?;
    assert_eq!(stand_in.bears_name.as_deref(), Some("North gate"), "e11");
    let idle = fleet.rig.api.server("failover-2").await?;
    assert_eq!(
        (idle.state, idle.cameras),
        (ServerState::Standby, 0),
        "a4: it offers nothing on standby"
    );
    fleet.rig.stop().await;
    Ok(())
}

#[tokio::test]
async fn c1_without_automatic_failover_nothing_happens_until_a_person_asks() -> anyhow::Result<()> {
    let policy = Policy {
        automatic: false,
        ..plan().policy
    };
    let mut fleet = Fleet::filming(understudy_demo::rig::Plan { policy, ..plan() }).await?;

    fleet.rig.server("recorder-1").kill();
    fleet
        .server("recorder-1", "to be seen as gone", |view| {
            view.state == ServerState::Disconnected
        })
        .await?;
    // Three times the disconnection duration: an automatic failover would have come by now.
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    assert_eq!(fleet.rig.api.failovers().await?, []);

    let asked = serde_json::json!({ "stand_in": "failover-2" });
    let path = "servers/recorder-1/failover";
    let _: serde_json::Value = fleet
        .rig
        .api
        .call(reqwest::Method::POST, path, Some(&asked))
        .await?;
    let failover = fleet.phase("recorder-1", Phase::Serving).await?;
    assert_eq!(
        failover.stand_in,
        Some(ServerId::new("failover-2")?),
        "c6: by the one that was asked for"
    );
    assert_eq!(failover.reason.kind, ReasonKind::Manual);
    assert_eq!(failover.detection_ms, 0);
    fleet.rig.stop().await;
    Ok(())
}

#[tokio::test]
async fn a3_g3_a_second_failure_waits_until_the_failover_server_is_free() -> anyhow::Result<()> {
    let servers = vec![
        ServerPlan::recording("recorder-1", "North gate", 10),
        ServerPlan::recording("recorder-2", "South gate", 10),
        ServerPlan::failover("failover-1", "Stand-in", 10),
    ];
    let fleet_plan = understudy_demo::rig::Plan {
        servers,
        enroll_cameras: false,
        ..plan()
    };
    let mut fleet = Fleet::start(fleet_plan).await?;
    fleet
        .rig
        .api
        .add_cameras(&fleet.rig.cameras("recorder-1", 0..2)?)
        .await?;
    fleet
        .rig
        .api
        .add_cameras(&fleet.rig.cameras("recorder-2", 2..4)?)
        .await?;
    fleet.films("recorder-1", 2).await?;
    fleet.films("recorder-2", 2).await?;
    fleet
        .server("recorder-2", "to be protected", |view| view.protected)
        .await?;

    fleet.rig.server("recorder-1").kill();
    fleet.phase("recorder-1", Phase::Serving).await?;
    let unprotected = fleet
        .server("recorder-2", "to be unprotected", |view| !view.protected)
        .await?;
    assert!(
        !unprotected.warnings.is_empty(),
        "a3: it is told: {unprotected:?}"
    );

    fleet.rig.server("recorder-2").kill();
    let waiting = fleet.phase("recorder-2", Phase::Selecting).await?;
    assert!(!waiting.waits_for.is_empty(), "{waiting:?}");

    // The first one comes back; for as long as it is handed its recordings, nothing is done for the second one.
    fleet.rig.server("failover-1").sync.kill();
    fleet.rig.server("recorder-1").start()?;
    fleet.is_back("recorder-1").await?;
    fleet.rig.api.stop_failover("recorder-1").await?;
    fleet.phase("recorder-1", Phase::Restoring).await?;
    fleet.films("failover-1", 0).await?;
    tokio::time::sleep(std::time::Duration::from_secs(4)).await;
    let waiting = fleet.phase("recorder-2", Phase::Selecting).await?;
    assert!(
        waiting.stand_in.is_none() && waiting.waits_for.contains("failover-1"),
        "g3: {waiting:?}"
    );
    let view = fleet.rig.api.server("recorder-2").await?;
    assert!(!view.protected, "g3: {view:?}");
    let busy = fleet.rig.api.server("failover-1").await?;
    assert!(
        busy.state != ServerState::Standby && busy.filming == 0,
        "g3: {busy:?}"
    );
    // Then the second one's turn has come.
    fleet.rig.server("failover-1").sync.start()?;
    fleet.phase("recorder-1", Phase::Completed).await?;
    let served = fleet.phase("recorder-2", Phase::Serving).await?;
    assert_eq!(served.stand_in, Some(ServerId::new("failover-1")?));
    fleet.films("failover-1", 2).await?;
    fleet.rig.stop().await;
    Ok(())
}

#[tokio::test]
async fn e12_surplus_cameras_are_disabled_lowest_priority_first_and_named() -> anyhow::Result<()> {
    let servers = vec![
        ServerPlan::recording("recorder-1", "North gate", 10),
        ServerPlan::failover("failover-1", "Small", 2),
        ServerPlan::failover("failover-2", "Smaller", 1),
    ];
    let fleet_plan = understudy_demo::rig::Plan {
        servers,
        enroll_cameras: false,
        ..plan()
    };
    let mut fleet = Fleet::start(fleet_plan).await?;
    let mut cameras = fleet.rig.cameras("recorder-1", 0..4)?;
    for (camera, priority) in cameras.iter_mut().zip([1, 7, 3, 9]) {
        camera.priority = priority;
    }
    fleet.rig.api.add_cameras(&cameras).await?;
    fleet.films("recorder-1", 4).await?;

    fleet.rig.server("recorder-1").kill();

    let failover = fleet.phase("recorder-1", Phase::Serving).await?;
    assert_eq!(
        failover.stand_in,
        Some(ServerId::new("failover-1")?),
        "a5: none fits, so the largest"
    );
    let disabled: Vec<&str> = failover.disabled.iter().map(|camera| camera.as_str()).collect();
    assert_eq!(disabled, ["cam-001", "cam-003"]);
    fleet.films("failover-1", 2).await?;
    fleet.files("failover-1", 2).await?;
    let filmed = frames::recorded(&fleet.rig.server("failover-1").archive())?;
    let filmed: Vec<&str> = filmed.keys().map(String::as_str).collect();
    assert_eq!(
        filmed,
        ["cam-002", "cam-004"],
        "the ones of the highest priority film"
    );
    fleet.rig.stop().await;
    Ok(())
}

#[tokio::test]
async fn a5_no_failover_server_is_paired_and_then_one_is() -> anyhow::Result<()> {
    let mut fleet = Fleet::filming(plan()).await?;
    fleet.rig.api.pair("recorder-1", &Pairing::default()).await?;
    let view = fleet
        .server("recorder-1", "to be unprotected", |view| !view.protected)
        .await?;
    assert_eq!(view.paired_with, []);

    // Nobody may stand in: both failover servers are gone when the recording server dies. They went long
    // enough before it: three at once, and the host would take itself for blind.
    fleet.rig.api.pair("recorder-1", &Pairing::All).await?;
    fleet.rig.server("failover-1").kill();
    fleet.rig.server("failover-2").kill();
    fleet
        .server("recorder-1", "to be unprotected again", |view| !view.protected)
        .await?;
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    fleet.rig.server("recorder-1").kill();
    let waiting = fleet.phase("recorder-1", Phase::Selecting).await?;
    assert!(!waiting.waits_for.is_empty());

    fleet.rig.server("failover-2").start()?;
    let served = fleet.phase("recorder-1", Phase::Serving).await?;
    assert_eq!(served.stand_in, Some(ServerId::new("failover-2")?));
    fleet.rig.stop().await;
    Ok(())
}

#[tokio::test]
async fn c5_g1_a_server_that_comes_back_in_mid_takeover_ends_up_filming_again() -> anyhow::Result<()> {
    let policy = Policy {
        stop_automatically: true,
        ..plan().policy
    };
    let mut fleet = Fleet::filming(understudy_demo::rig::Plan { policy, ..plan() }).await?;

    // The failover server's recording service stands still, so that the takeover is under way for as long as we like.
    fleet.rig.server("failover-1").ingest.signal(Signal::SIGSTOP);
    fleet.rig.server("recorder-1").kill();
    let failover = fleet
        .failover("recorder-1", "to be under way", |view| view.stand_in.is_some())
        .await?;
    fleet.rig.server("recorder-1").start()?;
    let back = fleet
        .failover("recorder-1", "to have lost its reason", |view| {
            view.reason_cleared
        })
        .await?;
    assert_eq!(back.phase, Phase::TakingOver, "{:?}", back.steps);
    fleet.rig.server("failover-1").ingest.signal(Signal::SIGCONT);

    let ended = fleet
        .failover("recorder-1", "to end", |view| view.phase.is_final())
        .await?;
    assert_eq!(
        (ended.id, ended.phase),
        (failover.id, Phase::Completed),
        "{:?}",
        ended.steps
    );
    fleet.films("recorder-1", 4).await?;
    fleet.stands_by("failover-1").await?;
    fleet.rig.stop().await;
    Ok(())
}
