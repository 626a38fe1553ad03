//! One session's frames for everybody in this process who wants them beside the recorder. A slow listener
//! loses its place; the camera is never slowed down, and never connected to twice.

use std::sync::{Mutex, PoisonError};

use tokio::sync::{mpsc, watch};

use super::frame::{Frame, VideoFrame};

/// Gives out one camera's frames.
#[derive(Debug)]
pub struct Fanout {
    key_frame: watch::Sender<Option<VideoFrame>>,
    listeners: Mutex<Vec<mpsc::Sender<Frame>>>,
}

impl Default for Fanout {
    fn default() -> Self {
        Self {
            key_frame: watch::Sender::new(None),
            listeners: Mutex::default(),
        }
    }
}

impl Fanout {
    /// All frames from now on. Who falls `behind` frames behind is dropped: its receiver ends.
    #[must_use]
    pub fn listen(&self, behind: usize) -> mpsc::Receiver<Frame> {
        let (sender, receiver) = mpsc::channel(behind.max(1));
        self.listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(sender);
        receiver
    }

    /// The newest key frame, if there is a session.
    #[must_use]
    pub fn key_frame(&self) -> Option<VideoFrame> {
        self.key_frame.borrow().clone()
    }

    pub(crate) fn publish(&self, frame: &Frame) {
        if let Frame::Video(frame) = frame
            && frame.key
        {
            self.key_frame.send_replace(Some(frame.clone()));
        }
        let mut listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.retain(|listener| listener.try_send(frame.clone()).is_ok());
    }

    /// The session is over: what was seen is no picture of now.
    pub(crate) fn clear(&self) {
        self.key_frame.send_replace(None);
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use bytes::Bytes;
    use understudy_core::time::Timestamp;

    use super::*;
    use crate::camera::frame::{VideoCodec, VideoFormat};

    fn frame(key: bool) -> Frame {
        let format = VideoFormat {
            codec: VideoCodec::H264,
            configuration: Bytes::new(),
            width: 1,
            height: 1,
        };
        Frame::Video(VideoFrame {
            data: Bytes::from_static(b"x"),
            format: Arc::new(format),
            key,
            at: Duration::ZERO,
            wall: Timestamp(0),
        })
    }

    #[tokio::test]
    async fn a_slow_listener_is_dropped_and_the_others_go_on() {
        let fanout = Fanout::default();
        let (mut slow, mut quick) = (fanout.listen(1), fanout.listen(8));
        for key in [true, false, false] {
            fanout.publish(&frame(key));
        }
        assert!(slow.recv().await.is_some() && slow.recv().await.is_none());
        assert_eq!(quick.len(), 3);
        assert!(quick.recv().await.is_some());
        assert!(fanout.key_frame().is_some_and(|frame| frame.key));
    }
}
