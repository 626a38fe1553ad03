//! One server: its recording service around a reconciler, its agent, and its disk.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use understudy_core::{
    assignment::{Assignment, Epoch},
    contract::heartbeat::{Heartbeat, Package, PackageState, Storage, StorageState},
    ids::{CameraId, DomainId, ErasureId, FailoverId, Incarnation, ServerId},
    reconcile::{Effect, Film, Persisted, Reconciler},
    restoration,
    settings::Bundle,
    time::{Moment, Timestamp},
};

use crate::{bug::Bug, network::Packet, visits::Fault};

/// A file of the archive. Its number stands for its path and its hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Recording {
    pub(crate) number: u64,
    pub(crate) camera: CameraId,
    pub(crate) recorded_by: ServerId,
    pub(crate) failover: Option<FailoverId>,
    pub(crate) frames: u32,
    /// Frames that survive a crash.
    pub(crate) synced: u32,
    pub(crate) closed: bool,
    pub(crate) damaged: bool,
}

impl Recording {
    /// Whether that server has made it for a failover, and not fetched it from whoever did.
    pub(crate) fn is_of(&self, failover: &FailoverId, server: &ServerId) -> bool {
        self.recorded_by == *server && self.failover.as_ref() == Some(failover)
    }
}

/// What survives.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    pub(crate) assignment: Option<Assignment>,
    /// The epoch of the assignment before, in a file of its own.
    pub(crate) outlived: Option<Epoch>,
    pub(crate) bundles: Vec<Bundle>,
    pub(crate) archive: BTreeMap<u64, Recording>,
    /// Damaged recordings that were to be erased: nobody else has them.
    pub(crate) aside: BTreeMap<u64, Recording>,
    /// What was handed over to it, and its retention has taken since.
    pub(crate) expired: BTreeMap<u64, Recording>,
    /// How often it began to film for anybody, and when last for each failover: the archive's index has it.
    pub(crate) beginnings: u64,
    pub(crate) begun: BTreeMap<FailoverId, u64>,
    /// Orders to erase everything that were carried out.
    pub(crate) erased: BTreeSet<ErasureId>,
}

impl Disk {
    pub(crate) fn persist(&mut self, assignment: Assignment) {
        let before = self.assignment.replace(assignment);
        self.outlived = before.map(|before| before.epoch).or(self.outlived);
    }

    fn persisted(&self) -> Persisted {
        Persisted {
            assignment: self.assignment.clone(),
            outlived: self.outlived,
        }
    }
}

/// What dies with the process.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) reconciler: Reconciler,
    pub(crate) todo: VecDeque<Effect>,
    pub(crate) incarnation: Incarnation,
    pub(crate) sequence: u64,
    pub(crate) report_due: bool,
    pub(crate) film: Option<Film>,
    /// The file that each camera is written to.
    pub(crate) open: BTreeMap<CameraId, u64>,
    pub(crate) filming: BTreeSet<CameraId>,
    /// An assignment that a careless shell has not made durable.
    pub(crate) unsynced_assignment: Option<Assignment>,
}

#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) id: ServerId,
    pub(crate) domain: DomainId,
    pub(crate) disk: Disk,
    pub(crate) process: Option<Process>,
    /// Whether the machine runs at all, and so its agent.
    pub(crate) powered: bool,
    pub(crate) cut_off: bool,
    /// It has no way to the broker; its agent's direct connection stands.
    pub(crate) off_broker: bool,
    /// For how many ticks it has been heard without a break.
    pub(crate) well_ticks: u32,
    pub(crate) storage: Storage,
    pub(crate) beats: u64,
    pub(crate) starts: u64,
    /// Until which tick its recording service does nothing, though it lives.
    pub(crate) frozen_until: u64,
    /// Whether the whole machine does nothing as long as that.
    pub(crate) machine_frozen: bool,
    /// What has arrived meanwhile.
    pub(crate) held: Vec<Packet>,
    /// Until which tick it gets a turn only now and then.
    pub(crate) slow_until: u64,
    /// Nothing that it sends arrives.
    pub(crate) mute: bool,
    /// Nothing that is sent to it arrives.
    pub(crate) deaf: bool,
    /// It reaches no camera.
    pub(crate) no_cameras: bool,
    /// Its disk takes nothing and gives nothing.
    pub(crate) disk_fault: bool,
    /// Its disk takes no recordings.
    pub(crate) disk_full: bool,
    /// It says only what the first version knew to say.
    pub(crate) old_version: bool,
    /// Whether it is a failover server.
    pub(crate) is_stand_in: bool,
    /// How fast its clock runs.
    pub(crate) rate: f64,
    /// By how much its wall clock is wrong, in milliseconds.
    pub(crate) wall_offset: i64,
}

impl Node {
    /// Whether a fault changes anything for it.
    pub(crate) fn is_changed_by(&self, fault: Fault) -> bool {
        match fault {
            Fault::PowerCut => self.powered || self.process.is_some(),
            Fault::ServiceCrash => self.process.is_some(),
            Fault::CutOff => !self.cut_off,
            Fault::OffBroker => !self.off_broker,
            Fault::Mute => !self.mute,
            Fault::Deaf => !self.deaf,
            Fault::NoCameras => !self.no_cameras,
            Fault::VolumeDegraded => self.storage.state != StorageState::Degraded,
            Fault::DiskFault => !self.disk_fault,
            Fault::DiskFull => !self.disk_full,
            Fault::DamagedAssignment => self.disk.assignment.is_some(),
            Fault::DamagedBundle => !self.disk.bundles.is_empty(),
            _ => true,
        }
    }

    pub(crate) fn new(id: ServerId, domain: DomainId) -> Self {
        Self {
            id,
            domain,
            disk: Disk::default(),
            process: None,
            powered: false,
            cut_off: false,
            off_broker: false,
            well_ticks: 0,
            storage: Storage::default(),
            beats: 0,
            starts: 0,
            frozen_until: 0,
            machine_frozen: false,
            held: Vec::new(),
            slow_until: 0,
            mute: false,
            deaf: false,
            no_cameras: false,
            disk_fault: false,
            disk_full: false,
            old_version: false,
            is_stand_in: false,
            rate: 1.0,
            wall_offset: 0,
        }
    }

    /// Whether its recording service does nothing at the moment.
    pub(crate) fn is_frozen(&self, tick: u64) -> bool {
        tick < self.frozen_until
    }

    /// Whether it gets no turn at this tick.
    pub(crate) fn rests(&self, tick: u64) -> bool {
        self.is_frozen(tick) || tick < self.slow_until && !tick.is_multiple_of(5)
    }

    /// Whether bytes travel between it and the broker, both ways.
    pub(crate) fn reaches_broker(&self) -> bool {
        self.powered && !self.cut_off && !self.off_broker && !self.mute && !self.deaf
    }

    /// The process dies: what was not synced is gone.
    pub(crate) fn crash(&mut self) {
        self.process = None;
        for recording in self.disk.archive.values_mut() {
            recording.frames = recording.synced;
        }
    }

    /// The process starts: the archive is repaired, then the reconciler goes on from the disk.
    pub(crate) fn start(&mut self, repairs: bool, now: Moment) {
        self.powered = true;
        self.starts += 1;
        if !repairs {
            self.disk.archive.retain(|_, recording| recording.closed);
        }
        self.disk.archive.retain(|_, recording| recording.frames > 0);
        for recording in self.disk.archive.values_mut() {
            recording.closed = true;
        }
        let held = self
            .disk
            .archive
            .values()
            .filter(|recording| recording.recorded_by == self.id)
            .filter_map(|recording| recording.failover.clone())
            .collect();
        let (reconciler, effects) = Reconciler::start(
            self.id.clone(),
            self.disk.persisted(),
            self.disk.bundles.iter().cloned(),
            held,
            now,
        );
        self.process = Some(Process {
            reconciler,
            todo: effects.into(),
            incarnation: Incarnation::new(format!("{}-start-{}", self.id, self.starts))
                .expect("this is an id"),
            sequence: 0,
            report_due: true,
            film: None,
            open: BTreeMap::new(),
            filming: BTreeSet::new(),
            unsynced_assignment: None,
        });
    }

    pub(crate) fn beat(&mut self, at: Timestamp, tick: u64) -> Heartbeat {
        self.beats += 1;
        let state = match self.process {
            Some(_) if self.is_frozen(tick) => PackageState::NotAnswering,
            Some(_) => PackageState::Running,
            None => PackageState::Crashed,
        };
        Heartbeat {
            server: self.id.clone(),
            domain: self.domain.clone(),
            sequence: self.beats,
            sent_at: at,
            interval_ms: 200,
            package: Package {
                state,
                evidence: String::new(),
            },
            storage: Storage {
                full: self.disk_full,
                ..self.storage.clone()
            },
            farewell: None,
            started: None,
        }
    }

    /// Makes everything durable that was written.
    pub(crate) fn sync(&mut self) -> Vec<(u64, u32)> {
        let mut synced = Vec::new();
        for recording in self.disk.archive.values_mut() {
            if recording.synced != recording.frames {
                recording.synced = recording.frames;
                synced.push((recording.number, recording.frames));
            }
        }
        synced
    }

    /// Begins to film for a failover, or for none.
    pub(crate) fn begins(&mut self, failover: Option<&FailoverId>) {
        self.disk.beginnings += 1;
        if let Some(failover) = failover {
            self.disk.begun.insert(failover.clone(), self.disk.beginnings);
        }
    }

    /// Up to which beginning it has closed everything, as far as its version knows.
    pub(crate) fn begun(&self, failover: &FailoverId) -> Option<u64> {
        let begun = self.disk.begun.get(failover).copied();
        begun.filter(|_| !self.old_version)
    }

    /// Erases the recordings of a failover, but for damaged ones, which are put aside. Answers what is gone; none if
    /// it has begun to film for it again since.
    pub(crate) fn erase(
        &mut self,
        failover: &FailoverId,
        up_to: Option<u64>,
        bug: Option<Bug>,
    ) -> Option<Vec<Recording>> {
        let up_to = up_to.filter(|_| !self.old_version && bug != Some(Bug::ErasedBeyond));
        if !restoration::may_erase(self.begun(failover), up_to) {
            return None;
        }
        let (erased, kept) = std::mem::take(&mut self.disk.archive)
            .into_iter()
            .partition(|(_, recording)| recording.is_of(failover, &self.id));
        self.disk.archive = kept;
        let erased: BTreeMap<u64, Recording> = erased;
        let (aside, gone): (BTreeMap<_, _>, BTreeMap<_, _>) = erased
            .into_iter()
            .partition(|(_, recording)| recording.damaged && bug != Some(Bug::ErasedDamaged));
        self.disk.aside.extend(aside);
        Some(gone.into_values().collect())
    }

    /// Retention takes the oldest recording, first of those that nobody has still to fetch; of what somebody has, it
    /// leaves a word that it can't be had any more. Answers what is gone.
    pub(crate) fn make_room(&mut self) -> Option<Recording> {
        let owed = |recording: &Recording| recording.recorded_by == self.id && recording.failover.is_some();
        let closed = || self.disk.archive.values().filter(|recording| recording.closed);
        let oldest = closed().find(|recording| !owed(recording));
        let oldest = oldest.or_else(|| closed().next())?.clone();
        if owed(&oldest) {
            let lost = self.disk.archive.get_mut(&oldest.number).expect("it is there");
            lost.damaged = true;
            return Some(oldest);
        }
        self.disk.archive.remove(&oldest.number);
        if oldest.failover.is_some() {
            self.disk.expired.insert(oldest.number, oldest.clone());
        }
        Some(oldest)
    }

    /// Makes the recordings of a failover its own. Answers which.
    pub(crate) fn keep(&mut self, failover: &FailoverId) -> Vec<u64> {
        let mut kept = Vec::new();
        for recording in self.disk.archive.values_mut() {
            if recording.is_of(failover, &self.id) {
                recording.failover = None;
                kept.push(recording.number);
            }
        }
        kept
    }

    /// The next effect that its reconciler wants.
    pub(crate) fn next_effect(&mut self) -> Option<Effect> {
        let disk_fault = self.disk_fault;
        self.process.as_mut().filter(|_| !disk_fault)?.todo.pop_front()
    }

    /// The failover that it films for.
    pub(crate) fn films_for(&self) -> Option<&FailoverId> {
        self.process.as_ref()?.film.as_ref()?.failover.as_ref()
    }
}
