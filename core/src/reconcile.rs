//! One server's way to its assignment: what it does about what it hears, pure.
//!
//! The newest assignment holds. It is on disk before anything is done about it, so that a restart goes on
//! with it before anybody is heard. Recordings are never erased but on an explicit word that names their
//! failover.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    assignment::{Assignment, Epoch, Role},
    camera::Camera,
    contract::heartbeat::{CameraStatus, ServerReport},
    ids::{CameraId, DomainId, FailoverId, Incarnation, ServerId},
    policy::Range,
    settings::{Bundle, BundleHash},
    time::Moment,
};

/// What happens to a server.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// An assignment came in.
    Heard(Assignment),
    /// A bundle is on disk.
    BundleStored(Bundle),
    /// A camera has another status.
    Camera(CameraId, CameraStatus),
    /// All segments of a failover are closed and durable.
    Closed(FailoverId),
    /// A failover's recordings are erased.
    Erased(FailoverId),
    /// Time has passed.
    Tick,
}

/// What the server is to do, in this order.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Put the assignment on disk, durable before the next effect is begun.
    Persist(Assignment),
    /// Get the bundle from the host.
    FetchBundle(BundleHash),
    /// Film exactly these cameras for this identity: start what is missing, stop what is too much.
    Film(Film),
    /// Stop all cameras.
    StopFilming,
    /// Close all segments of a failover, then say [`Input::Closed`].
    CloseSegments(FailoverId),
    /// Erase a failover's recordings, then say [`Input::Erased`].
    Erase(FailoverId),
    /// An epoch came with other contents than before: raise the alarm.
    Conflict(Epoch),
    /// Something in the report has changed: send it.
    Report,
}

/// What is to be filmed: the whole wanted set.
#[derive(Clone, Debug, PartialEq)]
pub struct Film {
    /// The recording server whose cameras these are.
    pub identity: ServerId,
    /// The failover for which it is done; none on the recording server itself.
    pub failover: Option<FailoverId>,
    /// Everything, or everything but recording.
    pub range: Range,
    /// The cameras.
    pub cameras: Vec<Camera>,
}

/// The state of one server's reconciliation.
#[derive(Clone, Debug)]
pub struct Reconciler {
    server: ServerId,
    assignment: Option<Assignment>,
    bundles: BTreeMap<BundleHash, Bundle>,
    statuses: BTreeMap<CameraId, CameraStatus>,
}

impl Reconciler {
    /// A server that has just started: with the assignment and the bundles on its disk, and the failovers of
    /// which its archive has recordings (all closed: the archive repaired what was open). The effects begin
    /// what the assignment says, before anything is heard.
    #[must_use]
    pub fn start(
        server: ServerId,
        persisted: Option<Assignment>,
        bundles: impl IntoIterator<Item = Bundle>,
        held: BTreeSet<FailoverId>,
    ) -> (Self, Vec<Effect>) {
        let _ = held;
        (
            Self {
                server,
                assignment: persisted,
                bundles: bundles
                    .into_iter()
                    .map(|bundle| (bundle.hash(), bundle))
                    .collect(),
                statuses: BTreeMap::new(),
            },
            Vec::new(),
        )
    }

    /// Takes one input and says what is to be done about it.
    pub fn step(&mut self, input: Input, now: Moment) -> Vec<Effect> {
        let _ = (input, now);
        Vec::new()
    }

    /// The newest assignment that it took.
    #[must_use]
    pub fn assignment(&self) -> Option<&Assignment> {
        self.assignment.as_ref()
    }

    /// Bundles that neither the assignment needs nor anybody is likely to: all but these may be removed.
    #[must_use]
    pub fn bundles(&self) -> BTreeSet<BundleHash> {
        self.bundles.keys().cloned().collect()
    }

    /// What the server says of itself.
    #[must_use]
    pub fn report(
        &self,
        domain: DomainId,
        incarnation: Incarnation,
        sequence: u64,
        max_cameras: Option<u32>,
    ) -> ServerReport {
        ServerReport {
            server: self.server.clone(),
            domain,
            incarnation,
            sequence,
            epoch: self.assignment.as_ref().map(|assignment| assignment.epoch),
            identity: match self.assignment.as_ref().map(|assignment| &assignment.role) {
                Some(Role::Films(films)) => Some(films.identity.clone()),
                _ => None,
            },
            settings: None,
            cameras: self.statuses.clone(),
            closed: BTreeSet::new(),
            open: BTreeSet::new(),
            bundles: self.bundles(),
            max_cameras,
            conflict: None,
        }
    }
}
