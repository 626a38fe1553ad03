//! Changes of settings during a failover: for the failover server only, until the end.

use understudy_core::{
    assignment::{Assignment, Role},
    contract::api::{CameraView, OfferState, Phase},
};
use understudy_demo::{
    frames,
    rig::{Plan, camera_name, eventually},
};
use understudy_scenarios::{Fleet, PATIENCE, command_line::told, plan};

/// The settings by which a server's last assignment lets it film, by the server's own disk.
pub(crate) fn settings(fleet: &mut Fleet, server: &str) -> anyhow::Result<Option<String>> {
    let file = fleet.rig.server(server).folder.join("data/assignment.json");
    let assignment: Assignment = serde_json::from_slice(&std::fs::read(file)?)?;
    Ok(match assignment.role {
        Role::Films(films) => Some(films.settings.0),
        Role::Standby | Role::Erases { .. } | Role::HandsBack { .. } => None,
    })
}

async fn cameras(
    fleet: &Fleet,
    what: &str,
    wanted: impl Fn(&[CameraView]) -> bool,
) -> anyhow::Result<Vec<CameraView>> {
    let views = eventually(what, PATIENCE, async || {
        let views = fleet.rig.api.cameras().await.map_err(|error| error.to_string())?;
        if wanted(&views) {
            Ok(views)
        } else {
            Err(format!("{views:?}"))
        }
    });
    Ok(views.await?)
}

fn films_on(view: &CameraView, server: &str) -> bool {
    let there = view.filmed_by.as_ref().is_some_and(|by| by.as_str() == server);
    there && view.status.as_ref().is_some_and(|status| status.films())
}

/// Four cameras enrolled, of six that there are; failover-1 stands in for the recording server, which is dead.
async fn served() -> anyhow::Result<Fleet> {
    let mut fleet = Fleet::start(Plan {
        cameras: 6,
        enroll_cameras: false,
        ..plan()
    })
    .await?;
    let enrolled = fleet.rig.cameras("recorder-1", 0..4)?;
    fleet.rig.api.add_cameras(&enrolled).await?;
    fleet.films("recorder-1", 4).await?;
    fleet
        .server("recorder-1", "to be protected", |view| view.protected)
        .await?;
    fleet.files("recorder-1", 4).await?;
    Ok(fleet)
}

async fn fail(fleet: &mut Fleet) -> anyhow::Result<()> {
    fleet.rig.server("recorder-1").kill();
    fleet.phase("recorder-1", Phase::Serving).await?;
    Ok(())
}

async fn end(fleet: &mut Fleet) -> anyhow::Result<()> {
    fleet.rig.server("recorder-1").start()?;
    fleet.is_back("recorder-1").await?;
    fleet.rig.api.stop_failover("recorder-1").await?;
    fleet.phase("recorder-1", Phase::Completed).await?;
    Ok(())
}

#[tokio::test]
async fn e13_g6_cameras_are_added_edited_and_removed_until_the_failover_ends() -> anyhow::Result<()> {
    // Given a failover that serves,
    let mut fleet = served().await?;
    let before = settings(&mut fleet, "recorder-1")?;
    let shown_before = fleet.rig.api.cameras().await?;
    fail(&mut fleet).await?;

    // when cameras are renamed, removed and added,
    let (renamed, removed, added) = (camera_name(0), camera_name(1), camera_name(4));
    told(&fleet, &["camera", "edit", &renamed, "--name", "Gate"]).await?;
    told(&fleet, &["camera", "remove", &removed]).await?;
    let new = fleet.rig.cameras("recorder-1", 4..5)?;
    fleet.rig.api.add_cameras(&new).await?;

    // then the failover server films just that, though the host dies in between.
    fleet.rig.host.orchestrator.kill();
    fleet.rig.host.orchestrator.start()?;
    let now = cameras(&fleet, "the failover server to film what was added", |views| {
        views
            .iter()
            .any(|view| view.camera.id.as_str() == added && films_on(view, "failover-1"))
    })
    .await?;
    assert!(
        !now.iter().any(|view| view.camera.id.as_str() == removed),
        "{now:?}"
    );
    let gate = now.iter().find(|view| view.camera.id.as_str() == renamed);
    assert!(
        gate.is_some_and(|view| view.camera.name == "Gate" && view.temporary),
        "{gate:?}"
    );
    assert_ne!(settings(&mut fleet, "failover-1")?, before);
    let archive = fleet.rig.server("failover-1").archive();
    eventually("recordings of what was added", PATIENCE, async || {
        let files = frames::files(&archive).map_err(|error| error.to_string())?;
        if files.iter().any(|(camera, _)| *camera == added) {
            Ok(())
        } else {
            Err(format!("{files:?}"))
        }
    })
    .await?;
    let shown = told(&fleet, &["failover", "show", "recorder-1"]).await?;
    assert!(
        shown.contains("changed until the end") && shown.contains(&format!("{added}: added")),
        "{shown}"
    );

    // When it ends, the settings are those of before, byte for byte,
    end(&mut fleet).await?;
    fleet.films("recorder-1", 4).await?;
    assert_eq!(settings(&mut fleet, "recorder-1")?, before);
    let shown_after = fleet.rig.api.cameras().await?;
    let as_set = |views: &[CameraView]| views.iter().map(|view| view.camera.clone()).collect::<Vec<_>>();
    assert_eq!(as_set(&shown_after), as_set(&shown_before));
    // what was dropped is named,
    let shown = told(&fleet, &["failover", "show", "recorder-1"]).await?;
    for part in [
        "dropped at the end",
        &format!("{removed}: removed"),
        &format!("{renamed}: name"),
    ] {
        assert!(shown.contains(part), "{part:?} is missing in: {shown}");
    }
    // and what the added camera recorded has come back with the rest.
    let recorded = fleet.recorded("recorder-1")?;
    assert!(
        recorded.get(&added).is_some_and(|numbers| !numbers.is_empty()),
        "{:?}",
        recorded.keys()
    );
    fleet.rig.stop().await;
    Ok(())
}

#[tokio::test]
async fn e13_what_changed_a_device_is_offered_at_the_end_and_kept_or_not() -> anyhow::Result<()> {
    // Given a camera that gets another address during a failover, and one of which a person takes that back,
    let mut fleet = served().await?;
    fail(&mut fleet).await?;
    let (moved, tried) = (camera_name(0), camera_name(1));
    let elsewhere = fleet.rig.cameras("recorder-1", 4..6)?;
    told(&fleet, &["camera", "edit", &moved, "--stream", &elsewhere[0].url]).await?;
    told(&fleet, &["camera", "edit", &tried, "--stream", &elsewhere[1].url]).await?;
    let own = fleet.rig.cameras("recorder-1", 0..2)?;
    cameras(&fleet, "the failover server to film both", |views| {
        let filmed = |id: &str| {
            views
                .iter()
                .any(|view| view.camera.id.as_str() == id && films_on(view, "failover-1"))
        };
        filmed(&moved) && filmed(&tried)
    })
    .await?;

    // when it has ended, both are as before, and both changes are offered.
    end(&mut fleet).await?;
    fleet.films("recorder-1", 4).await?;
    let views = fleet.rig.api.cameras().await?;
    let url = |views: &[CameraView], id: &str| {
        views
            .iter()
            .find(|view| view.camera.id.as_str() == id)
            .map(|view| view.camera.url.clone())
    };
    assert_eq!(url(&views, &moved).as_deref(), Some(own[0].url.as_str()));
    let offered = told(&fleet, &["failover", "offers", "recorder-1"]).await?;
    assert!(
        offered.contains(&elsewhere[0].url) && offered.contains("to be kept?"),
        "{offered}"
    );

    // Applied, it is one of the recording server's own settings, by which it films; dropped, it is gone.
    told(&fleet, &["failover", "offers", "recorder-1", "apply", &moved]).await?;
    told(&fleet, &["failover", "offers", "recorder-1", "drop"]).await?;
    let views = cameras(
        &fleet,
        "the recording server to film by the new address",
        |views| {
            url(views, &moved).as_deref() == Some(elsewhere[0].url.as_str())
                && views.iter().all(|view| films_on(view, "recorder-1"))
        },
    )
    .await?;
    assert_eq!(url(&views, &tried).as_deref(), Some(own[1].url.as_str()));
    let failover = fleet.phase("recorder-1", Phase::Completed).await?;
    let states: Vec<_> = failover
        .overlay
        .iter()
        .filter_map(|change| Some(change.offer.as_ref()?.state))
        .collect();
    assert_eq!(states, [OfferState::Applied, OfferState::Dropped]);
    fleet.rig.stop().await;
    Ok(())
}
