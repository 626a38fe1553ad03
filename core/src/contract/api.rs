//! What `/api/v1` and the command line show and take.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::heartbeat::{
    CameraStatus, DamagedSegment, Evidence, Package, Progress, RightToAct, Room, Storage,
};
use crate::{
    assignment::Epoch,
    camera::Camera,
    ids::{CameraId, DomainId, FailoverId, LicenseKeyId, ServerId},
    maintenance::Maintenance,
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
    /// Its maintenance, while it lasts: no failover of it begins by itself, and it stands in for nobody new.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maintenance: Option<Maintenance>,
    /// Whether it may open doors and switch outputs for the identity that it bears, by its own last word while that
    /// is worth something; none from a server of before, or one that was not heard yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub right_to_act: Option<RightToAct>,
    /// The room on its recording volume, by its last report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub room: Option<Room>,
    /// For how long a failover server could record for those it is paired with, or for the one that it stands in for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stands_in: Option<StandsIn>,
}

/// For how long the room of a failover server lasts if it stands in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StandsIn {
    /// For whom: the one that fills it the fastest.
    pub server: ServerId,
    /// For how long, in milliseconds, at the rate at which that one recorded last.
    pub for_ms: u64,
}

/// How a maintenance is to be: `servers/{id}/maintenance`. Either an end or a duration, 7 days at most.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MaintenanceOrder {
    /// Until when, by the host's clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// For how long from now on, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub for_ms: Option<u64>,
    /// Why, in one line.
    pub why: String,
}

/// Changes to a server; what is left out stays. Its id and domain can't be changed.
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
    /// What it is for from now on. To make it a failover server erases everything that it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<crate::server::Mode>,
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
    /// Where it can be watched (RTSP), while it is filmed: at the server that films it, under the same path on
    /// each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relay: Option<String>,
    /// Some of it, or all, holds only until the end of the failover that goes on.
    #[serde(default)]
    pub temporary: bool,
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
    /// How many RTSP sessions it allows at once; 0 if that is not known. Holds for good, also during a failover.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_sessions: Option<u32>,
    /// New way of its packets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transport: Option<crate::camera::Transport>,
    /// Switched on or off.
    pub enabled: Option<bool>,
    /// During a failover: whether the new address or password was set in the camera itself, so that it is to be
    /// offered at the failover's end. Without it, every new address or password is taken to be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_device: Option<bool>,
}

/// What people can set of a camera; named as in [`CameraEdit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum CameraField {
    /// Its name.
    Name,
    /// Its address.
    Url,
    /// User name and password.
    Credentials,
    /// When it is recorded.
    Recording,
    /// How long and how much of it is kept.
    Retention,
    /// Its priority.
    Priority,
    /// How many RTSP sessions it allows.
    MaxSessions,
    /// How its packets come.
    Transport,
    /// Whether it is switched on.
    Enabled,
}

/// A change of a recording server's settings that was made during its failover, and holds until its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TemporaryChange {
    /// Of which camera; without it, of the server itself: its name.
    pub camera: Option<CameraId>,
    /// What was done.
    pub change: ChangeKind,
    /// What was set otherwise, of a camera that was edited.
    #[serde(default)]
    pub fields: BTreeSet<CameraField>,
    /// What was changed in the device itself and can be kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offer: Option<Offer>,
}

/// What was done to a camera.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// It was added.
    Added,
    /// It was set otherwise.
    Edited,
    /// It was removed.
    Removed,
}

/// The offer to keep what was changed in a device during a failover. The password is left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Offer {
    /// Whether it was answered, and how.
    pub state: OfferState,
    /// The address, if it was changed.
    pub url: Option<String>,
    /// The user name that goes with the password, if one of them was changed.
    pub username: Option<String>,
}

/// What became of an offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum OfferState {
    /// Nobody has answered.
    Open,
    /// It is one of the recording server's own settings now.
    Applied,
    /// It goes with the failover.
    Dropped,
}

/// Why a failover was started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
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
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
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

/// How a failover by hand begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StartMode {
    /// The failover server takes over whatever becomes of the recording server.
    #[default]
    Manual,
    /// A planned switch (J8): both film until the failover server films all that the recording server does.
    Planned,
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

    /// Whether recordings go to the server where they belong.
    #[must_use]
    pub fn hands_back(self) -> bool {
        matches!(self, Self::Restoring | Self::Replacing)
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
    /// Whether it is a planned switch: neither server stops before the other films all that it films.
    #[serde(default)]
    pub planned: bool,
    /// The recording server whose place `server` has taken for good in this failover.
    #[serde(default)]
    pub replaces: Option<ServerId>,
    /// What it waits for, in words; empty when for nothing.
    pub waits_for: String,
    /// When it was decided.
    pub started_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// From the last sign of the server, or the last one without the fault, to the decision, in milliseconds; 0 by hand.
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
    /// Changes of settings that hold, or held, until the failover's end; at the end they were dropped, but for what
    /// was offered and applied.
    #[serde(default)]
    pub overlay: Vec<TemporaryChange>,
    /// Why this failover server: each candidate and what spoke for or against it.
    pub selection: Vec<Considered>,
    /// Whether the licences are where they belong.
    pub licenses_settled: bool,
    /// Its steps, oldest first.
    pub steps: Vec<Step>,
    /// When each camera was first heard to film on the failover server, by the host's clock.
    #[serde(default)]
    pub first_frames: BTreeMap<CameraId, Timestamp>,
    /// The trace that it is a part of, and the part that it is itself, as W3C Trace Context writes a `traceparent`: logs
    /// carry the trace's id, and a collector has it if its last two digits are 01.
    #[serde(default)]
    pub trace: Option<String>,
}

/// Who could take a recording server's place for good: `servers/{id}/replacement`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplacementView {
    /// The recording server.
    pub server: ServerId,
    /// The failover in the course of which it can be replaced.
    pub failover: Option<FailoverId>,
    /// Why it can't be replaced now, whoever would take its place; empty if it can.
    pub refused: String,
    /// Its failover server first, then the other recording servers.
    pub candidates: Vec<ReplacementCandidate>,
}

/// One server that could take a recording server's place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplacementCandidate {
    /// Which.
    pub server: ServerId,
    /// Its name, which it loses.
    pub name: String,
    /// What it is now: the failover server that stands in, or another recording server.
    pub mode: crate::server::Mode,
    /// Whether it is offered.
    pub offered: bool,
    /// What a person should know of it; why not, if it is not offered.
    pub why: String,
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
    /// Cameras without a licence, of each recording server whose keys are short, lowest priority first. They film all
    /// the same. None while it is not known, or if this host needs no licences.
    #[serde(default)]
    pub unlicensed: Option<BTreeMap<ServerId, Vec<CameraId>>>,
    /// Whether devices need licences at this host.
    #[serde(default)]
    pub needed: bool,
}

/// What happened to a licence key: `license-history`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LicenseHappening {
    /// When, by the host's clock.
    pub at: Timestamp,
    /// Which key.
    pub key: LicenseKeyId,
    /// For how many devices.
    pub devices: u32,
    /// What happened to it.
    pub what: LicenseKind,
    /// Who had it.
    pub from: Option<ServerId>,
    /// Who has it since.
    pub to: Option<ServerId>,
    /// The failover that moved it.
    pub failover: Option<FailoverId>,
}

/// What can happen to a licence key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LicenseKind {
    /// It was added.
    Added,
    /// It went to a failover server.
    Transferred,
    /// It came back from one.
    GivenBack,
    /// It belongs to another server, for good.
    Replaced,
    /// It was removed.
    Removed,
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

/// A picture that was kept because somebody asked for it: `cameras/{id}/snapshots`; the picture itself (JPEG) is at
/// `cameras/{id}/snapshots/{snapshot}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotView {
    /// Its name among those of its camera: when it was taken, in UTC, and by which server.
    pub id: String,
    /// What it shows.
    pub camera: CameraId,
    /// When that was.
    pub at: Timestamp,
    /// The server that filmed the camera then.
    pub taken_by: ServerId,
    /// The server that has it.
    pub held_by: ServerId,
    /// The failover during which it was taken; none in normal operation.
    pub failover: Option<FailoverId>,
    /// Size of the picture.
    pub bytes: u64,
    /// BLAKE3 of the picture, in hexadecimal.
    pub blake3: String,
}

/// Pictures of a camera: `cameras/{id}/snapshots?from&to`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotsView {
    /// Those that are known, newest first.
    pub snapshots: Vec<SnapshotView>,
    /// Servers that may have more, and did not say.
    #[serde(default)]
    pub unreached: Vec<Unreached>,
}

/// A server that was asked and did not say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unreached {
    /// Which.
    pub server: ServerId,
    /// Why, in words.
    pub why: String,
}

/// Messages that could not be handled, the oldest first: `dead-letters`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLettersView {
    /// How many there are.
    pub total: u64,
    /// The oldest of them.
    pub letters: Vec<DeadLetterView>,
}

/// A message that could not be handled: `dead-letters/{id}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetterView {
    /// Made of its contents: equal for messages that are equal in everything.
    pub id: String,
    /// Why it could not be handled, in words.
    pub reason: String,
    /// The queue that it came from.
    pub queue: String,
    /// The exchange that it had been sent to.
    pub exchange: String,
    /// The key that it had been sent with.
    pub routing_key: String,
    /// CloudEvents `type`; empty if it has none.
    pub kind: String,
    /// CloudEvents `source`; empty if it has none.
    pub source: String,
    /// CloudEvents `time`.
    pub time: Option<Timestamp>,
    /// The size of its body.
    pub bytes: u64,
    /// Why it can't be replayed, in words; empty if it can.
    pub not_replayable: String,
    /// The beginning of its body as text, of one that is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// Its headers that are text, of one that is asked for.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
}
