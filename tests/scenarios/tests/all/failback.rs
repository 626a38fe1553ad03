//! What comes back, in spite of everything.

use std::io::{Seek, SeekFrom, Write};

use tokio::time::Instant;
use understudy_core::{
    contract::api::{Phase, ServerState},
    policy::{Failback, Policy, Range},
    words::{length, size},
};
use understudy_demo::{frames, rig::Plan};
use understudy_scenarios::{Fleet, PATIENCE, assert_only_takeovers_missing, plan};

use crate::{
    overlay::settings,
    relay::{picture_in, snapshot, snapshots},
};

/// A fleet whose failover server has been filming for a while, and whose recording server is dead.
async fn served(fleet_plan: Plan) -> anyhow::Result<Fleet> {
    let mut fleet = Fleet::filming(fleet_plan).await?;
    takes_over(&mut fleet).await?;
    Ok(fleet)
}

/// The recording server is killed, and the failover server films for a while.
async fn takes_over(fleet: &mut Fleet) -> anyhow::Result<()> {
    fleet.files("recorder-1", 4).await?;
    let killed = Instant::now();
    fleet.rig.server("recorder-1").kill();
    fleet.phase("recorder-1", Phase::Serving).await?;
    fleet.unfilmed = killed.elapsed();
    // Two segments of each camera: one of them is closed.
    fleet.files("failover-1", 8).await?;
    Ok(())
}

async fn stop(fleet: &mut Fleet) -> anyhow::Result<()> {
    fleet.rig.server("recorder-1").start()?;
    fleet.is_back("recorder-1").await?;
    fleet.rig.api.stop_failover("recorder-1").await?;
    Ok(())
}

#[tokio::test]
async fn g2_g4_g6_recordings_and_settings_come_back_and_the_copies_are_removed() -> anyhow::Result<()> {
    let mut fleet = Fleet::filming(plan()).await?;
    let before = settings(&mut fleet, "recorder-1")?;
    assert!(before.is_some(), "it films by settings");
    takes_over(&mut fleet).await?;
    stop(&mut fleet).await?;

    let failover = fleet.phase("recorder-1", Phase::Completed).await?;
    assert_eq!(failover.damaged, []);
    assert!(failover.progress.segments_done >= 8, "{failover:?}");
    fleet.films("recorder-1", 4).await?;
    assert_eq!(
        settings(&mut fleet, "recorder-1")?,
        before,
        "g6: by the same settings, named by their hash"
    );
    fleet.stands_by("failover-1").await?;
    let left = frames::files(&fleet.rig.server("failover-1").archive())?;
    assert_eq!(left, [], "g4: the copies are gone");
    assert_only_takeovers_missing(&fleet.recorded("recorder-1")?, 1, fleet.unfilmed);
    fleet.rig.stop().await;
    Ok(())
}

#[tokio::test]
async fn g2_a_policy_of_remove_hands_nothing_back() -> anyhow::Result<()> {
    let policy = Policy {
        failback: Failback::Remove,
        ..plan().policy
    };
    let mut fleet = served(Plan { policy, ..plan() }).await?;
    let picture = snapshot(&fleet, "cam-001").await?;
    assert!(picture_in(&fleet.rig.server("failover-1").archive(), &picture).exists());
    stop(&mut fleet).await?;

    fleet.phase("recorder-1", Phase::Completed).await?;
    fleet.stands_by("failover-1").await?;
    assert_eq!(frames::files(&fleet.rig.server("failover-1").archive())?, []);
    for server in ["failover-1", "recorder-1"] {
        let archive = fleet.rig.server(server).archive();
        assert!(!picture_in(&archive, &picture).exists(), "{server} has a picture");
    }
    assert_eq!(snapshots(&fleet, "cam-001").await?.snapshots, []);
    let names: Vec<_> = frames::files(&fleet.rig.server("recorder-1").archive())?;
    assert!(
        names
            .iter()
            .all(|(_, path)| !path.to_string_lossy().contains("failover-1")),
        "{names:?}"
    );
    fleet.rig.stop().await;
    Ok(())
}

#[tokio::test]
async fn d2_live_only_records_nothing_on_the_failover_server() -> anyhow::Result<()> {
    let policy = Policy {
        range: Range::LiveOnly,
        ..plan().policy
    };
    let mut fleet = Fleet::filming(Plan { policy, ..plan() }).await?;
    fleet.rig.server("recorder-1").kill();
    fleet.phase("recorder-1", Phase::Serving).await?;
    fleet.films("failover-1", 4).await?;
    assert_eq!(frames::files(&fleet.rig.server("failover-1").archive())?, []);
    stop(&mut fleet).await?;
    fleet.phase("recorder-1", Phase::Completed).await?;
    fleet.rig.stop().await;
    Ok(())
}

#[tokio::test]
async fn g2_a_damaged_segment_is_reported_and_the_others_arrive() -> anyhow::Result<()> {
    let mut fleet = served(plan()).await?;
    // The first file of the first camera is closed by now: a bit of it rots.
    let victim = fleet.files("failover-1", 8).await?.remove(0);
    let mut file = std::fs::OpenOptions::new().write(true).open(&victim)?;
    file.seek(SeekFrom::Start(2000))?;
    file.write_all(b"rotten")?;
    file.sync_all()?;
    stop(&mut fleet).await?;

    let failover = fleet.phase("recorder-1", Phase::Completed).await?;
    assert_eq!(failover.damaged.len(), 1, "{failover:?}");
    assert!(victim.ends_with(&failover.damaged[0].path), "{failover:?}");
    assert!(!failover.damaged[0].reason.is_empty());
    let arrived = frames::files(&fleet.rig.server("recorder-1").archive())?
        .into_iter()
        .filter(|(_, path)| path.to_string_lossy().contains("failover-1"))
        .count();
    assert!(arrived >= 7, "the others arrived: {arrived}");
    fleet.rig.stop().await;
    Ok(())
}

#[tokio::test]
async fn g2_an_interrupted_failback_goes_on_where_it_stopped() -> anyhow::Result<()> {
    let mut fleet = served(plan()).await?;
    fleet.rig.server("recorder-1").start()?;
    fleet.is_back("recorder-1").await?;
    // The source is away when the failback begins: it waits, and says so.
    fleet.rig.server("failover-1").sync.kill();
    fleet.rig.api.stop_failover("recorder-1").await?;
    fleet
        .failover("recorder-1", "to wait for its source", |view| {
            view.phase == Phase::Restoring && !view.waits_for.is_empty()
        })
        .await?;
    // Then the receiver dies too; both come back.
    fleet.rig.server("recorder-1").sync.kill();
    fleet.rig.server("failover-1").sync.start()?;
    fleet.rig.server("recorder-1").sync.start()?;

    let failover = fleet.phase("recorder-1", Phase::Completed).await?;
    assert_eq!(failover.damaged, []);
    let archive = fleet.rig.server("recorder-1").archive();
    let leftovers = std::fs::read_dir(archive.join(".incoming"))
        .map(|entries| entries.count())
        .unwrap_or(0);
    assert_eq!(leftovers, 0, "no half file stays behind");
    assert_only_takeovers_missing(&fleet.recorded("recorder-1")?, 1, fleet.unfilmed);
    fleet.rig.stop().await;
    Ok(())
}

#[tokio::test]
async fn g5_a_stopped_restoration_removes_what_was_not_transferred() -> anyhow::Result<()> {
    let mut fleet = served(plan()).await?;
    fleet.rig.server("recorder-1").start()?;
    fleet.is_back("recorder-1").await?;
    fleet.rig.server("failover-1").sync.kill();
    fleet.rig.api.stop_failover("recorder-1").await?;
    let restoring = fleet.phase("recorder-1", Phase::Restoring).await?;
    let busy = fleet.rig.api.server("failover-1").await?;
    assert_ne!(
        busy.state,
        ServerState::Standby,
        "g3: it takes over nobody while it hands back"
    );

    let path = format!("failovers/{}/restoration/stop", restoring.id);
    let (warned, _): (_, serde_json::Value) = fleet
        .rig
        .api
        .confirm(reqwest::Method::POST, &path, Some(&serde_json::json!({})))
        .await?;
    assert!(
        warned
            .detail
            .contains("everything that failover-1 recorded is lost"),
        "{}",
        warned.detail
    );

    fleet.phase("recorder-1", Phase::Completed).await?;
    fleet.stands_by("failover-1").await?;
    let archive = fleet.rig.server("failover-1").archive();
    understudy_demo::rig::eventually("the copies to be removed", PATIENCE, async || {
        let left = frames::files(&archive).map_err(|error| error.to_string())?;
        if left.is_empty() {
            Ok(())
        } else {
            Err(format!("{left:?}"))
        }
    })
    .await?;
    fleet.films("recorder-1", 4).await?;
    fleet.rig.stop().await;
    Ok(())
}

#[tokio::test]
async fn g5_what_would_not_arrive_is_named_by_time_and_bytes_and_what_has_arrived_stays() -> anyhow::Result<()>
{
    // Given a failback of which one recording can't be had: whoever opens its file waits for good.
    let mut fleet = served(plan()).await?;
    let archive = fleet.rig.server("failover-1").archive();
    let files = fleet.files("failover-1", 8).await?;
    fleet.rig.server("failover-1").sync.kill();
    fleet.rig.server("recorder-1").start()?;
    fleet.is_back("recorder-1").await?;
    fleet.rig.api.stop_failover("recorder-1").await?;
    fleet.phase("recorder-1", Phase::Restoring).await?;
    fleet.films("failover-1", 0).await?;
    let stuck = &files[0];
    let bytes = std::fs::metadata(stuck)?.len();
    let aside = fleet.rig.plan.folder.join("aside.mp4");
    std::fs::rename(stuck, &aside)?;
    nix::unistd::mkfifo(stuck, nix::sys::stat::Mode::S_IRUSR)?;
    fleet.rig.server("failover-1").sync.start()?;
    let fetched = fleet
        .failover("recorder-1", "to have all but one", |view| {
            let progress = view.progress;
            progress.segments_total >= 8 && progress.segments_done + 1 == progress.segments_total
        })
        .await?;
    assert_eq!(fetched.progress.bytes_total - fetched.progress.bytes_done, bytes);

    // When a person wants to stop it, that one is named: how long it is, and how large.
    let path = format!("failovers/{}/restoration/stop", fetched.id);
    let nobody = serde_json::json!({});
    let (warned, _): (_, serde_json::Value) = fleet
        .rig
        .api
        .confirm(reqwest::Method::POST, &path, Some(&nobody))
        .await?;
    let left = fetched.progress.recorded_ms_total - fetched.progress.recorded_ms_done;
    assert!((1_000..20_000).contains(&left), "{left} ms of one camera");
    let named = format!(
        "{} of recordings, summed over cameras, is lost ({} in 1 segment(s))",
        length(left),
        size(bytes)
    );
    assert!(warned.detail.contains(&named), "{named}: {}", warned.detail);

    // Then just that is lost, which is said to the end; what has arrived stays.
    let ended = fleet.phase("recorder-1", Phase::Completed).await?;
    assert!(
        ended.steps.iter().any(|step| step.what.contains(&named)),
        "{:?}",
        ended.steps
    );
    fleet.stands_by("failover-1").await?;
    fleet.rig.server("failover-1").sync.kill();
    assert_eq!(frames::files(&archive)?, []);
    let arrived = frames::files(&fleet.rig.server("recorder-1").archive())?;
    for file in &files[1..] {
        let name = file.strip_prefix(&archive)?;
        assert!(
            arrived.iter().any(|(_, path)| path.ends_with(name)),
            "{name:?}: {arrived:?}"
        );
    }
    fleet.rig.stop().await;
    Ok(())
}

#[tokio::test]
async fn g3_the_same_server_failing_again_is_taken_over_by_the_same_one() -> anyhow::Result<()> {
    let mut fleet = served(plan()).await?;
    fleet.rig.server("recorder-1").start()?;
    fleet.is_back("recorder-1").await?;
    fleet.rig.server("failover-1").sync.kill();
    fleet.rig.api.stop_failover("recorder-1").await?;
    let restoring = fleet.phase("recorder-1", Phase::Restoring).await?;

    let killed = Instant::now();
    fleet.rig.server("recorder-1").kill();
    let again = fleet.phase("recorder-1", Phase::Serving).await?;
    fleet.unfilmed = fleet.unfilmed.max(killed.elapsed());
    assert_eq!(
        (&again.id, &again.stand_in),
        (&restoring.id, &restoring.stand_in),
        "the same failover goes on"
    );
    fleet.films("failover-1", 4).await?;

    fleet.rig.server("failover-1").sync.start()?;
    stop(&mut fleet).await?;
    let ended = fleet.phase("recorder-1", Phase::Completed).await?;
    assert_eq!(ended.id, restoring.id);
    assert_only_takeovers_missing(&fleet.recorded("recorder-1")?, 2, fleet.unfilmed);
    fleet.rig.stop().await;
    Ok(())
}
