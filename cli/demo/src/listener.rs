//! The demo's own subscription to `understudy.events`, as any program outside could have one: what happened,
//! and when it arrived here.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::{sync::broadcast, task::JoinHandle};
use understudy_bus::{BrokerConfig, Bus, Queue};
use understudy_core::contract::event::{Event, Fact};
use understudy_runtime::Process;

use crate::DemoError;

/// More facts than a demo has: a reader that falls so far behind is broken, and is told.
const BACKLOG: usize = 4096;

/// A fact, and when it arrived, in microseconds of `CLOCK_REALTIME`.
#[derive(Clone, Debug)]
pub struct Heard {
    /// When it arrived.
    pub at_us: i64,
    /// What happened.
    pub fact: Fact,
}

/// Listens for as long as it lives.
#[derive(Debug)]
pub struct Listener {
    process: Process,
    heard: broadcast::Sender<Heard>,
    task: JoinHandle<()>,
}

impl Listener {
    /// Subscribes to every event, and returns once the broker has the subscription.
    ///
    /// # Errors
    /// [`DemoError::Broker`] if the broker can't be reached.
    pub async fn start(broker_url: &str) -> Result<Self, DemoError> {
        let process = Process::for_test("listener");
        let config = BrokerConfig {
            url: broker_url.to_owned(),
            ..BrokerConfig::default()
        };
        let bus =
            Bus::start(&config, "demo", &process).map_err(|error| DemoError::Broker(error.to_string()))?;
        let mut subscription = bus.subscribe(Queue::events(&["#"]));
        subscription.consuming().await;
        let (heard, _) = broadcast::channel(BACKLOG);
        let sender = heard.clone();
        let task = tokio::spawn(async move {
            while let Some(incoming) = subscription.next().await {
                let at_us = now_us();
                if let Ok(fact) = incoming.fact() {
                    // Nobody may be listening at the moment.
                    let _ = sender.send(Heard { at_us, fact });
                }
                // The queue is the demo's own and goes with it.
                incoming.ack().await;
            }
        });
        Ok(Self { process, heard, task })
    }

    /// Facts from now on.
    pub fn facts(&self) -> Facts {
        Facts {
            heard: self.heard.subscribe(),
        }
    }

    /// Ends.
    pub async fn stop(self) {
        self.process.finish().await;
        self.task.abort();
    }
}

/// A place in the stream of facts.
#[derive(Debug)]
pub struct Facts {
    heard: broadcast::Receiver<Heard>,
}

impl Facts {
    /// Passes on what was heard so far, so that it does not look as if it came later.
    pub fn so_far(&mut self, mut each: impl FnMut(&Heard)) {
        while let Ok(heard) = self.heard.try_recv() {
            each(&heard);
        }
    }

    /// The next fact that `wanted` takes; those before it are passed to `others`.
    ///
    /// # Errors
    /// [`DemoError::Deadline`] if none comes in time.
    pub async fn next(
        &mut self,
        what: &str,
        at_most: Duration,
        wanted: impl Fn(&Event) -> bool,
        mut others: impl FnMut(&Heard),
    ) -> Result<Heard, DemoError> {
        let mut last = "nothing was heard".to_owned();
        let found = tokio::time::timeout(at_most, async {
            loop {
                let heard = self
                    .heard
                    .recv()
                    .await
                    .map_err(|error| DemoError::Broker(error.to_string()))?;
                if wanted(&heard.fact.event) {
                    return Ok(heard);
                }
                heard.fact.event.name().clone_into(&mut last);
                others(&heard);
            }
        })
        .await;
        found.unwrap_or_else(|_| {
            Err(DemoError::Deadline {
                seconds: at_most.as_secs(),
                what: what.to_owned(),
                state: format!("the last event was: {last}"),
            })
        })
    }
}

/// The wall clock in microseconds, as the simulator counts.
#[must_use]
#[expect(
    clippy::disallowed_methods,
    reason = "compared with the simulator's times, and finer than the runtime's clock"
)]
pub fn now_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
