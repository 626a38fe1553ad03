//! NAL units of H.264 (ITU-T H.264, annex B and 7.3.1) and H.265 (ITU-T H.265): finding them, and the
//! bytes that keep start codes out of them.
//!
//! Knows nothing of what is in them beyond their type.

/// What a byte stream starts each NAL unit with, less the optional fourth byte.
const START_CODE: [u8; 3] = [0, 0, 1];

/// The NAL units of a byte stream (annex B), without start codes and trailing zeros.
pub(crate) fn annex_b(stream: &[u8]) -> Vec<&[u8]> {
    let mut units = Vec::new();
    let mut begin = None;
    let mut at = 0;
    while at + START_CODE.len() <= stream.len() {
        if stream[at + 2] > 1 {
            at += 3;
        } else if stream[at..at + 3] == START_CODE {
            units.extend(begin.map(|begin: usize| without_trailing_zeros(&stream[begin..at])));
            at += 3;
            begin = Some(at);
        } else {
            at += 1;
        }
    }
    units.extend(begin.map(|begin| without_trailing_zeros(&stream[begin..])));
    units.retain(|unit| !unit.is_empty());
    units
}

fn without_trailing_zeros(unit: &[u8]) -> &[u8] {
    let end = unit
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |last| last + 1);
    &unit[..end]
}

/// The NAL units of an access unit as MP4 stores it, each behind its length in four bytes; none if the
/// lengths do not add up to exactly the whole.
pub(crate) fn length_prefixed(mut access_unit: &[u8]) -> Option<Vec<&[u8]>> {
    let mut units = Vec::new();
    while !access_unit.is_empty() {
        let (length, rest) = access_unit.split_first_chunk::<4>()?;
        let length = u32::from_be_bytes(*length) as usize;
        let (unit, rest) = rest.split_at_checked(length)?;
        if !unit.is_empty() {
            units.push(unit);
        }
        access_unit = rest;
    }
    Some(units)
}

/// Puts a 3 behind each two zeros that a byte of 0 to 3 follows (H.264 7.4.1, H.265 7.4.2), and behind
/// zeros at the end.
pub(crate) fn escape(payload: &[u8]) -> Vec<u8> {
    let mut escaped = Vec::with_capacity(payload.len() + 4);
    let mut zeros = 0;
    for &byte in payload {
        if zeros >= 2 && byte <= 3 {
            escaped.push(3);
            zeros = 0;
        }
        escaped.push(byte);
        zeros = if byte == 0 { zeros + 1 } else { 0 };
    }
    escaped
}

/// Takes out what [`escape`] put in.
pub(crate) fn unescape(unit: &[u8]) -> Vec<u8> {
    let mut payload = Vec::with_capacity(unit.len());
    let mut zeros = 0;
    for &byte in unit {
        if zeros >= 2 && byte == 3 {
            zeros = 0;
            continue;
        }
        payload.push(byte);
        zeros = if byte == 0 { zeros + 1 } else { 0 };
    }
    payload
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_stream_splits_at_long_and_short_start_codes() {
        let stream = [
            0, 0, 0, 1, 0x67, 1, 0, 0, 3, 1, 0, 0, 1, 0x68, 2, 0, 0, 0, 1, 0x65, 0, 0,
        ];
        let units = annex_b(&stream);
        assert_eq!(units, [&[0x67, 1, 0, 0, 3, 1][..], &[0x68, 2][..], &[0x65][..]]);
    }

    #[test]
    fn lengths_that_do_not_add_up_are_refused() {
        assert_eq!(
            length_prefixed(&[0, 0, 0, 1, 9, 0, 0, 0, 2, 7, 8]),
            Some(vec![&[9][..], &[7, 8]])
        );
        assert_eq!(length_prefixed(&[0, 0, 0, 2, 9]), None);
        assert_eq!(length_prefixed(&[0, 0, 0]), None);
    }

    #[test]
    fn escaping_keeps_start_codes_out_and_comes_undone() {
        let nasty = [0, 0, 0, 0, 0, 1, 0, 0, 2, 0, 0, 3, 0, 0, 4, 0, 0];
        let escaped = escape(&nasty);
        assert!(
            !escaped
                .windows(3)
                .any(|three| three[..2] == [0, 0] && three[2] < 3)
        );
        assert_eq!(unescape(&escaped), nasty);
    }
}
