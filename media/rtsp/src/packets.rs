//! RTP (RFC 3550), framed for RTSP's own connection (RFC 2326 10.12): H.264 (RFC 6184, single units and FU-A),
//! H.265 (RFC 7798, single units and FU), AAC (RFC 3640, `AAC-hbr`), and sender reports.
//!
//! A frame's packets are laid out once, with blanks for what changes from one sending to the next, and
//! stamped when they are sent.

use std::time::SystemTime;

use crate::Codec;

/// RTP clock of video, in Hz.
pub const VIDEO_CLOCK: u32 = 90_000;
/// Payload type of video (dynamic, RFC 3551).
pub const VIDEO_TYPE: u8 = 96;
/// Payload type of sound (dynamic, RFC 3551).
pub const AUDIO_TYPE: u8 = 97;

/// `$`, channel, length in two bytes.
const FRAMING: usize = 4;
const RTP_HEADER: usize = 12;
/// What one packet carries at most, so that it would fit into Ethernet's 1500 bytes with all headers.
const MAX_PAYLOAD: usize = 1400;
const VERSION: u8 = 2 << 6;
const MARKER: u8 = 0x80;
const FU_START: u8 = 0x80;
const FU_END: u8 = 0x40;
/// From 1900 (NTP) to 1970, in seconds.
const NTP_OFFSET: u64 = 2_208_988_800;

/// Interleaved packets of one or more NAL units, with blanks.
#[derive(Clone, Debug, Default)]
pub struct Packets {
    /// Each packet in its framing; channel, sequence number, timestamp and SSRC are zero.
    pub bytes: Vec<u8>,
    /// How many packets.
    pub count: u16,
}

impl Packets {
    /// Room for another frame.
    #[must_use]
    pub fn with_capacity(bytes: usize) -> Self {
        Self {
            bytes: Vec::with_capacity(bytes),
            count: 0,
        }
    }

    /// Lays out one NAL unit; the last one of a frame carries the marker.
    pub fn add_unit(&mut self, codec: Codec, unit: &[u8], last: bool) {
        if unit.len() <= MAX_PAYLOAD {
            return self.packet(VIDEO_TYPE, last, &[unit]);
        }
        let (header, kind): (&[u8], u8) = match codec {
            Codec::H264 => (&[unit[0] & 0xe0 | 28], unit[0] & 0x1f),
            Codec::H265 => (&[unit[0] & 0x81 | 49 << 1, unit[1]], unit[0] >> 1 & 0x3f),
        };
        let body = &unit[header.len()..];
        let mut pieces = body.chunks(MAX_PAYLOAD - header.len() - 1).peekable();
        let mut flags = FU_START;
        while let Some(piece) = pieces.next() {
            let end = pieces.peek().is_none();
            if end {
                flags |= FU_END;
            }
            self.packet(VIDEO_TYPE, last && end, &[header, &[flags | kind], piece]);
            flags = 0;
        }
    }

    /// Lays out one AAC frame (RFC 3640 3.3.6: 13 bits of size, 3 bits of index).
    pub fn add_aac(&mut self, frame: &[u8]) {
        let size = u16::try_from(frame.len()).unwrap_or(u16::MAX) << 3;
        self.packet(
            AUDIO_TYPE,
            true,
            &[&16_u16.to_be_bytes(), &size.to_be_bytes(), frame],
        );
    }

    /// Adds packets that were laid out before.
    pub fn extend(&mut self, other: &Packets) {
        self.bytes.extend_from_slice(&other.bytes);
        self.count += other.count;
    }

    fn packet(&mut self, payload_type: u8, marker: bool, payload: &[&[u8]]) {
        let length = RTP_HEADER + payload.iter().map(|part| part.len()).sum::<usize>();
        let length = u16::try_from(length).expect("a payload is MAX_PAYLOAD or one AAC frame");
        let marker = if marker { MARKER } else { 0 };
        self.bytes.extend_from_slice(&[b'$', 0]);
        self.bytes.extend_from_slice(&length.to_be_bytes());
        self.bytes.extend_from_slice(&[VERSION, marker | payload_type]);
        self.bytes.extend_from_slice(&[0; RTP_HEADER - 2]);
        for part in payload {
            self.bytes.extend_from_slice(part);
        }
        self.count += 1;
    }
}

/// One stream of a camera: what its packets are stamped with, and what its reports say.
#[derive(Debug)]
pub struct Stream {
    /// Synchronisation source.
    pub ssrc: u32,
    /// Sequence number of the next packet.
    pub sequence: u16,
    packets: u32,
    octets: u32,
}

impl Stream {
    /// A stream of packets from `ssrc`, the first of which has the number `sequence`: both any numbers.
    #[must_use]
    pub fn new(ssrc: u32, sequence: u16) -> Self {
        Self {
            ssrc,
            sequence,
            packets: 0,
            octets: 0,
        }
    }

    /// Fills in the blanks.
    pub fn stamp(&mut self, packets: &mut Packets, timestamp: u32) {
        let mut at = 0;
        while at + FRAMING + RTP_HEADER <= packets.bytes.len() {
            let length = usize::from(u16::from_be_bytes([packets.bytes[at + 2], packets.bytes[at + 3]]));
            let header = &mut packets.bytes[at + FRAMING..];
            header[2..4].copy_from_slice(&self.sequence.to_be_bytes());
            header[4..8].copy_from_slice(&timestamp.to_be_bytes());
            header[8..12].copy_from_slice(&self.ssrc.to_be_bytes());
            self.sequence = self.sequence.wrapping_add(1);
            self.octets = self.octets.wrapping_add((length - RTP_HEADER) as u32);
            at += FRAMING + length;
        }
        self.packets = self.packets.wrapping_add(u32::from(packets.count));
    }

    /// An interleaved sender report on channel 1, with a source description (RFC 3550 6.4.1 and 6.5): `timestamp` was sampled at `wall`.
    #[must_use]
    pub fn report(&self, timestamp: u32, wall: SystemTime) -> Vec<u8> {
        let since_1970 = wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let seconds = (since_1970.as_secs() + NTP_OFFSET) as u32;
        let fraction = ((u64::from(since_1970.subsec_nanos()) << 32) / 1_000_000_000) as u32;
        let mut body = vec![VERSION, 200, 0, 6];
        for word in [self.ssrc, seconds, fraction, timestamp, self.packets, self.octets] {
            body.extend_from_slice(&word.to_be_bytes());
        }
        body.extend_from_slice(&[VERSION | 1, 202, 0, 4]);
        body.extend_from_slice(&self.ssrc.to_be_bytes());
        body.extend_from_slice(b"\x01\x09live view\0");
        let length = u16::try_from(body.len()).expect("a report has 48 bytes");
        [&[b'$', 1][..], &length.to_be_bytes(), &body].concat()
    }
}

/// The packets without the framing, one after the other: what UDP carries.
pub fn datagrams(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let length = bytes.get(2..FRAMING)?;
        let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
        let (packet, rest) = bytes.get(FRAMING..)?.split_at_checked(length)?;
        bytes = rest;
        Some(packet)
    })
}

/// Moves interleaved packets from the channels 0 (RTP) and 1 (RTCP) to the two that a client chose.
pub fn rechannel(bytes: &mut [u8], first: u8) {
    let mut at = 0;
    while at + FRAMING <= bytes.len() {
        bytes[at + 1] = bytes[at + 1].wrapping_add(first);
        at += FRAMING + usize::from(u16::from_be_bytes([bytes[at + 2], bytes[at + 3]]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(bytes: &[u8]) -> Vec<&[u8]> {
        datagrams(bytes).collect()
    }

    #[test]
    fn a_long_unit_is_cut_and_can_be_put_together_again() {
        for (codec, header) in [(Codec::H264, &[0x65_u8][..]), (Codec::H265, &[0x26, 0x01])] {
            let unit = [header, &(0..5000).map(|i| (i % 251) as u8).collect::<Vec<_>>()].concat();
            let mut packets = Packets::default();
            packets.add_unit(codec, &unit, true);
            let cut = split(&packets.bytes);
            assert_eq!(cut.len(), 4);
            let body = cut
                .iter()
                .flat_map(|packet| &packet[RTP_HEADER + header.len() + 1..]);
            assert!(body.eq(&unit[header.len()..]), "{codec:?}");
            let markers = cut
                .iter()
                .map(|packet| packet[1] & MARKER != 0)
                .collect::<Vec<_>>();
            assert_eq!(markers, [false, false, false, true]);
        }
    }

    #[test]
    fn stamps_count_up_across_the_end_of_the_numbers() {
        let mut stream = Stream::new(7, 65_534);
        let mut packets = Packets::default();
        for _ in 0..4 {
            packets.add_unit(Codec::H264, &[1, 2, 3], true);
        }
        stream.stamp(&mut packets, 77);
        let numbers = split(&packets.bytes)
            .iter()
            .map(|p| u16::from_be_bytes([p[2], p[3]]))
            .collect::<Vec<_>>();
        assert_eq!(numbers, [65_534, 65_535, 0, 1]);
        assert_eq!(stream.octets, 12);
    }

    #[test]
    fn a_report_has_whole_words_and_its_length_says_so() {
        let report = Stream::new(7, 0).report(1, SystemTime::UNIX_EPOCH);
        assert_eq!(report.len(), FRAMING + 28 + 20);
        assert_eq!(
            report[FRAMING + 28 + 3],
            4,
            "the source description has five words"
        );
    }
}
