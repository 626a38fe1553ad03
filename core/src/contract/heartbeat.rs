//! What servers say of themselves, and what the monitor sees of them. All of it is transient: the next one
//! replaces it, and a lost one does no harm.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::{
    assignment::Epoch,
    ids::{CameraId, DomainId, ErasureId, FailoverId, Incarnation, ServerId},
    settings::BundleHash,
    time::Timestamp,
};

/// One beat of an agent; it outlives the recording service and speaks of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Whose agent.
    pub server: ServerId,
    /// The domain it is in.
    pub domain: DomainId,
    /// Counts up from the agent's start.
    pub sequence: u64,
    /// The server's wall clock at sending.
    pub sent_at: Timestamp,
    /// How often it beats, in milliseconds.
    pub interval_ms: u64,
    /// The recording service beside it.
    #[serde(default)]
    pub package: Package,
    /// The recording volume.
    #[serde(default)]
    pub storage: Storage,
    /// It is the last one: the agent ends, and says why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub farewell: Option<Farewell>,
    /// The agent has started a short while ago.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<Started>,
}

/// Why an agent ends, by its own word. It delays nothing: whoever goes films no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Farewell {
    /// It was asked to end, and its system goes on.
    Stopped,
    /// Its system starts anew.
    Rebooting,
    /// Its system goes down.
    PoweringOff,
}

impl Farewell {
    /// In words, after the server's name.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Stopped => "said that its agent is being stopped",
            Self::Rebooting => "said that it is going down to reboot",
            Self::PoweringOff => "said that it is going down",
        }
    }
}

/// What an agent knows of its start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// The boot of its system, `/proc/sys/kernel/random/boot_id`.
    pub boot: String,
    /// How its run before ended; none if it knows of none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Ending>,
}

/// How an agent's run ended, as its next run finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// It was stopped in good order.
    Clean,
    /// It was killed or crashed, and its system went on.
    Killed,
    /// Its system ended without a word: its power was cut, or it crashed.
    CutOff,
}

impl Ending {
    /// In words, after the server's name.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Clean => "had been stopped in good order",
            Self::Killed => "had its agent killed, or its agent had crashed; its system went on",
            Self::CutOff => "was cut off without a word: its power, or its system crashed",
        }
    }
}

/// State of the recording service, as its server's agent sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Package {
    /// The state.
    pub state: PackageState,
    /// What was seen, in words; empty when it runs.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub evidence: String,
}

/// State of the recording service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PackageState {
    /// It runs and answers.
    #[default]
    Running,
    /// It has just been started and has not answered yet.
    Starting,
    /// Its process ended without having been asked to.
    Crashed,
    /// Somebody switched it off.
    Disabled,
    /// It is not installed any more.
    Uninstalled,
    /// Its process is there and says nothing.
    NotAnswering,
    /// It answers, and is of another version than its agent.
    WrongVersion,
}

/// State of the recording volume, as its server's agent sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Storage {
    /// The state.
    pub state: StorageState,
    /// What was seen, in words; empty when it is normal and not full.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub evidence: String,
    /// It stays full although retention should have made room. That is no damage, unless a policy says so.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub full: bool,
}

/// State of the recording volume.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum StorageState {
    /// It takes recordings.
    #[default]
    Normal,
    /// It takes recordings, but has lost its redundancy.
    Degraded,
    /// It takes no recordings: read-only, I/O errors, gone, hung.
    Damaged,
}

/// For how long an error of the recording volume counts.
pub const VOLUME_ERRORS_COUNT_FOR: Duration = Duration::from_secs(10 * 60);

/// What the recording volume refused to a recording service, which says so on `/healthz` as `volume_errors`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeErrors {
    /// How long ago each of the newest happened, in milliseconds, the newest first.
    pub ages_ms: Vec<u64>,
    /// The newest, in words.
    pub newest: String,
}

/// What a server's recording service says of itself: on each change, and every ten seconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerReport {
    /// Whose recording service.
    pub server: ServerId,
    /// The domain it is in.
    pub domain: DomainId,
    /// This start of it.
    pub incarnation: Incarnation,
    /// Counts up from the start of this incarnation, so that an older report is known as such.
    pub sequence: u64,
    /// The newest assignment that it heard and has on disk; none before the first.
    pub epoch: Option<Epoch>,
    /// The identity that it bears.
    pub identity: Option<ServerId>,
    /// The settings that it runs.
    pub settings: Option<BundleHash>,
    /// Each camera that it is to run, and how it is.
    pub cameras: BTreeMap<CameraId, CameraStatus>,
    /// Failovers of which it holds recordings, all of whose segments are closed.
    #[serde(default)]
    pub closed: BTreeSet<FailoverId>,
    /// Failovers of which it holds recordings still being written.
    #[serde(default)]
    pub open: BTreeSet<FailoverId>,
    /// The settings that it has in store, by hash, and can run at once.
    #[serde(default)]
    pub bundles: BTreeSet<BundleHash>,
    /// The most cameras that it can run, by its own configuration.
    #[serde(default)]
    pub max_cameras: Option<u32>,
    /// An epoch that it was given twice with different contents: it keeps the first and refuses the second.
    #[serde(default)]
    pub conflict: Option<Epoch>,
    /// It has lost its assignment, which was newer than this; it takes none that is older.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outlived: Option<Epoch>,
    /// The order to erase everything that it has carried out, while its assignment says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub erased: Option<ErasureId>,
    /// Failovers whose recordings it was to erase up to a beginning, and did not: it has filmed for them since
    /// ([`Assignment::erase_up_to`](crate::assignment::Assignment::erase_up_to)).
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub spared: BTreeSet<FailoverId>,
    /// Where the cameras that it films can be watched: `rtsp://<address>`, without the camera's path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relay: Option<String>,
    /// Whether it may act; none from a server of before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub right_to_act: Option<RightToAct>,
    /// The room on its recording volume, and how fast it goes; none from a server of before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub room: Option<Room>,
}

/// Room on a recording volume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Room {
    /// Bytes that are free, beyond what is kept free by configuration.
    pub bytes: u64,
    /// Bytes that the server's own recordings of the last ten minutes took per second, summed over the cameras that it
    /// runs; none as long as none of them has a whole segment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<u64>,
}

/// Whether a server has the right to act for the identity that it bears ([`crate::authority`]), by its own word of
/// that moment. It ends by itself, so that an old word of it is worth nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RightToAct {
    /// Whether it has.
    pub held: bool,
    /// Since when, by its own clock; none while it has not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Why not, in words; empty while it has.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
}

/// How one camera is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum CameraStatus {
    /// Not there yet; no verdict so far.
    Connecting,
    /// It films, and its first frame is in a segment on disk.
    Recording,
    /// It films, and nothing is to be recorded.
    LiveOnly,
    /// It is not to be run.
    Disabled {
        /// Why.
        reason: String,
    },
    /// It does not film, and is tried again.
    Lost {
        /// What kind of fault.
        fault: CameraFault,
        /// What was seen, in words, without credentials.
        detail: String,
    },
}

/// Why a camera does not film.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum CameraFault {
    /// No connection could be made, or it was closed.
    Unreachable,
    /// It refused the user name or the password.
    Unauthorized,
    /// It offers no stream that can be recorded.
    UnsupportedCodec,
    /// It is connected, and sends nothing.
    Silent,
    /// It sends what its protocol does not allow.
    Garbage,
    /// It allows no further session: another server holds it.
    HeldElsewhere,
    /// The recording volume did not take what it sent.
    Storage,
}

impl CameraStatus {
    /// Whether it films, or there is a reason why not.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        !matches!(self, Self::Connecting)
    }

    /// Whether it films.
    #[must_use]
    pub fn films(&self) -> bool {
        matches!(self, Self::Recording | Self::LiveOnly)
    }
}

/// What the monitor sees of one server, on each change and every second: durations, never points in time,
/// so that no two clocks are compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observation {
    /// The server seen.
    pub server: ServerId,
    /// For how long nothing was heard of it on any path, in milliseconds, at the time of sending; 0 while it
    /// is heard.
    pub silent_ms: u64,
    /// Whether it is heard, path by path.
    pub paths: Paths,
    /// Its recording service, by its agent's last word.
    pub package: Package,
    /// Its recording volume, by its agent's last word.
    pub storage: Storage,
    /// The host itself may be cut off: nothing may be concluded from silence.
    #[serde(default)]
    pub blind: bool,
    /// What it said when it went; none while it is heard, or if it went without a word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub farewell: Option<Farewell>,
    /// What it says of its start, a short while after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<Started>,
    /// What was seen, by whom, in words: kept with a failover as its reason.
    #[serde(default)]
    pub evidence: Vec<Evidence>,
}

/// On which ways a server is heard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paths {
    /// Through the broker.
    pub broker: bool,
    /// By the agent's direct connection to the monitor.
    pub direct: bool,
}

/// One thing that was seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Evidence {
    /// When, by the observer's clock.
    pub at: Timestamp,
    /// By whom, e.g. `monitor` or a person's name.
    pub observer: String,
    /// What, in words.
    pub seen: String,
}

/// How far a server has fetched the recordings of a failover: on each change, at most four a second, and
/// every ten seconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestorationReport {
    /// The server that fetches.
    pub server: ServerId,
    /// The domain it is in.
    pub domain: DomainId,
    /// Which failover's recordings.
    pub failover: FailoverId,
    /// The epoch of the assignment that it acts on.
    pub epoch: Epoch,
    /// How far it is.
    pub progress: Progress,
    /// Everything that can be had is on disk and verified here; what can't be had is in `damaged`.
    pub complete: bool,
    /// Whose recordings these are; none from a server of before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<ServerId>,
    /// If it is complete: up to which beginning of its source
    /// ([`Manifest::begun`](crate::contract::segment::Manifest::begun)).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begun: Option<u64>,
    /// Segments that the source could not give out whole, with the reason.
    #[serde(default)]
    pub damaged: Vec<DamagedSegment>,
    /// Why it does not go on at the moment; empty while it does.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub waiting: String,
}

/// How far a restoration is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Progress {
    /// Segments in the source's manifest.
    pub segments_total: u64,
    /// Of these, fetched and verified, or expired by retention.
    pub segments_done: u64,
    /// Bytes in the source's manifest.
    pub bytes_total: u64,
    /// Of these, fetched and verified, or expired by retention.
    pub bytes_done: u64,
    /// Bytes a second, over the last seconds.
    pub bytes_per_second: u64,
    /// Recorded time in the source's manifest, in milliseconds, summed over cameras.
    #[serde(default)]
    pub recorded_ms_total: u64,
    /// Of it, what is fetched and verified, or expired by retention.
    #[serde(default)]
    pub recorded_ms_done: u64,
}

/// A segment that could not be handed back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DamagedSegment {
    /// Its path below the archive.
    pub path: String,
    /// The camera it belongs to.
    pub camera: CameraId,
    /// First and last moment recorded in it.
    pub start: Timestamp,
    /// See `start`.
    pub end: Timestamp,
    /// Why, in words.
    pub reason: String,
}

/// A bundle on its way to a server: encrypted with the fleet's key, and named by the hash of its clear text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedBundle {
    /// Whose settings.
    pub identity: ServerId,
    /// BLAKE3 of the clear text.
    pub hash: BundleHash,
    /// XChaCha20-Poly1305, nonce first, in base64; associated data is the hash.
    pub sealed: String,
}
