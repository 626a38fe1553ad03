//! All cameras of a server: told which to film, it starts and stops the difference, and says how each is.
//! Opens all sessions at once. Does not decide what is filmed, nor what becomes of the recordings.

mod board;
mod opening;
mod take;

use std::{
    collections::BTreeMap,
    panic::AssertUnwindSafe,
    sync::{
        Arc, PoisonError, RwLock, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::FutureExt;
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, Semaphore, mpsc, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use understudy_core::{
    camera::Camera,
    contract::{
        heartbeat::{CameraFault, CameraStatus},
        segment::Segment,
    },
    ids::{CameraId, FailoverId, ServerId},
    policy::Range,
    time::Timestamp,
};

pub use self::opening::Cause;
use self::{board::Board, opening::Opening, take::Take};
use crate::{
    archive::Archive,
    camera::{Fanout, Fault},
    recorder::{self, GIVEN_UP_KIB, Purpose, Shared},
    snapshot::{self, SnapshotError},
};

/// How many files are opened or closed at once. More does not go faster on any disk, and fewer would let
/// ninety cameras wait for each other.
const DISK_THREADS: usize = 8;
/// How long all segments together get to be closed before it is said that they are not.
const CLOSING: Duration = Duration::from_secs(30);
/// How often what could not be closed is tried again.
const MENDING: Duration = Duration::from_secs(1);
/// How often what was written is made durable: what a power cut can cost is twice that.
const DURABLE_EVERY: Duration = Duration::from_secs(1);
/// How often it is looked whether somebody still writes for what was filmed before.
const LEAVING: Duration = Duration::from_millis(100);
/// After a panic in a camera's task, before it is started again.
const AFTER_PANIC: Duration = Duration::from_secs(5);

/// How filming is done. Times in milliseconds but where the name says otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StudioConfig {
    /// How long a segment is.
    pub segment_seconds: u64,
    /// After how long without a frame a camera counts as silent.
    pub silence_ms: u64,
    /// How long a camera gets to answer, from the connection to the first packet asked for.
    pub connect_ms: u64,
}

impl Default for StudioConfig {
    fn default() -> Self {
        Self {
            segment_seconds: 60,
            silence_ms: 5_000,
            connect_ms: 5_000,
        }
    }
}

/// What is to be filmed.
#[derive(Clone, Debug)]
pub struct Film {
    /// The recording server whose cameras these are.
    pub identity: ServerId,
    /// The failover for which it is filmed; none for the recording server itself.
    pub failover: Option<FailoverId>,
    /// Whether anything is recorded.
    pub range: Range,
    /// All cameras that are wanted; others are stopped.
    pub cameras: Vec<Camera>,
}

/// Films. Clones share it; [`Studio::close`] it before the process ends.
#[derive(Clone)]
pub struct Studio {
    inner: Arc<Inner>,
}

struct Inner {
    config: StudioConfig,
    board: Board,
    recorder: Shared,
    purpose: watch::Sender<Arc<Purpose>>,
    volume: watch::Sender<(u64, String)>,
    running: Mutex<Running>,
    /// What is running, for whoever watches: asked without ever waiting for a disk.
    live: RwLock<BTreeMap<CameraId, Arc<Fanout>>>,
    damaged: Arc<AtomicU64>,
    /// What runs as long as the studio.
    always: TaskTracker,
    closed: CancellationToken,
}

#[derive(Default)]
struct Running {
    cameras: BTreeMap<CameraId, Filmed>,
    at_work: AtWork,
    /// What was last noted in the index; none while nothing is filmed.
    noted: Option<Option<FailoverId>>,
}

/// What has to end before all that was filmed since the last stop is closed.
#[derive(Default)]
struct AtWork {
    /// Cameras' tasks, those that are being stopped included.
    tasks: TaskTracker,
    /// Segments that are being opened or closed.
    closing: TaskTracker,
}

struct Filmed {
    camera: Camera,
    fanout: Arc<Fanout>,
    stop: CancellationToken,
}

impl Studio {
    /// Gets ready to film into `archive`, which loads GStreamer: at a machine's first start that takes
    /// seconds, so do it before anything is waited for. Needs a tokio runtime.
    ///
    /// # Errors
    /// A [`Fault`] if GStreamer lacks an element.
    pub async fn new(archive: Archive, config: StudioConfig) -> Result<Self, Fault> {
        let prepared = tokio::task::spawn_blocking(recorder::prepare).await;
        prepared
            .unwrap_or_else(|_| Err(Fault::new(CameraFault::Storage, "GStreamer could not be loaded")))?;
        let recorder = Shared {
            segment: Duration::from_secs(config.segment_seconds.max(1)),
            archive,
            closing: TaskTracker::new(),
            disk: Arc::new(Semaphore::new(DISK_THREADS)),
            given_up: Arc::new(Semaphore::new(GIVEN_UP_KIB)),
        };
        let nothing = Purpose {
            recorded: false,
            failover: None,
            noted: CancellationToken::new(),
            in_use: Arc::default(),
        };
        let inner = Arc::new(Inner {
            config,
            board: Board::default(),
            recorder,
            purpose: watch::Sender::new(Arc::new(nothing)),
            volume: watch::Sender::new((0, String::new())),
            running: Mutex::default(),
            live: RwLock::default(),
            damaged: Arc::default(),
            always: TaskTracker::new(),
            closed: CancellationToken::new(),
        });
        let durable = keep_durable(inner.recorder.archive.clone(), inner.volume.clone());
        let mending = mend(inner.recorder.archive.clone());
        let until = inner.closed.clone();
        inner.always.spawn(async move {
            until
                .run_until_cancelled(async { tokio::join!(durable, mending) })
                .await
        });
        Ok(Self { inner })
    }

    /// Films these cameras from now on, and no others. Returns as soon as all of them are being connected
    /// to; what is stopped closes its segments in the background. What goes on is not interrupted: a new
    /// failover's recordings begin with each camera's next key frame.
    pub async fn film(&self, film: Film) {
        self.film_because(film, None).await;
    }

    /// As [`Studio::film`]; how each camera that is begun comes to be filmed is recorded as a part of `cause`.
    pub async fn film_because(&self, film: Film, cause: Option<Cause>) {
        let inner = &self.inner;
        let mut running = inner.running.lock().await;
        // Before the first frame, so that a file belongs to it by its time.
        let since = understudy_runtime::clock::wall();
        let wanted: BTreeMap<CameraId, Camera> = film
            .cameras
            .into_iter()
            .map(|camera| (camera.id.clone(), camera))
            .collect();
        let changed = running.noted.as_ref() != Some(&film.failover);
        let before = Arc::clone(&inner.purpose.borrow());
        let purpose = Arc::new(Purpose {
            recorded: film.range == Range::Full,
            failover: film.failover.clone(),
            noted: if changed {
                CancellationToken::new()
            } else {
                before.noted.clone()
            },
            in_use: if changed {
                Arc::default()
            } else {
                Arc::clone(&before.in_use)
            },
        });
        inner.purpose.send_replace(Arc::clone(&purpose));
        // What was filmed for something else is filmed on: each camera cuts at its next key frame.
        if changed && running.noted.is_some() {
            let (archive, begun) = (inner.recorder.archive.clone(), inner.recorder.archive.filmings());
            let over = end_purpose(Arc::downgrade(&before.in_use), archive, begun);
            let until = inner.closed.clone();
            inner
                .always
                .spawn(async move { until.run_until_cancelled(over).await });
        }
        drop(before);
        running.cameras.retain(|id, filmed| {
            let stays = wanted
                .get(id)
                .is_some_and(|camera| is_same_session(camera, &filmed.camera));
            if !stays {
                filmed.stop.cancel();
                inner.board.remove(id);
            }
            stays
        });
        let Running { cameras, at_work, .. } = &mut *running;
        for (id, camera) in wanted {
            if !camera.enabled {
                let reason = "disabled in its settings".to_owned();
                inner.board.set(&id, CameraStatus::Disabled { reason });
            } else if let std::collections::btree_map::Entry::Vacant(entry) = cameras.entry(id) {
                entry.insert(inner.start(camera, at_work, cause.as_ref()));
            }
        }
        inner.show(&running.cameras);
        if changed {
            // The cameras connect meanwhile; their first files wait for it.
            self.note(since, film.failover.clone()).await;
            purpose.noted.cancel();
            running.noted = Some(film.failover);
        }
    }

    async fn note(&self, since: Timestamp, failover: Option<FailoverId>) {
        if let Err(error) = self.inner.recorder.archive.begin_filming(since, failover).await {
            // Filming goes first, and it is tried again once a second. What a crash leaves behind before counts
            // for no failover.
            tracing::error!(%error, "it could not be noted for which failover is filmed");
        }
    }

    /// Films nothing any more. Returns when all segments are closed and indexed, or after half a minute if
    /// the disk does not answer. Then they go on being closed, and until they are no manifest says complete
    /// and [`Archive::films_for`] says so.
    pub async fn stop_filming(&self) {
        let inner = &self.inner;
        let mut running = inner.running.lock().await;
        for (id, filmed) in std::mem::take(&mut running.cameras) {
            filmed.stop.cancel();
            inner.board.remove(&id);
        }
        inner.show(&running.cameras);
        for id in inner.board.all().into_keys() {
            inner.board.remove(&id);
        }
        // What is filmed from now on is counted anew, and never waits for these.
        let at_work = std::mem::take(&mut running.at_work);
        running.noted = None;
        let archive = inner.recorder.archive.clone();
        let begun = archive.filmings();
        drop(running);
        let until = inner.closed.clone();
        let closing = inner.always.spawn(async move {
            until
                .run_until_cancelled(close_all(at_work, archive, begun, CLOSING))
                .await
        });
        // If the time is over, the task goes on, and says so itself.
        let _ = tokio::time::timeout(CLOSING, closing).await;
    }

    /// Stops filming, and everything else.
    pub async fn close(&self) {
        self.stop_filming().await;
        self.inner.closed.cancel();
        self.inner.always.close();
        self.inner.always.wait().await;
    }

    /// How each camera is, then each change. At most a hundred or so wait; a camera that changes meanwhile
    /// is told once, as it is then. Ends with the studio.
    #[must_use]
    pub fn statuses(&self) -> mpsc::Receiver<(CameraId, CameraStatus)> {
        let (receiver, pump) = self.inner.board.tell();
        let until = self.inner.closed.clone();
        self.inner
            .always
            .spawn(async move { until.run_until_cancelled(pump).await });
        receiver
    }

    /// How each camera is at the moment.
    #[must_use]
    pub fn now(&self) -> BTreeMap<CameraId, CameraStatus> {
        self.inner.board.all()
    }

    /// The frames of a camera that is filmed, from its one session, for as long as it is filmed.
    #[must_use]
    pub fn fanout(&self, camera: &CameraId) -> Option<Arc<Fanout>> {
        let live = self.inner.live.read().unwrap_or_else(PoisonError::into_inner);
        live.get(camera).map(Arc::clone)
    }

    /// How many pictures were left out so far because they, or what they build on, were damaged on their way.
    #[must_use]
    pub fn damaged_pictures(&self) -> u64 {
        self.inner.damaged.load(Ordering::Relaxed)
    }

    /// Keeps a picture of what a camera shows, as a JPEG file of the archive.
    ///
    /// # Errors
    /// [`SnapshotError`], e.g. that the camera does not film.
    pub async fn snapshot(&self, camera: &CameraId) -> Result<Segment, SnapshotError> {
        let running = self.inner.running.lock().await;
        let fanout = self.fanout(camera).ok_or(SnapshotError::NoPicture)?;
        let frame = fanout.key_frame().ok_or(SnapshotError::NoPicture)?;
        // Both are held for as long as the picture is written, so that neither a stop nor another purpose counts
        // as done before: a manifest that says complete has it.
        let writing = running.at_work.closing.token();
        let purpose = Arc::clone(&self.inner.purpose.borrow());
        drop(running);
        let failover = purpose.failover.clone();
        let shared = &self.inner.recorder;
        let kept = snapshot::keep(&shared.archive, camera.clone(), frame, failover, &shared.disk).await;
        drop((purpose, writing));
        kept
    }
}

impl Inner {
    fn show(&self, cameras: &BTreeMap<CameraId, Filmed>) {
        let fanouts = cameras
            .iter()
            .map(|(id, filmed)| (id.clone(), Arc::clone(&filmed.fanout)));
        *self.live.write().unwrap_or_else(PoisonError::into_inner) = fanouts.collect();
    }

    fn start(&self, camera: Camera, at_work: &AtWork, cause: Option<&Cause>) -> Filmed {
        let stop = CancellationToken::new();
        let fanout = Arc::new(Fanout::new(stop.clone()));
        let take = Take {
            camera: camera.clone(),
            config: self.config.clone(),
            board: self.board.clone(),
            fanout: Arc::clone(&fanout),
            recorder: Shared {
                closing: at_work.closing.clone(),
                ..self.recorder.clone()
            },
            purpose: self.purpose.subscribe(),
            volume: self.volume.subscribe(),
            damaged: Arc::clone(&self.damaged),
            stop: stop.clone(),
            opening: Opening::begin(cause, &camera.id).map(Arc::new),
        };
        self.board.set(&camera.id, CameraStatus::Connecting);
        at_work.tasks.spawn(run_contained(take));
        Filmed { camera, fanout, stop }
    }
}

/// Waits until all that was filmed is closed, however long the disk takes, and notes it. Complains each time
/// that `patience` is over.
async fn close_all(at_work: AtWork, archive: Archive, begun: usize, patience: Duration) {
    let closed = async {
        for tracker in [&at_work.tasks, &at_work.closing] {
            tracker.close();
            tracker.wait().await;
        }
        while let Err(error) = archive.end_filming(begun).await {
            tracing::error!(%error, "it can't be noted yet that all segments are closed");
            tokio::time::sleep(MENDING).await;
        }
    };
    let mut closed = std::pin::pin!(closed);
    let mut waited = Duration::ZERO;
    while tokio::time::timeout(patience, &mut closed).await.is_err() {
        waited += patience;
        tracing::error!(
            waited_seconds = waited.as_secs(),
            "the disk does not answer: segments are still being closed, and can't be handed back before"
        );
    }
    if !waited.is_zero() {
        tracing::info!("all segments are closed at last");
    }
}

/// Ends a purpose in the index once nobody writes for it any more.
async fn end_purpose(in_use: Weak<()>, archive: Archive, begun: usize) {
    while in_use.strong_count() > 0 {
        tokio::time::sleep(LEAVING).await;
    }
    while let Err(error) = archive.end_filming(begun).await {
        tracing::error!(%error, "it can't be noted yet that all segments are closed");
        tokio::time::sleep(MENDING).await;
    }
}

/// Repairs what could not be closed, again and again.
async fn mend(archive: Archive) {
    let mut ticks = tokio::time::interval(MENDING);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if archive.is_left()
            && let Err(error) = archive.mend().await
        {
            tracing::error!(%error, "segments that could not be closed can't be repaired yet");
        }
    }
}

/// Runs a camera; a panic is that camera's fault alone, and it is started again.
async fn run_contained(take: Take) {
    let panicked = || {
        tracing::error!(camera.id = %take.camera.id, "a defect: the camera's task panicked");
        let detail = "a defect in this program; it is tried again".to_owned();
        let fault = CameraFault::Garbage;
        take.board
            .set(&take.camera.id, CameraStatus::Lost { fault, detail });
    };
    contain(&take.stop, AFTER_PANIC, || take.clone().run(), panicked).await;
}

/// Runs what `begin` begins, to its end; each time it panics it is told, and begun again after a pause.
async fn contain<F: Future<Output = ()>>(
    stop: &CancellationToken,
    pause: Duration,
    begin: impl Fn() -> F,
    panicked: impl Fn(),
) {
    while AssertUnwindSafe(begin()).catch_unwind().await.is_err() {
        panicked();
        let pause = tokio::time::sleep(pause);
        if stop.run_until_cancelled(pause).await.is_none() {
            return;
        }
    }
}

/// Whether a camera's session can go on with its new settings.
fn is_same_session(new: &Camera, old: &Camera) -> bool {
    new.enabled
        && new.url == old.url
        && new.credentials == old.credentials
        && new.recording == old.recording
        && new.transport == old.transport
}

/// Makes all that was written durable, again and again, for all cameras at once. A failure means that what
/// was written may be lost, so every segment is begun anew.
async fn keep_durable(archive: Archive, failures: watch::Sender<(u64, String)>) {
    let mut ticks = tokio::time::interval(DURABLE_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if !archive.is_writing() {
            // No segment is open, none is being closed.
            continue;
        }
        let volume = archive.clone();
        let synced = tokio::task::spawn_blocking(move || volume.volume()?.sync()).await;
        if let Ok(Err(error)) = synced {
            archive.refusals().note(&error);
            tracing::error!(%error, "the recording volume does not keep what is written");
            failures.send_modify(|(count, reason)| {
                *count += 1;
                *reason = format!("the volume does not keep what is written: {error}");
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test]
    async fn e1_a_panic_is_told_and_the_camera_is_begun_again() {
        let (begun, told) = (Cell::new(0), Cell::new(0));
        let begin = || {
            begun.set(begun.get() + 1);
            let number = begun.get();
            async move { assert!(number > 2, "a defect") }
        };
        let stop = CancellationToken::new();
        contain(&stop, Duration::ZERO, begin, || told.set(told.get() + 1)).await;
        assert_eq!((begun.get(), told.get()), (3, 2));
    }

    #[tokio::test]
    async fn g2_a_disk_that_hangs_for_long_ends_the_filming_when_it_answers_at_last() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let archive = Archive::open(folder.path(), ServerId::new("spare-1")?)?;
        let f_1 = FailoverId::new("f-1")?;
        archive.begin_filming(Timestamp(0), Some(f_1.clone())).await?;
        let at_work = AtWork::default();
        let hung = at_work.closing.token();
        let closing = tokio::spawn(close_all(
            at_work,
            archive.clone(),
            archive.filmings(),
            Duration::from_millis(1),
        ));
        assert!(archive.films_for(&f_1).await?);
        assert!(!closing.is_finished());
        drop(hung);
        closing.await?;
        assert!(!archive.films_for(&f_1).await?);
        Ok(())
    }
}
