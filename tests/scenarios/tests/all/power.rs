//! The power of a whole site fails and returns (K3): everything dies at once and boots in any order.

use std::time::Duration;

use tokio::time::sleep;
use understudy_core::contract::api::{Phase, ServerState};
use understudy_scenarios::{Fleet, gaps, plan};

/// Longer than the disconnection duration: whoever comes so late would be missed, if anybody looked already.
const LATE: Duration = Duration::from_millis(1_500);

/// What boots.
#[derive(Clone, Copy, Debug)]
enum Part {
    Broker,
    Host,
    Cameras,
    Server(&'static str),
}

/// For how long the cameras boot after everything else, where they come last, unless `UNDERSTUDY_DARK_SECONDS` says
/// otherwise: longer than a host that has just started holds its judgement back.
const CAMERAS_BOOT: Duration = Duration::from_secs(20);

use Part::{Broker, Cameras, Host, Server};

fn lights_out(fleet: &mut Fleet) {
    for server in &mut fleet.rig.servers {
        server.kill();
    }
    for process in fleet.rig.host.processes() {
        process.kill();
    }
    fleet.rig.broker.kill();
    fleet.rig.simulator_process.kill();
}

async fn boots(fleet: &mut Fleet, part: Part) -> anyhow::Result<()> {
    match part {
        Broker => fleet.rig.broker.restart().await?,
        Host => {
            for process in fleet.rig.host.processes() {
                process.start()?;
            }
        }
        Cameras => fleet.rig.simulator_process.start()?,
        Server(id) => fleet.rig.server(id).start()?,
    }
    Ok(())
}

fn cameras_boot() -> Duration {
    std::env::var("UNDERSTUDY_DARK_SECONDS")
        .ok()
        .and_then(|seconds| seconds.parse().ok())
        .map_or(CAMERAS_BOOT, Duration::from_secs)
}

/// In this order, one late after the other.
async fn lights_on(fleet: &mut Fleet, order: &[Part]) -> anyhow::Result<()> {
    for part in order {
        if matches!((part, order.last()), (Cameras, Some(Cameras))) {
            sleep(cameras_boot()).await;
        }
        boots(fleet, *part).await?;
        sleep(LATE).await;
    }
    Ok(())
}

#[tokio::test]
async fn k3_a_sites_power_returns_in_any_order_and_the_fleet_ends_where_it_was() -> anyhow::Result<()> {
    let mut fleet = Fleet::filming(plan()).await?;
    fleet.files("recorder-1", 4).await?;
    let orders: [&[Part]; 3] = [
        // The broker last, and the cameras after it.
        &[
            Server("recorder-1"),
            Server("failover-1"),
            Server("failover-2"),
            Host,
            Broker,
            Cameras,
        ],
        // The host looks out for servers that are still booting, the recording server last.
        &[
            Broker,
            Host,
            Cameras,
            Server("failover-2"),
            Server("failover-1"),
            Server("recorder-1"),
        ],
        // The host last.
        &[
            Server("failover-1"),
            Cameras,
            Broker,
            Server("recorder-1"),
            Server("failover-2"),
            Host,
        ],
    ];
    for order in orders {
        lights_out(&mut fleet);
        lights_on(&mut fleet, order).await?;

        fleet.films("recorder-1", 4).await?;
        let view = fleet
            .server("recorder-1", "to be as it was", |view| {
                view.protected && view.state == ServerState::Normal && view.reached == view.assigned
            })
            .await?;
        assert_eq!(view.failover, None);
        for id in ["failover-1", "failover-2"] {
            fleet.stands_by(id).await?;
        }
        // Whoever would have been missed would have been by now.
        sleep(LATE).await;
        assert_eq!(fleet.rig.api.failovers().await?, [], "{order:?}");
    }
    // And it is still watched over.
    fleet.rig.server("recorder-1").kill();
    fleet.phase("recorder-1", Phase::Serving).await?;
    fleet.rig.stop().await;
    Ok(())
}

#[tokio::test]
async fn k3_a_failover_that_was_under_way_goes_on_when_the_power_returns() -> anyhow::Result<()> {
    let mut fleet = Fleet::filming(plan()).await?;
    fleet.files("recorder-1", 4).await?;
    fleet.rig.server("recorder-1").kill();
    let served = fleet.phase("recorder-1", Phase::Serving).await?;
    fleet.files("failover-1", 4).await?;

    lights_out(&mut fleet);
    lights_on(
        &mut fleet,
        &[Server("failover-1"), Server("failover-2"), Cameras, Host, Broker],
    )
    .await?;
    fleet.films("failover-1", 4).await?;
    let now = fleet.phase("recorder-1", Phase::Serving).await?;
    assert_eq!(
        (&now.id, &now.stand_in),
        (&served.id, &served.stand_in),
        "the same failover"
    );

    fleet.rig.server("recorder-1").start()?;
    fleet.is_back("recorder-1").await?;
    fleet.rig.api.stop_failover("recorder-1").await?;
    fleet.whole_again(&["recorder-1"], 4).await?;
    for (camera, numbers) in fleet.recorded("recorder-1")? {
        // The takeover, the dark, and frame numbers that begin anew with the cameras.
        assert!(gaps(&numbers).len() <= 3, "{camera}: {:?}", gaps(&numbers));
    }
    fleet.rig.stop().await;
    Ok(())
}
