//! Faults that came after the first version: they have dice of their own, so that schedules of before stay as they
//! were.

use rand::{Rng, rngs::StdRng, seq::IteratorRandom};
use understudy_core::{
    contract::{
        api::CameraEdit,
        heartbeat::{Storage, StorageState},
        rpc::OrchestratorRequest as Request,
    },
    ids::ServerId,
};

use crate::{
    node::Node,
    scene::{self, camera},
    visits::Fault,
    world::World,
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
        self.go_on_with_outage(&mut rng);
        if rng.gen_bool(0.03) {
            self.host.back_up(&self.ledger);
        }
        self.later = Some(rng);
    }

    fn right_itself(&mut self, rng: &mut StdRng) {
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
        self.apart.retain(|_| !rng.gen_bool(0.05));
        let drifts = |node: &&Node| (node.rate - self.host_rate).abs() > 0.05;
        let drifting = self.nodes.values().filter(drifts).choose(rng);
        let drifting = drifting.map(|node| node.id.clone());
        if let Some(id) = drifting.filter(|_| rng.gen_bool(0.05)) {
            self.visit(Fault::ClockDrift, Some(&id));
        }
    }

    fn throw_later(&mut self, fault: Fault, id: &ServerId, rng: &mut StdRng) {
        use Fault::{
            BrokerAlarm, BrokerEmptied, BrokerLost, DamagedFile, DayOld, HostFrozen, MonitorRestart,
            OffBroker, Remove, Restored, SetPolicy, Switch,
        };
        match fault {
            // These say themselves whom they strike.
            MonitorRestart => return self.restart_monitor(),
            OffBroker => return self.take_off_broker(id),
            DamagedFile => return self.damage_file(rng),
            Switch => return self.switch_camera(rng),
            SetPolicy => return self.set_policy(rng),
            Remove => return self.remove_server(id),
            HostFrozen | BrokerLost | BrokerEmptied | BrokerAlarm | DayOld | Restored
                if !self.strikes(fault, None) =>
            {
                return;
            }
            HostFrozen | BrokerLost | BrokerEmptied | BrokerAlarm | DayOld | Restored => {}
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
                self.apart.insert((id.clone(), other.clone()));
                self.apart.insert((other, id.clone()));
            }
            Fault::Cloned => {
                if let Err(violation) = self.clone_server(id) {
                    self.watch.remember(violation);
                }
            }
            _ => self.strike_node(fault, id, rng),
        }
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
            self.network.deliver_now(packet, self.now);
        }
    }

    /// The host's database, the ledger's with it, is that of before.
    fn restore_backup(&mut self) {
        let Some(backup) = self.host.backup.clone() else {
            return;
        };
        self.crash_host("and is restored from a backup");
        self.ledger.crash();
        self.network.requests_expire();
        self.ledger.restore(&backup);
        self.host.restore(backup);
        self.watch.restored(self.host.newest_epoch(), &self.host.records);
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

    fn switch_camera(&mut self, rng: &mut StdRng) {
        let server = self
            .scene
            .recorders
            .iter()
            .choose(rng)
            .expect("there is one")
            .clone();
        let request = Request::EditCamera {
            camera: camera(&server, rng.gen_range(1..=3), 0).id,
            edit: CameraEdit {
                enabled: Some(rng.gen_bool(0.5)),
                ..CameraEdit::default()
            },
        };
        self.person(Fault::Switch, &server, request);
    }

    fn set_policy(&mut self, rng: &mut StdRng) {
        let server = self
            .scene
            .recorders
            .iter()
            .choose(rng)
            .expect("there is one")
            .clone();
        let request = Request::SetPolicy {
            server: server.clone(),
            policy: scene::policy(rng),
        };
        self.person(Fault::SetPolicy, &server, request);
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
            let _known = self.ask(request);
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
        }
    }
}
