//! The archive: segments and snapshots as files, and the index of them.
//!
//! A file that has no row in the index is being written, could not be closed, or was left behind by a crash;
//! [`Archive::mend`] and [`Archive::recover`] give the latter their rows. A row never comes before its file is durable, and a file never goes after
//! its row: so whatever is interrupted, nothing is orphaned. Another server's files come in through
//! [`Archive::import`] only.

mod disk;
mod everything;
mod import;
mod index;
pub mod mp4;
mod path;
mod recovery;
mod refusals;
pub mod retention;
mod unfinished;

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use understudy_core::{
    camera::{Camera, Retention},
    contract::segment::{Manifest, Segment},
    ids::{CameraId, FailoverId, ServerId},
    restoration,
    time::Timestamp,
};

pub use self::{
    everything::Everything,
    index::Filter,
    path::{Kind, Name},
    recovery::Recovered,
    refusals::Refusals,
};
use self::{
    index::{Index, UNKNOWN},
    unfinished::Unfinished,
};

/// Below the archive: where files of other servers are written before they are verified.
const INCOMING: &str = ".incoming";
const INDEX: &str = "index.db";
/// Below the archive: damaged recordings that an erasure kept.
const DAMAGED: &str = ".damaged";

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
    unfinished: Unfinished,
    refusals: Refusals,
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
        let unfinished = Unfinished::new(index.filming()?);
        let inner = Inner {
            folder,
            server,
            index,
            unfinished,
            refusals: Refusals::default(),
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
            // Asked first: what is closed meanwhile is then in the list, and nothing of a later beginning counts as listed.
            let begun = archive.index.begun(&failover)?;
            let complete = complete && !archive.index.films_for(&failover)?;
            let segments = archive.index.closed(&archive.recorded_for(&failover))?;
            Ok(Manifest {
                failover,
                server: archive.server.clone(),
                complete,
                segments,
                begun,
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

    /// Deletes what this server recorded for a failover, and says how many segments that were; with `up_to` only if it
    /// has not begun to film for it after that beginning (else none, and nothing is deleted). Files that are
    /// not what their rows say were not handed back, and may hold all but a few bytes of a minute that nobody
    /// else has: they are put aside into `.damaged/<failover>/`, until the volume is short.
    ///
    /// # Errors
    /// What disk and index say; what was deleted up to then is forgotten, the rest stays.
    pub async fn erase(
        &self,
        failover: &FailoverId,
        up_to: Option<u64>,
    ) -> Result<Option<usize>, ArchiveError> {
        let failover = failover.clone();
        self.blocking(move |archive| archive.erase(&failover, up_to))
            .await
    }

    /// Makes what this server recorded for a failover its own, as if it had recorded it for nobody else, and says how
    /// many segments that were: nobody will fetch it, and retention treats it like the rest. Doing it twice is the
    /// same.
    ///
    /// # Errors
    /// [`ArchiveError::Index`].
    pub async fn keep(&self, failover: &FailoverId) -> Result<usize, ArchiveError> {
        let failover = failover.clone();
        self.blocking(move |archive| archive.index.keep(&failover, &archive.server))
            .await
    }

    /// Deletes what breaks the limits of `cameras`, then the oldest of all until `free_bytes` are free on the
    /// volume, damaged ones that were put aside first. Cameras that are not named keep what they have.
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

    /// Deletes the oldest of all until `free_bytes` are free on the volume, damaged ones that were put aside first.
    /// Asks the volume alone as long as there is room, so that it can be called every second.
    ///
    /// # Errors
    /// What disk and index say.
    pub async fn make_room(&self, free_bytes: u64) -> Result<Retained, ArchiveError> {
        self.blocking(move |archive| {
            let mut retained = Retained::default();
            archive.make_room(free_bytes, &mut retained)?;
            Ok(retained)
        })
        .await
    }

    /// Reads a segment's file again and compares it with what is said of it. Damaged is what is lost whenever
    /// it is asked for: a file that is gone, that the disk can't read (EIO), or that holds something else. That
    /// is kept in mind for [`Archive::erase`].
    ///
    /// # Errors
    /// [`ArchiveError::File`] for what passes and says nothing about the recording, as too many open files or
    /// a missing permission; [`ArchiveError::Path`] for a path that this archive gives to no file.
    pub async fn verify(&self, segment: &Segment) -> Result<Verdict, ArchiveError> {
        let (file, segment) = (self.file(&segment.path)?, segment.clone());
        self.blocking(move |archive| {
            let damage = match damage(&file, &segment) {
                Err(error) if disk::is_lost(&error) => Some(format!("its file can't be read: {error}")),
                damage => damage.map_err(ArchiveError::file(&file))?,
            };
            archive.index.mark(&segment.path, damage.as_deref())?;
            Ok(damage.map_or(Verdict::Whole, Verdict::Damaged))
        })
        .await
    }

    /// Path and hash of each segment of a failover that is here or was handed over and has expired since: what need
    /// not be fetched (again).
    ///
    /// # Errors
    /// [`ArchiveError::Index`].
    pub async fn known(&self, failover: &FailoverId) -> Result<BTreeSet<(String, String)>, ArchiveError> {
        let failover = failover.clone();
        self.blocking(move |archive| Ok(archive.index.known(&failover)?.into_iter().collect()))
            .await
    }

    /// How many bytes all segments have.
    ///
    /// # Errors
    /// [`ArchiveError::Index`].
    pub async fn bytes(&self) -> Result<u64, ArchiveError> {
        self.blocking(|archive| archive.index.bytes(None, None)).await
    }

    /// Bytes per second that this server's own recordings of some cameras took since a moment, summed over them; none
    /// if there are none. Gaps don't count.
    ///
    /// # Errors
    /// [`ArchiveError::Index`].
    pub async fn rate(&self, cameras: Vec<CameraId>, since: Timestamp) -> Result<Option<u64>, ArchiveError> {
        self.blocking(move |archive| {
            let mut rate = None;
            for camera in &cameras {
                let (bytes, millis) = archive.index.recorded_since(camera, &archive.server, since)?;
                if let Some(each) = bytes.saturating_mul(1000).checked_div(millis) {
                    rate = Some(rate.unwrap_or(0_u64).saturating_add(each));
                }
            }
            Ok(rate)
        })
        .await
    }

    /// How many bytes are free on its volume, for anybody.
    ///
    /// # Errors
    /// What the disk says.
    pub async fn free_bytes(&self) -> Result<u64, ArchiveError> {
        self.blocking(Inner::free_bytes).await
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

    /// Tries once more to repair what could not be closed or repaired, and says how much of it is left. What
    /// was filmed for a failover and stays beyond repair is named in its manifest after half a minute of one
    /// try a second, so that nothing is lost in silence.
    ///
    /// # Errors
    /// What the index says: then nothing can be named, and it has to be tried again.
    pub async fn mend(&self) -> Result<usize, ArchiveError> {
        self.blocking(Inner::mend).await
    }

    /// Whether something filmed for `failover` may still be without a row.
    ///
    /// # Errors
    /// [`ArchiveError::Index`].
    pub async fn films_for(&self, failover: &FailoverId) -> Result<bool, ArchiveError> {
        let failover = failover.clone();
        self.blocking(move |archive| archive.index.films_for(&failover))
            .await
    }

    /// Notes, durably and before the first file, for which failover is filmed from now on.
    pub(crate) async fn begin_filming(
        &self,
        since: Timestamp,
        failover: Option<FailoverId>,
    ) -> Result<(), ArchiveError> {
        self.blocking(move |archive| archive.begin_filming(since, failover))
            .await
    }

    /// How often filming was begun: for [`Archive::end_filming`].
    pub(crate) fn filmings(&self) -> usize {
        self.inner.unfinished.filmings()
    }

    /// Notes that nothing is written any more of what was begun up to a count of [`Archive::filmings`]. What
    /// of it could not be closed holds its failover open until it is mended.
    pub(crate) async fn end_filming(&self, begun: usize) -> Result<(), ArchiveError> {
        self.blocking(move |archive| archive.end_filming(begun)).await
    }

    /// Whether files are without a row, written or left.
    pub(crate) fn is_writing(&self) -> bool {
        !self.inner.unfinished.is_empty()
    }

    /// Whether there is something to [`Archive::mend`].
    pub(crate) fn is_left(&self) -> bool {
        self.inner.unfinished.has_left()
    }

    /// Takes a new file for a camera; blocks for as long as the disk needs. If the name is taken (the clock
    /// was set back), the next free one.
    pub(crate) fn create(
        &self,
        kind: Kind,
        camera: &CameraId,
        start: Timestamp,
        failover: Option<&FailoverId>,
    ) -> io::Result<NewFile> {
        self.inner.create(kind, camera, start, failover)
    }

    /// Makes a file of this server durable and gives it its row; if that fails, it is left to be mended.
    pub(crate) fn close(&self, segment: &Segment) -> Result<(), ArchiveError> {
        self.inner.close(segment)
    }

    /// Removes a file in which nothing was recorded.
    pub(crate) fn discard(&self, path: &str) -> Result<(), ArchiveError> {
        self.inner.discard(path)
    }

    /// Repairs a file of this server that could not be finished, as after a crash; if that fails, it is left
    /// to be mended.
    pub(crate) fn repair(&self, path: &str) -> Result<(), ArchiveError> {
        self.inner.repair_one(path)
    }

    /// Nobody writes a file any more that was never closed: it is left to be mended.
    pub(crate) fn leave(&self, path: &str) {
        tracing::error!(
            segment.path = path,
            "a defect: a segment was given up before it was closed"
        );
        self.inner.unfinished.leave(path);
    }

    /// What its volume refused.
    #[must_use]
    pub fn refusals(&self) -> &Refusals {
        &self.inner.refusals
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
    if segment.blake3 == UNKNOWN && segment.bytes == 0 && !file.exists() {
        return Ok(Some(
            "the disk was full: it was deleted before it was handed back".to_owned(),
        ));
    }
    if segment.blake3 == UNKNOWN {
        return Ok(Some("could not be repaired".to_owned()));
    }
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

    fn erase(&self, failover: &FailoverId, up_to: Option<u64>) -> Result<Option<usize>, ArchiveError> {
        let segments = self.index.closed(&self.recorded_for(failover))?;
        // Asked after: what a later beginning adds is not in the list.
        if !restoration::may_erase(self.index.begun(failover)?, up_to) {
            return Ok(None);
        }
        let damaged = self.index.damaged(failover, &self.server)?;
        let aside = self.folder.join(DAMAGED).join(failover.as_str());
        for segment in &segments {
            let file = self.folder.join(&segment.path);
            let another_length = || fs::metadata(&file).is_ok_and(|found| found.len() != segment.bytes);
            if damaged.contains_key(&segment.path) || another_length() {
                let kept = aside.join(&segment.path);
                if disk::put_aside(&file, &kept).map_err(ArchiveError::file(&file))? {
                    let reason = damaged
                        .get(&segment.path)
                        .map_or("another length", String::as_str);
                    tracing::warn!(
                        segment.path, reason, kept = %kept.display(),
                        "a damaged recording is put aside, not erased"
                    );
                }
            }
        }
        self.delete(&segments)?;
        Ok(Some(segments.len()))
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
        self.make_room(free_bytes, &mut retained)?;
        Ok(retained)
    }

    fn free_bytes(&self) -> Result<u64, ArchiveError> {
        disk::free_bytes(&self.folder).map_err(ArchiveError::file(&self.folder))
    }

    fn make_room(&self, free_bytes: u64, retained: &mut Retained) -> Result<(), ArchiveError> {
        let missing = || -> Result<u64, ArchiveError> {
            let free = self.free_bytes()?;
            Ok(free_bytes.saturating_sub(free))
        };
        let bytes = missing()?;
        if bytes == 0 {
            return Ok(());
        }
        let aside = self.folder.join(DAMAGED);
        disk::delete_oldest(&aside, bytes).map_err(ArchiveError::file(&aside))?;
        for held in [false, true] {
            let bytes = missing()?;
            if bytes == 0 {
                break;
            }
            let oldest = self.index.oldest(None, &self.server, held)?;
            let taken = retention::to_make_room(&oldest, bytes);
            self.delete(taken)?;
            retained.removed.extend_from_slice(taken);
            if held {
                self.name_lost(taken)?;
                retained.lost.extend_from_slice(taken);
            }
        }
        Ok(())
    }

    /// What another server had still to fetch stays in the manifest, as something that can't be had: nothing is lost
    /// in silence.
    fn name_lost(&self, taken: &[Segment]) -> Result<(), ArchiveError> {
        let reason = "the disk was full: it was deleted before it was handed back";
        let named: Vec<(Segment, Option<String>)> = taken
            .iter()
            .map(|segment| {
                tracing::error!(segment.path, "{reason}");
                let lost = Segment {
                    bytes: 0,
                    blake3: UNKNOWN.to_owned(),
                    ..segment.clone()
                };
                (lost, Some(reason.to_owned()))
            })
            .collect();
        self.index.add_found(&named)
    }
}
