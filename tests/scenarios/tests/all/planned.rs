//! The planned switch: a recording server is drained for maintenance, and gets everything back.

use serde_json::Value;
use tokio::time::Instant;
use understudy_core::contract::api::{FailoverView, Phase, ServerState};
use understudy_scenarios::{Fleet, assert_only_takeovers_missing, gaps, plan};

async fn drain(fleet: &Fleet) -> anyhow::Result<FailoverView> {
    Ok(fleet.rig.api.drain("recorder-1", Some("failover-1")).await?)
}

async fn come_back(fleet: &Fleet) -> anyhow::Result<FailoverView> {
    fleet.rig.api.stop_failover("recorder-1").await?;
    let failover = fleet.phase("recorder-1", Phase::Completed).await?;
    fleet.films("recorder-1", 4).await?;
    Ok(failover)
}

#[tokio::test]
async fn j8_a_server_is_drained_and_gets_everything_back_without_a_frame_lost() -> anyhow::Result<()> {
    let mut fleet = Fleet::filming(plan()).await?;
    fleet.files("recorder-1", 4).await?;
    let before = fleet.recorded("recorder-1")?;

    let failover = drain(&fleet).await?;
    assert!(failover.planned, "{failover:?}");
    fleet.phase("recorder-1", Phase::Serving).await?;
    // It stands by: now its machine may be serviced.
    fleet.films("recorder-1", 0).await?;
    fleet.rig.server("recorder-1").stop().await;
    // Two segments of each camera on the failover server.
    fleet.files("failover-1", 8).await?;
    fleet.rig.server("recorder-1").start()?;
    fleet.is_back("recorder-1").await?;
    let failover = come_back(&fleet).await?;
    assert_eq!(failover.damaged, [], "{failover:?}");

    // One more closed segment of each camera after the end, then the files are read.
    let so_far = fleet.files("recorder-1", 4).await?.len();
    fleet.files("recorder-1", so_far + 4).await?;
    let after = fleet.recorded("recorder-1")?;
    assert_eq!(after.len(), 4);
    for (camera, numbers) in &after {
        assert_eq!(gaps(numbers), [], "not one frame of {camera} is missing");
        assert_eq!(
            numbers.first(),
            before[camera].first(),
            "{camera} from its first frame on"
        );
        assert!(
            numbers.len() > before[camera].len() + 8 * 15,
            "{camera}: {}",
            numbers.len()
        );
    }
    fleet.stands_by("failover-1").await?;
    let orchestrator = &fleet.rig.host.orchestrator;
    let over = orchestrator.figures("understudy_failovers_total", &[]).await;
    let over: f64 = over.unwrap_or_default().iter().sum();
    assert!((over - 1.0).abs() < 0.1, "{over}");
    let count = "understudy_failover_downtime_seconds_count";
    let downtimes = orchestrator.figures(count, &[]).await.unwrap_or_default();
    assert!(
        !downtimes.is_empty() && downtimes.iter().all(|count| *count < 0.1),
        "f5: it cost none: {downtimes:?}"
    );
    fleet.rig.stop().await;
    Ok(())
}

#[tokio::test]
async fn j8_a_recording_server_that_dies_in_the_middle_is_failed_over_like_any_other() -> anyhow::Result<()> {
    let mut fleet = Fleet::filming(plan()).await?;
    drain(&fleet).await?;
    let killed = Instant::now();
    fleet.rig.server("recorder-1").kill();
    fleet.phase("recorder-1", Phase::Serving).await?;
    fleet.films("failover-1", 4).await?;
    fleet.unfilmed = killed.elapsed();
    fleet.files("failover-1", 8).await?;
    fleet.rig.server("recorder-1").start()?;
    come_back(&fleet).await?;
    assert_only_takeovers_missing(&fleet.recorded("recorder-1")?, 1, fleet.unfilmed);
    fleet.rig.stop().await;
    Ok(())
}

#[tokio::test]
async fn j8_a_failover_server_that_dies_in_the_middle_is_replaced() -> anyhow::Result<()> {
    let mut fleet = Fleet::filming(plan()).await?;
    drain(&fleet).await?;
    fleet.rig.server("failover-1").kill();
    let stand_in = fleet.films("failover-2", 4).await?;
    assert_eq!(stand_in.bears_name.as_deref(), Some("North gate"));
    fleet.phase("recorder-1", Phase::Serving).await?;
    fleet.files("failover-2", 8).await?;
    // What the dead one may have recorded is waited for.
    fleet.rig.server("failover-1").start()?;
    come_back(&fleet).await?;
    fleet.rig.stop().await;
    Ok(())
}

#[tokio::test]
async fn j8_a_planned_switch_that_can_not_keep_its_promise_is_refused() -> anyhow::Result<()> {
    let mut fleet = Fleet::filming(plan()).await?;
    let mut policy = plan().policy;
    policy.automatic = false;
    fleet.rig.api.set_policy("recorder-1", &policy).await?;
    fleet.rig.server("recorder-1").kill();
    fleet
        .server("recorder-1", "to be gone", |view| {
            view.state == ServerState::Disconnected
        })
        .await?;
    let refused = drain(&fleet).await.expect_err("it is dead").to_string();
    assert!(refused.contains("recorder-1 is not well"), "{refused}");
    let all: Vec<Value> = fleet.rig.api.get("failovers").await?;
    assert_eq!(all, Vec::<Value>::new());
    fleet.rig.stop().await;
    Ok(())
}
