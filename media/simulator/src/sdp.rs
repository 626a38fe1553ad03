//! What a camera says of its streams (SDP, RFC 4566).

use understudy_rtsp::{description, packets::VIDEO_TYPE};

use crate::{
    audio::{Audio, SAMPLE_RATE},
    behaviour::Unsupported,
    video::Video,
};

/// Control names of the two tracks.
pub(crate) const VIDEO_TRACK: &str = "track1";
pub(crate) const AUDIO_TRACK: &str = "track2";

/// The description of a camera with these streams.
pub(crate) fn describe(
    name: &str,
    fps: u32,
    video: &Video,
    audio: Option<&Audio>,
    unsupported: Option<Unsupported>,
) -> String {
    let sets: Vec<&[u8]> = video.parameter_sets.iter().map(|set| &set[..]).collect();
    let format = match unsupported {
        None => description::video(video.codec.into(), &sets),
        Some(Unsupported::Mjpeg) => "m=video 0 RTP/AVP 26\r\na=rtpmap:26 JPEG/90000\r\n".to_owned(),
        Some(Unsupported::Unknown) => {
            format!("m=video 0 RTP/AVP {VIDEO_TYPE}\r\na=rtpmap:{VIDEO_TYPE} X-UNHEARD-OF/90000\r\n")
        }
    };
    let mut sdp = description::head(name);
    sdp.push_str(&format);
    sdp.push_str(&format!("a=framerate:{fps}\r\n"));
    sdp.push_str(&description::control(VIDEO_TRACK));
    if let Some(audio) = audio {
        sdp.push_str(&description::aac(SAMPLE_RATE, 1, &audio.config));
        sdp.push_str(&description::control(AUDIO_TRACK));
    }
    sdp
}
