//! The archive by itself: what comes in, what goes, and what is said of it.

use std::{fs, path::Path};

use understudy_core::{camera::Retention, contract::segment::Segment, ids::ServerId, time::Timestamp};
use understudy_media::archive::{Archive, ArchiveError, Filter, Verdict};
use understudy_simulator::{Simulator, SimulatorConfig};

use crate::rig::{camera, camera_id, failover, server};

fn segment(minute: i64, recorded_by: &str, content: &[u8]) -> Segment {
    let hour = minute / 60;
    let path = format!(
        "cam-001/2026-11-23/{hour:02}-{:02}-00.000-{recorded_by}.mp4",
        minute % 60
    );
    // 2026-11-23T00:00:00Z
    let start = 1_795_392_000_000 + minute * 60_000;
    Segment {
        path,
        camera: camera_id(1),
        recorded_by: ServerId::new(recorded_by).expect("valid"),
        failover: Some(failover("f-1")),
        start: Timestamp(start),
        end: Timestamp(start + 60_000),
        bytes: content.len() as u64,
        frames: 900,
        blake3: blake3::hash(content).to_hex().to_string(),
    }
}

async fn import(archive: &Archive, segment: &Segment, content: &[u8]) -> Result<(), ArchiveError> {
    let temporary = archive.incoming().join("fetched");
    fs::write(&temporary, content).expect("writable");
    archive.import(segment, &temporary).await
}

#[test]
fn a_new_archive_is_opened_by_several_at_once() -> anyhow::Result<()> {
    // Ingest and sync of a new server begin at the same moment.
    for _ in 0..10 {
        let folder = tempfile::tempdir()?;
        let opened: Vec<_> = std::thread::scope(|scope| {
            let at_once: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| Archive::open(folder.path(), server())))
                .collect();
            at_once
                .into_iter()
                .map(|opening| opening.join().expect("no panic").map(drop))
                .collect()
        });
        for result in opened {
            result?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn g2_what_another_server_recorded_comes_in_beside_own_recordings_of_the_same_minute()
-> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let archive = Archive::open(folder.path(), server())?;
    let (own, other) = (
        segment(1, "recorder-1", b"own"),
        segment(1, "standby-a", b"other"),
    );
    import(&archive, &own, b"own").await?;
    import(&archive, &other, b"other").await?;
    import(&archive, &other, b"other").await?;
    assert_eq!(archive.segments(Filter::default()).await?, [own, other.clone()]);
    assert_eq!(archive.verify(&other).await?, Verdict::Whole);
    assert!(
        archive
            .known(&failover("f-1"))
            .await?
            .contains(&(other.path.clone(), other.blake3.clone()))
    );
    fs::write(archive.file(&other.path)?, b"OTHER")?;
    assert!(matches!(archive.verify(&other).await?, Verdict::Damaged(_)));
    fs::remove_file(archive.file(&other.path)?)?;
    assert!(matches!(archive.verify(&other).await?, Verdict::Damaged(_)));
    Ok(())
}

#[tokio::test]
async fn f3_what_can_not_be_read_at_the_moment_is_not_called_damaged() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let archive = Archive::open(folder.path(), server())?;
    let own = segment(1, "recorder-1", b"own");
    import(&archive, &own, b"own").await?;
    // A chain of links is refused whoever asks, as too many open files or a missing permission would be.
    let file = archive.file(&own.path)?;
    fs::remove_file(&file)?;
    std::os::unix::fs::symlink(&file, &file)?;
    assert!(matches!(
        archive.verify(&own).await,
        Err(ArchiveError::File { .. })
    ));
    Ok(())
}

#[tokio::test]
async fn g4_an_erasure_keeps_damaged_recordings_aside_until_the_volume_is_short() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let archive = Archive::open(folder.path(), server())?;
    let all: Vec<Segment> = (1..=3)
        .map(|minute| segment(minute, "recorder-1", b"0123456789"))
        .collect();
    for segment in &all {
        import(&archive, segment, b"0123456789").await?;
    }
    // One has other bytes, as a second look at it found; one is too short; one is whole.
    fs::write(archive.file(&all[0].path)?, b"012345678X")?;
    assert!(matches!(archive.verify(&all[0]).await?, Verdict::Damaged(_)));
    fs::write(archive.file(&all[1].path)?, b"01234")?;
    assert_eq!(archive.erase(&failover("f-1"), None).await?, Some(3));
    assert!(archive.segments(Filter::default()).await?.is_empty());
    assert!(
        all.iter()
            .all(|segment| !folder.path().join(&segment.path).exists())
    );
    let aside = |segment: &Segment| folder.path().join(".damaged/f-1").join(&segment.path);
    assert_eq!(fs::read(aside(&all[0]))?, b"012345678X");
    assert_eq!(fs::read(aside(&all[1]))?, b"01234");
    assert!(!aside(&all[2]).exists());
    archive.recover().await?;
    assert!(archive.segments(Filter::default()).await?.is_empty());

    archive.retain(Timestamp(0), Vec::new(), 0).await?;
    assert!(aside(&all[0]).exists(), "there is room");
    archive.retain(Timestamp(0), Vec::new(), u64::MAX).await?;
    assert!(!folder.path().join(".damaged").exists());
    Ok(())
}

#[tokio::test]
async fn g4_an_erasure_of_what_a_server_recorded_leaves_what_it_fetched() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let archive = Archive::open(folder.path(), server())?;
    let (own, fetched) = (
        segment(1, "recorder-1", b"own"),
        segment(2, "standby-a", b"other"),
    );
    import(&archive, &own, b"own").await?;
    import(&archive, &fetched, b"other").await?;
    assert_eq!(archive.erase(&failover("f-1"), None).await?, Some(1));
    let left = archive.segments(Filter::default()).await?;
    assert_eq!(left, std::slice::from_ref(&fetched));
    assert_eq!(archive.verify(&fetched).await?, Verdict::Whole);
    Ok(())
}

#[tokio::test]
async fn another_server_can_name_no_file_outside_the_archive() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let archive = Archive::open(folder.path().join("archive"), server())?;
    let mut bad = segment(1, "standby-a", b"x");
    bad.path = "../../outside.mp4".to_owned();
    assert!(matches!(
        import(&archive, &bad, b"x").await,
        Err(ArchiveError::Path(_))
    ));
    assert!(archive.file("/etc/passwd").is_err());
    Ok(())
}

#[tokio::test]
async fn e1_retention_takes_the_oldest_and_what_was_handed_over_counts_as_delivered() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let archive = Archive::open(folder.path(), server())?;
    let simulator = Simulator::start(SimulatorConfig::default()).await?;
    let mut filmed = camera(&simulator, 1);
    let all: Vec<Segment> = (1..=4)
        .map(|minute| segment(minute, "standby-a", b"0123456789"))
        .collect();
    for segment in &all {
        import(&archive, segment, b"0123456789").await?;
    }
    filmed.retention = Retention {
        max_age_seconds: None,
        max_bytes: Some(25),
    };
    let retained = archive.retain(all[3].end, vec![filmed], 0).await?;
    assert_eq!(retained.removed, all[..2]);
    assert!(retained.lost.is_empty());
    assert_eq!(archive.segments(Filter::default()).await?, all[2..]);
    assert_eq!(archive.bytes().await?, 20);
    assert!(!Path::new(&archive.file(&all[0].path)?).exists());
    assert_eq!(
        archive.known(&failover("f-1")).await?.len(),
        4,
        "what expired is not fetched again"
    );
    simulator.stop().await;
    Ok(())
}

#[tokio::test]
async fn g2_a_full_volume_takes_what_is_not_handed_back_last_and_names_it() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let archive = Archive::open(folder.path(), server())?;
    // Recorded here for another server's failover: it has still to be fetched.
    let held = segment(1, "recorder-1", b"held");
    import(&archive, &held, b"held").await?;
    let simulator = Simulator::start(SimulatorConfig::default()).await?;
    let mut filmed = camera(&simulator, 1);
    filmed.retention = Retention {
        max_age_seconds: Some(1),
        max_bytes: Some(0),
    };
    let retained = archive.retain(Timestamp(i64::MAX), vec![filmed], 0).await?;
    assert!(
        retained.removed.is_empty(),
        "no limit takes what is not handed back yet"
    );
    let retained = archive.retain(Timestamp(i64::MAX), Vec::new(), u64::MAX).await?;
    assert_eq!(retained.lost, std::slice::from_ref(&held));
    // Whoever is to fetch it hears of it, and that it can't be had.
    let listed = archive.manifest(&failover("f-1"), true).await?.segments;
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].path, held.path);
    let verdict = archive.verify(&listed[0]).await?;
    assert!(
        matches!(&verdict, Verdict::Damaged(why) if why.contains("disk was full")),
        "{verdict:?}"
    );
    archive.recover().await?;
    assert_eq!(archive.manifest(&failover("f-1"), true).await?.segments, listed);
    // It takes no room, so that nothing is gained by taking it again.
    assert!(archive.make_room(u64::MAX).await?.removed.is_empty());
    assert_eq!(archive.erase(&failover("f-1"), None).await?, Some(1));
    assert!(
        archive
            .manifest(&failover("f-1"), true)
            .await?
            .segments
            .is_empty()
    );
    Ok(())
}

#[tokio::test]
async fn several_processes_may_have_the_index_open() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (records, fetches) = (
        Archive::open(folder.path(), server())?,
        Archive::open(folder.path(), server())?,
    );
    let imports = (1..=20).map(|minute| {
        let archive = if minute % 2 == 0 {
            records.clone()
        } else {
            fetches.clone()
        };
        async move {
            let temporary = archive.incoming().join(format!("{minute}"));
            fs::write(&temporary, b"x").expect("writable");
            archive
                .import(&segment(minute, "standby-a", b"x"), &temporary)
                .await
        }
    });
    for result in futures::future::join_all(imports).await {
        result?;
    }
    assert_eq!(records.segments(Filter::default()).await?.len(), 20);
    Ok(())
}

#[tokio::test]
async fn a_folder_that_can_not_be_written_to_is_named() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("a-file");
    fs::write(&file, b"")?;
    let error = Archive::open(file.join("archive"), server())
        .expect_err("a file is no folder")
        .to_string();
    assert!(error.contains("a-file/archive"), "{error}");
    Ok(())
}
