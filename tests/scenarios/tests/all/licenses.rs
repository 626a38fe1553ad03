//! Licences move beside the takeover, never before it.

use understudy_core::contract::api::Phase;
use understudy_demo::rig::eventually;
use understudy_scenarios::{Fleet, PATIENCE, plan};

#[tokio::test]
async fn e10_filming_does_not_wait_for_the_ledger_and_the_transfer_follows() -> anyhow::Result<()> {
    let mut fleet = Fleet::filming(plan()).await?;
    fleet.rig.host.license.kill();
    fleet.rig.server("recorder-1").kill();

    let failover = fleet.phase("recorder-1", Phase::Serving).await?;
    fleet.films("failover-1", 4).await?;
    assert!(!failover.licenses_settled, "the ledger is away: {failover:?}");

    fleet.rig.host.license.start()?;
    fleet
        .failover("recorder-1", "to have its licences", |view| view.licenses_settled)
        .await?;
    let holders = holders(&fleet).await?;
    assert_eq!(holders, [("failover-1".to_owned(), 4)], "one holder");

    fleet.rig.server("recorder-1").start()?;
    fleet
        .server("recorder-1", "to be on standby", |view| {
            view.reached == view.assigned
        })
        .await?;
    fleet.rig.api.stop_failover("recorder-1").await?;
    fleet.phase("recorder-1", Phase::Completed).await?;
    eventually("the licences to be back", PATIENCE, async || {
        let holders = self::holders(&fleet).await.map_err(|error| error.to_string())?;
        if holders == [("recorder-1".to_owned(), 4)] {
            Ok(())
        } else {
            Err(format!("{holders:?}"))
        }
    })
    .await?;
    fleet.rig.stop().await;
    Ok(())
}

async fn holders(fleet: &Fleet) -> anyhow::Result<Vec<(String, u32)>> {
    let licenses = fleet.rig.api.licenses().await?;
    let held = licenses.devices.into_iter().filter(|(_, devices)| *devices > 0);
    Ok(held
        .map(|(server, devices)| (server.to_string(), devices))
        .collect())
}
