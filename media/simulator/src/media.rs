//! What all cameras send, laid out in packets once.

use std::sync::Arc;

use understudy_rtsp::packets::Packets;

use crate::{
    audio::{self, Audio},
    config::{Codec, SimulatorConfig},
    video::{self, EncodeError, Video},
};

/// The loop of video and, if asked for, of sound.
pub(crate) struct Media {
    pub(crate) video: Arc<Video>,
    pub(crate) sound: Option<Arc<Audio>>,
    /// One entry per frame of the loop.
    pub(crate) frames: Vec<LaidOut>,
    parameter_sets: Packets,
    /// One entry per AAC frame of the loop; empty without sound.
    pub(crate) audio: Vec<Packets>,
}

/// One frame's slices in packets.
pub(crate) struct LaidOut {
    pub(crate) key: bool,
    slices: Packets,
}

impl Media {
    /// Encodes (or takes from the cache) and lays out. Blocks for a second or a few.
    ///
    /// # Errors
    /// [`EncodeError`] if GStreamer can't do it.
    pub(crate) fn prepare(config: &SimulatorConfig) -> Result<Self, EncodeError> {
        let video = video::video(config.into())?;
        let sound = config.audio.then(audio::audio).transpose()?;
        let mut parameter_sets = Packets::default();
        for set in &video.parameter_sets {
            parameter_sets.add_unit(config.codec.into(), set, false);
        }
        let frames = video.frames.iter().map(|frame| {
            let mut slices = Packets::default();
            for (index, slice) in frame.slices.iter().enumerate() {
                slices.add_unit(config.codec.into(), slice, index + 1 == frame.slices.len());
            }
            LaidOut {
                key: frame.key,
                slices,
            }
        });
        let audio = sound.iter().flat_map(|sound| &sound.frames).map(|frame| {
            let mut packets = Packets::default();
            packets.add_aac(frame);
            packets
        });
        Ok(Self {
            frames: frames.collect(),
            parameter_sets,
            audio: audio.collect(),
            sound,
            video,
        })
    }

    /// The packets of the frame at `position`, with `sei` in front of its slices and, if it is a key frame,
    /// the parameter sets in front of that.
    pub(crate) fn lay_out(&self, codec: Codec, position: usize, sei: &[u8]) -> Packets {
        let frame = &self.frames[position];
        let mut packets = Packets::with_capacity(
            frame.slices.bytes.len() + self.parameter_sets.bytes.len() + 2 * sei.len(),
        );
        if frame.key {
            packets.extend(&self.parameter_sets);
        }
        packets.add_unit(codec.into(), sei, false);
        packets.extend(&frame.slices);
        packets
    }

    /// The first key frame at `position` or behind it.
    pub(crate) fn next_key_frame(&self, position: usize) -> usize {
        let behind = self.frames[position..].iter().position(|frame| frame.key);
        behind.map_or(0, |behind| position + behind)
    }
}
