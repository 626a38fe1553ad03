//! The agent: on each server, a process of its own that beats, by the broker and directly to the monitor.
//!
//! It says how the recording service beside it and the recording volume are. It never ends by itself: not
//! for a broker that is gone, a monitor that is gone, a recording service that crashed or a disk that hangs.
//! It acts on nothing; asked by the monitor, it looks for another server that is missed.

mod beneath;
mod installed;
mod package;
mod refused;
mod runs;
mod volume;

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::{sync::watch, time::MissedTickBehavior};
use understudy_bus::{BrokerConfig, Bus, BusError, Message};
use understudy_core::{
    contract::{
        heartbeat::{Heartbeat, Package, PackageState, Storage},
        names,
        rpc::{AgentReply, AgentRequest},
    },
    time::Monotonic,
};
use understudy_runtime::{ConfigError, FleetConfig, Process, Secret, ServerConfig, clock};

use self::{
    beneath::Finding,
    installed::Installed,
    package::{Look, PackageWatch, Patience},
    refused::RefusedWatch,
    runs::ThisRun,
    volume::Volume,
};
use crate::look;

/// The path on the monitor's address that takes direct beats.
pub(crate) const BEATS_PATH: &str = "/v1/heartbeats";
/// For how long after its start each beat says so.
const SAYS_START: Duration = Duration::from_secs(30);
/// How long a farewell may take on each path; after that the agent goes without a word.
const FAREWELL: Duration = Duration::from_secs(1);
/// How often an agent may beat, in milliseconds.
const INTERVALS_MS: std::ops::RangeInclusive<u64> = 50..=10_000;

/// Section `[agent]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AgentConfig {
    /// How often it beats, in milliseconds: 50 to 10,000.
    pub interval_ms: u64,
    /// Base URL of the monitor, for the direct path: `http://host:port`. Empty: no direct path.
    pub monitor_url: String,
    /// After so many milliseconds without an answer a direct beat is given up for the next.
    pub direct_deadline_ms: u64,
    /// Base URL of the recording service's health address: `http://host:port`. Empty: it isn't watched.
    pub ingest_url: String,
    /// How often the recording service is looked at, and how long it may take to answer, in milliseconds.
    pub package_interval_ms: u64,
    /// For how long a recording service that was well may be gone or silent before it is called so, in
    /// milliseconds: the time its supervisor has to start it again.
    pub package_patience_ms: u64,
    /// For how long after the agent's start the recording service may be starting, in milliseconds. Nobody
    /// takes over meanwhile, and where only the agent came back from a fault nobody films either.
    pub package_starting_ms: u64,
    /// For how long the recording service may be of another version than the agent, in milliseconds: the time
    /// that an upgrade of the server takes.
    pub package_version_ms: u64,
    /// The recording service's executable: where it is not there, the service is uninstalled. Empty: not looked at.
    pub ingest_executable: PathBuf,
    /// The recording service's systemd unit: tells uninstalled, disabled and crashed apart. Empty: not looked at.
    pub ingest_unit: String,
    /// How often the recording volume is probed by a write and an fsync, in milliseconds.
    pub volume_interval_ms: u64,
    /// After so many milliseconds a probe that has not returned means that the volume hangs.
    pub volume_deadline_ms: u64,
    /// For how long the recording volume may be full without a break, in milliseconds; then it stays full although
    /// retention, which makes room each second, should have made some.
    pub volume_full_ms: u64,
    /// How often the programs that know the pools and disks beneath the volume are asked (`zpool`, `btrfs`,
    /// `smartctl`, where they are installed), in milliseconds; 0: never.
    pub devices_interval_ms: u64,
    /// After so many milliseconds such a program is given up.
    pub devices_deadline_ms: u64,
}

impl Default for AgentConfig {
    fn default() -> Self {
        Self {
            interval_ms: 500,
            monitor_url: "http://127.0.0.1:7601".to_owned(),
            direct_deadline_ms: 1_000,
            ingest_url: "http://127.0.0.1:7611".to_owned(),
            package_interval_ms: 500,
            package_patience_ms: 1_000,
            package_starting_ms: 10_000,
            package_version_ms: 600_000,
            ingest_executable: PathBuf::new(),
            ingest_unit: String::new(),
            volume_interval_ms: 2_000,
            volume_deadline_ms: 10_000,
            volume_full_ms: 30_000,
            devices_interval_ms: 60_000,
            devices_deadline_ms: 15_000,
        }
    }
}

/// Why the agent could not start.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The fleet's token can't be used.
    #[error(transparent)]
    Fleet(#[from] ConfigError),
    /// A value of `[agent]` can't be.
    #[error("agent.{key} = {value} is not possible: {hint}")]
    Config {
        /// Which.
        key: &'static str,
        /// Its value.
        value: String,
        /// What could be.
        hint: &'static str,
    },
    /// The bus could not be set up.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// The HTTP client could not be set up.
    #[error("no HTTP client: {0}")]
    Client(#[source] reqwest::Error),
    /// The thread that probes the volume could not be started.
    #[error("the thread that probes the recording volume could not be started: {0}")]
    Thread(#[source] std::io::Error),
}

/// Beats until the process is shut down.
///
/// # Errors
/// [`AgentError`] if it can't start; later nothing ends it.
pub async fn run(
    config: AgentConfig,
    fleet: FleetConfig,
    server: ServerConfig,
    broker: BrokerConfig,
    process: Process,
) -> Result<(), AgentError> {
    config.validate()?;
    let token = fleet.token()?;
    let bus = Bus::start(&broker, &format!("agent/{}", server.id), &process)?;
    let client = reqwest::Client::builder()
        .no_proxy()
        .tcp_nodelay(true)
        .build()
        .map_err(AgentError::Client)?;
    serve(&bus, &server, &process).map_err(AgentError::Client)?;
    let volume = Volume::watch(
        server.data.join("archive"),
        Duration::from_millis(config.volume_interval_ms),
        Duration::from_millis(config.volume_deadline_ms),
        Duration::from_millis(config.volume_full_ms),
    )
    .map_err(AgentError::Thread)?;
    let (refusals, refused) = watch::channel(Vec::new());
    let storage = StorageWatch::start(volume, refused, &config, &process);
    let run = ThisRun::begin(&server.data).await;

    // Each path takes the newest beat when it is free: one outstanding, none queued.
    let (beats, _) = watch::channel(None);
    process.spawn(
        "beats-by-broker",
        by_broker(bus.clone(), beats.subscribe(), process.clone()),
    );
    let monitor = Monitor::of(&config, client.clone(), token);
    if let Some(monitor) = monitor.clone() {
        let deadline = Duration::from_millis(config.direct_deadline_ms);
        let direct = directly(monitor, deadline, beats.subscribe(), process.clone());
        process.spawn("beats-direct", direct);
    }
    let watched = !config.ingest_url.is_empty();
    let first = if watched {
        PackageState::Starting
    } else {
        PackageState::Running
    };
    let (package, seen) = watch::channel(Package {
        state: first,
        evidence: String::new(),
    });
    if watched {
        process.spawn(
            "package",
            watch_package(client.clone(), config.clone(), package, refusals, process.clone()),
        );
    }
    tracing::info!(agent.interval_ms = config.interval_ms, "beating");
    let last = beat(&config, &server, &run, &storage, &seen, &beats, &process).await;
    say_farewell(last, &bus, monitor.as_ref()).await;
    run.end().await;
    process.finish().await;
    Ok(())
}

/// Answers whoever asks it to look for a server that is missed.
fn serve(bus: &Bus, server: &ServerConfig, process: &Process) -> Result<(), reqwest::Error> {
    let client = look::client()?;
    let from: std::sync::Arc<str> = server.id.as_str().into();
    let answer = move |AgentRequest::Look { address }| {
        let (client, from) = (client.clone(), from.clone());
        async move { AgentReply::Looked(look::look(&client, &address, &from).await) }
    };
    bus.serve(&names::agent(&server.id), answer, process);
    Ok(())
}

impl AgentConfig {
    fn patience(&self) -> Patience {
        Patience {
            starting: Duration::from_millis(self.package_starting_ms),
            trouble: Duration::from_millis(self.package_patience_ms),
            version: Duration::from_millis(self.package_version_ms),
        }
    }

    fn validate(&self) -> Result<(), AgentError> {
        if !INTERVALS_MS.contains(&self.interval_ms) {
            return Err(AgentError::Config {
                key: "interval_ms",
                value: self.interval_ms.to_string(),
                hint: "choose 50 to 10000",
            });
        }
        for (key, url) in [
            ("monitor_url", &self.monitor_url),
            ("ingest_url", &self.ingest_url),
        ] {
            let ok = url.is_empty() || reqwest::Url::parse(url).is_ok_and(|url| url.scheme() == "http");
            if !ok {
                return Err(AgentError::Config {
                    key,
                    value: url.clone(),
                    hint: "give http://host:port, or nothing to go without",
                });
            }
        }
        for (key, value) in [
            ("direct_deadline_ms", self.direct_deadline_ms),
            ("package_interval_ms", self.package_interval_ms),
            ("volume_interval_ms", self.volume_interval_ms),
            ("volume_deadline_ms", self.volume_deadline_ms),
            ("devices_deadline_ms", self.devices_deadline_ms),
        ] {
            if value == 0 {
                return Err(AgentError::Config {
                    key,
                    value: value.to_string(),
                    hint: "choose at least 1",
                });
            }
        }
        Ok(())
    }
}

/// All that is known of the recording volume and of what carries it.
struct StorageWatch {
    volume: Volume,
    arrays: watch::Receiver<Vec<Finding>>,
    devices: watch::Receiver<Vec<Finding>>,
    refused: watch::Receiver<Vec<Finding>>,
}

impl StorageWatch {
    fn start(
        volume: Volume,
        refused: watch::Receiver<Vec<Finding>>,
        config: &AgentConfig,
        process: &Process,
    ) -> Self {
        let (arrays, arrays_found) = watch::channel(Vec::new());
        let (devices, devices_found) = watch::channel(Vec::new());
        let each = Duration::from_millis(config.volume_interval_ms);
        process.spawn(
            "arrays",
            beneath::watch_arrays(volume.folder(), each, arrays, process.clone()),
        );
        if config.devices_interval_ms > 0 {
            let each = Duration::from_millis(config.devices_interval_ms);
            let deadline = Duration::from_millis(config.devices_deadline_ms);
            process.spawn(
                "devices",
                beneath::watch_programs(volume.folder(), each, deadline, devices, process.clone()),
            );
        }
        Self {
            volume,
            arrays: arrays_found,
            devices: devices_found,
            refused,
        }
    }

    /// The worst of it, and all of its evidence, the worst first.
    fn now(&self, now: Monotonic) -> Storage {
        let probed = self.volume.storage(now);
        let (refused, arrays, devices) = (self.refused.borrow(), self.arrays.borrow(), self.devices.borrow());
        beneath::summary(probed, refused.iter().chain(arrays.iter()).chain(devices.iter()))
    }
}

/// The steady clock: makes a beat at each tick, whatever became of the last. Answers the beat that would be next.
async fn beat(
    config: &AgentConfig,
    server: &ServerConfig,
    run: &ThisRun,
    storage: &StorageWatch,
    package: &watch::Receiver<Package>,
    beats: &watch::Sender<Option<Heartbeat>>,
    process: &Process,
) -> Heartbeat {
    let shutdown = process.shutdown();
    let mut ticks = tokio::time::interval(Duration::from_millis(config.interval_ms));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let begun = clock::now().monotonic;
    let mut sequence = 0;
    loop {
        let ends = tokio::select! {
            () = shutdown.cancelled() => true,
            _ = ticks.tick() => false,
        };
        sequence += 1;
        let now = clock::now();
        let starts = now.monotonic.since(begun) < SAYS_START;
        let beat = Heartbeat {
            server: server.id.clone(),
            domain: server.domain.clone(),
            sequence,
            sent_at: now.wall,
            interval_ms: config.interval_ms,
            package: package.borrow().clone(),
            storage: storage.now(now.monotonic),
            farewell: None,
            started: run.started.clone().filter(|_| starts),
        };
        if ends {
            return beat;
        }
        beats.send_replace(Some(beat));
    }
}

/// The last beat says that it is the last one, and why. Best effort: whoever can't be told sees the silence.
async fn say_farewell(beat: Heartbeat, bus: &Bus, monitor: Option<&Monitor>) {
    let farewell = runs::why_it_ends().await;
    tracing::info!(?farewell, "the agent ends");
    let beat = Heartbeat {
        farewell: Some(farewell),
        started: None,
        ..beat
    };
    let by_broker = tokio::time::timeout(FAREWELL, bus.publish(Message::heartbeat(&beat)));
    let directly = async {
        if let Some(monitor) = monitor {
            let _told = monitor.tell(&beat, FAREWELL).await;
        }
    };
    let _told = tokio::join!(by_broker, directly);
}

/// The newest beat that has not been taken yet; none at shutdown.
async fn next(beats: &mut watch::Receiver<Option<Heartbeat>>, process: &Process) -> Option<Heartbeat> {
    let shutdown = process.shutdown();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return None,
            changed = beats.changed() => changed.ok()?,
        }
        if let Some(beat) = beats.borrow_and_update().clone() {
            return Some(beat);
        }
    }
}

async fn by_broker(bus: Bus, mut beats: watch::Receiver<Option<Heartbeat>>, process: Process) {
    let mut trouble = Trouble::new("broker");
    while let Some(beat) = next(&mut beats, &process).await {
        let sent = bus.publish(Message::heartbeat(&beat)).await;
        trouble.note(sent.map_err(|error| error.to_string()));
    }
}

/// Where direct beats go.
#[derive(Clone)]
struct Monitor {
    client: reqwest::Client,
    url: String,
    token: Option<Secret>,
}

/// Why a direct beat was not taken.
enum Untold {
    /// The monitor wants another token than this server has: trying again changes nothing.
    Stranger(String),
    /// It is away, or does not take it.
    Away(String),
}

impl Monitor {
    /// None if there is no direct path.
    fn of(config: &AgentConfig, client: reqwest::Client, token: Option<Secret>) -> Option<Self> {
        let url = config.monitor_url.trim_end_matches('/');
        (!url.is_empty()).then(|| Self {
            client,
            url: format!("{url}{BEATS_PATH}"),
            token,
        })
    }

    async fn tell(&self, beat: &Heartbeat, deadline: Duration) -> Result<(), Untold> {
        let mut request = self.client.post(&self.url).json(beat).timeout(deadline);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token.expose());
        }
        let url = &self.url;
        match request.send().await.map(|answer| answer.status()) {
            Ok(status) if status.is_success() => Ok(()),
            Ok(reqwest::StatusCode::UNAUTHORIZED) => Err(Untold::Stranger(format!(
                "{url} refuses this server: set fleet.token_file to a file with the token that the monitor has, and \
                 start the agent again"
            ))),
            Ok(status) => Err(Untold::Away(format!("{url} answers {status}"))),
            Err(error) => Err(Untold::Away(error.to_string())),
        }
    }
}

async fn directly(
    monitor: Monitor,
    deadline: Duration,
    mut beats: watch::Receiver<Option<Heartbeat>>,
    process: Process,
) {
    let mut trouble = Trouble::new("direct");
    while let Some(beat) = next(&mut beats, &process).await {
        match monitor.tell(&beat, deadline).await {
            Ok(()) => trouble.note(Ok(())),
            Err(Untold::Away(error)) => trouble.note(Err(error)),
            Err(Untold::Stranger(error)) => trouble.refused(&error),
        }
    }
}

/// Says once when a path goes down and once when it is back, not at each beat.
struct Trouble {
    path: &'static str,
    /// Beats that did not get through, in a row.
    failed: u32,
    /// Whether it was said that the other side refuses them.
    refused: bool,
}

impl Trouble {
    /// At the first one the connection may just be coming up: at a start it always is.
    const TOLD_AT: u32 = 2;

    fn new(path: &'static str) -> Self {
        Self {
            path,
            failed: 0,
            refused: false,
        }
    }

    fn note(&mut self, sent: Result<(), String>) {
        match sent {
            Ok(()) => {
                if self.failed >= Self::TOLD_AT || self.refused {
                    tracing::info!(beat.path = self.path, "beats get through again");
                }
                *self = Self::new(self.path);
            }
            Err(error) => {
                self.failed = self.failed.saturating_add(1);
                if self.failed == Self::TOLD_AT {
                    tracing::warn!(beat.path = self.path, error, "beats don't get through");
                }
            }
        }
    }

    /// Not by chance, so it is said at the first one, and also where beats did not get through before.
    fn refused(&mut self, error: &str) {
        if !self.refused {
            self.refused = true;
            tracing::warn!(beat.path = self.path, error, "beats are refused");
        }
    }
}

async fn watch_package(
    client: reqwest::Client,
    config: AgentConfig,
    package: watch::Sender<Package>,
    refusals: watch::Sender<Vec<Finding>>,
    process: Process,
) {
    let shutdown = process.shutdown();
    let url = format!("{}/healthz", config.ingest_url.trim_end_matches('/'));
    let interval = Duration::from_millis(config.package_interval_ms);
    let installed = Installed::new(&config.ingest_executable, &config.ingest_unit);
    let mut watch = PackageWatch::new(config.patience(), clock::now().monotonic);
    let mut refused = RefusedWatch::default();
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let deadline = interval.max(Duration::from_millis(500));
        let seen = package::look(&client, &url, deadline, &installed).await;
        if let Look::Answered { volume, .. } = &seen {
            let found = refused.step(volume.as_ref(), clock::now().monotonic);
            beneath::note(&refusals, found.into_iter().collect());
        }
        let verdict = watch.step(seen, clock::now().monotonic);
        package.send_if_modified(|old| {
            let changed = *old != verdict;
            if changed && old.state != verdict.state {
                tracing::info!(
                    package.state = ?verdict.state, package.evidence = verdict.evidence,
                    "the recording service is seen otherwise"
                );
            }
            *old = verdict;
            changed
        });
    }
}

#[cfg(test)]
mod tests {
    use understudy_core::{contract::heartbeat::PackageState, time::Monotonic};

    use super::*;

    #[test]
    fn c4_where_only_the_agent_comes_back_its_absent_service_is_named_within_ten_seconds() {
        let mut watch = PackageWatch::new(AgentConfig::default().patience(), Monotonic(Duration::ZERO));
        let refused = || package::Look::Refused("connection refused".to_owned());
        let starting = watch.step(refused(), Monotonic(Duration::from_millis(500)));
        assert_eq!(starting.state, PackageState::Starting);
        let named = watch.step(refused(), Monotonic(Duration::from_secs(10)));
        assert_eq!(named.state, PackageState::Crashed);
    }
}
