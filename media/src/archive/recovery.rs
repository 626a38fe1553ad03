//! What a crash left behind. Makes files and index agree again: a file without a row is cut off after its
//! last whole fragment and gets its row, an empty one goes, a row without a file is dropped. Touches nothing
//! that this process is writing.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
};

use understudy_core::{contract::segment::Segment, ids::FailoverId, time::Timestamp};

use super::{
    ArchiveError, Inner, disk, mp4,
    path::{Kind, Name},
};

/// What was found and done.
#[derive(Clone, Debug, Default)]
pub struct Recovered {
    /// Files that got their rows.
    pub indexed: Vec<Segment>,
    /// Of these, how many had to be cut off.
    pub cut_off: usize,
    /// Files in which there was nothing whole: they are deleted.
    pub removed: Vec<String>,
    /// Rows whose files were gone: they are dropped.
    pub dropped: Vec<String>,
    /// Files that could not be repaired and folders that could not be read, with the reason. They stay as they
    /// are and are tried again by [`super::Archive::mend`]; no failover's filming ends before.
    pub failed: Vec<(String, String)>,
}

/// What a file without a row turned out to hold.
pub(super) enum Found {
    /// Something whole.
    Recording { segment: Segment, cut_off: bool },
    /// Nothing: it is deleted.
    Nothing,
}

impl Inner {
    pub(super) fn recover(&self) -> Result<Recovered, ArchiveError> {
        let mut recovered = Recovered::default();
        let cameras = subfolders(&self.folder).map_err(ArchiveError::file(&self.folder))?;
        let mut folders = Vec::new();
        for camera in cameras {
            let camera = format!("{camera}/");
            match self.folders_in(&camera) {
                Ok(found) => folders.extend(found),
                Err(error) => self.leave_folder(camera, &error, &mut recovered),
            }
        }
        // The newest days first, of all cameras.
        folders.sort_unstable_by(|a, b| b.split('/').nth(1).cmp(&a.split('/').nth(1)).then(b.cmp(a)));
        for folder in folders {
            match self.recover_folder(&folder, &mut recovered) {
                Err(error @ ArchiveError::File { .. }) => {
                    self.leave_folder(folder, &error, &mut recovered);
                }
                recovered => recovered?,
            }
        }
        self.end_recovered()?;
        Ok(recovered)
    }

    fn leave_folder(&self, folder: String, error: &ArchiveError, recovered: &mut Recovered) {
        let reason = error.to_string();
        tracing::error!(
            segment.path = folder,
            reason,
            "recordings can't be looked through"
        );
        self.unfinished.leave_behind(&folder, None);
        recovered.failed.push((folder, reason));
    }

    /// A camera's folders `<camera>/<day>/` and `<camera>/snapshots/`.
    fn folders_in(&self, camera: &str) -> Result<Vec<String>, ArchiveError> {
        let path = self.folder.join(camera);
        let found = subfolders(&path).map_err(ArchiveError::file(&path))?;
        Ok(found
            .into_iter()
            .map(|folder| format!("{camera}{folder}/"))
            .collect())
    }

    /// Looks again through a folder, a camera's or one in it.
    pub(super) fn recover_folders(&self, folder: &str) -> Result<Recovered, ArchiveError> {
        let mut recovered = Recovered::default();
        let folders = if folder.matches('/').count() == 1 {
            self.folders_in(folder)?
        } else {
            vec![folder.to_owned()]
        };
        for folder in folders {
            self.recover_folder(&folder, &mut recovered)?;
        }
        Ok(recovered)
    }

    fn recover_folder(&self, folder: &str, recovered: &mut Recovered) -> Result<(), ArchiveError> {
        let path = self.folder.join(folder);
        // The rows first: a file that is closed in between then has its row, but is not taken for gone.
        let (unrepaired, rows): (Vec<_>, Vec<_>) =
            self.index.paths_in(folder)?.into_iter().partition(|row| row.1);
        let rows: BTreeSet<String> = rows.into_iter().map(|row| row.0).collect();
        let files = names(&path, folder).map_err(ArchiveError::file(&path))?;
        let gone: Vec<String> = rows.difference(&files).cloned().collect();
        let unindexed: Vec<String> = files
            .difference(&rows)
            .filter(|path| !self.unfinished.contains(path))
            .cloned()
            .collect();
        self.index.remove(&gone, &self.server)?;
        for path in &gone {
            tracing::warn!(
                segment.path = path,
                "a recording is gone from the disk, and is dropped from the index"
            );
        }
        recovered.dropped.extend(gone);
        let outcomes = in_parallel(&unindexed, |path| (path.to_owned(), self.try_repair(path, None)));
        let mut indexed = Vec::new();
        for (path, outcome) in outcomes {
            match outcome {
                Ok(Found::Recording { segment, cut_off }) => {
                    recovered.cut_off += usize::from(cut_off);
                    indexed.push((segment, None));
                }
                Ok(Found::Nothing) => recovered.removed.push(path),
                Err(error) => {
                    let reason = error.to_string();
                    tracing::error!(segment.path = path, reason, "a recording can't be repaired");
                    // What was named as beyond repair is so already.
                    let named = unrepaired.iter().any(|row| row.0 == path);
                    if !named && let Some(name) = self.own(&path) {
                        let failover = self.index.filmed_for(&path, name.start)?;
                        self.unfinished.leave_behind(&path, failover);
                    }
                    recovered.failed.push((path, reason));
                }
            }
        }
        self.index.add_found(&indexed)?;
        recovered
            .indexed
            .extend(indexed.into_iter().map(|(segment, _)| segment));
        Ok(())
    }

    fn own(&self, path: &str) -> Option<Name> {
        Name::parse(path).filter(|name| name.server == self.server)
    }

    /// Makes a whole recording of a file without a row. `failover` says for what it was filmed, if that is
    /// known. A file of another server is left as it came: whole, or fetched again.
    pub(super) fn try_repair(
        &self,
        path: &str,
        failover: Option<Option<FailoverId>>,
    ) -> Result<Found, ArchiveError> {
        let file = self.folder.join(path);
        let name = Name::parse(path).ok_or_else(|| ArchiveError::Path(path.to_owned()))?;
        let own = name.server == self.server;
        let cannot = |error| ArchiveError::file(&file)(error);
        let length = fs::metadata(&file).map_err(cannot)?.len();
        let extent = match name.kind {
            Kind::Segment => mp4::extent(&file).map_err(cannot)?,
            // Written whole under another name and then renamed.
            Kind::Snapshot => mp4::Extent {
                whole_bytes: length,
                frames: 1,
                ..mp4::Extent::default()
            },
        };
        if own && (extent.frames == 0 || extent.whole_bytes == 0) {
            disk::delete(&file).map_err(cannot)?;
            return Ok(Found::Nothing);
        }
        let bytes = if own { extent.whole_bytes } else { length };
        if own {
            disk::truncate(&file, bytes).map_err(cannot)?;
            disk::sync(&self.folder, &file).map_err(cannot)?;
        }
        let millis = i64::try_from(extent.duration.as_millis()).unwrap_or(i64::MAX);
        let failover = match failover {
            Some(known) => known,
            None if own => self.index.filmed_for(path, name.start)?,
            None => None,
        };
        let segment = Segment {
            path: path.to_owned(),
            camera: name.camera,
            recorded_by: name.server,
            failover,
            start: name.start,
            end: Timestamp(name.start.as_millis().saturating_add(millis)),
            bytes,
            frames: extent.frames,
            blake3: disk::hash(&file).map_err(cannot)?,
        };
        Ok(Found::Recording {
            segment,
            cut_off: length != bytes,
        })
    }
}

/// Hashing keeps a core busy, and a crash leaves one open file per camera: so all cores share them.
fn in_parallel<T: Send>(paths: &[String], work: impl Fn(&str) -> T + Sync) -> Vec<T> {
    let threads = std::thread::available_parallelism()
        .map_or(1, usize::from)
        .min(paths.len());
    let next = AtomicUsize::new(0);
    let worker = || {
        let mut done = Vec::new();
        while let Some(path) = paths.get(next.fetch_add(1, Ordering::Relaxed)) {
            done.push(work(path));
        }
        done
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        workers
            .into_iter()
            .flat_map(|worker| worker.join().unwrap_or_default())
            .collect()
    })
}

fn subfolders(folder: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type()?.is_dir() && !name.starts_with('.') {
            names.push(name);
        }
    }
    Ok(names)
}

/// Paths below the archive of the files in a folder.
fn names(folder: &PathBuf, below: &str) -> io::Result<BTreeSet<String>> {
    let entries = match fs::read_dir(folder) {
        // Retention takes a day's folder with its last file.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        entries => entries?,
    };
    let mut names = BTreeSet::new();
    for entry in entries {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') {
            names.insert(format!("{below}{name}"));
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use understudy_core::ids::ServerId;

    use super::{super::Archive, *};

    fn may(folder: &Path, mode: u32) -> io::Result<()> {
        fs::set_permissions(folder, fs::Permissions::from_mode(mode))
    }

    /// As a user who may not read everything: for this thread and those it starts.
    fn as_nobody<T: Send>(work: impl FnOnce() -> T + Send) -> T {
        let unprivileged = || {
            nix::unistd::setfsuid(nix::unistd::Uid::from_raw(65_534));
            work()
        };
        std::thread::scope(|scope| scope.spawn(unprivileged).join()).expect("it does not panic")
    }

    #[tokio::test]
    async fn e1_a_folder_that_can_not_be_read_keeps_only_its_own_recordings_from_recovery()
    -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let archive = Archive::open(folder.path(), ServerId::new("spare-1")?)?;
        let f_1 = FailoverId::new("f-1")?;
        archive.begin_filming(Timestamp(0), Some(f_1.clone())).await?;
        drop(archive);
        let snapshots = |camera: &str| folder.path().join(camera).join("snapshots");
        for camera in ["cam-001", "cam-002"] {
            fs::create_dir_all(snapshots(camera))?;
            let file = snapshots(camera).join("1970-01-01T00-01-00.000-spare-1.jpg");
            fs::write(&file, b"a picture")?;
            may(&file, 0o666)?;
        }
        may(folder.path(), 0o777)?;
        may(&snapshots("cam-001"), 0)?;

        let archive = Archive::open(folder.path(), ServerId::new("spare-1")?)?;
        let recovered = as_nobody(|| archive.inner.recover())?;
        assert_eq!(recovered.failed.len(), 1, "{recovered:?}");
        assert_eq!(recovered.failed[0].0, "cam-001/snapshots/");
        assert_eq!(recovered.indexed.len(), 1, "{recovered:?}");
        assert!(!archive.manifest(&f_1, true).await?.complete);
        assert_eq!(as_nobody(|| archive.inner.mend())?, 1);

        may(&snapshots("cam-001"), 0o777)?;
        assert_eq!(as_nobody(|| archive.inner.mend())?, 0);
        let manifest = archive.manifest(&f_1, true).await?;
        assert!(manifest.complete);
        assert_eq!(manifest.segments.len(), 2, "{manifest:?}");
        Ok(())
    }

    #[tokio::test]
    async fn a_folder_that_stays_unreadable_is_named_in_the_manifest_that_may_lack_something()
    -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let archive = Archive::open(folder.path(), ServerId::new("spare-1")?)?;
        let f_1 = FailoverId::new("f-1")?;
        archive.begin_filming(Timestamp(0), Some(f_1.clone())).await?;
        drop(archive);
        let camera = folder.path().join("cam-001");
        fs::create_dir(&camera)?;
        may(&camera, 0)?;
        may(folder.path(), 0o777)?;
        let archive = Archive::open(folder.path(), ServerId::new("spare-1")?)?;
        as_nobody(|| archive.inner.recover())?;
        while as_nobody(|| archive.inner.mend())? > 0 {
            assert!(!archive.manifest(&f_1, true).await?.complete);
        }
        let manifest = archive.manifest(&f_1, true).await?;
        assert!(manifest.complete);
        assert_eq!(manifest.segments.len(), 1, "{manifest:?}");
        assert_eq!(manifest.segments[0].camera.as_str(), "cam-001");
        may(&camera, 0o777)?;
        Ok(())
    }

    #[tokio::test]
    async fn g2_what_another_server_sent_is_neither_cut_nor_renamed_by_the_recovery_beside_it()
    -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let archive = Archive::open(folder.path(), ServerId::new("recorder-1")?)?;
        let path = "cam-001/snapshots/1970-01-01T00-01-00.000-spare-1.jpg";
        let file = archive.file(path)?;
        disk::create_folder_of(&file)?;
        fs::write(&file, b"")?;
        // The file has come, its row has not: the recovery finds it, and then the row comes.
        let recovered = archive.recover().await?;
        assert!(recovered.removed.is_empty() && file.exists());
        let [mut imported] = <[Segment; 1]>::try_from(recovered.indexed).expect("one");
        assert_eq!(imported.failover, None);
        imported.failover = Some(FailoverId::new("f-1")?);
        archive.inner.index.add(std::slice::from_ref(&imported))?;
        // And the other way round: it was looked at before its row came, and is added after.
        let mut found = imported.clone();
        found.failover = None;
        archive.inner.index.add_found(&[(found, None)])?;
        assert_eq!(
            archive.segments(super::super::Filter::default()).await?,
            [imported]
        );
        Ok(())
    }
}
