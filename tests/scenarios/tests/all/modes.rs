//! What a server is for is switched through the host; a server that becomes a failover server is really erased.

use reqwest::Method;
use understudy_core::contract::api::{Phase, ServerState};
use understudy_demo::{
    frames,
    rig::{Plan, ServerPlan, eventually},
};
use understudy_scenarios::{
    Fleet, PATIENCE,
    command_line::{command, told},
    plan,
};

/// Two recording servers, with four cameras and with one, and a failover server.
async fn two_recorders() -> anyhow::Result<Fleet> {
    let servers = vec![
        ServerPlan::recording("recorder-1", "North gate", 10),
        ServerPlan::recording("recorder-2", "South gate", 10),
        ServerPlan::failover("failover-1", "Stand-in one", 10),
    ];
    let mut fleet = Fleet::start(Plan {
        servers,
        cameras: 5,
        enroll_cameras: false,
        ..plan()
    })
    .await?;
    for (server, cameras) in [("recorder-1", 0..4), ("recorder-2", 4..5)] {
        let count = u32::try_from(cameras.len())?;
        let cameras = fleet.rig.cameras(server, cameras)?;
        fleet.rig.api.add_cameras(&cameras).await?;
        fleet.films(server, count).await?;
        fleet
            .server(server, "to be protected", |view| view.protected)
            .await?;
    }
    fleet.files("recorder-2", 2).await?;
    Ok(fleet)
}

#[tokio::test]
async fn b3_b6_a_recording_server_becomes_a_failover_server_and_everything_on_it_is_erased()
-> anyhow::Result<()> {
    // Given a recording server with recordings,
    let mut fleet = two_recorders().await?;
    // when it is to be a failover server, the command names what is erased, and asks;
    let switch = ["server", "edit", "recorder-2", "--mode", "failover"];
    let asked = command(&fleet, &switch).await?;
    let words = String::from_utf8_lossy(&asked.stderr).into_owned();
    assert_eq!(asked.status.code(), Some(2), "{words}");
    for part in ["all of its data is erased", "1 camera(s)", "--yes"] {
        assert!(words.contains(part), "{part:?} is missing in: {words}");
    }
    fleet.films("recorder-2", 1).await?;

    // confirmed while it is off, it is erased as soon as it is there again, and stands by.
    fleet.rig.server("recorder-2").kill();
    told(&fleet, &[&switch[..], &["--yes"]].concat()).await?;
    let archive = fleet.rig.server("recorder-2").archive();
    assert!(
        !frames::files(&archive)?.is_empty(),
        "nothing is erased behind its back"
    );
    fleet.rig.server("recorder-2").start()?;
    fleet.stands_by("recorder-2").await?;
    assert_eq!(frames::files(&archive)?, []);
    let cameras = fleet.rig.api.cameras().await?;
    assert!(
        cameras
            .iter()
            .all(|view| view.camera.server.as_str() != "recorder-2"),
        "{cameras:?}"
    );

    // From then on it is a failover server, whose recordings no later start erases.
    fleet.rig.server("failover-1").kill();
    fleet
        .server("failover-1", "to be missed", |view| {
            view.state == ServerState::Disconnected
        })
        .await?;
    fleet.rig.server("recorder-1").kill();
    let failover = fleet.phase("recorder-1", Phase::Serving).await?;
    assert_eq!(
        failover.stand_in.as_ref().map(|id| id.as_str()),
        Some("recorder-2")
    );
    let made = fleet.files("recorder-2", 4).await?;
    fleet.rig.server("recorder-2").ingest.kill();
    fleet.rig.server("recorder-2").ingest.start()?;
    fleet.files("recorder-2", made.len() + 4).await?;
    assert!(made.iter().all(|file| file.is_file()), "{made:?}");
    fleet.rig.stop().await;
    Ok(())
}

#[tokio::test]
async fn b3_a_failover_server_is_erased_by_hand_when_that_is_confirmed() -> anyhow::Result<()> {
    let mut fleet = two_recorders().await?;
    let refused = command(&fleet, &["server", "erase", "recorder-2", "--yes"]).await?;
    assert_eq!(
        refused.status.code(),
        Some(1),
        "it is a recording server: {refused:?}"
    );
    told(
        &fleet,
        &["server", "edit", "recorder-2", "--mode", "inactive", "--yes"],
    )
    .await?;
    let asked = command(&fleet, &["server", "erase", "recorder-2"]).await?;
    assert_eq!(asked.status.code(), Some(2), "{asked:?}");
    let archive = fleet.rig.server("recorder-2").archive();
    assert!(!frames::files(&archive)?.is_empty());
    told(&fleet, &["server", "erase", "recorder-2", "--yes"]).await?;
    eventually("the archive to be empty", PATIENCE, async || {
        let files = frames::files(&archive).map_err(|error| error.to_string())?;
        if files.is_empty() {
            Ok(())
        } else {
            Err(format!("{files:?}"))
        }
    })
    .await?;
    // Active again, it films its camera as before.
    told(&fleet, &["server", "edit", "recorder-2", "--mode", "recording"]).await?;
    fleet.films("recorder-2", 1).await?;
    fleet.files("recorder-2", 1).await?;
    fleet.rig.stop().await;
    Ok(())
}

#[tokio::test]
async fn b6_a_server_that_is_not_active_films_nothing_and_keeps_what_it_has() -> anyhow::Result<()> {
    let mut fleet = two_recorders().await?;
    let before = fleet.files("recorder-2", 2).await?;
    told(
        &fleet,
        &["server", "edit", "recorder-2", "--mode", "inactive", "--yes"],
    )
    .await?;
    fleet
        .server("recorder-2", "to film nothing", |view| {
            view.filming == 0 && view.reached == view.assigned
        })
        .await?;
    assert!(before.iter().all(|file| file.is_file()), "{before:?}");
    // Nobody stands in for it when it dies.
    fleet.rig.server("recorder-2").kill();
    fleet
        .server("recorder-2", "to be missed", |view| {
            view.state == ServerState::Disconnected
        })
        .await?;
    fleet.stands_by("failover-1").await?;
    assert_eq!(fleet.rig.api.failovers().await?.len(), 0);
    fleet.rig.server("recorder-2").start()?;
    told(&fleet, &["server", "edit", "recorder-2", "--mode", "recording"]).await?;
    fleet.films("recorder-2", 1).await?;
    // No server becomes a host.
    let host = serde_json::json!({ "mode": "host" });
    let path = "servers/recorder-2";
    let refused: Result<serde_json::Value, _> = fleet.rig.api.call(Method::PATCH, path, Some(&host)).await;
    let refused = refused.expect_err("a host is set up").to_string();
    assert!(
        refused.contains("400") && refused.contains("can't be changed"),
        "{refused}"
    );
    let listed = told(&fleet, &["server", "list"]).await?;
    assert!(listed.contains("South gate (1/10)"), "{listed}");
    fleet.rig.stop().await;
    Ok(())
}
