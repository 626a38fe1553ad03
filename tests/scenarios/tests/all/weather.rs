//! A bad line between a recording server and the host: beats are lost and late, and nobody is dead.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use understudy_core::{
    contract::api::{Phase, ReasonKind},
    policy::Policy,
};
use understudy_demo::rig::{Plan, Rig, ServerPlan, camera_name};
use understudy_runtime::testing::left_out;
use understudy_scenarios::{
    Fleet, folder,
    network::{Network, Quality},
    plan,
};

/// For how long the line is bad, unless `UNDERSTUDY_WEATHER_SECONDS` says otherwise; five minutes are in
/// `docs/figures.md`.
const BAD_FOR: Duration = Duration::from_secs(30);

#[tokio::test]
async fn c2_a_bad_line_is_no_disconnection_at_default_settings_and_a_death_after_it_is_one()
-> anyhow::Result<()> {
    let network = match Network::of(1) {
        Ok(network) => network,
        Err(why) => {
            left_out(why);
            return Ok(());
        }
    };
    let bad_for = std::env::var("UNDERSTUDY_WEATHER_SECONDS")
        .ok()
        .and_then(|seconds| seconds.parse().ok())
        .map_or(BAD_FOR, Duration::from_secs);
    let policy = Policy {
        automatic: true,
        ..Policy::default()
    };
    let folder = folder()?;
    // The recording server and its cameras are far away, the host and the failover server here.
    let mut rig = Rig::describe(Plan {
        folder: folder.path().to_owned(),
        host_address: Some(network.host()),
        enroll_cameras: false,
        beat: Duration::from_millis(500),
        policy: policy.clone(),
        servers: vec![
            ServerPlan::recording("recorder-1", "Far away", 10).at(network.place(1)),
            ServerPlan::failover("failover-1", "Here", 10).at(network.place(0)),
        ],
        ..plan()
    })
    .await?;
    rig.launch().await?;
    let (mut far, address) = rig.cameras_at("cameras-far", 2, &network.place(1))?;
    far.start()?;
    far.healthy().await?;
    rig.enroll().await?;
    let mut cameras = rig.cameras("recorder-1", 0..2)?;
    for (index, camera) in cameras.iter_mut().enumerate() {
        camera.url = format!("rtsp://{address}/{}", camera_name(index));
    }
    rig.api.add_cameras(&cameras).await?;
    let mut fleet = Fleet::of(rig, folder)?;
    fleet.films("recorder-1", 2).await?;
    fleet
        .server("recorder-1", "to be protected", |view| view.protected)
        .await?;

    network.line(0, 1, Quality::Bad);
    sleep(bad_for).await;
    assert_eq!(
        fleet.rig.api.failovers().await?,
        [],
        "nobody died within {bad_for:?}"
    );
    network.line(0, 1, Quality::Good);
    fleet.films("recorder-1", 2).await?;

    let killed = Instant::now();
    fleet.rig.server("recorder-1").kill();
    let failover = fleet
        .failover("recorder-1", "to have begun", |view| view.stand_in.is_some())
        .await?;
    let seen_after = killed.elapsed();
    assert_eq!(failover.reason.kind, ReasonKind::Disconnection);
    assert!(
        seen_after < policy.disconnection() * 2,
        "seen after {seen_after:?}"
    );
    eprintln!("a bad line for {bad_for:?}: no failover; then a death was seen after {seen_after:?}");
    fleet.phase("recorder-1", Phase::Serving).await?;
    fleet.rig.stop().await;
    Ok(())
}
