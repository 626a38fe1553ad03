//! A fleet on a table: what comes in is said by hand, what goes out is collected.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use understudy_core::{
    assignment::{Assignment, Epoch, Role},
    camera::{Camera, RecordingMode, Retention},
    contract::{
        api::{FailoverView, Phase, Problem},
        event::Event,
        heartbeat::{
            CameraStatus, DamagedSegment, Observation, Package, Paths, Progress, RestorationReport,
            ServerReport, Storage,
        },
        rpc::{LicenseRequest, OrchestratorReply as Reply, OrchestratorRequest as Request},
    },
    fleet::{Effect, Fleet, Input, Record, RecordKey},
    ids::{CameraId, DomainId, FailoverId, Incarnation, ServerId},
    policy::{Pairing, Policy},
    server::{Mode, Server},
    settings::Bundle,
    time::{Moment, Monotonic, Timestamp},
};

pub(crate) fn server_id(text: &str) -> ServerId {
    ServerId::new(text).expect("an id")
}

pub(crate) fn camera(server: &str, number: u32) -> Camera {
    Camera {
        id: CameraId::new(format!("{server}-cam-{number}")).expect("an id"),
        name: format!("camera {number}"),
        server: server_id(server),
        url: format!("rtsp://camera-{number}.test/stream"),
        credentials: None,
        recording: RecordingMode::Continuous,
        retention: Retention::default(),
        priority: 0,
        max_sessions: None,
        transport: understudy_core::camera::Transport::default(),
        enabled: true,
    }
}

pub(crate) fn server(id: &str, mode: Mode, max_cameras: u32) -> Server {
    Server {
        id: server_id(id),
        name: id.to_owned(),
        domain: DomainId::new("east").expect("an id"),
        mode,
        max_cameras,
        sync_address: format!("http://{id}.test:9000"),
        enabled: true,
    }
}

pub(crate) fn automatic() -> Policy {
    Policy {
        automatic: true,
        disconnection_ms: 1000,
        stop_automatically: true,
        ..Policy::default()
    }
}

pub(crate) struct Rig {
    pub(crate) fleet: Fleet,
    pub(crate) records: BTreeMap<RecordKey, Record>,
    pub(crate) now: Duration,
    pub(crate) events: Vec<Event>,
    pub(crate) sent: Vec<Assignment>,
    pub(crate) staged: Vec<(ServerId, Bundle)>,
    pub(crate) ledger: Vec<LicenseRequest>,
    fresh: u64,
    sequence: u64,
    /// Servers that are heard; the others are silent for as long as the value says.
    silent_since: BTreeMap<ServerId, Duration>,
    /// Servers that are heard directly, but not through the broker.
    off_broker: BTreeSet<ServerId>,
}

impl Rig {
    /// Two recording servers with three cameras each, and the failover servers named, all heard and at work.
    pub(crate) fn new(policy: Policy, stand_ins: &[(&str, u32)]) -> Self {
        let mut rig = Self::empty();
        for (id, room) in stand_ins {
            rig.ok(Request::AddServer(server(id, Mode::Failover, *room)));
        }
        for id in ["recorder-1", "recorder-2"] {
            rig.ok(Request::AddServer(server(id, Mode::Recording, 10)));
            rig.ok(Request::AddCameras((1..=3).map(|n| camera(id, n)).collect()));
            rig.ok(Request::SetPairing {
                server: server_id(id),
                pairing: Pairing::All,
            });
            rig.ok(Request::SetPolicy {
                server: server_id(id),
                policy: policy.clone(),
            });
        }
        rig.everybody_obeys();
        rig.pass(Duration::from_secs(2));
        rig.forget();
        rig
    }

    pub(crate) fn empty() -> Self {
        Self {
            fleet: Fleet::default(),
            records: BTreeMap::new(),
            now: Duration::from_secs(100),
            events: Vec::new(),
            sent: Vec::new(),
            staged: Vec::new(),
            ledger: Vec::new(),
            fresh: 0,
            sequence: 0,
            silent_since: BTreeMap::new(),
            off_broker: BTreeSet::new(),
        }
    }

    pub(crate) fn forget(&mut self) {
        self.events.clear();
        self.sent.clear();
        self.staged.clear();
        self.ledger.clear();
    }

    pub(crate) fn moment(&self) -> Moment {
        Moment {
            monotonic: Monotonic(self.now),
            wall: Timestamp(i64::try_from(self.now.as_millis()).expect("short")),
        }
    }

    fn fresh(&mut self) -> FailoverId {
        self.fresh += 1;
        FailoverId::new(format!("f{}", self.fresh)).expect("an id")
    }

    pub(crate) fn step(&mut self, input: Input) {
        let effects = self.fleet.step(input, self.moment());
        self.carry_out(effects);
    }

    fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Save(record) => drop(self.records.insert(record.key(), *record)),
                Effect::Delete(key) => drop(self.records.remove(&key)),
                Effect::Assign(assignment) => self.sent.push(assignment),
                Effect::Stage { server, bundle } => self.staged.push((server, bundle)),
                Effect::Emit(fact) => self.events.push(fact.event),
                Effect::License(request) => self.ledger.push(request),
            }
        }
    }

    pub(crate) fn ask(&mut self, request: Request) -> Result<Reply, Problem> {
        let fresh = self.fresh();
        let (answer, effects) = self.fleet.answer(request, fresh, self.moment());
        self.carry_out(effects);
        answer
    }

    pub(crate) fn ok(&mut self, request: Request) -> Reply {
        self.ask(request).expect("a good request")
    }

    pub(crate) fn refused(&mut self, request: Request) -> Problem {
        self.ask(request).expect_err("a bad request")
    }

    /// Asks for what has to be confirmed, and confirms it: the warning, and the answer.
    pub(crate) fn confirm(&mut self, request: Request) -> (Problem, Reply) {
        let warned = self.refused(request.clone());
        let reply = self.ok(Request::Confirmed {
            confirmation: warned.confirmation.clone().expect("a token"),
            request: Box::new(request),
        });
        (warned, reply)
    }

    /// The orchestrator dies and starts again from its records.
    pub(crate) fn restart(&mut self) {
        let records = serde_json::to_string(&self.records.values().collect::<Vec<_>>()).expect("JSON");
        let records: Vec<Record> = serde_json::from_str(&records).expect("what was written");
        self.fleet = Fleet::restore(records);
        self.step(Input::Started);
    }

    /// Time passes, in ticks of 100 ms; the monitor speaks each second.
    pub(crate) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            if self.now.as_millis().is_multiple_of(500) {
                self.monitor_speaks();
            }
            let fresh = self.fresh();
            self.step(Input::Tick { fresh });
            self.now += Duration::from_millis(100);
        }
    }

    pub(crate) fn monitor_speaks(&mut self) {
        for id in self
            .fleet
            .servers()
            .map(|server| server.id.clone())
            .collect::<Vec<_>>()
        {
            let observation = self.observation(&id);
            self.observe(observation);
        }
    }

    pub(crate) fn observation(&self, id: &ServerId) -> Observation {
        let since = self.silent_since.get(id);
        let silent = since.map_or(Duration::ZERO, |since| self.now - *since);
        Observation {
            server: id.clone(),
            silent_ms: u64::try_from(silent.as_millis()).expect("short"),
            paths: Paths {
                broker: since.is_none() && !self.off_broker.contains(id),
                direct: since.is_none(),
            },
            package: Package::default(),
            storage: Storage::default(),
            blind: false,
            farewell: None,
            started: None,
            evidence: Vec::new(),
        }
    }

    pub(crate) fn observe(&mut self, observation: Observation) {
        let fresh = self.fresh();
        self.step(Input::Observed { observation, fresh });
    }

    pub(crate) fn silence(&mut self, id: &str) {
        self.silent_since.insert(server_id(id), self.now);
    }

    pub(crate) fn off_broker(&mut self, id: &str, off: bool) {
        match off {
            true => self.off_broker.insert(server_id(id)),
            false => self.off_broker.remove(&server_id(id)),
        };
        self.monitor_speaks();
    }

    pub(crate) fn wake(&mut self, id: &str) {
        self.silent_since.remove(&server_id(id));
        self.monitor_speaks();
    }

    pub(crate) fn assignment(&self, id: &str) -> Assignment {
        self.fleet.assignment(&server_id(id)).expect("it has one").clone()
    }

    /// The last that was sent to it, which outlives its enrolment.
    pub(crate) fn last_assignment(&self, id: &str) -> Assignment {
        let to = server_id(id);
        let mut sent = self.sent.iter().rev();
        sent.find(|assignment| assignment.server == to)
            .expect("something was sent")
            .clone()
    }

    pub(crate) fn role(&self, id: &str) -> Role {
        self.assignment(id).role
    }

    /// What a server would report that does exactly what it is assigned.
    pub(crate) fn obedient(&mut self, id: &str) -> ServerReport {
        let assignment = self.assignment(id);
        self.sequence += 1;
        let mut report = ServerReport {
            server: server_id(id),
            domain: DomainId::new("east").expect("an id"),
            incarnation: Incarnation::new("one").expect("an id"),
            sequence: self.sequence,
            epoch: Some(assignment.epoch),
            identity: assignment.role.identity().cloned(),
            settings: None,
            cameras: BTreeMap::new(),
            closed: Default::default(),
            open: Default::default(),
            bundles: Default::default(),
            max_cameras: None,
            conflict: None,
            outlived: None,
            erased: None,
            spared: Default::default(),
            relay: None,
            right_to_act: None,
            room: None,
        };
        match &assignment.role {
            Role::Films(films) => {
                report.settings = Some(films.settings.clone());
                report.open.extend(films.failover.clone());
                let bundle = self.fleet.bundle(&films.settings).expect("it is in use");
                for camera in bundle
                    .cameras
                    .iter()
                    .filter(|each| !films.disabled.contains(&each.id))
                {
                    report.cameras.insert(camera.id.clone(), CameraStatus::Recording);
                }
            }
            Role::HandsBack { failover } => drop(report.closed.insert(failover.clone())),
            Role::Erases { erasure } => report.erased = Some(erasure.clone()),
            Role::Standby => {}
        }
        report
    }

    pub(crate) fn obeys(&mut self, id: &str) {
        let report = self.obedient(id);
        self.step(Input::Reported(report));
    }

    pub(crate) fn everybody_obeys(&mut self) {
        for id in self
            .fleet
            .servers()
            .map(|server| server.id.to_string())
            .collect::<Vec<_>>()
        {
            self.obeys(&id);
        }
    }

    /// The newest failover.
    pub(crate) fn newest(&self) -> FailoverView {
        let newest = self.fleet.failovers().max_by_key(|failover| failover.started_at);
        newest.expect("there is one").view()
    }

    pub(crate) fn phase(&self) -> Phase {
        self.newest().phase
    }

    pub(crate) fn event_names(&self) -> Vec<&'static str> {
        self.events.iter().map(Event::name).collect()
    }

    /// The recording server says how far it has fetched.
    pub(crate) fn restoration(&mut self, epoch: Epoch, done: u64, complete: bool) {
        self.restoration_without(epoch, done, complete, Vec::new());
    }

    /// The same, and what it could not fetch.
    pub(crate) fn restoration_without(
        &mut self,
        epoch: Epoch,
        done: u64,
        complete: bool,
        damaged: Vec<DamagedSegment>,
    ) {
        let report = self.restoration_report(epoch, done, complete);
        self.step(Input::Restoration(RestorationReport { damaged, ..report }));
    }

    /// What it says then.
    pub(crate) fn restoration_report(&self, epoch: Epoch, done: u64, complete: bool) -> RestorationReport {
        let failover = self.newest();
        RestorationReport {
            server: failover.server,
            domain: DomainId::new("east").expect("an id"),
            failover: failover.id,
            epoch,
            progress: Progress {
                segments_total: 10,
                segments_done: done,
                bytes_total: 1000,
                bytes_done: done * 100,
                bytes_per_second: 50,
                recorded_ms_total: 600_000,
                recorded_ms_done: done * 60_000,
            },
            complete,
            damaged: Vec::new(),
            source: None,
            begun: None,
            waiting: String::new(),
        }
    }

    /// A failover of recorder-1 that serves.
    pub(crate) fn serving(policy: Policy) -> Self {
        let mut rig = Self::new(policy, &[("failover-1", 3), ("failover-2", 9)]);
        rig.silence("recorder-1");
        rig.pass(Duration::from_secs(2));
        rig.obeys("failover-1");
        assert_eq!(rig.phase(), Phase::Serving);
        rig
    }

    /// A failover of recorder-1 whose recordings are being fetched.
    pub(crate) fn restoring() -> Self {
        let mut rig = Self::serving(automatic());
        rig.wake("recorder-1");
        rig.pass(Duration::from_millis(1500));
        rig.obeys("recorder-1");
        rig.obeys("failover-1");
        rig.obeys("recorder-1");
        assert_eq!(rig.phase(), Phase::Restoring);
        rig
    }
}
