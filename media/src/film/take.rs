//! Films one camera for as long as it is wanted: opens sessions, hands their frames out, says how it goes,
//! and tries again. What happens to this camera happens to no other.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{mpsc, watch},
    time::{Instant, Interval, MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;
use understudy_core::{
    camera::{Camera, RecordingMode},
    contract::heartbeat::{CameraFault, CameraStatus},
};

use super::{StudioConfig, board::Board, opening::Opening};
use crate::{
    camera::{
        Fanout, Fault, Session,
        backoff::{Backoff, STABLE, Watchdog},
        frame::{Frame, VideoFrame},
        session::Received,
    },
    recorder::{Progress, Purpose, Recorder, Shared},
};

/// A camera that sends no key frame for this long can't be recorded. Some send one every ten seconds.
const KEY_FRAME_PATIENCE: Duration = Duration::from_secs(30);
/// From a key frame to the first fragment on disk it takes a quarter of a second, or something is wrong.
const FILE_PATIENCE: Duration = Duration::from_secs(10);

/// What a camera needs to be filmed.
#[derive(Clone)]
pub(super) struct Take {
    pub(super) camera: Camera,
    pub(super) config: StudioConfig,
    pub(super) board: Board,
    pub(super) fanout: Arc<Fanout>,
    pub(super) recorder: Shared,
    pub(super) purpose: watch::Receiver<Arc<Purpose>>,
    /// Counts the times at which the volume could not be made durable, with the last reason.
    pub(super) volume: watch::Receiver<(u64, String)>,
    /// Counts, for all cameras, the pictures that were left out because they were damaged on the way.
    pub(super) damaged: Arc<AtomicU64>,
    pub(super) stop: CancellationToken,
    /// If its beginning is recorded as a part of a trace.
    pub(super) opening: Option<Arc<Opening>>,
}

impl Take {
    /// Films until it is told to stop.
    pub(super) async fn run(self) {
        let stop = self.stop.clone();
        // Dropping the session says TEARDOWN in the background, dropping the recorder closes its segment.
        stop.run_until_cancelled(self.keep_filming()).await;
    }

    async fn keep_filming(self) {
        let mut backoff = Backoff::default();
        loop {
            let fault = self.film(&mut backoff).await;
            self.fanout.clear();
            tracing::warn!(camera.id = %self.camera.id, camera.fault = ?fault.kind, detail = fault.detail, "the camera does not film");
            let wait = backoff.after(fault.kind, rand::random());
            self.say(CameraStatus::Lost {
                fault: fault.kind,
                detail: fault.detail,
            });
            tokio::time::sleep(wait).await;
        }
    }

    fn say(&self, status: CameraStatus) {
        if let Some(opening) = self.opening.as_ref().filter(|_| status.films()) {
            opening.films();
        }
        self.board.set(&self.camera.id, status);
    }

    /// One session, to its end.
    async fn film(&self, backoff: &mut Backoff) -> Fault {
        let within = Duration::from_millis(self.config.connect_ms);
        let since = understudy_runtime::clock::wall_nanoseconds();
        let opened = Session::open(&self.camera, within).await;
        if let Some(opening) = &self.opening {
            opening.tried(since, opened.as_ref().err());
        }
        match opened {
            Ok(session) => {
                self.fanout.begin(session.audio().cloned());
                Box::pin(Filming::new(self, session).run(backoff)).await
            }
            Err(fault) => fault,
        }
    }
}

/// A session that plays, and what is made of it.
struct Filming<'a> {
    take: &'a Take,
    session: Session,
    recorder: Option<(Recorder, mpsc::Receiver<Progress>)>,
    purpose: watch::Receiver<Arc<Purpose>>,
    current: Arc<Purpose>,
    volume: watch::Receiver<(u64, String)>,
    started: Instant,
    watchdog: Watchdog,
    key_frames: Watchdog,
    /// Since when frames are recorded that are not in a file yet.
    unwritten: Option<Duration>,
    /// Whether anything of this session has been in a file: then what it sends can be recorded.
    proven: bool,
}

impl<'a> Filming<'a> {
    fn new(take: &'a Take, session: Session) -> Self {
        let mut purpose = take.purpose.clone();
        let current = Arc::clone(&purpose.borrow_and_update());
        let mut volume = take.volume.clone();
        volume.mark_unchanged();
        Self {
            take,
            session,
            recorder: None,
            purpose,
            current,
            volume,
            started: Instant::now(),
            watchdog: Watchdog::new(Duration::from_millis(take.config.silence_ms), Duration::ZERO),
            key_frames: Watchdog::new(KEY_FRAME_PATIENCE, Duration::ZERO),
            unwritten: None,
            proven: false,
        }
    }

    async fn run(mut self, backoff: &mut Backoff) -> Fault {
        let mut tick = ticks(Duration::from_millis(self.take.config.silence_ms) / 5);
        loop {
            let outcome = tokio::select! {
                biased;
                Some(progress) = progress(&mut self.recorder) => {
                    self.recorded(progress);
                    Ok(())
                }
                received = self.session.next() => received.map(|received| self.received(&received)),
                _ = tick.tick() => self.look(backoff),
            };
            if let Err(fault) = outcome {
                return fault;
            }
        }
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn received(&mut self, received: &Received) {
        self.watchdog.heard(self.now());
        match received {
            Received::Frame(frame) => self.frame(frame),
            Received::Damaged => {
                self.take.damaged.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn frame(&mut self, frame: &Frame) {
        let now = self.now();
        if let Frame::Video(video) = frame
            && video.key
        {
            self.key_frame(video);
        }
        if let Some((recorder, _)) = &mut self.recorder {
            let begun = recorder.begun();
            recorder.take(frame, &self.current);
            if recorder.begun() != begun {
                self.unwritten = self.unwritten.or(Some(now));
            }
        }
        self.take.fanout.publish(frame);
    }

    /// At each key frame: what it is filmed for may have changed.
    fn key_frame(&mut self, _frame: &VideoFrame) {
        let now = self.now();
        self.key_frames.heard(now);
        self.current = Arc::clone(&self.purpose.borrow_and_update());
        if !self.current.recorded || self.take.camera.recording == RecordingMode::LiveOnly {
            self.recorder = None;
            self.unwritten = None;
            self.take.say(CameraStatus::LiveOnly);
        } else if self.recorder.is_none() {
            let (shared, camera) = (self.take.recorder.clone(), self.take.camera.id.clone());
            self.recorder = Some(Recorder::new(shared, camera, self.session.audio().cloned()));
            self.unwritten = Some(now);
        }
    }

    fn recorded(&mut self, progress: Progress) {
        match progress {
            Progress::Recording => {
                self.unwritten = None;
                self.proven = true;
                self.take.say(CameraStatus::Recording);
            }
            Progress::Failed(number, fault) => {
                tracing::error!(camera.id = %self.take.camera.id, detail = fault.detail, "a segment can't be written");
                self.unwritten = Some(self.now());
                self.take.say(CameraStatus::Lost {
                    fault: fault.kind,
                    detail: fault.detail,
                });
                if let Some((recorder, _)) = &mut self.recorder {
                    recorder.abandon(number);
                }
            }
        }
    }

    /// From time to time: whether anything that should have come did not.
    fn look(&mut self, backoff: &mut Backoff) -> Result<(), Fault> {
        let now = self.now();
        if let Some(silence) = self.watchdog.silence(now) {
            return Err(Fault::silent(silence));
        }
        if self.key_frames.silence(now).is_some() {
            return Err(Fault::new(
                CameraFault::Silent,
                "it sends pictures, but no key frame to begin with",
            ));
        }
        if now >= STABLE && self.unwritten.is_none() {
            backoff.recovered();
        }
        self.look_at_the_disk(now)
    }

    fn look_at_the_disk(&mut self, now: Duration) -> Result<(), Fault> {
        let Some((recorder, _)) = &mut self.recorder else {
            return Ok(());
        };
        if self.volume.has_changed().unwrap_or(false) {
            let reason = self.volume.borrow_and_update().1.clone();
            recorder.fail(Fault::new(CameraFault::Storage, reason));
        }
        if self
            .unwritten
            .is_some_and(|since| now.saturating_sub(since) > FILE_PATIENCE)
        {
            self.unwritten = Some(now);
            if recorder.has_file() && !self.proven {
                return Err(Fault::new(
                    CameraFault::Garbage,
                    "what it sends makes no recording",
                ));
            }
            recorder.fail(Fault::new(CameraFault::Storage, "the disk does not answer"));
        }
        Ok(())
    }
}

async fn progress(recorder: &mut Option<(Recorder, mpsc::Receiver<Progress>)>) -> Option<Progress> {
    match recorder {
        Some((_, receiver)) => receiver.recv().await,
        None => None,
    }
}

fn ticks(period: Duration) -> Interval {
    let mut ticks = interval(period.max(Duration::from_millis(10)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}
