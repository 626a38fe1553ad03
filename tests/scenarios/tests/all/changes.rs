//! What a person changes while a failover goes on: nothing is lost without having been confirmed.

use reqwest::Method;
use serde_json::{Value, json};
use understudy_core::{
    contract::api::{FailoverView, Phase, Problem, ServerState},
    ids::ServerId,
};
use understudy_demo::{frames, rig::eventually};
use understudy_scenarios::{
    Fleet, PATIENCE,
    command_line::{command, told},
    plan,
};

async fn archive_is_empty(fleet: &mut Fleet, server: &str) -> anyhow::Result<()> {
    let archive = fleet.rig.server(server).archive();
    eventually(
        &format!("{server}'s archive to be empty"),
        PATIENCE,
        async || match frames::files(&archive).map_err(|error| error.to_string())?.len() {
            0 => Ok(()),
            files => Err(format!("{files} files")),
        },
    )
    .await?;
    Ok(())
}

/// Fails recorder-1 over. It is dead, so that the orchestrator may have done so by itself meanwhile.
async fn fail_over(fleet: &Fleet) -> anyhow::Result<()> {
    let started = command(fleet, &["failover", "start", "recorder-1"]).await?;
    let words = String::from_utf8_lossy(&started.stderr);
    assert!(
        started.status.success() || words.contains("failed over already"),
        "{words}"
    );
    Ok(())
}

/// Changes something of a recording server during a failover that serves: nothing happens but a warning that says what
/// it would cost; confirmed, the failover is interrupted, and what the failover server recorded is erased.
async fn asks_and_then_interrupts(fleet: &mut Fleet, change: &[&str]) -> anyhow::Result<FailoverView> {
    let served = fleet.phase("recorder-1", Phase::Serving).await?;
    let stand_in = served.stand_in.clone().unwrap_or_else(|| panic!("{served:?}"));
    fleet.files(stand_in.as_str(), 4).await?;
    let asked = command(fleet, change).await?;
    let words = String::from_utf8_lossy(&asked.stderr).into_owned();
    assert_eq!(asked.status.code(), Some(2), "{change:?}: {words}");
    let lost = format!("everything that {stand_in} recorded is lost");
    for part in ["would be interrupted", &lost, "--yes"] {
        assert!(
            words.contains(part),
            "{change:?}: {part:?} is missing in: {words}"
        );
    }
    assert_eq!(fleet.phase("recorder-1", Phase::Serving).await?.id, served.id);

    let done = command(fleet, &[change, &["--yes"]].concat()).await?;
    let words = String::from_utf8_lossy(&done.stderr).into_owned();
    assert_eq!(done.status.code(), Some(0), "{change:?}: {words}");
    archive_is_empty(fleet, stand_in.as_str()).await?;
    let all = fleet.rig.api.failovers().await?;
    let ended = all.into_iter().find(|view| view.id == served.id);
    assert!(
        ended.as_ref().is_some_and(|view| view.phase == Phase::Aborted),
        "{change:?}: {ended:?}"
    );
    Ok(served)
}

#[tokio::test]
async fn g7_what_would_interrupt_a_failover_asks_and_then_interrupts_it() -> anyhow::Result<()> {
    // Given a failover that serves,
    let mut fleet = Fleet::filming(plan()).await?;
    fleet.rig.server("recorder-1").kill();
    // when somebody edits its failover settings, it is interrupted once that is confirmed,
    let edit = ["policy", "recorder-1", "--disconnection", "2s"];
    let first = asks_and_then_interrupts(&mut fleet, &edit).await?;
    // and since its server is still dead, another failover films, by the new settings.
    let second = fleet
        .failover("recorder-1", "to serve again", |view| {
            view.id != first.id && view.phase == Phase::Serving
        })
        .await?;
    assert!(second.detection_ms >= 2000, "{second:?}");

    // Asked through the API, the answer is 409 with what would be lost, and a token that is good for this only.
    let client = reqwest::Client::new();
    let address = format!("http://{}/api/v1/servers/recorder-1", fleet.rig.api_address);
    let switch = json!({ "mode": "inactive" });
    let refused = client.patch(&address).json(&switch).send().await?;
    assert_eq!(refused.status(), 409);
    let problem: Problem = refused.json().await?;
    assert!(
        problem.confirmation.is_some() && problem.detail.contains("recorded is lost"),
        "{problem:?}"
    );
    let token = problem.confirmation.unwrap_or_default();
    let other = client
        .delete(format!("{address}?confirmation={token}"))
        .send()
        .await?;
    assert_eq!(other.status(), 409, "a token for another request");
    // The server's mode is switched, it is disabled, and deleted, each in the middle of a failover.
    let inactive = ["server", "edit", "recorder-1", "--mode", "inactive"];
    asks_and_then_interrupts(&mut fleet, &inactive).await?;
    told(&fleet, &["server", "edit", "recorder-1", "--mode", "recording"]).await?;
    fail_over(&fleet).await?;
    asks_and_then_interrupts(&mut fleet, &["server", "disable", "recorder-1"]).await?;
    told(&fleet, &["server", "enable", "recorder-1"]).await?;
    fail_over(&fleet).await?;
    asks_and_then_interrupts(&mut fleet, &["server", "remove", "recorder-1"]).await?;
    let servers = fleet.rig.api.servers().await?;
    assert!(!servers.iter().any(|view| view.server.id.as_str() == "recorder-1"));
    for server in ["failover-1", "failover-2"] {
        fleet.stands_by(server).await?;
    }
    fleet.rig.stop().await;
    Ok(())
}

#[tokio::test]
async fn g7_a_failover_server_is_removed_in_the_middle_and_another_one_takes_over() -> anyhow::Result<()> {
    let mut fleet = Fleet::filming(plan()).await?;
    fleet.rig.server("recorder-1").kill();
    let first = fleet.phase("recorder-1", Phase::Serving).await?;
    assert_eq!(first.stand_in, Some(ServerId::new("failover-1")?));
    fleet.files("failover-1", 4).await?;

    // Asked through the API, the answer brings a token; another token is not good enough.
    let client = reqwest::Client::new();
    let address = format!("http://{}/api/v1/servers/failover-1", fleet.rig.api_address);
    let refused = client.delete(&address).send().await?;
    assert_eq!(refused.status(), 409);
    let problem: Problem = refused.json().await?;
    let token = problem.confirmation.clone().unwrap_or_default();
    assert!(!token.is_empty(), "{problem:?}");
    let guessed = client
        .delete(format!("{address}?confirmation=yes"))
        .send()
        .await?;
    assert_eq!(guessed.status(), 409);
    let removed = client
        .delete(format!("{address}?confirmation={token}"))
        .send()
        .await?;
    assert_eq!(removed.status(), 204);

    // The removed one stands down and erases what it was told to; the other one films.
    archive_is_empty(&mut fleet, "failover-1").await?;
    fleet.films("failover-2", 4).await?;
    let servers = fleet.rig.api.servers().await?;
    assert!(!servers.iter().any(|view| view.server.id.as_str() == "failover-1"));
    fleet.rig.stop().await;
    Ok(())
}

#[tokio::test]
async fn b5_g7_a_recording_server_is_renamed_switched_off_and_on() -> anyhow::Result<()> {
    let fleet = Fleet::filming(plan()).await?;
    let renamed = command(&fleet, &["server", "edit", "recorder-1", "--name", "South gate"]).await?;
    assert!(renamed.status.success(), "{renamed:?}");
    assert_eq!(
        fleet.rig.api.server("recorder-1").await?.label,
        "South gate (4/10)"
    );
    let asked = command(&fleet, &["server", "disable", "recorder-1"]).await?;
    let words = String::from_utf8_lossy(&asked.stderr).into_owned();
    assert_eq!(asked.status.code(), Some(2), "{words}");
    assert!(words.contains("films 4 camera(s)"), "{words}");
    let off = command(&fleet, &["server", "disable", "recorder-1", "--yes"]).await?;
    assert!(off.status.success(), "{off:?}");
    fleet
        .server("recorder-1", "to be switched off", |view| {
            view.state == ServerState::Disabled && view.filming == 0
        })
        .await?;
    // Switched off it is protected by nobody: a person can't fail it over either.
    let start: Result<Value, _> = fleet
        .rig
        .api
        .call(Method::POST, "servers/recorder-1/failover", Some(&json!({})))
        .await;
    let refused = start.expect_err("it is switched off").to_string();
    assert!(refused.contains("switched off"), "{refused}");
    let on = command(&fleet, &["server", "enable", "recorder-1"]).await?;
    assert!(on.status.success(), "{on:?}");
    fleet.films("recorder-1", 4).await?;
    fleet.rig.stop().await;
    Ok(())
}
