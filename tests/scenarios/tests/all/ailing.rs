//! Recording servers that are heard and don't record: a volume that the kernel has made read-only. A recording service
//! that hangs is in `acting.rs`.

use understudy_core::{
    contract::api::{Phase, ReasonKind},
    policy::Policy,
};
use understudy_demo::{rig::Plan, volume::Volume};
use understudy_scenarios::{Fleet, folder, plan};

#[tokio::test]
async fn c3_a_server_whose_volume_became_read_only_is_failed_over_with_the_evidence() -> anyhow::Result<()> {
    let folder = folder()?;
    let archive = folder.path().join("recorder-1/data/archive");
    let disk = match Volume::mounted_at(&archive, &folder.path().join("disk.img"), 256 << 20) {
        Ok(disk) => disk,
        Err(why) => {
            eprintln!("LEFT OUT, nothing was tested: {why}");
            return Ok(());
        }
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
