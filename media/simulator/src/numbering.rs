//! The number that each simulated frame carries, so that a test can say exactly which frames are missing.
//!
//! It is an SEI message `user_data_unregistered` (H.264 D.1.7, H.265 D.2.7; payload type 5) in front of the
//! frame's slices: [`NUMBER_UUID`], then the frame's number and the camera's hash, each as 64 bits, the
//! highest byte first. Recorders that copy the video copy it too.

use crate::{config::Codec, nal};

/// Tells these messages from any other user data: `9a21f3be-31f1-4cb5-92f4-5e0df9b1d3a7`.
pub const NUMBER_UUID: [u8; 16] = [
    0x9a, 0x21, 0xf3, 0xbe, 0x31, 0xf1, 0x4c, 0xb5, 0x92, 0xf4, 0x5e, 0x0d, 0xf9, 0xb1, 0xd3, 0xa7,
];

const H264_SEI: u8 = 6;
const H265_PREFIX_SEI: u8 = 39;
const USER_DATA_UNREGISTERED: u8 = 5;
const PAYLOAD_BYTES: u8 = 32;
/// `rbsp_trailing_bits` at a byte's edge.
const TRAILING_BITS: u8 = 0x80;

/// What a frame says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrameNumber {
    /// Counts the camera's frames since its start.
    pub number: u64,
    /// [`camera_hash`] of the camera's id.
    pub camera: u64,
}

/// The hash by which frames name their camera: 64-bit FNV-1a of its id.
#[must_use]
pub fn camera_hash(id: &str) -> u64 {
    id.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// The NAL unit that carries `frame`, without a start code, emulation prevention done.
#[must_use]
pub fn embed(codec: Codec, frame: FrameNumber) -> Vec<u8> {
    let header: &[u8] = match codec {
        Codec::H264 => &[H264_SEI],
        Codec::H265 => &[H265_PREFIX_SEI << 1, 1],
    };
    let mut unit = Vec::with_capacity(64);
    unit.extend_from_slice(header);
    unit.extend_from_slice(&[USER_DATA_UNREGISTERED, PAYLOAD_BYTES]);
    unit.extend_from_slice(&NUMBER_UUID);
    unit.extend_from_slice(&frame.number.to_be_bytes());
    unit.extend_from_slice(&frame.camera.to_be_bytes());
    unit.push(TRAILING_BITS);
    nal::escape(&unit)
}

/// The number of a frame, given as MP4 stores it (each NAL unit behind its length in four bytes) or as a
/// byte stream (annex B); none if it carries none.
#[must_use]
pub fn frame_number(access_unit: &[u8]) -> Option<FrameNumber> {
    let stored = nal::length_prefixed(access_unit).and_then(|units| find(&units));
    stored.or_else(|| find(&nal::annex_b(access_unit)))
}

fn find(units: &[&[u8]]) -> Option<FrameNumber> {
    units.iter().find_map(|unit| from_sei(unit))
}

fn from_sei(unit: &[u8]) -> Option<FrameNumber> {
    let header = *unit.first()?;
    let header_bytes = if header & 0x9f == H264_SEI {
        1
    } else if header >> 1 == H265_PREFIX_SEI {
        2
    } else {
        return None;
    };
    let payload = nal::unescape(unit.get(header_bytes..)?);
    let mut rest = &payload[..];
    // A unit may carry several messages; each says its type and size in bytes of 255 and a last one.
    while rest.len() > 2 {
        let kind = variable_length(&mut rest)?;
        let size = variable_length(&mut rest)?;
        let (message, following) = rest.split_at_checked(size)?;
        if kind == usize::from(USER_DATA_UNREGISTERED) && message.starts_with(&NUMBER_UUID) {
            let (number, camera) = message[NUMBER_UUID.len()..].split_at_checked(8)?;
            return Some(FrameNumber {
                number: u64::from_be_bytes(number.try_into().ok()?),
                camera: u64::from_be_bytes(camera.get(..8)?.try_into().ok()?),
            });
        }
        rest = following;
    }
    None
}

fn variable_length(rest: &mut &[u8]) -> Option<usize> {
    let mut value = 0;
    loop {
        let (&byte, following) = rest.split_first()?;
        *rest = following;
        value += usize::from(byte);
        if byte != 255 {
            return Some(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NASTY: [u64; 7] = [0, 1, 3, 255, 256, 0x0000_0100_0000_0300, u64::MAX];

    fn slice(codec: Codec) -> &'static [u8] {
        match codec {
            Codec::H264 => &[0x65, 0x88, 0x84, 0x00, 0x21],
            Codec::H265 => &[0x26, 0x01, 0xaf, 0x00, 0x21],
        }
    }

    #[test]
    fn a_number_is_found_in_both_codecs_and_both_forms() {
        for codec in [Codec::H264, Codec::H265] {
            for number in NASTY {
                for camera in NASTY {
                    let frame = FrameNumber { number, camera };
                    let units = [&embed(codec, frame)[..], slice(codec)];
                    let stored = units.map(|unit| [&(unit.len() as u32).to_be_bytes()[..], unit].concat());
                    let stream = units.map(|unit| [&[0, 0, 0, 1], unit].concat());
                    assert_eq!(
                        frame_number(&stored.concat()),
                        Some(frame),
                        "{codec:?}, as in MP4"
                    );
                    assert_eq!(
                        frame_number(&stream.concat()),
                        Some(frame),
                        "{codec:?}, as a byte stream"
                    );
                }
            }
        }
    }

    #[test]
    fn other_messages_in_the_same_unit_are_passed_over() {
        let ours = embed(Codec::H264, FrameNumber { number: 7, camera: 8 });
        let both = [&[H264_SEI, 1, 2, 9, 9], &ours[1..]].concat();
        assert_eq!(from_sei(&both), Some(FrameNumber { number: 7, camera: 8 }));
    }

    #[test]
    fn frames_without_a_number_have_none() {
        for bytes in [
            &[][..],
            &[0, 0, 0, 1],
            &[0, 0, 0, 5, 0x65, 1, 2, 3, 4],
            &[6, 5, 32, 1],
            &[0xff; 40],
        ] {
            assert_eq!(frame_number(bytes), None, "{bytes:?}");
        }
    }

    #[test]
    fn cameras_have_different_hashes() {
        assert_eq!(camera_hash("cam-001"), camera_hash("cam-001"));
        assert_ne!(camera_hash("cam-001"), camera_hash("cam-010"));
    }
}
