//! How the recording volume is: a probe write with fsync, in a thread of its own (row C3).
//!
//! A hung mount hangs only that thread; the agent reads its last word, and how long ago it was. The probe
//! touches nothing but its own file. What carries the volume is looked at in `beneath`.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, mpsc},
    time::Duration,
};

use nix::sys::statvfs::{FsFlags, Statvfs, statvfs};
use tokio::sync::watch;
use understudy_core::{
    contract::heartbeat::{Storage, StorageState},
    time::Monotonic,
};
use understudy_runtime::clock;

/// The probe's file in the recording folder.
const PROBE_FILE: &str = ".understudy-probe";
/// After damage the volume is called normal again after so many good probes in a row: the kernel reports a
/// failed fsync only once.
const GOOD_PROBES_TO_RECOVER: u32 = 3;

/// Less than this to spare is as good as nothing: retention keeps far more free.
const NOTHING_TO_SPEAK_OF: u64 = 1 << 20;

/// A volume with more than this to spare that says it is full lies on something that is: a pool that promised
/// more than it has.
const NOT_FULL: u64 = 64 << 20;

/// A watch over one recording volume. Dropped, it ends its thread; one that hangs in the kernel stays until
/// the kernel lets it go, or the process ends.
pub(crate) struct Volume {
    shared: Arc<Mutex<Shared>>,
    deadline: Duration,
    folder: watch::Receiver<Option<PathBuf>>,
    /// Its end wakes the thread from its pause and stops it.
    _stop: mpsc::SyncSender<()>,
}

#[derive(Default)]
struct Shared {
    /// When the probe under way began.
    probing_since: Option<Monotonic>,
    /// The verdict of the last probe that returned.
    verdict: Storage,
}

impl Volume {
    /// Starts to probe the recording folder `archive` (or the folder above it for as long as that is not
    /// there yet) once every `interval`; a probe that takes longer than `deadline` is a hung volume, and one that
    /// has been full for `patience` stays so although retention should have made room.
    pub(crate) fn watch(
        archive: PathBuf,
        interval: Duration,
        deadline: Duration,
        patience: Duration,
    ) -> io::Result<Self> {
        // Nothing is ever sent: only its end is heard.
        let (stop, stopped) = mpsc::sync_channel(0);
        let shared = Arc::new(Mutex::new(Shared::default()));
        let theirs = Arc::clone(&shared);
        let (found, folder) = watch::channel(None);
        std::thread::Builder::new()
            .name("volume-probe".to_owned())
            .spawn(move || {
                let mut prober = Prober::new(archive, found, patience);
                loop {
                    lock(&theirs).probing_since = Some(clock::now().monotonic);
                    let verdict = prober.probe();
                    let mut shared = lock(&theirs);
                    shared.probing_since = None;
                    shared.verdict = verdict;
                    drop(shared);
                    if stopped.recv_timeout(interval) != Err(mpsc::RecvTimeoutError::Timeout) {
                        return;
                    }
                }
            })?;
        Ok(Self {
            shared,
            deadline,
            folder,
            _stop: stop,
        })
    }

    /// The folder that is probed, without links, once a probe has seen it.
    pub(crate) fn folder(&self) -> watch::Receiver<Option<PathBuf>> {
        self.folder.clone()
    }

    /// How the volume is, `now`. Never blocks for longer than the copying of a text.
    pub(crate) fn storage(&self, now: Monotonic) -> Storage {
        let shared = lock(&self.shared);
        match shared.probing_since {
            Some(since) if now.since(since) >= self.deadline => Storage {
                state: StorageState::Damaged,
                evidence: format!(
                    "the recording volume hangs: a probe write has not returned for {} s",
                    now.since(since).as_secs()
                ),
                full: shared.verdict.full,
            },
            _ => shared.verdict.clone(),
        }
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    // The state is two plain values that are whole at any time.
    shared.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// One probe after the other, and what they remember.
struct Prober {
    archive: PathBuf,
    found: watch::Sender<Option<PathBuf>>,
    was_there: bool,
    was_mount_point: bool,
    ill: Option<String>,
    good: u32,
    full_since: Option<Monotonic>,
    patience: Duration,
}

impl Prober {
    fn new(archive: PathBuf, found: watch::Sender<Option<PathBuf>>, patience: Duration) -> Self {
        Self {
            patience,
            archive,
            found,
            was_there: false,
            was_mount_point: false,
            ill: None,
            good: 0,
            full_since: None,
        }
    }

    fn probe(&mut self) -> Storage {
        match self.look() {
            Err(evidence) => {
                if self.ill.as_deref() != Some(evidence.as_str()) {
                    tracing::error!(
                        storage.evidence = evidence,
                        "the recording volume does not take recordings"
                    );
                }
                self.good = 0;
                self.ill = Some(evidence);
            }
            Ok(()) if self.ill.is_some() => {
                self.good += 1;
                if self.good >= GOOD_PROBES_TO_RECOVER {
                    tracing::info!("the recording volume takes recordings again");
                    self.ill = None;
                }
            }
            Ok(()) => {}
        }
        let stays_full = self.stays_full();
        let full = stays_full.is_some();
        match (&self.ill, stays_full) {
            (Some(evidence), _) => Storage {
                state: StorageState::Damaged,
                evidence: evidence.clone(),
                full,
            },
            (None, evidence) => Storage {
                state: StorageState::Normal,
                evidence: evidence.unwrap_or_default(),
                full,
            },
        }
    }

    /// That it is full for longer than retention takes to make room, in words that stay the same while it is.
    fn stays_full(&self) -> Option<String> {
        let since = self.full_since?;
        (clock::now().monotonic.since(since) >= self.patience).then(|| {
            format!(
                "{} has been full for more than {} s",
                self.archive.display(),
                self.patience.as_secs()
            )
        })
    }

    fn note_full(&mut self, full: bool) {
        match (full, self.full_since) {
            (true, None) => {
                tracing::warn!(volume.folder = %self.archive.display(), "the recording volume is full");
                self.full_since = Some(clock::now().monotonic);
            }
            (false, Some(_)) => self.full_since = None,
            _ => {}
        }
    }

    fn look(&mut self) -> Result<(), String> {
        let Some(folder) = self.folder()? else {
            return Ok(());
        };
        self.found.send_if_modified(|found| {
            let real = fs::canonicalize(&folder).ok();
            let changed = real.is_some() && *found != real;
            if changed {
                *found = real;
            }
            changed
        });
        let shown = folder.display();
        let status = statvfs(&folder).map_err(|error| format!("{shown}: {error}"))?;
        if status.flags().contains(FsFlags::ST_RDONLY) {
            return Err(format!("{shown} is read-only"));
        }
        match write_and_sync(&folder.join(PROBE_FILE)) {
            // What is kept for root, or what the probe's own file gave back, is no room for recordings.
            Ok(()) => self.note_full(space(&status) < NOTHING_TO_SPEAK_OF),
            Err(error) if is_full(&error) && space(&status) > NOT_FULL => {
                return Err(format!(
                    "a probe write into {shown} failed: {error}, although {} MiB are free: what the volume lies \
                     on is full",
                    space(&status) >> 20
                ));
            }
            // A full volume is retention's business, and no damage by itself.
            Err(error) if is_full(&error) => self.note_full(true),
            Err(error) => return Err(format!("a probe write into {shown} failed: {error}")),
        }
        Ok(())
    }

    /// The folder to probe: the recording folder once it is there, until then the one above it. On a server
    /// that was never started neither is: the recording service makes them.
    fn folder(&mut self) -> Result<Option<PathBuf>, String> {
        let above = self.archive.parent().unwrap_or(Path::new("/"));
        match fs::metadata(&self.archive) {
            Ok(found) => {
                let device_above = fs::metadata(above)
                    .map(|above| above.dev())
                    .unwrap_or(found.dev());
                let is_mount_point = found.dev() != device_above;
                if self.was_mount_point && !is_mount_point {
                    return Err(format!("{} is not mounted any more", self.archive.display()));
                }
                self.was_mount_point = is_mount_point;
                self.was_there = true;
                Ok(Some(self.archive.clone()))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound && !self.was_there => {
                Ok(above.is_dir().then(|| above.to_owned()))
            }
            Err(error) => Err(format!("{}: {error}", self.archive.display())),
        }
    }
}

fn write_and_sync(path: &Path) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(b"understudy\n")?;
    file.sync_all()
}

/// Bytes that may still be written.
fn space(status: &Statvfs) -> u64 {
    status.blocks_available() * status.fragment_size()
}

fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

#[cfg(test)]
mod tests {
    use understudy_runtime::testing::left_out;

    use super::*;

    fn prober(archive: &Path) -> Prober {
        Prober::new(
            archive.to_owned(),
            watch::channel(None).0,
            Duration::from_secs(60),
        )
    }

    #[test]
    fn c3_a_good_volume_is_normal_and_keeps_nothing_but_the_probe_file() {
        let data = tempfile::tempdir().expect("a folder");
        let archive = data.path().join("archive");
        fs::create_dir(&archive).expect("made");
        let mut prober = prober(&archive);
        assert_eq!(prober.probe(), Storage::default());
        assert_eq!(prober.probe(), Storage::default());
        let names: Vec<_> = fs::read_dir(archive)
            .expect("there")
            .map(|e| e.expect("read").file_name())
            .collect();
        assert_eq!(names, [PROBE_FILE]);
    }

    #[test]
    fn c3_before_the_recording_folder_exists_the_one_above_it_is_probed() {
        let data = tempfile::tempdir().expect("a folder");
        let mut before = prober(&data.path().join("archive"));
        assert_eq!(before.probe().state, StorageState::Normal);
        let mut never_started = prober(&data.path().join("data/archive"));
        assert_eq!(never_started.probe().state, StorageState::Normal);
    }

    #[test]
    fn c3_a_recording_folder_that_vanished_is_damage_until_it_was_well_for_a_while() {
        let data = tempfile::tempdir().expect("a folder");
        let archive = data.path().join("archive");
        fs::create_dir(&archive).expect("made");
        let mut prober = prober(&archive);
        prober.probe();
        fs::remove_dir_all(&archive).expect("removed");
        let verdict = prober.probe();
        assert_eq!(verdict.state, StorageState::Damaged);
        assert!(verdict.evidence.contains("archive"), "{verdict:?}");

        fs::create_dir(&archive).expect("made");
        for _ in 1..GOOD_PROBES_TO_RECOVER {
            assert_eq!(prober.probe().state, StorageState::Damaged);
        }
        assert_eq!(prober.probe(), Storage::default());
    }

    /// A volume of its own over `folder`, for as long as it lives; none where that needs rights that the test
    /// does not have.
    struct Mount(PathBuf);

    impl Mount {
        fn over(folder: &Path, options: &str) -> Option<Self> {
            let mut mount = std::process::Command::new("mount");
            mount.args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(folder);
            let mounted = mount.output().is_ok_and(|output| output.status.success());
            if !mounted {
                left_out("mounting needs root");
            }
            mounted.then(|| Self(folder.to_owned()))
        }
    }

    impl Drop for Mount {
        fn drop(&mut self) {
            let _ = std::process::Command::new("umount").arg(&self.0).status();
        }
    }

    #[test]
    fn c3_a_volume_that_is_read_only_is_damaged() {
        let data = tempfile::tempdir().expect("a folder");
        let archive = data.path().join("archive");
        fs::create_dir(&archive).expect("made");
        let mut prober = prober(&archive);
        assert_eq!(prober.probe(), Storage::default());
        let Some(_mount) = Mount::over(&archive, "ro") else {
            return;
        };
        let verdict = prober.probe();
        assert_eq!(verdict.state, StorageState::Damaged);
        assert!(verdict.evidence.contains("read-only"), "{verdict:?}");
    }

    #[test]
    fn c3_a_volume_that_is_not_mounted_any_more_is_damaged() {
        let data = tempfile::tempdir().expect("a folder");
        let archive = data.path().join("archive");
        fs::create_dir(&archive).expect("made");
        let Some(mount) = Mount::over(&archive, "rw") else {
            return;
        };
        let mut prober = prober(&archive);
        assert_eq!(prober.probe(), Storage::default());
        drop(mount);
        let verdict = prober.probe();
        assert_eq!(verdict.state, StorageState::Damaged);
        assert!(verdict.evidence.contains("not mounted any more"), "{verdict:?}");
    }

    #[test]
    fn c3_a_full_volume_is_no_damage() {
        let data = tempfile::tempdir().expect("a folder");
        let archive = data.path().join("archive");
        fs::create_dir(&archive).expect("made");
        let Some(mount) = Mount::over(&archive, "size=16k") else {
            return;
        };
        let filled = fs::write(archive.join("filler"), vec![1; 64 * 1024]);
        assert!(filled.is_err_and(|error| is_full(&error)));
        assert_eq!(prober(&archive).probe(), Storage::default());

        // For longer than retention takes it is said, and it is no damage either; until there is room.
        let mut prober = Prober::new(archive.clone(), watch::channel(None).0, Duration::ZERO);
        let stays = prober.probe();
        assert_eq!((stays.state, stays.full), (StorageState::Normal, true));
        assert!(
            stays.evidence.contains("has been full for more than"),
            "{stays:?}"
        );
        fs::remove_file(archive.join("filler")).expect("removed");
        drop(mount);
        let _larger = Mount::over(&archive, "size=8m").expect("mounted again");
        let mut prober = Prober { archive, ..prober };
        assert_eq!(prober.probe(), Storage::default());
    }

    #[tokio::test]
    async fn c3_a_probe_that_does_not_return_is_a_hung_volume() {
        // Opening a FIFO for writing hangs until somebody reads: what a dead network mount does.
        let data = tempfile::tempdir().expect("a folder");
        let archive = data.path().join("archive");
        fs::create_dir(&archive).expect("made");
        let fifo = archive.join(PROBE_FILE);
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).expect("a fifo");

        let deadline = Duration::from_millis(200);
        let volume = Volume::watch(archive, Duration::from_millis(10), deadline, deadline).expect("a thread");
        let verdict = wait_for(&volume, StorageState::Damaged).await;
        assert!(verdict.evidence.contains("hangs"), "{verdict:?}");

        // Somebody reads: the thread is let go, and ends with its owner.
        drop(volume);
        drop(File::open(fifo).expect("opened"));
    }

    async fn wait_for(volume: &Volume, state: StorageState) -> Storage {
        let give_up = clock::now().monotonic.0 + Duration::from_secs(20);
        loop {
            let now = clock::now().monotonic;
            let storage = volume.storage(now);
            if storage.state == state {
                return storage;
            }
            assert!(now.0 < give_up, "still {storage:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}
