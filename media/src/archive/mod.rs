//! The archive: segments and snapshots as files, and the index of them.
//!
//! A file that has no row in the index is being written, or was left behind by a crash; [`Archive::recover`]
//! gives the latter their rows. A row never comes before its file is durable, and a file never goes after
//! its row: so whatever is interrupted, nothing is orphaned. Another server's files come in through
//! [`Archive::import`] only.

mod disk;
mod import;
mod index;
pub mod mp4;
mod path;
mod recovery;
pub mod retention;

use std::{
    collections::{BTreeSet, HashSet},
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use understudy_core::{
    camera::{Camera, Retention},
    contract::segment::{Manifest, Segment},
    ids::{CameraId, FailoverId, ServerId},
    time::Timestamp,
};

use self::index::Index;
pub use self::{
    index::Filter,
    path::{Kind, Name},
    recovery::Recovered,
};

/// Below the archive: where files of other servers are written before they are verified.
const INCOMING: &str = ".incoming";
const INDEX: &str = "index.db";

/// Why the archive could not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// It can't be used at all.
    #[error("the archive can't be opened at {path}: {reason}")]
    Open {
        /// Where.
        path: PathBuf,
        /// Why, in words.
        reason: String,
    },
    /// A file could not be read, written or made durable.
    #[error("{path} in the archive: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// What the file system said.
        #[source]
        source: io::Error,
    },
    /// The index could not be read or written.
    #[error("the archive's index failed: {0}")]
    Index(#[from] diesel::result::Error),
    /// A path that is not one of the archive.
    #[error("{0:?} is not the path of a segment or snapshot")]
    Path(String),
    /// The work was given up since the process ends.
    #[error("the process ends")]
    Ended,
}

impl ArchiveError {
    fn file(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::File {
            path: path.to_owned(),
            source,
        }
    }
}

/// What a look at a file of the archive says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is what its index says.
    Whole,
    /// It is not; why, in words.
    Damaged(String),
}

/// What retention took.
#[derive(Clone, Debug, Default)]
pub struct Retained {
    /// All segments that were deleted.
    pub removed: Vec<Segment>,
    /// Of these, the ones that another server had still to fetch: they are lost.
    pub lost: Vec<Segment>,
}

/// One server's recordings. Clones share it.
#[derive(Clone, Debug)]
pub struct Archive {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    folder: PathBuf,
    server: ServerId,
    index: Index,
    /// The last entry about filming that an earlier process made.
    filmed_before: i32,
    /// Files that are being written by this process: without a row, and not left behind.
    writing: Mutex<HashSet<String>>,
}

impl Archive {
    /// Opens the archive of `server` in `folder`, and creates it if there is none. Repairs nothing: the
    /// process that records calls [`Archive::recover`], and no other.
    ///
    /// # Errors
    /// [`ArchiveError::Open`] with the reason, e.g. that the folder is not writable.
    pub fn open(folder: impl Into<PathBuf>, server: ServerId) -> Result<Self, ArchiveError> {
        let folder = folder.into();
        let cannot = |error: io::Error| ArchiveError::Open {
            path: folder.clone(),
            reason: error.to_string(),
        };
        fs::create_dir_all(folder.join(INCOMING)).map_err(cannot)?;
        let index = Index::open(&folder.join(INDEX))?;
        let filmed_before = index.last_filming()?;
        let inner = Inner {
            folder,
            server,
            index,
            filmed_before,
            writing: Mutex::default(),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// The folder it lies in.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.inner.folder
    }

    /// The server whose archive it is.
    #[must_use]
    pub fn server(&self) -> &ServerId {
        &self.inner.server
    }

    /// Where to write a file that is to be imported: on the same volume, and cleared by nobody but the
    /// process that fetches.
    #[must_use]
    pub fn incoming(&self) -> PathBuf {
        self.inner.folder.join(INCOMING)
    }

    /// The file of a segment or snapshot.
    ///
    /// # Errors
    /// [`ArchiveError::Path`] if `path` is not one that this archive would give to a file.
    pub fn file(&self, path: &str) -> Result<PathBuf, ArchiveError> {
        Name::parse(path).ok_or_else(|| ArchiveError::Path(path.to_owned()))?;
        Ok(self.inner.folder.join(path))
    }

    /// Segments (and snapshots) that are closed, oldest first.
    ///
    /// # Errors
    /// [`ArchiveError::Index`].
    pub async fn segments(&self, filter: Filter) -> Result<Vec<Segment>, ArchiveError> {
        self.blocking(move |archive| archive.index.closed(&filter)).await
    }

    /// What this server recorded for a failover. It is complete if `complete` says so and nothing filmed for
    /// it is without a row any more.
    ///
    /// # Errors
    /// [`ArchiveError::Index`].
    pub async fn manifest(&self, failover: &FailoverId, complete: bool) -> Result<Manifest, ArchiveError> {
        let failover = failover.clone();
        self.blocking(move |archive| {
            // Asked first: what is closed meanwhile is then in the list.
            let complete = complete && !archive.index.films_for(&failover)?;
            let segments = archive.index.closed(&archive.recorded_for(&failover))?;
            Ok(Manifest {
                failover,
                server: archive.server.clone(),
                complete,
                segments,
            })
        })
        .await
    }

    /// Failovers of which this server still has recordings of its own, those that are filmed for or that a
    /// crash left behind included.
    ///
    /// # Errors
    /// [`ArchiveError::Index`].
    pub async fn failovers(&self) -> Result<BTreeSet<FailoverId>, ArchiveError> {
        self.blocking(|archive| archive.index.failovers(&archive.server))
            .await
    }

    /// Takes over a segment of another server from `temporary`, a file in [`Archive::incoming`] whose bytes
    /// the caller has verified. Once it returns, file and row are durable. Doing it twice is the same.
    ///
    /// # Errors
    /// [`ArchiveError::Path`] for a path that no server gives; else what disk and index say.
    pub async fn import(&self, segment: &Segment, temporary: &Path) -> Result<(), ArchiveError> {
        self.import_all(vec![(segment.clone(), temporary.to_owned())])
            .await
    }

    /// Deletes what this server recorded for a failover, and says how many segments that were.
    ///
    /// # Errors
    /// What disk and index say; what was deleted up to then is forgotten, the rest stays.
    pub async fn erase(&self, failover: &FailoverId) -> Result<usize, ArchiveError> {
        let failover = failover.clone();
        self.blocking(move |archive| {
            let segments = archive.index.closed(&archive.recorded_for(&failover))?;
            archive.delete(&segments).map(|()| segments.len())
        })
        .await
    }

    /// Deletes what breaks the limits of `cameras`, then the oldest of all until `free_bytes` are free on the
    /// volume. Cameras that are not named keep what they have.
    ///
    /// # Errors
    /// What disk and index say.
    pub async fn retain(
        &self,
        now: Timestamp,
        cameras: Vec<Camera>,
        free_bytes: u64,
    ) -> Result<Retained, ArchiveError> {
        self.blocking(move |archive| archive.retain(now, &cameras, free_bytes))
            .await
    }

    /// Reads a segment's file again and compares it with what is said of it. Damaged is what is lost whenever
    /// it is asked for: a file that is gone, that the disk can't read (EIO), or that holds something else.
    ///
    /// # Errors
    /// [`ArchiveError::File`] for what passes and says nothing about the recording, as too many open files or
    /// a missing permission; [`ArchiveError::Path`] for a path that this archive gives to no file.
    pub async fn verify(&self, segment: &Segment) -> Result<Verdict, ArchiveError> {
        let (file, segment) = (self.file(&segment.path)?, segment.clone());
        self.blocking(move |_| match damage(&file, &segment) {
            Ok(None) => Ok(Verdict::Whole),
            Ok(Some(reason)) => Ok(Verdict::Damaged(reason)),
            Err(error) if disk::is_lost(&error) => {
                Ok(Verdict::Damaged(format!("its file can't be read: {error}")))
            }
            Err(error) => Err(ArchiveError::file(&file)(error)),
        })
        .await
    }

    /// Path and hash of each segment that is here or was handed over and has expired since: what need not be
    /// fetched (again).
    ///
    /// # Errors
    /// [`ArchiveError::Index`].
    pub async fn known(&self) -> Result<BTreeSet<(String, String)>, ArchiveError> {
        self.blocking(|archive| Ok(archive.index.known()?.into_iter().collect()))
            .await
    }

    /// How many bytes all segments have.
    ///
    /// # Errors
    /// [`ArchiveError::Index`].
    pub async fn bytes(&self) -> Result<u64, ArchiveError> {
        self.blocking(|archive| archive.index.bytes(None, None)).await
    }

    /// Gives their rows to the files that a crash left behind, cut off after their last whole fragment, and
    /// forgets rows whose files are gone. Only for the process that records, once, after its start; it may
    /// film meanwhile.
    ///
    /// # Errors
    /// What disk and index say; a file that can't be repaired is named in the answer and does not stop it.
    pub async fn recover(&self) -> Result<Recovered, ArchiveError> {
        self.blocking(Inner::recover).await
    }

    /// Notes, durably and before the first file, for which failover is filmed from now on.
    pub(crate) async fn begin_filming(
        &self,
        since: Timestamp,
        failover: Option<FailoverId>,
    ) -> Result<(), ArchiveError> {
        self.blocking(move |archive| archive.index.begin_filming(since, failover.as_ref()))
            .await
    }

    /// Notes that all that was filmed so far is closed and indexed.
    pub(crate) async fn end_filming(&self) -> Result<(), ArchiveError> {
        self.blocking(|archive| archive.index.end_filming(archive.index.last_filming()?))
            .await
    }

    /// Takes a new file for a camera; blocks for as long as the disk needs. If the name is taken (the clock
    /// was set back), the next free one.
    pub(crate) fn create(&self, kind: Kind, camera: &CameraId, start: Timestamp) -> io::Result<NewFile> {
        self.inner.create(kind, camera, start)
    }

    /// Makes a file of this server durable and gives it its row.
    pub(crate) fn close(&self, segment: &Segment) -> Result<(), ArchiveError> {
        let file = self.inner.folder.join(&segment.path);
        disk::sync(&self.inner.folder, &file).map_err(ArchiveError::file(&file))?;
        self.inner.index.add(std::slice::from_ref(segment))?;
        self.inner.written(&segment.path);
        Ok(())
    }

    /// Removes a file in which nothing was recorded.
    pub(crate) fn discard(&self, path: &str) -> io::Result<()> {
        self.inner.written(path);
        disk::delete(&self.inner.folder.join(path))
    }

    /// Repairs a file of this server that could not be finished, as after a crash; none if nothing was in it.
    pub(crate) fn repair(&self, path: &str) -> Result<Option<Segment>, ArchiveError> {
        let repaired = self.inner.repair_one(path);
        self.inner.written(path);
        repaired
    }

    /// A handle for [`Volume::sync`].
    pub(crate) fn volume(&self) -> io::Result<Volume> {
        fs::File::open(&self.inner.folder).map(Volume)
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, ArchiveError> + Send + 'static,
    ) -> Result<T, ArchiveError> {
        let inner = Arc::clone(&self.inner);
        tokio::task::spawn_blocking(move || work(&inner))
            .await
            .unwrap_or(Err(ArchiveError::Ended))
    }
}

/// A file that was taken for a recording.
#[derive(Clone, Debug)]
pub(crate) struct NewFile {
    /// Below the archive.
    pub(crate) path: String,
    /// In the file system.
    pub(crate) file: PathBuf,
    /// When it begins, by its name.
    pub(crate) start: Timestamp,
}

/// The volume that the archive lies on.
#[derive(Debug)]
pub(crate) struct Volume(fs::File);

impl Volume {
    /// Makes everything written so far durable; blocks for as long as that takes.
    pub(crate) fn sync(&self) -> io::Result<()> {
        disk::sync_volume(&self.0)
    }
}

/// In what the file differs from what its row says of it.
fn damage(file: &Path, segment: &Segment) -> io::Result<Option<String>> {
    let bytes = fs::metadata(file)?.len();
    if bytes != segment.bytes {
        return Ok(Some(format!("has {bytes} bytes instead of {}", segment.bytes)));
    }
    let hash = disk::hash(file)?;
    let differs = hash != segment.blake3;
    Ok(differs.then(|| format!("has the hash {hash} instead of {}", segment.blake3)))
}

impl Inner {
    fn recorded_for(&self, failover: &FailoverId) -> Filter {
        Filter {
            failover: Some(failover.clone()),
            recorded_by: Some(self.server.clone()),
            ..Filter::default()
        }
    }

    fn create(&self, kind: Kind, camera: &CameraId, start: Timestamp) -> io::Result<NewFile> {
        let mut name = Name {
            kind,
            camera: camera.clone(),
            start,
            server: self.server.clone(),
        };
        loop {
            let path = name.path();
            let file = self.folder.join(&path);
            disk::create_folder_of(&file)?;
            self.writing().insert(path.clone());
            match disk::reserve(&file) {
                Ok(()) => {
                    return Ok(NewFile {
                        path,
                        file,
                        start: name.start,
                    });
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    name.start = Timestamp(name.start.as_millis() + 1);
                }
                Err(error) => {
                    self.written(&path);
                    return Err(error);
                }
            }
        }
    }

    fn writing(&self) -> std::sync::MutexGuard<'_, HashSet<String>> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn written(&self, path: &str) {
        self.writing().remove(path);
    }

    /// Files first: a row without a file is dropped at the next recovery, a file without a row comes back.
    fn delete(&self, segments: &[Segment]) -> Result<(), ArchiveError> {
        let mut gone = Vec::new();
        let mut failed = Ok(());
        for segment in segments {
            let file = self.folder.join(&segment.path);
            match disk::delete(&file) {
                Ok(()) => gone.push(segment.path.clone()),
                Err(error) => failed = Err(ArchiveError::file(&file)(error)),
            }
            // A day's folder goes with its last file; that it is not empty is no error.
            let _ = file.parent().map(fs::remove_dir);
        }
        self.index.remove(&gone, &self.server)?;
        failed
    }

    fn retain(&self, now: Timestamp, cameras: &[Camera], free_bytes: u64) -> Result<Retained, ArchiveError> {
        let mut retained = Retained::default();
        for camera in cameras
            .iter()
            .filter(|camera| camera.retention != Retention::default())
        {
            let oldest = self.index.oldest(Some(&camera.id), &self.server, false)?;
            let bytes = self.index.bytes(Some(&camera.id), Some(&self.server))?;
            let beyond = retention::beyond_limits(&oldest, bytes, camera.retention, now);
            self.delete(beyond)?;
            retained.removed.extend_from_slice(beyond);
        }
        for held in [false, true] {
            let free = disk::free_bytes(&self.folder).map_err(ArchiveError::file(&self.folder))?;
            if free >= free_bytes {
                break;
            }
            let oldest = self.index.oldest(None, &self.server, held)?;
            let taken = retention::to_make_room(&oldest, free_bytes - free);
            self.delete(taken)?;
            retained.removed.extend_from_slice(taken);
            if held {
                retained.lost.extend_from_slice(taken);
            }
        }
        for segment in &retained.lost {
            tracing::error!(
                segment.path,
                "the disk is full: a recording is lost before it was handed back"
            );
        }
        Ok(retained)
    }
}
