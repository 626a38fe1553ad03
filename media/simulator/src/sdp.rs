//! What a camera says of its streams (SDP, RFC 4566).

use std::fmt::Write;

use base64::{Engine, engine::general_purpose::STANDARD};

use crate::{
    audio::{Audio, SAMPLE_RATE},
    behaviour::Unsupported,
    config::Codec,
    rtp::{AUDIO_TYPE, VIDEO_CLOCK, VIDEO_TYPE},
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
    let format = match unsupported {
        None => format!("{VIDEO_TYPE}\r\n{}", video_format(video)),
        Some(Unsupported::Mjpeg) => "26\r\na=rtpmap:26 JPEG/90000\r\n".to_owned(),
        Some(Unsupported::Unknown) => format!("{VIDEO_TYPE}\r\na=rtpmap:{VIDEO_TYPE} X-UNHEARD-OF/90000\r\n"),
    };
    let mut sdp = format!(
        "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns={name}\r\nc=IN IP4 0.0.0.0\r\nt=0 0\r\na=range:npt=now-\r\n\
         a=control:*\r\nm=video 0 RTP/AVP {format}a=framerate:{fps}\r\na=control:{VIDEO_TRACK}\r\n"
    );
    if let Some(audio) = audio {
        sdp.push_str(&audio_section(audio));
    }
    sdp
}

/// `rtpmap` and `fmtp` (RFC 6184 8.1, RFC 7798 7.1).
fn video_format(video: &Video) -> String {
    let sets = video
        .parameter_sets
        .iter()
        .map(|set| STANDARD.encode(set))
        .collect::<Vec<_>>();
    match (video.codec, &sets[..]) {
        (Codec::H264, [sps, pps]) => {
            let profile = hex(&video.parameter_sets[0][1..4]);
            format!(
                "a=rtpmap:{VIDEO_TYPE} H264/{VIDEO_CLOCK}\r\na=fmtp:{VIDEO_TYPE} packetization-mode=1;\
                 profile-level-id={profile};sprop-parameter-sets={sps},{pps}\r\n"
            )
        }
        (_, [vps, sps, pps]) => format!(
            "a=rtpmap:{VIDEO_TYPE} H265/{VIDEO_CLOCK}\r\na=fmtp:{VIDEO_TYPE} sprop-vps={vps};sprop-sps={sps};\
             sprop-pps={pps}\r\n"
        ),
        _ => unreachable!("video is made with two parameter sets in H.264 and three in H.265"),
    }
}

fn audio_section(audio: &Audio) -> String {
    format!(
        "m=audio 0 RTP/AVP {AUDIO_TYPE}\r\na=rtpmap:{AUDIO_TYPE} MPEG4-GENERIC/{SAMPLE_RATE}/1\r\n\
         a=fmtp:{AUDIO_TYPE} streamtype=5;profile-level-id=1;mode=AAC-hbr;sizelength=13;indexlength=3;\
         indexdeltalength=3;config={}\r\na=control:{AUDIO_TRACK}\r\n",
        hex(&audio.config)
    )
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes everything");
        text
    })
}
