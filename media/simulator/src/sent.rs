//! What was sent to whom and when: the count from outside that tests and the demo rely on.
//!
//! A frame counts as sent once the last of its bytes is handed to the connection's socket.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

use serde::{Deserialize, Serialize};

/// Frames kept per session: nearly five hours at 15 frames a second, 2 MiB. The oldest half goes when it is full.
const KEPT_FRAMES: usize = 1 << 18;

/// What one camera sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CameraSent {
    /// The camera's id.
    pub camera: String,
    /// [`crate::numbering::camera_hash`] of it, as its frames carry it.
    pub hash: u64,
    /// Its sessions, those that ended included, oldest first.
    pub sessions: Vec<SessionSent>,
}

/// What one client was sent. Times are microseconds since 1970 by the system's clock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionSent {
    /// The RTSP session's id.
    pub session: String,
    /// The client's address.
    pub peer: SocketAddr,
    /// What the client says it is.
    pub user_agent: String,
    /// When its connection was accepted.
    pub connected_at: i64,
    /// When its first RTP packet was sent.
    pub first_rtp_at: Option<i64>,
    /// When its first key frame was sent.
    pub first_key_frame_at: Option<i64>,
    /// When it ended.
    pub ended_at: Option<i64>,
    /// The frames sent to it: number, when, and 1 for a key frame or 0.
    pub frames: Vec<(u64, i64, u8)>,
}

/// The system's clock: the one that frames are counted by.
#[expect(
    clippy::disallowed_methods,
    reason = "the simulator depends on nothing of the product that it measures, its clock included"
)]
pub(crate) fn now() -> SystemTime {
    SystemTime::now()
}

/// Now, in microseconds since 1970.
pub(crate) fn now_us() -> i64 {
    let since = now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// One session's count while it grows.
#[derive(Debug)]
pub(crate) struct SessionLog {
    session: String,
    peer: SocketAddr,
    user_agent: String,
    connected_at: i64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    first_rtp_at: Option<i64>,
    first_key_frame_at: Option<i64>,
    ended_at: Option<i64>,
    /// Number and time of the frame before the first one kept.
    base: (u64, i64),
    last: (u64, i64),
    frames: VecDeque<Entry>,
}

/// Eight bytes per frame: how far it lies behind the one before it.
#[derive(Clone, Copy, Debug)]
struct Entry {
    /// Difference of the numbers, doubled, and 1 for a key frame.
    step_and_key: u32,
    /// Difference of the times; the system's clock may be set back, then it is zero.
    micros: u32,
}

impl SessionLog {
    pub(crate) fn new(session: String, peer: SocketAddr, user_agent: String, connected_at: i64) -> Self {
        Self {
            session,
            peer,
            user_agent,
            connected_at,
            state: Mutex::default(),
        }
    }

    /// A frame was handed to the socket.
    pub(crate) fn sent(&self, number: u64, key: bool, at: i64) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.first_rtp_at.get_or_insert(at);
        if key {
            state.first_key_frame_at.get_or_insert(at);
        }
        if state.frames.is_empty() {
            state.base = (number, at);
            state.last = state.base;
        }
        let (last_number, last_at) = state.last;
        let step = u32::try_from(number - last_number)
            .unwrap_or(u32::MAX)
            .min(u32::MAX >> 1);
        let micros = u32::try_from((at - last_at).max(0)).unwrap_or(u32::MAX);
        state.last = (last_number + u64::from(step), last_at + i64::from(micros));
        state.frames.push_back(Entry {
            step_and_key: step << 1 | u32::from(key),
            micros,
        });
        state.forget_beyond(KEPT_FRAMES);
    }

    pub(crate) fn ended(&self, at: i64) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.ended_at.get_or_insert(at);
    }

    /// What was sent at `since` or later.
    pub(crate) fn since(&self, since: i64) -> SessionSent {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut at = state.base;
        let frames = state.frames.iter().map(|entry| {
            at = entry.after(at);
            (at.0, at.1, (entry.step_and_key & 1) as u8)
        });
        SessionSent {
            session: self.session.clone(),
            peer: self.peer,
            user_agent: self.user_agent.clone(),
            connected_at: self.connected_at,
            first_rtp_at: state.first_rtp_at,
            first_key_frame_at: state.first_key_frame_at,
            ended_at: state.ended_at,
            frames: frames.filter(|(_, sent_at, _)| *sent_at >= since).collect(),
        }
    }
}

impl State {
    fn forget_beyond(&mut self, kept: usize) {
        if self.frames.len() > kept {
            for entry in self.frames.drain(..kept / 2) {
                self.base = entry.after(self.base);
            }
        }
    }
}

impl Entry {
    fn after(self, (number, at): (u64, i64)) -> (u64, i64) {
        (
            number + u64::from(self.step_and_key >> 1),
            at + i64::from(self.micros),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log() -> SessionLog {
        SessionLog::new("s".to_owned(), ([127, 0, 0, 1], 1).into(), String::new(), 5)
    }

    #[test]
    fn frames_come_out_as_they_went_in() {
        let log = log();
        let frames = [
            (1_000_000, 7_000_000, 0),
            (1_000_001, 7_066_000, 1),
            (1_000_005, 7_400_000, 0),
        ];
        for (number, at, key) in frames {
            log.sent(number, key == 1, at);
        }
        let sent = log.since(0);
        assert_eq!(sent.frames, frames);
        assert_eq!(
            (sent.first_rtp_at, sent.first_key_frame_at),
            (Some(7_000_000), Some(7_066_000))
        );
        assert_eq!(log.since(7_100_000).frames, frames[2..]);
    }

    #[test]
    fn forgetting_the_oldest_leaves_the_rest_right() {
        let log = log();
        for number in 0..100 {
            log.sent(number, number % 15 == 0, 1000 * number as i64);
        }
        log.state.lock().expect("nothing panicked").forget_beyond(60);
        let sent = log.since(0).frames;
        assert_eq!(sent.len(), 70);
        assert_eq!((sent[0], sent[69]), ((30, 30_000, 1), (99, 99_000, 0)));
    }
}
