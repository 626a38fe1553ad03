//! Each reason for a failover on its own (C1): where it is switched on it is one, where it is not it is none.

use std::time::Duration;

use tokio::time::sleep;
use understudy_core::{
    contract::api::{Phase, ReasonKind},
    policy::Policy,
};
use understudy_demo::{
    rig::{Plan, ServerPlan},
    volume::Volume,
};
use understudy_runtime::testing::left_out;
use understudy_scenarios::{Fleet, folder, plan};

/// Far longer than any of the three takes.
const LONG: Duration = Duration::from_secs(5);

const RECORDERS: [&str; 3] = ["recorder-1", "recorder-2", "recorder-3"];

/// Three recording servers with a camera and one trigger each: disconnection, package, storage.
async fn fleet(folder: tempfile::TempDir) -> anyhow::Result<Fleet> {
    let mut servers: Vec<ServerPlan> = RECORDERS
        .iter()
        .map(|id| ServerPlan::recording(id, id, 10))
        .collect();
    servers.extend(["failover-1", "failover-2", "failover-3"].map(|id| ServerPlan::failover(id, id, 10)));
    let fleet_plan = Plan {
        cameras: 3,
        enroll_cameras: false,
        servers,
        ..plan()
    };
    let fleet = Fleet::start_in(folder, fleet_plan).await?;
    for (index, server) in RECORDERS.into_iter().enumerate() {
        let policy = Policy {
            on_disconnection: index == 0,
            on_package: index == 1,
            on_storage: index == 2,
            ..plan().policy
        };
        fleet.rig.api.set_policy(server, &policy).await?;
        let camera = fleet.rig.cameras(server, index..index + 1)?;
        fleet.rig.api.add_cameras(&camera).await?;
    }
    all_film(&fleet).await?;
    Ok(fleet)
}

async fn all_film(fleet: &Fleet) -> anyhow::Result<()> {
    for server in RECORDERS {
        fleet.films(server, 1).await?;
        fleet
            .server(server, "to be protected", |view| view.protected)
            .await?;
    }
    Ok(())
}

#[tokio::test]
async fn c1_each_trigger_starts_a_failover_where_it_is_on_and_none_where_it_is_off() -> anyhow::Result<()> {
    let folder = folder()?;
    let archive = folder.path().join("recorder-3/data/archive");
    let volume = Volume::mounted_at(&archive, &folder.path().join("volume.img"), 256 << 20);
    if let Err(why) = &volume {
        left_out(format!("that a broken volume starts one: {why}"));
    }
    let mut fleet = fleet(folder).await?;

    // Something happens to each that is no reason with it.
    fleet.rig.server("recorder-1").ingest.kill();
    fleet.rig.server("recorder-2").kill();
    fleet.rig.server("recorder-3").ingest.kill();
    sleep(LONG).await;
    assert_eq!(
        fleet.rig.api.failovers().await?,
        [],
        "none of them asked for that"
    );
    fleet.rig.server("recorder-1").ingest.start()?;
    fleet.rig.server("recorder-2").start()?;
    fleet.rig.server("recorder-3").ingest.start()?;
    all_film(&fleet).await?;

    // And then what is.
    fleet.rig.server("recorder-1").kill();
    fleet.rig.server("recorder-2").ingest.kill();
    let mut reasons = vec![
        ("recorder-1", ReasonKind::Disconnection),
        ("recorder-2", ReasonKind::Package),
    ];
    if let Ok(volume) = &volume {
        volume.breaks().map_err(anyhow::Error::msg)?;
        reasons.push(("recorder-3", ReasonKind::Storage));
    }
    for (server, reason) in &reasons {
        let failover = fleet.phase(server, Phase::Serving).await?;
        assert_eq!(failover.reason.kind, *reason, "{server}: {:?}", failover.reason);
    }
    assert_eq!(fleet.rig.api.failovers().await?.len(), reasons.len());
    fleet.rig.stop().await;
    drop(volume);
    Ok(())
}
