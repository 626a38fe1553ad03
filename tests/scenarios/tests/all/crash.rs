//! Each service dies in the middle of its work, and what it was about comes to the same end.

use std::{path::Path, time::Duration};

use understudy_core::{
    contract::{api::Phase, heartbeat::PackageState},
    policy::Policy,
    trigger::STABILITY,
};
use understudy_demo::{
    frames,
    keep::Keeper,
    listener::{Facts, Listener},
    process::Process,
    rig::{Plan, Rig},
};
use understudy_scenarios::{Fleet, PATIENCE, gaps, plan};

#[tokio::test]
async fn g2_the_orchestrator_dies_in_the_middle_of_a_takeover_and_of_a_failback() -> anyhow::Result<()> {
    let mut fleet = Fleet::filming(plan()).await?;
    fleet.files("recorder-1", 4).await?;
    fleet.rig.server("recorder-1").kill();
    fleet
        .failover("recorder-1", "to have begun", |view| view.stand_in.is_some())
        .await?;
    fleet.rig.host.orchestrator.kill();
    fleet.rig.host.orchestrator.start()?;
    let served = fleet.phase("recorder-1", Phase::Serving).await?;
    fleet.films("failover-1", 4).await?;
    fleet.files("failover-1", 8).await?;

    fleet.rig.server("recorder-1").start()?;
    fleet.is_back("recorder-1").await?;
    fleet.rig.api.stop_failover("recorder-1").await?;
    fleet.rig.host.orchestrator.kill();
    fleet.rig.host.orchestrator.start()?;

    let ended = fleet.phase("recorder-1", Phase::Completed).await?;
    assert_eq!(
        (ended.id, ended.damaged),
        (served.id, vec![]),
        "the same failover"
    );
    fleet.films("recorder-1", 4).await?;
    fleet.stands_by("failover-1").await?;
    for (camera, numbers) in fleet.recorded("recorder-1")? {
        assert!(gaps(&numbers).len() <= 1, "{camera}: {:?}", gaps(&numbers));
    }
    fleet.rig.stop().await;
    Ok(())
}

#[tokio::test]
async fn c2_a_monitor_that_starts_again_fails_nothing_over_and_watches_on() -> anyhow::Result<()> {
    let mut fleet = Fleet::filming(plan()).await?;
    fleet.rig.host.monitor.kill();
    // Several times the disconnection duration without anybody who looks.
    tokio::time::sleep(Duration::from_secs(4)).await;
    fleet.rig.host.monitor.start()?;
    fleet.rig.host.monitor.healthy().await?;
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(fleet.rig.api.failovers().await?, [], "nobody died");

    fleet.rig.server("recorder-1").kill();
    fleet.phase("recorder-1", Phase::Serving).await?;
    fleet.rig.stop().await;
    Ok(())
}

#[tokio::test]
async fn g2_the_failover_servers_recorder_dies_while_it_hands_back() -> anyhow::Result<()> {
    let mut fleet = Fleet::filming(plan()).await?;
    fleet.files("recorder-1", 4).await?;
    fleet.rig.server("recorder-1").kill();
    fleet.phase("recorder-1", Phase::Serving).await?;
    fleet.files("failover-1", 8).await?;
    let archive = fleet.rig.server("failover-1").archive();

    // Without its sync nothing arrives, so that the death falls into the failback for certain.
    fleet.rig.server("failover-1").sync.kill();
    fleet.rig.server("recorder-1").start()?;
    fleet.is_back("recorder-1").await?;
    fleet.rig.api.stop_failover("recorder-1").await?;
    fleet.phase("recorder-1", Phase::Restoring).await?;
    fleet.rig.server("failover-1").ingest.kill();
    let filmed = frames::recorded(&archive)?;
    fleet.rig.server("failover-1").ingest.start()?;
    fleet.rig.server("failover-1").sync.start()?;

    let ended = fleet.phase("recorder-1", Phase::Completed).await?;
    assert_eq!(ended.damaged, []);
    let recorded = fleet.recorded("recorder-1")?;
    for (camera, numbers) in filmed {
        let missing: Vec<_> = numbers.difference(&recorded[&camera]).collect();
        assert_eq!(
            missing,
            Vec::<&u64>::new(),
            "{camera}: what was on its disk came back"
        );
    }
    fleet.rig.stop().await;
    Ok(())
}

#[tokio::test]
async fn c4_c5_g1_a_crashed_recording_service_is_a_reason_of_its_own_and_a_person_ends_it()
-> anyhow::Result<()> {
    let policy = Policy {
        on_package: true,
        on_disconnection: false,
        ..plan().policy
    };
    let mut fleet = Fleet::filming(Plan { policy, ..plan() }).await?;
    fleet.rig.server("recorder-1").ingest.kill();
    let failover = fleet.phase("recorder-1", Phase::Serving).await?;
    assert_eq!(
        failover.reason.kind,
        understudy_core::contract::api::ReasonKind::Package
    );
    assert!(!failover.reason.evidence.is_empty(), "c7: {:?}", failover.reason);
    fleet.films("failover-1", 4).await?;

    // Its reason clears, and without "stop automatically" nothing follows from that: well again, it stands by.
    assert!(!fleet.rig.plan.policy.stop_automatically);
    fleet.rig.server("recorder-1").ingest.start()?;
    fleet.is_back("recorder-1").await?;
    fleet
        .server("recorder-1", "to be well", |view| {
            view.package.state == PackageState::Running
        })
        .await?;
    tokio::time::sleep(STABILITY * 4).await;
    let now = fleet.phase("recorder-1", Phase::Serving).await?;
    assert_eq!((&now.id, now.waits_for.as_str()), (&failover.id, ""));
    fleet.films("recorder-1", 0).await?;
    fleet.films("failover-1", 4).await?;
    fleet.rig.api.stop_failover("recorder-1").await?;
    fleet.whole_again(&["recorder-1"], 4).await?;
    fleet.rig.stop().await;
    Ok(())
}

/// The steps of a failover that are stored before they are told: when one is heard of, its service dies.
const BOUNDARIES: [&str; 3] = ["failover.started", "failover.serving", "failover.restoring"];

/// The steps at which the recording server runs, so that its own services can die.
const RUNS_AGAIN: &[&str] = &["failover.restoring"];

/// Who dies, at which steps, and how its process is found.
type Victim = (
    &'static str,
    &'static [&'static str],
    fn(&mut Rig) -> &mut Process,
);

const VICTIMS: [Victim; 11] = [
    ("the orchestrator", &BOUNDARIES, |rig| &mut rig.host.orchestrator),
    ("the licence service", &BOUNDARIES, |rig| &mut rig.host.license),
    ("the monitor", &BOUNDARIES, |rig| &mut rig.host.monitor),
    ("the notifier", &BOUNDARIES, |rig| &mut rig.host.notifier),
    ("the console", &BOUNDARIES, |rig| &mut rig.host.console),
    ("the stand-in's recording service", &BOUNDARIES, |rig| {
        &mut rig.server("failover-1").ingest
    }),
    ("the stand-in's agent", &BOUNDARIES, |rig| {
        &mut rig.server("failover-1").agent
    }),
    ("the stand-in's sync", &BOUNDARIES, |rig| {
        &mut rig.server("failover-1").sync
    }),
    ("the original's recording service", RUNS_AGAIN, |rig| {
        &mut rig.server("recorder-1").ingest
    }),
    ("the original's agent", RUNS_AGAIN, |rig| {
        &mut rig.server("recorder-1").agent
    }),
    ("the original's sync", RUNS_AGAIN, |rig| {
        &mut rig.server("recorder-1").sync
    }),
];

/// Waits for a step, and lets the victim die at it and start again, if it is to.
async fn dies_at(
    fleet: &mut Fleet,
    facts: &mut Facts,
    boundary: &str,
    (_, steps, victim): Victim,
) -> anyhow::Result<()> {
    facts
        .next(boundary, PATIENCE, |event| event.name() == boundary, |_| {})
        .await?;
    if !steps.contains(&boundary) {
        return Ok(());
    }
    let process = victim(&mut fleet.rig);
    process.kill();
    process.start()?;
    process.healthy().await?;
    Ok(())
}

/// One failover and failback of `recorder-1`, in which the victim dies at each of its steps.
async fn round(fleet: &mut Fleet, victim: Victim, kept: &Path) -> anyhow::Result<()> {
    let (name, ..) = victim;
    let listener = Listener::start(&fleet.rig.broker.url()).await?;
    let mut facts = listener.facts();
    let keeper = Keeper::start(&fleet.rig.server("failover-1").archive(), kept);
    let before = fleet.rig.api.failovers().await?.len();

    fleet.rig.server("recorder-1").kill();
    dies_at(fleet, &mut facts, BOUNDARIES[0], victim).await?;
    dies_at(fleet, &mut facts, BOUNDARIES[1], victim).await?;
    fleet.films("failover-1", 4).await?;
    fleet.files("failover-1", 4).await?;
    fleet.rig.server("recorder-1").start()?;
    fleet.is_back("recorder-1").await?;
    fleet.rig.api.stop_failover("recorder-1").await?;
    dies_at(fleet, &mut facts, BOUNDARIES[2], victim).await?;

    fleet.whole_again(&["recorder-1"], 4).await?;
    let all = fleet.rig.api.failovers().await?;
    assert_eq!(
        all.len(),
        before + 1,
        "{name}: one failover, and no other: {all:?}"
    );
    let kept = frames::recorded(&keeper.stop().await?)?;
    let recorded = fleet.recorded("recorder-1")?;
    assert_eq!(kept.len(), 4, "{name}: the stand-in filmed");
    for (camera, numbers) in kept {
        let missing: Vec<_> = numbers.difference(&recorded[&camera]).collect();
        assert_eq!(
            missing,
            Vec::<&u64>::new(),
            "{name}: {camera}: what was on its disk came back"
        );
    }
    let left = frames::files(&fleet.rig.server("failover-1").archive())?;
    assert_eq!(left, [], "{name}: its copies are gone");
    listener.stop().await;
    Ok(())
}

#[tokio::test]
async fn g2_each_service_dies_at_each_step_of_a_failover_and_a_failback() -> anyhow::Result<()> {
    let mut fleet = Fleet::filming(plan()).await?;
    // Always the same one stands in: it is the closest match.
    fleet.files("recorder-1", 4).await?;
    let kept = fleet.rig.plan.folder.join("kept");
    for (index, victim) in VICTIMS.into_iter().enumerate() {
        round(&mut fleet, victim, &kept.join(index.to_string())).await?;
    }
    fleet.rig.stop().await;
    Ok(())
}
