//! Reads fragmented MP4 files (ISO/IEC 14496-12) as far as the archive needs it: how many whole fragments a
//! file has, and its samples one by one. Works on files that were cut off anywhere. Never writes.

use std::{
    fs::File,
    io::{self, BufReader, Read, Seek, SeekFrom},
    path::Path,
    time::Duration,
};

use mp4_atom::{Atom, Buf, Decode, FourCC, Moof, Moov, Traf};

/// The longest `moov` or `moof` that is read into memory, in bytes; ours are a few kilobytes.
const MAX_HEADER_BYTES: u64 = 16 * 1024 * 1024;
/// Flags of a sample that depends on others (ISO/IEC 14496-12, 8.8.3.1, `sample_is_non_sync_sample`).
const NON_SYNC: u32 = 0x0001_0000;
const VIDEO: FourCC = FourCC::new(b"vide");
const MDAT: FourCC = FourCC::new(b"mdat");

/// What a track holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Media {
    /// Pictures.
    Video,
    /// Anything else.
    Other,
}

/// One sample: where it lies, and when it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// What it is part of.
    pub media: Media,
    /// Where its bytes begin in the file.
    pub offset: u64,
    /// How many bytes it has.
    pub size: u32,
    /// When it is shown, since the beginning of its file.
    pub pts: Duration,
    /// How long it is shown.
    pub duration: Duration,
    /// Whether it can be decoded without the samples before it.
    pub key: bool,
}

/// What a file's whole fragments hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// Bytes up to the end of the last whole fragment.
    pub whole_bytes: u64,
    /// Samples of the video track up to there.
    pub frames: u64,
    /// From the beginning of the file to the end of the last of them.
    pub duration: Duration,
}

/// Reads up to the last whole fragment of the file, wherever it was cut off.
///
/// # Errors
/// What the file system says. Bytes that are no MP4 are no error: they are not in a whole fragment.
pub fn extent(file: &Path) -> io::Result<Extent> {
    let mut extent = Extent::default();
    let mut reader = Reader::open(file)?;
    loop {
        match reader.next_box() {
            Ok(Some(Part::Samples(samples))) => {
                for sample in samples.iter().filter(|sample| sample.media == Media::Video) {
                    extent.frames += 1;
                    extent.duration = extent.duration.max(sample.pts + sample.duration);
                }
            }
            // A fragment is whole with the media data that its samples lie in.
            Ok(Some(Part::MediaData)) => extent.whole_bytes = reader.position,
            Ok(Some(Part::Index)) => extent.whole_bytes = reader.position,
            Ok(Some(Part::Header)) => {}
            Ok(None) => break,
            Err(error) if is_damage(&error) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(extent)
}

fn is_damage(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
    )
}

/// The samples of the file's whole fragments, in the order in which they lie in it.
///
/// # Errors
/// What the file system says when it is opened; later ones come out of the iterator.
pub fn samples(file: &Path) -> io::Result<Samples> {
    Ok(Samples {
        reader: Reader::open(file)?,
        bytes: File::open(file)?,
        ready: Vec::new().into_iter(),
    })
}

/// See [`samples`].
pub struct Samples {
    reader: Reader,
    bytes: File,
    ready: std::vec::IntoIter<Sample>,
}

impl Samples {
    /// Reads a sample's bytes.
    ///
    /// # Errors
    /// What the file system says.
    pub fn read(&self, sample: &Sample) -> io::Result<Vec<u8>> {
        use std::os::unix::fs::FileExt;
        let mut bytes = vec![0; sample.size as usize];
        self.bytes.read_exact_at(&mut bytes, sample.offset)?;
        Ok(bytes)
    }

    /// The next video sample's place and bytes (length-prefixed NAL units).
    ///
    /// # Errors
    /// What the file system says.
    pub fn next_video(&mut self) -> io::Result<Option<(Sample, Vec<u8>)>> {
        loop {
            match self.next().transpose()? {
                None => return Ok(None),
                Some(sample) if sample.media == Media::Video => {
                    let bytes = self.read(&sample)?;
                    return Ok(Some((sample, bytes)));
                }
                Some(_) => {}
            }
        }
    }
}

impl Iterator for Samples {
    type Item = io::Result<Sample>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(sample) = self.ready.next() {
                return Some(Ok(sample));
            }
            match self.reader.next_box() {
                Ok(Some(Part::Samples(samples))) => self.ready = samples.into_iter(),
                Ok(Some(_)) => {}
                Ok(None) => return None,
                Err(error) if is_damage(&error) => return None,
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

/// How many video samples a `moof` announces, given the id of the video track.
#[must_use]
pub fn video_samples(moof: &Moof, video_track: u32) -> u64 {
    let trafs = moof.traf.iter().filter(|traf| traf.tfhd.track_id == video_track);
    trafs
        .flat_map(|traf| &traf.trun)
        .map(|trun| trun.samples.len() as u64)
        .sum()
}

/// The id of the video track that a `moov` describes.
#[must_use]
pub fn video_track(moov: &Moov) -> Option<u32> {
    let mut tracks = moov.trak.iter();
    tracks
        .find(|trak| trak.mdia.hdlr.handler == VIDEO)
        .map(|trak| trak.tkhd.track_id)
}

enum Part {
    /// Anything before the first fragment.
    Header,
    /// A `moof` whose media data lies whole behind it.
    Samples(Vec<Sample>),
    MediaData,
    /// What may follow the last fragment (`mfra`).
    Index,
}

struct Track {
    id: u32,
    media: Media,
    timescale: u32,
}

struct Reader {
    file: BufReader<File>,
    length: u64,
    position: u64,
    tracks: Vec<Track>,
    fragments: u64,
}

impl Reader {
    fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        // Only headers are read through this buffer, and media data is skipped.
        let file = BufReader::with_capacity(512, file);
        Ok(Self {
            file,
            length,
            position: 0,
            tracks: Vec::new(),
            fragments: 0,
        })
    }

    /// Reads or skips the box at the current position; none at the end of the file.
    fn next_box(&mut self) -> io::Result<Option<Part>> {
        if self.position == self.length {
            return Ok(None);
        }
        let (kind, header, size) = self.header(self.position)?;
        let end = self.position.checked_add(size).filter(|end| *end <= self.length);
        let end = end.ok_or_else(|| damage("a box reaches beyond the end of the file"))?;
        let part = match kind {
            Moov::KIND => {
                self.tracks = tracks(&self.body::<Moov>(header, size)?);
                Part::Header
            }
            Moof::KIND => {
                let moof = self.body::<Moof>(header, size)?;
                self.check_media_data(end)?;
                self.fragments += 1;
                Part::Samples(self.fragment(&moof)?)
            }
            MDAT => Part::MediaData,
            _ if self.fragments > 0 => Part::Index,
            _ => Part::Header,
        };
        self.file.seek(SeekFrom::Start(end))?;
        self.position = end;
        Ok(Some(part))
    }

    /// Kind, length of the header and length of the whole box at `position`.
    fn header(&mut self, position: u64) -> io::Result<(FourCC, u64, u64)> {
        let mut header = [0; 8];
        self.file.seek(SeekFrom::Start(position))?;
        self.file.read_exact(&mut header)?;
        let [a, b, c, d, kind @ ..] = header;
        match u64::from(u32::from_be_bytes([a, b, c, d])) {
            1 => {
                let mut long = [0; 8];
                self.file.read_exact(&mut long)?;
                let size = u64::from_be_bytes(long);
                if size < 16 {
                    Err(damage("a box is too short"))
                } else {
                    Ok((FourCC::new(&kind), 16, size))
                }
            }
            size if size < 8 => Err(damage("a box has no length")),
            size => Ok((FourCC::new(&kind), 8, size)),
        }
    }

    fn body<A: Atom>(&mut self, header: u64, size: u64) -> io::Result<A> {
        if size > MAX_HEADER_BYTES {
            return Err(damage("a header is too long"));
        }
        let length = usize::try_from(size - header).map_err(|_| damage("a header is too long"))?;
        let mut body = vec![0; length];
        self.file.read_exact(&mut body)?;
        A::decode_body(&mut body.as_slice()).map_err(|error| damage(&error.to_string()))
    }

    fn check_media_data(&mut self, position: u64) -> io::Result<()> {
        let (kind, _, size) = self.header(position)?;
        let whole = position.checked_add(size).is_some_and(|end| end <= self.length);
        if kind == MDAT && whole {
            Ok(())
        } else {
            Err(damage("a fragment's media data is cut off"))
        }
    }

    fn fragment(&self, moof: &Moof) -> io::Result<Vec<Sample>> {
        let mut samples = Vec::new();
        for traf in &moof.traf {
            let track = self.tracks.iter().find(|track| track.id == traf.tfhd.track_id);
            let track = track.ok_or_else(|| damage("a fragment belongs to no track"))?;
            self.run(track, traf, &mut samples)?;
        }
        Ok(samples)
    }

    fn run(&self, track: &Track, traf: &Traf, samples: &mut Vec<Sample>) -> io::Result<()> {
        let base = traf.tfhd.base_data_offset.unwrap_or(self.position);
        let mut dts = traf.tfdt.as_ref().map_or(0, |tfdt| tfdt.base_media_decode_time);
        let mut offset = base;
        for trun in &traf.trun {
            if let Some(data_offset) = trun.data_offset {
                offset = base
                    .checked_add_signed(i64::from(data_offset))
                    .ok_or_else(|| damage("bad offset"))?;
            }
            for entry in trun.samples.iter() {
                let size = entry.size.or(traf.tfhd.default_sample_size).unwrap_or(0);
                let duration = entry.duration.or(traf.tfhd.default_sample_duration).unwrap_or(0);
                let flags = entry.flags.or(traf.tfhd.default_sample_flags).unwrap_or(0);
                let pts = dts.saturating_add_signed(entry.cts.unwrap_or(0));
                let sample_end = offset
                    .checked_add(u64::from(size))
                    .filter(|end| *end <= self.length);
                samples.push(Sample {
                    media: track.media,
                    offset,
                    size,
                    pts: units(pts, track.timescale),
                    duration: units(u64::from(duration), track.timescale),
                    key: flags & NON_SYNC == 0,
                });
                offset = sample_end.ok_or_else(|| damage("a sample lies beyond the end of the file"))?;
                dts = dts.saturating_add(u64::from(duration));
            }
        }
        Ok(())
    }
}

fn tracks(moov: &Moov) -> Vec<Track> {
    let track = |trak: &mp4_atom::Trak| Track {
        id: trak.tkhd.track_id,
        media: if trak.mdia.hdlr.handler == VIDEO {
            Media::Video
        } else {
            Media::Other
        },
        timescale: trak.mdia.mdhd.timescale.max(1),
    };
    moov.trak.iter().map(track).collect()
}

fn units(count: u64, timescale: u32) -> Duration {
    let nanos = u128::from(count) * 1_000_000_000 / u128::from(timescale);
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

fn damage(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

/// Decodes one box that lies whole in memory, header included; none if it is of another kind or malformed.
#[must_use]
pub fn decode<A: Atom>(bytes: &[u8]) -> Option<A> {
    let mut buffer = bytes;
    let header = mp4_atom::Header::decode(&mut buffer).ok()?;
    (header.kind == A::KIND && buffer.remaining() == header.size?)
        .then(|| A::decode_body(&mut buffer).ok())?
}
