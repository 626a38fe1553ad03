//! What a crash left behind. Makes files and index agree again: a file without a row is cut off after its
//! last whole fragment and gets its row, an empty one goes, a row without a file is dropped. Touches nothing
//! that this process is writing.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
};

use understudy_core::{contract::segment::Segment, time::Timestamp};

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
    /// Files that could not be repaired, with the reason; they stay as they are, without a row.
    pub failed: Vec<(String, String)>,
}

enum Outcome {
    Indexed { segment: Segment, cut_off: bool },
    Removed(String),
    Failed(String, String),
}

impl Inner {
    pub(super) fn recover(&self) -> Result<Recovered, ArchiveError> {
        let mut recovered = Recovered::default();
        for folder in self.folders().map_err(ArchiveError::file(&self.folder))? {
            self.recover_folder(&folder, &mut recovered)?;
        }
        // Even where a file could not be repaired: it will not be any better later.
        self.index.end_filming(self.filmed_before)?;
        Ok(recovered)
    }

    /// All folders `<camera>/<day>` and `<camera>/snapshots`, the newest days first.
    fn folders(&self) -> io::Result<Vec<String>> {
        let mut folders = Vec::new();
        for camera in subfolders(&self.folder)? {
            for folder in subfolders(&self.folder.join(&camera))? {
                folders.push((folder, camera.clone()));
            }
        }
        folders.sort_unstable_by(|a, b| b.cmp(a));
        Ok(folders
            .into_iter()
            .map(|(folder, camera)| format!("{camera}/{folder}/"))
            .collect())
    }

    fn recover_folder(&self, folder: &str, recovered: &mut Recovered) -> Result<(), ArchiveError> {
        let path = self.folder.join(folder);
        // The rows first: a file that is closed in between then has its row, but is not taken for gone.
        let rows: BTreeSet<String> = self.index.paths_in(folder)?.into_iter().collect();
        let files = names(&path, folder).map_err(ArchiveError::file(&path))?;
        let gone: Vec<String> = rows.difference(&files).cloned().collect();
        let unindexed: Vec<String> = {
            let writing = self.writing();
            files
                .difference(&rows)
                .filter(|path| !writing.contains(*path))
                .cloned()
                .collect()
        };
        self.index.remove(&gone, &self.server)?;
        for path in &gone {
            tracing::warn!(
                segment.path = path,
                "a recording is gone from the disk, and is dropped from the index"
            );
        }
        recovered.dropped.extend(gone);
        let outcomes = in_parallel(&unindexed, |path| self.repair(path));
        let mut indexed = Vec::new();
        for outcome in outcomes {
            match outcome {
                Outcome::Indexed { segment, cut_off } => {
                    recovered.cut_off += usize::from(cut_off);
                    indexed.push(segment);
                }
                Outcome::Removed(path) => recovered.removed.push(path),
                Outcome::Failed(path, reason) => {
                    tracing::error!(segment.path = path, reason, "a recording can't be repaired");
                    recovered.failed.push((path, reason));
                }
            }
        }
        self.index.add(&indexed)?;
        recovered.indexed.extend(indexed);
        Ok(())
    }

    pub(super) fn repair_one(&self, path: &str) -> Result<Option<Segment>, ArchiveError> {
        match self.try_repair(path)? {
            Outcome::Indexed { segment, .. } => {
                self.index.add(std::slice::from_ref(&segment))?;
                Ok(Some(segment))
            }
            Outcome::Removed(_) => Ok(None),
            Outcome::Failed(path, reason) => Err(ArchiveError::Open {
                path: path.into(),
                reason,
            }),
        }
    }

    fn repair(&self, path: &str) -> Outcome {
        self.try_repair(path)
            .unwrap_or_else(|error| Outcome::Failed(path.to_owned(), error.to_string()))
    }

    fn try_repair(&self, path: &str) -> Result<Outcome, ArchiveError> {
        let file = self.folder.join(path);
        let Some(name) = Name::parse(path) else {
            return Ok(Outcome::Failed(
                path.to_owned(),
                "its name is none of the archive's".to_owned(),
            ));
        };
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
        if extent.frames == 0 || extent.whole_bytes == 0 {
            disk::delete(&file).map_err(cannot)?;
            return Ok(Outcome::Removed(path.to_owned()));
        }
        disk::truncate(&file, extent.whole_bytes).map_err(cannot)?;
        disk::sync(&self.folder, &file).map_err(cannot)?;
        let millis = i64::try_from(extent.duration.as_millis()).unwrap_or(i64::MAX);
        let failover = if name.server == self.server {
            self.index.filmed_for(name.start)?
        } else {
            None
        };
        let segment = Segment {
            path: path.to_owned(),
            camera: name.camera,
            recorded_by: name.server,
            failover,
            start: name.start,
            end: Timestamp(name.start.as_millis().saturating_add(millis)),
            bytes: extent.whole_bytes,
            frames: extent.frames,
            blake3: disk::hash(&file).map_err(cannot)?,
        };
        Ok(Outcome::Indexed {
            segment,
            cut_off: length != extent.whole_bytes,
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
