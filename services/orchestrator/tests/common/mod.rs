//! A host with a real broker and a real database, and servers that only say what a healthy one would say.

// Each test program uses a part of this.
#![allow(dead_code, unreachable_pub)]

use std::{collections::BTreeSet, path::Path, time::Duration};

use tokio::time::Instant;
use understudy_bus::{BrokerConfig, Bus, Incoming, Message, Queue, Subscription, testing::Broker};
use understudy_core::{
    assignment::{Assignment, Role},
    camera::Camera,
    contract::{
        heartbeat::{CameraStatus, Observation, Paths, SealedBundle, ServerReport},
        names,
        rpc::{Answer, OrchestratorReply, OrchestratorRequest},
    },
    ids::{CameraId, DomainId, Incarnation, ServerId},
    policy::{Pairing, Policy},
    server::{Mode, Server},
    settings::BundleHash,
};
use understudy_orchestrator::OrchestratorConfig;
use understudy_runtime::{HostConfig, Process, seal::FleetKey};

/// Long enough for anything that happens at all, on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);
pub const ORIGINAL: &str = "recorder-1";
pub const STAND_IN: &str = "stand-in-1";
pub const CAMERAS: usize = 90;

pub fn server(id: &str) -> ServerId {
    ServerId::new(id).expect("an id")
}

pub fn domain() -> DomainId {
    DomainId::new("east").expect("an id")
}

fn camera_id(number: usize) -> CameraId {
    CameraId::new(format!("cam-{number:03}")).expect("an id")
}

/// Where a host keeps its things.
pub struct Host {
    pub folder: tempfile::TempDir,
}

impl Host {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        FleetKey::generate_to(&folder.path().join("fleet.key")).expect("a key");
        Self { folder }
    }

    pub fn config(&self) -> (OrchestratorConfig, HostConfig) {
        config_in(self.folder.path())
    }

    /// Starts an orchestrator in this process.
    pub fn orchestrator(&self, broker: &BrokerConfig) -> Process {
        let process = Process::for_test("orchestrator");
        let (config, host) = self.config();
        let (broker, running) = (broker.clone(), process.clone());
        process.spawn("orchestrator", async move {
            let ran = understudy_orchestrator::run(config, host, broker, running).await;
            ran.expect("the orchestrator starts");
        });
        process
    }
}

pub fn config_in(folder: &Path) -> (OrchestratorConfig, HostConfig) {
    let config = OrchestratorConfig {
        fleet_key_file: folder.join("fleet.key"),
    };
    let host = HostConfig {
        data: folder.join("data"),
        domain: domain(),
    };
    (config, host)
}

pub async fn bus(broker: &Broker, name: &str, process: &Process) -> Bus {
    let bus = Bus::start(&broker.config(), name, process).expect("a bus");
    assert!(
        tokio::time::timeout(PATIENCE, bus.connected())
            .await
            .expect("the broker is there")
    );
    bus
}

/// Asks until somebody answers; each request may be sent twice.
pub async fn ask(bus: &Bus, request: OrchestratorRequest) -> Answer<OrchestratorReply> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match bus
            .request(names::ORCHESTRATOR, &request, Duration::from_secs(20))
            .await
        {
            Ok(answer) => return answer,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Enrols a recording server with its cameras, and a failover server.
pub async fn enrol(bus: &Bus, policy: Policy) {
    let enrolled = |id: &str, mode| Server {
        id: server(id),
        name: id.to_owned(),
        domain: domain(),
        mode,
        max_cameras: 100,
        sync_address: "http://127.0.0.1:1".to_owned(),
        enabled: true,
    };
    let camera = |number| Camera {
        id: camera_id(number),
        name: format!("Camera {number}"),
        server: server(ORIGINAL),
        url: format!("rtsp://127.0.0.1:1/cam-{number:03}"),
        credentials: None,
        recording: Default::default(),
        retention: Default::default(),
        priority: 0,
        max_sessions: None,
        transport: understudy_core::camera::Transport::default(),
        enabled: true,
    };
    for request in [
        OrchestratorRequest::AddServer(enrolled(ORIGINAL, Mode::Recording)),
        OrchestratorRequest::AddServer(enrolled(STAND_IN, Mode::Failover)),
        OrchestratorRequest::AddCameras((1..=CAMERAS).map(camera).collect()),
        OrchestratorRequest::SetPairing {
            server: server(ORIGINAL),
            pairing: Pairing::All,
        },
        OrchestratorRequest::SetPolicy {
            server: server(ORIGINAL),
            policy,
        },
    ] {
        ask(bus, request).await.expect("enrolled");
    }
}

pub async fn next(subscription: &mut Subscription) -> Incoming {
    let next = tokio::time::timeout(PATIENCE, subscription.next()).await;
    next.expect("a message arrives").expect("the process runs")
}

/// Waits for the fact of that name.
pub async fn fact(facts: &mut Subscription, name: &str) -> Incoming {
    loop {
        let heard = next(facts).await;
        if heard.kind == name {
            return heard;
        }
    }
}

/// Whether it is an assignment to film for the original.
pub fn films_for_original(incoming: &Incoming) -> bool {
    incoming.kind == names::ASSIGNMENT_TYPE
        && incoming.json::<Assignment>().is_ok_and(|assignment| {
            assignment.role.identity() == Some(&server(ORIGINAL)) && assignment.server == server(STAND_IN)
        })
}

pub fn observation(id: &str, silent_ms: u64) -> Message {
    let heard = silent_ms == 0;
    let seen = Observation {
        server: server(id),
        silent_ms,
        paths: Paths {
            broker: heard,
            direct: heard,
        },
        package: Default::default(),
        storage: Default::default(),
        blind: false,
        farewell: None,
        started: None,
        evidence: Vec::new(),
    };
    Message::observation(&domain(), &seen)
}

/// What one server has and does, and says of it.
pub struct Player {
    id: ServerId,
    incarnation: Incarnation,
    sequence: u64,
    assignment: Option<Assignment>,
    bundles: BTreeSet<BundleHash>,
}

impl Player {
    pub fn new(id: &str) -> Self {
        Self {
            id: server(id),
            incarnation: Incarnation::new(format!("{id}-start-1")).expect("an id"),
            sequence: 0,
            assignment: None,
            bundles: BTreeSet::new(),
        }
    }

    /// Takes what came through its queue.
    pub fn take(&mut self, incoming: &Incoming) {
        if incoming.kind == names::BUNDLE_TYPE {
            let bundle: SealedBundle = incoming.json().expect("a bundle");
            self.bundles.insert(bundle.hash);
            return;
        }
        // It acts on nothing.
        if incoming.kind == names::RIGHT_TYPE {
            return;
        }
        let assignment: Assignment = incoming.json().expect("an assignment");
        if self
            .assignment
            .as_ref()
            .is_none_or(|known| known.epoch < assignment.epoch)
        {
            self.assignment = Some(assignment);
        }
    }

    /// Says how it is: all cameras of its assignment film.
    pub fn report(&mut self) -> Message {
        self.sequence += 1;
        let films = self
            .assignment
            .as_ref()
            .and_then(|assignment| match &assignment.role {
                Role::Films(films) => Some(films.clone()),
                _ => None,
            });
        let cameras = (1..=CAMERAS).map(|number| (camera_id(number), CameraStatus::Recording));
        Message::report(&ServerReport {
            server: self.id.clone(),
            domain: domain(),
            incarnation: self.incarnation.clone(),
            sequence: self.sequence,
            epoch: self.assignment.as_ref().map(|assignment| assignment.epoch),
            identity: films.as_ref().map(|films| films.identity.clone()),
            settings: films.as_ref().map(|films| films.settings.clone()),
            cameras: if films.is_some() {
                cameras.collect()
            } else {
                Default::default()
            },
            closed: BTreeSet::new(),
            open: films.and_then(|films| films.failover).into_iter().collect(),
            bundles: self.bundles.clone(),
            max_cameras: Some(100),
            conflict: Default::default(),
            outlived: Default::default(),
            erased: Default::default(),
            spared: Default::default(),
            relay: Default::default(),
            right_to_act: Default::default(),
            room: Default::default(),
        })
    }

    /// Plays the server, seen by the monitor, until the process ends: does at once what it is assigned to.
    pub fn play(mut self, bus: Bus, process: &Process) {
        let shutdown = process.shutdown();
        process.spawn("player", async move {
            let mut queue = bus.subscribe(Queue::assignments(&self.id));
            let mut beats = tokio::time::interval(Duration::from_millis(300));
            loop {
                tokio::select! {
                    incoming = queue.next() => {
                        let Some(incoming) = incoming else { return };
                        self.take(&incoming);
                        incoming.ack().await;
                    }
                    _ = beats.tick() => {
                        let _broker_away = bus.publish(observation(self.id.as_str(), 0)).await;
                    }
                    () = shutdown.cancelled() => return,
                }
                let _broker_away = bus.publish(self.report()).await;
            }
        });
    }
}

/// Waits until the recording server is protected: its failover server was heard and is free.
pub async fn protected(bus: &Bus) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = ask(bus, OrchestratorRequest::ListServers).await;
        let Ok(OrchestratorReply::Servers(servers)) = answer else {
            panic!("{answer:?}")
        };
        if servers
            .iter()
            .any(|view| view.server.id == server(ORIGINAL) && view.protected)
        {
            return;
        }
        assert!(Instant::now() < deadline, "{servers:#?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
