//! Who takes part in a schedule, by its seed.

use rand::{Rng, rngs::StdRng, seq::IteratorRandom};
use understudy_core::{
    camera::{Camera, RecordingMode, Retention},
    contract::rpc::OrchestratorRequest as Request,
    ids::{CameraId, DomainId, ServerId},
    policy::{Failback, Pairing, Policy, Range},
    server::{Mode, Server},
};

/// Takes part: some recording servers, some failover servers, and how bad the weather is.
#[derive(Clone, Debug)]
pub(crate) struct Scene {
    pub(crate) recorders: Vec<ServerId>,
    pub(crate) stand_ins: Vec<ServerId>,
    pub(crate) requests: Vec<Request>,
    /// Probability that a packet is lost.
    pub(crate) loss: f64,
    /// Probability that a packet comes twice.
    pub(crate) repeat: f64,
    /// Longest delay of a packet, in milliseconds.
    pub(crate) delay_ms: u64,
    /// Probability that a process dies between two effects.
    pub(crate) crash: f64,
    /// Probability of a fault from outside, at each tick.
    pub(crate) faults: f64,
    /// Ticks until the faults stop.
    pub(crate) faulty_ticks: u32,
    /// Whose place was taken for good, by whom, and the scene of before.
    pub(crate) replaced: Vec<(ServerId, ServerId, Box<Scene>)>,
}

pub(crate) fn server_id(text: &str) -> ServerId {
    ServerId::new(text).expect("names of the scene are ids")
}

pub(crate) fn camera(server: &ServerId, number: u32, priority: i32) -> Camera {
    let id = format!("{server}-cam-{number}");
    Camera {
        id: CameraId::new(id.clone()).expect("names of the scene are ids"),
        name: id.clone(),
        server: server.clone(),
        url: format!("rtsp://camera.test/{id}"),
        credentials: None,
        recording: RecordingMode::Continuous,
        retention: Retention::default(),
        priority,
        max_sessions: None,
        transport: understudy_core::camera::Transport::default(),
        enabled: true,
    }
}

impl Scene {
    pub(crate) fn set(rng: &mut StdRng) -> Self {
        let recorders: Vec<ServerId> = (1..=rng.gen_range(1..=3))
            .map(|n| server_id(&format!("recorder-{n}")))
            .collect();
        let stand_ins: Vec<ServerId> = (1..=rng.gen_range(1..=3))
            .map(|n| server_id(&format!("failover-{n}")))
            .collect();
        let mut requests = Vec::new();
        for id in &recorders {
            requests.push(Request::AddServer(server(id, Mode::Recording, 10, rng)));
        }
        for id in &stand_ins {
            let room = rng.gen_range(1..=4);
            requests.push(Request::AddServer(server(id, Mode::Failover, room, rng)));
        }
        for id in &recorders {
            let cameras = (1..=rng.gen_range(1..=3))
                .map(|number| camera(id, number, rng.gen_range(0..3)))
                .collect();
            requests.push(Request::AddCameras(cameras));
            requests.push(Request::SetPairing {
                server: id.clone(),
                pairing: pairing(&stand_ins, rng),
            });
            requests.push(Request::SetPolicy {
                server: id.clone(),
                policy: policy(rng),
            });
        }
        Self {
            recorders,
            stand_ins,
            requests,
            loss: [0.0, 0.05, 0.2][rng.gen_range(0..3)],
            repeat: [0.0, 0.1][rng.gen_range(0..2)],
            delay_ms: [50, 400, 1500][rng.gen_range(0..3)],
            crash: [0.0, 0.002, 0.01][rng.gen_range(0..3)],
            faults: [0.04, 0.1, 0.2][rng.gen_range(0..3)],
            faulty_ticks: rng.gen_range(60..160),
            replaced: Vec::new(),
        }
    }
}

impl Scene {
    /// A recording server without cameras is there, too.
    pub(crate) fn add_spare(&mut self, rng: &mut StdRng) {
        let id = server_id("spare-1");
        self.requests
            .push(Request::AddServer(server(&id, Mode::Recording, 10, rng)));
        self.recorders.push(id);
    }

    /// Any recording server.
    pub(crate) fn some_recorder(&self, rng: &mut StdRng) -> ServerId {
        let recorders = self.recorders.iter();
        recorders.choose(rng).expect("there is one").clone()
    }

    /// Whether somebody has taken a server's place for good.
    pub(crate) fn is_gone(&self, id: &ServerId) -> bool {
        self.replaced.iter().any(|(original, ..)| original == id)
    }

    /// Who has a server's place now: itself, or whoever took it for good, one after the other.
    pub(crate) fn who_has_the_place_of(&self, id: &ServerId) -> ServerId {
        let taken = self.replaced.iter().fold(
            id,
            |now, (original, successor, _)| {
                if original == now { successor } else { now }
            },
        );
        taken.clone()
    }

    /// Somebody has taken a recording server's place.
    pub(crate) fn replace(&mut self, original: &ServerId, successor: &ServerId) {
        let before = Box::new(self.clone());
        self.recorders.retain(|id| id != original && id != successor);
        self.recorders.push(successor.clone());
        self.stand_ins.retain(|id| id != successor);
        let name = self.requests.iter().find_map(|request| match request {
            Request::AddServer(server) if server.id == *original => Some(server.name.clone()),
            _ => None,
        });
        self.requests.retain(|request| match request {
            Request::AddServer(server) => server.id != *original,
            Request::SetPairing { server, .. } | Request::SetPolicy { server, .. } => server != successor,
            _ => true,
        });
        for request in &mut self.requests {
            match request {
                Request::AddServer(server) if server.id == *successor => {
                    server.mode = Mode::Recording;
                    server.name = name.clone().unwrap_or_default();
                }
                Request::AddCameras(cameras) => {
                    let own = cameras.iter_mut().filter(|camera| camera.server == *original);
                    own.for_each(|camera| camera.server.clone_from(successor));
                }
                Request::SetPairing { server, pairing } => {
                    if let Pairing::Servers(chosen) = pairing {
                        chosen.remove(successor);
                    }
                    if server == original {
                        server.clone_from(successor);
                    }
                }
                Request::SetPolicy { server, .. } if server == original => server.clone_from(successor),
                _ => {}
            }
        }
        self.replaced.push((original.clone(), successor.clone(), before));
    }

    /// A restored host knows nothing of the last replacement.
    pub(crate) fn undo_replacement(&mut self) {
        if let Some((.., before)) = self.replaced.pop() {
            *self = *before;
        }
    }
}

fn server(id: &ServerId, mode: Mode, max_cameras: u32, rng: &mut StdRng) -> Server {
    Server {
        id: id.clone(),
        name: id.to_string(),
        domain: DomainId::new(["east", "west"][rng.gen_range(0..2)]).expect("these are ids"),
        mode,
        max_cameras,
        sync_address: format!("http://{id}.test"),
        enabled: true,
    }
}

pub(crate) fn pairing(stand_ins: &[ServerId], rng: &mut StdRng) -> Pairing {
    if rng.gen_bool(0.5) {
        return Pairing::All;
    }
    let chosen = stand_ins.iter().filter(|_| rng.gen_bool(0.7));
    Pairing::Servers(chosen.cloned().collect())
}

pub(crate) fn policy(rng: &mut StdRng) -> Policy {
    let automatic = rng.gen_bool(0.8);
    let disconnection_ms = [1000, 2000][rng.gen_range(0..2)];
    Policy {
        automatic,
        on_disconnection: true,
        disconnection_ms,
        // As good as chance, and no seed plays another schedule for it.
        full_is_damage: disconnection_ms == 1000,
        on_storage: rng.gen_bool(0.5),
        on_package: rng.gen_bool(0.5),
        stop_automatically: rng.gen_bool(0.7),
        range: if rng.gen_bool(0.9) {
            Range::Full
        } else {
            Range::LiveOnly
        },
        failback: if rng.gen_bool(0.8) {
            Failback::Keep
        } else {
            Failback::Remove
        },
    }
}
