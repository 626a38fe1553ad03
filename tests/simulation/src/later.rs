//! Faults that came after the first version: they have dice of their own, so that schedules of before stay as they
//! were.

use std::collections::BTreeMap;

use rand::{Rng, rngs::StdRng, seq::IteratorRandom};
use understudy_core::{
    contract::{
        api::{CameraEdit, MaintenanceOrder, Phase, ServerEdit, StartMode},
        heartbeat::{Storage, StorageState},
        rpc::OrchestratorRequest as Request,
    },
    failover::Failover,
    fleet::Record,
    ids::{CameraId, ServerId},
    server,
};

use crate::{
    checks,
    node::Node,
    operator::confirmed,
    scene::{self, camera},
    visits::Fault,
    world::{World, takes_part},
};

/// What is thrown at random; the rest comes about by itself.
const THROWN: &[Fault] = &[
    Fault::MonitorRestart,
    Fault::OffBroker,
    Fault::Frozen,
    Fault::MachineFrozen,
    Fault::HostFrozen,
    Fault::Slow,
    Fault::Mute,
    Fault::Deaf,
    Fault::Apart,
    Fault::NoCameras,
    Fault::BrokerLost,
    Fault::BrokerEmptied,
    Fault::BrokerAlarm,
    Fault::DayOld,
    Fault::ClockJump,
    Fault::DiskFault,
    Fault::DiskFull,
    Fault::DamagedFile,
    Fault::DamagedAssignment,
    Fault::DamagedBundle,
    Fault::Restored,
    Fault::Cloned,
    Fault::Switch,
    Fault::SetPolicy,
    Fault::Remove,
    Fault::Drain,
    Fault::Device,
    Fault::Mode,
    Fault::Maintain,
];

impl World {
    /// At most one more fault; and some of what is wrong rights itself.
    pub(crate) fn throw_later_fault(&mut self) {
        let Some(mut rng) = self.later.take() else { return };
        self.right_itself(&mut rng);
        if rng.gen_bool(self.scene.faults / 2.0) {
            let id = self
                .nodes
                .keys()
                .choose(&mut rng)
                .expect("there are servers")
                .clone();
            let fault = THROWN[rng.gen_range(0..THROWN.len())];
            self.throw_later(fault, &id, &mut rng);
        }
        self.answer_offers(&mut rng);
        self.replace_for_good();
        self.operate();
        self.go_on_with_late_word();
        self.go_on_with_outage(&mut rng);
        if rng.gen_bool(0.03) {
            self.host.backup = Some(self.host.back_up(&self.ledger));
        }
        self.later = Some(rng);
    }

    fn right_itself(&mut self, rng: &mut StdRng) {
        let mut full = self.full_volumes();
        for node in self.nodes.values_mut() {
            for wrong in [
                &mut node.off_broker,
                &mut node.mute,
                &mut node.deaf,
                &mut node.no_cameras,
                &mut node.disk_full,
            ] {
                *wrong = *wrong && !rng.gen_bool(0.05);
            }
            if node.disk_fault && rng.gen_bool(0.05) {
                node.disk_fault = false;
                node.storage = Storage::default();
            }
        }
        full.retain(|id| !self.nodes[id].disk_full);
        for id in full {
            self.make_room(&id);
        }
        self.apart.retain(|_| !rng.gen_bool(0.05));
        let drifts = |node: &&Node| (node.rate - self.host_rate).abs() > 0.05;
        let drifting = self.nodes.values().filter(drifts).choose(rng);
        let drifting = drifting.map(|node| node.id.clone());
        if let Some(id) = drifting.filter(|_| rng.gen_bool(0.05)) {
            self.visit(Fault::ClockDrift, Some(&id));
        }
    }

    fn full_volumes(&self) -> Vec<ServerId> {
        let full = self.nodes.values().filter(|node| node.disk_full);
        full.map(|node| node.id.clone()).collect()
    }

    /// A volume is full no more because retention took a recording.
    fn make_room(&mut self, id: &ServerId) {
        let node = self.nodes.get_mut(id).expect("it is there");
        let Some(gone) = node.make_room() else { return };
        self.watch.made_room(&gone);
        self.visit(Fault::MakesRoom, Some(id));
        self.tell(|| format!("{id} is full: retention takes recording {}", gone.number));
    }

    fn throw_later(&mut self, fault: Fault, id: &ServerId, rng: &mut StdRng) {
        use Fault::{
            BrokerAlarm, BrokerEmptied, BrokerLost, DamagedFile, DayOld, Device, Drain, HostFrozen, Maintain,
            Mode, MonitorRestart, OffBroker, Remove, Restored, SetPolicy, Switch,
        };
        match fault {
            // These say themselves whom they strike.
            MonitorRestart => return self.restart_monitor(),
            OffBroker => return self.take_off_broker(id),
            DamagedFile => return self.damage_file(rng),
            Switch => return self.switch_camera(rng),
            SetPolicy => return self.set_policy(rng),
            Remove => return self.remove_server(id),
            Drain => return self.drain(rng),
            Device => return self.change_device(rng),
            Mode => return self.switch_mode(rng),
            Maintain => return self.maintain(id, rng),
            // What they do, and to whom, is seen where they do it.
            DayOld | Fault::Apart if !self.lets_strike() => return,
            HostFrozen | BrokerLost | BrokerEmptied | BrokerAlarm | Restored
                if !self.strikes(fault, None) =>
            {
                return;
            }
            HostFrozen | BrokerLost | BrokerEmptied | BrokerAlarm | DayOld | Restored | Fault::Apart => {}
            _ if !self.strikes(fault, Some(id)) => return,
            _ => {}
        }
        self.tell(|| match fault {
            HostFrozen | BrokerLost | BrokerEmptied | BrokerAlarm | DayOld | Restored => {
                fault.words().to_owned()
            }
            _ => format!("{id}: {}", fault.words()),
        });
        match fault {
            HostFrozen => self.host.frozen_until = self.outcome.ticks + rng.gen_range(15..50),
            BrokerLost | BrokerEmptied | BrokerAlarm => self.break_broker(fault, rng),
            DayOld => self.deliver_old(rng),
            Restored => self.restore_backup(),
            Fault::Apart => {
                let other = self.nodes.keys().choose(rng).expect("there are servers").clone();
                self.cut_apart(id, other);
            }
            Fault::Cloned => {
                if let Err(violation) = self.clone_server(id) {
                    self.watch.remember(violation);
                }
            }
            _ => self.strike_node(fault, id, rng),
        }
    }

    fn cut_apart(&mut self, one: &ServerId, other: ServerId) {
        // Nobody is cut off from himself.
        let both = |failover: &Failover| takes_part(failover, one) && takes_part(failover, &other);
        let phases = self.phases_where(|failover| *one != other && both(failover));
        self.count(Fault::Apart, &phases);
        self.apart.insert((one.clone(), other.clone()));
        self.apart.insert((other, one.clone()));
    }

    fn strike_node(&mut self, fault: Fault, id: &ServerId, rng: &mut StdRng) {
        let tick = self.outcome.ticks;
        let node = self.nodes.get_mut(id).expect("it is there");
        // Whatever is wrong with it by itself is a reason of its own.
        self.watch.cut_off.remove(id);
        node.well_ticks = 0;
        match fault {
            Fault::Frozen | Fault::MachineFrozen => {
                node.frozen_until = tick + rng.gen_range(15..60);
                node.machine_frozen = fault == Fault::MachineFrozen;
            }
            Fault::Slow => node.slow_until = tick + rng.gen_range(20..100),
            Fault::Mute => node.mute = true,
            Fault::Deaf => node.deaf = true,
            Fault::NoCameras => node.no_cameras = true,
            Fault::ClockJump => node.wall_offset = rng.gen_range(-86_400_000..86_400_000),
            Fault::DiskFault => {
                node.disk_fault = true;
                node.storage = Storage {
                    state: StorageState::Damaged,
                    evidence: "a probe was not written".to_owned(),
                    full: false,
                };
            }
            Fault::DiskFull => node.disk_full = true,
            Fault::DamagedAssignment => {
                node.disk.assignment = None;
                // It knows no better than it says: what it reached, it has forgotten.
                self.watch.forgets(id);
                self.crash_node(id, "with an assignment that can't be read");
            }
            _ => {
                node.disk.bundles.clear();
                self.crash_node(id, "with settings that can't be read");
            }
        }
    }

    fn break_broker(&mut self, fault: Fault, rng: &mut StdRng) {
        let until = self.outcome.ticks + rng.gen_range(5..40);
        let Some(acting) = self.acting.as_mut() else {
            return;
        };
        let why = if fault == Fault::BrokerAlarm {
            acting.blocked_until = until;
            "it is blocked"
        } else {
            acting.broker_back = until;
            acting.broker.lose(fault == Fault::BrokerLost);
            self.network.broker_is_lost(fault == Fault::BrokerLost);
            "it is gone"
        };
        self.set_broker(Some(why.to_owned()));
    }

    /// A packet that had its time long ago.
    fn deliver_old(&mut self, rng: &mut StdRng) {
        if let Some(packet) = self.old.iter().choose(rng).cloned() {
            self.tell(|| format!("of long ago: {packet:?}"));
            self.visit_packet(Fault::DayOld, &packet);
            self.network.deliver_now(packet, self.now);
        }
    }

    /// The host's database, the ledger's with it, is that of before.
    pub(crate) fn restore_backup(&mut self) {
        let Some(backup) = self.host.backup.clone() else {
            return;
        };
        self.crash_host("and is restored from a backup");
        self.ledger.crash();
        self.network.requests_expire();
        self.ledger.restore(&backup);
        let mut filming = checks::filming_parts(&self.host.records);
        let names_no_beginnings = |id: &ServerId| self.nodes.get(id).is_some_and(|node| node.old_version);
        let receivers: BTreeMap<_, _> = checks::failovers(&self.host.records)
            .map(|failover| (failover.id.clone(), names_no_beginnings(&failover.server)))
            .collect();
        filming.retain(|(failover, stand_in)| names_no_beginnings(stand_in) || receivers[failover]);
        self.host.restore(backup);
        self.watch.began_again(filming, &self.host.records);
        self.watch.restored(self.host.newest_epoch(), &self.host.records);
        self.follow_replacements();
        self.start_host();
        self.ledger.start();
    }

    fn damage_file(&mut self, rng: &mut StdRng) {
        let recorded = self.nodes.values().flat_map(|node| {
            let files = node.disk.archive.values();
            files
                .filter(|file| file.closed && file.failover.is_some() && node.is_stand_in)
                .map(|file| (node.id.clone(), file.number))
        });
        let Some((id, number)) = recorded.choose(rng) else {
            return;
        };
        if self.strikes(Fault::DamagedFile, Some(&id)) {
            self.tell(|| format!("recording {number} on {id} can't be read any more"));
            let node = self.nodes.get_mut(&id).expect("it is there");
            node.disk.archive.get_mut(&number).expect("it is there").damaged = true;
        }
    }

    /// A camera that a person sees to: of a server that takes another's place, while that lasts, or of any.
    fn some_camera(&self, rng: &mut StdRng) -> (ServerId, CameraId) {
        let mut failovers = checks::failovers(&self.host.records);
        let replacing = failovers.find(|failover| failover.phase == Phase::Replacing);
        let known = replacing.and_then(|failover| {
            let cameras = self.host.records.values().filter_map(|record| match record {
                Record::Camera(camera) if camera.server == failover.server => Some(camera.id.clone()),
                _ => None,
            });
            Some((failover.server.clone(), cameras.choose(rng)?))
        });
        known.unwrap_or_else(|| {
            let server = self.scene.some_recorder(rng);
            let id = camera(&server, rng.gen_range(1..=3), 0).id;
            (server, id)
        })
    }

    fn switch_camera(&mut self, rng: &mut StdRng) {
        let (server, camera) = self.some_camera(rng);
        let request = Request::EditCamera {
            camera,
            edit: CameraEdit {
                enabled: Some(rng.gen_bool(0.5)),
                ..CameraEdit::default()
            },
        };
        self.person(Fault::Switch, &server, request);
    }

    fn set_policy(&mut self, rng: &mut StdRng) {
        let server = self.scene.some_recorder(rng);
        let request = Request::SetPolicy {
            server: server.clone(),
            policy: scene::policy(rng),
        };
        self.person(Fault::SetPolicy, &server, request);
    }

    /// A person switches over as planned, and whatever is lost by it is fine.
    fn drain(&mut self, rng: &mut StdRng) {
        let server = self.scene.some_recorder(rng);
        let request = Request::StartFailover {
            server: server.clone(),
            stand_in: None,
            by: "anna".to_owned(),
            mode: StartMode::Planned,
        };
        self.person(Fault::Drain, &server, request);
    }

    /// A camera has another address, and a person says so.
    fn change_device(&mut self, rng: &mut StdRng) {
        let (server, camera) = self.some_camera(rng);
        let request = Request::EditCamera {
            camera,
            edit: CameraEdit {
                url: Some(format!("rtsp://camera.test/moved-{}", self.outcome.ticks)),
                ..CameraEdit::default()
            },
        };
        self.person(Fault::Device, &server, request);
    }

    /// A person says that what happens to a server is meant, or not any more; its end may come at any time.
    fn maintain(&mut self, id: &ServerId, rng: &mut StdRng) {
        let by = "anna".to_owned();
        let server = id.clone();
        let request = match rng.gen_bool(0.3) {
            true => Request::EndMaintenance { server, by },
            false => Request::BeginMaintenance {
                server,
                order: MaintenanceOrder {
                    until: None,
                    for_ms: Some(rng.gen_range(1_000..40_000)),
                    why: "a new disk".to_owned(),
                },
                by,
            },
        };
        self.person(Fault::Maintain, id, request);
    }

    /// A person takes a failover server out and puts it back in, whatever that interrupts and erases.
    fn switch_mode(&mut self, rng: &mut StdRng) {
        let stand_ins = self.scene.stand_ins.iter();
        // All of them may have taken somebody's place.
        let Some(server) = stand_ins.choose(rng).cloned() else {
            return;
        };
        if !self.lets_strike() {
            return;
        }
        let phases = self.phases_where(|failover| takes_part(failover, &server));
        for mode in [server::Mode::Inactive, server::Mode::Failover] {
            let request = Request::EditServer {
                server: server.clone(),
                edit: ServerEdit {
                    mode: Some(mode),
                    ..ServerEdit::default()
                },
            };
            let mut answer = self.ask(request.clone());
            if let Some(confirmed) = confirmed(&request, &answer) {
                // Whether or not the host dies over it: from here on the recordings may be gone.
                self.watch.removed(&server);
                for failover in checks::failovers(&self.host.records) {
                    if !failover.is_settled() && failover.holding(&server).is_some() {
                        self.watch.maybe_drop(&failover.id);
                    }
                }
                answer = self.ask(confirmed);
            }
            if mode == server::Mode::Inactive {
                self.count_if_done(Fault::Mode, &phases, &answer);
            }
            self.tell(|| match answer {
                Ok(_) => format!("a person makes {server} {mode:?}"),
                Err(problem) => format!("a person makes {server} {mode:?}, in vain: {}", problem.detail),
            });
        }
    }

    /// A person says whether what was changed in devices during a failover is to be kept; perhaps long after it.
    fn answer_offers(&mut self, rng: &mut StdRng) {
        let failovers = self.host.fleet.iter().flat_map(|fleet| fleet.failovers());
        let offering = failovers.filter(|failover| failover.overlay.open_offers().next().is_some());
        // A replacement is soon over, and so is the chance.
        let offering = offering.map(|failover| {
            let hurry = if failover.phase == Phase::Replacing {
                0.5
            } else {
                0.05
            };
            (failover.id.clone(), failover.server.clone(), hurry)
        });
        let offered = offering.choose(rng);
        if let Some((failover, server, _)) = offered.filter(|(.., hurry)| rng.gen_bool(*hurry)) {
            let request = Request::AnswerOffers {
                failover,
                cameras: Vec::new(),
                apply: rng.gen_bool(0.5),
                by: "anna".to_owned(),
            };
            self.person(Fault::Offer, &server, request);
        }
    }

    /// A person removes a server, and then thinks better of it.
    fn remove_server(&mut self, id: &ServerId) {
        self.person(Fault::Remove, id, Request::RemoveServer(id.clone()));
        if !self.host.knows(id) {
            self.watch.removed(id);
        }
        self.enrol_all();
    }

    /// Whoever was removed is added again, with what it had at first.
    pub(crate) fn enrol_all(&mut self) {
        for request in self.scene.requests.clone() {
            let about = match &request {
                Request::AddCameras(cameras) => cameras.first().map(|camera| camera.server.clone()),
                _ => None,
            };
            let _known = match about {
                Some(server) => self.ask_about(&server, request),
                None => self.ask(request),
            };
        }
    }

    /// What came later is mended, too.
    pub(crate) fn heal_later(&mut self) {
        self.apart.clear();
        self.host.frozen_until = 0;
        for node in self.nodes.values_mut() {
            node.frozen_until = 0;
            node.slow_until = 0;
            node.mute = false;
            node.deaf = false;
            node.no_cameras = false;
            node.disk_fault = false;
            node.disk_full = false;
        }
        if let Some(acting) = self.acting.as_mut() {
            acting.broker_back = 0;
            acting.blocked_until = 0;
        }
        if self.later.is_some() {
            self.enrol_all();
            self.switch_all_on();
        }
    }
}
