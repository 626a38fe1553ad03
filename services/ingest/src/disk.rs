//! What a server keeps of its assignment: `assignment.json` and `bundles/`, written so that a crash at any
//! moment leaves the old or the new, whole.
//!
//! Knows nothing of what they mean. Blocks; callers in async code use a blocking thread.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::SystemTime,
};

use understudy_core::{
    assignment::{Assignment, Epoch},
    contract::heartbeat::SealedBundle,
    ids::{ErasureId, ServerId},
    reconcile::Persisted,
    settings::BundleHash,
};
use understudy_runtime::{TraceContext, trace};

/// Why the server's folder can't be used.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// A folder could not be made or written to.
    #[error(
        "the server's data folder {} can't be written to: {source}; create it, give this service's user write \
         permission (chown), or set server.data to another folder",
        path.display()
    )]
    NotWritable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file could not be read.
    #[error("{} can't be read: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The server's data folder.
#[derive(Clone, Debug)]
pub(crate) struct Disk {
    data: PathBuf,
}

impl Disk {
    /// Makes the folders where they are missing, and proves that they can be written to.
    pub(crate) fn open(data: &Path) -> Result<Self, DiskError> {
        let disk = Self {
            data: data.to_owned(),
        };
        let prove = |folder: &Path| {
            understudy_runtime::folder::make_private(folder)?;
            write_whole(&folder.join(".writable"), b"")?;
            fs::remove_file(folder.join(".writable"))
        };
        for folder in [data.to_owned(), disk.bundles()] {
            prove(&folder).map_err(|source| DiskError::NotWritable { path: folder, source })?;
        }
        Ok(disk)
    }

    /// The archive's folder.
    pub(crate) fn archive(&self) -> PathBuf {
        self.data.join("archive")
    }

    /// The last assignment that was persisted. One that can't be understood, or is another server's, is kept
    /// aside, and the server begins without: it hears its newest again, and takes none that is older than the one
    /// before.
    pub(crate) fn load_assignment(&self, server: &ServerId) -> Result<Persisted, DiskError> {
        let path = self.assignment();
        let without = Persisted {
            assignment: None,
            outlived: self.outlived(server),
        };
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(without),
            Err(source) => return Err(DiskError::Read { path, source }),
        };
        let why = match serde_json::from_slice::<Assignment>(&text) {
            Ok(assignment) if assignment.server == *server => {
                return Ok(Persisted {
                    assignment: Some(assignment),
                    outlived: None,
                });
            }
            Ok(assignment) => format!("it is for {}, and this server is {server}", assignment.server),
            Err(error) => error.to_string(),
        };
        let aside = set_aside(&path);
        tracing::error!(
            assignment.file = %path.display(), assignment.kept_as = %aside.display(), why,
            "the assignment on disk can't be used; starting without, until the host sends the newest"
        );
        Ok(without)
    }

    /// The epoch of the assignment before the last; it only guards against messages of long ago, so that one that
    /// can't be read is none.
    fn outlived(&self, server: &ServerId) -> Option<Epoch> {
        let text = fs::read(self.assignment_before()).ok()?;
        let before = serde_json::from_slice::<Assignment>(&text).ok()?;
        (before.server == *server).then_some(before.epoch)
    }

    /// Persists an assignment: when this returns, it survives a power cut. The one before is kept beside it.
    pub(crate) fn store_assignment(&self, assignment: &Assignment) -> io::Result<()> {
        let text = serde_json::to_vec_pretty(assignment).map_err(io::Error::other)?;
        if let Err(error) = self.keep_assignment_before() {
            tracing::debug!(%error, "the assignment before the newest could not be kept");
        }
        write_whole(&self.assignment(), &text)
    }

    /// Notes which trace an assignment is a part of, for the sync service, before it can read the assignment.
    pub(crate) fn store_trace(&self, assignment: &Assignment, trace: Option<&TraceContext>) {
        let path = self.data.join("assignment.trace");
        trace::keep(&path, &assignment.epoch.to_string(), trace);
    }

    /// A second name for what the next one replaces: nothing is written, and the rename that follows is synced.
    fn keep_assignment_before(&self) -> io::Result<()> {
        let (now, before) = (self.assignment(), self.assignment_before());
        if !now.exists() {
            return Ok(());
        }
        match fs::remove_file(&before) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        fs::hard_link(now, before)
    }

    /// Orders to erase everything that were carried out, newest last.
    pub(crate) fn load_erased(&self) -> io::Result<Vec<ErasureId>> {
        match fs::read(self.erased()) {
            Ok(text) => serde_json::from_slice(&text).map_err(io::Error::from),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Persists that an order to erase everything was carried out: it never is again.
    pub(crate) fn store_erased(&self, erasure: &ErasureId) -> io::Result<()> {
        let mut erased = self.load_erased()?;
        erased.push(erasure.clone());
        let text = serde_json::to_vec_pretty(&erased).map_err(io::Error::other)?;
        write_whole(&self.erased(), &text)
    }

    /// All bundles in store as they were received, oldest first; files that can't be understood are kept aside.
    pub(crate) fn load_bundles(&self) -> Result<Vec<SealedBundle>, DiskError> {
        let folder = self.bundles();
        let read = |source| DiskError::Read {
            path: folder.clone(),
            source,
        };
        let mut bundles: Vec<(SystemTime, SealedBundle)> = Vec::new();
        for entry in fs::read_dir(&folder).map_err(read)? {
            let path = entry.map_err(read)?.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            let parsed = fs::read(&path)
                .map_err(|error| error.to_string())
                .and_then(|text| serde_json::from_slice(&text).map_err(|error| error.to_string()));
            match parsed {
                Ok(bundle) => bundles.push((written(&path), bundle)),
                Err(why) => {
                    let aside = set_aside(&path);
                    tracing::error!(
                        bundle.file = %path.display(), bundle.kept_as = %aside.display(), why,
                        "settings on disk can't be used; they will be asked for again when needed"
                    );
                }
            }
        }
        bundles.sort_by_key(|(written, _)| *written);
        Ok(bundles.into_iter().map(|(_, bundle)| bundle).collect())
    }

    /// Stores a bundle as it was received.
    pub(crate) fn store_bundle(&self, bundle: &SealedBundle) -> io::Result<()> {
        let text = serde_json::to_vec(bundle).map_err(io::Error::other)?;
        write_whole(&self.bundle(&bundle.hash)?, &text)
    }

    /// Removes a bundle; that it is gone already is no error.
    pub(crate) fn remove_bundle(&self, hash: &BundleHash) -> io::Result<()> {
        match fs::remove_file(self.bundle(hash)?) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn assignment(&self) -> PathBuf {
        self.data.join("assignment.json")
    }

    fn assignment_before(&self) -> PathBuf {
        self.data.join("assignment.before.json")
    }

    fn erased(&self) -> PathBuf {
        self.data.join("erased.json")
    }

    fn bundles(&self) -> PathBuf {
        self.data.join("bundles")
    }

    /// A bundle's file; its name comes from outside, so nothing but a hash is taken for one.
    fn bundle(&self, hash: &BundleHash) -> io::Result<PathBuf> {
        let is_hash = hash.0.len() == 64 && hash.0.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_hash {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the bundle's name is not a hash",
            ));
        }
        Ok(self.bundles().join(format!("{hash}.json")))
    }
}

/// Writes a file so that it holds all of `contents` or what it held before: temporary file, fsync, rename,
/// fsync of the folder.
fn write_whole(path: &Path, contents: &[u8]) -> io::Result<()> {
    let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let mut name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
    name.push(".new");
    let temporary = folder.join(name);
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(contents)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    File::open(folder)?.sync_all()
}

fn written(path: &Path) -> SystemTime {
    fs::metadata(path)
        .and_then(|file| file.modified())
        .unwrap_or(SystemTime::UNIX_EPOCH)
}

/// Renames a file that can't be used to a name that is free, for somebody to look at.
fn set_aside(path: &Path) -> PathBuf {
    let aside = (1..1_000)
        .map(|n| path.with_extension(format!("unusable-{n}")))
        .find(|aside| !aside.exists())
        .unwrap_or_else(|| path.with_extension("unusable"));
    if let Err(error) = fs::rename(path, &aside) {
        tracing::warn!(file = %path.display(), %error, "could not be kept aside");
    }
    aside
}

#[cfg(test)]
mod tests {
    use understudy_core::assignment::Role;

    use super::*;

    fn me() -> ServerId {
        ServerId::new("recorder-1").expect("an id")
    }

    fn assignment(number: u64) -> Assignment {
        Assignment {
            server: me(),
            epoch: Epoch { term: 1, number },
            role: Role::Standby,
            erase: [].into(),
            erase_up_to: Default::default(),
        }
    }

    fn sealed(n: u32) -> SealedBundle {
        SealedBundle {
            identity: me(),
            hash: BundleHash::of(&n.to_be_bytes()),
            sealed: "secret".to_owned(),
        }
    }

    #[test]
    fn what_was_stored_is_found_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let disk = Disk::open(&folder.path().join("not/there/yet")).expect("made");
        assert_eq!(disk.load_assignment(&me()).expect("read").assignment, None);
        disk.store_assignment(&assignment(1)).expect("stored");
        disk.store_assignment(&assignment(2)).expect("stored");
        disk.store_bundle(&sealed(1)).expect("stored");
        let again = Disk::open(&folder.path().join("not/there/yet")).expect("there");
        assert_eq!(
            again.load_assignment(&me()).expect("read").assignment,
            Some(assignment(2))
        );
        assert_eq!(again.load_bundles().expect("read"), [sealed(1)]);
    }

    #[test]
    fn b3_an_order_to_erase_everything_is_kept_in_mind() {
        let folder = tempfile::tempdir().expect("a folder");
        let disk = Disk::open(folder.path()).expect("made");
        let erasure = |n: u32| ErasureId::new(format!("e{n}")).expect("an id");
        assert!(disk.load_erased().expect("read").is_empty());
        for n in [1, 2] {
            disk.store_erased(&erasure(n)).expect("stored");
        }
        assert_eq!(disk.load_erased().expect("read"), [erasure(1), erasure(2)]);
        // What can't be read is no licence to erase again.
        fs::write(folder.path().join("erased.json"), "[").expect("written");
        assert!(disk.load_erased().is_err());
    }

    #[test]
    fn an_assignment_that_makes_no_sense_is_kept_aside() {
        let folder = tempfile::tempdir().expect("a folder");
        let disk = Disk::open(folder.path()).expect("made");
        for (n, text) in ["{\"server\":", "[]"].into_iter().enumerate() {
            fs::write(folder.path().join("assignment.json"), text).expect("written");
            assert_eq!(disk.load_assignment(&me()).expect("read").assignment, None);
            let aside = folder.path().join(format!("assignment.unusable-{}", n + 1));
            assert_eq!(fs::read_to_string(aside).expect("kept"), text);
        }
        assert!(!folder.path().join("assignment.json").exists());
    }

    #[test]
    fn one_that_is_lost_leaves_word_of_the_one_before() {
        let folder = tempfile::tempdir().expect("a folder");
        let disk = Disk::open(folder.path()).expect("made");
        for number in [1, 2, 3] {
            disk.store_assignment(&assignment(number)).expect("stored");
        }
        fs::write(folder.path().join("assignment.json"), "{").expect("written");
        let outlived = Persisted {
            assignment: None,
            outlived: Some(assignment(2).epoch),
        };
        assert_eq!(disk.load_assignment(&me()).expect("read"), outlived);
        // It is kept aside now; what is known of the one before stays.
        assert_eq!(disk.load_assignment(&me()).expect("read"), outlived);
        disk.store_assignment(&assignment(4)).expect("stored");
        let newest = disk.load_assignment(&me()).expect("read");
        assert_eq!(newest.assignment, Some(assignment(4)));
    }

    #[test]
    fn another_servers_assignment_is_not_taken() {
        let folder = tempfile::tempdir().expect("a folder");
        let disk = Disk::open(folder.path()).expect("made");
        disk.store_assignment(&assignment(1)).expect("stored");
        let other = ServerId::new("recorder-2").expect("an id");
        assert_eq!(disk.load_assignment(&other).expect("read"), Persisted::default());
    }

    #[test]
    fn a_half_written_file_of_a_crash_is_not_seen() {
        let folder = tempfile::tempdir().expect("a folder");
        let disk = Disk::open(folder.path()).expect("made");
        disk.store_assignment(&assignment(1)).expect("stored");
        fs::write(folder.path().join("assignment.json.new"), "{").expect("written");
        fs::write(folder.path().join("bundles/abc.json.new"), "{").expect("written");
        assert_eq!(
            disk.load_assignment(&me()).expect("read").assignment,
            Some(assignment(1))
        );
        assert!(disk.load_bundles().expect("read").is_empty());
    }

    #[test]
    fn bundles_come_back_oldest_first_and_removed_ones_don_t() {
        let folder = tempfile::tempdir().expect("a folder");
        let disk = Disk::open(folder.path()).expect("made");
        for (n, age) in [(1, 30), (2, 10), (3, 20)] {
            disk.store_bundle(&sealed(n)).expect("stored");
            let file = File::open(disk.bundle(&sealed(n).hash).expect("a hash")).expect("there");
            let written = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000 - age);
            file.set_modified(written).expect("set");
        }
        assert_eq!(
            disk.load_bundles().expect("read"),
            [sealed(1), sealed(3), sealed(2)]
        );
        disk.remove_bundle(&sealed(3).hash).expect("removed");
        disk.remove_bundle(&sealed(3).hash).expect("gone already");
        assert_eq!(disk.load_bundles().expect("read"), [sealed(1), sealed(2)]);
    }

    #[test]
    fn a_bundles_name_can_t_lead_out_of_the_folder() {
        let folder = tempfile::tempdir().expect("a folder");
        let disk = Disk::open(folder.path()).expect("made");
        let evil = SealedBundle {
            hash: BundleHash("../../evil".to_owned()),
            ..sealed(1)
        };
        assert!(disk.store_bundle(&evil).is_err());
    }

    #[test]
    fn a_folder_that_can_t_be_made_says_what_to_do() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("file");
        fs::write(&file, "").expect("written");
        let error = Disk::open(&file.join("data"))
            .expect_err("a file is no folder")
            .to_string();
        assert!(error.contains("server.data"), "{error}");
    }
}
