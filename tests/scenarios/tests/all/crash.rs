//! Each service dies in the middle of its work, and what it was about comes to the same end.

use std::time::Duration;

use understudy_core::{
    contract::api::{Phase, ServerState},
    policy::Policy,
};
use understudy_demo::{frames, rig::Plan};
use understudy_scenarios::{Fleet, gaps, plan};

#[tokio::test]
async fn f1_g2_the_orchestrator_dies_in_the_middle_of_a_takeover_and_of_a_failback() -> anyhow::Result<()> {
    let mut fleet = Fleet::filming(plan()).await?;
    fleet.files("recorder-1", 4).await?;
    fleet.rig.server("recorder-1").kill();
    fleet
        .failover("recorder-1", "to have begun", |view| view.stand_in.is_some())
        .await?;
    fleet.rig.host.orchestrator.kill();
    fleet.rig.host.orchestrator.start()?;
    let served = fleet.phase("recorder-1", Phase::Serving).await?;
    fleet.films("failover-1", 4).await?;
    fleet.files("failover-1", 8).await?;

    fleet.rig.server("recorder-1").start()?;
    fleet
        .server("recorder-1", "to be on standby", |view| {
            view.reached == view.assigned
        })
        .await?;
    fleet.rig.api.stop_failover("recorder-1").await?;
    fleet.rig.host.orchestrator.kill();
    fleet.rig.host.orchestrator.start()?;

    let ended = fleet.phase("recorder-1", Phase::Completed).await?;
    assert_eq!(
        (ended.id, ended.damaged),
        (served.id, vec![]),
        "the same failover"
    );
    fleet.films("recorder-1", 4).await?;
    fleet
        .server("failover-1", "to stand by", |view| {
            view.state == ServerState::Standby
        })
        .await?;
    for (camera, numbers) in fleet.recorded("recorder-1")? {
        assert!(gaps(&numbers).len() <= 1, "{camera}: {:?}", gaps(&numbers));
    }
    fleet.rig.stop().await;
    Ok(())
}

#[tokio::test]
async fn c2_a_monitor_that_starts_again_fails_nothing_over_and_watches_on() -> anyhow::Result<()> {
    let mut fleet = Fleet::filming(plan()).await?;
    fleet.rig.host.monitor.kill();
    // Several times the disconnection duration without anybody who looks.
    tokio::time::sleep(Duration::from_secs(4)).await;
    fleet.rig.host.monitor.start()?;
    fleet.rig.host.monitor.healthy().await?;
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(fleet.rig.api.failovers().await?, [], "nobody died");

    fleet.rig.server("recorder-1").kill();
    fleet.phase("recorder-1", Phase::Serving).await?;
    fleet.rig.stop().await;
    Ok(())
}

#[tokio::test]
async fn g2_the_failover_servers_recorder_dies_while_it_hands_back() -> anyhow::Result<()> {
    let mut fleet = Fleet::filming(plan()).await?;
    fleet.files("recorder-1", 4).await?;
    fleet.rig.server("recorder-1").kill();
    fleet.phase("recorder-1", Phase::Serving).await?;
    fleet.files("failover-1", 8).await?;
    let archive = fleet.rig.server("failover-1").archive();

    // Without its sync nothing arrives, so that the death falls into the failback for certain.
    fleet.rig.server("failover-1").sync.kill();
    fleet.rig.server("recorder-1").start()?;
    fleet
        .server("recorder-1", "to be on standby", |view| {
            view.reached == view.assigned
        })
        .await?;
    fleet.rig.api.stop_failover("recorder-1").await?;
    fleet.phase("recorder-1", Phase::Restoring).await?;
    fleet.rig.server("failover-1").ingest.kill();
    let filmed = frames::recorded(&archive)?;
    fleet.rig.server("failover-1").ingest.start()?;
    fleet.rig.server("failover-1").sync.start()?;

    let ended = fleet.phase("recorder-1", Phase::Completed).await?;
    assert_eq!(ended.damaged, []);
    let recorded = fleet.recorded("recorder-1")?;
    for (camera, numbers) in filmed {
        let missing: Vec<_> = numbers.difference(&recorded[&camera]).collect();
        assert_eq!(
            missing,
            Vec::<&u64>::new(),
            "{camera}: what was on its disk came back"
        );
    }
    fleet.rig.stop().await;
    Ok(())
}

#[tokio::test]
async fn c4_a_crashed_recording_service_is_a_reason_of_its_own() -> anyhow::Result<()> {
    let policy = Policy {
        on_package: true,
        on_disconnection: false,
        ..plan().policy
    };
    let mut fleet = Fleet::filming(Plan { policy, ..plan() }).await?;
    fleet.rig.server("recorder-1").ingest.kill();
    let failover = fleet.phase("recorder-1", Phase::Serving).await?;
    assert_eq!(
        failover.reason.kind,
        understudy_core::contract::api::ReasonKind::Package
    );
    assert!(!failover.reason.evidence.is_empty(), "c7: {:?}", failover.reason);
    fleet.films("failover-1", 4).await?;
    fleet.rig.stop().await;
    Ok(())
}
