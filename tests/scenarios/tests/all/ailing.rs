//! Recording servers that are heard and don't record: a volume that the kernel has made read-only, a recording
//! service that hangs.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use nix::sys::signal::Signal;
use understudy_core::{
    contract::api::{Phase, ReasonKind},
    policy::Policy,
};
use understudy_demo::rig::Plan;
use understudy_scenarios::{Fleet, folder, plan};

/// A volume of its own: ext4 on a loop device.
struct Disk {
    device: String,
    point: PathBuf,
}

impl Disk {
    /// Mounts one at `point`; why not, where that needs rights or a kernel that the test does not have.
    fn mounted_at(point: &Path, image: &Path) -> Result<Self, String> {
        fs::create_dir_all(point).map_err(|error| error.to_string())?;
        let file = fs::File::create(image).map_err(|error| error.to_string())?;
        file.set_len(256 << 20).map_err(|error| error.to_string())?;
        let device = run(Command::new("losetup").args(["--find", "--show"]).arg(image))?;
        let disk = Self {
            device,
            point: point.to_owned(),
        };
        run(Command::new("mkfs.ext4").args(["-q", "-F", &disk.device]))?;
        let mut mount = Command::new("mount");
        mount.args(["-o", "errors=remount-ro", &disk.device]).arg(point);
        run(&mut mount)?;
        Ok(disk)
    }

    /// The kernel finds that something on it is not as it should be, and makes it read-only.
    fn breaks(&self) -> Result<(), String> {
        let name = self.device.trim_start_matches("/dev/");
        fs::write(format!("/sys/fs/ext4/{name}/trigger_fs_error"), "broken")
            .map_err(|error| error.to_string())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = run(Command::new("umount").arg("--lazy").arg(&self.point));
        let _ = run(Command::new("losetup").args(["--detach", &self.device]));
    }
}

fn run(command: &mut Command) -> Result<String, String> {
    let output = command
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .output()
        .map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    Err(format!(
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    ))
}

#[tokio::test]
async fn c3_a_server_whose_volume_became_read_only_is_failed_over_with_the_evidence() -> anyhow::Result<()> {
    let folder = folder()?;
    let archive = folder.path().join("recorder-1/data/archive");
    let disk = match Disk::mounted_at(&archive, &folder.path().join("disk.img")) {
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

#[tokio::test]
async fn c4_a_server_whose_recording_service_hangs_is_failed_over_with_the_evidence() -> anyhow::Result<()> {
    let policy = Policy {
        on_package: true,
        ..plan().policy
    };
    let mut fleet = Fleet::filming(Plan { policy, ..plan() }).await?;

    fleet.rig.server("recorder-1").ingest.signal(Signal::SIGSTOP);

    let failover = fleet.phase("recorder-1", Phase::Serving).await?;
    assert_eq!(failover.reason.kind, ReasonKind::Package);
    let summary = &failover.reason.summary;
    assert!(
        summary.contains("not answering") && summary.contains("has not answered within"),
        "{summary}"
    );
    assert!(!failover.reason.evidence.is_empty(), "c7");
    fleet.films("failover-1", 4).await?;
    fleet.rig.server("recorder-1").ingest.signal(Signal::SIGCONT);
    fleet.rig.stop().await;
    Ok(())
}
