//! Frames of one camera into segments. Cuts on key frames, hands each finished segment to the archive, and
//! begins a new one when the disk failed. Never blocks whoever brings the frames, and never decides whether
//! the camera is well.

mod pipeline;
mod tap;

use std::{collections::VecDeque, sync::Arc, time::Duration};

use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use understudy_core::{
    contract::{heartbeat::CameraFault, segment::Segment},
    ids::{CameraId, FailoverId},
    time::Timestamp,
};

pub use self::pipeline::prepare;
use self::pipeline::{Event, Pipeline};
use crate::{
    archive::{Archive, Kind, NewFile},
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

/// What all cameras' recorders share.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    /// Where segments go.
    pub(crate) archive: Archive,
    /// How long a segment is.
    pub(crate) segment: Duration,
    /// Segments that are being closed; who stops filming waits for it.
    pub(crate) closing: TaskTracker,
    /// How many files are opened or closed at once: a hung disk then holds these threads, and no more.
    pub(crate) disk: Arc<Semaphore>,
}

/// For what it is filmed.
#[derive(Clone, Debug)]
pub(crate) struct Purpose {
    /// Whether anything is recorded.
    pub(crate) recorded: bool,
    /// The failover, if it is for one.
    pub(crate) failover: Option<FailoverId>,
    /// Cancelled once it is durable in the index that it is filmed for that: the first file waits for it.
    pub(crate) noted: CancellationToken,
}

/// What the recorder of one camera has to say.
#[derive(Clone, Debug)]
pub(crate) enum Progress {
    /// The first fragment since the recorder began, or since it failed, is in a file.
    Recording,
    /// A segment, by its number, could not be written; the next key frame begins another.
    Failed(u64, Fault),
}

/// Records one session of one camera.
pub(crate) struct Recorder {
    shared: Shared,
    camera: CameraId,
    audio: Option<AudioFormat>,
    current: Option<Writer>,
    /// Segments begun so far.
    begun: u64,
    /// How long the first segment is: cameras that begin together then don't all cut together.
    first: Option<Duration>,
    progress: mpsc::Sender<Progress>,
}

impl Recorder {
    /// What becomes of it goes to the receiver: two events per segment at most, and whoever brings the
    /// frames reads them before each frame.
    pub(crate) fn new(shared: Shared, camera: CameraId, audio: Option<AudioFormat>) -> (Self, mpsc::Receiver<Progress>) {
        let (progress, receiver) = mpsc::channel(16);
        let share = blake3::hash(camera.as_str().as_bytes()).as_bytes()[0];
        let first = shared.segment.mul_f64(0.5 + f64::from(share) / 512.0);
        (Self { shared, camera, audio, current: None, begun: 0, first: Some(first), progress }, receiver)
    }

    /// Takes a frame. Up to the first key frame they are dropped.
    pub(crate) fn take(&mut self, frame: &Frame, purpose: &Purpose) {
        match frame {
            Frame::Video(frame) => self.take_video(frame, purpose),
            Frame::Audio(frame) => {
                if let Some(writer) = &mut self.current {
                    writer.audio(frame);
                }
            }
        }
    }

    fn take_video(&mut self, frame: &VideoFrame, purpose: &Purpose) {
        if frame.key && self.current.as_ref().is_none_or(|writer| self.is_over(writer, frame, purpose)) {
            if let Some(writer) = self.current.take() {
                self.first = None;
                writer.finish(Some(frame.wall));
            }
            self.begun += 1;
            self.current = Some(Writer::begin(self, frame, purpose));
        }
        if let Some(writer) = &mut self.current
            && let Err(fault) = writer.video(frame)
        {
            self.fail(fault);
        }
    }

    /// Whether a key frame begins a new segment.
    fn is_over(&self, writer: &Writer, frame: &VideoFrame, purpose: &Purpose) -> bool {
        writer.age(frame) >= self.first.unwrap_or(self.shared.segment)
            || writer.failover != purpose.failover
            || *writer.format != *frame.format
    }

    /// Gives the segment up, keeps what is in it, and says why. The next key frame begins another.
    pub(crate) fn fail(&mut self, fault: Fault) {
        if let Some(writer) = self.current.take() {
            writer.finish(None);
            let _ = self.progress.try_send(Progress::Failed(self.begun, fault));
        }
    }

    /// Gives up the segment of which its pipeline said that it failed, unless it is over already.
    pub(crate) fn abandon(&mut self, number: u64) {
        if number == self.begun
            && let Some(writer) = self.current.take()
        {
            writer.finish(None);
        }
    }

    /// Whether the disk let a file be opened for what is recorded at the moment.
    pub(crate) fn has_file(&self) -> bool {
        self.current.as_ref().is_none_or(|writer| writer.opened.is_some())
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.abandon(self.begun);
    }
}

/// Writes one segment: gathers frames until its file is open, then passes them on.
struct Writer {
    opening: Option<oneshot::Receiver<Opened>>,
    waiting: VecDeque<(Frame, Duration, Duration)>,
    waiting_bytes: usize,
    opened: Option<Opened>,
    format: Arc<VideoFormat>,
    failover: Option<FailoverId>,
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
struct Opened {
    file: NewFile,
    pipeline: Pipeline,
    finished: oneshot::Receiver<bool>,
}

impl Writer {
    fn begin(recorder: &Recorder, frame: &VideoFrame, purpose: &Purpose) -> Self {
        let (ready, opening) = oneshot::channel();
        let writer = Self {
            opening: Some(opening),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            opened: None,
            format: Arc::clone(&frame.format),
            failover: purpose.failover.clone(),
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
        let (progress, noted, number) = (recorder.progress.clone(), purpose.noted.clone(), recorder.begun);
        recorder.shared.closing.spawn(async move {
            noted.cancelled().await;
            let (events, receiver) = mpsc::channel(3);
            let archive = shared.archive.clone();
            let opening = move || open(&archive, &camera, wall, &format, audio.as_ref(), events);
            match on_disk(&shared, opening).await {
                Some(Ok((file, pipeline))) => {
                    let (finish, finished) = oneshot::channel();
                    // Whoever waited may be gone: then this drops, and so stops, the pipeline.
                    let _ = ready.send(Opened { file, pipeline, finished });
                    follow(receiver, number, &progress, finish).await;
                }
                Some(Err(fault)) => drop(progress.send(Progress::Failed(number, fault)).await),
                None => {}
            }
        });
        writer
    }

    fn age(&self, frame: &VideoFrame) -> Duration {
        frame.at.saturating_sub(self.begin)
    }

    fn video(&mut self, frame: &VideoFrame) -> Result<(), Fault> {
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
            return Err(Fault::new(CameraFault::Storage, "the disk does not answer: no file could be opened"));
        }
        self.waiting.push_back((Frame::Video(frame.clone()), pts, dts));
        Ok(())
    }

    fn audio(&mut self, frame: &AudioFrame) {
        let Some(pts) = frame.at.checked_sub(self.begin) else { return };
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

    /// Closes the segment in the background. It ends where the next begins, or with its own last frame.
    fn finish(mut self, next: Option<Timestamp>) {
        let tracker = self.shared.closing.clone();
        tracker.spawn(async move {
            if let Some(opening) = self.opening.take()
                && let Ok(opened) = opening.await
            {
                self.use_file(opened);
            }
            let Some(Opened { file, pipeline, finished }) = self.opened.take() else { return };
            pipeline.end();
            let whole = tokio::time::timeout(FINISHING, finished).await.is_ok_and(|said| said.unwrap_or(false));
            let length = i64::try_from((self.last + self.step).as_millis()).unwrap_or(0);
            let end = next.unwrap_or(Timestamp(file.start.as_millis() + length));
            let (shared, camera, failover) = (self.shared.clone(), self.camera, self.failover);
            on_disk(&self.shared, move || close(&shared.archive, file, pipeline, whole, camera, failover, end)).await;
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
    camera: &CameraId,
    wall: Timestamp,
    format: &VideoFormat,
    audio: Option<&AudioFormat>,
    events: mpsc::Sender<Event>,
) -> Result<(NewFile, Pipeline), Fault> {
    let file = archive
        .create(Kind::Segment, camera, wall)
        .map_err(|error| Fault::new(CameraFault::Storage, format!("no segment can be begun: {error}")))?;
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
) {
    while let Some(event) = events.recv().await {
        match event {
            Event::Written => drop(progress.send(Progress::Recording).await),
            Event::Finished => {
                let _ = finish.send(true);
                return;
            }
            Event::Failed(fault) => {
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
        (false, _) => archive.repair(&path).map(drop).map_err(|error| error.to_string()),
    };
    if let Err(error) = result {
        // The file stays without a row; the next recovery takes it.
        tracing::error!(segment.path = path, error, "a segment could not be closed");
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use understudy_core::{camera::Camera, ids::ServerId};
    use understudy_simulator::{Simulator, SimulatorConfig};

    use super::*;
    use crate::{archive::Filter, camera::Session};

    /// Films a camera for some seconds through a recorder that is told of sound, which comes for as long as
    /// `audio_seconds` say, and gives back the one segment and the pictures handed over.
    async fn film(audio: AudioFormat, audio_seconds: u64) -> anyhow::Result<(tempfile::TempDir, Segment, u64)> {
        let folder = tempfile::tempdir()?;
        let archive = Archive::open(folder.path(), ServerId::new("recorder-1")?)?;
        tokio::task::spawn_blocking(prepare).await??;
        let simulator = Simulator::start(SimulatorConfig::default()).await?;
        let json = format!(r#"{{"id": "cam-001", "name": "", "server": "recorder-1", "url": "{}"}}"#, simulator.url("cam-001"));
        let camera: Camera = serde_json::from_str(&json)?;
        let mut session = Session::open(&camera, Duration::from_secs(20)).await?;
        let shared = Shared {
            archive: archive.clone(),
            segment: Duration::from_secs(60),
            closing: TaskTracker::new(),
            disk: Arc::new(Semaphore::new(1)),
        };
        let (mut recorder, _progress) = Recorder::new(shared.clone(), camera.id, Some(audio));
        let purpose = Purpose { recorded: true, failover: None, noted: CancellationToken::new() };
        purpose.noted.cancel();
        let mut begin = None;
        let mut pushed = 0;
        let mut heard = Duration::ZERO;
        loop {
            let frame = session.next().await?;
            recorder.take(&frame, &purpose);
            let Frame::Video(video) = frame else { continue };
            begin = begin.or(video.key.then_some(video.at));
            let Some(begin) = begin else { continue };
            pushed += 1;
            let age = video.at - begin;
            if age > Duration::from_secs(4) {
                break;
            }
            while heard < age.min(Duration::from_secs(audio_seconds)) {
                // 20 ms of silence in A-law.
                let data = Bytes::from(vec![0xD5; 160]);
                recorder.take(&Frame::Audio(AudioFrame { data, at: begin + heard }), &purpose);
                heard += Duration::from_millis(20);
            }
        }
        drop(recorder);
        shared.closing.close();
        shared.closing.wait().await;
        simulator.stop().await;
        let segment = archive.segments(Filter::default()).await?.pop().expect("one segment");
        Ok((folder, segment, pushed))
    }

    fn codecs(folder: &tempfile::TempDir, segment: &Segment) -> anyhow::Result<String> {
        let probe = std::process::Command::new("ffprobe")
            .args(["-v", "error", "-show_entries", "stream=codec_name", "-of", "csv=p=0"])
            .arg(folder.path().join(&segment.path))
            .output()?;
        Ok(String::from_utf8(probe.stdout)?.lines().collect::<Vec<_>>().join(" "))
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn e1_g711_becomes_opus() -> anyhow::Result<()> {
        let (folder, segment, pushed) = film(AudioFormat::G711A { channels: 1 }, 60).await?;
        assert_eq!(codecs(&folder, &segment)?, "h264 opus");
        assert_eq!(segment.frames, pushed);
        Ok(())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn e1_sound_that_ends_or_never_comes_holds_no_picture_back() -> anyhow::Result<()> {
        for audio_seconds in [0, 1] {
            let (_folder, segment, pushed) = film(AudioFormat::G711A { channels: 1 }, audio_seconds).await?;
            assert_eq!(segment.frames, pushed);
        }
        Ok(())
    }
}
