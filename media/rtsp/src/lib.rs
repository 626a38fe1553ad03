//! The serving side of RTSP (RFC 2326), for whoever gives out live video: requests and answers ([`message`]),
//! descriptions ([`description`]), RTP packets ([`packets`]), and who may ask ([`auth`]).
//!
//! Bytes in, bytes out: no socket, no clock, no camera, and nothing of Understudy. The relay and the simulated
//! cameras both stand on it, and other people's clients (retina, ffmpeg) test it.

pub mod auth;
pub mod description;
pub mod message;
pub mod packets;

/// How video is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// ITU-T H.264.
    H264,
    /// ITU-T H.265.
    H265,
}
