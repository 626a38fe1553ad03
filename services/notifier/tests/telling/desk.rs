//! The notifier at work, and whoever tells facts.

use std::path::Path;

use understudy_bus::{Bus, Message, testing::Broker};
use understudy_core::{
    contract::{
        api::{FailoverReason, ReasonKind},
        event::{Event, Fact},
        names,
    },
    ids::{DomainId, FailoverId, ServerId},
    time::Timestamp,
};
use understudy_notifier::{NotifierConfig, ReceiverConfig};
use understudy_runtime::{HostConfig, Process, Secret};

use crate::receivers::eventually;

pub(crate) fn receiver(name: &str, to: &str) -> ReceiverConfig {
    ReceiverConfig {
        name: name.to_owned(),
        to: Some(Secret::new(to)),
        to_file: None,
        events: None,
        domains: Vec::new(),
        servers: Vec::new(),
        quiet: None,
        urgent: None,
        each: None,
        gather_ms: None,
        secret: None,
        secret_file: None,
        token: None,
        token_file: None,
    }
}

pub(crate) fn config(receivers: Vec<ReceiverConfig>) -> NotifierConfig {
    NotifierConfig {
        receivers,
        first_pause_ms: 50,
        longest_pause_ms: 400,
        deadline_ms: 2_000,
        ..NotifierConfig::default()
    }
}

pub(crate) fn host(folder: &Path) -> HostConfig {
    HostConfig {
        data: folder.to_owned(),
        ..HostConfig::default()
    }
}

pub(crate) fn start(config: &NotifierConfig, host: &HostConfig, broker: &Broker) -> Process {
    let process = Process::for_test("notifier");
    let (config, host, broker, running) = (config.clone(), host.clone(), broker.config(), process.clone());
    process.spawn("notifier", async move {
        understudy_notifier::run(config, host, broker, running)
            .await
            .expect("the notifier starts");
    });
    process
}

pub(crate) fn started(failover: &str) -> Event {
    Event::FailoverStarted {
        failover: FailoverId::new(failover).unwrap(),
        server: ServerId::new("recorder-1").unwrap(),
        stand_in: ServerId::new("failover-1").unwrap(),
        reason: FailoverReason {
            kind: ReasonKind::Disconnection,
            summary: "not heard for 1 s".to_owned(),
            evidence: Vec::new(),
        },
        silent_ms: 1_000,
        disabled: Vec::new(),
    }
}

/// Whoever tells facts.
pub(crate) struct Teller {
    pub(crate) bus: Bus,
    pub(crate) process: Process,
}

impl Teller {
    pub(crate) async fn new(broker: &Broker) -> Self {
        let process = Process::for_test("teller");
        let bus = Bus::start(&broker.config(), "teller", &process).unwrap();
        eventually("the bus", async || bus.connected().await.then_some(())).await;
        Self { bus, process }
    }

    pub(crate) async fn tell(&self, event: Event) -> Message {
        let message = Message::fact(&Fact {
            domain: DomainId::new("east").unwrap(),
            at: Timestamp(1_782_864_000_000),
            event,
        });
        self.bus.publish(message.clone()).await.unwrap();
        message
    }

    pub(crate) async fn done(self) {
        self.process.finish().await;
    }
}

/// Facts are only heard once the notifier has its queue.
pub(crate) async fn listens(broker: &Broker) {
    eventually("the notifier's queue to be consumed", async || {
        let listed = broker
            .control(&["-q", "list_queues", "name", "consumers"])
            .await
            .unwrap();
        let mut lines = listed.lines();
        lines
            .any(|line| line.starts_with(names::NOTIFIER_QUEUE) && line.ends_with('1'))
            .then_some(())
    })
    .await;
}

pub(crate) fn figure(process: &Process, name: &str, labels: &[(&str, &str)]) -> f64 {
    let families = process.registry().gather();
    let family = families.iter().find(|family| family.name() == name);
    let metrics = family.map(|family| family.get_metric()).unwrap_or_default();
    let fits = |metric: &&prometheus::proto::Metric| {
        labels.iter().all(|(key, value)| {
            let mut pairs = metric.get_label().iter();
            pairs.any(|pair| pair.name() == *key && pair.value() == *value)
        })
    };
    let metric = metrics.iter().find(fits);
    metric.map_or(f64::NAN, |metric| {
        metric.get_counter().get_value() + metric.get_gauge().get_value()
    })
}
