//! What of the fleet outlives the process.

use serde::{Deserialize, Serialize};

use super::Gone;
use crate::{
    assignment::{Assignment, Epoch},
    camera::Camera,
    contract::api::{Protection, ReasonKind},
    failover::Failover,
    ids::{ErasureId, ServerId},
    maintenance::Maintenance,
    server::Server,
};

/// What outlives the process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "record", rename_all = "snake_case")]
pub enum Record {
    /// A server, as enrolled.
    Server(Server),
    /// A camera.
    Camera(Camera),
    /// Pairing and failover settings of a recording server.
    Protection(ServerId, Protection),
    /// The newest assignment of a server.
    Assignment(Assignment),
    /// The newest epoch given out.
    Epoch(Epoch),
    /// A failover.
    Failover(Box<Failover>),
    /// When a failover server was last chosen.
    LastUsed(ServerId, Epoch),
    /// A server was heard at least once since its enrolment.
    Heard(ServerId),
    /// A server is to erase everything it has, by this order.
    Erasing(ServerId, ErasureId),
    /// A person ended a failover while its reason held: it is no reason any more until it has cleared.
    Dismissed(ServerId, ReasonKind),
    /// A server is in maintenance.
    Maintenance(ServerId, Maintenance),
    /// A server is none of the fleet any more.
    Gone(Gone),
}

/// What tells records apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RecordKey {
    /// The kind of record, e.g. `camera`.
    pub kind: String,
    /// Which of its kind; `fleet` where there is only one.
    pub id: String,
}

impl RecordKey {
    pub(super) fn new(kind: &str, id: &str) -> Self {
        Self {
            kind: kind.to_owned(),
            id: id.to_owned(),
        }
    }
}

impl Record {
    /// What tells it apart.
    #[must_use]
    pub fn key(&self) -> RecordKey {
        let (kind, id) = match self {
            Self::Server(server) => ("server", server.id.as_str()),
            Self::Camera(camera) => ("camera", camera.id.as_str()),
            Self::Protection(server, _) => ("protection", server.as_str()),
            Self::Assignment(assignment) => ("assignment", assignment.server.as_str()),
            Self::Epoch(_) => ("epoch", "fleet"),
            Self::Failover(failover) => ("failover", failover.id.as_str()),
            Self::LastUsed(server, _) => ("last_used", server.as_str()),
            Self::Heard(server) => ("heard", server.as_str()),
            Self::Erasing(server, _) => ("erasing", server.as_str()),
            Self::Dismissed(server, _) => ("dismissed", server.as_str()),
            Self::Maintenance(server, _) => ("maintenance", server.as_str()),
            Self::Gone(gone) => ("gone", gone.server.as_str()),
        };
        RecordKey::new(kind, id)
    }
}
