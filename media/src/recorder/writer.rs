//! One segment on its way to disk: gathers frames until its file is open, passes them on, and closes it.
//! Everything that blocks on the disk happens on threads for that, so that a hung disk stops no camera.

use std::{collections::VecDeque, io, sync::Arc, time::Duration};

use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use understudy_core::{
    contract::{heartbeat::CameraFault, segment::Segment},
    ids::{CameraId, FailoverId},
    time::Timestamp,
};

use super::{
    Progress, Purpose, Recorder, Shared,
    pipeline::{Event, Pipeline},
};
use crate::{
    archive::{Archive, Kind, NewFile, Refusals},
    camera::{
        Fault,
        frame::{AudioFormat, AudioFrame, Frame, VideoFormat, VideoFrame},
    },
};

/// How long a pipeline gets to finish its file before it is cut off and the file repaired.
const FINISHING: Duration = Duration::from_secs(10);
/// How much may wait until a file is open, in bytes of video.
const MAX_WAITING_BYTES: usize = 8 * 1024 * 1024;
/// A camera that is silent for this long on its sound track alone has no sound for the rest of the segment.
const AUDIO_PATIENCE: Duration = Duration::from_secs(1);

/// Writes one segment: gathers frames until its file is open, then passes them on.
pub(super) struct Writer {
    opening: Option<oneshot::Receiver<Opened>>,
    waiting: VecDeque<(Frame, Duration, Duration)>,
    waiting_bytes: usize,
    pub(super) opened: Option<Opened>,
    pub(super) format: Arc<VideoFormat>,
    pub(super) purpose: Arc<Purpose>,
    begin: Duration,
    wall: Timestamp,
    last: Duration,
    last_dts: Duration,
    step: Duration,
    last_audio: Duration,
    shared: Shared,
    camera: CameraId,
}

/// A file with its pipeline, and the events that it has still to tell.
pub(super) struct Opened {
    file: NewFile,
    pipeline: Pipeline,
    finished: oneshot::Receiver<bool>,
}

impl Writer {
    pub(super) fn begin(recorder: &Recorder, frame: &VideoFrame, purpose: &Arc<Purpose>) -> Self {
        let (ready, opening) = oneshot::channel();
        let writer = Self {
            opening: Some(opening),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            opened: None,
            format: Arc::clone(&frame.format),
            purpose: Arc::clone(purpose),
            begin: frame.at,
            wall: frame.wall,
            last: Duration::ZERO,
            last_dts: Duration::ZERO,
            step: Duration::ZERO,
            last_audio: Duration::ZERO,
            shared: recorder.shared.clone(),
            camera: recorder.camera.clone(),
        };
        let (shared, camera, wall) = (writer.shared.clone(), writer.camera.clone(), writer.wall);
        let (format, audio) = (Arc::clone(&writer.format), recorder.audio.clone());
        let (progress, purpose, number) = (recorder.progress.clone(), Arc::clone(purpose), recorder.begun);
        let failover = purpose.failover.clone();
        recorder.shared.closing.spawn(async move {
            purpose.noted.cancelled().await;
            let (events, receiver) = mpsc::channel(3);
            let archive = shared.archive.clone();
            let opening = move || {
                let file = archive.create(Kind::Segment, &camera, wall, failover.as_ref());
                open(&archive, file, &format, audio.as_ref(), events)
            };
            match on_disk(&shared, opening).await {
                Some(Ok((file, pipeline))) => {
                    let (finish, finished) = oneshot::channel();
                    let opened = Opened {
                        file,
                        pipeline,
                        finished,
                    };
                    // Whoever waited may be gone: then this drops, and so stops, the pipeline.
                    if let Err(Opened { file, pipeline, .. }) = ready.send(opened) {
                        drop(pipeline);
                        shared.archive.leave(&file.path);
                    }
                    follow(receiver, number, &progress, finish, shared.archive.refusals()).await;
                }
                Some(Err(fault)) => drop(progress.send(Progress::Failed(number, fault)).await),
                None => {}
            }
        });
        writer
    }

    pub(super) fn age(&self, frame: &VideoFrame) -> Duration {
        frame.at.saturating_sub(self.begin)
    }

    pub(super) fn video(&mut self, frame: &VideoFrame) -> Result<(), Fault> {
        let pts = self.age(frame);
        // Pictures that are shown in another order than sent: decoded in the order in which they come.
        let dts = pts.max(self.last_dts);
        if pts > self.last {
            self.step = pts - self.last;
            self.last = pts;
        }
        self.last_dts = dts;
        self.poll_open();
        if let Some(opened) = &self.opened {
            if pts.saturating_sub(self.last_audio) > AUDIO_PATIENCE {
                opened.pipeline.end_audio();
            }
            return opened.pipeline.push_video(frame, pts, dts);
        }
        self.waiting_bytes += frame.data.len();
        if self.waiting_bytes > MAX_WAITING_BYTES {
            return Err(Fault::new(
                CameraFault::Storage,
                "the disk does not answer: no file could be opened",
            ));
        }
        self.waiting.push_back((Frame::Video(frame.clone()), pts, dts));
        Ok(())
    }

    pub(super) fn audio(&mut self, frame: &AudioFrame) {
        let Some(pts) = frame.at.checked_sub(self.begin) else {
            return;
        };
        self.last_audio = pts;
        self.poll_open();
        match &self.opened {
            Some(opened) => opened.pipeline.push_audio(frame, pts),
            None => self.waiting.push_back((Frame::Audio(frame.clone()), pts, pts)),
        }
    }

    fn poll_open(&mut self) {
        if let Some(opened) = self.opening.as_mut().and_then(|opening| opening.try_recv().ok()) {
            self.opening = None;
            self.use_file(opened);
        }
    }

    fn use_file(&mut self, opened: Opened) {
        for (frame, pts, dts) in self.waiting.drain(..) {
            match frame {
                // Nothing has been pushed before, so there is room for all of them.
                Frame::Video(frame) => drop(opened.pipeline.push_video(&frame, pts, dts)),
                Frame::Audio(frame) => opened.pipeline.push_audio(&frame, pts),
            }
        }
        self.waiting_bytes = 0;
        self.opened = Some(opened);
    }

    /// What waits for a disk that does not answer is kept for as long as there is memory for it; a server that runs
    /// out of that films nothing at all.
    fn hold_waiting(&mut self) -> Option<OwnedSemaphorePermit> {
        self.poll_open();
        let kib = u32::try_from(self.waiting_bytes.div_ceil(1024)).unwrap_or(u32::MAX);
        let held = Arc::clone(&self.shared.given_up).try_acquire_many_owned(kib).ok();
        if held.is_none() {
            tracing::error!(
                camera.id = %self.camera, lost.seconds = self.last.as_secs(),
                "the disk does not answer, and no more can be kept for it in memory: these frames are lost"
            );
            self.waiting.clear();
            self.waiting_bytes = 0;
        }
        held
    }

    /// Closes the segment in the background. It ends where the next begins, or with its own last frame.
    pub(super) fn finish(mut self, next: Option<Timestamp>) {
        let tracker = self.shared.closing.clone();
        tracker.spawn(async move {
            if let Some(opening) = self.opening.take() {
                let _held = self.hold_waiting();
                if let Ok(opened) = opening.await {
                    self.use_file(opened);
                }
            }
            let Some(Opened {
                file,
                pipeline,
                finished,
            }) = self.opened.take()
            else {
                return;
            };
            pipeline.end();
            let whole = tokio::time::timeout(FINISHING, finished)
                .await
                .is_ok_and(|said| said.unwrap_or(false));
            let length = i64::try_from((self.last + self.step).as_millis()).unwrap_or(0);
            let end = next.unwrap_or(Timestamp(file.start.as_millis() + length));
            let (shared, camera, failover) =
                (self.shared.clone(), self.camera, self.purpose.failover.clone());
            let path = file.path.clone();
            let closed = on_disk(&self.shared, move || {
                close(&shared.archive, file, pipeline, whole, camera, failover, end)
            });
            if closed.await.is_none() {
                self.shared.archive.leave(&path);
            }
            // Held up to here: only now nothing of it is written any more.
            drop(self.purpose);
        });
    }
}

/// Runs what blocks on the disk on a thread of its own.
async fn on_disk<T: Send + 'static>(shared: &Shared, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    // Never closed, so it is always got.
    let _permit = shared.disk.acquire().await.ok()?;
    tokio::task::spawn_blocking(work).await.ok()
}

fn open(
    archive: &Archive,
    file: io::Result<NewFile>,
    format: &VideoFormat,
    audio: Option<&AudioFormat>,
    events: mpsc::Sender<Event>,
) -> Result<(NewFile, Pipeline), Fault> {
    let file = file.map_err(|error| {
        archive.refusals().note(&error);
        Fault::new(CameraFault::Storage, format!("no segment can be begun: {error}"))
    })?;
    match Pipeline::start(&file.file, format, audio, events) {
        Ok(pipeline) => Ok((file, pipeline)),
        Err(fault) => {
            let _ = archive.discard(&file.path);
            Err(fault)
        }
    }
}

/// Passes on what a pipeline says, until it has finished or failed.
async fn follow(
    mut events: mpsc::Receiver<Event>,
    number: u64,
    progress: &mpsc::Sender<Progress>,
    finish: oneshot::Sender<bool>,
    refusals: &Refusals,
) {
    while let Some(event) = events.recv().await {
        match event {
            Event::Written => drop(progress.send(Progress::Recording).await),
            Event::Finished => {
                let _ = finish.send(true);
                return;
            }
            Event::Failed(fault) => {
                if fault.kind == CameraFault::Storage {
                    refusals.note_words(&fault.detail);
                }
                let _ = finish.send(false);
                let _ = progress.send(Progress::Failed(number, fault)).await;
                return;
            }
        }
    }
}

/// Gives a segment its row; a file that was not finished is repaired as after a crash.
fn close(
    archive: &Archive,
    file: NewFile,
    pipeline: Pipeline,
    whole: bool,
    camera: CameraId,
    failover: Option<FailoverId>,
    end: Timestamp,
) {
    let content = pipeline.stop();
    let path = file.path.clone();
    let result = match (whole, content.frames) {
        (true, 0) => archive.discard(&path).map_err(|error| error.to_string()),
        (true, frames) => {
            let segment = Segment {
                path: file.path,
                camera,
                recorded_by: archive.server().clone(),
                failover,
                start: file.start,
                end,
                bytes: content.bytes,
                frames,
                blake3: content.blake3,
            };
            archive.close(&segment).map_err(|error| error.to_string())
        }
        (false, _) => archive.repair(&path).map_err(|error| error.to_string()),
    };
    if let Err(error) = result {
        // The file stays without a row: it is mended, and holds its failover's manifest open until then.
        tracing::error!(segment.path = path, error, "a segment could not be closed");
    }
}
