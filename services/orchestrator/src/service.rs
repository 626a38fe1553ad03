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
        event::Fact,
        names,
        rpc::{Answer, LicenseRequest, OrchestratorReply, OrchestratorRequest},
    },
    fleet::{Effect, Fleet, Input, Record},
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
    traces::{Sending, Traces},
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
    let traced = store.run_patiently(tables::load_traces).await?;
    let traces = Traces::new(process.tracer().clone(), traced, &fleet);
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
        ledger::ask(
            bus.clone(),
            requests,
            jobs.clone(),
            process.tracer().clone(),
            process.shutdown(),
        ),
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
        traces,
    };
    orchestrator.run(waiting, &process).await;
    Ok(())
}

async fn ask(jobs: mpsc::Sender<Job>, request: OrchestratorRequest) -> Answer<OrchestratorReply> {
    let away = || Problem::unavailable("the orchestrator is ending: try again");
    let (answer, answered) = oneshot::channel();
    let job = Job {
        trace: TraceContext::carried(),
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
    traces: Traces,
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
            Work::Input(input) => {
                if let (Input::Observed { observation, .. }, Some(trace)) = (&*input, TraceContext::current())
                {
                    self.traces.observed(&observation.server, trace, &self.fleet);
                }
                self.step(*input).await;
            }
            Work::Request(request, answer) => {
                let reply = self.answer(request).await;
                // Whoever asked may have given up.
                let _gone = answer.send(reply);
            }
        }
    }

    async fn step(&mut self, input: Input) {
        let begun = clock::wall_nanoseconds();
        let effects = self.fleet.step(input, clock::now());
        self.carry_out(effects, begun).await;
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
        let begun = clock::wall_nanoseconds();
        let (mut answer, effects) = self.fleet.answer(request, fresh(), clock::now());
        self.carry_out(effects, begun).await;
        if let Ok(reply) = &mut answer {
            self.traces.complete(reply);
        }
        answer
    }

    /// Stores what is to be kept and what is to be sent in one transaction; whatever follows, follows that. What led
    /// to it was taken in hand when the wall clock said `begun`.
    async fn carry_out(&mut self, effects: Vec<Effect>, begun: u64) {
        let mut changes = Vec::new();
        let mut messages = Vec::new();
        let mut asked = Vec::new();
        let (mut decisions, mut sendings) = (Vec::new(), Vec::new());
        for effect in &effects {
            // First, since the messages that follow from a failover are a part of it.
            if let Effect::Save(record) = effect
                && let Record::Failover(failover) = &**record
                && let Some(traced) = self.traces.changed(failover)
            {
                decisions.push(self.traces.decision(&failover.id, begun));
                changes.push(Change::Trace(failover.id.clone(), traced));
            }
        }
        for effect in effects {
            match effect {
                Effect::Save(record) => changes.push(Change::Save(record)),
                Effect::Delete(key) => {
                    if key.kind == "failover" {
                        self.traces.forget(&key.id);
                    }
                    changes.push(Change::Delete(key));
                }
                Effect::Assign(assignment) => {
                    let message = Message::assignment(&assignment);
                    let sending = self.traces.sending(&assignment, &self.fleet);
                    let trace = sending
                        .as_ref()
                        .map_or(message.trace, |sending| sending.context());
                    sendings.extend(sending);
                    messages.push(Message { trace, ..message });
                }
                Effect::Stage { server, bundle } => {
                    messages.push(Message::bundle(&server, &self.key.seal(&bundle)));
                }
                Effect::Emit(fact) => {
                    self.metrics.count(&fact.event, &self.fleet);
                    messages.push(self.tell(&fact));
                }
                Effect::License(request) => asked.push(request),
            }
        }
        let kept = !changes.is_empty() || !messages.is_empty();
        if kept {
            self.persist(changes, messages).await;
        }
        sendings.into_iter().for_each(Sending::sent);
        for decision in decisions {
            self.traces.decided(decision, &self.fleet);
        }
        // Only now: keys that moved for a failover that a crash forgot would never come back.
        for request in asked {
            let about =
                ledger::about(&request).and_then(|(id, _)| self.traces.of_id(&self.fleet, id.as_str()));
            // Full: the fleet asks again.
            let trace = about.unwrap_or_else(TraceContext::carried);
            drop(self.licenses.try_send((trace, request)));
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

    /// Logs a fact, and makes the message of it: both in the trace of the failover that it is about.
    fn tell(&self, fact: &Fact) -> Message {
        let (event, subject) = (fact.event.name(), fact.event.subject());
        let trace = self.traces.of_id(&self.fleet, subject);
        let trace = trace.unwrap_or_else(TraceContext::carried);
        trace.within(|| {
            tracing::info!(event, subject, "event");
            Message::fact(fact)
        })
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
