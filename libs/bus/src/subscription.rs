//! Consuming: messages arrive through a bounded channel, whatever happens to the broker meanwhile.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::StreamExt as _;
use lapin::{
    Acker, BasicProperties, Channel,
    message::Delivery,
    options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions},
    types::{AMQPValue, FieldTable},
};
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, watch};
use understudy_core::{
    contract::{
        event::{Event, Fact},
        names,
    },
    ids::{DomainId, ServerId},
    time::Timestamp,
};
use understudy_runtime::TraceContext;

use crate::{
    Bus,
    backoff::Backoff,
    connection::Session,
    dead,
    lane::Outgoing,
    message::{PREFIX, headers, timestamp, trace_of},
    topology,
};

/// Messages that the broker hands out before the first is acknowledged, and that wait in the process.
const PREFETCH: u16 = 128;
/// Messages that wait at the broker for a listener that is slow; the oldest go first.
const LISTENER_LENGTH: i64 = 20_000;

/// What to consume.
#[derive(Clone, Debug)]
pub struct Queue {
    kind: Kind,
    prefetch: u16,
}

#[derive(Clone, Debug)]
enum Kind {
    /// For this connection alone, while it lasts.
    Own {
        exchange: &'static str,
        keys: Vec<String>,
    },
    Assignments(ServerId),
    /// Facts, kept while nobody consumes them.
    Facts {
        name: &'static str,
        keys: Vec<String>,
    },
}

impl Queue {
    /// Facts, by patterns of their routing keys, e.g. `*.failover.*`. What happens while nobody listens is
    /// not heard; acknowledged by itself.
    #[must_use]
    pub fn events(keys: &[&str]) -> Self {
        Self::own(names::EVENTS, keys)
    }

    /// Heartbeats, reports, observations, by patterns of their routing keys, e.g. `*.report.*`.
    #[must_use]
    pub fn heartbeats(keys: &[&str]) -> Self {
        Self::own(names::HEARTBEATS, keys)
    }

    fn own(exchange: &'static str, keys: &[&str]) -> Self {
        Self {
            kind: Kind::Own {
                exchange,
                keys: keys.iter().map(|&key| key.to_owned()).collect(),
            },
            prefetch: PREFETCH,
        }
    }

    /// A server's assignments and bundles. Each must be acknowledged, or declared dead.
    #[must_use]
    pub fn assignments(server: &ServerId) -> Self {
        Self {
            kind: Kind::Assignments(server.clone()),
            prefetch: PREFETCH,
        }
    }

    /// Facts, by patterns of their routing keys, through the durable queue `name`: what happens while nobody listens
    /// waits there. Each must be acknowledged, or declared dead.
    #[must_use]
    pub fn kept_events(name: &'static str, keys: &[&str]) -> Self {
        Self {
            kind: Kind::Facts {
                name,
                keys: keys.iter().map(|&key| key.to_owned()).collect(),
            },
            prefetch: PREFETCH,
        }
    }

    async fn declare(&self, session: &Session, channel: &Channel) -> lapin::Result<String> {
        match &self.kind {
            Kind::Own { exchange, keys } => {
                let queue = topology::declare_own_queue(channel, LISTENER_LENGTH).await?;
                for key in keys {
                    topology::bind(channel, &queue, exchange, key).await?;
                }
                Ok(queue)
            }
            Kind::Assignments(server) => topology::assignment_queue(&session.connection, server).await,
            Kind::Facts { name, keys } => {
                topology::declare_fact_queue(channel, name).await?;
                for key in keys {
                    topology::bind(channel, name, names::EVENTS, key).await?;
                }
                Ok((*name).to_owned())
            }
        }
    }

    fn name(&self) -> String {
        match &self.kind {
            Kind::Own { exchange, .. } => (*exchange).to_owned(),
            Kind::Assignments(server) => names::assignment_queue(server),
            Kind::Facts { name, .. } => (*name).to_owned(),
        }
    }
}

/// A body that is not what its type says.
#[derive(Debug, thiserror::Error)]
#[error("message {id} of type {kind} can't be read: {why}")]
pub struct MalformedMessage {
    /// CloudEvents `id`.
    pub id: String,
    /// CloudEvents `type`.
    pub kind: String,
    /// What is wrong.
    pub why: String,
}

/// One message that arrived.
pub struct Incoming {
    /// The key that it was sent with.
    pub routing_key: String,
    /// The trace that it belongs to: do in its scope what is done about it.
    pub trace: TraceContext,
    /// CloudEvents `type`.
    pub kind: String,
    /// CloudEvents `id`: equal for repetitions.
    pub id: String,
    /// CloudEvents `source`.
    pub source: String,
    /// CloudEvents `time`.
    pub time: Option<Timestamp>,
    /// CloudEvents `subject`; empty without one.
    pub subject: String,
    /// CloudEvents `data`.
    pub body: Bytes,
    /// Whether it was handed out before.
    pub redelivered: bool,
    /// On which consumption of its subscription it came: see [`Subscription::consumption`].
    pub consumption: u64,
    queue: Arc<str>,
    exchange: String,
    properties: BasicProperties,
    bus: Bus,
    /// None when the subscription acknowledges by itself.
    acker: Option<Acker>,
}

impl std::fmt::Debug for Incoming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("Incoming");
        shown
            .field("kind", &self.kind)
            .field("id", &self.id)
            .field("routing_key", &self.routing_key);
        shown.finish_non_exhaustive()
    }
}

impl Incoming {
    /// The body as `T`.
    ///
    /// # Errors
    /// [`MalformedMessage`] says what is wrong.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, MalformedMessage> {
        serde_json::from_slice(&self.body).map_err(|error| self.malformed(&error.to_string()))
    }

    /// The message as a fact; its body alone has neither the event's name nor its domain.
    ///
    /// # Errors
    /// [`MalformedMessage`] says what is wrong.
    pub fn fact(&self) -> Result<Fact, MalformedMessage> {
        let data: serde_json::Value = self.json()?;
        let tagged = serde_json::json!({ "name": self.kind, "data": data });
        let event: Event =
            serde_json::from_value(tagged).map_err(|error| self.malformed(&error.to_string()))?;
        let domain = self.routing_key.split('.').next().unwrap_or_default();
        let domain = DomainId::new(domain).map_err(|error| self.malformed(&error.to_string()))?;
        let at = self.time.ok_or_else(|| self.malformed("it has no time"))?;
        Ok(Fact { domain, at, event })
    }

    fn malformed(&self, why: &str) -> MalformedMessage {
        MalformedMessage {
            id: self.id.clone(),
            kind: self.kind.clone(),
            why: why.to_owned(),
        }
    }

    /// It was handled. If the connection was lost meanwhile, the broker hands it out again.
    pub async fn ack(&self) {
        if let Some(acker) = &self.acker
            && let Err(error) = acker.ack(BasicAckOptions::default()).await
        {
            tracing::debug!(id = self.id, %error, "not acknowledged; it will come again");
        }
    }

    /// It can't be handled: it goes to `understudy.dead` with the reason, and is acknowledged then. If that
    /// fails it comes again after the next connection.
    pub async fn dead(&self, reason: impl Into<String> + Send) {
        let reason = reason.into();
        tracing::warn!(
            id = self.id,
            kind = self.kind,
            queue = &*self.queue,
            reason,
            "message is dead"
        );
        let mut headers = self.properties.headers().clone().unwrap_or_default();
        let notes = [
            (dead::REASON, reason.as_str()),
            (dead::EXCHANGE, &self.exchange),
            (dead::ROUTING_KEY, &self.routing_key),
        ];
        for (name, value) in notes {
            headers.insert(name.into(), AMQPValue::LongString(value.into()));
        }
        let outgoing = Outgoing {
            exchange: names::DEAD.to_owned(),
            routing_key: self.queue.to_string(),
            mandatory: true,
            id: self.id.clone(),
            body: self.body.clone(),
            properties: self
                .properties
                .clone()
                .with_headers(headers)
                .with_delivery_mode(2),
        };
        match self.bus.facts().publish(outgoing).await {
            Ok(()) => self.ack().await,
            Err(error) => tracing::warn!(id = self.id, %error, "dead message could not be put aside"),
        }
    }
}

/// Messages as they arrive.
#[derive(Debug)]
pub struct Subscription {
    incoming: mpsc::Receiver<Incoming>,
    consuming: watch::Receiver<Option<u64>>,
}

impl Subscription {
    /// The next message; none once the process ends. Can be dropped and asked again without losing one.
    pub async fn next(&mut self) -> Option<Incoming> {
        self.incoming.recv().await
    }

    /// What has arrived already, if anything.
    pub fn try_next(&mut self) -> Option<Incoming> {
        self.incoming.try_recv().ok()
    }

    /// Waits until the broker hands messages out to this subscription: facts published from now on are heard.
    pub async fn consuming(&mut self) {
        // An error means that the process ends, which `next` says.
        let _ends = self.consuming.wait_for(Option::is_some).await;
    }

    /// Which consumption goes on: each connection and each new beginning has a higher number than the one before;
    /// none while the broker hands nothing out.
    #[must_use]
    pub fn consumption(&self) -> watch::Receiver<Option<u64>> {
        self.consuming.clone()
    }
}

pub(crate) fn start(bus: &Bus, queue: Queue) -> Subscription {
    // Bounded by the prefetch: the broker hands out no more before some are acknowledged.
    let (sender, incoming) = mpsc::channel(usize::from(queue.prefetch));
    let (consuming, consuming_seen) = watch::channel(None);
    let feeder = Feeder {
        name: queue.name().into(),
        queue,
        bus: bus.clone(),
        sender,
        consuming,
    };
    bus.process().spawn("bus subscription", feeder.run());
    Subscription {
        incoming,
        consuming: consuming_seen,
    }
}

struct Feeder {
    bus: Bus,
    queue: Queue,
    name: Arc<str>,
    sender: mpsc::Sender<Incoming>,
    consuming: watch::Sender<Option<u64>>,
}

impl Feeder {
    /// Consumes for ever; a lost connection, a closed channel and a cancelled consumer all begin it anew.
    async fn run(self) {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
        let mut sessions = self.bus.sessions();
        for number in 1.. {
            let session = tokio::select! {
                session = sessions.next() => session,
                () = self.stop() => return,
            };
            let Some(session) = session else { return };
            let why = tokio::select! {
                why = self.consume(&session, number, &mut backoff) => why,
                why = session.ended() => why,
            };
            self.consuming.send_replace(None);
            tracing::debug!(queue = &*self.name, why, "consuming begins anew");
            drop(session);
            tokio::select! {
                () = tokio::time::sleep(backoff.pause()) => {}
                () = self.stop() => return,
            }
        }
    }

    /// Waits until the process ends or nobody listens any more.
    async fn stop(&self) {
        let shutdown = self.bus.process().shutdown();
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = self.sender.closed() => {}
        }
    }

    /// Consumes until it has to stop or can't go on, and says why.
    async fn consume(&self, session: &Session, number: u64, backoff: &mut Backoff) -> String {
        let channel = match session.connection.create_channel().await {
            Ok(channel) => channel,
            Err(error) => return error.to_string(),
        };
        let why = tokio::select! {
            ended = self.deliver(session, &channel, number, backoff) => match ended {
                Ok(()) => "the broker ended the consumer".to_owned(),
                Err(error) => error.to_string(),
            },
            () = self.stop() => "nobody listens any more".to_owned(),
        };
        if channel.status().connected() {
            // What was not acknowledged is handed out to the next consumer at once.
            let close = channel.close(200, "done".into());
            let _ended = tokio::time::timeout(Duration::from_secs(1), close).await;
        }
        why
    }

    async fn deliver(
        &self,
        session: &Session,
        channel: &Channel,
        number: u64,
        backoff: &mut Backoff,
    ) -> lapin::Result<()> {
        channel
            .basic_qos(self.queue.prefetch, BasicQosOptions::default())
            .await?;
        let queue = self.queue.declare(session, channel).await?;
        let options = BasicConsumeOptions::default();
        let consumer =
            channel.basic_consume(queue.as_str().into(), "".into(), options, FieldTable::default());
        let mut consumer = consumer.await?;
        backoff.reset();
        self.consuming.send_replace(Some(number));
        while let Some(delivery) = consumer.next().await {
            self.hand_over(delivery?, number).await;
        }
        Ok(())
    }

    async fn hand_over(&self, delivery: Delivery, number: u64) {
        self.bus.metrics().count(delivery.exchange.as_str(), "received");
        let by_itself = matches!(self.queue.kind, Kind::Own { .. });
        let (incoming, acker) = self.incoming(delivery, number, by_itself);
        if self.sender.send(incoming).await.is_ok() && by_itself {
            // Fails with the connection, and the queue with it.
            let _lost = acker.ack(BasicAckOptions::default()).await;
        }
    }

    fn incoming(&self, delivery: Delivery, consumption: u64, by_itself: bool) -> (Incoming, Acker) {
        let mut attributes = headers(&delivery.properties);
        let mut attribute = |name: &str| attributes.remove(&format!("{PREFIX}{name}"));
        let kind = attribute("type").or_else(|| delivery.properties.kind().as_ref().map(ToString::to_string));
        let id =
            attribute("id").or_else(|| delivery.properties.message_id().as_ref().map(ToString::to_string));
        let incoming = Incoming {
            routing_key: delivery.routing_key.to_string(),
            kind: kind.unwrap_or_default(),
            id: id.unwrap_or_default(),
            source: attribute("source").unwrap_or_default(),
            time: attribute("time").as_deref().and_then(timestamp),
            subject: attribute("subject").unwrap_or_default(),
            body: delivery.data.into(),
            redelivered: delivery.redelivered,
            consumption,
            trace: trace_of(&delivery.properties),
            queue: Arc::clone(&self.name),
            exchange: delivery.exchange.to_string(),
            properties: delivery.properties,
            bus: self.bus.clone(),
            acker: (!by_itself).then(|| delivery.acker.clone()),
        };
        (incoming, delivery.acker)
    }
}
