//! What is said of streams (SDP, RFC 4566): a session's head and its media.

use std::fmt::Write;

use base64::{Engine, engine::general_purpose::STANDARD};

use crate::{
    Codec,
    packets::{AUDIO_TYPE, VIDEO_CLOCK, VIDEO_TYPE},
};

/// The head of a description; media follow.
#[must_use]
pub fn head(name: &str) -> String {
    // A name is one line, whatever it holds.
    let name: String = name.chars().filter(|letter| !letter.is_control()).collect();
    format!(
        "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns={name}\r\nc=IN IP4 0.0.0.0\r\nt=0 0\r\na=range:npt=now-\r\n\
         a=control:*\r\n"
    )
}

/// Video, up to `a=control` (RFC 6184 8.1, RFC 7798 7.1). `parameter_sets` are NAL units in the order VPS, SPS,
/// PPS; what is missing is left out, and comes in the stream.
#[must_use]
pub fn video(codec: Codec, parameter_sets: &[&[u8]]) -> String {
    let sets: Vec<String> = parameter_sets.iter().map(|set| STANDARD.encode(set)).collect();
    let name = match codec {
        Codec::H264 => "H264",
        Codec::H265 => "H265",
    };
    let parameters = match (codec, &sets[..]) {
        (Codec::H264, [sps, pps]) => {
            let profile = hex(parameter_sets[0].get(1..4).unwrap_or_default());
            format!("packetization-mode=1;profile-level-id={profile};sprop-parameter-sets={sps},{pps}")
        }
        (Codec::H264, _) => "packetization-mode=1".to_owned(),
        (Codec::H265, [vps, sps, pps]) => format!("sprop-vps={vps};sprop-sps={sps};sprop-pps={pps}"),
        (Codec::H265, _) => "tx-mode=SRST".to_owned(),
    };
    format!(
        "m=video 0 RTP/AVP {VIDEO_TYPE}\r\na=rtpmap:{VIDEO_TYPE} {name}/{VIDEO_CLOCK}\r\n\
         a=fmtp:{VIDEO_TYPE} {parameters}\r\n"
    )
}

/// AAC sound with its `AudioSpecificConfig`, up to `a=control` (RFC 3640 4.1, `AAC-hbr`).
#[must_use]
pub fn aac(rate: u32, channels: u16, configuration: &[u8]) -> String {
    format!(
        "m=audio 0 RTP/AVP {AUDIO_TYPE}\r\na=rtpmap:{AUDIO_TYPE} MPEG4-GENERIC/{rate}/{channels}\r\n\
         a=fmtp:{AUDIO_TYPE} streamtype=5;profile-level-id=1;mode=AAC-hbr;sizelength=13;indexlength=3;\
         indexdeltalength=3;config={}\r\n",
        hex(configuration)
    )
}

/// Where a medium is set up.
#[must_use]
pub fn control(track: &str) -> String {
    format!("a=control:{track}\r\n")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes everything");
        text
    })
}
