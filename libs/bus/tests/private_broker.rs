//! The private broker cleans up after itself, however whoever started it ends.

#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use std::{
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use tokio::time::Instant;
use understudy_bus::testing::Broker;

const FOLDER: &str = "BROKER_TEST_FOLDER";
const PATIENCE: Duration = Duration::from_secs(60);

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Whether any process has the folder among its arguments or in its environment.
fn somebody_lives_in(folder: &Path) -> bool {
    let folder = folder.to_str().unwrap();
    let has = |process: &Path, file: &str| {
        let text = std::fs::read(process.join(file)).unwrap_or_default();
        String::from_utf8_lossy(&text).contains(folder)
    };
    std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        let process = entry.path();
        let id = entry.file_name().to_string_lossy().parse::<u32>();
        id.is_ok_and(|id| id != std::process::id()) && (has(&process, "cmdline") || has(&process, "environ"))
    })
}

#[tokio::test]
#[ignore = "not a test: the process that the next one kills"]
async fn holds_a_broker() {
    let Ok(folder) = std::env::var(FOLDER) else { return };
    let _broker = Broker::start_in(Path::new(&folder)).await.unwrap();
    std::fs::write(Path::new(&folder).join("started"), "").unwrap();
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn a_broker_does_not_outlive_a_process_that_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let mut holder = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "holds_a_broker", "--ignored"])
        .env(FOLDER, folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    until("the broker starts", || folder.path().join("started").exists()).await;
    assert!(somebody_lives_in(folder.path()));
    holder.kill().unwrap();
    holder.wait().unwrap();
    until("broker, epmd and their children are gone", || {
        !somebody_lives_in(folder.path())
    })
    .await;
}

#[tokio::test]
async fn a_broker_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let mut broker = Broker::start_in(folder.path()).await.unwrap();
    broker.stop().await;
    until("an orderly end leaves nothing", || {
        !somebody_lives_in(folder.path())
    })
    .await;
    broker.restart().await.unwrap();
    drop(broker);
    until("a dropped one leaves nothing", || {
        !somebody_lives_in(folder.path())
    })
    .await;
}
