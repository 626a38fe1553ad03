//! One viewer's frames, one after the other, on one time line that never goes back: across key frames that were
//! waited for, and across sessions of the camera.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

use crate::camera::{
    Fanout,
    fanout::Joined,
    frame::{Frame, VideoFrame},
};

/// How many frames a viewer may be behind: some seconds. Then it goes on with the next key frame.
const BEHIND: usize = 256;

/// Brings a camera's frames.
pub(super) struct Feed {
    fanout: Arc<Fanout>,
    key_frames: watch::Receiver<Option<VideoFrame>>,
    waiting: VecDeque<Frame>,
    frames: Option<mpsc::Receiver<Frame>>,
    line: TimeLine,
}

/// Maps the camera's time to the viewer's. Each session of a camera has a time of its own.
#[derive(Debug, Default)]
struct TimeLine {
    session: Option<u64>,
    /// The camera's time, and the viewer's, of the same moment.
    at: Duration,
    is: Duration,
    /// The newest picture, by the camera's time and by the clock here.
    last: Option<(Duration, Instant)>,
}

impl Feed {
    pub(super) fn new(fanout: Arc<Fanout>) -> Self {
        Self {
            key_frames: fanout.key_frames(),
            fanout,
            waiting: VecDeque::new(),
            frames: None,
            line: TimeLine::default(),
        }
    }

    /// The next frame, and the viewer's time of it. The first picture is a key frame, at zero. Can be dropped and
    /// called again.
    pub(super) async fn next(&mut self) -> (Frame, Duration) {
        loop {
            let frame = match (self.waiting.pop_front(), &mut self.frames) {
                (Some(frame), _) => frame,
                (None, Some(frames)) => match frames.recv().await {
                    Some(frame) => frame,
                    None => {
                        self.frames = None;
                        continue;
                    }
                },
                (None, None) => {
                    self.join().await;
                    continue;
                }
            };
            if let Some(time) = self.line.map(&frame) {
                return (frame, time);
            }
        }
    }

    /// Waits for a key frame that was not sent yet, and takes a place behind it.
    async fn join(&mut self) {
        loop {
            self.key_frames.mark_unchanged();
            if let Some(joined) = self.fanout.join(BEHIND)
                && self.line.go_on(&joined, Instant::now())
            {
                self.waiting = joined.gop.into();
                self.frames = Some(joined.frames);
                return;
            }
            if self.key_frames.changed().await.is_err() {
                // The sender lives as long as the fanout.
                std::future::pending::<()>().await;
            }
        }
    }
}

impl TimeLine {
    /// Whether a place is one to go on from: one that begins behind everything that was sent already.
    fn go_on(&mut self, joined: &Joined, now: Instant) -> bool {
        let Some(begin) = joined.begins_at() else {
            return false;
        };
        if self.session == Some(joined.session) {
            return self.last.is_none_or(|(last, _)| begin > last);
        }
        if let Some((last, seen)) = self.last.take() {
            let then = self.is + last.saturating_sub(self.at);
            self.is = then + now.saturating_duration_since(seen);
        }
        self.session = Some(joined.session);
        self.at = begin;
        true
    }

    /// None for sound from before the first picture.
    fn map(&mut self, frame: &Frame) -> Option<Duration> {
        let at = match frame {
            Frame::Video(frame) => {
                self.last = Some((frame.at, Instant::now()));
                frame.at
            }
            Frame::Audio(frame) => frame.at,
        };
        at.checked_sub(self.at).map(|since| self.is + since)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tokio_util::sync::CancellationToken;
    use understudy_core::time::Timestamp;

    use super::*;
    use crate::camera::frame::{AudioFrame, VideoCodec, VideoFormat};

    fn video(key: bool, millis: u64) -> Frame {
        Frame::Video(VideoFrame {
            data: Bytes::new(),
            format: Arc::new(VideoFormat {
                codec: VideoCodec::H264,
                configuration: Bytes::new(),
                width: 1,
                height: 1,
            }),
            key,
            at: Duration::from_millis(millis),
            wall: Timestamp(0),
        })
    }

    fn key(frame: &Frame) -> bool {
        matches!(frame, Frame::Video(frame) if frame.key)
    }

    #[tokio::test]
    async fn d2_a_viewer_that_falls_behind_goes_on_with_a_key_frame_and_sees_none_twice() {
        let fanout = Arc::new(Fanout::new(CancellationToken::new()));
        fanout.begin(None);
        fanout.publish(&video(true, 5_000));
        let mut feed = Feed::new(Arc::clone(&fanout));
        let (first, time) = feed.next().await;
        assert!(key(&first) && time.is_zero());
        for number in 1..=600_u64 {
            fanout.publish(&video(number % 50 == 0, 5_000 + number * 10));
        }
        let mut times = Vec::new();
        let mut gap = None;
        for _ in 0..BEHIND + 1 {
            let (frame, time) = feed.next().await;
            if let Some(before) = times.last()
                && time - *before > Duration::from_millis(10)
            {
                gap = Some(key(&frame));
            }
            times.push(time);
        }
        assert_eq!(gap, Some(true), "it goes on with a key frame");
        assert!(times.is_sorted_by(|a, b| a < b), "{times:?}");
    }

    #[tokio::test]
    async fn d2_a_viewers_time_goes_on_when_the_camera_begins_anew() {
        let fanout = Arc::new(Fanout::new(CancellationToken::new()));
        let mut feed = Feed::new(Arc::clone(&fanout));
        let mut last = Duration::ZERO;
        for session in 0..3 {
            fanout.begin(None);
            fanout.publish(&Frame::Audio(AudioFrame {
                data: Bytes::new(),
                at: Duration::ZERO,
            }));
            for (is_key, millis) in [(true, 40), (false, 80)] {
                fanout.publish(&video(is_key, millis));
                let (frame, time) = feed.next().await;
                assert_eq!(key(&frame), is_key);
                assert!(time > last || session == 0, "{time:?} after {last:?}");
                last = time;
            }
            fanout.clear();
        }
    }
}
