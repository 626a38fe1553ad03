//! A recording service with real cameras, and a host that only hears and sends what the test says.

// Each test program uses a part of this.
#![allow(dead_code, unreachable_pub)]

use std::{
    collections::BTreeSet,
    future::Future,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::time::Instant;
use understudy_bus::{BrokerConfig, Bus, Message, Queue, Subscription, private_broker::PrivateBroker};
use understudy_core::{
    assignment::{Assignment, Epoch, Films, Role},
    camera::{Camera, RecordingMode, Retention},
    contract::heartbeat::{CameraStatus, SealedBundle, ServerReport},
    ids::{CameraId, DomainId, FailoverId, ServerId},
    policy::Range,
    settings::{Bundle, BundleHash},
};
use understudy_ingest::{IngestConfig, IngestError, Opener};
use understudy_media::archive::{Archive, Filter};
use understudy_runtime::{Process, ServerConfig, seal::FleetKey};
use understudy_simulator::{AuthScheme, Codec, Simulator, SimulatorConfig};

/// Long enough for anything that happens at all, on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub fn server(id: &str) -> ServerId {
    ServerId::new(id).expect("an id")
}

pub fn failover(id: &str) -> FailoverId {
    FailoverId::new(id).expect("an id")
}

pub fn epoch(number: u64) -> Epoch {
    Epoch { term: 1, number }
}

/// Small cameras, so that a test's machine has time for the rest.
pub async fn cameras(count: u32) -> Simulator {
    let config = SimulatorConfig {
        cameras: count,
        listen: "127.0.0.1:0".parse().expect("an address"),
        control: None,
        codec: Codec::H264,
        width: 320,
        height: 240,
        fps: 10,
        gop: 5,
        bitrate: 200,
        audio: false,
        auth: AuthScheme::None,
        user: "admin".to_owned(),
        password: "admin".to_owned(),
        key_frame_on_connect: false,
        max_sessions: None,
        refusal: 453,
        session_timeout: 60,
    };
    Simulator::start(config).await.expect("cameras")
}

/// The settings of recording server `identity` with all of the simulator's cameras.
pub fn bundle(identity: &str, simulator: &Simulator) -> Bundle {
    let camera = |id: &str| Camera {
        id: CameraId::new(id).expect("an id"),
        name: format!("Camera {id}"),
        server: server(identity),
        url: simulator.url(id),
        credentials: None,
        recording: RecordingMode::Continuous,
        retention: Retention::default(),
        priority: 0,
        max_sessions: None,
        transport: understudy_core::camera::Transport::default(),
        enabled: true,
    };
    Bundle {
        identity: server(identity),
        name: "Gate".to_owned(),
        cameras: simulator.cameras().map(camera).collect(),
    }
}

pub fn films(bundle: &Bundle, for_failover: Option<&str>) -> Role {
    Role::Films(Films {
        identity: bundle.identity.clone(),
        settings: bundle.hash(),
        range: Range::Full,
        disabled: BTreeSet::new(),
        failover: for_failover.map(failover),
        restore: None,
        keep: BTreeSet::new(),
    })
}

/// A server's folder with its key; the service can be started on it again and again.
pub struct Rig {
    pub folder: tempfile::TempDir,
    pub key: FleetKey,
    pub config: ServerConfig,
}

impl Rig {
    pub fn new(id: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let fleet_key_file = folder.path().join("fleet.key");
        let key = FleetKey::generate_to(&fleet_key_file).expect("a key");
        let config = ServerConfig {
            id: server(id),
            domain: DomainId::new("east").expect("an id"),
            data: folder.path().join("data"),
            fleet_key_file,
            max_cameras: 8,
        };
        Self { folder, key, config }
    }

    pub fn data(&self) -> PathBuf {
        self.config.data.clone()
    }

    pub fn assignment(&self, number: u64, role: Role) -> Assignment {
        Assignment {
            server: self.config.id.clone(),
            epoch: epoch(number),
            role,
            erase: BTreeSet::new(),
            erase_up_to: Default::default(),
        }
    }

    /// Puts on disk what an earlier run would have left there.
    pub fn left_behind(&self, assignment: &Assignment, bundle: &Bundle) {
        let data = self.data();
        std::fs::create_dir_all(data.join("bundles")).expect("made");
        write(&data.join("assignment.json"), assignment);
        write(
            &data.join(format!("bundles/{}.json", bundle.hash())),
            &self.key.seal(bundle),
        );
    }

    pub fn start(&self, broker: BrokerConfig) -> Running {
        self.start_with(quick(), broker)
    }

    pub fn start_with(&self, config: IngestConfig, broker: BrokerConfig) -> Running {
        let process = Process::for_test("ingest");
        let run = understudy_ingest::run(
            config,
            self.config.clone(),
            broker,
            opener(&self.config),
            process.clone(),
        );
        Running {
            task: tokio::spawn(run),
            process,
        }
    }

    /// The assignment on disk, as text.
    pub fn persisted(&self) -> String {
        std::fs::read_to_string(self.data().join("assignment.json")).expect("there")
    }

    /// Segments that are closed, by a second look at the archive.
    pub async fn segments(&self, filter: Filter) -> Vec<understudy_core::contract::segment::Segment> {
        let archive = Archive::open(self.data().join("archive"), self.config.id.clone()).expect("an archive");
        archive.segments(filter).await.expect("an index")
    }
}

fn write<T: serde::Serialize>(path: &Path, what: &T) {
    std::fs::write(path, serde_json::to_vec(what).expect("JSON")).expect("written");
}

/// Short times, so that a test sees a few of each.
pub fn quick() -> IngestConfig {
    IngestConfig {
        segment_seconds: 2,
        stall_seconds: 2,
        report_interval_seconds: 2,
        retention_interval_seconds: 1,
        relay_listen: "127.0.0.1:0".parse().expect("an address"),
        ..IngestConfig::default()
    }
}

/// A recording service that runs.
pub struct Running {
    pub task: tokio::task::JoinHandle<Result<(), IngestError>>,
    pub process: Process,
}

impl Running {
    /// Ends it in good order.
    pub async fn stop(self) {
        self.process.shutdown().cancel();
        self.task.await.expect("no panic").expect("no error");
    }
}

/// The process that opens settings: the example, which does what the executable's subcommand does.
pub fn opener(config: &ServerConfig) -> Opener {
    let tests = std::env::current_exe().expect("this program");
    let built = tests.ancestors().nth(2).expect("target/<profile>/deps");
    Opener::new(
        built.join("examples/open_bundles"),
        [config.fleet_key_file.clone().into_os_string()],
    )
}

/// A broker that is not there.
pub fn no_broker() -> BrokerConfig {
    BrokerConfig {
        url: "amqp://guest:guest@127.0.0.1:1/%2f".to_owned(),
        ..BrokerConfig::default()
    }
}

/// The other side of the bus.
pub struct Host {
    pub bus: Bus,
    pub process: Process,
    reports: Subscription,
}

impl Host {
    pub async fn start(broker: &PrivateBroker) -> Self {
        let process = Process::for_test("host");
        let bus = Bus::start(&broker.config(), "host", &process).expect("a bus");
        assert!(bus.connected().await);
        let mut reports = bus.subscribe(Queue::heartbeats(&["*.report.*"]));
        reports.consuming().await;
        Self {
            bus,
            process,
            reports,
        }
    }

    pub async fn assign(&self, assignment: &Assignment) {
        self.bus
            .declare_assignment_queue(&assignment.server)
            .await
            .expect("declared");
        self.bus
            .publish(Message::assignment(assignment))
            .await
            .expect("published");
    }

    pub async fn stage(&self, server: &ServerId, sealed: &SealedBundle) {
        self.bus.declare_assignment_queue(server).await.expect("declared");
        self.bus
            .publish(Message::bundle(server, sealed))
            .await
            .expect("published");
    }

    pub async fn next_report(&mut self) -> ServerReport {
        let incoming = tokio::time::timeout(PATIENCE, self.reports.next())
            .await
            .expect("in time");
        incoming.expect("not ended").json().expect("a report")
    }

    pub async fn until(&mut self, what: &str, is: impl Fn(&ServerReport) -> bool) -> ServerReport {
        let give_up = Instant::now() + PATIENCE;
        loop {
            let report = self.next_report().await;
            if is(&report) {
                return report;
            }
            assert!(Instant::now() < give_up, "never {what}; the last was {report:?}");
        }
    }
}

pub fn all_record(report: &ServerReport, count: usize) -> bool {
    report.cameras.len() == count
        && report
            .cameras
            .values()
            .all(|status| *status == CameraStatus::Recording)
}

pub async fn eventually<F: Future<Output = bool>>(what: &str, is: impl Fn() -> F) {
    let give_up = Instant::now() + PATIENCE;
    while !is().await {
        assert!(Instant::now() < give_up, "never {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub fn holds(report: &ServerReport, hash: &BundleHash) -> bool {
    report.bundles.contains(hash)
}
