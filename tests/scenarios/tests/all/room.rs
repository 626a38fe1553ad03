//! Disks: what recordings need of them, for how long a failover server could stand in, and a failback that is larger
//! than what is free.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use nix::sys::statvfs::statvfs;
use understudy_core::contract::api::Phase;
use understudy_demo::{frames, rig::Plan, volume::Volume};
use understudy_runtime::testing::left_out;
use understudy_scenarios::{Fleet, command_line::told, folder, plan};

/// What each camera sends: with it the room is used up within seconds.
const KILOBITS: u64 = 4_000;
/// What is kept free by retention, and what failback never goes below, in MiB.
const KEEP_FREE: u64 = 16;
const FLOOR: u64 = 6;
const MIB: u64 = 1 << 20;

fn thirsty() -> Plan {
    let mut fleet_plan = plan();
    for (flag, value) in [
        ("--bitrate", KILOBITS.to_string()),
        ("--width", "640".into()),
        ("--height", "480".into()),
    ] {
        let at = fleet_plan.simulator.iter().position(|each| each == flag);
        fleet_plan.simulator[at.expect("it is set") + 1] = value;
    }
    fleet_plan.segment = Duration::from_secs(2);
    fleet_plan
}

fn free(folder: &Path) -> anyhow::Result<u64> {
    let volume = statvfs(folder)?;
    Ok(volume.blocks_available() * volume.fragment_size())
}

/// Bytes of a server's files, and the seconds of one camera that are in them, summed over the cameras.
fn recorded(archive: &Path) -> anyhow::Result<(u64, f64)> {
    let mut bytes = 0;
    for (_, path) in frames::files(archive)? {
        bytes += path.metadata()?.len();
    }
    let frames: usize = frames::recorded(archive)?
        .values()
        .map(|numbers| numbers.len())
        .sum();
    Ok((bytes, frames as f64 / 15.0))
}

#[tokio::test]
async fn k2_a_failover_server_says_for_how_long_it_could_stand_in_and_what_a_disk_must_hold()
-> anyhow::Result<()> {
    let mut fleet = Fleet::filming(thirsty()).await?;
    fleet.files("recorder-1", 8).await?;
    // A failover server has room, and knows from the one it is paired with how fast that goes.
    let stand_in = fleet
        .server("failover-1", "to know for how long it could stand in", |view| {
            view.stands_in.is_some()
        })
        .await?;
    let (room, stands_in) = (
        stand_in.room.expect("it says so"),
        stand_in.stands_in.expect("it knows"),
    );
    assert_eq!(stands_in.server.as_str(), "recorder-1");
    let (bytes, seconds) = recorded(&fleet.rig.server("recorder-1").archive())?;
    let really = room.bytes as f64 / (bytes as f64 / seconds * 4.0);
    let said_to_be = stands_in.for_ms as f64 / 1000.0;
    assert!(
        (0.7..1.4).contains(&(said_to_be / really)),
        "{said_to_be} s are said, {bytes} bytes of {seconds} s make it {really} s"
    );
    let words = told(&fleet, &["server", "list", "failover-1"]).await?;
    assert!(words.contains("enough to stand in for recorder-1 for"), "{words}");

    // The calculator says what these cameras really took.
    let bit_rate = format!("{}", (bytes as f64 / seconds * 8.0) as u64 / 1000) + "k";
    let plain = [
        "disk",
        "--cameras",
        "4",
        "--bitrate",
        &bit_rate,
        "--days",
        "1",
        "--json",
    ];
    let answer: serde_json::Value = serde_json::from_str(&told(&fleet, &plain).await?)?;
    let hour = answer["bytes_per_hour"].as_f64().expect("a number");
    let real_hour = bytes as f64 / seconds * 4.0 * 3600.0;
    assert!(
        (0.99..1.03).contains(&(hour / real_hour)),
        "{answer}, and really {real_hour}"
    );

    // While it stands in, it says for how long it still can.
    fleet.rig.server("recorder-1").kill();
    fleet.phase("recorder-1", Phase::Serving).await?;
    fleet.files("failover-1", 8).await?;
    fleet
        .server("failover-1", "to know for how long it still can", |view| {
            let rate = view.room.as_ref().and_then(|room| room.bytes_per_second);
            rate.is_some()
                && view
                    .stands_in
                    .as_ref()
                    .is_some_and(|each| each.server.as_str() == "recorder-1")
        })
        .await?;
    fleet.rig.stop().await;
    Ok(())
}

#[tokio::test]
async fn k2_a_failback_larger_than_the_room_does_what_retention_would_have_done() -> anyhow::Result<()> {
    let folder = folder()?;
    let archive = folder.path().join("recorder-1/data/archive");
    let volume = Volume::mounted_at(&archive, &folder.path().join("volume.img"), 64 << 20);
    if let Err(why) = &volume {
        left_out(format!("a failback into a nearly full volume: {why}"));
        return Ok(());
    }
    // Given a recording server on a small disk, of which retention keeps a part free.
    let mut fleet = Fleet::start_in(folder, thirsty()).await?;
    let server = fleet.rig.server("recorder-1");
    for process in [&mut server.sync, &mut server.ingest] {
        process.kill();
        process.set_environment("UNDERSTUDY_INGEST__KEEP_FREE_MIB", &KEEP_FREE.to_string());
        process.set_environment("UNDERSTUDY_SYNC__FREE_FLOOR_MIB", &FLOOR.to_string());
        process.start()?;
    }
    fleet.films("recorder-1", 4).await?;
    fleet
        .server("recorder-1", "to be protected", |view| view.protected)
        .await?;
    let room = free(&archive)?.saturating_sub(KEEP_FREE * MIB);

    // When its failover server records more than there is room for,
    fleet.rig.server("recorder-1").kill();
    fleet.phase("recorder-1", Phase::Serving).await?;
    let elsewhere = fleet.rig.server("failover-1").archive();
    understudy_demo::rig::eventually(
        "more than fits",
        understudy_scenarios::PATIENCE,
        async || match recorded(&elsewhere) {
            Ok((bytes, _)) if bytes > room + 6 * MIB => Ok(()),
            other => Err(format!("{other:?} of {room}")),
        },
    )
    .await?;

    // then the newest are there in the end, and the disk was never full.
    let least = Arc::new(AtomicU64::new(u64::MAX));
    let (looked, volume_at) = (Arc::clone(&least), archive.clone());
    let watching = tokio::spawn(async move {
        let mut often = tokio::time::interval(Duration::from_millis(20));
        loop {
            often.tick().await;
            if let Ok(free) = free(&volume_at) {
                looked.fetch_min(free, Ordering::Relaxed);
            }
        }
    });
    fleet.rig.server("recorder-1").start()?;
    fleet.is_back("recorder-1").await?;
    fleet.rig.api.stop_failover("recorder-1").await?;
    let ended = fleet.phase("recorder-1", Phase::Completed).await?;
    watching.abort();
    assert_eq!(
        ended.progress.segments_done, ended.progress.segments_total,
        "{ended:?}"
    );
    assert_eq!(ended.damaged_count, 0, "{ended:?}");
    let least = least.load(Ordering::Relaxed);
    assert!(least >= FLOOR * MIB / 2, "it came down to {least} bytes");
    fleet.films("recorder-1", 4).await?;
    fleet.stands_by("failover-1").await?;
    assert_eq!(frames::files(&elsewhere)?, [], "and its copies are gone");
    let kept = frames::recorded(&archive)?;
    assert_eq!(kept.len(), 4, "each camera has something: {:?}", kept.keys());
    fleet.rig.stop().await;
    drop(volume);
    Ok(())
}
