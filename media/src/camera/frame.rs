//! What a camera sends: frames, and what is needed to make sense of them. Shared, never copied.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use understudy_core::time::Timestamp;

/// How a camera encodes its pictures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VideoCodec {
    /// ITU-T H.264.
    H264,
    /// ITU-T H.265.
    H265,
}

/// What a decoder must know before the first picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VideoFormat {
    /// How the pictures are encoded.
    pub codec: VideoCodec,
    /// `AVCDecoderConfigurationRecord` or `HEVCDecoderConfigurationRecord` (ISO/IEC 14496-15).
    pub configuration: Bytes,
    /// In pixels.
    pub width: u32,
    /// In pixels.
    pub height: u32,
}

/// How a camera encodes its sound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AudioFormat {
    /// AAC, recorded as it is; with its `AudioSpecificConfig` (ISO/IEC 14496-3).
    Aac {
        /// The `AudioSpecificConfig`.
        configuration: Bytes,
        /// Samples a second.
        rate: u32,
        /// 1 is mono.
        channels: u16,
    },
    /// ITU-T G.711, A-law; recorded as Opus.
    G711A {
        /// 1 is mono.
        channels: u16,
    },
    /// ITU-T G.711, µ-law; recorded as Opus.
    G711U {
        /// 1 is mono.
        channels: u16,
    },
}

/// One picture.
#[derive(Clone, Debug)]
pub struct VideoFrame {
    /// NAL units, each after its length in four bytes.
    pub data: Bytes,
    /// What it is decoded with.
    pub format: Arc<VideoFormat>,
    /// Whether it can be decoded without the pictures before it.
    pub key: bool,
    /// Since the session's first frame, by the camera's clock.
    pub at: Duration,
    /// Wall-clock time here, smoothed.
    pub wall: Timestamp,
}

/// A piece of sound.
#[derive(Clone, Debug)]
pub struct AudioFrame {
    /// The encoded samples.
    pub data: Bytes,
    /// On the same clock as the pictures.
    pub at: Duration,
}

/// What a session gives out.
#[derive(Clone, Debug)]
pub enum Frame {
    /// A picture.
    Video(VideoFrame),
    /// A piece of sound.
    Audio(AudioFrame),
}

/// How far the mapping may be off before it is not corrected any more but begun anew, in milliseconds:
/// somebody set the clock here, or the camera's jumped.
const STEP_MS: i64 = 500;
/// A frame's own delay moves the mapping by this fraction of it.
const SMOOTHING: i64 = 32;

/// Maps a camera's clock to the wall clock here. Frames arrive with jitter, and the two clocks drift apart:
/// so the mapping follows slowly.
#[derive(Clone, Debug, Default)]
pub struct WallMapping {
    /// Wall-clock time of the camera's zero, in microseconds.
    offset_us: Option<i64>,
}

impl WallMapping {
    /// The wall-clock time of a frame that the camera's clock puts at `at` and that arrived at `arrived`.
    pub fn map(&mut self, at: Duration, arrived: Timestamp) -> Timestamp {
        let at_us = i64::try_from(at.as_micros()).unwrap_or(i64::MAX);
        let seen = arrived.as_millis().saturating_mul(1000).saturating_sub(at_us);
        let offset = match self.offset_us {
            Some(offset) if (seen - offset).abs() < STEP_MS * 1000 => offset + (seen - offset) / SMOOTHING,
            _ => seen,
        };
        self.offset_us = Some(offset);
        Timestamp(offset.saturating_add(at_us).div_euclid(1000))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn e1_jitter_hardly_moves_a_frames_time() {
        let mut mapping = WallMapping::default();
        let start = 1_700_000_000_000;
        for frame in 0..300_u64 {
            let at = Duration::from_millis(frame * 100);
            let jitter = if frame % 2 == 0 { 0 } else { 40 };
            let arrived = Timestamp(start + i64::try_from(frame).expect("small") * 100 + jitter);
            let error =
                mapping.map(at, arrived).as_millis() - start - i64::try_from(frame).expect("small") * 100;
            assert!((0..=40).contains(&error), "frame {frame} is off by {error} ms");
        }
    }

    #[test]
    fn a_clock_that_was_set_is_believed_at_once() {
        let mut mapping = WallMapping::default();
        assert_eq!(
            mapping.map(Duration::ZERO, Timestamp(1_000_000)),
            Timestamp(1_000_000)
        );
        assert_eq!(
            mapping.map(Duration::from_secs(1), Timestamp(5_001_000)),
            Timestamp(5_001_000)
        );
    }
}
