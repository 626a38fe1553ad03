//! All cameras of a server: told which to film, it starts and stops the difference, and says how each is.
//! Opens all sessions at once. Does not decide what is filmed, nor what becomes of the recordings.

mod board;
mod take;

use std::{collections::BTreeMap, panic::AssertUnwindSafe, sync::Arc, time::Duration};

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
};

use self::{board::Board, take::Take};
use crate::{
    archive::Archive,
    camera::{Fanout, Fault},
    recorder::{self, Purpose, Shared},
    snapshot::{self, SnapshotError},
};

/// How many files are opened or closed at once. More does not go faster on any disk, and fewer would let
/// ninety cameras wait for each other.
const DISK_THREADS: usize = 8;
/// How long all segments together get to be closed.
const CLOSING: Duration = Duration::from_secs(30);
/// How often what was written is made durable: what a power cut can cost is twice that.
const DURABLE_EVERY: Duration = Duration::from_secs(1);
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
    /// Cameras' tasks, those that are being stopped included.
    tasks: TaskTracker,
    /// What runs as long as the studio.
    always: TaskTracker,
    closed: CancellationToken,
}

#[derive(Default)]
struct Running {
    cameras: BTreeMap<CameraId, Filmed>,
    /// What was last noted in the index; none while nothing is filmed.
    noted: Option<Option<FailoverId>>,
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
        };
        let nothing = Purpose {
            recorded: false,
            failover: None,
            noted: CancellationToken::new(),
        };
        let inner = Arc::new(Inner {
            config,
            board: Board::default(),
            recorder,
            purpose: watch::Sender::new(Arc::new(nothing)),
            volume: watch::Sender::new((0, String::new())),
            running: Mutex::default(),
            tasks: TaskTracker::new(),
            always: TaskTracker::new(),
            closed: CancellationToken::new(),
        });
        let durable = keep_durable(inner.recorder.clone(), inner.volume.clone());
        let until = inner.closed.clone();
        inner
            .always
            .spawn(async move { until.run_until_cancelled(durable).await });
        Ok(Self { inner })
    }

    /// Films these cameras from now on, and no others. Returns as soon as all of them are being connected
    /// to; what is stopped closes its segments in the background. What goes on is not interrupted: a new
    /// failover's recordings begin with each camera's next key frame.
    pub async fn film(&self, film: Film) {
        let inner = &self.inner;
        let mut running = inner.running.lock().await;
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
        });
        inner.purpose.send_replace(Arc::clone(&purpose));
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
        for (id, camera) in wanted {
            if !camera.enabled {
                let reason = "disabled in its settings".to_owned();
                inner.board.set(&id, CameraStatus::Disabled { reason });
            } else if let std::collections::btree_map::Entry::Vacant(entry) = running.cameras.entry(id) {
                entry.insert(inner.start(camera));
            }
        }
        if changed {
            // The cameras connect meanwhile; their first files wait for it.
            self.note(film.failover.clone()).await;
            purpose.noted.cancel();
            running.noted = Some(film.failover);
        }
    }

    async fn note(&self, failover: Option<FailoverId>) {
        let now = understudy_runtime::clock::wall();
        if let Err(error) = self.inner.recorder.archive.begin_filming(now, failover).await {
            // Filming goes first. What a crash leaves behind before the next note counts for no failover.
            tracing::error!(%error, "it could not be noted for which failover is filmed");
        }
    }

    /// Films nothing any more. Returns when all segments are closed and indexed, or after half a minute if
    /// the disk does not answer: then no manifest says complete before the next recovery.
    pub async fn stop_filming(&self) {
        let inner = &self.inner;
        let mut running = inner.running.lock().await;
        for (id, filmed) in std::mem::take(&mut running.cameras) {
            filmed.stop.cancel();
            inner.board.remove(&id);
        }
        for id in inner.board.all().into_keys() {
            inner.board.remove(&id);
        }
        let closed = async {
            for tracker in [&inner.tasks, &inner.recorder.closing] {
                tracker.close();
                tracker.wait().await;
            }
        };
        let closed = tokio::time::timeout(CLOSING, closed).await.is_ok();
        inner.tasks.reopen();
        inner.recorder.closing.reopen();
        if !closed {
            // They go on in the background; what they don't finish, the next recovery does.
            tracing::error!("the disk does not answer: not all segments could be closed");
        } else if running.noted.take().is_some()
            && let Err(error) = inner.recorder.archive.end_filming().await
        {
            tracing::error!(%error, "it could not be noted that all segments are closed");
        }
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
    pub async fn fanout(&self, camera: &CameraId) -> Option<Arc<Fanout>> {
        self.inner
            .running
            .lock()
            .await
            .cameras
            .get(camera)
            .map(|filmed| Arc::clone(&filmed.fanout))
    }

    /// Keeps a picture of what a camera shows, as a JPEG file of the archive.
    ///
    /// # Errors
    /// [`SnapshotError`], e.g. that the camera does not film.
    pub async fn snapshot(&self, camera: &CameraId) -> Result<Segment, SnapshotError> {
        let fanout = self.fanout(camera).await.ok_or(SnapshotError::NoPicture)?;
        let frame = fanout.key_frame().ok_or(SnapshotError::NoPicture)?;
        let failover = self.inner.purpose.borrow().failover.clone();
        let shared = &self.inner.recorder;
        snapshot::keep(&shared.archive, camera.clone(), frame, failover, &shared.disk).await
    }
}

impl Inner {
    fn start(&self, camera: Camera) -> Filmed {
        let (fanout, stop) = (Arc::new(Fanout::default()), CancellationToken::new());
        let take = Take {
            camera: camera.clone(),
            config: self.config.clone(),
            board: self.board.clone(),
            fanout: Arc::clone(&fanout),
            recorder: self.recorder.clone(),
            purpose: self.purpose.subscribe(),
            volume: self.volume.subscribe(),
            stop: stop.clone(),
        };
        self.board.set(&camera.id, CameraStatus::Connecting);
        self.tasks.spawn(run_contained(take));
        Filmed { camera, fanout, stop }
    }
}

/// Runs a camera; a panic is that camera's fault alone, and it is started again.
async fn run_contained(take: Take) {
    while AssertUnwindSafe(take.clone().run()).catch_unwind().await.is_err() {
        tracing::error!(camera.id = %take.camera.id, "a defect: the camera's task panicked");
        let detail = "a defect in this program; it is tried again".to_owned();
        take.board.set(
            &take.camera.id,
            CameraStatus::Lost {
                fault: CameraFault::Garbage,
                detail,
            },
        );
        if take
            .stop
            .run_until_cancelled(tokio::time::sleep(AFTER_PANIC))
            .await
            .is_none()
        {
            return;
        }
    }
}

/// Whether a camera's session can go on with its new settings.
fn is_same_session(new: &Camera, old: &Camera) -> bool {
    new.enabled && new.url == old.url && new.credentials == old.credentials && new.recording == old.recording
}

/// Makes all that was written durable, again and again, for all cameras at once. A failure means that what
/// was written may be lost, so every segment is begun anew.
async fn keep_durable(recorder: Shared, failures: watch::Sender<(u64, String)>) {
    let mut ticks = tokio::time::interval(DURABLE_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if recorder.closing.is_empty() {
            // No segment is open, none is being closed.
            continue;
        }
        let archive = recorder.archive.clone();
        let synced = tokio::task::spawn_blocking(move || archive.volume()?.sync()).await;
        if let Ok(Err(error)) = synced {
            tracing::error!(%error, "the recording volume does not keep what is written");
            failures.send_modify(|(count, reason)| {
                *count += 1;
                *reason = format!("the volume does not keep what is written: {error}");
            });
        }
    }
}
