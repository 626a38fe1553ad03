//! Names of the archive's files. A name is all that another server may choose, so it is taken apart and
//! checked here, and nothing else of it reaches the file system.

use jiff::{Timestamp as Instant, civil::DateTime, tz::TimeZone};
use understudy_core::{
    ids::{CameraId, ServerId},
    time::Timestamp,
};

/// What lies in a file of the archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A recording: `<camera>/<YYYY-MM-DD>/<HH-MM-SS.mmm>-<server>.mp4`.
    Segment,
    /// A picture: `<camera>/snapshots/<YYYY-MM-DD>T<HH-MM-SS.mmm>-<server>.jpg`.
    Snapshot,
}

impl Kind {
    /// How the names of such files end.
    pub(super) fn extension(self) -> &'static str {
        match self {
            Self::Segment => ".mp4",
            Self::Snapshot => ".jpg",
        }
    }
}

/// The name of one file: below the archive, with forward slashes, times in UTC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// What lies in it.
    pub kind: Kind,
    /// The camera that was filmed.
    pub camera: CameraId,
    /// Wall-clock time of the first frame.
    pub start: Timestamp,
    /// The server that filmed it.
    pub server: ServerId,
}

const SEGMENT_DAY: &str = "%Y-%m-%d";
const SEGMENT_TIME: &str = "%H-%M-%S%.3f";

impl Name {
    /// The name as a path below the archive.
    #[must_use]
    pub fn path(&self) -> String {
        let at = Instant::from_millisecond(self.start.as_millis()).unwrap_or(Instant::UNIX_EPOCH);
        let at = at.to_zoned(TimeZone::UTC).datetime();
        let (day, time) = (at.strftime(SEGMENT_DAY), at.strftime(SEGMENT_TIME));
        let (camera, server) = (&self.camera, &self.server);
        match self.kind {
            Kind::Segment => format!("{camera}/{day}/{time}-{server}.mp4"),
            Kind::Snapshot => format!("{camera}/snapshots/{day}T{time}-{server}.jpg"),
        }
    }

    /// Takes a path apart; none if it is not exactly as [`Name::path`] makes it.
    #[must_use]
    pub fn parse(path: &str) -> Option<Self> {
        let mut parts = path.split('/');
        let (camera, folder, file) = (parts.next()?, parts.next()?, parts.next()?);
        let (kind, day, stem) = if folder == "snapshots" {
            let (day, rest) = file.split_once('T')?;
            (Kind::Snapshot, day, rest.strip_suffix(".jpg")?)
        } else {
            (Kind::Segment, folder, file.strip_suffix(".mp4")?)
        };
        let (time, server) = stem.split_at_checked("HH-MM-SS.mmm".len())?;
        let at = DateTime::strptime("%Y-%m-%dT%H-%M-%S%.3f", format!("{day}T{time}")).ok()?;
        let start = at.to_zoned(TimeZone::UTC).ok()?.timestamp().as_millisecond();
        let name = Self {
            kind,
            camera: CameraId::new(camera).ok()?,
            start: Timestamp(start),
            server: ServerId::new(server.strip_prefix('-')?).ok()?,
        };
        (name.path() == path).then_some(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn e1_names_are_taken_apart_as_they_are_made() {
        for path in [
            "cam-001/2026-11-23/15-43-31.007-recorder-1.mp4",
            "cam-001/snapshots/2026-11-23T00-00-00.000-standby-a.jpg",
        ] {
            assert_eq!(Name::parse(path).map(|name| name.path()), Some(path.to_owned()));
        }
    }

    #[test]
    fn nothing_but_a_name_is_a_name() {
        for path in [
            "",
            "../../etc/passwd",
            "cam-001/../2026-11-23/15-43-31.007-recorder-1.mp4",
            "cam-001/2026-11-23/15-43-31.007-../x.mp4",
            "cam-001/2026-11-23/15-43-31.007-recorder-1.mp4/x",
            "cam-001/2026-13-23/15-43-31.007-recorder-1.mp4",
            "cam-001/2026-11-23/15-43-31.7-recorder-1.mp4",
            "cam-001/2026-11-23/15-43-31.007.mp4",
            "index.db",
        ] {
            assert_eq!(Name::parse(path), None, "{path}");
        }
    }
}
