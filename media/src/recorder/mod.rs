//! Frames of one camera into segments. Cuts on key frames, hands each finished segment to the archive, and
//! begins a new one when the disk failed. Never blocks whoever brings the frames, and never decides whether
//! the camera is well.

mod pipeline;
mod tap;
mod writer;

use std::{sync::Arc, time::Duration};

use tokio::sync::{Semaphore, mpsc};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use understudy_core::ids::{CameraId, FailoverId};

pub use self::pipeline::prepare;
use self::writer::Writer;
use crate::{
    archive::Archive,
    camera::{
        Fault,
        frame::{AudioFormat, Frame, VideoFrame},
    },
};

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
    /// What all segments together may hold in memory that were given up before the disk opened their files, in KiB.
    pub(crate) given_up: Arc<Semaphore>,
}

/// See [`Shared::given_up`]: some ten seconds of ninety cameras of 2 Mbit/s.
pub(crate) const GIVEN_UP_KIB: usize = 256 * 1024;

/// For what it is filmed. Whoever still writes for it holds it, so that it is over when nobody does any more.
#[derive(Clone, Debug)]
pub(crate) struct Purpose {
    /// Whether anything is recorded.
    pub(crate) recorded: bool,
    /// The failover, if it is for one.
    pub(crate) failover: Option<FailoverId>,
    /// Cancelled once it is durable in the index that it is filmed for that: the first file waits for it.
    pub(crate) noted: CancellationToken,
    /// Shared by all that is filmed for the same, in whatever range.
    pub(crate) in_use: Arc<()>,
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
    pub(crate) fn new(
        shared: Shared,
        camera: CameraId,
        audio: Option<AudioFormat>,
    ) -> (Self, mpsc::Receiver<Progress>) {
        let (progress, receiver) = mpsc::channel(16);
        let share = blake3::hash(camera.as_str().as_bytes()).as_bytes()[0];
        let first = shared.segment.mul_f64(0.5 + f64::from(share) / 512.0);
        (
            Self {
                shared,
                camera,
                audio,
                current: None,
                begun: 0,
                first: Some(first),
                progress,
            },
            receiver,
        )
    }

    /// Takes a frame. Up to the first key frame they are dropped.
    pub(crate) fn take(&mut self, frame: &Frame, purpose: &Arc<Purpose>) {
        match frame {
            Frame::Video(frame) => self.take_video(frame, purpose),
            Frame::Audio(frame) => {
                if let Some(writer) = &mut self.current {
                    writer.audio(frame);
                }
            }
        }
    }

    fn take_video(&mut self, frame: &VideoFrame, purpose: &Arc<Purpose>) {
        if frame.key
            && self
                .current
                .as_ref()
                .is_none_or(|writer| self.is_over(writer, frame, purpose))
        {
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
            || writer.purpose.failover != purpose.failover
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

    /// Segments begun so far.
    pub(crate) fn begun(&self) -> u64 {
        self.begun
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

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use understudy_core::{camera::Camera, contract::segment::Segment, ids::ServerId};
    use understudy_simulator::{Simulator, SimulatorConfig};

    use super::*;
    use crate::{
        archive::Filter,
        camera::{Session, frame::AudioFrame, session::Received},
    };

    /// Films a camera for some seconds through a recorder that is told of sound, which comes for as long as
    /// `audio_seconds` say, and gives back the one segment and the pictures handed over.
    async fn film(
        audio: AudioFormat,
        audio_seconds: u64,
    ) -> anyhow::Result<(tempfile::TempDir, Segment, u64)> {
        let folder = tempfile::tempdir()?;
        let archive = Archive::open(folder.path(), ServerId::new("recorder-1")?)?;
        tokio::task::spawn_blocking(prepare).await??;
        let simulator = Simulator::start(SimulatorConfig::default()).await?;
        let json = format!(
            r#"{{"id": "cam-001", "name": "", "server": "recorder-1", "url": "{}"}}"#,
            simulator.url("cam-001")
        );
        let camera: Camera = serde_json::from_str(&json)?;
        let mut session = Session::open(&camera, Duration::from_secs(20)).await?;
        let shared = Shared {
            archive: archive.clone(),
            segment: Duration::from_secs(60),
            closing: TaskTracker::new(),
            disk: Arc::new(Semaphore::new(1)),
            given_up: Arc::new(Semaphore::new(GIVEN_UP_KIB)),
        };
        let (mut recorder, _progress) = Recorder::new(shared.clone(), camera.id, Some(audio));
        let purpose = Purpose {
            recorded: true,
            failover: None,
            noted: CancellationToken::new(),
            in_use: Arc::default(),
        };
        purpose.noted.cancel();
        let purpose = Arc::new(purpose);
        let mut begin = None;
        let mut pushed = 0;
        let mut heard = Duration::ZERO;
        loop {
            let Received::Frame(frame) = session.next().await? else {
                continue;
            };
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
                recorder.take(
                    &Frame::Audio(AudioFrame {
                        data,
                        at: begin + heard,
                    }),
                    &purpose,
                );
                heard += Duration::from_millis(20);
            }
        }
        drop(recorder);
        shared.closing.close();
        shared.closing.wait().await;
        simulator.stop().await;
        let segment = archive
            .segments(Filter::default())
            .await?
            .pop()
            .expect("one segment");
        Ok((folder, segment, pushed))
    }

    fn codecs(folder: &tempfile::TempDir, segment: &Segment) -> anyhow::Result<String> {
        let probe = std::process::Command::new("ffprobe")
            .args([
                "-v",
                "error",
                "-show_entries",
                "stream=codec_name",
                "-of",
                "csv=p=0",
            ])
            .arg(folder.path().join(&segment.path))
            .output()?;
        Ok(String::from_utf8(probe.stdout)?
            .lines()
            .collect::<Vec<_>>()
            .join(" "))
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
