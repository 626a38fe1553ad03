//! The whole fleet as the host knows it: the orchestrator's state, pure.
//!
//! Inputs come in, effects go out. The caller carries out all effects of one call in one transaction (records
//! and what is to be sent), then sends; [`Effect::License`] runs beside it. Everything that must outlive the
//! process is in a [`Record`]; whatever else is here can be lost. It is level-triggered throughout: each input
//! updates what is known, then every failover makes the transitions that are due and every server whose part
//! has changed gets a new assignment.

mod assign;
mod confirm;
mod edits;
mod events;
mod failovers;
mod gone;
mod maintenance;
mod modes;
mod overlay;
mod records;
mod replacement;
mod requests;
mod servers;
mod sessions;
mod triggers;
mod views;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

pub use self::{
    gone::{Gone, Replaced, Vacancy},
    records::{Record, RecordKey},
};
use crate::{
    assignment::{Assignment, Epoch},
    camera::Camera,
    contract::{
        api::{Protection, ReasonKind},
        event::{Event, Fact},
        heartbeat::{Observation, RestorationReport, ServerReport, Started, StorageState},
        rpc::LicenseRequest,
    },
    failover::Failover,
    ids::{CameraId, DomainId, ErasureId, FailoverId, Incarnation, ServerId},
    maintenance::Ongoing,
    server::{Mode, Server},
    settings::{Bundle, BundleHash},
    time::{Moment, Monotonic},
    trigger::Trigger,
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
    /// Send settings to a server, encrypted. Comes before the assignment that needs them.
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

/// The fleet.
#[derive(Clone, Debug, Default)]
pub struct Fleet {
    members: BTreeMap<ServerId, Member>,
    cameras: BTreeMap<CameraId, Camera>,
    protections: BTreeMap<ServerId, Protection>,
    assignments: BTreeMap<ServerId, Assignment>,
    failovers: BTreeMap<FailoverId, Failover>,
    /// Failovers of which something is left to be done.
    unsettled: BTreeSet<FailoverId>,
    /// The failover that keeps a failover server busy: one at most (invariant 7).
    busy: BTreeMap<ServerId, FailoverId>,
    last_used: BTreeMap<ServerId, Epoch>,
    dismissed: BTreeMap<ServerId, ReasonKind>,
    maintenance: BTreeMap<ServerId, Ongoing>,
    /// Servers that are to erase everything they have, and have not said yet that they did.
    erasing: BTreeMap<ServerId, ErasureId>,
    /// Servers that are none of the fleet any more.
    gone: BTreeMap<ServerId, Gone>,
    /// When each of those was last told to stand down.
    told: BTreeMap<ServerId, Monotonic>,
    epoch: Epoch,
    /// The settings of each recording server as they are now.
    settings: BTreeMap<ServerId, Arc<Settings>>,
    /// The same with what people changed during the failover that goes on, for those where they did.
    overlays: BTreeMap<ServerId, Arc<Settings>>,
    /// The failover servers.
    stand_ins: BTreeSet<ServerId>,
    /// Servers whose part may have changed.
    touched: BTreeSet<ServerId>,
    /// When the ledger was last asked, by the id of the move.
    asked: BTreeMap<FailoverId, Monotonic>,
    protection_checked: Option<Monotonic>,
    /// What is being answered.
    asking: confirm::Asking,
    out: Vec<Effect>,
}

/// One server, with what was seen of it since the start.
#[derive(Clone, Debug)]
struct Member {
    server: Server,
    trigger: Trigger,
    report: Option<ServerReport>,
    /// Other starts of its recording service, each with the last that was heard of it.
    others: VecDeque<(Incarnation, u64)>,
    published_at: Option<Monotonic>,
    /// Since when it has its assignment and does otherwise.
    otherwise_since: Option<Monotonic>,
    staged: BTreeMap<BundleHash, Monotonic>,
    heard: Option<bool>,
    started: Option<Started>,
    storage: StorageState,
    protected: Option<bool>,
}

/// A recording server's settings, with what follows from them.
#[derive(Clone, Debug)]
struct Settings {
    hash: BundleHash,
    bundle: Bundle,
    enabled: BTreeSet<CameraId>,
    /// Of these, the ones that allow one session only (K8).
    one_session: BTreeSet<CameraId>,
}

impl Settings {
    fn of(bundle: Bundle) -> Self {
        let ids = |which: fn(&Camera) -> bool| {
            let cameras = bundle.cameras.iter().filter(|camera| which(camera));
            cameras.map(|camera| camera.id.clone()).collect()
        };
        Self {
            hash: bundle.hash(),
            enabled: ids(|camera| camera.enabled),
            one_session: ids(|camera| camera.enabled && camera.max_sessions == Some(1)),
            bundle,
        }
    }
}

impl Member {
    fn new(server: Server, ever_heard: bool) -> Self {
        Self {
            server,
            trigger: Trigger::new(ever_heard),
            report: None,
            others: VecDeque::new(),
            published_at: None,
            otherwise_since: None,
            staged: BTreeMap::new(),
            heard: None,
            started: None,
            storage: StorageState::Normal,
            protected: None,
        }
    }
}

impl Fleet {
    /// The fleet as its records tell it. Follow with [`Input::Started`].
    #[must_use]
    pub fn restore(records: impl IntoIterator<Item = Record>) -> Self {
        let mut fleet = Self::default();
        let mut heard = BTreeSet::new();
        let mut servers = Vec::new();
        for record in records {
            match record {
                Record::Server(server) => servers.push(server),
                Record::Camera(camera) => {
                    fleet.cameras.insert(camera.id.clone(), camera);
                }
                Record::Protection(server, protection) => {
                    fleet.protections.insert(server, protection);
                }
                Record::Assignment(assignment) => {
                    fleet.epoch = fleet.epoch.max(assignment.epoch);
                    fleet.assignments.insert(assignment.server.clone(), assignment);
                }
                Record::Epoch(epoch) => fleet.epoch = fleet.epoch.max(epoch),
                Record::Failover(failover) => {
                    fleet.failovers.insert(failover.id.clone(), *failover);
                }
                Record::LastUsed(server, epoch) => {
                    fleet.last_used.insert(server, epoch);
                }
                Record::Heard(server) => {
                    heard.insert(server);
                }
                Record::Erasing(server, erasure) => {
                    fleet.erasing.insert(server, erasure);
                }
                Record::Gone(gone) => {
                    fleet.epoch = fleet.epoch.max(gone.assignment.epoch);
                    fleet.gone.insert(gone.server.clone(), gone);
                }
                Record::Dismissed(server, kind) => {
                    fleet.dismissed.insert(server, kind);
                }
                Record::Maintenance(server, order) => {
                    fleet.maintenance.insert(server, Ongoing::new(order));
                }
            }
        }
        for server in servers {
            if server.mode == Mode::Failover {
                fleet.stand_ins.insert(server.id.clone());
            }
            let member = Member::new(server.clone(), heard.contains(&server.id));
            fleet.members.insert(server.id, member);
        }
        let unsettled = fleet.failovers.values().filter(|failover| !failover.is_settled());
        fleet.unsettled = unsettled.map(|failover| failover.id.clone()).collect();
        for failover in fleet.failovers.values() {
            failover.mark_busy(&mut fleet.busy);
        }
        let all: Vec<ServerId> = fleet.members.keys().cloned().collect();
        fleet.renew_settings_of(&all);
        all.iter().for_each(|server| fleet.renew_overlay_of(server));
        fleet
    }

    /// Takes one input and says what is to be done about it.
    pub fn step(&mut self, input: Input, now: Moment) -> Vec<Effect> {
        match input {
            Input::Started => self.touched.extend(self.members.keys().cloned()),
            Input::Tick { fresh } => self.tick(&fresh, now),
            Input::Observed { observation, fresh } => self.observed(observation, &fresh, now),
            Input::Reported(report) => self.reported(report, now),
            Input::Restoration(report) => self.restoration(&report, now),
            Input::LicensesMoved {
                failover,
                given_back,
                devices,
            } => self.licenses_moved(&failover, given_back, devices, now),
            Input::LicenseFailed { failover, why } => self.license_failed(&failover, &why, now),
        }
        self.proceed(now);
        std::mem::take(&mut self.out)
    }

    /// A bundle by its hash, if it is in use.
    #[must_use]
    pub fn bundle(&self, hash: &BundleHash) -> Option<Bundle> {
        self.settings
            .values()
            .chain(self.overlays.values())
            .find(|settings| settings.hash == *hash)
            .map(|settings| settings.bundle.clone())
    }

    /// The servers enrolled.
    pub fn servers(&self) -> impl Iterator<Item = &Server> {
        self.members.values().map(|member| &member.server)
    }

    /// A camera, as it is outside of a failover.
    #[must_use]
    pub fn camera(&self, camera: &CameraId) -> Option<&Camera> {
        self.cameras.get(camera)
    }

    /// All failovers.
    pub fn failovers(&self) -> impl Iterator<Item = &Failover> {
        self.failovers.values()
    }

    /// The newest assignment of a server.
    #[must_use]
    pub fn assignment(&self, server: &ServerId) -> Option<&Assignment> {
        self.assignments.get(server)
    }

    /// Who is to act for a recording server's identity, by the epoch of its newest assignment: the failover server
    /// as long as it stands in, else the recording server itself. Both may film meanwhile.
    #[must_use]
    pub fn holder(&self, identity: &ServerId) -> Option<(ServerId, Epoch)> {
        let stand_in = self.failover_of(identity).and_then(Failover::stand_in);
        let holder = stand_in.map_or(identity, |holder| &holder.server);
        let assignment = self.assignments.get(holder)?;
        (assignment.role.identity() == Some(identity)).then(|| (holder.clone(), assignment.epoch))
    }

    /// Servers that are none of the fleet any more.
    pub fn gone(&self) -> impl Iterator<Item = &Gone> {
        self.gone.values()
    }

    /// The newest epoch given out.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    fn save(&mut self, record: Record) {
        self.out.push(Effect::Save(Box::new(record)));
    }

    fn emit(&mut self, about: &ServerId, event: Event, now: Moment) {
        if let Some(domain) = self.domain_of(about) {
            let fact = Fact {
                domain,
                at: now.wall,
                event,
            };
            self.out.push(Effect::Emit(fact));
        }
    }

    fn domain_of(&self, server: &ServerId) -> Option<DomainId> {
        self.members
            .get(server)
            .map(|member| member.server.domain.clone())
    }
}
