//! The picture: encoded once by GStreamer, then played in a loop by all cameras.
//!
//! Closed GOPs without B-frames, so that frames can be sent in the order and at the pace of their display.
//! The loop begins with a key frame and has an even number of GOPs, so that neighbouring IDR pictures have
//! different ids (H.264 7.4.3, `idr_pic_id`), also across its end.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use gstreamer::{self as gst, prelude::*};

use crate::{
    config::{Codec, SimulatorConfig},
    nal,
};

/// GOPs that the encoder gets to find its bit rate in; thrown away.
const WARM_UP_GOPS: u32 = 2;
/// The loop has at least this many frames, rounded up to an even number of GOPs.
const LEAST_FRAMES: u32 = 60;
/// How far the loop's bit rate may be off, in per cent, before it is encoded again.
const TOLERANCE_PERCENT: u64 = 3;
/// How often it is encoded in search of the bit rate.
const ATTEMPTS: u32 = 3;

/// Why there is no video.
#[derive(Clone, Debug, thiserror::Error)]
pub enum EncodeError {
    /// GStreamer does not start, or lacks an element.
    #[error(
        "the encoding pipeline can't be built (Debian has its elements in gstreamer1.0-plugins-base, -ugly and -bad): {0}"
    )]
    Pipeline(String),
    /// It started and broke off.
    #[error("encoding failed: {0}")]
    Encoding(String),
}

/// What decides how the video looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct VideoKey {
    pub(crate) codec: Codec,
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) fps: u32,
    pub(crate) gop: u32,
    pub(crate) kilobits: u32,
}

/// One encoded frame: its slices, without parameter sets and other units.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) key: bool,
    pub(crate) slices: Vec<Vec<u8>>,
}

/// The loop.
#[derive(Debug)]
pub(crate) struct Video {
    pub(crate) codec: Codec,
    /// VPS (H.265 only), SPS and PPS, in this order.
    pub(crate) parameter_sets: Vec<Vec<u8>>,
    pub(crate) frames: Vec<Frame>,
}

impl From<&SimulatorConfig> for VideoKey {
    fn from(config: &SimulatorConfig) -> Self {
        Self {
            codec: config.codec,
            width: config.width & !1,
            height: config.height & !1,
            fps: config.fps,
            gop: config.gop,
            kilobits: config.bitrate,
        }
    }
}

type Cached = Arc<OnceLock<Result<Arc<Video>, EncodeError>>>;

/// The video for `key`, encoded at its first use in this process. Blocks for a second or a few.
///
/// # Errors
/// [`EncodeError`] if GStreamer can't do it.
pub(crate) fn video(key: VideoKey) -> Result<Arc<Video>, EncodeError> {
    static CACHE: OnceLock<Mutex<HashMap<VideoKey, Cached>>> = OnceLock::new();
    let slot = {
        let mut cache = CACHE
            .get_or_init(Mutex::default)
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        cache.entry(key).or_default().clone()
    };
    slot.get_or_init(|| encode(key).map(Arc::new)).clone()
}

/// Encodes until the loop's own bit rate is what was asked for.
fn encode(key: VideoKey) -> Result<Video, EncodeError> {
    gst::init().map_err(|error| EncodeError::Pipeline(error.to_string()))?;
    let asked = u64::from(key.kilobits);
    let mut kilobits = key.kilobits;
    let mut best: Option<(u64, Video)> = None;
    for _ in 0..ATTEMPTS {
        let video = encode_once(key, kilobits)?;
        let got = video.kilobits(key.fps).max(1);
        let off = got.abs_diff(asked);
        if best.as_ref().is_none_or(|(least, _)| off < *least) {
            best = Some((off, video));
        }
        if off * 100 <= asked * TOLERANCE_PERCENT {
            break;
        }
        kilobits = u32::try_from(u64::from(kilobits) * asked / got)
            .unwrap_or(kilobits)
            .max(1);
    }
    best.map(|(_, video)| video)
        .ok_or_else(|| EncodeError::Encoding("no attempt gave a video".to_owned()))
}

fn encode_once(key: VideoKey, kilobits: u32) -> Result<Video, EncodeError> {
    let gops = LEAST_FRAMES.div_ceil(key.gop).max(2).next_multiple_of(2);
    let skipped = (WARM_UP_GOPS * key.gop) as usize;
    let wanted = (gops * key.gop) as usize;
    let units = access_units(key, kilobits, skipped + wanted)?;

    let mut video = Video {
        codec: key.codec,
        parameter_sets: Vec::new(),
        frames: Vec::with_capacity(wanted),
    };
    for (index, unit) in units.iter().enumerate() {
        let (frame, parameter_sets) = sort_units(key.codec, unit);
        if video.parameter_sets.is_empty() {
            video.parameter_sets = parameter_sets;
        }
        if frame.key != (index % key.gop as usize == 0) {
            return Err(EncodeError::Encoding(format!(
                "frame {index} is not where its GOP has it"
            )));
        }
        if index >= skipped {
            video.frames.push(frame);
        }
    }
    let sets = if key.codec == Codec::H264 { 2 } else { 3 };
    if video.frames.len() != wanted || video.parameter_sets.len() != sets {
        return Err(EncodeError::Encoding(format!(
            "{} of {wanted} frames and {} of {sets} parameter sets came out",
            video.frames.len(),
            video.parameter_sets.len(),
        )));
    }
    Ok(video)
}

/// Runs the encoder; gives `count` access units as byte streams.
fn access_units(key: VideoKey, kilobits: u32, count: usize) -> Result<Vec<Vec<u8>>, EncodeError> {
    let broken = |error: &dyn std::fmt::Display| EncodeError::Encoding(error.to_string());
    let pipeline = gst::parse::launch(&pipeline(key, kilobits, count))
        .map_err(|error| EncodeError::Pipeline(error.to_string()))?
        .downcast::<gst::Pipeline>()
        .map_err(|_| EncodeError::Pipeline("its description gave no pipeline".to_owned()))?;
    let sink = pipeline
        .by_name("out")
        .and_then(|element| element.downcast::<gstreamer_app::AppSink>().ok())
        .ok_or_else(|| EncodeError::Pipeline("it has no appsink".to_owned()))?;
    pipeline
        .set_state(gst::State::Playing)
        .map_err(|error| broken(&error))?;
    let mut units = Vec::with_capacity(count);
    while let Ok(sample) = sink.pull_sample() {
        let map = sample.buffer().map(|buffer| buffer.map_readable());
        if let Some(Ok(bytes)) = map {
            units.push(bytes.to_vec());
        }
    }
    let error = pipeline
        .bus()
        .and_then(|bus| bus.pop_filtered(&[gst::MessageType::Error]));
    pipeline
        .set_state(gst::State::Null)
        .map_err(|error| broken(&error))?;
    match error.as_ref().map(|message| message.view()) {
        Some(gst::MessageView::Error(error)) => Err(broken(&error.error())),
        _ => Ok(units),
    }
}

/// Scrolling colour bars with a patch of snow, which no encoder can compress: it fills the bit rate.
fn pipeline(key: VideoKey, kilobits: u32, count: usize) -> String {
    let VideoKey {
        width,
        height,
        fps,
        gop,
        ..
    } = key;
    // The clock in the picture comes from a package of its own (gstreamer1.0-x): it is no loss without it.
    let clock = match gst::ElementFactory::find("timeoverlay") {
        Some(_) => "! timeoverlay",
        None => "",
    };
    let encoder = match key.codec {
        Codec::H264 => format!(
            "x264enc bitrate={kilobits} key-int-max={gop} bframes=0 speed-preset=veryfast tune=zerolatency \
             sliced-threads=false option-string=scenecut=0:open-gop=0:repeat-headers=1:min-keyint={gop} \
             ! video/x-h264,stream-format=byte-stream,alignment=au,profile=main"
        ),
        Codec::H265 => format!(
            "x265enc bitrate={kilobits} key-int-max={gop} speed-preset=ultrafast tune=zerolatency option-string=\
             bframes=0:scenecut=0:open-gop=0:repeat-headers=1:info=0:min-keyint={gop}:keyint={gop}:log-level=none \
             ! video/x-h265,stream-format=byte-stream,alignment=au"
        ),
    };
    format!(
        "videotestsrc num-buffers={count} pattern=smpte horizontal-speed=2 \
         ! video/x-raw,format=I420,width={width},height={height},framerate={fps}/1 {clock} \
         ! {encoder} ! appsink name=out sync=false max-buffers=0"
    )
}

/// Parts an access unit into its slices and its parameter sets; the rest is left out.
fn sort_units(codec: Codec, access_unit: &[u8]) -> (Frame, Vec<Vec<u8>>) {
    let mut frame = Frame {
        key: false,
        slices: Vec::new(),
    };
    let mut parameter_sets = Vec::new();
    for unit in nal::annex_b(access_unit) {
        let kind = match codec {
            Codec::H264 => unit[0] & 0x1f,
            Codec::H265 => unit[0] >> 1 & 0x3f,
        };
        let (slice, key, parameter_set) = match codec {
            Codec::H264 => (matches!(kind, 1 | 5), kind == 5, matches!(kind, 7 | 8)),
            Codec::H265 => (kind < 32, (16..=23).contains(&kind), (32..=34).contains(&kind)),
        };
        if slice {
            frame.key |= key;
            frame.slices.push(unit.to_vec());
        } else if parameter_set {
            // x265enc puts them in front of its first frame twice, and now and then not the same: those
            // that stand right before the slices hold for them.
            match parameter_sets
                .iter_mut()
                .find(|known: &&mut Vec<u8>| known[0] == unit[0])
            {
                Some(known) => *known = unit.to_vec(),
                None => parameter_sets.push(unit.to_vec()),
            }
        }
    }
    (frame, parameter_sets)
}

impl Video {
    fn kilobits(&self, fps: u32) -> u64 {
        let bytes: usize = self
            .frames
            .iter()
            .flat_map(|frame| &frame.slices)
            .map(Vec::len)
            .sum();
        bytes as u64 * 8 * u64::from(fps) / self.frames.len().max(1) as u64 / 1000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(codec: Codec, kilobits: u32) -> VideoKey {
        VideoKey {
            codec,
            width: 640,
            height: 360,
            fps: 15,
            gop: 15,
            kilobits,
        }
    }

    #[test]
    fn the_loop_has_whole_gops_and_the_bit_rate_that_was_asked_for() {
        for codec in [Codec::H264, Codec::H265] {
            for kilobits in [500, 1500] {
                let video = video(key(codec, kilobits)).expect("GStreamer encodes");
                assert_eq!(video.frames.len(), 60);
                let keys = (0..60)
                    .filter(|index| video.frames[*index].key)
                    .collect::<Vec<_>>();
                assert_eq!(keys, [0, 15, 30, 45], "{codec:?}");
                let got = video.kilobits(15);
                let within = u64::from(kilobits) * 9 / 10..=u64::from(kilobits) * 11 / 10;
                assert!(within.contains(&got), "{codec:?}: {got} of {kilobits} kbit/s");
            }
        }
    }
}
