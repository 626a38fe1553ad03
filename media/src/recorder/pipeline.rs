//! One GStreamer pipeline, which writes one file:
//! `appsrc ! h264parse|h265parse ! mp4mux fragment-mode=dash-or-mss ! filesink buffer-mode=unbuffered`, and
//! beside it sound, if there is some. It is pushed into and says what became of it; it decides nothing.

use std::{
    path::Path,
    sync::{Arc, Mutex, Once, PoisonError},
    time::Duration,
};

use gstreamer::{
    self as gst, BusSyncReply, MessageView, PadProbeData, PadProbeReturn, PadProbeType, glib, prelude::*,
};
use gstreamer_app::{AppSrc, AppStreamType};
use tokio::sync::mpsc;
use understudy_core::contract::heartbeat::CameraFault;

use super::tap::{Content, Tap};
use crate::camera::{
    Fault,
    frame::{AudioFormat, AudioFrame, VideoCodec, VideoFormat, VideoFrame},
};

/// How long a fragment is: what a kill can cost.
const FRAGMENT: Duration = Duration::from_millis(250);
/// How much may wait for the disk, in bytes of video: half a minute of a usual camera.
const MAX_WAITING_BYTES: u64 = 8 * 1024 * 1024;

/// What a pipeline has to say.
#[derive(Debug)]
pub(super) enum Event {
    /// Its first fragment is in the file.
    Written,
    /// It can't go on.
    Failed(Fault),
    /// All that was pushed is in the file.
    Finished,
}

/// Pictures that wait to be handed over together: each hand-over wakes two threads of the pipeline, and until
/// a fragment is whole nothing can be written anyway.
#[derive(Debug, Default)]
struct Batch {
    pictures: Vec<gst::Buffer>,
    /// When the fragment that they belong to began.
    begin: Duration,
}

impl Batch {
    /// Takes a picture. The one that is beyond the fragment ends it: it is handed over too, since the muxer
    /// writes a fragment when it sees the picture after it.
    fn take(&mut self, picture: gst::Buffer, dts: Duration) -> Option<gst::BufferList> {
        self.pictures.push(picture);
        if dts.saturating_sub(self.begin) < FRAGMENT {
            return None;
        }
        self.begin = dts;
        self.rest()
    }

    /// All that wait.
    fn rest(&mut self) -> Option<gst::BufferList> {
        let pictures = std::mem::take(&mut self.pictures);
        (!pictures.is_empty()).then(|| pictures.into_iter().collect())
    }
}

/// A pipeline that runs. Dropping it stops it, which blocks until its threads have ended.
pub(super) struct Pipeline {
    pipeline: gst::Pipeline,
    video: AppSrc,
    audio: Option<AppSrc>,
    tap: Arc<Mutex<Tap>>,
    batch: Mutex<Batch>,
}

/// Loads GStreamer and all elements that a recording needs, so that no camera waits for it. The first time
/// on a machine it takes seconds, since every plugin is looked at. Blocks.
///
/// # Errors
/// The name of the element that is missing, in words.
pub fn prepare() -> Result<(), Fault> {
    static ONCE: Once = Once::new();
    gst::init().map_err(|error| broken(&error))?;
    ONCE.call_once(|| {
        // An element's class is set up with its first instance.
        for name in [
            "appsrc",
            "h264parse",
            "h265parse",
            "aacparse",
            "mp4mux",
            "filesink",
        ] {
            let _ = gst::ElementFactory::make(name).build();
        }
    });
    element("mp4mux").map(drop)
}

fn broken(error: &impl ToString) -> Fault {
    Fault::new(
        CameraFault::Storage,
        format!("GStreamer can't record: {}", error.to_string()),
    )
}

fn element(name: &str) -> Result<gst::Element, Fault> {
    gst::ElementFactory::make(name)
        .build()
        .map_err(|error| broken(&error))
}

fn locked(tap: &Mutex<Tap>) -> std::sync::MutexGuard<'_, Tap> {
    tap.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pipeline {
    /// Opens `file` and starts. Blocks for as long as the disk needs. What happens goes to `events`; there
    /// are three events at most, so a bound of three never loses one.
    pub(super) fn start(
        file: &Path,
        video: &VideoFormat,
        audio: Option<&AudioFormat>,
        events: mpsc::Sender<Event>,
    ) -> Result<Self, Fault> {
        let pipeline = gst::Pipeline::new();
        let mux = gst::ElementFactory::make("mp4mux")
            .property(
                "fragment-duration",
                u32::try_from(FRAGMENT.as_millis()).unwrap_or(u32::MAX),
            )
            .property_from_str("fragment-mode", "dash-or-mss")
            // Lets a whole fragment wait at its pad. Without, its thread and the parser's wake each other for
            // each picture (GstAggregator); nothing is delayed, since no source here is live.
            .property("latency", clock_time(4 * FRAGMENT))
            .build()
            .map_err(|error| broken(&error))?;
        let sink = gst::ElementFactory::make("filesink")
            .property("location", file)
            .property("sync", false)
            .property("async", false)
            .property_from_str("buffer-mode", "unbuffered")
            .build()
            .map_err(|error| broken(&error))?;
        pipeline
            .add_many([&mux, &sink])
            .and_then(|()| mux.link(&sink))
            .map_err(|error| broken(&error))?;
        let (parser, caps) = video_branch(video);
        let video = branch(&pipeline, &mux, caps, &[parser])?;
        let audio = match audio.map(audio_branch) {
            Some((elements, caps)) => Some(branch(&pipeline, &mux, caps, elements)?),
            None => None,
        };
        let tap = Arc::new(Mutex::new(Tap::default()));
        watch_file(&sink, &tap, events.clone())?;
        watch_bus(&pipeline, events);
        let pipeline = Self {
            pipeline,
            video,
            audio,
            tap,
            batch: Mutex::default(),
        };
        pipeline
            .pipeline
            .set_state(gst::State::Playing)
            .map_err(|_| pipeline.why_not_started(file))?;
        Ok(pipeline)
    }

    /// The event has said it already, if anything has.
    fn why_not_started(&self, file: &Path) -> Fault {
        Fault::new(
            CameraFault::Storage,
            format!("{} can't be written", file.display()),
        )
    }

    /// Hands over a picture that is shown `pts` after the file's first.
    pub(super) fn push_video(&self, frame: &VideoFrame, pts: Duration, dts: Duration) -> Result<(), Fault> {
        let mut buffer = gst::Buffer::from_slice(frame.data.clone());
        if let Some(buffer) = buffer.get_mut() {
            buffer.set_pts(clock_time(pts));
            buffer.set_dts(clock_time(dts));
            if !frame.key {
                buffer.set_flags(gst::BufferFlags::DELTA_UNIT);
            }
        }
        let whole = self.batch().take(buffer, dts);
        whole.map_or(Ok(()), |pictures| self.hand_over(pictures))
    }

    fn hand_over(&self, pictures: gst::BufferList) -> Result<(), Fault> {
        if self.video.current_level_bytes() > MAX_WAITING_BYTES {
            let waiting = MAX_WAITING_BYTES / (1024 * 1024);
            let detail = format!("the disk does not keep up: more than {waiting} MiB wait for it");
            return Err(Fault::new(CameraFault::Storage, detail));
        }
        self.video
            .push_buffer_list(pictures)
            .map(drop)
            .map_err(|error| broken(&error))
    }

    fn batch(&self) -> std::sync::MutexGuard<'_, Batch> {
        self.batch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands over sound. That a file has no track for it, or that it has ended, is no error.
    pub(super) fn push_audio(&self, frame: &AudioFrame, pts: Duration) {
        let Some(audio) = &self.audio else { return };
        let mut buffer = gst::Buffer::from_slice(frame.data.clone());
        if let Some(buffer) = buffer.get_mut() {
            buffer.set_pts(clock_time(pts));
        }
        // Refused after its end.
        let _ = audio.push_buffer(buffer);
    }

    /// No more sound comes: the muxer would wait for it, with the pictures.
    pub(super) fn end_audio(&self) {
        if let Some(audio) = &self.audio {
            let _ = audio.end_of_stream();
        }
    }

    /// No more comes; [`Event::Finished`] follows.
    pub(super) fn end(&self) {
        self.end_audio();
        let rest = self.batch().rest();
        if let Some(pictures) = rest {
            // Refused by a pipeline that failed, which has said so.
            let _ = self.video.push_buffer_list(pictures);
        }
        let _ = self.video.end_of_stream();
    }

    /// Stops, and says what went into the file. Blocks until the pipeline's threads have ended.
    pub(super) fn stop(self) -> Content {
        let tap = Arc::clone(&self.tap);
        drop(self);
        locked(&tap).content()
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

fn clock_time(time: Duration) -> gst::ClockTime {
    gst::ClockTime::from_nseconds(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX - 1))
}

fn video_branch(format: &VideoFormat) -> (&'static str, gst::Caps) {
    let (parser, media, stream_format) = match format.codec {
        VideoCodec::H264 => ("h264parse", "video/x-h264", "avc"),
        VideoCodec::H265 => ("h265parse", "video/x-h265", "hvc1"),
    };
    let caps = gst::Caps::builder(media)
        .field("stream-format", stream_format)
        .field("alignment", "au")
        .field(
            "codec_data",
            gst::Buffer::from_slice(format.configuration.clone()),
        )
        .build();
    (parser, caps)
}

fn audio_branch(format: &AudioFormat) -> (&'static [&'static str], gst::Caps) {
    let g711 = |media: &str, channels: u16| {
        gst::Caps::builder(media)
            .field("rate", 8000)
            .field("channels", i32::from(channels))
            .build()
    };
    match format {
        AudioFormat::Aac {
            configuration,
            rate,
            channels,
        } => {
            let caps = gst::Caps::builder("audio/mpeg")
                .field("mpegversion", 4)
                .field("stream-format", "raw")
                .field("framed", true)
                .field("rate", i32::try_from(*rate).unwrap_or(0))
                .field("channels", i32::from(*channels))
                .field("codec_data", gst::Buffer::from_slice(configuration.clone()))
                .build();
            (&["aacparse"], caps)
        }
        AudioFormat::G711A { channels } => (&["alawdec", "opusenc"], g711("audio/x-alaw", *channels)),
        AudioFormat::G711U { channels } => (&["mulawdec", "opusenc"], g711("audio/x-mulaw", *channels)),
    }
}

/// `appsrc ! elements… ! mux`. The source never blocks the one who pushes: its queue is bounded by us.
fn branch(
    pipeline: &gst::Pipeline,
    mux: &gst::Element,
    caps: gst::Caps,
    elements: &[&str],
) -> Result<AppSrc, Fault> {
    let source = AppSrc::builder()
        .caps(&caps)
        .format(gst::Format::Time)
        .stream_type(AppStreamType::Stream)
        .max_bytes(0)
        .block(false)
        .build();
    let mut last: gst::Element = source.clone().upcast();
    pipeline.add(&last).map_err(|error| broken(&error))?;
    for name in elements {
        let next = element(name)?;
        pipeline
            .add(&next)
            .and_then(|()| last.link(&next))
            .map_err(|error| broken(&error))?;
        last = next;
    }
    last.link(mux).map_err(|error| broken(&error))?;
    Ok(source)
}

/// Shows the tap every byte on its way into the file.
fn watch_file(sink: &gst::Element, tap: &Arc<Mutex<Tap>>, events: mpsc::Sender<Event>) -> Result<(), Fault> {
    let pad = sink
        .static_pad("sink")
        .ok_or_else(|| broken(&"filesink has no pad"))?;
    let tap = Arc::clone(tap);
    let mut announced = false;
    let kinds = PadProbeType::BUFFER | PadProbeType::BUFFER_LIST | PadProbeType::EVENT_DOWNSTREAM;
    let announce = Mutex::new(move |pad: &gst::Pad, fragments: u64| {
        if fragments > 0 && !announced {
            announced = true;
            when_written(pad, events.clone());
        }
    });
    let probe = move |pad: &gst::Pad, info: &mut gst::PadProbeInfo<'_>| {
        let mut tap = locked(&tap);
        let pass = match &info.data {
            Some(PadProbeData::Buffer(buffer)) => write(&mut tap, buffer),
            // Either all of a list is a rewrite or nothing.
            Some(PadProbeData::BufferList(list)) => list
                .iter()
                .fold(true, |pass, buffer| pass & write(&mut tap, buffer)),
            Some(PadProbeData::Event(event)) => may_pass(&mut tap, event),
            _ => true,
        };
        let fragments = tap.fragments();
        drop(tap);
        (announce.lock().unwrap_or_else(PoisonError::into_inner))(pad, fragments);
        // Not `Drop`: with that, GStreamer 1.22 and these bindings both let go of what was dropped.
        if pass {
            PadProbeReturn::Ok
        } else {
            PadProbeReturn::Handled
        }
    };
    pad.add_probe(kinds, probe)
        .map(drop)
        .ok_or_else(|| broken(&"the file can't be watched"))
}

fn write(tap: &mut Tap, buffer: &gst::BufferRef) -> bool {
    buffer.map_readable().is_ok_and(|bytes| tap.write(&bytes))
}

fn may_pass(tap: &mut Tap, event: &gst::Event) -> bool {
    match event.view() {
        gst::EventView::Segment(segment) => match segment.segment().downcast_ref::<gst::format::Bytes>() {
            Some(bytes) => tap.seek(bytes.start().map_or(0, |start| *start)),
            None => true,
        },
        _ => true,
    }
}

/// Says so as soon as the buffer that is on its way is in the file: the muxer's pad is idle again when the
/// write has returned.
fn when_written(sink_pad: &gst::Pad, events: mpsc::Sender<Event>) {
    let Some(source_pad) = sink_pad.peer() else { return };
    source_pad.add_probe(PadProbeType::IDLE, move |_, _| {
        // The bound is never reached, see `Pipeline::start`; a receiver that is gone does not care.
        let _ = events.try_send(Event::Written);
        PadProbeReturn::Remove
    });
}

fn watch_bus(pipeline: &gst::Pipeline, events: mpsc::Sender<Event>) {
    let Some(bus) = pipeline.bus() else { return };
    let failed = std::sync::atomic::AtomicBool::new(false);
    bus.set_sync_handler(move |_, message| {
        match message.view() {
            MessageView::Eos(_) => drop(events.try_send(Event::Finished)),
            MessageView::Error(error) if !failed.swap(true, std::sync::atomic::Ordering::Relaxed) => {
                drop(events.try_send(Event::Failed(fault(&error.error(), error.debug().as_deref()))));
            }
            _ => {}
        }
        BusSyncReply::Drop
    });
}

/// What a pipeline's error means: what is about a resource is about the disk, the rest about the stream.
fn fault(error: &glib::Error, debug: Option<&str>) -> Fault {
    if error.kind::<gst::ResourceError>().is_some() {
        // "Error while writing to file descriptor 7: No space left on device" stands in the last line of the debug text.
        let reason = debug.and_then(|text| text.lines().last()).unwrap_or_default();
        return Fault::new(
            CameraFault::Storage,
            format!("{} {reason}", error.message()).trim().to_owned(),
        );
    }
    Fault::new(
        CameraFault::Garbage,
        format!("what it sends can't be recorded: {}", error.message()),
    )
}
