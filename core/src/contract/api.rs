//! What `/api/v1` and the command line show and take.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::heartbeat::{CameraStatus, DamagedSegment, Evidence, Package, Progress, Storage};
use crate::{
    assignment::Epoch,
    camera::Camera,
    ids::{CameraId, DomainId, FailoverId, LicenseKeyId, ServerId},
    policy::{Pairing, Policy},
    server::Server,
    time::Timestamp,
};

/// An error as RFC 9457 (`application/problem+json`) has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{title}: {detail}")]
pub struct Problem {
    /// What kind of problem: `about:blank` or `urn:understudy:problem:<kind>`.
    #[serde(rename = "type")]
    pub kind: String,
    /// HTTP status.
    pub status: u16,
    /// The kind in words.
    pub title: String,
    /// This case in words, and what to do about it.
    pub detail: String,
    /// An extension member (RFC 9457 3.2): ask again with this, and it is done in spite of what would be lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirmation: Option<String>,
}

impl Problem {
    /// A problem of the given kind, e.g. `not-found`.
    #[must_use]
    pub fn new(status: u16, kind: &str, title: &str, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("urn:understudy:problem:{kind}"),
            status,
            title: title.to_owned(),
            detail: detail.into(),
            confirmation: None,
        }
    }

    /// 409, for what would lose something: done when asked again with the token.
    #[must_use]
    pub fn to_be_confirmed(detail: impl Into<String>, confirmation: String) -> Self {
        Self {
            confirmation: Some(confirmation),
            ..Self::new(409, "to-be-confirmed", "To be confirmed", detail)
        }
    }

    /// 404.
    #[must_use]
    pub fn not_found(what: &str, id: impl std::fmt::Display) -> Self {
        Self::new(404, "not-found", "Not found", format!("there is no {what} {id}"))
    }

    /// 400.
    #[must_use]
    pub fn invalid(detail: impl Into<String>) -> Self {
        Self::new(400, "invalid", "Invalid request", detail)
    }

    /// 409.
    #[must_use]
    pub fn conflict(detail: impl Into<String>) -> Self {
        Self::new(409, "conflict", "Not possible now", detail)
    }

    /// 503.
    #[must_use]
    pub fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(503, "unavailable", "Not available now", detail)
    }
}

/// How a server is, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServerState {
    /// Nothing was heard of it yet.
    Unknown,
    /// Heard, and doing what it is assigned to.
    Normal,
    /// Heard, and on its way to what it is assigned to.
    Changing,
    /// A recording server whose identity is elsewhere, or being handed back.
    FailedOver,
    /// A failover server on standby.
    Standby,
    /// A failover server that serves.
    Serving,
    /// A failover server that hands back.
    Restoring,
    /// Not heard.
    Disconnected,
    /// Heard, but its recording service or its volume is not well.
    Abnormal,
    /// Switched off by a person.
    Disabled,
}

/// A server as it is shown: `servers`, `servers/{id}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServerView {
    /// As it is enrolled.
    #[serde(flatten)]
    pub server: Server,
    /// `name (cameras/maximum)`.
    pub label: String,
    /// How it is.
    pub state: ServerState,
    /// Cameras that it owns (a recording server), or runs at the moment (a failover server).
    pub cameras: u32,
    /// Of these, how many film.
    pub filming: u32,
    /// The identity that it bears by its last report.
    pub identity: Option<ServerId>,
    /// The name that it bears: the recording server's, on a failover server that serves.
    pub bears_name: Option<String>,
    /// The newest assignment given to it.
    pub assigned: Option<Epoch>,
    /// The newest assignment that it has reached.
    pub reached: Option<Epoch>,
    /// Whether a failover server could take over now.
    pub protected: bool,
    /// The failover servers that it is paired with, those that `all` stands for included.
    pub paired_with: Vec<ServerId>,
    /// The failover that it takes part in.
    pub failover: Option<FailoverId>,
    /// Its recording service.
    pub package: Package,
    /// Its recording volume.
    pub storage: Storage,
    /// What a person should know.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// Changes to a server; what is left out stays. Its id, mode and domain can't be changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServerEdit {
    /// New name.
    pub name: Option<String>,
    /// New maximum of cameras.
    pub max_cameras: Option<u32>,
    /// New base URL of its sync service.
    pub sync_address: Option<String>,
    /// Switched on or off.
    pub enabled: Option<bool>,
}

/// A camera as it is shown: `cameras`, `cameras/{id}`. The password is left out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CameraView {
    /// As it is set.
    #[serde(flatten)]
    pub camera: Camera,
    /// The server that films it now, or tries to.
    pub filmed_by: Option<ServerId>,
    /// How it is there.
    pub status: Option<CameraStatus>,
}

/// Changes to a camera; what is left out stays.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CameraEdit {
    /// New name.
    pub name: Option<String>,
    /// New address.
    pub url: Option<String>,
    /// New user name and password.
    pub credentials: Option<crate::camera::Credentials>,
    /// New mode.
    pub recording: Option<crate::camera::RecordingMode>,
    /// New limits.
    pub retention: Option<crate::camera::Retention>,
    /// New priority.
    pub priority: Option<i32>,
    /// Switched on or off.
    pub enabled: Option<bool>,
}

/// Why a failover was started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailoverReason {
    /// What kind.
    pub kind: ReasonKind,
    /// In words.
    pub summary: String,
    /// What was seen, when, by whom.
    pub evidence: Vec<Evidence>,
}

/// The kinds of reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReasonKind {
    /// A person asked for it.
    Manual,
    /// The server was not heard for as long as its policy says.
    Disconnection,
    /// Its recording volume is degraded or damaged.
    Storage,
    /// Its recording service is abnormal.
    Package,
}

/// Where a failover is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// A failover server is sought.
    Selecting,
    /// The failover server connects the cameras.
    TakingOver,
    /// Each camera films or has a reason why not.
    Serving,
    /// The recording server films again and fetches what was recorded meanwhile.
    Restoring,
    /// Another server takes the original's place for good.
    Replacing,
    /// Ended well.
    Completed,
    /// Ended otherwise.
    Aborted,
}

impl Phase {
    /// Whether it is over.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Aborted)
    }
}

/// One step of a failover, with its time, cause and evidence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// When, by the host's wall clock.
    pub at: Timestamp,
    /// The phase that it led to.
    pub phase: Phase,
    /// What happened, in words.
    pub what: String,
}

/// A failover as it is shown: `failovers`, `failovers/{id}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FailoverView {
    /// Which.
    pub id: FailoverId,
    /// The recording server.
    pub server: ServerId,
    /// The failover server, once chosen.
    pub stand_in: Option<ServerId>,
    /// Where it is.
    pub phase: Phase,
    /// Why it was started; the reason is shown as cleared from `restoring` on.
    pub reason: FailoverReason,
    /// Whether the reason has cleared.
    pub reason_cleared: bool,
    /// What it waits for, in words; empty when for nothing.
    pub waits_for: String,
    /// When it was decided.
    pub started_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// From the last sign of the server to the decision, in milliseconds; 0 by hand.
    pub detection_ms: u64,
    /// From the decision to `serving`, in milliseconds.
    pub takeover_ms: Option<u64>,
    /// Cameras that the failover server has no room for, lowest priority first.
    pub disabled: Vec<CameraId>,
    /// How far the restoration is.
    pub progress: Progress,
    /// Failover servers with recordings of this failover that nobody has a list of yet: how much they have is
    /// unknown, and `progress` says nothing of it.
    #[serde(default)]
    pub unread: Vec<ServerId>,
    /// What could not be handed back; the first thousand.
    pub damaged: Vec<DamagedSegment>,
    /// How many segments could not be.
    #[serde(default)]
    pub damaged_count: u64,
    /// Why this failover server: each candidate and what spoke for or against it.
    pub selection: Vec<Considered>,
    /// Whether the licences are where they belong.
    pub licenses_settled: bool,
    /// Its steps, oldest first.
    pub steps: Vec<Step>,
}

/// One candidate of a selection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Considered {
    /// Which failover server.
    pub server: ServerId,
    /// Whether it was chosen.
    pub chosen: bool,
    /// Why, or why not, in words.
    pub why: String,
}

/// Pairing and failover settings: `servers/{id}/pairings`, `servers/{id}/failover-policy`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Protection {
    /// Which failover servers.
    pub pairing: Pairing,
    /// When, how far, and what comes back.
    pub policy: Policy,
}

/// A domain as it is shown: `domains`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainView {
    /// Which.
    pub id: DomainId,
    /// Its recording servers.
    pub recording_servers: Vec<ServerId>,
    /// Its failover servers.
    pub failover_servers: Vec<ServerId>,
    /// What is missing, in words.
    pub gaps: Vec<String>,
}

/// The licences: `licenses`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LicensesView {
    /// Each key.
    pub keys: Vec<LicenseKeyView>,
    /// Devices that the keys of each holder allow, without the two that need none.
    pub devices: BTreeMap<ServerId, u32>,
    /// Failovers whose keys are with the failover server.
    pub transferred: BTreeSet<FailoverId>,
}

/// A licence key as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LicenseKeyView {
    /// Which.
    pub id: LicenseKeyId,
    /// What its issuer called it.
    pub label: String,
    /// For how many devices.
    pub devices: u32,
    /// Who uses it.
    pub holder: ServerId,
    /// Who gets it back when the failover ends, while that is somebody else.
    pub owner: ServerId,
}

/// A recording as it is shown: `cameras/{id}/recordings?from&to`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordingView {
    /// The segment.
    #[serde(flatten)]
    pub segment: super::segment::Segment,
    /// The server that has it.
    pub held_by: ServerId,
}
