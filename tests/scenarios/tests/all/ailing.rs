//! Recording servers that are heard and don't record: a volume that the kernel has made read-only, one that
//! stays full. A recording service that hangs is in `acting.rs`.

use std::{fs::File, path::Path};

use nix::{
    fcntl::{FallocateFlags, fallocate},
    sys::statvfs::statvfs,
};
use understudy_core::{
    contract::api::{Phase, ReasonKind},
    policy::Policy,
};
use understudy_demo::{
    rig::{Plan, Rig},
    volume::Volume,
};
use understudy_runtime::testing::left_out;
use understudy_scenarios::{Fleet, command_line::told, folder, plan};

/// The disk; without one the test is left out.
fn disk_of(made: Result<Volume, String>) -> Option<Volume> {
    match made {
        Ok(disk) => Some(disk),
        Err(why) => {
            left_out(why);
            None
        }
    }
}

/// The file system's own tables lie here, and the files of its top folder, so the agent's probe too, most times.
const STILL_GOOD: u64 = 32 << 20;

#[tokio::test]
async fn c3_a_server_whose_volume_became_read_only_is_failed_over_with_the_evidence() -> anyhow::Result<()> {
    let folder = folder()?;
    let archive = folder.path().join("recorder-1/data/archive");
    let Some(disk) = disk_of(Volume::mounted_at(
        &archive,
        &folder.path().join("disk.img"),
        256 << 20,
    )) else {
        return Ok(());
    };
    let policy = Policy {
        on_storage: true,
        ..plan().policy
    };
    let mut fleet = Fleet::filming_in(folder, Plan { policy, ..plan() }).await?;
    fleet.files("recorder-1", 4).await?;

    disk.breaks().map_err(anyhow::Error::msg)?;

    let failover = fleet.phase("recorder-1", Phase::Serving).await?;
    assert_eq!(failover.reason.kind, ReasonKind::Storage);
    let summary = failover.reason.summary.to_lowercase();
    assert!(
        summary.contains("damaged") && summary.contains("read-only"),
        "{summary}"
    );
    let seen = |words: &str| {
        let evidence = failover.reason.evidence.iter();
        evidence
            .map(|line| line.seen.to_lowercase())
            .any(|line| line.contains(words))
    };
    assert!(seen("read-only"), "c7: {:?}", failover.reason.evidence);
    fleet.films("failover-1", 4).await?;
    fleet.rig.stop().await;
    drop(disk);
    Ok(())
}

#[tokio::test]
async fn c3_a_server_whose_disk_is_bad_where_it_records_is_failed_over_by_its_recorders_word()
-> anyhow::Result<()> {
    let folder = folder()?;
    let archive = folder.path().join("recorder-1/data/archive");
    let Some(disk) = disk_of(Volume::stubborn_at(
        &archive,
        &folder.path().join("disk.img"),
        256 << 20,
    )) else {
        return Ok(());
    };
    // Given a disk of which only the beginning is good, and an agent whose probe finds nothing,
    let policy = Policy {
        on_storage: true,
        on_disconnection: false,
        ..plan().policy
    };
    let mut rig = Rig::describe(Plan {
        folder: folder.path().to_owned(),
        policy,
        ..plan()
    })
    .await?;
    // Where the file system puts the next probe is not sure: it comes a minute after the first, which goes through.
    let agent = &mut rig.server("recorder-1").agent;
    agent.set_environment("UNDERSTUDY_AGENT__VOLUME_INTERVAL_MS", "60000");
    let mut fleet = Fleet::filming_as(rig, folder).await?;
    fleet.files("recorder-1", 4).await?;
    disk.is_cut_off(STILL_GOOD).map_err(anyhow::Error::msg)?;

    // then it is the recorder, whose recordings go where the disk is bad, that says so.
    let failover = fleet.phase("recorder-1", Phase::Serving).await?;
    assert_eq!(failover.reason.kind, ReasonKind::Storage);
    let seen = failover.reason.evidence.iter();
    let seen = seen.filter(|line| {
        line.seen
            .contains("refused the recording service again and again what it wrote: Input/output error")
    });
    assert!(seen.count() > 0, "c7: {:?}", failover.reason.evidence);
    fleet.films("failover-1", 4).await?;
    fleet.rig.stop().await;
    drop(disk);
    Ok(())
}

/// Fills a volume up to what is kept for root, as somebody else's files would; again, for what was freed meanwhile.
fn fill(filler: &File, point: &Path) -> anyhow::Result<()> {
    let status = statvfs(point)?;
    let free = status.blocks_available() * status.fragment_size();
    let have = filler.metadata()?.len();
    fallocate(
        filler,
        FallocateFlags::empty(),
        have.cast_signed(),
        free.max(1).cast_signed(),
    )?;
    Ok(())
}

#[tokio::test]
async fn c3_g2_a_server_whose_volume_stays_full_is_failed_over_where_the_policy_says_so() -> anyhow::Result<()>
{
    let folder = folder()?;
    let archive = folder.path().join("recorder-1/data/archive");
    let Some(disk) = disk_of(Volume::mounted_at(
        &archive,
        &folder.path().join("disk.img"),
        640 << 20,
    )) else {
        return Ok(());
    };
    // Given a server whose volume somebody else fills, so that retention can't make room,
    let policy = Policy {
        on_storage: true,
        on_disconnection: false,
        stop_automatically: true,
        ..plan().policy
    };
    let mut fleet = Fleet::filming_in(folder, Plan { policy, ..plan() }).await?;
    let server = fleet.rig.server("recorder-1");
    server.agent.kill();
    let config = server.folder.join("server.toml");
    let quicker = std::fs::read_to_string(&config)?.replace("[agent]\n", "[agent]\nvolume_full_ms = 2000\n");
    std::fs::write(&config, quicker)?;
    server.agent.start()?;
    let others = archive.join("somebody-elses");
    let filler = File::create(&others)?;
    // then everybody is told, and nobody fails it over,
    fleet
        .server("recorder-1", "to be full", |view| {
            // Whatever retention frees is taken too.
            let _ = fill(&filler, &archive);
            let warned = view
                .warnings
                .iter()
                .any(|warning| warning.contains("stays full although"));
            view.storage.full && warned
        })
        .await?;
    assert_eq!(fleet.rig.api.failovers().await?, []);
    // until that counts as damage.
    told(&fleet, &["policy", "recorder-1", "--full-is-damage", "on"]).await?;
    let failover = fleet.phase("recorder-1", Phase::Serving).await?;
    assert_eq!(failover.reason.kind, ReasonKind::Storage);
    let summary = &failover.reason.summary;
    assert!(
        summary.contains("full although retention should have made room"),
        "{summary}"
    );
    let seen = failover.reason.evidence.iter();
    let seen = seen.filter(|line| line.seen.contains("has been full for more than 2 s"));
    assert!(seen.count() > 0, "c7: {:?}", failover.reason.evidence);

    // When there is room again, it is handed back to by itself.
    drop(filler);
    std::fs::remove_file(others)?;
    let ended = fleet.phase("recorder-1", Phase::Completed).await?;
    assert!(ended.reason_cleared && ended.damaged.is_empty(), "{ended:?}");
    fleet.films("recorder-1", 4).await?;
    fleet.rig.stop().await;
    drop(disk);
    Ok(())
}
