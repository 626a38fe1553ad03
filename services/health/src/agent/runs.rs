//! One run of the agent after another: how the last one ended, and how this one does.
//!
//! A file in the server's data folder holds the boot that this run belongs to and whether it has ended in good
//! order: written at the start, and again at a clean end. So the next run knows whether the one before was stopped,
//! killed, or cut off with its system. What can't be read or written says nothing, and holds nothing up.

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use understudy_core::contract::heartbeat::{Ending, Farewell, Started};

/// The file's name below the data folder.
const FILE: &str = "agent-run.json";
/// Where the kernel says which boot this is (Linux, `Documentation/admin-guide/sysctl/kernel.rst`, `random`).
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// After so long without an answer nothing is known of the system's jobs.
const JOBS_DEADLINE: Duration = Duration::from_millis(500);
/// For how long a volume that hangs is waited for.
const VOLUME_DEADLINE: Duration = Duration::from_secs(2);

/// What the file holds.
#[derive(Debug, Serialize, Deserialize)]
struct Run {
    boot: String,
    clean: bool,
}

/// This run.
#[derive(Clone, Debug)]
pub(crate) struct ThisRun {
    folder: PathBuf,
    /// What is said of its start.
    pub(crate) started: Option<Started>,
}

impl ThisRun {
    /// Reads how the last run ended, and notes that this one has begun.
    pub(crate) async fn begin(folder: &Path) -> Self {
        let folder = folder.to_owned();
        let boot = fs::read_to_string(BOOT_ID).map(|boot| boot.trim().to_owned());
        let Ok(boot) = boot else {
            return Self {
                folder,
                started: None,
            };
        };
        let (place, id) = (folder.clone(), boot.clone());
        let looked = tokio::task::spawn_blocking(move || begin(&place, &id));
        let before = match tokio::time::timeout(VOLUME_DEADLINE, looked).await {
            Ok(Ok(before)) => before,
            Ok(Err(_)) | Err(_) => None,
        };
        Self {
            folder,
            started: Some(Started { boot, before }),
        }
    }

    /// Notes that it ends in good order.
    pub(crate) async fn end(self) {
        let Some(Started { boot, .. }) = self.started else {
            return;
        };
        let folder = self.folder;
        let written = tokio::task::spawn_blocking(move || write(&folder, &Run { boot, clean: true }));
        if let Ok(Ok(Err(error))) = tokio::time::timeout(VOLUME_DEADLINE, written).await {
            tracing::warn!(%error, "that this run ends in good order could not be noted");
        }
    }
}

fn begin(folder: &Path, boot: &str) -> Option<Ending> {
    let before = fs::read(folder.join(FILE))
        .ok()
        .and_then(|bytes| serde_json::from_slice::<Run>(&bytes).ok());
    let this = Run {
        boot: boot.to_owned(),
        clean: false,
    };
    if let Err(error) = write(folder, &this) {
        tracing::warn!(%error, "that this run has begun could not be noted");
    }
    before.map(|before| match (before.clean, before.boot == boot) {
        (true, _) => Ending::Clean,
        (false, true) => Ending::Killed,
        (false, false) => Ending::CutOff,
    })
}

/// Whole or not at all, and on the disk: a power cut may follow at once.
fn write(folder: &Path, run: &Run) -> std::io::Result<()> {
    fs::create_dir_all(folder)?;
    let (path, temporary) = (folder.join(FILE), folder.join(format!("{FILE}.new")));
    let mut file = File::create(&temporary)?;
    file.write_all(&serde_json::to_vec(run)?)?;
    file.sync_all()?;
    fs::rename(&temporary, &path)?;
    File::open(folder)?.sync_all()
}

/// Why this process is asked to end: systemd has queued its shutdown target when the system goes down, whoever asked
/// for that. Elsewhere nothing tells the two apart, and the agent says only that it is stopped.
pub(crate) async fn why_it_ends() -> Farewell {
    let mut jobs = tokio::process::Command::new("systemctl");
    jobs.args(["list-jobs", "--no-legend", "--no-pager"])
        .kill_on_drop(true);
    match tokio::time::timeout(JOBS_DEADLINE, jobs.output()).await {
        Ok(Ok(output)) => farewell_of(&String::from_utf8_lossy(&output.stdout)),
        Ok(Err(_)) | Err(_) => Farewell::Stopped,
    }
}

/// What follows from systemd's list of jobs: number, unit, `start` or `stop`, state (systemctl(1), `list-jobs`).
fn farewell_of(jobs: &str) -> Farewell {
    let starts = |unit: &str| {
        jobs.lines().any(|line| {
            let mut words = line.split_whitespace().skip(1);
            words.next() == Some(unit) && words.next() == Some("start")
        })
    };
    if starts("reboot.target") || starts("kexec.target") || starts("soft-reboot.target") {
        Farewell::Rebooting
    } else if starts("shutdown.target") || starts("poweroff.target") || starts("halt.target") {
        Farewell::PoweringOff
    } else {
        Farewell::Stopped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c7_each_run_knows_how_the_one_before_ended() {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = folder.path().join("data");
        assert_eq!(begin(&folder, "boot-1"), None, "there was none");
        assert_eq!(begin(&folder, "boot-1"), Some(Ending::Killed));
        assert_eq!(begin(&folder, "boot-2"), Some(Ending::CutOff));
        let clean = Run {
            boot: "boot-2".to_owned(),
            clean: true,
        };
        write(&folder, &clean).expect("it is written");
        assert_eq!(begin(&folder, "boot-3"), Some(Ending::Clean), "a clean reboot");
        fs::write(folder.join(FILE), "{").expect("it is written");
        assert_eq!(begin(&folder, "boot-3"), None, "what can't be read says nothing");
    }

    #[test]
    fn c7_the_list_of_jobs_tells_a_reboot_from_a_stopped_service() {
        let jobs = |unit: &str| {
            format!(
                "1432 understudy-agent.service stop  running\n1350 {unit} start waiting\n1401 user.slice stop waiting\n"
            )
        };
        assert_eq!(farewell_of(&jobs("reboot.target")), Farewell::Rebooting);
        assert_eq!(farewell_of(&jobs("poweroff.target")), Farewell::PoweringOff);
        assert_eq!(farewell_of(&jobs("other.service")), Farewell::Stopped);
        assert_eq!(
            farewell_of("7 reboot.target stop waiting\n"),
            Farewell::Stopped,
            "it was called off"
        );
        assert_eq!(farewell_of("No jobs running.\n"), Farewell::Stopped);
    }
}
