//! Licences move beside the takeover, never before it.

use understudy_core::contract::api::{LicenseHappening, LicenseKind, Phase};
use understudy_demo::rig::{Plan, eventually};
use understudy_scenarios::{Fleet, PATIENCE, command_line::told, plan};

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
    fleet.is_back("recorder-1").await?;
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

#[tokio::test]
async fn e10_keys_are_listed_moved_and_removed_with_their_history_and_short_ones_name_their_cameras()
-> anyhow::Result<()> {
    // Given four cameras and no key but one for a single device: two need none, one too many.
    let mut fleet = Fleet::start(Plan {
        enroll_cameras: false,
        ..plan()
    })
    .await?;
    let mut cameras = fleet.rig.cameras("recorder-1", 0..4)?;
    cameras[2].priority = -1;
    fleet.rig.api.add_cameras(&cameras).await?;
    fleet.rig.add_license("recorder-1", "small-key", 1).await?;
    fleet.films("recorder-1", 4).await?;
    let listed = told(&fleet, &["license", "list"]).await?;
    let short = format!(
        "1 camera(s) without a licence; they film all the same: {}",
        cameras[2].id
    );
    assert!(listed.contains(&short), "{listed}");

    // When the server fails, each of its cameras is filmed, and the key moves once, though the service dies meanwhile;
    fleet
        .server("recorder-1", "to be protected", |view| view.protected)
        .await?;
    fleet.rig.server("recorder-1").kill();
    let failover = fleet.phase("recorder-1", Phase::Serving).await?;
    fleet.films("failover-1", 4).await?;
    fleet
        .failover("recorder-1", "to have its licences", |view| view.licenses_settled)
        .await?;
    fleet.rig.host.license.kill();
    fleet.rig.host.license.start()?;
    let history: Vec<LicenseHappening> = eventually("the licence service", PATIENCE, async || {
        fleet
            .rig
            .api
            .get("license-history")
            .await
            .map_err(|error| error.to_string())
    })
    .await?;
    let kinds: Vec<LicenseKind> = history.iter().map(|each| each.what).collect();
    assert_eq!(kinds, [LicenseKind::Transferred, LicenseKind::Added]);
    assert_eq!(history[0].failover.as_ref(), Some(&failover.id));
    let shown = told(&fleet, &["license", "history", "--server", "failover-1"]).await?;
    assert!(
        shown.contains("transferred") && shown.contains(failover.id.as_str()),
        "{shown}"
    );
    assert!(!shown.contains("added"), "{shown}");

    // and who has enough, is short of none.
    fleet.rig.add_license("recorder-1", "large-key", 10).await?;
    let listed = told(&fleet, &["license", "list"]).await?;
    assert!(!listed.contains("without a licence"), "{listed}");
    let listed = told(&fleet, &["license", "remove", "large-key"]).await?;
    assert!(
        listed.contains(&short) && !listed.contains("large-key"),
        "{listed}"
    );
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
