//! One server's way to its assignment: what it does about what it hears, pure.
//!
//! The newest assignment holds. It is on disk before anything is done about it, so that a restart goes on
//! with it before anybody is heard. Recordings are never erased but on an explicit word that names their
//! failover.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::{
    assignment::{Assignment, Epoch, Films, Role},
    camera::Camera,
    contract::heartbeat::{CameraStatus, ServerReport},
    ids::{CameraId, DomainId, ErasureId, FailoverId, Incarnation, ServerId},
    policy::Range,
    settings::{Bundle, BundleHash},
    time::{Moment, Monotonic},
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
    /// None of a failover's recordings were erased, since it was filmed for again after the beginning up to which they
    /// were to be ([`crate::restoration::may_erase`]).
    Spared {
        /// Which.
        failover: FailoverId,
        /// That beginning.
        up_to: u64,
    },
    /// A failover's recordings are this server's own.
    Kept(FailoverId),
    /// The whole archive is erased, by this order, now or before.
    ErasedAll(ErasureId),
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
    /// Film exactly these cameras for this identity: start what is missing, stop what is too much, and begin
    /// anew what is filmed otherwise than before ([`Camera::films_like`], or another range). Cameras that are
    /// begun have to say [`Input::Camera`] again.
    Film(Film),
    /// Stop all cameras.
    StopFilming,
    /// Close all segments of a failover, then say [`Input::Closed`].
    CloseSegments(FailoverId),
    /// Erase a failover's recordings, then say [`Input::Erased`]; or, where
    /// [`may_erase`](crate::restoration::may_erase) says no, [`Input::Spared`].
    Erase {
        /// Which.
        failover: FailoverId,
        /// Up to which beginning they arrived where they belong; none if they go in any case.
        up_to: Option<u64>,
    },
    /// Make a failover's recordings this server's own, as if it had recorded them for nobody else; then say
    /// [`Input::Kept`].
    Keep(FailoverId),
    /// Erase the whole archive, unless this order was carried out before; then say [`Input::ErasedAll`]. Comes after
    /// [`Effect::StopFilming`]; a [`Effect::Film`] that follows calls it off.
    EraseAll(ErasureId),
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

/// How often a bundle that is missing is asked for.
pub const FETCH_AGAIN: Duration = Duration::from_secs(2);
/// How often a server reports when nothing changes.
pub const REPORT_AGAIN: Duration = Duration::from_secs(10);
/// Bundles of one identity that are kept beside the one that is assigned: the newest.
pub const BUNDLES_KEPT: usize = 3;

/// What a server's disk says of its assignment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Persisted {
    /// The newest; none before the first, and none if it can't be read any more.
    pub assignment: Option<Assignment>,
    /// If it can't be read any more: the epoch of the one before it. Whatever is older is a message of long ago,
    /// which would have the server film for a failover that is over.
    pub outlived: Option<Epoch>,
}

/// The state of one server's reconciliation.
#[derive(Clone, Debug)]
pub struct Reconciler {
    server: ServerId,
    assignment: Option<Assignment>,
    /// Without an assignment: an epoch that it had left behind before it lost it.
    outlived: Option<Epoch>,
    /// Oldest first.
    bundles: Vec<(BundleHash, Bundle)>,
    running: Option<Running>,
    statuses: BTreeMap<CameraId, CameraStatus>,
    /// Failovers that are filmed for, or whose segments are being closed.
    open: BTreeSet<FailoverId>,
    closed: BTreeSet<FailoverId>,
    erasing: BTreeSet<FailoverId>,
    /// What was not erased, and up to which beginning it was to be.
    spared: BTreeMap<FailoverId, u64>,
    keeping: BTreeSet<FailoverId>,
    /// The order to erase everything that is being carried out, and whether it has been.
    erasure: Option<(ErasureId, bool)>,
    conflict: Option<Epoch>,
    asked_for: Option<(BundleHash, Monotonic)>,
    reported_at: Option<Monotonic>,
}

#[derive(Clone, Debug, PartialEq)]
struct Running {
    settings: BundleHash,
    film: Film,
}

impl Reconciler {
    /// A server that has just started: with what is on its disk of its assignment, the bundles (oldest first), and
    /// the failovers of which its archive has recordings (all closed: the archive repaired what was open). The
    /// effects begin what the assignment says, before anything is heard.
    #[must_use]
    pub fn start(
        server: ServerId,
        persisted: Persisted,
        bundles: impl IntoIterator<Item = Bundle>,
        held: BTreeSet<FailoverId>,
        now: Moment,
    ) -> (Self, Vec<Effect>) {
        let mut reconciler = Self {
            // A disk that was another server's says nothing to this one.
            assignment: persisted
                .assignment
                .filter(|assignment| assignment.server == server),
            outlived: persisted.outlived,
            bundles: bundles
                .into_iter()
                .map(|bundle| (bundle.hash(), bundle))
                .collect(),
            running: None,
            statuses: BTreeMap::new(),
            open: BTreeSet::new(),
            closed: held,
            erasing: BTreeSet::new(),
            spared: BTreeMap::new(),
            keeping: BTreeSet::new(),
            erasure: None,
            conflict: None,
            asked_for: None,
            reported_at: None,
            server,
        };
        let effects = reconciler.approach(now);
        (reconciler, effects)
    }

    /// Takes one input and says what is to be done about it.
    pub fn step(&mut self, input: Input, now: Moment) -> Vec<Effect> {
        let effects = match input {
            Input::Heard(assignment) => self.hear(assignment, now),
            Input::BundleStored(bundle) => self.store(bundle, now),
            Input::Camera(camera, status) => self.camera(camera, status),
            Input::Closed(failover) => self.segments_closed(failover, now),
            Input::Erased(failover) => self.erased(&failover),
            Input::Spared { failover, up_to } => self.spare(failover, up_to),
            Input::Kept(failover) => self.kept(&failover),
            Input::ErasedAll(erasure) => self.erased_all(erasure),
            Input::Tick => self.tick(now),
        };
        if effects.contains(&Effect::Report) {
            self.reported_at = Some(now.monotonic);
        }
        effects
    }

    fn hear(&mut self, heard: Assignment, now: Moment) -> Vec<Effect> {
        if heard.server != self.server {
            return Vec::new();
        }
        if self.assignment.is_none() && self.outlived.is_some_and(|outlived| heard.epoch < outlived) {
            return vec![Effect::Report];
        }
        match &self.assignment {
            // An old message, or the same again: the host may have missed the report.
            Some(known) if heard.epoch < known.epoch || *known == heard => vec![Effect::Report],
            Some(known) if heard.epoch == known.epoch => {
                self.conflict = Some(heard.epoch);
                vec![Effect::Conflict(heard.epoch), Effect::Report]
            }
            _ => {
                self.conflict = None;
                self.assignment = Some(heard.clone());
                let mut effects = vec![Effect::Persist(heard)];
                effects.append(&mut self.approach(now));
                effects.push(Effect::Report);
                effects
            }
        }
    }

    fn store(&mut self, bundle: Bundle, now: Moment) -> Vec<Effect> {
        let hash = bundle.hash();
        if self.bundles.iter().any(|(known, _)| *known == hash) {
            return Vec::new();
        }
        self.bundles.push((hash, bundle));
        let mut effects = self.approach(now);
        effects.push(Effect::Report);
        effects
    }

    fn camera(&mut self, camera: CameraId, status: CameraStatus) -> Vec<Effect> {
        let filmed = self
            .running
            .iter()
            .any(|running| running.film.cameras.iter().any(|filmed| filmed.id == camera));
        if filmed && self.statuses.get(&camera) != Some(&status) {
            self.statuses.insert(camera, status);
            vec![Effect::Report]
        } else {
            Vec::new()
        }
    }

    fn segments_closed(&mut self, failover: FailoverId, now: Moment) -> Vec<Effect> {
        let filming = self.filming_for() == Some(&failover);
        if filming || !self.open.remove(&failover) {
            return Vec::new();
        }
        self.closed.insert(failover);
        let mut effects = self.approach(now);
        effects.push(Effect::Report);
        effects
    }

    fn erased(&mut self, failover: &FailoverId) -> Vec<Effect> {
        self.erasing.remove(failover);
        if self.closed.remove(failover) {
            vec![Effect::Report]
        } else {
            Vec::new()
        }
    }

    fn spare(&mut self, failover: FailoverId, up_to: u64) -> Vec<Effect> {
        self.erasing.remove(&failover);
        self.spared.insert(failover, up_to);
        vec![Effect::Report]
    }

    fn kept(&mut self, failover: &FailoverId) -> Vec<Effect> {
        self.keeping.remove(failover);
        if self.closed.remove(failover) {
            vec![Effect::Report]
        } else {
            Vec::new()
        }
    }

    fn tick(&mut self, now: Moment) -> Vec<Effect> {
        let mut effects = self.approach(now);
        let due = |at: Monotonic| now.monotonic.since(at) >= REPORT_AGAIN;
        if !effects.is_empty() || self.reported_at.is_none_or(due) {
            effects.push(Effect::Report);
        }
        effects
    }

    /// What still lies between what is and what is assigned.
    fn approach(&mut self, now: Moment) -> Vec<Effect> {
        let Some(assignment) = self.assignment.clone() else {
            return Vec::new();
        };
        if !matches!(assignment.role, Role::Erases { .. }) {
            self.erasure = None;
        }
        let mut effects = match &assignment.role {
            Role::Standby | Role::HandsBack { .. } => self.stop(),
            Role::Erases { erasure } => self.erase_all(erasure),
            Role::Films(films) => self.film(films, now),
        };
        effects.extend(self.erase(&assignment));
        if let Role::Films(films) = &assignment.role {
            effects.extend(self.keep(&films.keep));
        }
        effects
    }

    fn film(&mut self, films: &Films, now: Moment) -> Vec<Effect> {
        // Another identity for the same failover, or none for what it filmed as a failover server: somebody takes
        // the recording server's place for good, and the cameras are filmed on without a break.
        let goes_on = |film: &Film| film.failover == films.failover || films.failover.is_none();
        let mut effects = match &self.running {
            Some(running) if !goes_on(&running.film) => self.stop(),
            _ => Vec::new(),
        };
        let bundle = self
            .bundles
            .iter()
            .find(|(hash, bundle)| *hash == films.settings && bundle.identity == films.identity);
        let Some((_, bundle)) = bundle else {
            effects.extend(self.fetch(&films.settings, now));
            return effects;
        };
        let wanted = Running {
            settings: films.settings.clone(),
            film: Film {
                identity: films.identity.clone(),
                failover: films.failover.clone(),
                range: films.range,
                cameras: bundle
                    .cameras
                    .iter()
                    .filter(|camera| camera.enabled && !films.disabled.contains(&camera.id))
                    .cloned()
                    .collect(),
            },
        };
        let statuses = self.begin_statuses(&wanted.film, &bundle.cameras, &films.disabled);
        if self.running.as_ref() == Some(&wanted) && statuses == self.statuses {
            return effects;
        }
        self.statuses = statuses;
        if let Some(failover) = &films.failover {
            self.closed.remove(failover);
            self.open.insert(failover.clone());
        }
        effects.push(Effect::Film(wanted.film.clone()));
        let before = self.running.replace(wanted);
        let over = before.and_then(|before| before.film.failover);
        // Only after the first files of what comes next: each camera cuts at a key frame of its own.
        effects.extend(
            over.filter(|over| films.failover.as_ref() != Some(over))
                .map(Effect::CloseSegments),
        );
        self.asked_for = None;
        effects
    }

    /// The statuses to go on with: cameras that were filmed just so keep theirs.
    fn begin_statuses(
        &self,
        wanted: &Film,
        all: &[Camera],
        disabled: &BTreeSet<CameraId>,
    ) -> BTreeMap<CameraId, CameraStatus> {
        let unchanged = |camera: &Camera| {
            let running = self
                .running
                .iter()
                .filter(|running| running.film.range == wanted.range);
            let mut before = running.flat_map(|running| &running.film.cameras);
            before.any(|before| before.films_like(camera))
        };
        let status = |camera: &Camera| {
            if !camera.enabled {
                Some(CameraStatus::Disabled {
                    reason: "it is switched off".to_owned(),
                })
            } else if disabled.contains(&camera.id) {
                let reason = match &wanted.failover {
                    Some(_) => "the failover server has no room for it",
                    None => "it allows one session, and is left to the failover server",
                };
                Some(CameraStatus::Disabled {
                    reason: reason.to_owned(),
                })
            } else if unchanged(camera) {
                self.statuses.get(&camera.id).cloned()
            } else {
                Some(CameraStatus::Connecting)
            }
        };
        all.iter()
            .filter_map(|camera| Some((camera.id.clone(), status(camera)?)))
            .collect()
    }

    fn fetch(&mut self, hash: &BundleHash, now: Moment) -> Vec<Effect> {
        if let Some((asked, at)) = &self.asked_for
            && asked == hash
            && now.monotonic.since(*at) < FETCH_AGAIN
        {
            return Vec::new();
        }
        self.asked_for = Some((hash.clone(), now.monotonic));
        vec![Effect::FetchBundle(hash.clone())]
    }

    fn stop(&mut self) -> Vec<Effect> {
        self.statuses.clear();
        let Some(running) = self.running.take() else {
            return Vec::new();
        };
        // It stays among the open ones until the shell says that everything is closed.
        let close = running.film.failover.map(Effect::CloseSegments);
        std::iter::once(Effect::StopFilming).chain(close).collect()
    }

    fn erase(&mut self, assignment: &Assignment) -> Vec<Effect> {
        let up_to = |failover: &FailoverId| assignment.erase_up_to.get(failover).copied();
        // To be erased further than before, or in any case: that is another word.
        self.spared.retain(|failover, spared| {
            assignment.erase.contains(failover) && up_to(failover) == Some(*spared)
        });
        let ready: Vec<FailoverId> = assignment
            .erase
            .iter()
            .filter(|failover| self.closed.contains(failover) && !self.open.contains(failover))
            .filter(|failover| !self.erasing.contains(failover) && !self.spared.contains_key(failover))
            .cloned()
            .collect();
        self.erasing.extend(ready.iter().cloned());
        let erase = |failover: FailoverId| Effect::Erase {
            up_to: up_to(&failover),
            failover,
        };
        ready.into_iter().map(erase).collect()
    }

    fn keep(&mut self, keep: &BTreeSet<FailoverId>) -> Vec<Effect> {
        let ready: Vec<FailoverId> = keep
            .iter()
            .filter(|failover| self.closed.contains(failover) && !self.open.contains(failover))
            .filter(|failover| !self.keeping.contains(failover))
            .cloned()
            .collect();
        self.keeping.extend(ready.iter().cloned());
        ready.into_iter().map(Effect::Keep).collect()
    }

    fn erase_all(&mut self, erasure: &ErasureId) -> Vec<Effect> {
        let mut effects = self.stop();
        let known = self.erasure.as_ref().is_some_and(|(known, _)| known == erasure);
        if !known {
            self.erasure = Some((erasure.clone(), false));
            effects.push(Effect::EraseAll(erasure.clone()));
        }
        effects
    }

    fn erased_all(&mut self, erasure: ErasureId) -> Vec<Effect> {
        // Of an order that was called off meanwhile nobody wants to hear.
        if self.erasure.as_ref().is_none_or(|(known, _)| *known != erasure) {
            return Vec::new();
        }
        self.erasure = Some((erasure, true));
        self.closed.clear();
        self.erasing.clear();
        self.spared.clear();
        self.keeping.clear();
        vec![Effect::Report]
    }

    fn filming_for(&self) -> Option<&FailoverId> {
        self.running.as_ref()?.film.failover.as_ref()
    }

    /// The newest assignment that it took.
    #[must_use]
    pub fn assignment(&self) -> Option<&Assignment> {
        self.assignment.as_ref()
    }

    /// What it films at the moment.
    #[must_use]
    pub fn filming(&self) -> Option<&Film> {
        self.running.as_ref().map(|running| &running.film)
    }

    /// The bundles in store.
    #[must_use]
    pub fn bundles(&self) -> BTreeSet<BundleHash> {
        self.bundles.iter().map(|(hash, _)| hash.clone()).collect()
    }

    /// Forgets bundles that newer ones of the same identity have replaced, and names them, so that they can be
    /// removed from the disk. What is assigned or runs stays.
    pub fn forget_old_bundles(&mut self) -> Vec<BundleHash> {
        let mut newer: BTreeMap<ServerId, usize> = BTreeMap::new();
        let mut old = Vec::new();
        for (hash, bundle) in self.bundles.iter().rev() {
            let place = newer.entry(bundle.identity.clone()).or_default();
            let assigned = match self.assignment.as_ref().map(|assignment| &assignment.role) {
                Some(Role::Films(films)) => films.settings == *hash,
                _ => false,
            };
            let runs = self
                .running
                .as_ref()
                .is_some_and(|running| running.settings == *hash);
            if *place >= BUNDLES_KEPT && !assigned && !runs {
                old.push(hash.clone());
            }
            *place += 1;
        }
        self.bundles.retain(|(hash, _)| !old.contains(hash));
        old
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
        let running = self.running.as_ref();
        let assigned = self.assignment.as_ref();
        let assigned = assigned.and_then(|assignment| assignment.role.identity());
        ServerReport {
            server: self.server.clone(),
            domain,
            incarnation,
            sequence,
            epoch: self.assignment.as_ref().map(|assignment| assignment.epoch),
            // While it waits for the settings of another identity it films on by the old, and bears neither.
            identity: running
                .map(|running| &running.film.identity)
                .filter(|identity| assigned == Some(*identity))
                .cloned(),
            settings: running.map(|running| running.settings.clone()),
            cameras: self.statuses.clone(),
            closed: self.closed.clone(),
            open: self.open.clone(),
            bundles: self.bundles(),
            max_cameras,
            conflict: self.conflict,
            outlived: self.outlived.filter(|_| self.assignment.is_none()),
            erased: self
                .erasure
                .clone()
                .filter(|(_, done)| *done)
                .map(|(erasure, _)| erasure),
            spared: self.spared.keys().cloned().collect(),
            relay: None,
            right_to_act: None,
            room: None,
        }
    }
}
