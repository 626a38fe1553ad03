//! The sound: a tone, encoded once as AAC-LC and played in a loop.

use std::sync::{Arc, OnceLock};

use gstreamer::{self as gst, prelude::*};

use crate::video::EncodeError;

/// Samples per second.
pub(crate) const SAMPLE_RATE: u32 = 16_000;
/// Samples in one AAC frame.
pub(crate) const FRAME_SAMPLES: u32 = 1024;
/// AAC frames in the loop, some four seconds; the encoder's first ones are left out.
const FRAMES: usize = 64;
const WARM_UP: usize = 4;

/// The loop.
#[derive(Debug)]
pub(crate) struct Audio {
    /// `AudioSpecificConfig` (ISO/IEC 14496-3, 1.6.2.1).
    pub(crate) config: Vec<u8>,
    pub(crate) frames: Vec<Vec<u8>>,
}

/// The sound, encoded at its first use in this process. Blocks for a moment.
///
/// # Errors
/// [`EncodeError`] if GStreamer can't do it.
pub(crate) fn audio() -> Result<Arc<Audio>, EncodeError> {
    static CACHE: OnceLock<Result<Arc<Audio>, EncodeError>> = OnceLock::new();
    CACHE.get_or_init(|| encode().map(Arc::new)).clone()
}

fn encode() -> Result<Audio, EncodeError> {
    let pipeline_error = |error: &dyn std::fmt::Display| EncodeError::Pipeline(error.to_string());
    gst::init().map_err(|error| pipeline_error(&error))?;
    let count = WARM_UP + FRAMES + 2;
    let pipeline = gst::parse::launch(&format!(
        "audiotestsrc num-buffers={count} samplesperbuffer={FRAME_SAMPLES} freq=440 volume=0.3 \
         ! audio/x-raw,rate={SAMPLE_RATE},channels=1 ! audioconvert ! avenc_aac bitrate=32000 \
         ! audio/mpeg,mpegversion=4,stream-format=raw ! appsink name=out sync=false max-buffers=0"
    ))
    .map_err(|error| pipeline_error(&error))?;
    let sink = pipeline
        .downcast_ref::<gst::Bin>()
        .and_then(|bin| bin.by_name("out"))
        .and_then(|element| element.downcast::<gstreamer_app::AppSink>().ok())
        .ok_or_else(|| pipeline_error(&"it has no appsink"))?;
    pipeline
        .set_state(gst::State::Playing)
        .map_err(|error| pipeline_error(&error))?;
    let mut audio = Audio {
        config: Vec::new(),
        frames: Vec::new(),
    };
    while let Ok(sample) = sink.pull_sample() {
        let header = sample
            .caps()
            .and_then(|caps| caps.structure(0))
            .and_then(|caps| caps.get::<gst::Buffer>("codec_data").ok());
        if let Some(Ok(config)) = header.as_ref().map(|header| header.map_readable()) {
            audio.config = config.to_vec();
        }
        if let Some(Ok(frame)) = sample.buffer().map(|buffer| buffer.map_readable()) {
            audio.frames.push(frame.to_vec());
        }
    }
    pipeline
        .set_state(gst::State::Null)
        .map_err(|error| pipeline_error(&error))?;
    if audio.config.is_empty() || audio.frames.len() < WARM_UP + FRAMES {
        return Err(EncodeError::Encoding("no sound came out".to_owned()));
    }
    audio.frames = audio.frames.drain(WARM_UP..WARM_UP + FRAMES).collect();
    Ok(audio)
}
