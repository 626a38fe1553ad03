//! The monitor: on the host, hears the agents on two paths and says for how long each has been silent.
//!
//! A shell around [`understudy_core::presence`]: it feeds in beats, the state of its own link and the time,
//! and publishes what comes out. It concludes nothing; that is the orchestrator's.

mod direct;
mod findings;
mod metrics;
mod offset;
mod probe;
mod publish;

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::{
    sync::{Notify, mpsc},
    time::MissedTickBehavior,
};
use understudy_bus::{BrokerConfig, Bus, BusError, Incoming, Link, Queue};
use understudy_core::{
    contract::{
        heartbeat::Heartbeat,
        names::{HEARTBEAT_TYPE, ORCHESTRATOR},
        rpc::{Answer, OrchestratorReply, OrchestratorRequest},
    },
    ids::{DomainId, ServerId},
    presence::{Path, Presence, Seen},
    time::{Moment, Monotonic},
};
use understudy_runtime::{ConfigError, FleetConfig, Process, StartError, clock, process::listen};

use self::{
    findings::Findings,
    metrics::Metrics,
    probe::{Probed, Prober},
    publish::Outgoing,
};

/// How often time is told to the presence: the most that a change is late by.
const TICK: Duration = Duration::from_millis(50);
/// How often the metrics are brought up to date.
const SHOW_EVERY: Duration = Duration::from_millis(250);
/// How often a server that is missed is looked for: what was seen is worth something until then.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How often the orchestrator is asked who is enrolled.
const ENROLLED_EVERY: Duration = Duration::from_secs(10);
/// The least time between two times at which it is asked.
const ENROLLED_LEAST: Duration = Duration::from_secs(1);
/// For how long it may take to answer that.
const ENROLLED_DEADLINE: Duration = Duration::from_secs(3);
/// Direct beats that wait for the monitor: two a second from a thousand servers for half a second.
const WAITING_BEATS: usize = 1_024;
/// The most servers watched: no flood of made-up names may eat the host's memory.
const MOST_SERVERS: usize = 10_000;

/// Section `[monitor]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MonitorConfig {
    /// Where agents' direct beats are taken, by HTTP: beyond this machine only with the fleet's token.
    pub listen: SocketAddr,
}

impl Default for MonitorConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 7601)),
        }
    }
}

/// Why the monitor could not start.
#[derive(Debug, thiserror::Error)]
pub enum MonitorError {
    /// Anybody could beat for a server that is dead, or the token can't be used.
    #[error(transparent)]
    Fleet(#[from] ConfigError),
    /// The address for direct beats can't be listened on.
    #[error("monitor.listen: {0}")]
    Listen(#[source] StartError),
    /// The bus could not be set up.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// The HTTP client could not be set up.
    #[error("no HTTP client: {0}")]
    Client(#[from] reqwest::Error),
    /// A metric's name is taken.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// Watches until the process is shut down.
///
/// # Errors
/// [`MonitorError`] if it can't start; later nothing ends it.
pub async fn run(
    config: MonitorConfig,
    fleet: FleetConfig,
    broker: BrokerConfig,
    process: Process,
) -> Result<(), MonitorError> {
    let guard = fleet.guard(config.listen, "monitor.listen")?;
    let listener = listen(config.listen).await.map_err(MonitorError::Listen)?;
    let metrics = Metrics::register(process.registry(), process.domain())?;
    let bus = Bus::start(&broker, "monitor", &process)?;
    let (sender, direct) = mpsc::channel(WAITING_BEATS);
    process.spawn(
        "direct",
        direct::serve(listener, guard, sender, metrics.refused(), process.shutdown()),
    );
    let (outgoing, observations) = publish::queue();
    process.spawn(
        "observations",
        publish::run(bus.clone(), observations, process.clone()),
    );
    // One answer at a time; a new one replaces nothing that matters.
    let (enrolled, answers) = mpsc::channel(1);
    let ask = Arc::new(Notify::new());
    process.spawn(
        "enrolled",
        ask_enrolled(bus.clone(), enrolled, Arc::clone(&ask), process.clone()),
    );

    let (prober, probed) = Prober::new(bus.clone(), process.clone())?;
    let watch = Watch {
        presence: Presence::at(DomainId::new(process.domain()).ok()),
        known: BTreeMap::new(),
        enrolled: Enrolled::new(),
        looked: BTreeMap::new(),
        ask: Arc::clone(&ask),
        prober,
        metrics,
        shown: Monotonic::default(),
        outgoing,
        findings: Findings::new(process.tracer().clone()),
    };
    watch.run(bus, direct, answers, probed, &process).await;
    process.finish().await;
    Ok(())
}

/// Who is enrolled.
type Enrolled = BTreeMap<ServerId, EnrolledServer>;

/// What the monitor knows of one that is.
struct EnrolledServer {
    domain: DomainId,
    /// Where its sync service is reached.
    address: String,
    /// The failover servers that it is paired with.
    paired_with: Vec<ServerId>,
}

struct Watch {
    presence: Presence,
    known: BTreeMap<ServerId, DomainId>,
    enrolled: Enrolled,
    /// When each server that is missed was last looked for.
    looked: BTreeMap<ServerId, Monotonic>,
    /// Rings when it is to be asked at once who is enrolled.
    ask: Arc<Notify>,
    prober: Prober,
    metrics: Metrics,
    /// When the metrics were last brought up to date.
    shown: Monotonic,
    outgoing: Outgoing,
    findings: Findings,
}

impl Watch {
    async fn run(
        mut self,
        bus: Bus,
        mut direct: mpsc::Receiver<Heartbeat>,
        mut enrolled: mpsc::Receiver<Enrolled>,
        mut probed: mpsc::Receiver<Probed>,
        process: &Process,
    ) {
        let shutdown = process.shutdown();
        let mut by_broker = bus.subscribe(Queue::heartbeats(&["*.heartbeat.*"]));
        let mut link = bus.link();
        link.mark_changed();
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let seen = tokio::select! {
                () = shutdown.cancelled() => return,
                Some(beat) = direct.recv() => self.beat(Path::Direct, beat),
                incoming = by_broker.next() => match incoming {
                    Some(incoming) => self.incoming(incoming).await,
                    None => return,
                },
                Ok(()) = link.changed() => {
                    let down = why_down(&link.borrow_and_update());
                    self.presence.broker(down, clock::now())
                }
                Some(servers) = enrolled.recv() => self.enrolled(servers),
                Some(Probed { server, observer, looked }) = probed.recv() => {
                    self.presence.looked(&server, observer.as_ref(), looked, clock::now())
                }
                _ = ticks.tick() => self.tick(),
            };
            self.say(seen);
        }
    }

    async fn incoming(&mut self, incoming: Incoming) -> Vec<Seen> {
        match read(&incoming) {
            Ok(beat) => {
                incoming.ack().await;
                self.beat(Path::Broker, beat)
            }
            Err(why) => {
                self.metrics.refused().inc();
                tracing::warn!(
                    message.kind = incoming.kind,
                    message.source = incoming.source,
                    why,
                    "message refused"
                );
                incoming.dead(&why).await;
                Vec::new()
            }
        }
    }

    fn beat(&mut self, path: Path, beat: Heartbeat) -> Vec<Seen> {
        if !self.known.contains_key(&beat.server) && self.known.len() >= MOST_SERVERS {
            self.metrics.refused().inc();
            tracing::warn!(server = %beat.server, most = MOST_SERVERS, "more servers beat than are watched");
            return Vec::new();
        }
        let now = clock::now();
        self.known.insert(beat.server.clone(), beat.domain.clone());
        self.metrics.beat(path, &beat, now);
        self.presence.beat(path, beat, now)
    }

    /// Who is enrolled: a server that was never heard is watched too, and one that was removed no more.
    fn enrolled(&mut self, enrolled: Enrolled) -> Vec<Seen> {
        let now = clock::now();
        let servers: BTreeMap<ServerId, DomainId> = enrolled
            .iter()
            .map(|(id, server)| (id.clone(), server.domain.clone()))
            .collect();
        // Whoever has other failover servers than before is looked for anew.
        let paired_with =
            |all: &Enrolled, server: &ServerId| all.get(server).map(|known| known.paired_with.clone());
        self.looked
            .retain(|server, _| paired_with(&self.enrolled, server) == paired_with(&enrolled, server));
        self.enrolled = enrolled;
        self.presence.watch(servers.clone(), now);
        self.metrics.keep(&servers.keys().cloned().collect());
        self.findings.keep(|server| servers.contains_key(server));
        self.known = servers;
        self.presence.tick(now)
    }

    fn tick(&mut self) -> Vec<Seen> {
        let now = clock::now();
        if now.monotonic.since(self.shown) >= SHOW_EVERY {
            self.shown = now.monotonic;
            self.metrics
                .tick(self.presence.blindness().is_any(), now.monotonic);
        }
        self.look_for_missed(now);
        self.presence.tick(now)
    }

    /// From the second missed beat on, and for as long as it is missed.
    fn look_for_missed(&mut self, now: Moment) {
        let missed = self.presence.missed(now);
        self.looked.retain(|server, _| missed.contains(server));
        for server in missed {
            let recently = |at: &Monotonic| now.monotonic.since(*at) < LOOK_EVERY;
            if self.looked.get(&server).is_some_and(recently) {
                continue;
            }
            let known = self.enrolled.get(&server);
            if !self.looked.contains_key(&server) && known.is_none_or(|known| known.paired_with.is_empty()) {
                // It may have been enrolled or paired a moment ago.
                self.ask.notify_one();
            }
            let Some(known) = known else { continue };
            let witnesses = self.presence.witnesses(&server, &known.paired_with, now);
            if self.prober.probe(&server, &known.address, witnesses) {
                self.looked.insert(server, now.monotonic);
            }
        }
    }

    fn say(&mut self, seen: Vec<Seen>) {
        for Seen {
            domain,
            transitions,
            observation,
        } in seen
        {
            if !transitions.is_empty() {
                tracing::info!(
                    server = %observation.server, ?transitions, silent_ms = observation.silent_ms,
                    blind = observation.blind, "a server is seen otherwise"
                );
            }
            self.metrics.observed(&domain, &observation);
            let trace = self.findings.trace_of(&observation);
            self.outgoing.put(domain, observation, trace);
        }
    }
}

fn why_down(link: &Link) -> Option<String> {
    match link {
        Link::Up => None,
        Link::Down { why } => Some(why.clone()),
        // A broker short of memory or disk silences everybody: nothing follows from that.
        Link::Blocked { why } => Some(format!("the broker takes no messages: {why}")),
    }
}

fn read(incoming: &Incoming) -> Result<Heartbeat, String> {
    if incoming.kind != HEARTBEAT_TYPE {
        return Err(format!("a heartbeat was expected, not {:?}", incoming.kind));
    }
    if incoming.body.len() as u64 > direct::MAX_BEAT_BYTES {
        return Err(format!("a heartbeat has no {} bytes", incoming.body.len()));
    }
    incoming.json().map_err(|error| error.to_string())
}

/// Asks the orchestrator who is enrolled, soon after the broker is there and every so often. Without an
/// answer the monitor goes on with whom it knows.
async fn ask_enrolled(bus: Bus, answers: mpsc::Sender<Enrolled>, ask: Arc<Notify>, process: Process) {
    let shutdown = process.shutdown();
    let mut link = bus.link();
    loop {
        let asked = async {
            let _ = link.wait_for(|link| *link == Link::Up).await;
            let request = OrchestratorRequest::ListServers;
            let answer =
                bus.request::<_, Answer<OrchestratorReply>>(ORCHESTRATOR, &request, ENROLLED_DEADLINE);
            match answer.await {
                Ok(Ok(OrchestratorReply::Servers(servers))) => {
                    let servers = servers.into_iter().map(|view| {
                        let server = EnrolledServer {
                            domain: view.server.domain,
                            address: view.server.sync_address,
                            paired_with: view.paired_with,
                        };
                        (view.server.id, server)
                    });
                    // Fails only when the watch has ended, and this task with it.
                    let _ = answers.send(servers.collect()).await;
                }
                Ok(other) => tracing::debug!(?other, "the orchestrator can't say who is enrolled"),
                Err(error) => tracing::debug!(%error, "the orchestrator can't say who is enrolled"),
            }
            tokio::time::sleep(ENROLLED_LEAST).await;
            let _at_once = tokio::time::timeout(ENROLLED_EVERY, ask.notified()).await;
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = asked => {}
        }
    }
}
