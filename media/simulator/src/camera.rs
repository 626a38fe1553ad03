//! One camera: its frames at their pace, its sessions, and how it behaves.
//!
//! Frames are numbered at the wall clock's pace whether or not anybody watches: frame n is due n intervals
//! after the camera's start, so that nothing drifts. A client joins with the next frame.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use rtsp_types::StatusCode;
use serde::Serialize;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use understudy_rtsp::packets::{self, Packets, Stream, VIDEO_CLOCK};

use crate::{
    audio::{FRAME_SAMPLES, SAMPLE_RATE},
    behaviour::{AtOnce, Behaviour, BehaviourChange, Garbage},
    client::{Client, Mark},
    config::SimulatorConfig,
    media::Media,
    numbering::{self, FrameNumber},
    sdp,
    sent::{self, CameraSent, SessionLog, now_us},
    udp::UdpWay,
};

/// A camera that fell behind by more (the machine slept) leaves the missed frames out.
const MOST_BEHIND: Duration = Duration::from_secs(2);
/// Time between two sender reports (RFC 3550 6.2 asks for about this).
const REPORT_INTERVAL_SECONDS: u32 = 5;
/// Sessions whose count is kept, at least those that stand.
const KEPT_SESSIONS: usize = 64;
/// Size of a heap of random bytes sent in place of a frame.
const GARBAGE_BYTES: usize = 1000;

/// A camera.
pub(crate) struct Camera {
    id: String,
    hash: u64,
    config: Arc<SimulatorConfig>,
    media: Arc<Media>,
    /// When frame 0 is due.
    start: Instant,
    state: Mutex<State>,
}

/// How a camera is, as `GET /cameras` shows it.
#[derive(Clone, Debug, Serialize)]
pub struct CameraState {
    /// Its id, which is also its path.
    pub id: String,
    /// [`numbering::camera_hash`] of its id.
    pub hash: u64,
    /// The number of its next frame.
    pub next_frame: u64,
    /// Sessions that stand.
    pub sessions: usize,
    /// How it behaves.
    pub behaviour: Behaviour,
}

struct State {
    behaviour: Behaviour,
    sessions: Vec<Session>,
    logs: VecDeque<Arc<SessionLog>>,
    next_number: u64,
    /// Where in the loop the next frame is.
    position: usize,
    key_frame_wanted: bool,
    video: Stream,
    audio: Stream,
    next_audio: u64,
    silent_until: Option<Instant>,
    next_drop: Option<Instant>,
}

/// One client's session.
struct Session {
    id: String,
    client: Arc<Client>,
    log: Arc<SessionLog>,
    /// The way of each track that was set up.
    video: Option<Way>,
    audio: Option<Way>,
    playing: bool,
    report_due: bool,
}

/// How packets get to a client.
#[derive(Debug)]
pub(crate) enum Way {
    /// Within its connection, on this channel and the next.
    Interleaved(u8),
    /// By UDP.
    Udp(UdpWay),
}

/// Who asks for a session.
pub(crate) struct Visitor {
    pub(crate) client: Arc<Client>,
    pub(crate) peer: SocketAddr,
    pub(crate) user_agent: String,
    pub(crate) connected_at: i64,
}

/// What of a camera.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Track {
    Video,
    Audio,
}

/// A track that begins to play: the next packet's sequence number and timestamp.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Beginning {
    pub(crate) track: Track,
    pub(crate) sequence: u16,
    pub(crate) timestamp: u32,
}

impl Camera {
    /// Camera `index` of `config.cameras`, counted from 0, whose time begins at about `start`.
    pub(crate) fn new(config: Arc<SimulatorConfig>, media: Arc<Media>, index: u32, start: Instant) -> Self {
        let id = SimulatorConfig::camera_id(index + 1);
        // Neighbours lie far apart in the GOP, and all lie evenly in the interval between two frames.
        let phase = (f64::from(index) * 0.618_034).fract() * f64::from(config.gop);
        let state = State {
            behaviour: Behaviour {
                max_sessions: config.max_sessions,
                ..Behaviour::default()
            },
            sessions: Vec::new(),
            logs: VecDeque::new(),
            next_number: 0,
            position: phase as usize % media.frames.len(),
            key_frame_wanted: false,
            video: Stream::new(rand::random(), rand::random()),
            audio: Stream::new(rand::random(), rand::random()),
            next_audio: 0,
            silent_until: None,
            next_drop: None,
        };
        Self {
            hash: numbering::camera_hash(&id),
            id,
            start: start + config.frame_interval() * index / config.cameras.max(1),
            config,
            media,
            state: Mutex::new(state),
        }
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Sends each frame when it is due, until the shutdown.
    pub(crate) async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        loop {
            let due = self.next_due();
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep_until(due) => self.tick(Instant::now()),
            }
        }
    }

    fn next_due(&self) -> Instant {
        let number = self.lock().next_number;
        self.due(number)
    }

    fn due(&self, number: u64) -> Instant {
        let nanos = u128::from(number) * 1_000_000_000 / u128::from(self.config.fps);
        self.start + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    fn tick(&self, now: Instant) {
        let mut state = self.lock();
        let state = &mut *state;
        let missed = now.saturating_duration_since(self.due(state.next_number));
        if missed > MOST_BEHIND {
            let frames = missed.as_nanos() * u128::from(self.config.fps) / 1_000_000_000;
            state.next_number += u64::try_from(frames).unwrap_or(0);
        }
        let number = state.next_number;
        state.next_number += 1;
        if std::mem::take(&mut state.key_frame_wanted) {
            state.position = self.media.next_key_frame(state.position);
        }
        let position = state.position;
        state.position = (position + 1) % self.media.frames.len();
        state.drop_if_due(now);
        let audio_due = self.audio_due(now);
        let audio_from = std::mem::replace(&mut state.next_audio, audio_due);
        if state.behaviour.mute || state.silent_until.is_some_and(|until| now < until) {
            return;
        }
        if state.sessions.iter().any(|session| session.playing) {
            self.send_video(state, number, position);
            self.send_audio(state, audio_from..audio_due);
        }
    }

    /// AAC frames that are due by `now`.
    fn audio_due(&self, now: Instant) -> u64 {
        let micros = now.saturating_duration_since(self.start).as_micros();
        u64::try_from(micros * u128::from(SAMPLE_RATE) / u128::from(FRAME_SAMPLES) / 1_000_000).unwrap_or(0)
    }

    fn timestamp(&self, number: u64) -> u32 {
        // Wraps around, as it should (RFC 3550 5.1).
        (number * u64::from(VIDEO_CLOCK) / u64::from(self.config.fps)) as u32
    }

    fn send_video(&self, state: &mut State, number: u64, position: usize) {
        let key = self.media.frames[position].key;
        let timestamp = self.timestamp(number);
        let codec = self.config.codec;
        let sei = numbering::embed(
            codec,
            FrameNumber {
                number,
                camera: self.hash,
            },
        );
        let mut packets = self.media.lay_out(codec, position, &sei);
        state.video.stamp(&mut packets, timestamp);
        let shared = Bytes::from(packets.bytes);
        let report_to_all = number.is_multiple_of(u64::from(REPORT_INTERVAL_SECONDS * self.config.fps));
        for session in state.sessions.iter_mut().filter(|session| session.playing) {
            let Some(way) = &session.video else { continue };
            if let Some(garbage) = state.behaviour.garbage {
                way.send(&session.client, &rubbish(garbage), None, 0.0);
                continue;
            }
            if std::mem::take(&mut session.report_due) || report_to_all {
                let due_ago = Instant::now().saturating_duration_since(self.due(number));
                let report = state.video.report(timestamp, sent::now() - due_ago);
                way.report(&session.client, &report.into());
            }
            let mark = Mark {
                log: session.log.clone(),
                number,
                key,
            };
            way.send(&session.client, &shared, Some(mark), state.behaviour.udp_loss);
        }
    }

    fn send_audio(&self, state: &mut State, due: std::ops::Range<u64>) {
        if self.media.audio.is_empty() || state.behaviour.garbage.is_some() {
            return;
        }
        let mut packets = Packets::default();
        for index in due {
            let mut frame = self.media.audio[index as usize % self.media.audio.len()].clone();
            state.audio.stamp(&mut frame, audio_timestamp(index));
            packets.extend(&frame);
        }
        let shared = Bytes::from(packets.bytes);
        for session in state.sessions.iter().filter(|session| session.playing) {
            if let Some(way) = &session.audio {
                way.send(&session.client, &shared, None, 0.0);
            }
        }
    }

    /// What `DESCRIBE` answers.
    pub(crate) fn describe(&self) -> String {
        let unsupported = self.lock().behaviour.unsupported_codec;
        sdp::describe(
            &self.id,
            self.config.fps,
            &self.media.video,
            self.media.sound.as_deref(),
            unsupported,
        )
    }

    /// Opens a session, or adds a track to the one of that id. Gives its id and the track's SSRC.
    ///
    /// # Errors
    /// The status to answer with.
    pub(crate) fn set_up(
        &self,
        session: Option<&str>,
        visitor: Visitor,
        track: Track,
        way: Way,
    ) -> Result<(String, u32), StatusCode> {
        let mut state = self.lock();
        let state = &mut *state;
        if track == Track::Audio && self.media.audio.is_empty() {
            return Err(StatusCode::NotFound);
        }
        let known = session.and_then(|id| state.sessions.iter().position(|known| known.id == id));
        let index = match known {
            Some(index) => index,
            None if session.is_some() => return Err(StatusCode::SessionNotFound),
            None => {
                if state
                    .behaviour
                    .max_sessions
                    .is_some_and(|most| state.sessions.len() >= most as usize)
                {
                    return Err(StatusCode::from(self.config.refusal));
                }
                state.open(visitor)
            }
        };
        let session = &mut state.sessions[index];
        let ssrc = match track {
            Track::Video => {
                session.video = Some(way);
                state.video.ssrc
            }
            Track::Audio => {
                session.audio = Some(way);
                state.audio.ssrc
            }
        };
        Ok((session.id.clone(), ssrc))
    }

    /// Lets a session play. Its answer, made from what comes next, is sent before the first frame.
    pub(crate) fn play(&self, session: &str, answer: impl FnOnce(&[Beginning]) -> Bytes) {
        let mut state = self.lock();
        let state = &mut *state;
        let Some(session) = state.sessions.iter_mut().find(|known| known.id == session) else {
            return;
        };
        let video = session.video.as_ref().map(|_| Beginning {
            track: Track::Video,
            sequence: state.video.sequence,
            timestamp: self.timestamp(state.next_number),
        });
        let audio = session.audio.as_ref().map(|_| Beginning {
            track: Track::Audio,
            sequence: state.audio.sequence,
            timestamp: audio_timestamp(state.next_audio),
        });
        let beginnings = video.into_iter().chain(audio).collect::<Vec<_>>();
        session.client.send(answer(&beginnings), None);
        session.report_due |= !session.playing;
        state.key_frame_wanted |= self.config.key_frame_on_connect && !session.playing;
        session.playing = true;
    }

    /// Ends a session.
    pub(crate) fn leave(&self, session: &str) {
        let mut state = self.lock();
        if let Some(index) = state.sessions.iter().position(|known| known.id == session) {
            state.sessions.remove(index).log.ended(now_us());
        }
    }

    /// Changes how it behaves.
    pub(crate) fn change(&self, change: &BehaviourChange) {
        let mut state = self.lock();
        let AtOnce {
            close_connections,
            stall,
        } = state.behaviour.apply(change);
        if let Some(stall) = stall {
            state.silent_until = Some(Instant::now() + stall);
        }
        if close_connections {
            state.close_connections();
        }
    }

    pub(crate) fn behaviour(&self) -> Behaviour {
        self.lock().behaviour.clone()
    }

    pub(crate) fn overview(&self) -> CameraState {
        let state = self.lock();
        CameraState {
            id: self.id.clone(),
            hash: self.hash,
            next_frame: state.next_number,
            sessions: state.sessions.len(),
            behaviour: state.behaviour.clone(),
        }
    }

    /// What it sent at `since` (microseconds since 1970) or later.
    pub(crate) fn sent(&self, since: i64) -> CameraSent {
        // The logs are read after the camera's lock is released: a long answer must not hold up a frame.
        let logs = self.lock().logs.iter().cloned().collect::<Vec<_>>();
        CameraSent {
            camera: self.id.clone(),
            hash: self.hash,
            sessions: logs.iter().map(|log| log.since(since)).collect(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn open(&mut self, visitor: Visitor) -> usize {
        let id = format!("{:08x}", rand::random::<u32>());
        let Visitor {
            client,
            peer,
            user_agent,
            connected_at,
        } = visitor;
        let log = Arc::new(SessionLog::new(id.clone(), peer, user_agent, connected_at));
        self.logs.push_back(log.clone());
        if self.logs.len() > KEPT_SESSIONS.max(self.sessions.len() + 1) {
            self.logs.pop_front();
        }
        self.sessions.push(Session {
            id,
            client,
            log,
            video: None,
            audio: None,
            playing: false,
            report_due: false,
        });
        self.sessions.len() - 1
    }

    fn drop_if_due(&mut self, now: Instant) {
        let Some(seconds) = self.behaviour.drop_every else {
            self.next_drop = None;
            return;
        };
        if self.next_drop.is_some_and(|due| now >= due) {
            self.close_connections();
            self.next_drop = None;
        }
        self.next_drop
            .get_or_insert_with(|| now + Duration::from_secs_f64(seconds * (0.5 + rand::random::<f64>())));
    }

    fn close_connections(&self) {
        for session in &self.sessions {
            session.client.closed().cancel();
        }
    }
}

fn audio_timestamp(index: u64) -> u32 {
    (index * u64::from(FRAME_SAMPLES)) as u32
}

fn on_channel(shared: &Bytes, channel: u8) -> Bytes {
    if channel == 0 {
        return shared.clone();
    }
    let mut own = shared.to_vec();
    packets::rechannel(&mut own, channel);
    own.into()
}

impl Way {
    /// Sends packets in their framing. By UDP they are sent at once, and this part of them is lost.
    fn send(&self, client: &Client, shared: &Bytes, mark: Option<Mark>, lost: f64) {
        match self {
            Self::Interleaved(channel) => client.send(on_channel(shared, *channel), mark),
            Self::Udp(way) => {
                way.send(shared, lost);
                if let Some(Mark { log, number, key }) = mark {
                    log.sent(number, key, now_us());
                }
            }
        }
    }

    fn report(&self, client: &Client, report: &Bytes) {
        match self {
            Self::Interleaved(channel) => client.send(on_channel(report, *channel), None),
            Self::Udp(way) => way.report(report),
        }
    }
}

/// Random bytes; in place of RTP they come in RTSP's framing.
fn rubbish(garbage: Garbage) -> Bytes {
    let mut bytes = (0..GARBAGE_BYTES).map(|_| rand::random()).collect::<Vec<u8>>();
    if garbage == Garbage::Rtp {
        let length = u16::try_from(GARBAGE_BYTES - 4)
            .expect("a thousand fits")
            .to_be_bytes();
        bytes[..4].copy_from_slice(&[b'$', 0, length[0], length[1]]);
    }
    bytes.into()
}
