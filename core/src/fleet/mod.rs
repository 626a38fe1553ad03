//! The whole fleet as the host knows it: the orchestrator's state, pure.
//!
//! Inputs come in, effects go out. The caller carries out all effects of one call in one transaction (records
//! and what is to be sent), then sends; [`Effect::License`] runs beside it. Everything that must outlive the
//! process is in a [`Record`]; whatever else is here can be lost.

use serde::{Deserialize, Serialize};

use crate::{
    assignment::{Assignment, Epoch},
    camera::Camera,
    contract::{
        api::{Problem, Protection},
        event::Fact,
        heartbeat::{Observation, RestorationReport, ServerReport},
        rpc::{Answer, LicenseRequest, OrchestratorReply, OrchestratorRequest},
    },
    failover::Failover,
    ids::{CameraId, FailoverId, ServerId},
    server::Server,
    settings::{Bundle, BundleHash},
    time::Moment,
};

/// What happens to the fleet.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// The orchestrator has started, with the records restored.
    Started,
    /// Time has passed: every 100 ms. A failover may begin, and needs an unused id; further ones of the same
    /// tick append a number to it.
    Tick {
        /// An id that was never used.
        fresh: FailoverId,
    },
    /// The monitor saw a server. A failover may begin.
    Observed {
        /// What it saw.
        observation: Observation,
        /// An id that was never used.
        fresh: FailoverId,
    },
    /// A server said how it is.
    Reported(ServerReport),
    /// A server said how far it has fetched a failover's recordings.
    Restoration(RestorationReport),
    /// The licence ledger answered a request ([`Effect::License`]).
    LicensesMoved {
        /// The failover id of the request.
        failover: FailoverId,
        /// Whether they were given back, or moved.
        given_back: bool,
        /// For how many devices.
        devices: u32,
    },
    /// The licence ledger refused, or could not be asked; the request is repeated later.
    LicenseFailed {
        /// The failover id of the request.
        failover: FailoverId,
        /// Why, in words.
        why: String,
    },
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Store a record, in the place of the one of the same key.
    Save(Box<Record>),
    /// Remove a record.
    Delete(RecordKey),
    /// Send an assignment to its server.
    Assign(Assignment),
    /// Send settings to a server, encrypted.
    Stage {
        /// To whom.
        server: ServerId,
        /// The settings.
        bundle: Bundle,
    },
    /// Tell everybody.
    Emit(Fact),
    /// Ask the licence ledger; the answer comes back as an [`Input`].
    License(LicenseRequest),
}

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
    Failover(Failover),
    /// When a failover server was last chosen.
    LastUsed(ServerId, Epoch),
    /// A server was heard at least once since its enrolment.
    Heard(ServerId),
}

/// What tells records apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RecordKey {
    /// The kind of record, e.g. `camera`.
    pub kind: String,
    /// Which of its kind; `fleet` where there is only one.
    pub id: String,
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
        };
        RecordKey {
            kind: kind.to_owned(),
            id: id.to_owned(),
        }
    }
}

/// The fleet.
#[derive(Clone, Debug, Default)]
pub struct Fleet {
    _records: Vec<Record>,
}

impl Fleet {
    /// The fleet as its records tell it. Follow with [`Input::Started`].
    #[must_use]
    pub fn restore(records: impl IntoIterator<Item = Record>) -> Self {
        Self {
            _records: records.into_iter().collect(),
        }
    }

    /// Takes one input and says what is to be done about it.
    pub fn step(&mut self, input: Input, now: Moment) -> Vec<Effect> {
        let _ = (input, now);
        Vec::new()
    }

    /// Answers a request. A failover may begin, and needs an id that was never used.
    ///
    /// # Errors
    /// [`Problem`] says what is wrong with the request, or why it is not possible now, and what to do.
    /// `GetBundle` is refused: the caller answers it with [`Fleet::bundle`], encrypted.
    pub fn answer(
        &mut self,
        request: OrchestratorRequest,
        fresh: FailoverId,
        now: Moment,
    ) -> (Answer<OrchestratorReply>, Vec<Effect>) {
        let _ = (request, fresh, now);
        (Err(Problem::unavailable("not ready yet")), Vec::new())
    }

    /// A bundle by its hash, if it is in use.
    #[must_use]
    pub fn bundle(&self, hash: &BundleHash) -> Option<Bundle> {
        let _ = hash;
        None
    }

    /// The servers enrolled.
    pub fn servers(&self) -> impl Iterator<Item = &Server> {
        self._records.iter().filter_map(|record| match record {
            Record::Server(server) => Some(server),
            _ => None,
        })
    }

    /// A camera.
    #[must_use]
    pub fn camera(&self, camera: &CameraId) -> Option<&Camera> {
        let _ = camera;
        None
    }
}
