//! The fleet: which processes there are, how each is configured, and the folder that they live in.
//!
//! ```text
//! <folder>/
//!   broker/            the private RabbitMQ
//!   host/              host.toml, understudy.db
//!   recorder-1/        server.toml, data/{assignment.json, bundles/, archive/}
//!   logs/              one file per process
//! ```

use std::{
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::time::{Instant, sleep};
use understudy_bus::private_broker::PrivateBroker as Broker;
use understudy_core::{
    camera::{Camera, Credentials},
    ids::{CameraId, DomainId, LicenseKeyId, ServerId},
    policy::{Pairing, Policy},
    server::{Mode, Server},
};
use understudy_runtime::seal::FleetKey;

use crate::{DemoError, api::Api, line::Line, ports, process::Process, sent::Simulator};

/// The name and password of the simulated cameras.
pub const CAMERA_USER: &str = "operator";
/// See [`CAMERA_USER`].
pub const CAMERA_PASSWORD: &str = "only-for-the-demo";
/// What viewers on other machines give as password to servers that are in a place of their own ([`Place`]).
pub const RELAY_TOKEN: &str = "only-for-the-demo-and-good-for-nothing-else";
/// The token by which the fleet's machines know one another.
pub const FLEET_TOKEN: &str = "of-the-fleet-of-a-demo-and-good-for-nothing-else";
/// The domain of everything that is not said to be in another.
const DOMAIN: &str = "demo";

/// What fleet is wanted.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The `understudy` executable.
    pub executable: PathBuf,
    /// A folder of its own, that exists.
    pub folder: PathBuf,
    /// How many cameras the simulator has; they all belong to the first recording server unless
    /// [`Plan::enroll_cameras`] is off.
    pub cameras: usize,
    /// Whether the cameras are added to the fleet at once.
    pub enroll_cameras: bool,
    /// More arguments for the simulator, e.g. `--codec h265`.
    pub simulator: Vec<String>,
    /// The servers.
    pub servers: Vec<ServerPlan>,
    /// How often agents beat.
    pub beat: Duration,
    /// How long segments are.
    pub segment: Duration,
    /// The failover settings of every recording server.
    pub policy: Policy,
    /// More lines for every configuration file.
    pub extra_configuration: String,
    /// The host's address for servers that don't run beside it ([`Place::host`]): broker and monitor listen there
    /// too, without a password worth the name, so only ever on a network of the rig's own.
    pub host_address: Option<IpAddr>,
}

/// One server that is wanted.
#[derive(Clone, Debug)]
pub struct ServerPlan {
    /// Its id, e.g. `recorder-1`.
    pub id: String,
    /// Its name as people see it.
    pub name: String,
    /// Recording or failover server.
    pub mode: Mode,
    /// The most cameras it can run.
    pub max_cameras: u32,
    /// The domain that it is in.
    pub domain: String,
    /// Whether its way to the host goes over lines that can be cut ([`ServerRig::lines`]).
    pub cuttable: bool,
    /// Where it runs, if not beside the host.
    pub place: Option<Place>,
}

/// Where on a network a server's processes run.
#[derive(Clone, Debug)]
pub struct Place {
    /// Its address there.
    pub address: IpAddr,
    /// The host's address, as it is seen from there.
    pub host: IpAddr,
    /// A program, with arguments, that runs in that place what follows it on its command line.
    pub enter: Vec<String>,
}

impl ServerPlan {
    /// A recording server.
    pub fn recording(id: &str, name: &str, max_cameras: u32) -> Self {
        Self {
            id: id.to_owned(),
            name: name.to_owned(),
            mode: Mode::Recording,
            max_cameras,
            domain: DOMAIN.to_owned(),
            cuttable: false,
            place: None,
        }
    }

    /// A failover server.
    pub fn failover(id: &str, name: &str, max_cameras: u32) -> Self {
        Self {
            mode: Mode::Failover,
            ..Self::recording(id, name, max_cameras)
        }
    }

    /// In another domain than the host.
    #[must_use]
    pub fn in_domain(self, domain: &str) -> Self {
        Self {
            domain: domain.to_owned(),
            ..self
        }
    }

    /// With lines to the host that can be cut.
    #[must_use]
    pub fn with_lines(self) -> Self {
        Self {
            cuttable: true,
            ..self
        }
    }

    /// In a place of its own.
    #[must_use]
    pub fn at(self, place: Place) -> Self {
        Self {
            place: Some(place),
            ..self
        }
    }
}

/// A recording or failover server: its three processes and its folder.
#[derive(Debug)]
pub struct ServerRig {
    /// As it was wanted.
    pub plan: ServerPlan,
    /// Its folder; its data lies in `data/`.
    pub folder: PathBuf,
    /// Its sync service's address.
    pub sync_address: SocketAddr,
    /// Sees whether the server is well.
    pub agent: Process,
    /// Films.
    pub ingest: Process,
    /// Hands back.
    pub sync: Process,
    /// Its lines to broker and monitor, if they can be cut.
    pub lines: Vec<Line>,
}

impl ServerRig {
    /// Its archive.
    pub fn archive(&self) -> PathBuf {
        self.folder.join("data/archive")
    }

    /// Starts its processes, and waits for none.
    ///
    /// # Errors
    /// As [`Process::start`].
    pub fn start(&mut self) -> Result<(), DemoError> {
        self.ingest.start()?;
        self.sync.start()?;
        self.agent.start()
    }

    /// Cuts its lines to the host. It runs on, and does not know.
    pub fn cut(&self) {
        for line in &self.lines {
            line.cut();
        }
    }

    /// Its lines carry again.
    pub fn mend(&self) {
        for line in &self.lines {
            line.mend();
        }
    }

    /// Kills its processes as `kill -9` does: the recording service first, the others at once after it.
    pub fn kill(&mut self) {
        for process in [&mut self.ingest, &mut self.agent, &mut self.sync] {
            process.signal(nix::sys::signal::Signal::SIGKILL);
        }
        for process in [&mut self.ingest, &mut self.agent, &mut self.sync] {
            process.kill();
        }
    }

    /// Asks its processes to end. Returns whether all did by themselves.
    pub async fn stop(&mut self) -> bool {
        for process in [&mut self.agent, &mut self.ingest, &mut self.sync] {
            process.signal(nix::sys::signal::Signal::SIGTERM);
        }
        let mut gently = true;
        for process in [&mut self.agent, &mut self.ingest, &mut self.sync] {
            gently &= process.stop().await;
        }
        gently
    }
}

/// The host: its five services.
#[derive(Debug)]
pub struct HostRig {
    /// Decides.
    pub orchestrator: Process,
    /// Sees which servers are heard.
    pub monitor: Process,
    /// Where it takes direct heartbeats.
    pub heartbeats: SocketAddr,
    /// Keeps the licences.
    pub license: Process,
    /// Tells whoever is configured to be told.
    pub notifier: Process,
    /// The API.
    pub console: Process,
}

impl HostRig {
    /// Each process.
    pub fn processes(&mut self) -> [&mut Process; 5] {
        [
            &mut self.orchestrator,
            &mut self.monitor,
            &mut self.license,
            &mut self.notifier,
            &mut self.console,
        ]
    }
}

/// A running fleet. Everything in it ends when it is dropped.
#[derive(Debug)]
pub struct Rig {
    /// What was wanted.
    pub plan: Plan,
    /// The host's API.
    pub api: Api,
    /// Where the API listens.
    pub api_address: SocketAddr,
    /// The simulated cameras' account of what they sent.
    pub simulator: Simulator,
    /// The simulator's process.
    pub simulator_process: Process,
    /// The host.
    pub host: HostRig,
    /// The servers, in the order in which they were wanted.
    pub servers: Vec<ServerRig>,
    /// The private RabbitMQ. Last, so that it outlives those who speak through it.
    pub broker: Broker,
}

impl Rig {
    /// Starts everything, enrols it, and waits until the API answers and every process is ready.
    ///
    /// # Errors
    /// [`DemoError`] names the part that did not start.
    pub async fn start(plan: Plan) -> Result<Self, DemoError> {
        let mut rig = Self::describe(plan).await?;
        rig.launch().await?;
        rig.enroll().await?;
        Ok(rig)
    }

    /// Starts the broker, writes the configuration files, and describes the processes without starting them.
    ///
    /// # Errors
    /// [`DemoError`] names what could not be made.
    pub async fn describe(plan: Plan) -> Result<Self, DemoError> {
        let logs = plan.folder.join("logs");
        for folder in ["logs", "broker", "host"] {
            create(&plan.folder.join(folder))?;
        }
        let also_at: Vec<IpAddr> = plan.host_address.into_iter().collect();
        let broker = Broker::start_listening(&plan.folder.join("broker"), &also_at)
            .await
            .map_err(|error| DemoError::Broker(error.to_string()))?;
        let key_file = plan.folder.join("fleet.key");
        new_fleet_key(&key_file)?;
        let [api_address, monitor_address, camera_address, control_address] = four()?;
        let issuer = understudy_license::generate_issuer(&plan.folder.join("issuer.key"))
            .map_err(|error| DemoError::Account(error.to_string()))?;

        let config = plan.folder.join("host/host.toml");
        write(
            &config,
            &host_toml(&plan, &broker, api_address, monitor_address, &key_file, &issuer),
        )?;
        let host = HostRig {
            orchestrator: service(&plan, "orchestrator", "orchestrator", &config, &logs)?,
            monitor: service(&plan, "monitor", "monitor", &config, &logs)?,
            heartbeats: monitor_address,
            license: service(&plan, "license", "license", &config, &logs)?,
            notifier: service(&plan, "notifier", "notifier", &config, &logs)?,
            console: service(&plan, "console", "console", &config, &logs)?,
        };
        let mut servers = Vec::new();
        for server in &plan.servers {
            let way = Way::from(server, &broker, monitor_address).await?;
            servers.push(describe_server(&plan, server, way, &key_file, &logs)?);
        }
        let simulator_process =
            describe_simulator(&plan, "simulator", camera_address, control_address, &logs);
        Ok(Self {
            api: Api::new(api_address),
            api_address,
            simulator: Simulator::new(control_address, camera_address),
            simulator_process,
            host,
            servers,
            broker,
            plan,
        })
    }

    /// Starts every process, and waits until each answers.
    ///
    /// # Errors
    /// [`DemoError`] names the one that did not.
    pub async fn launch(&mut self) -> Result<(), DemoError> {
        self.simulator_process.start()?;
        for process in self.host.processes() {
            process.start()?;
        }
        for server in &mut self.servers {
            server.start()?;
        }
        self.simulator_process.healthy().await?;
        for process in self.host.processes() {
            process.healthy().await?;
        }
        for server in &mut self.servers {
            server.ingest.healthy().await?;
            server.agent.healthy().await?;
            server.sync.healthy().await?;
        }
        Ok(())
    }

    /// Adds servers, cameras, licence keys, pairings and failover settings through the API.
    ///
    /// # Errors
    /// [`DemoError::Api`] with what the API refused.
    pub async fn enroll(&self) -> Result<(), DemoError> {
        self.answers().await?;
        for server in &self.servers {
            self.api.add_server(&self.enrolled(server)?).await?;
        }
        for server in self
            .servers
            .iter()
            .filter(|server| server.plan.mode == Mode::Recording)
        {
            self.api.pair(&server.plan.id, &Pairing::All).await?;
            self.api.set_policy(&server.plan.id, &self.plan.policy).await?;
        }
        if self.plan.enroll_cameras
            && let Some(owner) = self
                .servers
                .iter()
                .find(|server| server.plan.mode == Mode::Recording)
        {
            let devices = u32::try_from(self.plan.cameras).unwrap_or(u32::MAX);
            self.add_license(&owner.plan.id, "demo-key", devices).await?;
            self.api
                .add_cameras(&self.cameras(&owner.plan.id, 0..self.plan.cameras)?)
                .await?;
        }
        Ok(())
    }

    /// Signs a licence key and adds it to a server.
    ///
    /// # Errors
    /// [`DemoError`] if it can't be signed or is refused.
    pub async fn add_license(&self, server: &str, id: &str, devices: u32) -> Result<(), DemoError> {
        let id = LicenseKeyId::new(id).map_err(|error| DemoError::Account(error.to_string()))?;
        let key = understudy_license::issue(&self.plan.folder.join("issuer.key"), &id, devices, "demo")
            .map_err(|error| DemoError::Account(error.to_string()))?;
        self.api.add_license(server, &key).await
    }

    /// The simulator's cameras `which` as they are enrolled for `owner`.
    ///
    /// # Errors
    /// [`DemoError::Account`] if an id is none.
    pub fn cameras(&self, owner: &str, which: std::ops::Range<usize>) -> Result<Vec<Camera>, DemoError> {
        which
            .map(|index| {
                let name = camera_name(index);
                Ok(Camera {
                    id: CameraId::new(&name).map_err(|error| DemoError::Account(error.to_string()))?,
                    name: format!("Camera {}", index + 1),
                    server: id(owner)?,
                    url: format!("rtsp://{}/{name}", self.simulator.cameras_address()),
                    credentials: Some(Credentials {
                        username: CAMERA_USER.to_owned(),
                        password: CAMERA_PASSWORD.to_owned(),
                    }),
                    recording: understudy_core::camera::RecordingMode::Continuous,
                    retention: understudy_core::camera::Retention::default(),
                    priority: 0,
                    max_sessions: None,
                    transport: understudy_core::camera::Transport::default(),
                    enabled: true,
                })
            })
            .collect()
    }

    /// More cameras, in another place, described and not started; with the address at which they are.
    ///
    /// # Errors
    /// [`DemoError::Io`] if there are no ports for them.
    pub fn cameras_at(
        &self,
        name: &str,
        count: usize,
        place: &Place,
    ) -> Result<(Process, SocketAddr), DemoError> {
        let at = |mut address: SocketAddr| {
            address.set_ip(place.address);
            address
        };
        let (cameras, control) = (at(ports::one()?), at(ports::one()?));
        let plan = Plan {
            cameras: count,
            ..self.plan.clone()
        };
        let mut process = describe_simulator(&plan, name, cameras, control, &self.plan.folder.join("logs"));
        process.enter(&place.enter);
        Ok((process, cameras))
    }

    /// How a server of the rig is enrolled.
    ///
    /// # Errors
    /// [`DemoError::Account`] if its id is none.
    pub fn enrolled(&self, server: &ServerRig) -> Result<Server, DemoError> {
        Ok(Server {
            id: id(&server.plan.id)?,
            name: server.plan.name.clone(),
            domain: domain(&server.plan.domain)?,
            mode: server.plan.mode,
            max_cameras: server.plan.max_cameras,
            sync_address: format!("http://{}", server.sync_address),
            enabled: true,
        })
    }

    /// One server by its id.
    ///
    /// # Panics
    /// If the plan has no such server.
    pub fn server(&mut self, id: &str) -> &mut ServerRig {
        self.servers
            .iter_mut()
            .find(|server| server.plan.id == id)
            .expect("the caller names a server of its own plan")
    }

    /// Ends everything, servers first, gently.
    pub async fn stop(mut self) {
        for server in &mut self.servers {
            server.stop().await;
        }
        for process in self.host.processes() {
            process.stop().await;
        }
        self.simulator_process.stop().await;
        self.broker.stop().await;
    }

    /// Waits until the API reaches the orchestrator.
    ///
    /// # Errors
    /// [`DemoError::Deadline`] if it does not.
    pub async fn answers(&self) -> Result<(), DemoError> {
        eventually(
            "the API to answer",
            Duration::from_secs(60),
            async || match self.api.servers().await {
                Ok(_) => Ok(()),
                Err(error) => Err(error.to_string()),
            },
        )
        .await
    }
}

/// Asks again and again until the answer is `Ok`.
///
/// # Errors
/// [`DemoError::Deadline`] with the last thing that was seen instead.
pub async fn eventually<T>(
    what: &str,
    at_most: Duration,
    mut ask: impl AsyncFnMut() -> Result<T, String>,
) -> Result<T, DemoError> {
    let deadline = Instant::now() + at_most;
    loop {
        match ask().await {
            Ok(answer) => return Ok(answer),
            Err(state) if Instant::now() > deadline => {
                return Err(DemoError::Deadline {
                    seconds: at_most.as_secs(),
                    what: what.to_owned(),
                    state,
                });
            }
            Err(_) => sleep(Duration::from_millis(50)).await,
        }
    }
}

/// Makes the key with which settings are encrypted on their way and on disk.
///
/// # Errors
/// [`DemoError::Account`] if the file can't be written.
pub fn new_fleet_key(path: &Path) -> Result<(), DemoError> {
    FleetKey::generate_to(path)
        .map(|_| ())
        .map_err(|error| DemoError::Account(error.to_string()))
}

/// The simulator's name for its camera number `index`, from 0.
pub fn camera_name(index: usize) -> String {
    format!("cam-{:03}", index + 1)
}

fn id(text: &str) -> Result<ServerId, DemoError> {
    ServerId::new(text).map_err(|error| DemoError::Account(error.to_string()))
}

fn domain(text: &str) -> Result<DomainId, DemoError> {
    DomainId::new(text).map_err(|error| DemoError::Account(error.to_string()))
}

fn four() -> Result<[SocketAddr; 4], DemoError> {
    let free = ports::free(4)?;
    Ok([free[0], free[1], free[2], free[3]])
}

fn service(
    plan: &Plan,
    name: &str,
    subcommand: &str,
    config: &Path,
    logs: &Path,
) -> Result<Process, DemoError> {
    let health = ports::one()?;
    Ok(service_at(plan, name, subcommand, config, health, logs))
}

fn service_at(
    plan: &Plan,
    name: &str,
    subcommand: &str,
    config: &Path,
    health: SocketAddr,
    logs: &Path,
) -> Process {
    let arguments = [
        subcommand.to_owned(),
        "--die-with-parent".to_owned(),
        "--config".to_owned(),
        config.display().to_string(),
        "--listen".to_owned(),
        health.to_string(),
    ];
    Process::new(&plan.executable, name, arguments.to_vec(), health, logs)
}

/// How a server reaches the host.
struct Way {
    broker: String,
    monitor: SocketAddr,
    lines: Vec<Line>,
}

impl Way {
    async fn from(server: &ServerPlan, broker: &Broker, monitor: SocketAddr) -> Result<Self, DemoError> {
        let (mut broker_at, mut monitor_at) = (broker.address(), monitor);
        if let Some(place) = &server.place {
            broker_at.set_ip(place.host);
            monitor_at.set_ip(place.host);
        }
        let mut lines = Vec::new();
        if server.cuttable {
            let (to_broker, to_monitor) = (Line::to(broker_at).await?, Line::to(monitor_at).await?);
            (broker_at, monitor_at) = (to_broker.address(), to_monitor.address());
            lines = vec![to_broker, to_monitor];
        }
        Ok(Self {
            broker: broker.url_at(broker_at),
            monitor: monitor_at,
            lines,
        })
    }
}

fn describe_server(
    plan: &Plan,
    server: &ServerPlan,
    way: Way,
    key_file: &Path,
    logs: &Path,
) -> Result<ServerRig, DemoError> {
    let folder = plan.folder.join(&server.id);
    create(&folder)?;
    let config = folder.join("server.toml");
    let here = |mut address: SocketAddr| {
        if let Some(place) = &server.place {
            address.set_ip(place.address);
        }
        address
    };
    let sync_address = here(ports::one()?);
    let part = |service: &str| -> Result<Process, DemoError> {
        let name = format!("{service}@{}", server.id);
        let mut process = service_at(plan, &name, service, &config, here(ports::one()?), logs);
        if let Some(place) = &server.place {
            process.enter(&place.enter);
        }
        Ok(process)
    };
    let ingest = part("ingest")?;
    let relay = match &server.place {
        Some(place) => format!(
            "relay_listen = \"{}\"\nrelay_token = {RELAY_TOKEN:?}",
            SocketAddr::new(place.address, 0)
        ),
        None => "relay_listen = \"127.0.0.1:0\"".to_owned(),
    };
    let text = format!(
        "[broker]\nurl = {broker:?}\n\n[fleet]\ntoken = {FLEET_TOKEN:?}\n\n[server]\nid = {id:?}\ndomain = {domain:?}\ndata = {data:?}\n\
         fleet_key_file = {key_file:?}\nmax_cameras = {max}\n\n\
         [agent]\ninterval_ms = {beat}\nmonitor_url = \"http://{monitor}\"\ningest_url = \"http://{ingest}\"\n\n\
         [ingest]\nsegment_seconds = {segment}\n{relay}\n\n\
         [sync]\nlisten = \"{sync_address}\"\n{extra}",
        broker = way.broker,
        id = server.id,
        domain = server.domain,
        data = folder.join("data"),
        max = server.max_cameras,
        beat = plan.beat.as_millis(),
        monitor = way.monitor,
        ingest = ingest.health(),
        segment = plan.segment.as_secs(),
        extra = plan.extra_configuration,
    );
    write(&config, &text)?;
    Ok(ServerRig {
        plan: server.clone(),
        sync_address,
        agent: part("agent")?,
        sync: part("sync")?,
        lines: way.lines,
        ingest,
        folder,
    })
}

fn describe_simulator(
    plan: &Plan,
    name: &str,
    cameras: SocketAddr,
    control: SocketAddr,
    logs: &Path,
) -> Process {
    let mut arguments: Vec<String> = [
        "simulator",
        "--die-with-parent",
        "--cameras",
        &plan.cameras.to_string(),
        "--listen",
        &cameras.to_string(),
        "--control",
        &control.to_string(),
        "--auth",
        "digest",
        "--user",
        CAMERA_USER,
        "--password",
        CAMERA_PASSWORD,
    ]
    .map(str::to_owned)
    .to_vec();
    arguments.extend(plan.simulator.iter().cloned());
    Process::new(&plan.executable, name, arguments, control, logs)
}

fn host_toml(
    plan: &Plan,
    broker: &Broker,
    api: SocketAddr,
    monitor: SocketAddr,
    key_file: &Path,
    issuer: &str,
) -> String {
    let mut text = String::new();
    let monitor_listens = match plan.host_address {
        Some(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, monitor.port())),
        None => monitor,
    };
    let _ = write!(
        text,
        "[broker]\nurl = {broker:?}\n\n[fleet]\ntoken = {FLEET_TOKEN:?}\n\n[host]\ndata = {data:?}\ndomain = \"demo\"\n\n\
         [orchestrator]\nfleet_key_file = {key_file:?}\n\n[monitor]\nlisten = \"{monitor_listens}\"\n\n\
         [license]\nissuers = [{issuer:?}]\n\n[console]\nlisten = \"{api}\"\n{extra}",
        broker = broker.url(),
        data = plan.folder.join("host/data"),
        extra = plan.extra_configuration,
    );
    text
}

fn create(folder: &Path) -> Result<(), DemoError> {
    std::fs::create_dir_all(folder).map_err(DemoError::io(format!("can't create {}", folder.display())))
}

fn write(path: &Path, text: &str) -> Result<(), DemoError> {
    std::fs::write(path, text).map_err(DemoError::io(format!("can't write {}", path.display())))
}
