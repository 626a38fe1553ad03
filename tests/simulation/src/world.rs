//! The world: who there is, what time it is, and how a tick goes by.

use std::{collections::BTreeMap, time::Duration};

use rand::{Rng, SeedableRng, rngs::StdRng, seq::SliceRandom};
use understudy_core::{
    contract::rpc::{Answer, OrchestratorReply, OrchestratorRequest},
    fleet::{Effect, Input},
    ids::{FailoverId, ServerId},
    license::Change,
    presence::{Path, Seen},
    reconcile,
    time::{Moment, Monotonic, Timestamp},
};

use crate::{
    checks::{Violation, Watch, failovers},
    faults::Outage,
    host::{Host, Outgoing},
    ledger::LedgerProcess,
    network::{Network, Packet, Weather},
    node::Node,
    scene::Scene,
};

/// How much time one tick takes.
pub(crate) const TICK: Duration = Duration::from_millis(200);
/// Ticks before the first fault, in which everything gets going.
const QUIET_TICKS: u32 = 12;
/// Ticks within which everything must have come to rest when the faults have stopped.
const REST_TICKS: u32 = 600;

/// Seeds with this rest by three do without the faults that came later, so that what was pinned stays as it was.
const WITHOUT_LATER: u64 = 2;

/// A mistake that a shell around the machines could make: each must be caught.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// The host does not store its failovers.
    ForgetFailovers,
    /// The host does not store the epochs that it gives out.
    ForgetEpoch,
    /// The host sends before it has stored.
    SendBeforeCommit,
    /// The host takes the silence of a domain that is cut off for its servers' own.
    ForgetBlindness,
    /// The host lets settings be changed during a failover.
    EditDuringFailover,
    /// The ledger writes a key's new holder beside the old one.
    LicenceCopied,
    /// A server acts on an assignment that is not durable.
    UnsyncedAssignment,
    /// A server says that it has fetched what it has not.
    ErasedUnverified,
    /// A server erases damaged recordings, which nobody else has.
    ErasedDamaged,
    /// A server never says that it has fetched everything.
    NeverComplete,
    /// A server throws files away that were not closed before it died.
    DropUnclosed,
}

/// What a schedule came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Failovers that began.
    pub failovers: usize,
    /// Failovers that handed recordings back.
    pub completed: usize,
    /// Failovers whose failover server died and was replaced.
    pub replaced: usize,
    /// Failovers whose recording server failed again while it was handed back to.
    pub taken_again: usize,
    /// Recordings that were erased after they had been handed back or dropped.
    pub erased: usize,
    /// Times that a whole domain was cut off.
    pub outages: usize,
    /// Processes that died.
    pub crashes: usize,
    /// Ticks that went by.
    pub ticks: u32,
}

/// The world of one schedule.
#[derive(Debug)]
pub struct World {
    pub(crate) rng: StdRng,
    /// For faults that came later: schedules of before draw the same as ever.
    pub(crate) later: Option<StdRng>,
    pub(crate) scene: Scene,
    pub(crate) bug: Option<Bug>,
    pub(crate) now: Duration,
    pub(crate) faulty: bool,
    pub(crate) host: Host,
    pub(crate) ledger: LedgerProcess,
    pub(crate) nodes: BTreeMap<ServerId, Node>,
    pub(crate) network: Network,
    pub(crate) watch: Watch,
    pub(crate) outcome: Outcome,
    pub(crate) outage: Option<Outage>,
    story: Option<Vec<String>>,
    next_failover: u64,
    pub(crate) next_recording: u64,
}

impl World {
    /// Sets the scene of `seed`.
    #[must_use]
    pub fn new(seed: u64, bug: Option<Bug>, tells: bool) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let scene = Scene::set(&mut rng);
        Self {
            ledger: LedgerProcess::with_keys(&scene.recorders),
            watch: Watch::new(scene.recorders.len()),
            rng,
            later: (seed % 3 != WITHOUT_LATER).then(|| StdRng::seed_from_u64(!seed)),
            scene,
            bug,
            now: Duration::ZERO,
            faulty: false,
            host: Host::default(),
            nodes: BTreeMap::new(),
            network: Network::default(),
            outcome: Outcome::default(),
            outage: None,
            story: tells.then(Vec::new),
            next_failover: 0,
            next_recording: 0,
        }
    }

    /// Plays the schedule to its end.
    pub fn run(mut self) -> (Vec<String>, Result<Outcome, Violation>) {
        let result = self.play();
        if let Err(violation) = &result {
            self.tell(|| violation.to_string());
        }
        self.outcome.failovers = self.watch.failovers();
        for failover in failovers(&self.host.records) {
            self.outcome.replaced += usize::from(failover.holders.len() > 1);
            self.outcome.taken_again += usize::from(failover.moves.len() > failover.holders.len());
        }
        let outcome = self.outcome;
        (self.story.unwrap_or_default(), result.map(|()| outcome))
    }

    fn play(&mut self) -> Result<(), Violation> {
        self.open();
        for _ in 0..QUIET_TICKS {
            self.tick()?;
        }
        self.faulty = true;
        for _ in 0..self.scene.faulty_ticks {
            self.throw_fault();
            self.tick()?;
        }
        self.tell(|| "all faults stop".to_owned());
        self.faulty = false;
        self.heal();
        for tick in 0..REST_TICKS {
            self.end_what_nobody_ends(tick);
            self.tick()?;
            if self.is_at_rest() {
                return self.check_rest();
            }
        }
        Err(self.restless())
    }

    fn open(&mut self) {
        let moment = self.moment();
        self.host.start(moment);
        for request in self.scene.requests.clone() {
            if let OrchestratorRequest::AddServer(server) = &request {
                let node = Node::new(server.id.clone(), server.domain.clone());
                self.nodes.insert(server.id.clone(), node);
            }
            self.tell(|| format!("setting the scene: {request:?}"));
            self.ask(request).expect("the scene is valid");
        }
        for id in self.node_ids() {
            self.start_node(&id);
        }
    }

    fn tick(&mut self) -> Result<(), Violation> {
        self.now += TICK;
        self.outcome.ticks += 1;
        for packet in self.network.arrivals(self.now) {
            self.arrive(packet)?;
        }
        self.host_turn()?;
        let mut ids = self.node_ids();
        ids.shuffle(&mut self.rng);
        for id in &ids {
            self.node_turn(id)?;
        }
        self.check_step()
    }

    fn arrive(&mut self, packet: Packet) -> Result<(), Violation> {
        let moment = self.moment();
        match packet {
            Packet::Beat(beat) => {
                if self.host.fleet.is_some() {
                    let off_broker = self.nodes.get(&beat.server).is_some_and(|node| node.off_broker);
                    let path = if off_broker { Path::Direct } else { Path::Broker };
                    let seen = self.host.presence.beat(path, beat, moment);
                    self.observe(seen)?;
                }
            }
            Packet::Assignment(assignment) => {
                let server = assignment.server.clone();
                self.node_input(&server, reconcile::Input::Heard(assignment))?;
            }
            Packet::Bundle(server, bundle) => {
                // On disk before the reconciler hears of it.
                if let Some(node) = self.nodes.get_mut(&server).filter(|node| node.process.is_some()) {
                    if !node.disk.bundles.contains(&bundle) {
                        node.disk.bundles.push(bundle.clone());
                    }
                    self.node_input(&server, reconcile::Input::BundleStored(bundle))?;
                }
            }
            Packet::Report(report) => self.host_input(Input::Reported(report))?,
            Packet::Restoration(report) => self.host_input(Input::Restoration(report))?,
            Packet::AskBundle(server, hash) => {
                let bundle = self.host.fleet.as_ref().and_then(|fleet| fleet.bundle(&hash));
                if let Some(bundle) = bundle {
                    self.send(&server.clone(), Packet::Bundle(server, bundle));
                }
            }
            Packet::License(request) => self.ledger_turn(&request),
            Packet::LicenseAnswer {
                failover,
                given_back,
                devices,
            } => self.host_input(Input::LicensesMoved {
                failover,
                given_back,
                devices,
            })?,
        }
        Ok(())
    }

    fn ledger_turn(&mut self, request: &understudy_core::contract::rpc::LicenseRequest) {
        let Some((failover, given_back, devices, changes)) = self.ledger.decide(request) else {
            return;
        };
        let changed = changes.iter().any(|change| matches!(change, Change::SaveKey(_)));
        if self.dies(1.0) {
            self.tell(|| "the licence service dies before it has stored".to_owned());
            return self.ledger.crash();
        }
        self.ledger.commit(changes, self.bug);
        if changed {
            self.tell(|| format!("the ledger has done {request:?}"));
        }
        if self.dies(1.0) {
            self.tell(|| "the licence service dies before it has answered".to_owned());
            return self.ledger.crash();
        }
        let answer = Packet::LicenseAnswer {
            failover,
            given_back,
            devices,
        };
        self.send_within_host(answer);
    }

    fn host_turn(&mut self) -> Result<(), Violation> {
        if self.host.fleet.is_none() {
            return Ok(());
        }
        let moment = self.moment();
        let seen = self.host.presence.tick(moment);
        self.observe(seen)?;
        let fresh = self.fresh();
        self.host_input(Input::Tick { fresh })
    }

    fn observe(&mut self, seen: Vec<Seen>) -> Result<(), Violation> {
        for mut seen in seen {
            seen.observation.blind &= self.bug != Some(Bug::ForgetBlindness);
            let fresh = self.fresh();
            self.host_input(Input::Observed {
                observation: seen.observation,
                fresh,
            })?;
        }
        Ok(())
    }

    pub(crate) fn host_input(&mut self, input: Input) -> Result<(), Violation> {
        let moment = self.moment();
        let Some(fleet) = self.host.fleet.as_mut() else {
            return Ok(());
        };
        let effects = fleet.step(input, moment);
        self.host_effects(effects)
    }

    /// Asks the orchestrator; what it refuses changes nothing.
    pub(crate) fn ask(&mut self, request: OrchestratorRequest) -> Answer<OrchestratorReply> {
        let moment = self.moment();
        let fresh = self.fresh();
        let Some(fleet) = self.host.fleet.as_mut() else {
            return Err(understudy_core::contract::api::Problem::unavailable(
                "the host is down",
            ));
        };
        let (answer, effects) = fleet.answer(request, fresh, moment);
        if let Err(violation) = self.host_effects(effects) {
            self.watch.remember(violation);
        }
        answer
    }

    /// Stores, then sends; and may die anywhere on the way.
    fn host_effects(&mut self, effects: Vec<Effect>) -> Result<(), Violation> {
        if self.bug == Some(Bug::SendBeforeCommit) {
            for effect in &effects {
                if let Effect::Assign(assignment) = effect {
                    self.host_sends(Outgoing::Assign(assignment.clone()))?;
                }
            }
        }
        if !effects.is_empty() && self.dies(1.0) {
            self.crash_host("before it has stored");
            return Ok(());
        }
        for request in self.host.commit(effects, self.bug) {
            self.send_within_host(Packet::License(request));
        }
        self.watch.note_failovers(&self.host.records);
        while let Some(outgoing) = self.host.outbox.front().cloned() {
            if self.dies(1.0) {
                self.crash_host("before it has sent");
                return Ok(());
            }
            self.host_sends(outgoing)?;
            if self.dies(1.0) {
                self.crash_host("before it has noted that it has sent");
                return Ok(());
            }
            self.host.outbox.pop_front();
        }
        Ok(())
    }

    fn host_sends(&mut self, outgoing: Outgoing) -> Result<(), Violation> {
        match outgoing {
            Outgoing::Assign(assignment) => {
                self.tell(|| {
                    format!(
                        "host → {}: {} {:?}",
                        assignment.server, assignment.epoch, assignment
                    )
                });
                self.watch.given(&assignment)?;
                let server = assignment.server.clone();
                self.send(&server, Packet::Assignment(assignment));
            }
            Outgoing::Stage(server, bundle) => self.send(&server.clone(), Packet::Bundle(server, bundle)),
            Outgoing::Emit(fact) => {
                self.tell(|| format!("event {} {:?}", fact.event.name(), fact.event));
                self.check_event(&fact.event)?;
            }
        }
        Ok(())
    }

    pub(crate) fn process(&mut self, id: &ServerId) -> Option<&mut crate::node::Process> {
        self.nodes.get_mut(id)?.process.as_mut()
    }

    pub(crate) fn node_ids(&self) -> Vec<ServerId> {
        self.nodes.keys().cloned().collect()
    }

    /// Sends something between the host and a server.
    pub(crate) fn send(&mut self, server: &ServerId, packet: Packet) {
        let lost = |node: &Node| node.cut_off || node.off_broker && !matches!(packet, Packet::Beat(_));
        if self.nodes.get(server).is_some_and(lost) {
            return;
        }
        self.send_within_host(packet);
    }

    pub(crate) fn send_within_host(&mut self, packet: Packet) {
        let weather = match self.faulty {
            true => Weather {
                loss: self.scene.loss,
                repeat: self.scene.repeat,
                delay_ms: self.scene.delay_ms,
            },
            false => Weather {
                loss: 0.0,
                repeat: 0.0,
                delay_ms: 100,
            },
        };
        self.network.send(packet, weather, self.now, &mut self.rng);
    }

    pub(crate) fn chance(&mut self, probability: f64) -> bool {
        self.rng.gen_bool(probability)
    }

    /// Whether a process dies just here; `weight` makes it rarer.
    pub(crate) fn dies(&mut self, weight: f64) -> bool {
        self.faulty && self.scene.crash > 0.0 && self.rng.gen_bool(self.scene.crash * weight)
    }

    pub(crate) fn tell(&mut self, what: impl FnOnce() -> String) {
        if let Some(story) = &mut self.story {
            story.push(format!("{:8.1} s  {}", self.now.as_secs_f64(), what()));
        }
    }

    fn fresh(&mut self) -> FailoverId {
        self.next_failover += 1;
        FailoverId::new(format!("f{}", self.next_failover)).expect("this is an id")
    }

    pub(crate) fn moment(&self) -> Moment {
        let millis = i64::try_from(self.now.as_millis()).expect("no schedule takes that long");
        Moment {
            monotonic: Monotonic(self.now),
            wall: Timestamp(1_700_000_000_000 + millis),
        }
    }
}
