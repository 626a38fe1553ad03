//! The world: who there is, what time it is, and how a tick goes by.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

use rand::{Rng, SeedableRng, rngs::StdRng, seq::SliceRandom};
use understudy_core::{
    contract::api::{Phase, Problem},
    contract::rpc::{Answer, OrchestratorReply, OrchestratorRequest},
    failover::Failover,
    fleet::{Effect, Input},
    ids::{FailoverId, ServerId},
    license::Change,
    presence::{Path, Seen},
    reconcile,
    server::Mode,
    time::{Moment, Monotonic, Timestamp},
};

use crate::{
    acting::Acting,
    bug::Bug,
    checks::{Violation, Watch, failovers},
    faults::Outage,
    host::{Host, Outgoing},
    late_word::LateWord,
    ledger::LedgerProcess,
    network::{Network, Packet, Weather},
    node::Node,
    scene::Scene,
    schedule::Schedule,
    visits::{Fault, Visits},
};

/// How much time one tick takes.
pub(crate) const TICK: Duration = Duration::from_millis(200);
/// Ticks before the first fault, in which everything gets going.
const QUIET_TICKS: u32 = 12;
/// Ticks within which everything must have come to rest when the faults have stopped.
const REST_TICKS: u32 = 600;

/// Seeds with this rest by three do without the faults that came later, so that what was pinned stays as it was.
const WITHOUT_LATER: u64 = 2;

/// Whether servers are replaced for good in a schedule: in one of seven of those with the faults that came later.
fn replaces(seed: u64) -> bool {
    seed % 7 == 5 && seed % 3 != WITHOUT_LATER
}

/// Whether the word that everything has arrived is late in a schedule: in one of eleven of those with the faults that
/// came later.
fn has_late_word(seed: u64) -> bool {
    seed % 11 == 7 && seed % 3 != WITHOUT_LATER
}

/// Whether people confirm what interrupts a failover: in three of thirteen of those with the faults that came later.
fn has_operator(seed: u64) -> bool {
    matches!(seed % 13, 0 | 2 | 3) && seed % 3 != WITHOUT_LATER
}

/// Whether a server has a part in a failover.
pub(crate) fn takes_part(failover: &Failover, server: &ServerId) -> bool {
    failover.server == *server || failover.holding(server).is_some()
}

/// What a schedule came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Failovers that began.
    pub failovers: usize,
    /// Failovers that handed recordings back.
    pub completed: usize,
    /// Failovers whose failover server died and was replaced.
    pub replaced: usize,
    /// Failovers whose recording server failed again while it was handed back to.
    pub taken_again: usize,
    /// Failovers in the course of which the recording server was replaced for good.
    pub for_good: usize,
    /// Recordings that were erased after they had been handed back or dropped.
    pub erased: usize,
    /// Times that a server was to erase what it had filmed on for since, and did not.
    pub spared: usize,
    /// Times that a whole domain was cut off.
    pub outages: usize,
    /// Processes that died.
    pub crashes: usize,
    /// Times that a server had the right to act, tick by tick.
    pub rights: u64,
    /// Events about which something was done.
    pub acts: usize,
    /// Ticks that went by.
    pub ticks: u64,
    /// Faults that struck, whether or not the schedule let them.
    pub struck: u64,
    /// Which faults struck in which phases.
    pub visits: Visits,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} failovers, {} handed back, {} with another failover server, {} taken over again, {} replaced for good, \
             {} recordings erased, {} times spared, {} domains cut off, {} deaths, {} faults, {} actions, {} ticks with the right to act, {} ticks",
            self.failovers,
            self.completed,
            self.replaced,
            self.taken_again,
            self.for_good,
            self.erased,
            self.spared,
            self.outages,
            self.crashes,
            self.struck,
            self.acts,
            self.rights,
            self.ticks
        )
    }
}

impl Outcome {
    /// Adds another schedule's.
    pub fn add(&mut self, other: &Self) {
        self.failovers += other.failovers;
        self.completed += other.completed;
        self.replaced += other.replaced;
        self.taken_again += other.taken_again;
        self.for_good += other.for_good;
        self.erased += other.erased;
        self.spared += other.spared;
        self.outages += other.outages;
        self.crashes += other.crashes;
        self.rights += other.rights;
        self.acts += other.acts;
        self.ticks += other.ticks;
        self.struck += other.struck;
        self.visits.add(&other.visits);
    }
}

/// What a schedule was played to.
#[derive(Clone, Debug)]
pub struct Played {
    /// What happened, line by line, if it was to be told.
    pub story: Vec<String>,
    /// What it came to, up to its end or to what was broken.
    pub outcome: Outcome,
    /// The invariant that was broken, and how.
    pub result: Result<(), Violation>,
}

/// The world of one schedule.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) rng: StdRng,
    /// For faults that came later: schedules of before draw the same as ever.
    pub(crate) later: Option<StdRng>,
    /// For replacements, in some schedules.
    pub(crate) replacing: Option<StdRng>,
    /// For a word that is late, in some schedules.
    pub(crate) late_word: Option<LateWord>,
    /// For people who interrupt failovers, in some schedules.
    pub(crate) operator: Option<StdRng>,
    pub(crate) scene: Scene,
    schedule: Schedule,
    struck: u32,
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
    broker_is_down: bool,
    /// Somebody was replaced for good: nobody acts by what was granted before.
    pub(crate) fences: bool,
    /// What may act; schedules of the first version know nothing of it.
    pub(crate) acting: Option<Acting>,
    /// How fast the host's clock runs.
    pub(crate) host_rate: f64,
    /// Servers that don't reach each other, though the host reaches both.
    pub(crate) apart: BTreeSet<(ServerId, ServerId)>,
    /// Packets of long ago.
    pub(crate) old: Vec<Packet>,
    story: Option<Vec<String>>,
    next_failover: u64,
    pub(crate) next_recording: u64,
}

impl World {
    /// Sets the scene of a schedule.
    #[must_use]
    pub(crate) fn new(schedule: Schedule, tells: bool) -> Self {
        let (seed, bug) = (schedule.seed, schedule.bug);
        let mut rng = StdRng::seed_from_u64(seed);
        let scene = Scene::set(&mut rng);
        Self {
            schedule,
            struck: 0,
            ledger: LedgerProcess::with_keys(&scene.recorders),
            watch: Watch::new(scene.recorders.len()),
            rng,
            later: (seed % 3 != WITHOUT_LATER).then(|| StdRng::seed_from_u64(!seed)),
            replacing: replaces(seed).then(|| StdRng::seed_from_u64(!seed ^ 0x5EED)),
            late_word: has_late_word(seed).then(|| LateWord::new(StdRng::seed_from_u64(!seed ^ 0x1A7E))),
            operator: has_operator(seed).then(|| StdRng::seed_from_u64(!seed ^ 0x09E4)),
            scene,
            bug,
            now: Duration::ZERO,
            faulty: false,
            host: Host::default(),
            nodes: BTreeMap::new(),
            network: Network::default(),
            outcome: Outcome::default(),
            outage: None,
            broker_is_down: false,
            fences: false,
            acting: None,
            host_rate: 1.0,
            apart: BTreeSet::new(),
            old: Vec::new(),
            story: tells.then(Vec::new),
            next_failover: 0,
            next_recording: 0,
        }
    }

    /// Plays the schedule to its end.
    pub(crate) fn run(mut self) -> Played {
        let result = self.play();
        if let Err(violation) = &result {
            self.tell(|| violation.to_string());
        }
        self.outcome.failovers = self.watch.failovers();
        for failover in failovers(&self.host.records) {
            self.outcome.replaced += usize::from(failover.holders.len() > 1);
            self.outcome.for_good += usize::from(failover.replaced.is_some());
            self.outcome.taken_again += usize::from(failover.moves.len() > failover.holders.len());
        }
        self.outcome.acts = self.acting.as_ref().map_or(0, Acting::acts);
        self.outcome.struck = u64::from(self.struck);
        let outcome = self.outcome;
        Played {
            story: self.story.unwrap_or_default(),
            outcome,
            result,
        }
    }

    fn play(&mut self) -> Result<(), Violation> {
        self.open();
        for _ in 0..QUIET_TICKS {
            self.tick()?;
        }
        self.faulty = true;
        let faulty_ticks = self
            .schedule
            .until
            .unwrap_or(u32::MAX)
            .min(self.scene.faulty_ticks);
        for _ in 0..faulty_ticks {
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
        self.begin_later();
        let moment = self.moment();
        self.host.start(moment);
        self.acting.iter_mut().for_each(Acting::host_starts);
        for request in self.scene.requests.clone() {
            if let OrchestratorRequest::AddServer(server) = &request {
                let mut node = Node::new(server.id.clone(), server.domain.clone());
                node.is_stand_in = server.mode == Mode::Failover;
                if let Some(rng) = &mut self.later {
                    node.rate = rng.gen_range(0.9..1.1);
                    node.old_version = rng.gen_bool(0.1);
                }
                self.nodes.insert(server.id.clone(), node);
            }
            self.tell(|| format!("setting the scene: {request:?}"));
            self.ask(request).expect("the scene is valid");
        }
        for id in self.node_ids() {
            self.start_node(&id);
        }
    }

    /// What came later has its own dice, so that schedules of before stay as they were.
    fn begin_later(&mut self) {
        if let Some(rng) = &mut self.later {
            if let Some(rng) = &mut self.replacing {
                self.scene.add_spare(rng);
            }
            self.host_rate = rng.gen_range(0.9..1.1);
            self.acting = Some(Acting::new(StdRng::seed_from_u64(rng.r#gen())));
            for request in &mut self.scene.requests {
                let OrchestratorRequest::AddCameras(cameras) = request else {
                    continue;
                };
                for camera in cameras.iter_mut().filter(|_| rng.gen_bool(0.2)) {
                    camera.max_sessions = Some(1);
                }
            }
        }
    }

    fn tick(&mut self) -> Result<(), Violation> {
        self.now += TICK;
        self.outcome.ticks += 1;
        self.mend_broker();
        for packet in self.thawed() {
            self.arrive(packet)?;
        }
        for packet in self.network.arrivals(self.now) {
            self.arrive(packet)?;
        }
        self.host_turn()?;
        let mut ids = self.node_ids();
        ids.shuffle(&mut self.rng);
        for id in &ids {
            self.node_turn(id)?;
        }
        self.fence_if_due();
        self.acting_turn()?;
        self.check_step()
    }

    /// Whether nothing goes through the broker: until when, if it only takes nothing.
    fn broker_stands_still(&self) -> Option<u64> {
        let acting = self.acting.as_ref()?;
        let until = acting.broker_back.max(acting.blocked_until);
        (self.outcome.ticks < until).then_some(until)
    }

    fn mend_broker(&mut self) {
        if self.broker_is_down && self.broker_stands_still().is_none() {
            self.set_broker(None);
        }
    }

    /// The monitor's link to the broker is down, for a reason, or up again.
    pub(crate) fn set_broker(&mut self, down: Option<String>) {
        self.broker_is_down = down.is_some();
        let moment = self.moment();
        let seen = self.host.presence.broker(down, moment);
        if self.host.fleet.is_some()
            && let Err(violation) = self.observe(seen)
        {
            self.watch.remember(violation);
        }
    }

    /// What had arrived at whoever was frozen, and is not any more.
    fn thawed(&mut self) -> Vec<Packet> {
        let tick = self.outcome.ticks;
        let mut packets = Vec::new();
        if !self.host.is_frozen(tick) {
            packets.append(&mut self.host.held);
        }
        for node in self.nodes.values_mut().filter(|node| !node.is_frozen(tick)) {
            packets.append(&mut node.held);
        }
        packets
    }

    /// Whoever is frozen reads nothing; what was sent to it waits.
    fn hold_back(&mut self, packet: Packet) -> Option<Packet> {
        let tick = self.outcome.ticks;
        let held = match packet.receiver() {
            _ if packet.is_about_licences() => None,
            Some(server) => self
                .nodes
                .get_mut(server)
                .filter(|node| node.is_frozen(tick))
                .map(|node| &mut node.held),
            None => Some(&mut self.host)
                .filter(|host| host.is_frozen(tick))
                .map(|host| &mut host.held),
        };
        match held {
            Some(held) => {
                held.push(packet);
                None
            }
            None => Some(packet),
        }
    }

    fn arrive(&mut self, packet: Packet) -> Result<(), Violation> {
        let Some(packet) = self.hold_back(packet) else {
            return Ok(());
        };
        let moment = self.moment();
        match packet {
            Packet::Beat(beat) => {
                if self.host.fleet.is_some() {
                    let off_broker = self.nodes.get(&beat.server).is_some_and(|node| node.off_broker);
                    let path = match off_broker || self.broker_is_down {
                        true => Path::Direct,
                        false => Path::Broker,
                    };
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
            Packet::Claim(claim) => self.host_claimed(claim),
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
        if self.dies(Fault::LedgerDies, None, 1.0) {
            self.tell(|| "the licence service dies before it has stored".to_owned());
            return self.ledger.crash();
        }
        self.ledger.commit(changes, self.bug);
        if changed {
            self.tell(|| format!("the ledger has done {request:?}"));
        }
        if self.dies(Fault::LedgerDies, None, 1.0) {
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
        if self.host.fleet.is_none() || self.host.is_frozen(self.outcome.ticks) {
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

    /// Counts what a person asked for, if it was done: not refused, and no host died over it.
    pub(crate) fn count_if_done(
        &mut self,
        fault: Fault,
        phases: &[Phase],
        answer: &Answer<OrchestratorReply>,
    ) {
        if answer.is_ok() && self.host.fleet.is_some() {
            self.count(fault, phases);
        }
    }

    /// Asks the orchestrator; what it refuses changes nothing.
    pub(crate) fn ask(&mut self, request: OrchestratorRequest) -> Answer<OrchestratorReply> {
        let moment = self.moment();
        let fresh = self.fresh();
        let answers = !self.host.is_frozen(self.outcome.ticks);
        let Some(fleet) = self.host.fleet.as_mut().filter(|_| answers) else {
            return Err(Problem::unavailable("the host is down"));
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
        if !effects.is_empty() && self.dies(Fault::HostDies, None, 1.0) {
            self.crash_host("before it has stored");
            return Ok(());
        }
        self.check_begun(&effects)?;
        for request in self.host.commit(effects, self.bug) {
            self.send_within_host(Packet::License(request));
        }
        self.watch.note_failovers(&self.host.records);
        self.check_completed()?;
        self.follow_replacements();
        while let Some(outgoing) = self.host.outbox.front().cloned() {
            if self.dies(Fault::HostDies, None, 1.0) {
                self.crash_host("before it has sent");
                return Ok(());
            }
            self.host_sends(outgoing)?;
            if self.dies(Fault::HostDies, None, 1.0) {
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
        let to_server = packet.receiver().is_some();
        let lost = |node: &Node| {
            let one_way = if to_server { node.deaf } else { node.mute };
            node.cut_off || one_way || node.off_broker && !matches!(packet, Packet::Beat(_))
        };
        if self.nodes.get(server).is_some_and(lost) {
            return;
        }
        self.send_within_host(packet);
    }

    pub(crate) fn send_within_host(&mut self, packet: Packet) {
        let weather = match self.faulty && !self.schedule.calm {
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
        if let Some(until) = self
            .broker_stands_still()
            .filter(|_| !matches!(packet, Packet::Beat(_)))
        {
            let acting = self.acting.as_ref();
            if acting.is_some_and(|acting| self.outcome.ticks >= acting.broker_back) {
                let ticks = u32::try_from(until - self.outcome.ticks).unwrap_or(u32::MAX);
                self.network.hold(packet, self.now + TICK * ticks);
            }
            return;
        }
        self.keep_for_later(&packet);
        for fault in self.network.send(&packet, weather, self.now, &mut self.rng) {
            self.visit_packet(fault, &packet);
        }
    }

    /// Some packets come back much later. Heartbeats and requests don't: the broker throws them away when they are
    /// old.
    fn keep_for_later(&mut self, packet: &Packet) {
        let expires = matches!(packet, Packet::Beat(_)) || packet.is_about_licences();
        if expires || !self.faulty {
            return;
        }
        if let Some(rng) = self.later.as_mut().filter(|_| self.old.len() < 40)
            && rng.gen_bool(0.02)
        {
            self.old.push(packet.clone());
        }
    }

    pub(crate) fn chance(&mut self, probability: f64) -> bool {
        self.rng.gen_bool(probability)
    }

    /// Whether a process dies just here; `weight` makes it rarer.
    pub(crate) fn dies(&mut self, fault: Fault, whose: Option<&ServerId>, weight: f64) -> bool {
        self.faulty
            && self.scene.crash > 0.0
            && self.rng.gen_bool(self.scene.crash * weight)
            && self.strikes(fault, whose)
    }

    /// A fault is about to strike a server, or everybody: answers whether the schedule lets it.
    pub(crate) fn strikes(&mut self, fault: Fault, whose: Option<&ServerId>) -> bool {
        let strikes = self.lets_strike();
        if strikes && self.has_effect(fault, whose) {
            self.visit(fault, whose);
        }
        strikes
    }

    /// The same where it is seen only later whom it strikes, if anybody.
    pub(crate) fn lets_strike(&mut self) -> bool {
        let number = self.struck;
        self.struck += 1;
        !self.schedule.without.contains(&number)
    }

    /// Whether a fault changes anything: nobody dies twice.
    fn has_effect(&self, fault: Fault, whose: Option<&ServerId>) -> bool {
        match fault {
            Fault::HostCrash | Fault::HostFrozen | Fault::MonitorRestart => self.host.fleet.is_some(),
            Fault::LedgerDown => self.ledger.is_up(),
            Fault::Restored => self.host.backup.is_some(),
            _ => whose
                .and_then(|id| self.nodes.get(id))
                .is_none_or(|node| node.is_changed_by(fault)),
        }
    }

    /// Counts a fault in the phase of each failover that it may touch.
    pub(crate) fn visit(&mut self, fault: Fault, whose: Option<&ServerId>) {
        let phases = self.phases_where(|failover| whose.is_none_or(|server| takes_part(failover, server)));
        self.count(fault, &phases);
    }

    /// Counts what happened to a packet.
    pub(crate) fn visit_packet(&mut self, fault: Fault, packet: &Packet) {
        let phases = self.phases_where(|failover| packet.concerns(failover));
        self.count(fault, &phases);
    }

    /// The phases of those failovers that are not over and done with.
    pub(crate) fn phases_where(&self, is_concerned: impl Fn(&Failover) -> bool) -> Vec<Phase> {
        failovers(&self.host.records)
            .filter(|failover| !failover.is_settled() && is_concerned(failover))
            .map(|failover| failover.phase)
            .collect()
    }

    /// Counts a fault that has struck.
    pub(crate) fn count(&mut self, fault: Fault, phases: &[Phase]) {
        for phase in phases {
            self.outcome.visits.visit(fault, *phase);
        }
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

    /// What the host's clocks say.
    pub(crate) fn moment(&self) -> Moment {
        self.moment_of(self.host_rate, 0)
    }

    /// What a server's clocks say.
    pub(crate) fn node_moment(&self, id: &ServerId) -> Moment {
        let node = &self.nodes[id];
        self.moment_of(node.rate, node.wall_offset)
    }

    fn moment_of(&self, rate: f64, offset: i64) -> Moment {
        let millis = i64::try_from(self.now.as_millis()).expect("no schedule takes that long");
        Moment {
            monotonic: Monotonic(self.now.mul_f64(rate)),
            wall: Timestamp(1_700_000_000_000 + millis + offset),
        }
    }
}
