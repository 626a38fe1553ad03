//! What lies beneath the recording volume: RAID arrays, pools and disks (row C3).
//!
//! Only those that carry it count. The kernel's own lists are read with each probe, programs are asked rarely,
//! each with a deadline; the parsers are pure. Whether the volume takes recordings the probe write and the recorder
//! tell: what is found here is that it has lost its redundancy, or why it takes none.

mod btrfs;
mod devices;
mod mdstat;
mod program;
mod smart;
mod zfs;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{sync::watch, time::MissedTickBehavior};
use understudy_core::contract::heartbeat::{Storage, StorageState};
use understudy_runtime::Process;

use self::{
    devices::{Devices, Mount, mount_of},
    program::{Answer, Programs},
};

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) state: StorageState,
    pub(crate) evidence: String,
}

/// More evidence than this goes into no heartbeat.
const MOST_EVIDENCE: usize = 600;

/// What the probe said of a volume and what was found beneath it, as one: the worst state, and the evidence
/// for all of it, the worst first.
pub(crate) fn summary<'a>(probed: Storage, found: impl Iterator<Item = &'a Finding>) -> Storage {
    let mut all: Vec<(StorageState, &str)> = found.map(|f| (f.state, f.evidence.as_str())).collect();
    if all.is_empty() {
        return probed;
    }
    if probed.state != StorageState::Normal || probed.full {
        all.insert(0, (probed.state, &probed.evidence));
    }
    all.sort_by_key(|(state, _)| match state {
        StorageState::Damaged => 0,
        StorageState::Degraded => 1,
        StorageState::Normal => 2,
    });
    let state = all.first().map_or(probed.state, |(state, _)| *state);
    let words: Vec<&str> = all.iter().map(|(_, words)| *words).collect();
    let mut evidence = words.join("; ");
    if evidence.len() > MOST_EVIDENCE {
        evidence.truncate(evidence.floor_char_boundary(MOST_EVIDENCE));
        evidence.push('…');
    }
    Storage {
        state,
        evidence,
        full: probed.full,
    }
}

/// Where the recording folder is, without links, as soon as somebody has seen it.
pub(crate) type Folder = watch::Receiver<Option<PathBuf>>;

/// Reads the kernel's list of arrays once every `interval`, for as long as the process runs.
pub(crate) async fn watch_arrays(
    folder: Folder,
    interval: Duration,
    findings: watch::Sender<Vec<Finding>>,
    process: Process,
) {
    let mut ticks = ticks(interval);
    let shutdown = process.shutdown();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let Some(folder) = folder.borrow().clone() else {
            continue;
        };
        let look = tokio::task::spawn_blocking(move || arrays(&folder));
        let found = tokio::select! {
            () = shutdown.cancelled() => return,
            found = look => found.unwrap_or_default(),
        };
        note(&findings, found);
    }
}

/// Asks the programs once every `interval`, for as long as the process runs.
pub(crate) async fn watch_programs(
    mut folder: Folder,
    interval: Duration,
    deadline: Duration,
    findings: watch::Sender<Vec<Finding>>,
    process: Process,
) {
    let shutdown = process.shutdown();
    let mut round = Round {
        programs: Programs::installed(deadline),
        errors: btrfs::Errors::default(),
        all_answered: true,
    };
    tokio::select! {
        () = shutdown.cancelled() => return,
        seen = folder.wait_for(Option::is_some) => if seen.is_err() { return },
    }
    let mut ticks = ticks(interval);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let Some(folder) = folder.borrow().clone() else {
            continue;
        };
        let mut found = tokio::select! {
            () = shutdown.cancelled() => return,
            found = round.look(&folder) => found,
        };
        if !round.all_answered {
            // Silence takes nothing back.
            let known = findings.borrow().clone();
            found.extend(
                known
                    .into_iter()
                    .filter(|finding| !found.contains(finding))
                    .collect::<Vec<_>>(),
            );
        }
        note(&findings, found);
    }
}

fn ticks(interval: Duration) -> tokio::time::Interval {
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// Says what is new, once.
pub(crate) fn note(findings: &watch::Sender<Vec<Finding>>, found: Vec<Finding>) {
    findings.send_if_modified(|old| {
        for finding in found.iter().filter(|finding| !old.contains(finding)) {
            tracing::warn!(
                storage.state = ?finding.state, storage.evidence = finding.evidence,
                "something is wrong with the recording volume or beneath it"
            );
        }
        if found.is_empty() && !old.is_empty() {
            tracing::info!("what was wrong with the recording volume or beneath it is over");
        }
        let changed = *old != found;
        *old = found;
        changed
    });
}

fn mount(folder: &Path) -> Option<Mount> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    mount_of(&mounts, folder)
}

fn arrays(folder: &Path) -> Vec<Finding> {
    let Ok(mdstat) = fs::read_to_string("/proc/mdstat") else {
        return Vec::new();
    };
    let Some(mount) = mount(folder) else {
        return Vec::new();
    };
    let mut devices = Devices::default();
    let sys = Path::new("/sys");
    devices.add_number(sys, &mount.number);
    // A filesystem of several devices has no number of its own, and names one of them.
    devices.add_path(sys, &mount.source);
    let findings = devices.arrays.iter();
    findings
        .filter_map(|array| mdstat::finding(&mdstat, array))
        .collect()
}

/// One round of questions after the other, and what they remember.
struct Round {
    programs: Programs,
    errors: btrfs::Errors,
    /// In the last round.
    all_answered: bool,
}

impl Round {
    async fn look(&mut self, folder: &Path) -> Vec<Finding> {
        self.all_answered = true;
        let Some(mount) = mount(folder) else {
            return Vec::new();
        };
        let mut findings = Vec::new();
        let sys = Path::new("/sys");
        let mut devices = Devices::default();
        devices.add_number(sys, &mount.number);
        match mount.kind.as_str() {
            "zfs" => {
                let pool = mount.source.split('/').next().unwrap_or_default();
                if let Some(status) = self.ask("zpool", &["status", "-P", pool]).await {
                    findings.extend(zfs::finding(&status));
                    for path in zfs::devices(&status) {
                        devices.add_path(sys, &path);
                    }
                }
            }
            "btrfs" => {
                let point = mount.point.to_string_lossy();
                if let Some(show) = self.ask("btrfs", &["filesystem", "show", &mount.source]).await {
                    findings.extend(btrfs::missing(&show));
                    for path in btrfs::devices(&show) {
                        devices.add_path(sys, &path);
                    }
                }
                if let Some(stats) = self.ask("btrfs", &["device", "stats", &point]).await {
                    findings.extend(self.errors.finding(&stats));
                }
            }
            _ => {}
        }
        for disk in devices.disks.iter().filter(|disk| knows_its_health(disk)) {
            let path = format!("/dev/{disk}");
            let arguments = ["--json", "--info", "--health", "--attributes", &path];
            let Some(report) = self.ask("smartctl", &arguments).await else {
                break;
            };
            match smart::finding(&report) {
                Ok(found) => findings.extend(found),
                Err(error) => tracing::debug!(disk, error, "smartctl's report is not understood"),
            }
        }
        findings
    }

    async fn ask(&mut self, program: &str, arguments: &[&str]) -> Option<String> {
        match self.programs.ask(program, arguments).await {
            Answer::Said(text) => Some(text),
            Answer::NotThere => None,
            Answer::Silent(why) => {
                self.all_answered = false;
                tracing::warn!(program, why, "the recording volume's devices can't be asked");
                None
            }
        }
    }
}

/// Whether a disk is of a kind that has SMART: not a loop device, a virtual one or one in memory.
fn knows_its_health(disk: &str) -> bool {
    ["sd", "nvme", "hd"].iter().any(|kind| disk.starts_with(kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(state: StorageState, evidence: &str) -> Finding {
        Finding {
            state,
            evidence: evidence.to_owned(),
        }
    }

    #[test]
    fn c3_the_worst_counts_and_nothing_is_concealed() {
        let found = [
            finding(StorageState::Degraded, "md0 runs with 1 of 2"),
            finding(StorageState::Damaged, "the pool is suspended"),
        ];
        let all = summary(Storage::default(), found.iter());
        assert_eq!(all.state, StorageState::Damaged);
        assert_eq!(all.evidence, "the pool is suspended; md0 runs with 1 of 2");

        let read_only = Storage {
            state: StorageState::Damaged,
            evidence: "it is read-only".to_owned(),
            full: false,
        };
        let all = summary(read_only.clone(), found[..1].iter());
        assert_eq!(all.state, StorageState::Damaged);
        assert_eq!(all.evidence, "it is read-only; md0 runs with 1 of 2");
        assert_eq!(summary(read_only.clone(), [].iter()), read_only);

        let full = Storage {
            state: StorageState::Normal,
            evidence: "it is full".to_owned(),
            full: true,
        };
        let all = summary(full, found[..1].iter());
        assert_eq!((all.state, all.full), (StorageState::Degraded, true));
        assert_eq!(all.evidence, "md0 runs with 1 of 2; it is full");

        let long = [finding(StorageState::Degraded, &"ü".repeat(1_000))];
        assert!(summary(Storage::default(), long.iter()).evidence.len() <= MOST_EVIDENCE + 3);
    }
}
