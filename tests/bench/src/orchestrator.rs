//! How long the orchestrator takes from what the monitor says to what the failover servers hear, in small fleets and
//! large ones: a real orchestrator and licence service, a real broker, a real database; servers and monitor are a
//! load that speaks as they do.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use futures::{StreamExt as _, future::join_all, stream};
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval, timeout},
};
use understudy_bus::{Bus, Message, Queue, Subscription, private_broker::PrivateBroker};
use understudy_core::{
    assignment::{Assignment, Role},
    camera::{Camera, RecordingMode, Retention},
    contract::{
        heartbeat::{CameraStatus, Observation, Package, Paths, SealedBundle, ServerReport, Storage},
        names,
        rpc::{Answer, OrchestratorReply, OrchestratorRequest},
    },
    ids::{CameraId, DomainId, Incarnation, ServerId},
    policy::{Pairing, Policy},
    server::{Mode, Server},
    settings::BundleHash,
};
use understudy_demo::{ports, process::Process};

/// Of the servers so many are failover servers, in ten.
const FAILOVER_IN_TEN: usize = 3;
/// Cameras for each server of the fleet.
const CAMERAS_PER_SERVER: usize = 20;
/// Failover servers that a recording server is paired with.
const PAIRED: usize = 3;
/// How many fail alone, one after the other.
const ALONE: usize = 2;
/// Of the servers so many fail at once: one in so many.
const AT_ONCE_ONE_IN: usize = 10;
/// The monitor speaks so often of everybody.
const SPEAKS: Duration = Duration::from_secs(1);
/// Messages on their way to the broker at once.
const AT_ONCE: usize = 64;
/// Far longer than anything takes.
const PATIENCE: Duration = Duration::from_secs(180);

/// What was measured with a fleet of one size.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Decided {
    /// Failovers at once.
    pub(crate) failovers: usize,
    /// From the first word of the monitor to the last assignment in the hands of a failover server.
    pub(crate) seconds: f64,
    /// The same for one failover alone; the longest.
    pub(crate) alone_seconds: f64,
    /// From nothing to everybody enrolled, with settings staged.
    pub(crate) enrolled_seconds: f64,
}

/// Measures a fleet of `size` servers in `folder`.
pub(crate) async fn measure(executable: &Path, folder: &Path, size: usize) -> anyhow::Result<Decided> {
    std::fs::create_dir_all(folder)?;
    let mut broker = PrivateBroker::start().await?;
    let [mut orchestrator, mut license] = host(executable, folder, &broker)?;
    orchestrator.start()?;
    license.start()?;
    orchestrator.healthy().await?;
    license.healthy().await?;

    let load = understudy_runtime::Process::for_test("bench");
    let bus = Bus::start(&broker.config(), "bench", &load)?;
    ensure!(bus.connected().await, "no broker");
    let measured = timeout(PATIENCE * 5, decide(&bus, &load, size)).await;
    load.finish().await;
    orchestrator.stop().await;
    license.stop().await;
    broker.stop().await;
    measured.context("it did not end")?
}

fn host(executable: &Path, folder: &Path, broker: &PrivateBroker) -> anyhow::Result<[Process; 2]> {
    let key = folder.join("fleet.key");
    understudy_demo::rig::new_fleet_key(&key)?;
    let config = folder.join("host.toml");
    let mut text = String::new();
    write!(
        text,
        "[broker]\nurl = {:?}\n\n[host]\ndata = {:?}\ndomain = \"bench\"\n\n\
         [orchestrator]\nfleet_key_file = {key:?}\n\n[license]\nlicensing = \"off\"\n",
        broker.url(),
        folder.join("data"),
    )?;
    std::fs::write(&config, text)?;
    let service = |name: &str| -> anyhow::Result<Process> {
        let health = ports::one()?;
        let arguments = [
            name,
            "--die-with-parent",
            "--config",
            &config.display().to_string(),
            "--listen",
            &health.to_string(),
        ];
        let arguments = arguments.map(str::to_owned).to_vec();
        Ok(Process::new(executable, name, arguments, health, folder))
    };
    Ok([service("orchestrator")?, service("license")?])
}

async fn decide(bus: &Bus, load: &understudy_runtime::Process, size: usize) -> anyhow::Result<Decided> {
    let begun = Instant::now();
    let fleet = Arc::new(Fleet::of(size)?);
    let mut takeovers = fleet.play(bus, load).await?;
    fleet.enroll(bus).await?;
    fleet.settle().await?;
    let mut measured = Decided {
        failovers: size / AT_ONCE_ONE_IN,
        enrolled_seconds: begun.elapsed().as_secs_f64(),
        ..Decided::default()
    };
    let mut recording = fleet.recording();
    for _ in 0..ALONE {
        let one = recording.next().context("a server for each")?;
        let seconds = fleet.fail(bus, &[one], &mut takeovers).await?;
        measured.alone_seconds = measured.alone_seconds.max(seconds);
    }
    let many: Vec<ServerId> = recording.take(measured.failovers).collect();
    ensure!(many.len() == measured.failovers, "too few servers");
    measured.seconds = fleet.fail(bus, &many, &mut takeovers).await?;
    Ok(measured)
}

/// The servers that are played.
struct Fleet {
    domain: DomainId,
    servers: Vec<Server>,
    /// By recording server.
    cameras: BTreeMap<ServerId, Vec<Camera>>,
    /// What each has by now.
    states: BTreeMap<ServerId, Mutex<State>>,
    /// For how long each is silent, as the monitor says; 0 while it is heard.
    silent: Mutex<BTreeSet<ServerId>>,
}

#[derive(Default)]
struct State {
    sequence: u64,
    bundles: BTreeSet<BundleHash>,
    assignment: Option<Assignment>,
}

/// What a recording server does for another.
struct Takeover {
    identity: ServerId,
    at: Instant,
}

impl Fleet {
    fn of(size: usize) -> anyhow::Result<Self> {
        let domain = DomainId::new("bench")?;
        let failover = (size * FAILOVER_IN_TEN).div_ceil(10);
        let recording = size - failover;
        let server = |id: String, mode| -> anyhow::Result<Server> {
            Ok(Server {
                id: ServerId::new(&id)?,
                name: id,
                domain: domain.clone(),
                mode,
                max_cameras: 100,
                sync_address: "http://127.0.0.1:1".to_owned(),
                enabled: true,
            })
        };
        let stand_ins = (0..failover).map(|n| server(format!("failover-{n:04}"), Mode::Failover));
        let recorders = (0..recording).map(|n| server(format!("recorder-{n:04}"), Mode::Recording));
        let servers: Vec<Server> = stand_ins.chain(recorders).collect::<Result<_, _>>()?;
        let owners: Vec<ServerId> = servers[failover..]
            .iter()
            .map(|server| server.id.clone())
            .collect();
        let mut cameras: BTreeMap<ServerId, Vec<Camera>> = BTreeMap::new();
        for number in 0..size * CAMERAS_PER_SERVER {
            let owner = &owners[number % owners.len()];
            cameras
                .entry(owner.clone())
                .or_default()
                .push(camera(owner, number)?);
        }
        let states = servers
            .iter()
            .map(|server| (server.id.clone(), Mutex::default()))
            .collect();
        Ok(Self {
            domain,
            servers,
            cameras,
            states,
            silent: Mutex::default(),
        })
    }

    fn recording(&self) -> impl Iterator<Item = ServerId> {
        self.of_mode(Mode::Recording)
            .map(|server| server.id.clone())
            .collect::<Vec<_>>()
            .into_iter()
    }

    fn of_mode(&self, mode: Mode) -> impl Iterator<Item = &Server> {
        self.servers.iter().filter(move |server| server.mode == mode)
    }

    /// Begins to play every server and the monitor. Gives out each takeover at the moment at which it is heard of.
    async fn play(
        self: &Arc<Self>,
        bus: &Bus,
        load: &understudy_runtime::Process,
    ) -> anyhow::Result<mpsc::Receiver<Takeover>> {
        // More than there are failovers.
        let (takeovers, heard) = mpsc::channel(self.servers.len().max(16));
        let subscriptions = self.servers.iter().map(|server| async {
            let mut subscription = bus.subscribe(Queue::assignments(&server.id));
            subscription.consuming().await;
            (server.id.clone(), subscription)
        });
        for (server, subscription) in join_all(subscriptions).await {
            let (fleet, bus, takeovers) = (self.clone(), bus.clone(), takeovers.clone());
            load.spawn("server", async move {
                fleet.serve(&server, subscription, &bus, &takeovers).await;
            });
        }
        let (fleet, monitor, shutdown) = (self.clone(), bus.clone(), load.shutdown());
        load.spawn("monitor", async move {
            let mut ticks = interval(SPEAKS);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    _ = ticks.tick() => fleet.observe_all(&monitor).await,
                }
            }
        });
        Ok(heard)
    }

    /// One server: it does at once what it is told, and says so.
    async fn serve(
        &self,
        server: &ServerId,
        mut subscription: Subscription,
        bus: &Bus,
        takeovers: &mpsc::Sender<Takeover>,
    ) {
        while let Some(incoming) = subscription.next().await {
            let at = Instant::now();
            let mut changed = None;
            if incoming.kind == names::ASSIGNMENT_TYPE
                && let Ok(assignment) = incoming.json::<Assignment>()
            {
                if let Role::Films(films) = &assignment.role
                    && films.identity != *server
                {
                    let identity = films.identity.clone();
                    // Nobody listens any more at the end of the bench.
                    let _ = takeovers.send(Takeover { identity, at }).await;
                }
                changed = self.change(server, |state| state.assignment = Some(assignment));
            } else if let Ok(bundle) = incoming.json::<SealedBundle>() {
                changed = self.change(server, |state| state.bundles.extend([bundle.hash]));
            }
            incoming.ack().await;
            if let Some(report) = changed {
                // As transient as with a real server: the next one replaces it.
                let _ = bus.publish(Message::report(&report)).await;
            }
        }
    }

    /// Changes a server's state; the report of it, unless it is dead.
    fn change(&self, server: &ServerId, change: impl FnOnce(&mut State)) -> Option<ServerReport> {
        let mut state = locked(self.states.get(server)?);
        change(&mut state);
        state.sequence += 1;
        if locked(&self.silent).contains(server) {
            return None;
        }
        let films = state
            .assignment
            .as_ref()
            .and_then(|assignment| match &assignment.role {
                Role::Films(films) => Some(films),
                _ => None,
            });
        let cameras = films.and_then(|films| self.cameras.get(&films.identity));
        Some(ServerReport {
            server: server.clone(),
            domain: self.domain.clone(),
            incarnation: Incarnation::new(format!("{server}-once")).ok()?,
            sequence: state.sequence,
            epoch: state.assignment.as_ref().map(|assignment| assignment.epoch),
            identity: films.map(|films| films.identity.clone()),
            settings: films.map(|films| films.settings.clone()),
            cameras: cameras
                .into_iter()
                .flatten()
                .map(|camera| (camera.id.clone(), CameraStatus::Recording))
                .collect(),
            closed: BTreeSet::new(),
            open: BTreeSet::new(),
            bundles: state.bundles.clone(),
            max_cameras: Some(100),
            conflict: None,
            outlived: None,
            erased: None,
            spared: Default::default(),
            relay: None,
            right_to_act: None,
            room: None,
        })
    }

    async fn observe_all(&self, bus: &Bus) {
        let all = self.servers.iter().map(|server| &server.id);
        self.observe(bus, all).await;
    }

    async fn observe(&self, bus: &Bus, of: impl Iterator<Item = &ServerId>) {
        let messages: Vec<Message> = of
            .map(|server| Message::observation(&self.domain, &self.observation(server)))
            .collect();
        // What does not get through is said again.
        stream::iter(messages)
            .for_each_concurrent(AT_ONCE, |message| async {
                let _ = bus.publish(message).await;
            })
            .await;
    }

    fn observation(&self, server: &ServerId) -> Observation {
        let silent = locked(&self.silent).contains(server);
        let heard = !silent;
        Observation {
            server: server.clone(),
            silent_ms: if silent { 1_000 } else { 0 },
            paths: Paths {
                broker: heard,
                direct: heard,
            },
            package: Package {
                state: understudy_core::contract::heartbeat::PackageState::Running,
                ..Package::default()
            },
            storage: Storage::default(),
            blind: false,
            farewell: None,
            started: None,
            evidence: Vec::new(),
        }
    }

    async fn enroll(&self, bus: &Bus) -> anyhow::Result<()> {
        let policy = Policy {
            automatic: true,
            disconnection_ms: 1_000,
            ..Policy::default()
        };
        let stand_ins: Vec<ServerId> = self
            .of_mode(Mode::Failover)
            .map(|server| server.id.clone())
            .collect();
        for server in &self.servers {
            ask(bus, OrchestratorRequest::AddServer(server.clone())).await?;
        }
        for (index, server) in self.recording().enumerate() {
            let paired = (0..PAIRED).map(|step| stand_ins[(index + step) % stand_ins.len()].clone());
            let requests = [
                OrchestratorRequest::SetPairing {
                    server: server.clone(),
                    pairing: Pairing::Servers(paired.collect()),
                },
                OrchestratorRequest::SetPolicy {
                    server: server.clone(),
                    policy: policy.clone(),
                },
                OrchestratorRequest::AddCameras(self.cameras[&server].clone()),
            ];
            for request in requests {
                ask(bus, request).await?;
            }
        }
        Ok(())
    }

    /// Waits until every server has its settings, and every failover server those of whom it is paired with.
    async fn settle(&self) -> anyhow::Result<()> {
        let failover = self.of_mode(Mode::Failover).count();
        let recording = self.servers.len() - failover;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let count = |state: &Mutex<State>| locked(state).bundles.len();
            let staged: usize = self.states.values().map(count).sum();
            if staged >= recording * (1 + PAIRED.min(failover)) {
                // And what was said of it has been heard.
                tokio::time::sleep(SPEAKS * 3).await;
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "only {staged} bundles were staged");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// These fall silent at once. Seconds until a failover server has heard of each.
    async fn fail(
        &self,
        bus: &Bus,
        servers: &[ServerId],
        takeovers: &mut mpsc::Receiver<Takeover>,
    ) -> anyhow::Result<f64> {
        locked(&self.silent).extend(servers.iter().cloned());
        let mut waiting: BTreeSet<ServerId> = servers.iter().cloned().collect();
        let begun = Instant::now();
        let mut last = begun;
        let taken = async {
            while !waiting.is_empty() {
                let Some(takeover) = takeovers.recv().await else {
                    bail!("the load ended");
                };
                if waiting.remove(&takeover.identity) {
                    last = last.max(takeover.at);
                }
            }
            Ok(())
        };
        let (_, taken) = tokio::join!(self.observe(bus, servers.iter()), timeout(PATIENCE, taken));
        taken.with_context(|| format!("nobody took over for {waiting:?}"))??;
        Ok((last - begun).as_secs_f64())
    }
}

fn camera(owner: &ServerId, number: usize) -> anyhow::Result<Camera> {
    let name = format!("cam-{number:05}");
    Ok(Camera {
        id: CameraId::new(&name)?,
        url: format!("rtsp://192.0.2.1/{name}"),
        name,
        server: owner.clone(),
        credentials: None,
        recording: RecordingMode::Continuous,
        retention: Retention::default(),
        priority: 0,
        max_sessions: None,
        transport: understudy_core::camera::Transport::default(),
        enabled: true,
    })
}

async fn ask(bus: &Bus, request: OrchestratorRequest) -> anyhow::Result<()> {
    let answer: Answer<OrchestratorReply> = bus
        .request(names::ORCHESTRATOR, &request, Duration::from_secs(20))
        .await?;
    answer.map(drop).map_err(|problem| anyhow::anyhow!("{problem}"))
}

/// Nothing that holds one of these locks can panic halfway through a change.
fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
