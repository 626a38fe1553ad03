//! NAL units of H.264 (ITU-T H.264 7.3.1) and H.265 (ITU-T H.265 7.3.1), as far as somebody must know them who
//! passes them on: which begin a picture, and the parameter sets that a decoder's configuration holds.

use super::frame::{VideoCodec, VideoFormat};

/// The NAL units of a frame, each after its length in four bytes; ends where the lengths make no sense.
pub(crate) fn units(mut frame: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, rest) = frame.split_first_chunk::<4>()?;
        let (unit, rest) = rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
        frame = rest;
        Some(unit)
    })
    .filter(|unit| !unit.is_empty())
}

/// Whether a frame's first slice is its picture's first, so that none before it is missing: `first_mb_in_slice`
/// is 0, `first_slice_segment_in_pic_flag` is set. Both are the first bit behind the unit's header.
pub(crate) fn has_its_beginning(codec: VideoCodec, frame: &[u8]) -> bool {
    let is_slice = |unit: &&[u8]| match codec {
        VideoCodec::H264 => (1..=5).contains(&(unit[0] & 0x1f)),
        VideoCodec::H265 => unit[0] >> 1 & 0x3f < 32,
    };
    let header = match codec {
        VideoCodec::H264 => 1,
        VideoCodec::H265 => 2,
    };
    let first = units(frame).find(is_slice);
    first
        .and_then(|unit| unit.get(header))
        .is_some_and(|byte| byte & 0x80 != 0)
}

/// Whether a unit is a parameter set.
pub(crate) fn is_parameter_set(codec: VideoCodec, unit: &[u8]) -> bool {
    match codec {
        VideoCodec::H264 => matches!(unit[0] & 0x1f, 7 | 8),
        VideoCodec::H265 => matches!(unit[0] >> 1 & 0x3f, 32..=34),
    }
}

/// The parameter sets of a format, in the order VPS, SPS, PPS; empty if it can't be read (ISO/IEC 14496-15,
/// 5.3.3.1 and 8.3.3.1).
pub(crate) fn parameter_sets(format: &VideoFormat) -> Vec<&[u8]> {
    let record = &format.configuration[..];
    let found = match format.codec {
        VideoCodec::H264 => avc_sets(record),
        VideoCodec::H265 => hevc_sets(record),
    };
    found.unwrap_or_default()
}

fn avc_sets(record: &[u8]) -> Option<Vec<&[u8]>> {
    let mut sets = Vec::new();
    let (count, mut rest) = record.get(5..)?.split_first()?;
    take(&mut rest, usize::from(count & 0x1f), &mut sets)?;
    let (count, mut rest) = rest.split_first()?;
    take(&mut rest, usize::from(*count), &mut sets)?;
    Some(sets)
}

fn hevc_sets(record: &[u8]) -> Option<Vec<&[u8]>> {
    let mut sets = Vec::new();
    let (arrays, mut rest) = record.get(22..)?.split_first()?;
    for _ in 0..*arrays {
        let (head, behind) = rest.split_first_chunk::<3>()?;
        rest = behind;
        take(
            &mut rest,
            usize::from(u16::from_be_bytes([head[1], head[2]])),
            &mut sets,
        )?;
    }
    sets.retain(|set| is_parameter_set(VideoCodec::H265, set));
    sets.sort_by_key(|set| set[0] >> 1);
    Some(sets)
}

fn take<'a>(rest: &mut &'a [u8], count: usize, sets: &mut Vec<&'a [u8]>) -> Option<()> {
    for _ in 0..count {
        let (length, behind) = rest.split_first_chunk::<2>()?;
        let (set, behind) = behind.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        *rest = behind;
        if !set.is_empty() {
            sets.push(set);
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn format(codec: VideoCodec, configuration: &'static [u8]) -> VideoFormat {
        VideoFormat {
            codec,
            configuration: Bytes::from_static(configuration),
            width: 1,
            height: 1,
        }
    }

    #[test]
    fn parameter_sets_are_found_in_both_records() {
        let avc = format(
            VideoCodec::H264,
            &[1, 66, 0, 30, 255, 0xe1, 0, 2, 0x67, 9, 1, 0, 1, 0x68],
        );
        assert_eq!(parameter_sets(&avc), [&[0x67, 9][..], &[0x68]]);
        let mut record = vec![0; 22];
        record.extend([
            3, 34, 0, 1, 0, 2, 0x44, 1, 32, 0, 1, 0, 2, 0x40, 1, 33, 0, 1, 0, 2, 0x42, 1,
        ]);
        let hevc = VideoFormat {
            configuration: record.into(),
            ..format(VideoCodec::H265, &[])
        };
        assert_eq!(parameter_sets(&hevc), [&[0x40, 1][..], &[0x42, 1], &[0x44, 1]]);
        for cut in [0, 5, 8, 12] {
            let short = VideoFormat {
                configuration: avc.configuration.slice(..cut),
                ..avc.clone()
            };
            assert_eq!(parameter_sets(&short).len(), 0, "cut at {cut}");
        }
    }

    #[test]
    fn e1_a_picture_without_its_first_slice_is_known_as_such() {
        let frame = |slice: &[u8]| [&[0, 0, 0, 2, 6, 5, 0, 0, 0, slice.len() as u8][..], slice].concat();
        assert!(has_its_beginning(VideoCodec::H264, &frame(&[0x65, 0x88])));
        assert!(!has_its_beginning(VideoCodec::H264, &frame(&[0x65, 0x12])));
        let frame =
            |slice: &[u8]| [&[0, 0, 0, 3, 0x4e, 1, 5, 0, 0, 0, slice.len() as u8][..], slice].concat();
        assert!(has_its_beginning(VideoCodec::H265, &frame(&[0x26, 1, 0x80])));
        assert!(!has_its_beginning(VideoCodec::H265, &frame(&[0x26, 1, 0x20])));
        assert!(!has_its_beginning(VideoCodec::H264, &[0, 0, 0, 9, 0x65]));
    }
}
