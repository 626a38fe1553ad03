//! What the simulator is asked for on its command line.

use std::{fmt, net::SocketAddr, time::Duration};

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

/// How the video is compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Codec {
    /// H.264, main profile.
    #[default]
    H264,
    /// H.265, main profile.
    H265,
}

impl From<Codec> for understudy_rtsp::Codec {
    fn from(codec: Codec) -> Self {
        match codec {
            Codec::H264 => Self::H264,
            Codec::H265 => Self::H265,
        }
    }
}

/// How clients sign in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AuthScheme {
    /// Anybody may watch.
    #[default]
    None,
    /// The password in clear (RFC 7617).
    Basic,
    /// A hash of it (MD5, RFC 7616).
    Digest,
}

/// RTSP cameras for tests and trials.
///
/// Camera number 1 is rtsp://HOST:PORT/cam-001, and so on. All show the same moving picture, at different
/// phases; each numbers its frames inside the stream. RTP is sent within the RTSP connection or by UDP, as the
/// client asks.
#[derive(Clone, Args)]
pub struct SimulatorConfig {
    /// How many cameras.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub cameras: u32,
    /// Where the cameras are served; port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8554")]
    pub listen: SocketAddr,
    /// Where what was sent can be asked for, and behaviours changed (HTTP); port 0 takes a free one.
    ///
    /// GET /cameras, GET /sent, GET /cameras/ID/sent?since=MICROSECONDS, POST /cameras/ID/behaviour and
    /// POST /behaviour (all cameras) with any of {"mute":true, "drop":true or SECONDS, "refuse_password":true,
    /// "max_sessions":1, "garbage":"rtp" or "rtsp", "unreachable":true, "unsupported_codec":"mjpeg",
    /// "wrong_rtp_info":true, "stall":SECONDS, "udp_loss":0.01}. Anybody who reaches it may use it: keep it on loopback.
    #[arg(long, value_name = "ADDRESS")]
    pub control: Option<SocketAddr>,
    /// How the video is compressed.
    #[arg(long, value_enum, default_value_t)]
    pub codec: Codec,
    /// Width of the picture in pixels.
    #[arg(long, default_value_t = 1280, value_parser = clap::value_parser!(u32).range(64..=7680))]
    pub width: u32,
    /// Height of the picture in pixels.
    #[arg(long, default_value_t = 720, value_parser = clap::value_parser!(u32).range(64..=4320))]
    pub height: u32,
    /// Frames per second.
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..=120))]
    pub fps: u32,
    /// Frames from one key frame to the next.
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..=600))]
    pub gop: u32,
    /// Kilobits per second of video.
    #[arg(long, value_name = "KBIT", default_value_t = 2000, value_parser = clap::value_parser!(u32).range(50..=100_000))]
    pub bitrate: u32,
    /// Adds an audio track (AAC, mono, 16 kHz).
    #[arg(long)]
    pub audio: bool,
    /// How clients sign in.
    #[arg(long, value_enum, default_value_t)]
    pub auth: AuthScheme,
    /// The user that may watch, if cameras ask.
    #[arg(long, default_value = "admin")]
    pub user: String,
    /// The user's password.
    #[arg(long, default_value = "admin")]
    pub password: String,
    /// Sends a key frame as soon as a client joins, as some cameras do; without it, a client waits for the next.
    #[arg(long)]
    pub key_frame_on_connect: bool,
    /// How many sessions each camera allows at once; any number without it.
    #[arg(long, value_name = "COUNT")]
    pub max_sessions: Option<u32>,
    /// The RTSP status that refuses a session too many: 453 or 503.
    #[arg(long, value_name = "STATUS", default_value_t = 453, value_parser = clap::value_parser!(u16).range(400..=599))]
    pub refusal: u16,
    /// Seconds without a sign of life after which a session ends.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..))]
    pub session_timeout: u32,
}

impl SimulatorConfig {
    /// The time between two frames.
    #[must_use]
    pub fn frame_interval(&self) -> Duration {
        Duration::from_secs(1) / self.fps
    }

    /// The id of the camera with the given number; the first is 1.
    #[must_use]
    pub fn camera_id(number: u32) -> String {
        format!("cam-{number:03}")
    }
}

impl Default for SimulatorConfig {
    /// One small camera on a free port, with control: what tests start from.
    fn default() -> Self {
        Self {
            cameras: 1,
            listen: ([127, 0, 0, 1], 0).into(),
            control: Some(([127, 0, 0, 1], 0).into()),
            codec: Codec::H264,
            width: 320,
            height: 180,
            fps: 15,
            gop: 15,
            bitrate: 300,
            audio: false,
            auth: AuthScheme::None,
            user: "admin".to_owned(),
            password: "admin".to_owned(),
            key_frame_on_connect: false,
            max_sessions: None,
            refusal: 453,
            session_timeout: 60,
        }
    }
}

impl fmt::Debug for SimulatorConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimulatorConfig")
            .field("cameras", &self.cameras)
            .field("listen", &self.listen)
            .field("codec", &self.codec)
            .field("auth", &self.auth)
            .finish_non_exhaustive()
    }
}
