//! Real faults of real volumes, and the agent that watches them (row C3): loop devices, a FUSE filesystem whose
//! daemon is stopped, Btrfs without one of its devices.
//!
//! They need root and what Debian's `bindfs` and `btrfs-progs` bring. Without these a test says so and is left out.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{sync::mpsc, time::Instant};
use understudy_bus::BrokerConfig;
use understudy_core::{
    contract::heartbeat::{Heartbeat, Storage, StorageState},
    ids::{DomainId, ServerId},
};
use understudy_health::agent::{self, AgentConfig};
use understudy_runtime::{FleetConfig, Process, ServerConfig, testing::left_out};
use warp::Filter;

const PATIENCE: Duration = Duration::from_secs(60);

/// Runs a program; why not, if it can't.
fn run(program: &str, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(program)
        .args(arguments)
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .output()
        .map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    Err(format!(
        "{program} {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    ))
}

/// A server's data folder, and whatever was set up for its archive; all of it is taken down again.
struct Site {
    folder: tempfile::TempDir,
    loops: Vec<String>,
    mounts: Vec<PathBuf>,
    daemon: Option<Child>,
}

impl Site {
    fn new() -> Self {
        let site = Self {
            folder: tempfile::tempdir().expect("a folder"),
            loops: Vec::new(),
            mounts: Vec::new(),
            daemon: None,
        };
        std::fs::create_dir_all(site.archive()).expect("made");
        site
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn archive(&self) -> PathBuf {
        self.data().join("archive")
    }

    /// A loop device over a sparse file of that size at `path`.
    fn loop_over(&mut self, path: &Path, size: u64) -> Result<String, String> {
        let file = std::fs::File::create(path).map_err(|error| error.to_string())?;
        file.set_len(size).map_err(|error| error.to_string())?;
        let device = run("losetup", &["--find", "--show", text(path)])?;
        self.loops.push(device.clone());
        Ok(device)
    }

    fn mount(&mut self, arguments: &[&str], point: PathBuf) -> Result<(), String> {
        let mut all = arguments.to_vec();
        all.push(text(&point));
        run("mount", &all)?;
        self.mounts.push(point.clone());
        Ok(())
    }

    /// The archive on an ext4 of its own; gives back its device.
    fn on_ext4(&mut self) -> Result<String, String> {
        self.on_ext4_with(&[])
    }

    fn on_ext4_with(&mut self, features: &[&str]) -> Result<String, String> {
        let image = self.folder.path().join("disk.img");
        let device = self.loop_over(&image, 64 << 20)?;
        let mut arguments = vec!["-q", "-F"];
        arguments.extend(features);
        arguments.push(&device);
        run("mkfs.ext4", &arguments)?;
        self.mount(&[&device], self.archive())?;
        Ok(device)
    }

    /// The archive behind a FUSE filesystem; gives back the process that answers for it.
    async fn on_fuse(&mut self) -> Result<Pid, String> {
        let behind = self.folder.path().join("behind");
        std::fs::create_dir(&behind).expect("made");
        let mut daemon = Command::new("bindfs");
        let daemon = daemon.arg("-f").args([&behind, &self.archive()]).spawn();
        let daemon = daemon.map_err(|error| format!("bindfs, which makes a FUSE filesystem: {error}"))?;
        let pid = Pid::from_raw(daemon.id().cast_signed());
        let daemon = self.daemon.insert(daemon);
        let give_up = Instant::now() + PATIENCE;
        let point = self.folder.path().join("data/archive");
        while run("mountpoint", &["-q", text(&point)]).is_err() {
            if let Some(status) = daemon.try_wait().ok().flatten() {
                return Err(format!(
                    "no FUSE filesystem can be mounted: bindfs ended with {status}"
                ));
            }
            assert!(Instant::now() < give_up, "never mounted");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.mounts.push(point);
        Ok(pid)
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if let Some(daemon) = &mut self.daemon {
            let _ = kill(Pid::from_raw(daemon.id().cast_signed()), Signal::SIGCONT);
        }
        for point in self.mounts.iter().rev() {
            let _ = run("umount", &[text(point)]).or_else(|_| run("umount", &["--lazy", text(point)]));
        }
        for device in &self.loops {
            let _ = run("losetup", &["--detach", device]);
        }
        if let Some(daemon) = &mut self.daemon {
            let _ = daemon.wait();
        }
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

/// An agent, and its beats as the monitor would get them on the direct path; there is no broker.
struct Watched {
    process: Process,
    beats: mpsc::Receiver<Heartbeat>,
}

impl Watched {
    async fn start(data: PathBuf) -> Self {
        let (sender, beats) = mpsc::channel(1_000);
        #[expect(clippy::disallowed_methods, reason = "no longer than a beat may be")]
        let beat = warp::body::content_length_limit(64 << 10).and(warp::body::json());
        let route = warp::path!("v1" / "heartbeats")
            .and(beat)
            .map(move |beat: Heartbeat| {
                let _ = sender.try_send(beat);
                "ok"
            });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let monitor_url = format!("http://{}", listener.local_addr().expect("bound"));
        tokio::spawn(warp::serve(route).incoming(listener).run());
        let config = AgentConfig {
            interval_ms: 100,
            monitor_url,
            ingest_url: String::new(),
            volume_interval_ms: 50,
            volume_deadline_ms: 1_000,
            volume_full_ms: 1_000,
            devices_interval_ms: 200,
            ..AgentConfig::default()
        };
        let server = ServerConfig {
            id: ServerId::new("recorder-1").expect("an id"),
            domain: DomainId::new("east").expect("an id"),
            data,
            ..ServerConfig::default()
        };
        let process = Process::for_test("agent");
        let running = process.clone();
        tokio::spawn(async move {
            agent::run(
                config,
                FleetConfig::default(),
                server,
                BrokerConfig::default(),
                running,
            )
            .await
            .expect("the agent starts");
        });
        Self { process, beats }
    }

    /// Waits for a beat that says so, and gives back its evidence.
    async fn until(&mut self, state: StorageState) -> String {
        let what = format!("{state:?}");
        let beat = self.beat(&what, |beat| beat.storage.state == state).await;
        beat.storage.evidence
    }

    /// Waits for a beat that is as wanted.
    async fn beat(&mut self, what: &str, wanted: impl Fn(&Heartbeat) -> bool) -> Heartbeat {
        let give_up = Instant::now() + PATIENCE;
        let mut last = None;
        while let Ok(Some(beat)) = tokio::time::timeout_at(give_up, self.beats.recv()).await {
            if wanted(&beat) {
                return beat;
            }
            last = Some(beat.storage);
        }
        panic!("never {what}; the last was {last:?}");
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.process.shutdown().cancel();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn c3_a_volume_that_is_remounted_read_only_is_damaged_until_it_is_writable() {
    let mut site = Site::new();
    if let Err(why) = site.on_ext4() {
        return left_out(why);
    }
    let mut agent = Watched::start(site.data()).await;
    agent.until(StorageState::Normal).await;

    let archive = site.archive();
    remount_read_only(&archive).await;
    let evidence = agent.until(StorageState::Damaged).await;
    // By its look at the volume, or by its write, whichever came first behind the remount.
    assert!(evidence.to_lowercase().contains("read-only"), "{evidence}");

    run("mount", &["-o", "remount,rw", text(&archive)]).expect("remounted");
    agent.until(StorageState::Normal).await;
}

/// The kernel refuses while a probe has its file open.
async fn remount_read_only(archive: &Path) {
    let give_up = Instant::now() + PATIENCE;
    while let Err(why) = run("mount", &["-o", "remount,ro", text(archive)]) {
        assert!(Instant::now() < give_up, "{why}");
        tokio::time::sleep(Duration::from_millis(7)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn c3_a_volume_that_the_kernel_makes_read_only_for_an_error_of_its_own_is_damaged() {
    let mut site = Site::new();
    let device = match site.on_ext4() {
        Ok(device) => device,
        Err(why) => return left_out(why),
    };
    run(
        "mount",
        &["-o", "remount,errors=remount-ro", text(&site.archive())],
    )
    .expect("remounted");
    let name = Path::new(&device).file_name().expect("a name").to_string_lossy();
    let fault = PathBuf::from(format!("/sys/fs/ext4/{name}/trigger_fs_error"));
    if !fault.exists() {
        return left_out("this kernel's ext4 can't be made to find an error");
    }
    let mut agent = Watched::start(site.data()).await;
    agent.until(StorageState::Normal).await;
    std::fs::write(fault, "an inode is not what it should be").expect("found");
    let evidence = agent.until(StorageState::Damaged).await;
    assert!(evidence.to_lowercase().contains("read-only"), "{evidence}");
}

/// Most of a mounted disk is gone: the kernel answers EIO for what lies beyond its end.
fn cut_off(site: &Site, device: &str) {
    let image = std::fs::File::options()
        .write(true)
        .open(site.folder.path().join("disk.img"))
        .expect("there");
    image.set_len(2 << 20).expect("cut");
    run("losetup", &["--set-capacity", device]).expect("told");
}

#[tokio::test(flavor = "multi_thread")]
async fn c3_a_volume_that_answers_with_io_errors_is_damaged() {
    // Without a journal, nobody makes the volume read-only before the agent has seen the error itself.
    let mut site = Site::new();
    let device = match site.on_ext4_with(&["-O", "^has_journal"]) {
        Ok(device) => device,
        Err(why) => return left_out(why),
    };
    let mut agent = Watched::start(site.data()).await;
    agent.until(StorageState::Normal).await;
    cut_off(&site, &device);
    let evidence = agent.until(StorageState::Damaged).await;
    assert!(evidence.contains("Input/output error"), "{evidence}");
}

#[tokio::test(flavor = "multi_thread")]
async fn c3_a_volume_whose_journal_gets_io_errors_is_damaged() {
    let mut site = Site::new();
    let device = match site.on_ext4() {
        Ok(device) => device,
        Err(why) => return left_out(why),
    };
    let mut agent = Watched::start(site.data()).await;
    agent.until(StorageState::Normal).await;
    cut_off(&site, &device);
    let evidence = agent.until(StorageState::Damaged).await;
    assert!(
        evidence.contains("Input/output error") || evidence.to_lowercase().contains("read-only"),
        "{evidence}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn c3_a_mount_whose_other_side_dies_is_damaged() {
    let mut site = Site::new();
    let pid = match site.on_fuse().await {
        Ok(pid) => pid,
        Err(why) => return left_out(why),
    };
    let mut agent = Watched::start(site.data()).await;
    agent.until(StorageState::Normal).await;
    kill(pid, Signal::SIGKILL).expect("killed");
    let evidence = agent.until(StorageState::Damaged).await;
    assert!(evidence.contains("not connected"), "{evidence}");
}

#[tokio::test(flavor = "multi_thread")]
async fn c3_a_volume_that_stays_full_says_so_and_is_no_damage() {
    let mut site = Site::new();
    let archive = site.archive();
    if let Err(why) = site.mount(&["-t", "tmpfs", "-o", "size=16m", "tmpfs"], archive.clone()) {
        return left_out(why);
    }
    let mut agent = Watched::start(site.data()).await;
    agent.until(StorageState::Normal).await;
    let filler = archive.join("somebody-elses");
    assert!(
        std::fs::write(&filler, vec![1; 32 << 20]).is_err(),
        "the volume is smaller"
    );
    let full = agent.beat("full", |beat| beat.storage.full).await;
    assert_eq!(full.storage.state, StorageState::Normal);
    assert!(
        full.storage.evidence.contains("has been full for more than 1 s"),
        "{full:?}"
    );
    std::fs::remove_file(filler).expect("removed");
    let roomy = agent.beat("roomy", |beat| !beat.storage.full).await;
    assert_eq!(roomy.storage, Storage::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn c3_a_volume_on_a_pool_that_has_run_out_is_damaged_though_it_shows_free_space() {
    let mut site = Site::new();
    let pool = site.folder.path().join("pool");
    std::fs::create_dir(&pool).expect("made");
    let on_a_small_pool = site
        .mount(&["-t", "tmpfs", "-o", "size=32m", "tmpfs"], pool.clone())
        .and_then(|()| {
            let device = site.loop_over(&pool.join("disk.img"), 256 << 20)?;
            run("mkfs.ext4", &["-q", "-F", &device])?;
            site.mount(&[&device], site.archive())
        });
    if let Err(why) = on_a_small_pool {
        return left_out(why);
    }
    let mut agent = Watched::start(site.data()).await;
    agent.until(StorageState::Normal).await;

    let filled = std::fs::write(pool.join("somebody-elses"), vec![1; 64 << 20]);
    assert!(filled.is_err(), "the pool is smaller");
    let evidence = agent.until(StorageState::Damaged).await;
    assert!(
        evidence.contains("what the volume lies on is full") || evidence.contains("Input/output error"),
        "{evidence}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn c3_a_mount_that_hangs_is_damaged_and_hangs_nobody() {
    let mut site = Site::new();
    let pid = match site.on_fuse().await {
        Ok(pid) => pid,
        Err(why) => return left_out(why),
    };
    let mut agent = Watched::start(site.data()).await;
    agent.until(StorageState::Normal).await;

    // When nobody answers the kernel any more.
    kill(pid, Signal::SIGSTOP).expect("stopped");
    let evidence = agent.until(StorageState::Damaged).await;
    assert!(evidence.contains("hangs"), "{evidence}");
    // Then beat follows beat all the same.
    let mut sequence = 0;
    for _ in 0..20 {
        let beat = tokio::time::timeout(PATIENCE, agent.beats.recv()).await;
        let beat = beat.expect("a beat").expect("the agent lives");
        assert!(beat.sequence > sequence, "{beat:?}");
        assert_eq!(beat.storage.state, StorageState::Damaged, "{beat:?}");
        sequence = beat.sequence;
    }

    kill(pid, Signal::SIGCONT).expect("goes on");
    agent.until(StorageState::Normal).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c3_a_mirror_without_one_of_its_disks_is_degraded() {
    let mut site = Site::new();
    let folder = site.folder.path().to_owned();
    let degraded = site
        .loop_over(&folder.join("one.img"), 200 << 20)
        .and_then(|one| {
            let two = site.loop_over(&folder.join("two.img"), 200 << 20)?;
            run("mkfs.btrfs", &["-q", "-d", "raid1", "-m", "raid1", &one, &two])?;
            run("losetup", &["--detach", &two])?;
            site.loops.pop();
            // The kernel remembers the second one for as long as nobody tells it to forget.
            run("btrfs", &["device", "scan", "--forget"])?;
            site.mount(&["-o", "degraded", &one], site.archive())
        });
    if let Err(why) = degraded {
        return left_out(why);
    }
    let mut agent = Watched::start(site.data()).await;
    let evidence = agent.until(StorageState::Degraded).await;
    assert_eq!(evidence, "the Btrfs filesystem misses device 2");
}
