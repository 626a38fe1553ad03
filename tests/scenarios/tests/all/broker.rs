//! The broker is away: services wait, say so, and go on by themselves. Filming never stops.

use std::time::Duration;

use understudy_core::contract::api::Phase;
use understudy_demo::rig::eventually;
use understudy_scenarios::{Fleet, PATIENCE, gaps, plan};

#[tokio::test]
async fn c2_a_vanished_broker_is_no_reason_for_a_failover_and_filming_goes_on() -> anyhow::Result<()> {
    let mut fleet = Fleet::filming(plan()).await?;

    fleet.rig.broker.kill();
    for process in [
        &fleet.rig.host.orchestrator,
        &fleet.rig.host.monitor,
        &fleet.rig.servers[0].ingest,
    ] {
        let name = process.name().to_owned();
        eventually(
            &format!("{name} to say that it waits for the broker"),
            PATIENCE,
            async || match process.readiness().await {
                Some((503, text)) if text.contains("broker") => Ok(()),
                other => Err(format!("{other:?}")),
            },
        )
        .await?;
    }
    // Several times the disconnection duration, and then as long again with the broker back.
    let before = fleet.files("recorder-1", 4).await?.len();
    fleet.files("recorder-1", before + 4).await?;
    fleet.rig.broker.restart().await?;
    for process in [
        &fleet.rig.host.orchestrator,
        &fleet.rig.host.monitor,
        &fleet.rig.servers[0].ingest,
    ] {
        let name = process.name().to_owned();
        eventually(
            &format!("{name} to be ready again"),
            PATIENCE,
            async || match process.readiness().await {
                Some((200, _)) => Ok(()),
                other => Err(format!("{other:?}")),
            },
        )
        .await?;
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(fleet.rig.api.failovers().await?, [], "nobody died");

    // And the fleet is as watchful as before.
    fleet
        .server("recorder-1", "to be protected", |view| view.protected)
        .await?;
    fleet.rig.server("recorder-1").kill();
    fleet.phase("recorder-1", Phase::Serving).await?;
    for (camera, numbers) in fleet.recorded("recorder-1")? {
        assert_eq!(gaps(&numbers), [], "{camera} was filmed throughout");
    }
    fleet.rig.stop().await;
    Ok(())
}

#[tokio::test]
async fn e1_a_server_films_from_its_disk_before_the_broker_is_there() -> anyhow::Result<()> {
    let mut fleet = Fleet::filming(plan()).await?;
    fleet.rig.server("recorder-1").kill();
    fleet.rig.broker.kill();
    let before = fleet.files("recorder-1", 4).await?.len();

    fleet.rig.server("recorder-1").start()?;
    fleet.files("recorder-1", before + 4).await?;

    fleet.rig.broker.restart().await?;
    fleet.films("recorder-1", 4).await?;
    fleet.rig.stop().await;
    Ok(())
}
