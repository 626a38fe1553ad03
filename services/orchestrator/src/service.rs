//! One task owns the fleet: an input at a time, its effects stored, then sent, then the next.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::{
    sync::{Notify, mpsc, oneshot, watch},
    time::{MissedTickBehavior, interval, sleep},
};
use understudy_bus::{BrokerConfig, Bus, BusError, Message};
use understudy_core::{
    contract::{
        api::Problem,
        names,
        rpc::{Answer, LicenseRequest, OrchestratorReply, OrchestratorRequest},
    },
    fleet::{Effect, Fleet, Input},
    ids::ServerId,
    server::Mode,
};
use understudy_runtime::{
    Condition, HostConfig, Process, TraceContext, clock, seal::FleetKey, seal::SealError,
};
use understudy_store::{Store, StoreError};

use crate::{
    config::OrchestratorConfig,
    grants::{self, Holders},
    job::{Job, Work, fresh},
    ledger, listen,
    metrics::Metrics,
    outbox::{Outbox, SERVICE},
    queues,
    tables::{self, Change},
};

/// How often time passes for the fleet.
const TICK: Duration = Duration::from_millis(100);
/// How often the metrics are brought up to date.
const METRICS: Duration = Duration::from_secs(1);
/// Inputs and requests that wait for the fleet: a thousand servers' reports of one second. Beyond it their
/// senders wait, and the broker drops the oldest heartbeats.
const WAITING: usize = 1024;
/// How long it waits before it tries to store again.
const RETRY: Duration = Duration::from_millis(200);

/// Why the orchestrator could not start.
#[derive(Debug, thiserror::Error)]
pub enum OrchestratorError {
    /// The fleet's key can't be used.
    #[error("[orchestrator] fleet_key_file: {0}")]
    Key(#[from] SealError),
    /// The database can't be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The broker's configuration can't be used.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// A metric was registered twice.
    #[error(transparent)]
    Metrics(#[from] prometheus::Error),
}

/// Runs the fleet until the process ends.
///
/// # Errors
/// [`OrchestratorError`] says what to do about it.
pub async fn run(
    config: OrchestratorConfig,
    host: HostConfig,
    broker: BrokerConfig,
    process: Process,
) -> Result<(), OrchestratorError> {
    let key = FleetKey::load(&config.fleet_key_file)?;
    let store = Store::open(host.database(), tables::MIGRATIONS)?;
    let database = process.condition("database");
    let fleet = Fleet::restore(store.run_patiently(tables::load).await?);
    database.ready();
    let metrics = Metrics::register(process.registry())?;
    let bus = Bus::start(&broker, SERVICE, &process)?;

    let wake = Arc::new(Notify::new());
    understudy_bus::outbox::pump(bus.clone(), Outbox(store.clone()), wake.clone(), &process);
    let (servers, enrolled) = watch::channel(BTreeSet::new());
    process.spawn(
        "queues",
        queues::keep(bus.clone(), enrolled, wake.clone(), process.shutdown()),
    );
    let (holders, held) = watch::channel(Holders::new());
    process.spawn("grants", grants::keep(bus.clone(), held, process.shutdown()));
    let (jobs, waiting) = mpsc::channel(WAITING);
    let (licenses, requests) = mpsc::channel(ledger::WAITING);
    process.spawn(
        "ledger",
        ledger::ask(bus.clone(), requests, jobs.clone(), process.shutdown()),
    );
    process.spawn("listen", listen::listen(bus.clone(), jobs.clone()));
    let asked = jobs.clone();
    bus.serve(
        names::ORCHESTRATOR,
        move |request| ask(asked.clone(), request),
        &process,
    );

    let mut orchestrator = Orchestrator {
        fleet,
        key,
        store,
        database,
        wake,
        servers,
        holders,
        licenses,
        metrics,
    };
    orchestrator.run(waiting, &process).await;
    Ok(())
}

async fn ask(jobs: mpsc::Sender<Job>, request: OrchestratorRequest) -> Answer<OrchestratorReply> {
    let away = || Problem::unavailable("the orchestrator is ending: try again");
    let (answer, answered) = oneshot::channel();
    let job = Job {
        trace: TraceContext::next(),
        work: Work::Request(request, answer),
    };
    jobs.send(job).await.map_err(|_| away())?;
    answered.await.map_err(|_| away())?
}

struct Orchestrator {
    fleet: Fleet,
    key: FleetKey,
    store: Store,
    database: Condition,
    wake: Arc<Notify>,
    servers: watch::Sender<BTreeSet<ServerId>>,
    holders: watch::Sender<Holders>,
    licenses: mpsc::Sender<(TraceContext, LicenseRequest)>,
    metrics: Metrics,
}

impl Orchestrator {
    async fn run(&mut self, mut jobs: mpsc::Receiver<Job>, process: &Process) {
        let shutdown = process.shutdown();
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut shows = interval(METRICS);
        shows.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.step(Input::Started).await;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = ticks.tick() => {
                    TraceContext::root().scope(self.step(Input::Tick { fresh: fresh() })).await;
                    self.show_holders();
                }
                _ = shows.tick() => self.metrics.show(&mut self.fleet),
                job = jobs.recv() => match job {
                    Some(Job { trace, work }) => trace.scope(self.work(work)).await,
                    None => return,
                },
            }
        }
    }

    async fn work(&mut self, work: Work) {
        match work {
            Work::Input(input) => self.step(*input).await,
            Work::Request(request, answer) => {
                let reply = self.answer(request).await;
                // Whoever asked may have given up.
                let _gone = answer.send(reply);
            }
        }
    }

    async fn step(&mut self, input: Input) {
        let effects = self.fleet.step(input, clock::now());
        self.carry_out(effects).await;
    }

    /// Who is to act for each recording server, as it is stored. Looked at with each tick only: of two servers that
    /// take turns the new one waits for seconds anyway.
    fn show_holders(&self) {
        let recording = self
            .fleet
            .servers()
            .filter(|server| server.mode == Mode::Recording);
        let now: Holders = recording
            .filter_map(|server| Some((server.id.clone(), self.fleet.holder(&server.id)?)))
            .collect();
        self.holders.send_if_modified(|known| {
            let changed = *known != now;
            *known = now;
            changed
        });
    }

    async fn answer(&mut self, request: OrchestratorRequest) -> Answer<OrchestratorReply> {
        if let OrchestratorRequest::GetBundle(hash) = &request {
            return self
                .fleet
                .bundle(hash)
                .map(|bundle| OrchestratorReply::Bundle(self.key.seal(&bundle)))
                .ok_or_else(|| Problem::not_found("settings bundle", hash));
        }
        let (answer, effects) = self.fleet.answer(request, fresh(), clock::now());
        self.carry_out(effects).await;
        answer
    }

    /// Stores what is to be kept and what is to be sent in one transaction; whatever follows, follows that.
    async fn carry_out(&mut self, effects: Vec<Effect>) {
        let mut changes = Vec::new();
        let mut messages = Vec::new();
        let mut asked = Vec::new();
        for effect in effects {
            match effect {
                Effect::Save(record) => changes.push(Change::Save(record)),
                Effect::Delete(key) => changes.push(Change::Delete(key)),
                Effect::Assign(assignment) => messages.push(Message::assignment(&assignment)),
                Effect::Stage { server, bundle } => {
                    messages.push(Message::bundle(&server, &self.key.seal(&bundle)));
                }
                Effect::Emit(fact) => {
                    tracing::info!(event = fact.event.name(), subject = fact.event.subject(), "event");
                    self.metrics.count(&fact.event, &self.fleet);
                    messages.push(Message::fact(&fact));
                }
                Effect::License(request) => asked.push(request),
            }
        }
        let kept = !changes.is_empty() || !messages.is_empty();
        if kept {
            self.persist(changes, messages).await;
        }
        // Only now: keys that moved for a failover that a crash forgot would never come back.
        for request in asked {
            // Full: the fleet asks again.
            drop(self.licenses.try_send((TraceContext::next(), request)));
        }
        if !kept {
            return;
        }
        let enrolled: BTreeSet<ServerId> = self.fleet.servers().map(|server| server.id.clone()).collect();
        self.servers.send_if_modified(|known| {
            let changed = *known != enrolled;
            *known = enrolled;
            changed
        });
        self.wake.notify_one();
    }

    /// The fleet in memory is ahead of the disk until this returns: nothing may happen before it does, so it
    /// tries for as long as it takes, and says that it waits.
    async fn persist(&self, changes: Vec<Change>, messages: Vec<Message>) {
        let messages: Vec<String> = messages
            .iter()
            .map(|message| serde_json::to_string(message).expect("a message is made of strings and numbers"))
            .collect();
        let work = Arc::new((changes, messages));
        loop {
            let job = work.clone();
            let stored = self.store.run(move |connection| {
                job.0
                    .iter()
                    .try_for_each(|change| tables::store(connection, change))?;
                job.1
                    .iter()
                    .try_for_each(|json| understudy_store::outbox::push(connection, SERVICE, json))
            });
            match stored.await {
                Ok(()) => return self.database.ready(),
                Err(error) => {
                    self.database.not_ready(error.to_string());
                    sleep(RETRY).await;
                }
            }
        }
    }
}
