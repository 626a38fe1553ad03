//! How the recording service starts: from its own disk, with nobody to tell it anything, and with what is
//! broken there.

mod common;

use common::{Rig, bundle, cameras, epoch, eventually, failover, films, no_broker, opener, quick, server};
use understudy_core::assignment::Role;
use understudy_ingest::IngestConfig;
use understudy_media::archive::{Archive, Filter, Verdict};
use understudy_runtime::{Process, Secret, ServerConfig};

#[tokio::test(flavor = "multi_thread")]
async fn e1_a_restart_films_from_disk_while_the_broker_is_absent() {
    let simulator = cameras(2).await;
    let rig = Rig::new("recorder-1");
    let settings = bundle("recorder-1", &simulator);
    rig.left_behind(&rig.assignment(3, films(&settings, None)), &settings);

    let running = rig.start(no_broker());
    eventually("segments of both cameras", || async {
        let segments = rig.segments(Filter::default()).await;
        settings
            .cameras
            .iter()
            .all(|camera| segments.iter().any(|segment| segment.camera == camera.id))
    })
    .await;
    let waits = running.process.waiting_for();
    assert_eq!(waits.keys().copied().collect::<Vec<_>>(), ["broker"], "{waits:?}");
    running.stop().await;

    // What was open at the end is closed, indexed, and whole.
    let segments = rig.segments(Filter::default()).await;
    assert!(
        segments
            .iter()
            .all(|segment| segment.frames > 0 && segment.failover.is_none())
    );
    let files: Vec<_> = segments
        .iter()
        .map(|segment| rig.data().join("archive").join(&segment.path))
        .collect();
    assert!(files.iter().all(|file| file.exists()));
    simulator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_an_assignment_idles_and_says_so() {
    let rig = Rig::new("recorder-1");
    let running = rig.start(no_broker());
    eventually("idle", || async {
        running
            .process
            .waiting_for()
            .get("assignment")
            .is_some_and(|why| why.contains("enrolled"))
    })
    .await;
    assert!(!running.process.waiting_for().contains_key("archive"));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_assignment_is_kept_aside() {
    let rig = Rig::new("recorder-1");
    std::fs::create_dir_all(rig.data()).expect("made");
    std::fs::write(rig.data().join("assignment.json"), "{\"server\": \"recor").expect("written");
    let running = rig.start(no_broker());
    eventually("idle", || async {
        running
            .process
            .waiting_for()
            .get("assignment")
            .is_some_and(|why| why.contains("enrolled"))
    })
    .await;
    assert!(rig.data().join("assignment.unusable-1").exists());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_can_t_be_used_is_a_clear_error() {
    let mut rig = Rig::new("recorder-1");
    std::fs::write(rig.data(), "a file").expect("written");
    let error = rig
        .start(no_broker())
        .task
        .await
        .expect("no panic")
        .expect_err("no folder")
        .to_string();
    assert!(error.contains("server.data"), "{error}");

    rig.config.data = rig.folder.path().join("elsewhere");
    rig.config.fleet_key_file = rig.folder.path().join("no.key");
    let error = rig
        .start(no_broker())
        .task
        .await
        .expect("no panic")
        .expect_err("no key")
        .to_string();
    assert!(error.contains("fleet_key_file"), "{error}");
}

#[tokio::test]
async fn an_impossible_setting_is_a_clear_error() {
    let rig = Rig::new("recorder-1");
    let config = IngestConfig {
        segment_seconds: 0,
        ..IngestConfig::default()
    };
    let run = understudy_ingest::run(
        config,
        rig.config.clone(),
        no_broker(),
        opener(&rig.config),
        Process::for_test("ingest"),
    );
    let error = run.await.expect_err("no length").to_string();
    assert!(error.contains("ingest.segment_seconds = 0"), "{error}");
}

#[tokio::test]
async fn d2_live_view_is_not_opened_to_other_machines_by_mistake() {
    let rig = Rig::new("recorder-1");
    let token = "0123456789abcdef0123456789abcdef";
    for (address, token, host, wrong) in [
        ("0.0.0.0:8555", None, None, "ingest.relay_listen = 0.0.0.0:8555"),
        (
            "192.0.2.1:8555",
            None,
            None,
            "ingest.relay_listen = 192.0.2.1:8555",
        ),
        (
            "[::]:8555",
            None,
            Some("recorder-1"),
            "ingest.relay_listen = [::]:8555",
        ),
        ("192.0.2.1:8555", Some("guess me"), None, "32 characters"),
        ("127.0.0.1:8555", Some("guess me"), None, "32 characters"),
        ("0.0.0.0:8555", Some(token), None, "say in relay_host"),
        ("0.0.0.0:8555", Some(token), Some("recorder-1/gate"), "relay_host"),
    ] {
        let config = IngestConfig {
            relay_listen: address.parse().expect("an address"),
            relay_token: token.map(Secret::new),
            relay_host: host.map(str::to_owned),
            ..IngestConfig::default()
        };
        let run = rig.start_with(config, no_broker()).task.await;
        let error = run.expect("no panic").expect_err("it can't be").to_string();
        assert!(error.contains(wrong), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a4_a_standby_server_starts_without_a_camera() {
    let simulator = cameras(1).await;
    let rig = Rig::new("spare-1");
    rig.left_behind(
        &rig.assignment(7, Role::Standby),
        &bundle("recorder-1", &simulator),
    );
    let running = rig.start(no_broker());
    eventually("ready but for the broker", || async {
        running.process.waiting_for().keys().copied().collect::<Vec<_>>() == ["broker"]
    })
    .await;
    assert!(
        simulator.overview().iter().all(|camera| camera.sessions == 0),
        "no camera is touched"
    );
    assert!(rig.segments(Filter::default()).await.is_empty());
    assert!(rig.persisted().contains(&epoch(7).number.to_string()));
    running.stop().await;
    simulator.stop().await;
}

/// Not a test of its own: the process that `e1_killed_at_any_moment...` kills.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run as a child process by another test"]
async fn the_service_as_a_process_of_its_own() {
    let Ok(folder) = std::env::var("UNDERSTUDY_TEST_FOLDER") else {
        return;
    };
    let folder = std::path::PathBuf::from(folder);
    let config = ServerConfig {
        id: server("spare-1"),
        data: folder.join("data"),
        fleet_key_file: folder.join("fleet.key"),
        ..ServerConfig::default()
    };
    let opener = opener(&config);
    let process = Process::for_test("ingest");
    let run = understudy_ingest::run(quick(), config, no_broker(), opener, process);
    run.await.expect("it starts");
}

fn start_child(rig: &Rig) -> tokio::process::Child {
    tokio::process::Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "the_service_as_a_process_of_its_own", "--ignored"])
        .env("UNDERSTUDY_TEST_FOLDER", rig.folder.path())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("a process")
}

#[tokio::test(flavor = "multi_thread")]
async fn e1_killed_at_any_moment_it_goes_on_filming_and_no_file_is_orphaned() {
    let simulator = cameras(2).await;
    let rig = Rig::new("spare-1");
    let settings = bundle("recorder-1", &simulator);
    rig.left_behind(&rig.assignment(3, films(&settings, Some("f-1"))), &settings);

    let mut recorded = 0;
    for round in 1..=3_u64 {
        let mut child = start_child(&rig);
        eventually("more is recorded", || async {
            rig.segments(Filter::default()).await.len() > recorded + 2
        })
        .await;
        tokio::time::sleep(std::time::Duration::from_millis(round * 170)).await;
        child.kill().await.expect("killed");
        recorded = rig.segments(Filter::default()).await.len();
    }
    let running = rig.start(no_broker());
    eventually("more is recorded", || async {
        rig.segments(Filter::default()).await.len() > recorded + 2
    })
    .await;
    running.stop().await;

    // Every file is in the index, is what the index says, and belongs to the failover.
    let segments = rig.segments(Filter::default()).await;
    assert_eq!(segments.len(), files_below(&rig.data().join("archive")));
    let archive = Archive::open(rig.data().join("archive"), server("spare-1")).expect("an archive");
    for segment in &segments {
        assert_eq!(
            archive.verify(segment).await.expect("readable"),
            Verdict::Whole,
            "{segment:?}"
        );
        assert_eq!(segment.failover, Some(failover("f-1")), "{segment:?}");
    }
    simulator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_process_that_runs_gstreamer_never_holds_the_fleet_s_key() {
    let simulator = cameras(1).await;
    let rig = Rig::new("spare-1");
    let settings = bundle("recorder-1", &simulator);
    rig.left_behind(&rig.assignment(3, films(&settings, Some("f-1"))), &settings);
    let mut child = start_child(&rig);
    eventually("it films what it could not have opened itself", || async {
        !rig.segments(Filter::default()).await.is_empty()
    })
    .await;

    let text = std::fs::read_to_string(&rig.config.fleet_key_file).expect("the key's file");
    let key =
        base64::Engine::decode(&base64::engine::general_purpose::STANDARD, text.trim()).expect("base64");
    assert!(
        in_memory(std::process::id(), &key),
        "the search finds it where it is: here"
    );
    let child_id = child.id().expect("it runs");
    assert!(!in_memory(child_id, &key), "the recording service holds the key");
    assert!(
        !in_memory(child_id, text.trim().as_bytes()),
        "the recording service holds the key's text"
    );
    child.kill().await.expect("killed");
    simulator.stop().await;
}

/// Whether `wanted` is anywhere in a process's memory that can be written to.
fn in_memory(process: u32, wanted: &[u8]) -> bool {
    use std::os::unix::fs::FileExt as _;
    let maps = std::fs::read_to_string(format!("/proc/{process}/maps")).expect("its maps");
    let memory = std::fs::File::open(format!("/proc/{process}/mem")).expect("its memory");
    let number = |text: &str| u64::from_str_radix(text, 16).expect("an address");
    let writable = maps.lines().filter_map(|line| {
        let (range, rest) = line.split_once(' ')?;
        let (from, to) = range.split_once('-')?;
        rest.starts_with("rw").then(|| (number(from), number(to)))
    });
    writable.into_iter().any(|(from, to)| {
        let mut bytes = vec![0; usize::try_from(to - from).expect("a length")];
        // A region may go away while it is looked for.
        let read = memory.read_at(&mut bytes, from).unwrap_or(0);
        memmem(&bytes[..read], wanted)
    })
}

fn memmem(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes
        .iter()
        .enumerate()
        .any(|(at, byte)| *byte == wanted[0] && bytes[at..].starts_with(wanted))
}

fn files_below(folder: &std::path::Path) -> usize {
    let entries = std::fs::read_dir(folder).expect("a folder");
    let counts = entries.map(|entry| {
        let path = entry.expect("an entry").path();
        match path.is_dir() {
            true => files_below(&path),
            false => usize::from(path.extension().is_some_and(|extension| extension == "mp4")),
        }
    });
    counts.sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn e1_what_is_older_than_its_limit_goes_while_filming_goes_on() {
    let simulator = cameras(1).await;
    let rig = Rig::new("recorder-1");
    let mut settings = bundle("recorder-1", &simulator);
    settings.cameras[0].retention.max_age_seconds = Some(3);
    rig.left_behind(&rig.assignment(1, films(&settings, None)), &settings);
    let running = rig.start(no_broker());
    eventually("a segment", || async {
        !rig.segments(Filter::default()).await.is_empty()
    })
    .await;
    let first = rig.segments(Filter::default()).await.remove(0);
    eventually("the first is gone", || async {
        !rig.segments(Filter::default()).await.contains(&first)
    })
    .await;
    assert!(!rig.data().join("archive").join(&first.path).exists());
    eventually("another segment", || async {
        !rig.segments(Filter::default()).await.is_empty()
    })
    .await;
    running.stop().await;
    simulator.stop().await;
}
