//! Another server takes a dead recording server's place for good, and the dead one comes back.

use std::collections::BTreeSet;

use tokio::time::Instant;
use understudy_core::{
    assignment::{Assignment, Role},
    contract::api::{LicenseHappening, LicenseKind, Phase, ServerState, SnapshotView},
    policy::{Failback, Policy},
    server::Mode,
};
use understudy_demo::{
    frames,
    process::Process,
    rig::{Plan, Rig, ServerPlan, eventually},
};
use understudy_scenarios::{
    Fleet, PATIENCE, assert_only_takeovers_missing,
    command_line::{command, told},
    gaps, plan,
};

use crate::relay::{picture_in, snapshot, snapshots};

/// A fleet whose failover server has been filming for a while, and whose recording server is dead.
async fn served(fleet_plan: Plan) -> anyhow::Result<Fleet> {
    let mut fleet = Fleet::filming(fleet_plan).await?;
    fleet.files("recorder-1", 4).await?;
    fleet.rig.server("recorder-1").kill();
    fleet.phase("recorder-1", Phase::Serving).await?;
    // Two segments of each camera: one of them is closed.
    fleet.files("failover-1", 8).await?;
    Ok(fleet)
}

/// Each licence key is `server`'s own.
async fn licences_belong_to(fleet: &Fleet, server: &str) -> anyhow::Result<()> {
    eventually("the licences to be its own", PATIENCE, async || {
        let licenses = fleet
            .rig
            .api
            .licenses()
            .await
            .map_err(|error| error.to_string())?;
        let own = |holder: &str, owner: &str| holder == server && owner == server;
        let mut keys = licenses.keys.iter();
        match keys.all(|key| own(key.holder.as_str(), key.owner.as_str())) {
            true => Ok(()),
            false => Err(format!("{licenses:?}")),
        }
    })
    .await?;
    let history: Vec<LicenseHappening> = fleet.rig.api.get("license-history").await?;
    let replaced = history.iter().filter(|each| each.what == LicenseKind::Replaced);
    assert_eq!(replaced.count(), 1, "{history:?}");
    Ok(())
}

/// What a server has of each camera has no gap.
fn nothing_is_missing(fleet: &mut Fleet, server: &str) -> anyhow::Result<()> {
    let recorded = fleet.recorded(server)?;
    assert_eq!(recorded.len(), 4, "{server} has recordings of each camera");
    for (camera, numbers) in recorded {
        assert_eq!(gaps(&numbers), [], "{camera} on {server}");
    }
    Ok(())
}

#[tokio::test]
async fn h1_h2_h3_e10_a8_the_failover_server_takes_the_place_and_films_on() -> anyhow::Result<()> {
    // Given a failover that serves,
    let servers = vec![
        ServerPlan::recording("recorder-1", "North gate", 10),
        ServerPlan::recording("busy-1", "South gate", 10),
        ServerPlan::recording("small-1", "Porch", 3),
        ServerPlan::recording("spare-1", "Spare", 10),
        ServerPlan::failover("failover-1", "Stand-in one", 10),
        ServerPlan::failover("failover-2", "Stand-in two", 20),
    ];
    let mut fleet = served(Plan { servers, ..plan() }).await?;
    // beside recording servers of which one has a camera, one too little room, and one neither,
    let mut own = fleet.rig.cameras("busy-1", 0..1)?;
    own[0].id = "south-1".parse()?;
    fleet.rig.api.add_cameras(&own).await?;
    let picture = snapshot(&fleet, "cam-001").await?;
    // the command shows who could take the place, says what it means, and asks;
    let offered = told(&fleet, &["replace", "recorder-1", "--candidates"]).await?;
    for (server, offer, why) in [
        ("failover-1", "yes", "films its cameras already"),
        ("spare-1", "yes", "has room and no cameras of its own"),
        ("busy-1", "no", "has 1 camera(s) of its own"),
        ("small-1", "no", "has room for 3 camera(s), not for 4"),
    ] {
        let line = offered.lines().find(|line| line.starts_with(server));
        let line = line.unwrap_or_else(|| panic!("{server} is not shown: {offered}"));
        assert!(
            line.contains(&format!(" {offer} ")) && line.contains(why),
            "{server}: {offered}"
        );
    }
    let asked = command(&fleet, &["replace", "recorder-1"]).await?;
    let words = String::from_utf8_lossy(&asked.stderr).into_owned();
    assert_eq!(asked.status.code(), Some(2), "{words}");
    for part in ["for good", "recorder-1 is deleted", "--yes"] {
        assert!(words.contains(part), "{part:?} is missing in: {words}");
    }
    // confirmed, the failover server is the recording server, by its name, with its cameras and licences;
    told(&fleet, &["replace", "recorder-1", "--yes"]).await?;
    let failover = fleet.phase("failover-1", Phase::Completed).await?;
    assert_eq!(
        failover.replaces.as_ref().map(|id| id.as_str()),
        Some("recorder-1")
    );
    let new = fleet
        .server("failover-1", "to be in normal state", |view| {
            view.state == ServerState::Normal && view.filming == 4
        })
        .await?;
    assert_eq!(
        (new.server.name.as_str(), new.server.mode),
        ("North gate", Mode::Recording)
    );
    let servers: BTreeSet<String> = fleet
        .rig
        .api
        .servers()
        .await?
        .into_iter()
        .map(|view| view.server.id.to_string())
        .collect();
    assert!(!servers.contains("recorder-1"), "{servers:?}");
    licences_belong_to(&fleet, "failover-1").await?;
    // it lost no frame over it: what it recorded before is its own, and no camera began anew;
    let files = fleet.files("failover-1", 8).await?.len();
    fleet.files("failover-1", files + 8).await?;
    nothing_is_missing(&mut fleet, "failover-1")?;
    let own = SnapshotView {
        failover: None,
        ..picture
    };
    assert_eq!(snapshots(&fleet, "cam-001").await?.snapshots, [own]);
    // its place is shown as a gap;
    let coverage = told(&fleet, &["coverage"]).await?;
    assert!(
        coverage.contains("has taken the place of recorder-1"),
        "{coverage}"
    );
    // and it is protected as the original was.
    fleet
        .server("failover-1", "to be protected", |view| view.protected)
        .await?;
    fleet.rig.server("failover-1").kill();
    fleet.phase("failover-1", Phase::Serving).await?;
    fleet.films("failover-2", 4).await?;
    fleet.rig.stop().await;
    Ok(())
}

#[tokio::test]
async fn h1_h2_h3_e10_another_recording_server_takes_the_place_and_the_original_stands_down()
-> anyhow::Result<()> {
    // Given a failover that serves, and a recording server without cameras,
    let servers = vec![
        ServerPlan::recording("recorder-1", "North gate", 10),
        ServerPlan::recording("spare-1", "Spare", 10),
        ServerPlan::failover("failover-1", "Stand-in one", 10),
    ];
    // where an agent may start again without being missed,
    let policy = Policy {
        disconnection_ms: 3000,
        ..plan().policy
    };
    let mut fleet = served(Plan {
        servers,
        policy,
        ..plan()
    })
    .await?;
    let picture = snapshot(&fleet, "cam-001").await?;
    // when that one takes the place, and the host dies over it,
    fleet.rig.server("failover-1").sync.kill();
    let path = ["replace", "recorder-1", "--by", "spare-1", "--yes"];
    told(&fleet, &path).await?;
    fleet.rig.host.orchestrator.kill();
    fleet.rig.host.orchestrator.start()?;
    // and everything else that has to do with it, while it waits for its source,
    fleet
        .failover("spare-1", "to wait for its source", |view| {
            view.phase == Phase::Replacing && !view.waits_for.is_empty()
        })
        .await?;
    fleet.films("spare-1", 4).await?;
    let victims: [fn(&mut Rig) -> &mut Process; 8] = [
        |rig| &mut rig.host.orchestrator,
        |rig| &mut rig.host.license,
        |rig| &mut rig.host.monitor,
        |rig| &mut rig.server("spare-1").sync,
        |rig| &mut rig.server("spare-1").agent,
        |rig| &mut rig.server("failover-1").agent,
        |rig| &mut rig.server("failover-1").ingest,
        |rig| &mut rig.server("spare-1").ingest,
    ];
    let mut died = Instant::now();
    for victim in victims {
        died = Instant::now();
        victim(&mut fleet.rig).kill();
        victim(&mut fleet.rig).start()?;
    }
    victims[7](&mut fleet.rig).healthy().await?;
    fleet.films("spare-1", 4).await?;
    fleet.unfilmed = died.elapsed();
    fleet.rig.server("failover-1").sync.start()?;
    // then it films, by the original's name, and gets what was recorded meanwhile,
    let failover = fleet.phase("spare-1", Phase::Completed).await?;
    let phases: Vec<Phase> = failover.steps.iter().map(|step| step.phase).collect();
    assert!(phases.contains(&Phase::Replacing), "{phases:?}");
    assert_eq!(failover.damaged, []);
    assert!(failover.progress.segments_done >= 8, "{failover:?}");
    let new = fleet.films("spare-1", 4).await?;
    assert_eq!(new.server.name, "North gate");
    // (of which nothing is missing but what nobody filmed when its own recording service died)
    let recorded = fleet.recorded("spare-1")?;
    assert_eq!(recorded.len(), 4);
    assert_only_takeovers_missing(&recorded, 1, fleet.unfilmed);
    let there = picture_in(&fleet.rig.server("spare-1").archive(), &picture);
    assert_eq!(frames::hash(&std::fs::read(there)?), picture.blake3);
    let listed = snapshots(&fleet, "cam-001").await?.snapshots;
    assert!(
        listed.len() == 1 && listed[0].held_by.as_str() == "spare-1",
        "{listed:?}"
    );
    licences_belong_to(&fleet, "spare-1").await?;
    // and the failover server is free for others.
    fleet.stands_by("failover-1").await?;
    assert_eq!(frames::files(&fleet.rig.server("failover-1").archive())?, []);

    // When the original comes back from the dead, it stands down: it is no server of the fleet, and keeps its archive.
    let original = fleet.rig.server("recorder-1");
    let (folder, archive) = (original.folder.clone(), original.archive());
    let before = frames::files(&archive)?.len();
    original.start()?;
    eventually("the original to stand down", PATIENCE, async || {
        let json = std::fs::read(folder.join("data/assignment.json")).map_err(|error| error.to_string())?;
        let assignment: Assignment = serde_json::from_slice(&json).map_err(|error| error.to_string())?;
        match assignment.role {
            Role::Standby => Ok(()),
            role => Err(format!("{role:?}")),
        }
    })
    .await?;
    let stands_down = frames::files(&archive)?.len();
    assert!(stands_down >= before, "what it recorded stays");
    // Longer than a segment takes: it films nothing any more, and nobody else is confused by it.
    tokio::time::sleep(std::time::Duration::from_secs(6)).await;
    assert_eq!(frames::files(&archive)?.len(), stands_down);
    assert!(fleet.rig.api.server("recorder-1").await.is_err());
    fleet.films("spare-1", 4).await?;
    fleet.rig.stop().await;
    Ok(())
}

#[tokio::test]
async fn h3_with_a_policy_of_remove_nothing_is_handed_to_the_new_server() -> anyhow::Result<()> {
    let mut fleet = served(Plan {
        servers: vec![
            ServerPlan::recording("recorder-1", "North gate", 10),
            ServerPlan::recording("spare-1", "Spare", 10),
            ServerPlan::failover("failover-1", "Stand-in one", 10),
        ],
        policy: Policy {
            failback: Failback::Remove,
            ..plan().policy
        },
        ..plan()
    })
    .await?;

    let replace = ["replace", "recorder-1", "--by", "spare-1", "--yes"];
    told(&fleet, &replace).await?;

    fleet.phase("spare-1", Phase::Completed).await?;
    fleet.films("spare-1", 4).await?;
    fleet.stands_by("failover-1").await?;
    assert_eq!(frames::files(&fleet.rig.server("failover-1").archive())?, []);
    let own = fleet.files("spare-1", 4).await?;
    let handed_over = own
        .iter()
        .filter(|path| path.to_string_lossy().contains("failover-1"));
    assert_eq!(handed_over.count(), 0, "{own:?}");
    fleet.rig.stop().await;
    Ok(())
}
