//! The shell: one task owns what is to be told, and one for each receiver delivers.

use std::{collections::BTreeMap, sync::Arc};

use jiff::tz::TimeZone;
use rand::Rng as _;
use tokio::sync::{Notify, mpsc};
use understudy_bus::{BrokerConfig, Bus, BusError, Incoming, Queue, Subscription};
use understudy_core::{
    contract::names,
    notice::{Effect, Input, Notice, Now, Settings, State, step},
};
use understudy_runtime::{HostConfig, Process, clock};
use understudy_store::{Store, StoreError};

use crate::{
    config::NotifierConfig,
    metrics::Metrics,
    names::NameBook,
    outbox::{Outbox, SERVICE},
    plan::Plan,
    send::{Failed, Target},
    tables,
    text::{Letter, local_minutes},
};

/// Facts that are stored in one transaction.
const BATCH: usize = 128;

/// Why the service could not start, or go on.
#[derive(Debug, thiserror::Error)]
pub enum NotifierError {
    /// A key of `[notifier]` can't be used, or a secret is missing; it says which, and what to do.
    #[error("{0}")]
    Configuration(String),
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

/// What became of an attempt.
type Outcome = (Notice, Result<(), Failed>);

/// Tells whoever is configured until the process ends.
///
/// # Errors
/// [`NotifierError`] says what to do about it.
pub async fn run(
    config: NotifierConfig,
    host: HostConfig,
    broker: BrokerConfig,
    process: Process,
) -> Result<(), NotifierError> {
    let plan = Plan::of(&config)?;
    let store = Store::open(host.data.join("notifier.db"), tables::MIGRATIONS)?;
    let stored = store.run_patiently(tables::load).await?;
    let metrics = Metrics::register(process.registry(), host.domain.as_str(), &plan.settings)?;
    let bus = Bus::start(&broker, SERVICE, &process)?;
    let wake = Arc::new(Notify::new());
    understudy_bus::outbox::pump(bus.clone(), Outbox(store.clone()), wake.clone(), &process);
    if plan.targets.is_empty() {
        tracing::warn!("nobody is told of anything: no [[notifier.receivers]] are configured");
    }
    let mut keys = plan.routing_keys();
    if keys.is_empty() {
        // A queue of the time in which somebody was configured is emptied all the same.
        keys.push("*.failover.*".to_owned());
    }
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let facts = bus.subscribe(Queue::kept_events(names::NOTIFIER_QUEUE, &keys));
    // Each receiver has one message under way at most.
    let (outcomes, heard) = mpsc::channel(plan.targets.len().max(1));
    let now = now(&plan.zone);
    let (state, effects) = State::restore(&plan.settings, stored.notices, stored.told, stored.seen, now);
    let mut notifier = Notifier {
        lines: deliverers(
            plan.targets,
            &bus,
            (&plan.zone, plan.deadline),
            &outcomes,
            &process,
        ),
        settings: plan.settings,
        zone: plan.zone,
        store,
        metrics,
        wake,
        state,
    };
    notifier.carry_out(effects).await?;
    notifier.serve(facts, heard, &process).await
}

fn now(zone: &TimeZone) -> Now {
    let moment = clock::now();
    Now {
        monotonic: moment.monotonic,
        local_minutes: local_minutes(moment.wall, zone),
    }
}

/// A task for each receiver, and the way to it.
fn deliverers(
    targets: BTreeMap<String, Target>,
    bus: &Bus,
    (zone, deadline): (&TimeZone, std::time::Duration),
    outcomes: &mpsc::Sender<Outcome>,
    process: &Process,
) -> BTreeMap<String, mpsc::Sender<Notice>> {
    let book = NameBook::new(bus.clone());
    let mut lines = BTreeMap::new();
    for (receiver, target) in targets {
        // One at a time: the core sends no second one before it has heard of the first.
        let (line, mut notices) = mpsc::channel::<Notice>(1);
        let (outcomes, zone, book) = (outcomes.clone(), zone.clone(), book.clone());
        let shutdown = process.shutdown();
        process.spawn("receiver", async move {
            loop {
                let deliver = async {
                    let notice = notices.recv().await?;
                    let letter = Letter::write(&notice, &book.names().await, &zone);
                    let outcome = target.send(&letter, deadline).await;
                    // Fails when the service ends; what it did not hear of is sent again after its next start.
                    outcomes.send((notice, outcome)).await.ok()
                };
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    delivered = deliver => if delivered.is_none() { return },
                }
            }
        });
        lines.insert(receiver, line);
    }
    lines
}

struct Notifier {
    settings: Settings,
    zone: TimeZone,
    store: Store,
    metrics: Metrics,
    /// Wakes whoever publishes dead letters.
    wake: Arc<Notify>,
    lines: BTreeMap<String, mpsc::Sender<Notice>>,
    state: State,
}

impl Notifier {
    async fn serve(
        &mut self,
        mut facts: Subscription,
        mut heard: mpsc::Receiver<Outcome>,
        process: &Process,
    ) -> Result<(), NotifierError> {
        let shutdown = process.shutdown();
        loop {
            let now = now(&self.zone);
            self.metrics.show(&self.state, &self.settings, now);
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                fact = facts.next() => {
                    let Some(fact) = fact else { return Ok(()) };
                    self.hear(fact, &mut facts).await?;
                }
                Some((notice, outcome)) = heard.recv() => self.delivered(&notice, outcome).await?,
                () = tokio::time::sleep(self.state.idle(&self.settings, now)) => {
                    let effects = self.step(Input::Tick);
                    self.carry_out(effects).await?;
                }
            }
        }
    }

    /// Stores what a fact, and those that have arrived with it, make of messages; then they are acknowledged.
    async fn hear(&mut self, first: Incoming, facts: &mut Subscription) -> Result<(), NotifierError> {
        let mut incoming = vec![first];
        while incoming.len() < BATCH
            && let Some(next) = facts.try_next()
        {
            incoming.push(next);
        }
        let mut effects = Vec::new();
        let mut good = Vec::with_capacity(incoming.len());
        for message in incoming {
            match message.fact() {
                Ok(fact) => {
                    effects.extend(self.step(Input::Fact(message.id.clone(), fact)));
                    good.push(message);
                }
                // One of a later version, or not ours.
                Err(error) => message.dead(error.to_string()).await,
            }
        }
        self.carry_out(effects).await?;
        for message in good {
            message.ack().await;
        }
        Ok(())
    }

    async fn delivered(&mut self, notice: &Notice, outcome: Result<(), Failed>) -> Result<(), NotifierError> {
        let receiver = notice.receiver.as_str();
        let input = match outcome {
            Ok(()) => {
                tracing::info!(receiver, id = notice.id, about = notice.story, "told");
                self.metrics.count(receiver, "sent");
                Input::Sent(notice.number)
            }
            Err(Failed { why, refused }) => {
                tracing::warn!(
                    receiver,
                    id = notice.id,
                    attempts = notice.attempts + 1,
                    why,
                    "not told yet"
                );
                self.metrics
                    .count(receiver, if refused { "refused" } else { "failed" });
                Input::Failed {
                    number: notice.number,
                    why,
                    refused,
                    luck: rand::thread_rng().gen_range(0..=1000),
                }
            }
        };
        let effects = self.step(input);
        self.carry_out(effects).await
    }

    fn step(&mut self, input: Input) -> Vec<Effect> {
        let now = now(&self.zone);
        step(&mut self.state, &self.settings, input, now)
    }

    /// First everything is stored, then it is sent.
    async fn carry_out(&mut self, effects: Vec<Effect>) -> Result<(), NotifierError> {
        let (sends, stored): (Vec<Effect>, Vec<Effect>) = effects
            .into_iter()
            .partition(|effect| matches!(effect, Effect::Send(_)));
        if !stored.is_empty() {
            let given_up: Vec<(String, String, String)> = stored
                .iter()
                .filter_map(|effect| match effect {
                    Effect::GiveUp(notice, why) => {
                        Some((notice.receiver.clone(), notice.id.clone(), why.clone()))
                    }
                    _ => None,
                })
                .collect();
            self.store
                .run_patiently(move |connection| {
                    stored
                        .iter()
                        .try_for_each(|effect| tables::store(connection, effect))
                })
                .await?;
            for (receiver, id, why) in given_up {
                tracing::error!(
                    receiver,
                    id,
                    why,
                    "a message is given up; it is among the dead letters"
                );
                self.metrics.count(&receiver, "given_up");
                self.wake.notify_one();
            }
        }
        for effect in sends {
            if let Effect::Send(notice) = effect
                && let Some(line) = self.lines.get(&notice.receiver)
            {
                // There is room: nothing is under way. It fails when the process ends.
                let _ends = line.send(notice).await;
            }
        }
        Ok(())
    }
}
