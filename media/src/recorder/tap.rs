//! Sees every byte on its way into a file: hashes it, counts the pictures in it, and keeps the file
//! append-only. Runs in the pipeline's own thread, right before the write.

use mp4_atom::{Atom, FourCC, Moof, Moov};

use crate::archive::mp4;

const MDAT: FourCC = FourCC::new(b"mdat");
/// The longest box that is looked into, in bytes; ours are a few kilobytes.
const MAX_BOX_BYTES: u64 = 1024 * 1024;

/// What is known of a file from the bytes that went into it.
#[derive(Debug, Default)]
pub(super) struct Tap {
    hasher: blake3::Hasher,
    position: u64,
    frames: u64,
    video_track: Option<u32>,
    /// The beginning of a box that is being gathered.
    gathered: Vec<u8>,
    /// Bytes of media data that are still to come.
    media_data: u64,
    fragments: u64,
    rewriting: bool,
}

/// What a finished file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) bytes: u64,
    pub(super) frames: u64,
    pub(super) blake3: String,
}

impl Tap {
    /// The muxer means to write at `position` from now on. At its end `mp4mux` goes back to write the header
    /// again with the duration in it: a death in the middle of that would cost the whole file, and the hash
    /// would be wrong; players read the duration from the `mfra` at the end.
    ///
    /// Says whether to let it.
    pub(super) fn seek(&mut self, position: u64) -> bool {
        self.rewriting = position != self.position;
        !self.rewriting
    }

    /// Bytes are about to be written. Says whether to let them.
    pub(super) fn write(&mut self, bytes: &[u8]) -> bool {
        if self.rewriting {
            return false;
        }
        self.hasher.update(bytes);
        self.position += bytes.len() as u64;
        self.walk(bytes);
        true
    }

    /// How many whole fragments went through.
    pub(super) fn fragments(&self) -> u64 {
        self.fragments
    }

    pub(super) fn content(&self) -> Content {
        Content {
            bytes: self.position,
            frames: self.frames,
            blake3: self.hasher.finalize().to_hex().to_string(),
        }
    }

    fn walk(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.media_data > 0 {
                let passed = self.media_data.min(bytes.len() as u64);
                self.media_data -= passed;
                bytes = &bytes[usize::try_from(passed).unwrap_or(bytes.len())..];
                self.fragments += u64::from(self.media_data == 0);
                continue;
            }
            bytes = self.gather(bytes);
        }
    }

    /// Takes what belongs to the box that has begun, and gives back the rest.
    fn gather<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let wanted = match box_header(&self.gathered) {
            None => 8,
            Some((_, size)) => size,
        };
        let missing = usize::try_from(wanted).unwrap_or(usize::MAX) - self.gathered.len();
        let (taken, rest) = bytes.split_at(missing.min(bytes.len()));
        self.gathered.extend_from_slice(taken);
        match box_header(&self.gathered) {
            Some((MDAT, size)) => {
                self.media_data = size.saturating_sub(8);
                self.gathered.clear();
            }
            Some((_, size)) if !(8..=MAX_BOX_BYTES).contains(&size) => {
                // Nothing that mp4mux writes: give up counting rather than gather without end.
                self.media_data = u64::MAX;
                self.gathered.clear();
            }
            Some((kind, size)) if self.gathered.len() as u64 == size => {
                self.take(kind);
                self.gathered.clear();
            }
            _ => {}
        }
        rest
    }

    fn take(&mut self, kind: FourCC) {
        if kind == Moov::KIND {
            self.video_track = mp4::decode::<Moov>(&self.gathered).and_then(|moov| mp4::video_track(&moov));
        } else if kind == Moof::KIND
            && let (Some(track), Some(moof)) = (self.video_track, mp4::decode::<Moof>(&self.gathered))
        {
            self.frames += mp4::video_samples(&moof, track);
        }
    }
}

fn box_header(bytes: &[u8]) -> Option<(FourCC, u64)> {
    let header: [u8; 8] = bytes.get(..8)?.try_into().ok()?;
    let [a, b, c, d, kind @ ..] = header;
    Some((FourCC::new(&kind), u64::from(u32::from_be_bytes([a, b, c, d]))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_back_is_kept_out_of_the_file() {
        let mut tap = Tap::default();
        assert!(tap.seek(0) && tap.write(b"\0\0\0\x0cftypabcd"));
        assert!(!tap.seek(4) && !tap.write(b"moov"));
        assert_eq!(tap.content().bytes, 12);
        assert_eq!(
            tap.content().blake3,
            blake3::hash(b"\0\0\0\x0cftypabcd").to_hex().to_string()
        );
    }

    #[test]
    fn a_fragment_is_whole_with_its_last_byte_however_it_is_cut() {
        let file = b"\0\0\0\x08free\0\0\0\x0cmdatabcd\0\0\0\x0cmdatefgh";
        for size in 1..file.len() {
            let mut tap = Tap::default();
            let mut seen = Vec::new();
            for piece in file.chunks(size) {
                tap.write(piece);
                seen.push((tap.position >= 20, tap.position >= 32, tap.fragments()));
            }
            assert!(
                seen.iter()
                    .all(|(one, two, count)| u64::from(*one) + u64::from(*two) == *count),
                "{size}: {seen:?}"
            );
        }
    }
}
