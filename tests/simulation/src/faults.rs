//! What goes wrong, what people do meanwhile, and how everything is mended in the end.

use std::collections::BTreeMap;

use rand::{
    Rng,
    rngs::StdRng,
    seq::{IteratorRandom, SliceRandom},
};
use understudy_core::{
    contract::{
        api::{CameraEdit, Phase, StartMode},
        heartbeat::{Storage, StorageState},
        rpc::{Answer, OrchestratorReply as Reply, OrchestratorRequest as Request},
    },
    fleet::{Input, Record, RecordKey},
    ids::{FailoverId, ServerId},
};

use crate::{
    acting::Acting,
    bug::Bug,
    node::Node,
    operator::confirmed,
    scene::{self, camera},
    visits::Fault,
    world::{World, takes_part},
};

/// Ticks within which each server of a domain has connected again when the line is back: 5 s.
const CONNECTING_TICKS: u32 = 25;
/// Ticks for which the servers of a domain are not missed after all of them are back.
const AFTERWARDS: u64 = 5;

/// The line to a whole domain is cut.
#[derive(Clone, Debug)]
pub(crate) struct Outage {
    /// When each server is reached again.
    back: BTreeMap<ServerId, u64>,
}

impl World {
    /// At most one new fault; and what is down may come up again.
    pub(crate) fn throw_fault(&mut self) {
        self.bring_up_some();
        self.throw_later_fault();
        if !self.chance(self.scene.faults) {
            return;
        }
        let ids = self.node_ids();
        let id = ids.choose(&mut self.rng).expect("there are servers").clone();
        let fault = match self.rng.gen_range(0..12) {
            0 | 1 => Fault::PowerCut,
            2 => Fault::ServiceCrash,
            3 => Fault::HostCrash,
            4 => Fault::LedgerDown,
            5 => Fault::CutOff,
            6 => Fault::VolumeDegraded,
            7 | 8 => Fault::Start,
            9 => Fault::Stop,
            10 => Fault::StopRestoration,
            _ => Fault::Edit,
        };
        self.throw(fault, &id);
    }

    fn throw(&mut self, fault: Fault, id: &ServerId) {
        match fault {
            // People and the host's processes are about everybody; who asks for what is seen where it is asked.
            Fault::Start | Fault::Stop | Fault::StopRestoration | Fault::Edit => {}
            Fault::HostCrash | Fault::LedgerDown if !self.strikes(fault, None) => return,
            Fault::HostCrash | Fault::LedgerDown => {}
            _ if !self.strikes(fault, Some(id)) => return,
            _ => {}
        }
        match fault {
            Fault::PowerCut => self.power_off(id),
            Fault::ServiceCrash => self.crash_node(id, "for no reason"),
            Fault::HostCrash => self.crash_host("for no reason"),
            Fault::LedgerDown => self.ledger.crash(),
            Fault::CutOff => self.cut_off(id, true),
            Fault::VolumeDegraded => self.damage_volume(id),
            Fault::Start => self.start_by_hand(),
            Fault::Stop => self.stop_by_hand(),
            Fault::StopRestoration => self.stop_a_restoration(),
            _ => self.edit(),
        }
    }

    /// The line to a domain may be cut; while it is, nothing else changes about it.
    pub(crate) fn go_on_with_outage(&mut self, rng: &mut StdRng) {
        match self.outage.take() {
            Some(outage) => self.go_on_with(outage),
            None if self.is_calm() && rng.gen_bool(0.02) => self.cut_off_a_domain(rng),
            None => {}
        }
    }

    /// Whether no weather could make one server silent for longer than another.
    fn is_calm(&self) -> bool {
        self.scene.loss == 0.0 && self.scene.delay_ms < 100
    }

    /// The line to a domain is cut: nothing is wrong with those of its servers that were well before.
    fn cut_off_a_domain(&mut self, rng: &mut StdRng) {
        let domain = self
            .nodes
            .values()
            .choose(rng)
            .expect("there are servers")
            .domain
            .clone();
        let failed_over = |id: &ServerId| {
            let fleet = self.host.fleet.as_ref();
            fleet.is_none_or(|fleet| {
                fleet
                    .failovers()
                    .any(|failover| failover.server == *id && !failover.is_settled())
            })
        };
        let there: Vec<&Node> = self.nodes.values().filter(|node| node.domain == domain).collect();
        let well = there.iter().filter(|node| node.well_ticks > 2);
        let well: Vec<ServerId> = well.map(|node| node.id.clone()).collect();
        if well.len() < 2 {
            return;
        }
        let until = self.outcome.ticks + u64::from(rng.gen_range(5..60_u32));
        let back = there.iter().map(|node| {
            (
                node.id.clone(),
                until + u64::from(rng.gen_range(0..CONNECTING_TICKS)),
            )
        });
        let outage = Outage { back: back.collect() };
        let not_failed_over = well.into_iter().filter(|id| !failed_over(id)).collect();
        if !self.lets_strike() {
            return;
        }
        let servers = || outage.back.keys();
        let phases = self.phases_where(|failover| servers().any(|id| takes_part(failover, id)));
        self.count(Fault::DomainCutOff, &phases);
        self.watch.cut_off = not_failed_over;
        self.tell(|| format!("the line to {domain} is cut"));
        self.outcome.outages += 1;
        self.go_on_with(outage);
    }

    fn go_on_with(&mut self, outage: Outage) {
        let now = self.outcome.ticks;
        for (id, back) in &outage.back {
            let node = self.nodes.get_mut(id).expect("it is there");
            // Whatever happens to it by itself meanwhile is a reason of its own.
            if !node.powered || node.process.is_none() {
                self.watch.cut_off.remove(id);
            }
            if now <= *back {
                node.cut_off = now < *back;
            } else if node.cut_off {
                self.watch.cut_off.remove(id);
            }
        }
        if outage.back.values().all(|back| *back + AFTERWARDS < now) {
            self.watch.cut_off.clear();
        } else {
            self.outage = Some(outage);
        }
    }

    pub(crate) fn restart_monitor(&mut self) {
        if !self.strikes(Fault::MonitorRestart, None) {
            return;
        }
        self.tell(|| "the monitor dies and starts again".to_owned());
        let moment = self.moment();
        self.host.start_monitor(moment);
    }

    pub(crate) fn take_off_broker(&mut self, id: &ServerId) {
        if !self.strikes(Fault::OffBroker, Some(id)) {
            return;
        }
        self.tell(|| format!("{id} has no way to the broker any more, and is heard directly"));
        self.nodes.get_mut(id).expect("it is there").off_broker = true;
    }

    fn bring_up_some(&mut self) {
        if self.host.fleet.is_none() && self.chance(0.3) {
            self.start_host();
        }
        if !self.ledger.is_up() && self.chance(0.2) {
            self.ledger.start();
        }
        for id in self.node_ids() {
            let node = &self.nodes[&id];
            let (down, cut_off, sick) = (
                node.process.is_none(),
                node.cut_off,
                node.storage.state != StorageState::Normal,
            );
            if down && self.chance(0.06) {
                self.start_node(&id);
            }
            if cut_off && self.chance(0.1) {
                self.cut_off(&id, false);
            }
            if sick && self.chance(0.1) {
                let node = self.nodes.get_mut(&id).expect("it is there");
                node.storage = Storage::default();
                node.disk_fault = false;
            }
        }
    }

    /// Everything is mended at once.
    pub(crate) fn heal(&mut self) {
        self.outage = None;
        self.watch.cut_off.clear();
        self.host.frozen_until = 0;
        if self.host.fleet.is_none() {
            self.start_host();
        }
        if !self.ledger.is_up() {
            self.ledger.start();
        }
        for id in self.node_ids() {
            let node = self.nodes.get_mut(&id).expect("it is there");
            node.cut_off = false;
            node.off_broker = false;
            node.storage = Storage::default();
            if node.process.is_none() {
                self.start_node(&id);
            }
        }
        self.heal_later();
    }

    /// A failover that waits for a person gets one.
    pub(crate) fn end_what_nobody_ends(&mut self, tick: u32) {
        if tick % 25 != 24 {
            return;
        }
        for server in self.scene.recorders.clone() {
            let _refused = self.ask(Request::StopFailover {
                server,
                by: "operator".to_owned(),
            });
        }
    }

    pub(crate) fn crash_host(&mut self, when: &str) {
        if self.host.fleet.is_some() {
            self.tell(|| format!("the host dies {when}"));
            self.outcome.crashes += 1;
            self.host.crash();
            self.acting.iter_mut().for_each(Acting::host_dies);
        }
    }

    pub(crate) fn start_host(&mut self) {
        self.tell(|| "the host starts".to_owned());
        let moment = self.moment();
        self.host.start(moment);
        self.acting.iter_mut().for_each(Acting::host_starts);
        if let Err(violation) = self.host_input(Input::Started) {
            self.watch.remember(violation);
        }
    }

    pub(crate) fn crash_node(&mut self, id: &ServerId, when: &str) {
        self.tell(|| format!("the recording service of {id} dies {when}"));
        self.outcome.crashes += 1;
        self.nodes.get_mut(id).expect("it is there").crash();
    }

    fn power_off(&mut self, id: &ServerId) {
        self.tell(|| format!("{id} loses its power"));
        self.outcome.crashes += 1;
        let node = self.nodes.get_mut(id).expect("it is there");
        node.crash();
        node.powered = false;
    }

    pub(crate) fn start_node(&mut self, id: &ServerId) {
        let moment = self.node_moment(id);
        let repairs = self.bug != Some(Bug::DropUnclosed);
        self.tell(|| format!("{id} starts"));
        self.nodes
            .get_mut(id)
            .expect("it is there")
            .start(repairs, moment);
        let done = self.actor_starts(id).and_then(|()| self.run_effects(id));
        if let Err(violation) = done {
            self.watch.remember(violation);
        }
    }

    fn cut_off(&mut self, id: &ServerId, cut_off: bool) {
        self.tell(|| format!("{id} {} the network", if cut_off { "leaves" } else { "joins" }));
        self.nodes.get_mut(id).expect("it is there").cut_off = cut_off;
    }

    fn damage_volume(&mut self, id: &ServerId) {
        self.tell(|| format!("the volume of {id} is degraded"));
        self.nodes.get_mut(id).expect("it is there").storage = Storage {
            state: StorageState::Degraded,
            evidence: "a disk is gone".to_owned(),
            full: false,
        };
    }

    fn start_by_hand(&mut self) {
        let server = self.any_recorder();
        let stand_in = self
            .scene
            .stand_ins
            .choose(&mut self.rng)
            .filter(|_| tick_is_odd(self.outcome.ticks))
            .cloned();
        self.person(
            Fault::Start,
            &server.clone(),
            Request::StartFailover {
                server,
                stand_in,
                by: "anna".to_owned(),
                mode: StartMode::Manual,
            },
        );
    }

    fn stop_by_hand(&mut self) {
        let server = self.any_recorder();
        self.person(
            Fault::Stop,
            &server.clone(),
            Request::StopFailover {
                server,
                by: "anna".to_owned(),
            },
        );
    }

    fn stop_a_restoration(&mut self) {
        let running = self.host.fleet.as_ref().and_then(|fleet| {
            fleet
                .failovers()
                .find(|failover| !failover.phase.is_final())
                .map(|failover| (failover.id.clone(), failover.server.clone()))
        });
        if let Some((failover, server)) = running {
            let request = Request::StopRestoration {
                failover: failover.clone(),
                by: "anna".to_owned(),
            };
            // Whether or not the host dies over it: from here on the recordings may be gone.
            self.watch.maybe_drop(&failover);
            let answer = self.ask(request.clone());
            let request = confirmed(&request, &answer).unwrap_or(request);
            self.person(Fault::StopRestoration, &server, request);
        }
    }

    fn edit(&mut self) {
        let server = self.any_recorder();
        if self.bug == Some(Bug::EditDuringFailover) {
            return self.edit_behind_the_back(&server);
        }
        let number = self.rng.gen_range(1..=5);
        let id = camera(&server, number, 0).id;
        let about = server.clone();
        let request = match self.rng.gen_range(0..5) {
            0 => Request::AddCameras(vec![camera(&server, number, 1)]),
            1 => Request::RemoveCamera(id),
            2 => Request::SetPairing {
                pairing: scene::pairing(&self.scene.stand_ins, &mut self.rng),
                server,
            },
            _ => Request::EditCamera {
                camera: id,
                edit: CameraEdit {
                    name: Some(format!("camera {}", self.outcome.ticks)),
                    ..CameraEdit::default()
                },
            },
        };
        let fault = match request {
            Request::SetPairing { .. } => Fault::Pair,
            _ => Fault::Edit,
        };
        self.person(fault, &about, request);
    }

    /// What the host must not let happen: another name for a camera, whatever goes on.
    fn edit_behind_the_back(&mut self, server: &ServerId) {
        let mut camera = camera(server, 1, 0);
        camera.name = format!("camera {}", self.outcome.ticks);
        let key = RecordKey {
            kind: "camera".to_owned(),
            id: camera.id.to_string(),
        };
        self.host.records.insert(key, Record::Camera(camera));
        self.crash_host("and wakes up with other settings");
        self.start_host();
    }

    /// Asks, and notes what of a recording server's own settings changed by it.
    pub(crate) fn ask_about(&mut self, server: &ServerId, request: Request) -> Answer<Reply> {
        let server = &self.scene.who_has_the_place_of(server);
        let failover = self.sets_for_good(server, &request);
        let before = self.settings_of(server);
        let answer = self.ask(request);
        if let Some(failover) = failover.filter(|_| self.settings_of(server) != before) {
            self.watch.sets_for_good(failover, self.settings_of(server));
        }
        answer
    }

    /// The failover of a recording server, if a person who asks for this may change what it restores in the end:
    /// nobody stands in yet, or not any more, or what was changed in a device is to be kept.
    fn sets_for_good(&self, server: &ServerId, request: &Request) -> Option<FailoverId> {
        let fleet = self.host.fleet.as_ref()?;
        let mut failovers = fleet.failovers();
        let failover = failovers.find(|each| each.server == *server && !each.phase.is_final())?;
        let stands_in = matches!(failover.phase, Phase::TakingOver | Phase::Serving);
        let keeps = matches!(request, Request::AnswerOffers { apply: true, .. });
        (keeps || !stands_in).then(|| failover.id.clone())
    }

    fn any_recorder(&mut self) -> ServerId {
        let recorders = &self.scene.recorders;
        recorders[self.rng.gen_range(0..recorders.len())].clone()
    }
}

fn tick_is_odd(tick: u64) -> bool {
    tick % 2 == 1
}
