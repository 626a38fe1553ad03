//! A camera's tracks as a viewer is told of them, and its frames as RTP packets. Pure.

use std::time::{Duration, SystemTime};

use understudy_rtsp::{
    Codec, description,
    packets::{Packets, Stream, VIDEO_CLOCK, rechannel},
};

use crate::camera::{
    frame::{AudioFormat, Frame, VideoCodec, VideoFormat, VideoFrame},
    nal,
};

/// Control names of the tracks.
pub(super) const VIDEO: &str = "video";
pub(super) const AUDIO: &str = "audio";

/// Time between two sender reports (RFC 3550 6.2 asks for about this).
const REPORT_EVERY: Duration = Duration::from_secs(5);

/// What `DESCRIBE` answers.
pub(super) fn describe(name: &str, video: &VideoFormat, audio: Option<&AudioFormat>) -> String {
    let mut text = description::head(name);
    text.push_str(&description::video(
        codec(video.codec),
        &nal::parameter_sets(video),
    ));
    text.push_str(&description::control(VIDEO));
    // G.711 is recorded as Opus, and not given out.
    if let Some(AudioFormat::Aac {
        configuration,
        rate,
        channels,
    }) = audio
    {
        text.push_str(&description::aac(*rate, *channels, configuration));
        text.push_str(&description::control(AUDIO));
    }
    text
}

fn codec(codec: VideoCodec) -> Codec {
    match codec {
        VideoCodec::H264 => Codec::H264,
        VideoCodec::H265 => Codec::H265,
    }
}

/// One track on its way to one viewer.
#[derive(Debug)]
pub(super) struct Track {
    /// First of its two channels.
    pub(super) channel: u8,
    clock: u32,
    stream: Stream,
    /// The viewer's time at which the next report is due.
    report_due: Duration,
}

impl Track {
    pub(super) fn video(channel: u8) -> Self {
        Self::new(channel, VIDEO_CLOCK)
    }

    /// Sound, if it is of a kind that is given out.
    pub(super) fn audio(channel: u8, format: &AudioFormat) -> Option<Self> {
        match format {
            AudioFormat::Aac { rate, .. } => Some(Self::new(channel, *rate)),
            _ => None,
        }
    }

    fn new(channel: u8, clock: u32) -> Self {
        Self {
            channel,
            clock,
            stream: Stream::new(rand::random(), rand::random()),
            report_due: Duration::ZERO,
        }
    }

    pub(super) fn ssrc(&self) -> u32 {
        self.stream.ssrc
    }

    /// What `RTP-Info` says of it before its first frame.
    pub(super) fn info(&self, base: &str, name: &str) -> String {
        format!("url={base}/{name};seq={};rtptime=0", self.stream.sequence)
    }

    /// A frame in packets, on the track's channels; a report before it when one is due.
    pub(super) fn packets(&mut self, frame: &Frame, time: Duration, wall: SystemTime) -> Vec<u8> {
        let timestamp = ticks(time, self.clock);
        let mut packets = Packets::default();
        match frame {
            Frame::Video(frame) => add_video(&mut packets, frame),
            Frame::Audio(frame) => packets.add_aac(&frame.data),
        }
        self.stream.stamp(&mut packets, timestamp);
        let mut bytes = Vec::new();
        if time >= self.report_due {
            self.report_due = time + REPORT_EVERY;
            // Counts this frame too, which follows at once.
            bytes = self.stream.report(timestamp, wall);
        }
        bytes.append(&mut packets.bytes);
        if self.channel > 0 {
            rechannel(&mut bytes, self.channel);
        }
        bytes
    }
}

/// The picture as it came; with its parameter sets before a key frame that came without, for who joins there.
fn add_video(packets: &mut Packets, frame: &VideoFrame) {
    let codec_here = frame.format.codec;
    let sent: Vec<&[u8]> = nal::units(&frame.data).collect();
    let mut units: Vec<&[u8]> = Vec::with_capacity(sent.len() + 3);
    if frame.key && !sent.iter().any(|unit| nal::is_parameter_set(codec_here, unit)) {
        units = nal::parameter_sets(&frame.format);
    }
    units.extend(sent);
    let count = units.len();
    for (index, unit) in units.into_iter().enumerate() {
        packets.add_unit(codec(codec_here), unit, index + 1 == count);
    }
}

/// RTP timestamps wrap around (RFC 3550 5.1).
fn ticks(time: Duration, clock: u32) -> u32 {
    let ticks = time.as_nanos() * u128::from(clock) / 1_000_000_000;
    (ticks & u128::from(u32::MAX)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_wrap_around() {
        assert_eq!(ticks(Duration::from_secs(1), 90_000), 90_000);
        let around = Duration::from_nanos(((1_u64 << 32) * 1_000_000_000).div_ceil(90_000));
        assert_eq!(ticks(around, 90_000), 0);
    }
}
