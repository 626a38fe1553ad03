//! One session's frames for everybody in this process who wants them beside the recorder. A slow listener
//! loses its place; the camera is never slowed down, and never connected to twice.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::frame::{AudioFormat, Frame, VideoFormat, VideoFrame};

/// The most that is kept of a GOP, so that who joins sees a picture at once: four seconds of 2 Mbit/s. Of a longer
/// one nothing is kept, and who joins waits for the next key frame.
const MOST_KEPT_BYTES: usize = 1 << 20;
/// The most frames of it, sound included.
const MOST_KEPT_FRAMES: usize = 1024;

/// Gives out one camera's frames.
#[derive(Debug)]
pub struct Fanout {
    key_frame: watch::Sender<Option<VideoFrame>>,
    live: Mutex<Live>,
    ended: CancellationToken,
}

#[derive(Debug, Default)]
struct Live {
    /// Sessions begun so far.
    session: u64,
    audio: Option<AudioFormat>,
    /// Everything since the newest key frame; empty while there is none, or it is too much.
    gop: Vec<Frame>,
    gop_bytes: usize,
    listeners: Vec<mpsc::Sender<Frame>>,
}

/// A listener's place.
#[derive(Debug)]
pub struct Joined {
    /// Which session of the camera; each has a time of its own.
    pub session: u64,
    /// What came since the newest key frame, that first.
    pub gop: Vec<Frame>,
    /// Everything that comes behind it. It ends when the listener fell too far behind, and with the session.
    pub frames: mpsc::Receiver<Frame>,
}

impl Joined {
    /// The camera's time of the key frame that it begins with.
    #[must_use]
    pub fn begins_at(&self) -> Option<Duration> {
        match self.gop.first()? {
            Frame::Video(frame) => Some(frame.at),
            Frame::Audio(_) => None,
        }
    }
}

impl Fanout {
    /// For a camera that is filmed until `ended`.
    pub(crate) fn new(ended: CancellationToken) -> Self {
        Self {
            key_frame: watch::Sender::new(None),
            live: Mutex::default(),
            ended,
        }
    }

    /// All frames from the newest key frame on; none while there is no key frame to begin with. Who falls `behind`
    /// frames behind loses its place.
    #[must_use]
    pub fn join(&self, behind: usize) -> Option<Joined> {
        let mut live = self.live();
        if live.gop.is_empty() {
            return None;
        }
        let (sender, frames) = mpsc::channel(behind.max(1));
        live.listeners.push(sender);
        Some(Joined {
            session: live.session,
            gop: live.gop.clone(),
            frames,
        })
    }

    /// The newest key frame, if there is a session.
    #[must_use]
    pub fn key_frame(&self) -> Option<VideoFrame> {
        self.key_frame.borrow().clone()
    }

    /// Changes with each key frame, and at the end of a session. Who looks at it before it joins misses none.
    #[must_use]
    pub fn key_frames(&self) -> watch::Receiver<Option<VideoFrame>> {
        self.key_frame.subscribe()
    }

    /// How the session that plays is encoded, once its first key frame is there.
    pub async fn formats(&self) -> (Arc<VideoFormat>, Option<AudioFormat>) {
        let mut key_frames = self.key_frames();
        let format = key_frames.wait_for(Option::is_some).await;
        match format
            .ok()
            .and_then(|frame| frame.as_ref().map(|frame| Arc::clone(&frame.format)))
        {
            Some(format) => (format, self.live().audio.clone()),
            // The sender lives as long as this does.
            None => std::future::pending().await,
        }
    }

    /// Cancelled when the camera is not filmed here any more.
    #[must_use]
    pub fn ended(&self) -> &CancellationToken {
        &self.ended
    }

    /// A session begins to play.
    pub(crate) fn begin(&self, audio: Option<AudioFormat>) {
        self.clear();
        let mut live = self.live();
        live.session += 1;
        live.audio = audio;
    }

    pub(crate) fn publish(&self, frame: &Frame) {
        let mut live = self.live();
        live.keep(frame);
        live.listeners
            .retain(|listener| listener.try_send(frame.clone()).is_ok());
        drop(live);
        if let Frame::Video(frame) = frame
            && frame.key
        {
            self.key_frame.send_replace(Some(frame.clone()));
        }
    }

    /// The session is over: what was seen is no picture of now.
    pub(crate) fn clear(&self) {
        let mut live = self.live();
        live.gop.clear();
        live.gop_bytes = 0;
        live.listeners.clear();
        drop(live);
        self.key_frame.send_replace(None);
    }

    fn live(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Live {
    fn keep(&mut self, frame: &Frame) {
        let (bytes, key) = match frame {
            Frame::Video(frame) => (frame.data.len(), frame.key),
            Frame::Audio(frame) => (frame.data.len(), false),
        };
        if key {
            self.gop.clear();
            self.gop_bytes = 0;
        } else if self.gop.is_empty() {
            return;
        }
        self.gop.push(frame.clone());
        self.gop_bytes += bytes;
        let too_much = self.gop_bytes > MOST_KEPT_BYTES || self.gop.len() > MOST_KEPT_FRAMES;
        // A single key frame is kept however large it is: somebody may wait for it.
        if too_much && self.gop.len() > 1 {
            self.gop = Vec::new();
            self.gop_bytes = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use understudy_core::time::Timestamp;

    use super::*;
    use crate::camera::frame::VideoCodec;

    fn frame(key: bool, second: u64, bytes: usize) -> Frame {
        let format = VideoFormat {
            codec: VideoCodec::H264,
            configuration: Bytes::new(),
            width: 1,
            height: 1,
        };
        Frame::Video(VideoFrame {
            data: Bytes::from(vec![0; bytes]),
            format: Arc::new(format),
            key,
            at: Duration::from_secs(second),
            wall: Timestamp(0),
        })
    }

    fn fanout() -> Fanout {
        Fanout::new(CancellationToken::new())
    }

    #[tokio::test]
    async fn a_slow_listener_is_dropped_and_the_others_go_on() {
        let fanout = fanout();
        fanout.publish(&frame(true, 0, 1));
        let (slow, quick) = (fanout.join(1), fanout.join(8));
        let (Some(mut slow), Some(mut quick)) = (slow, quick) else {
            panic!("there is a key frame to begin with");
        };
        for second in 1..4 {
            fanout.publish(&frame(false, second, 1));
        }
        assert!(slow.frames.recv().await.is_some() && slow.frames.recv().await.is_none());
        assert_eq!(quick.frames.len(), 3);
        assert!(quick.frames.recv().await.is_some());
        assert!(fanout.key_frame().is_some_and(|frame| frame.key));
    }

    #[tokio::test]
    async fn d2_who_joins_gets_the_newest_key_frame_and_what_came_since() {
        let fanout = fanout();
        assert!(fanout.join(8).is_none(), "nothing to begin with");
        fanout.publish(&frame(false, 0, 1));
        assert!(fanout.join(8).is_none(), "no key frame yet");
        for (key, second) in [(true, 1), (false, 2), (true, 3), (false, 4)] {
            fanout.publish(&frame(key, second, 1));
        }
        let joined = fanout.join(8).expect("a key frame");
        assert_eq!(
            (joined.begins_at(), joined.gop.len()),
            (Some(Duration::from_secs(3)), 2)
        );
        fanout.clear();
        assert!(fanout.join(8).is_none(), "that is no picture of now");
        assert!(joined.frames.is_closed() || joined.frames.is_empty());
    }

    #[tokio::test]
    async fn of_a_gop_that_is_too_long_nothing_is_kept() {
        let fanout = fanout();
        fanout.publish(&frame(true, 0, MOST_KEPT_BYTES + 1));
        assert!(fanout.join(8).is_some(), "a key frame alone is kept");
        fanout.publish(&frame(false, 1, 1));
        assert!(fanout.join(8).is_none());
        fanout.publish(&frame(true, 2, 1));
        assert!(fanout.join(8).is_some());
    }
}
