//! Facts, for anyone: what programs outside consume from `understudy.events`.
//!
//! On the bus each is a CloudEvent (version 1.0, AMQP binary mode): its type is [`Event::name`], its subject
//! the id of what it is about, its routing key `<domain>.<name>`, its body the variant's fields as JSON.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{
    api::{FailoverReason, TemporaryChange},
    heartbeat::{CameraFault, DamagedSegment, Progress, Storage},
};
use crate::{
    assignment::Epoch,
    ids::{CameraId, DomainId, FailoverId, ServerId},
    time::Timestamp,
};

/// A fact with where and when it happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fact {
    /// The domain of the server that it is about.
    pub domain: DomainId,
    /// When it was decided or seen, by the host's clock.
    pub at: Timestamp,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "name", content = "data")]
pub enum Event {
    /// A failover was decided on and its failover server chosen.
    #[serde(rename = "failover.started")]
    FailoverStarted {
        /// Which.
        failover: FailoverId,
        /// The recording server that failed.
        server: ServerId,
        /// The failover server that takes over.
        stand_in: ServerId,
        /// Why.
        reason: FailoverReason,
        /// For how long nothing had been heard of the server, in milliseconds.
        silent_ms: u64,
        /// Cameras that the failover server has no room for, lowest priority first.
        disabled: Vec<CameraId>,
    },
    /// A failover is needed and no failover server is free.
    #[serde(rename = "failover.waiting")]
    FailoverWaiting {
        /// Which.
        failover: FailoverId,
        /// The recording server that failed.
        server: ServerId,
        /// Why.
        reason: FailoverReason,
        /// What it waits for, in words.
        waits_for: String,
    },
    /// Each camera films on the failover server or has a reason why not.
    #[serde(rename = "failover.serving")]
    FailoverServing {
        /// Which.
        failover: FailoverId,
        /// The recording server that failed.
        server: ServerId,
        /// The failover server that took over.
        stand_in: ServerId,
        /// How many cameras film.
        filming: u32,
        /// Cameras that don't.
        lost: BTreeSet<CameraId>,
    },
    /// The recording server films again, and fetches what was recorded meanwhile.
    #[serde(rename = "failover.restoring")]
    FailoverRestoring {
        /// Which.
        failover: FailoverId,
        /// The recording server.
        server: ServerId,
        /// The failover server that hands back.
        stand_in: ServerId,
    },
    /// How far a restoration is.
    #[serde(rename = "failover.progress")]
    FailoverProgress {
        /// Which.
        failover: FailoverId,
        /// The recording server.
        server: ServerId,
        /// How far.
        progress: Progress,
    },
    /// Everything was handed back; the failover server is on standby again.
    #[serde(rename = "failover.completed")]
    FailoverCompleted {
        /// Which.
        failover: FailoverId,
        /// The recording server.
        server: ServerId,
        /// The failover server.
        stand_in: ServerId,
        /// What was handed back.
        progress: Progress,
        /// What could not be handed back; the first thousand.
        damaged: Vec<DamagedSegment>,
        /// How many segments could not be.
        #[serde(default)]
        damaged_count: u64,
        /// What a person gave up, in words, with hours and bytes; empty when nothing.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        given_up: String,
        /// Changes of settings made meanwhile that ended with it; what is offered to be kept is named.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        dropped: Vec<TemporaryChange>,
    },
    /// It ended otherwise.
    #[serde(rename = "failover.aborted")]
    FailoverAborted {
        /// Which.
        failover: FailoverId,
        /// The recording server.
        server: ServerId,
        /// Why, in words.
        why: String,
        /// Changes of settings made meanwhile that ended with it; what is offered to be kept is named.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        dropped: Vec<TemporaryChange>,
    },
    /// Nothing is heard of a server any more.
    #[serde(rename = "server.disconnected")]
    ServerDisconnected {
        /// Which.
        server: ServerId,
    },
    /// A server is heard again.
    #[serde(rename = "server.recovered")]
    ServerRecovered {
        /// Which.
        server: ServerId,
    },
    /// A server's recording volume is degraded or damaged.
    #[serde(rename = "server.storage_degraded")]
    ServerStorageDegraded {
        /// Which.
        server: ServerId,
        /// How it is.
        storage: Storage,
    },
    /// A recording server lost its last free failover server.
    #[serde(rename = "server.unprotected")]
    ServerUnprotected {
        /// Which.
        server: ServerId,
        /// Why, in words.
        why: String,
    },
    /// A recording server has a free failover server again.
    #[serde(rename = "server.protected")]
    ServerProtected {
        /// Which.
        server: ServerId,
    },
    /// Another server has taken a recording server's place for good: name, cameras, settings and licences.
    #[serde(rename = "server.replaced")]
    ServerReplaced {
        /// Whose place was taken: it is no server of the fleet any more.
        server: ServerId,
        /// Who took it.
        successor: ServerId,
        /// The name that it bears from now on.
        server_name: String,
        /// In the course of which failover.
        failover: FailoverId,
        /// Who asked for it.
        by: String,
    },
    /// A server that is none of the fleet any more came back and filmed as before: it is told to stand down.
    #[serde(rename = "server.returned")]
    ServerReturned {
        /// Which.
        server: ServerId,
        /// Who took its place; none if it was removed.
        replaced_by: Option<ServerId>,
    },
    /// A server refused an assignment of an epoch that it had, with other contents.
    #[serde(rename = "server.conflict")]
    ServerConflict {
        /// Which.
        server: ServerId,
        /// The epoch.
        epoch: Epoch,
    },
    /// A server is in maintenance: no failover of it begins by itself, and it stands in for nobody new.
    #[serde(rename = "server.maintenance_begun")]
    ServerMaintenanceBegun {
        /// Which.
        server: ServerId,
        /// Until when, by the host's clock.
        until: Timestamp,
        /// Why, in words.
        why: String,
        /// Who said so.
        by: String,
    },
    /// A server's maintenance is over.
    #[serde(rename = "server.maintenance_ended")]
    ServerMaintenanceEnded {
        /// Which.
        server: ServerId,
        /// Why, in words: its time is over, or who ended it.
        why: String,
    },
    /// Licence keys have another holder.
    #[serde(rename = "license.transferred")]
    LicenseTransferred {
        /// For which failover.
        failover: FailoverId,
        /// Who held them.
        from: ServerId,
        /// Who holds them now.
        to: ServerId,
        /// For how many devices.
        devices: u32,
    },
    /// The licence keys of a recording server cover fewer cameras than it has. They film all the same.
    #[serde(rename = "license.short")]
    LicenseShort {
        /// Which.
        server: ServerId,
        /// How many cameras no key covers.
        missing: u32,
        /// Which, lowest priority first; the first hundred.
        cameras: Vec<CameraId>,
    },
    /// The licence keys of a recording server, which were short, cover its cameras again.
    #[serde(rename = "license.enough")]
    LicenseEnough {
        /// Which.
        server: ServerId,
    },
    /// A camera does not film any more.
    #[serde(rename = "camera.lost")]
    CameraLost {
        /// Which.
        camera: CameraId,
        /// The server that tries.
        server: ServerId,
        /// Why.
        fault: CameraFault,
        /// What was seen, in words.
        detail: String,
    },
    /// A camera films again.
    #[serde(rename = "camera.recovered")]
    CameraRecovered {
        /// Which.
        camera: CameraId,
        /// The server that films it.
        server: ServerId,
    },
}

impl Event {
    /// The names of all events.
    pub const NAMES: [&str; 22] = [
        "failover.started",
        "failover.waiting",
        "failover.serving",
        "failover.restoring",
        "failover.progress",
        "failover.completed",
        "failover.aborted",
        "server.disconnected",
        "server.recovered",
        "server.storage_degraded",
        "server.unprotected",
        "server.protected",
        "server.replaced",
        "server.returned",
        "server.conflict",
        "server.maintenance_begun",
        "server.maintenance_ended",
        "license.transferred",
        "license.short",
        "license.enough",
        "camera.lost",
        "camera.recovered",
    ];

    /// The event's name: `<entity>.<event>`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::FailoverStarted { .. } => "failover.started",
            Self::FailoverWaiting { .. } => "failover.waiting",
            Self::FailoverServing { .. } => "failover.serving",
            Self::FailoverRestoring { .. } => "failover.restoring",
            Self::FailoverProgress { .. } => "failover.progress",
            Self::FailoverCompleted { .. } => "failover.completed",
            Self::FailoverAborted { .. } => "failover.aborted",
            Self::ServerDisconnected { .. } => "server.disconnected",
            Self::ServerRecovered { .. } => "server.recovered",
            Self::ServerStorageDegraded { .. } => "server.storage_degraded",
            Self::ServerUnprotected { .. } => "server.unprotected",
            Self::ServerProtected { .. } => "server.protected",
            Self::ServerReplaced { .. } => "server.replaced",
            Self::ServerReturned { .. } => "server.returned",
            Self::ServerConflict { .. } => "server.conflict",
            Self::ServerMaintenanceBegun { .. } => "server.maintenance_begun",
            Self::ServerMaintenanceEnded { .. } => "server.maintenance_ended",
            Self::LicenseTransferred { .. } => "license.transferred",
            Self::LicenseShort { .. } => "license.short",
            Self::LicenseEnough { .. } => "license.enough",
            Self::CameraLost { .. } => "camera.lost",
            Self::CameraRecovered { .. } => "camera.recovered",
        }
    }

    /// The id of what it is about: CloudEvents' `subject`.
    #[must_use]
    pub fn subject(&self) -> &str {
        match self {
            Self::FailoverStarted { failover, .. }
            | Self::FailoverWaiting { failover, .. }
            | Self::FailoverServing { failover, .. }
            | Self::FailoverRestoring { failover, .. }
            | Self::FailoverProgress { failover, .. }
            | Self::FailoverCompleted { failover, .. }
            | Self::FailoverAborted { failover, .. }
            | Self::LicenseTransferred { failover, .. } => failover.as_str(),
            Self::ServerDisconnected { server }
            | Self::ServerRecovered { server }
            | Self::ServerStorageDegraded { server, .. }
            | Self::ServerUnprotected { server, .. }
            | Self::ServerProtected { server }
            | Self::ServerConflict { server, .. }
            | Self::ServerReplaced { server, .. }
            | Self::ServerReturned { server, .. }
            | Self::ServerMaintenanceBegun { server, .. }
            | Self::ServerMaintenanceEnded { server, .. }
            | Self::LicenseShort { server, .. }
            | Self::LicenseEnough { server } => server.as_str(),
            Self::CameraLost { camera, .. } | Self::CameraRecovered { camera, .. } => camera.as_str(),
        }
    }
}

impl Fact {
    /// Routing key on `understudy.events`.
    #[must_use]
    pub fn routing_key(&self) -> String {
        format!("{}.{}", self.domain, self.event.name())
    }
}
