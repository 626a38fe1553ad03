//! Recordings as two servers speak of them at failback.

use serde::{Deserialize, Serialize};

use crate::{
    ids::{CameraId, FailoverId, ServerId},
    time::Timestamp,
};

/// One closed segment: a file of the archive with what its index says of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// Path below the archive, with forward slashes: `<camera>/<YYYY-MM-DD>/<HH-MM-SS.mmm>-<server>.mp4`, in
    /// UTC. The recording server's name in it keeps overlapping recordings of two servers apart.
    pub path: String,
    /// The camera that was filmed.
    pub camera: CameraId,
    /// The server that filmed it.
    pub recorded_by: ServerId,
    /// The failover during which it was filmed; none in normal operation.
    pub failover: Option<FailoverId>,
    /// Wall-clock time of the first frame.
    pub start: Timestamp,
    /// Wall-clock time after the last frame.
    pub end: Timestamp,
    /// Size of the file.
    pub bytes: u64,
    /// Video frames in it.
    pub frames: u64,
    /// BLAKE3 of the file, in hexadecimal.
    pub blake3: String,
}

impl Segment {
    /// The recorded time in it, in milliseconds; 0 where the clock that named it was set back meanwhile.
    #[must_use]
    pub fn recorded_ms(&self) -> u64 {
        u64::try_from(self.end.0.saturating_sub(self.start.0)).unwrap_or(0)
    }
}

/// What a server holds of a failover: `GET {sync_address}/v1/restorations/{failover}/manifest`.
/// A segment's bytes: `GET {sync_address}/v1/restorations/{failover}/segments/{path}`, `Range` allowed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Which failover's recordings.
    pub failover: FailoverId,
    /// The server that holds them.
    pub server: ServerId,
    /// Whether nothing will be added: all segments are closed and the server films no more for it.
    pub complete: bool,
    /// All closed segments, oldest first.
    pub segments: Vec<Segment>,
    /// When it last began to film for the failover, as a number that only grows from one beginning to the next,
    /// whatever its clock says. Nothing is in the list that was filmed after a later beginning. None from a server of
    /// before, and where it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begun: Option<u64>,
}
