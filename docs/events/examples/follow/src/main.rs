//! Tells the story of each failover, from Understudy's events on RabbitMQ; with nothing of Understudy's own.
//!
//! `AMQP_URL=amqp://events.mine:PASSWORD@broker:5672/%2f cargo run --package understudy-follow-example -- '*.failover.*'`
//!
//! Its queue is its own, bounded, and goes an hour after the last time that it was here. With `--until EVENT` it ends
//! after that event.

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    time::Duration,
};

use anyhow::Context;
use futures::StreamExt;
use lapin::{
    Channel, Connection, ConnectionProperties,
    message::Delivery,
    options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions, QueueBindOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable},
};
use serde_json::Value;

const EXCHANGE: &str = "understudy.events";
/// Of messages that the broker hands out before the first is acknowledged.
const UNACKNOWLEDGED: u16 = 32;
/// Of ids: a repetition of the same message has the same.
const REMEMBERED: usize = 10_000;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let mut keys: Vec<String> = std::env::args().skip(1).collect();
    let mut until = None;
    if let Some(place) = keys.iter().position(|key| key == "--until") {
        let event = keys.drain(place..).nth(1);
        until = Some(event.context("--until which event?")?);
    }
    if keys.is_empty() {
        keys.push("*.failover.*".to_owned());
    }
    let mut follower = Follower {
        url: std::env::var("AMQP_URL").context("set AMQP_URL to amqp://USER:PASSWORD@HOST:5672/%2f")?,
        keys,
        until,
        queue: None,
        seen: Seen::default(),
        begun: BTreeMap::new(),
    };
    let mut pause = Duration::from_millis(200);
    loop {
        match follower.consume(&mut pause).await {
            Ok(true) => return Ok(()),
            Ok(false) => eprintln!("the broker ended it: trying again"),
            Err(error) => eprintln!("the broker is away ({error}): trying again"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(10));
    }
}

struct Follower {
    url: String,
    keys: Vec<String>,
    until: Option<String>,
    /// The name that the broker gave it.
    queue: Option<String>,
    seen: Seen,
    /// When failovers started, in milliseconds of the broker's host.
    begun: BTreeMap<String, String>,
}

impl Follower {
    /// Until the connection ends; true when it heard what it was to wait for.
    async fn consume(&mut self, pause: &mut Duration) -> anyhow::Result<bool> {
        let connection = Connection::connect(&self.url, ConnectionProperties::default()).await?;
        let (channel, queue) = self.own_queue(&connection).await?;
        channel
            .basic_qos(UNACKNOWLEDGED, BasicQosOptions::default())
            .await?;
        let options = BasicConsumeOptions::default();
        let consuming =
            channel.basic_consume(queue.as_str().into(), "".into(), options, FieldTable::default());
        let mut deliveries = consuming.await?;
        *pause = Duration::from_millis(200);
        eprintln!("following {}", self.keys.join(", "));
        while let Some(delivery) = deliveries.next().await {
            let delivery = delivery?;
            let last = self.handle(&delivery);
            // Only now: what was not acknowledged comes again.
            delivery.acker.ack(BasicAckOptions::default()).await?;
            if last {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The queue of before, if it is still there, or a new one.
    async fn own_queue(&mut self, connection: &Connection) -> anyhow::Result<(Channel, String)> {
        if let Some(queue) = self.queue.clone() {
            let channel = connection.create_channel().await?;
            let there = QueueDeclareOptions {
                passive: true,
                ..QueueDeclareOptions::default()
            };
            match channel
                .queue_declare(queue.as_str().into(), there, FieldTable::default())
                .await
            {
                Ok(_) => return Ok((channel, queue)),
                Err(error) if error.is_amqp_soft_error() => {
                    eprintln!("the queue of before is gone: events may have been missed");
                }
                Err(error) => return Err(error.into()),
            }
        }
        let channel = connection.create_channel().await?;
        let durable = QueueDeclareOptions {
            durable: true,
            ..QueueDeclareOptions::default()
        };
        let mut arguments = FieldTable::default();
        arguments.insert("x-max-length".into(), AMQPValue::LongLongInt(10_000));
        arguments.insert("x-overflow".into(), AMQPValue::LongString("drop-head".into()));
        arguments.insert("x-expires".into(), AMQPValue::LongLongInt(3_600_000));
        let queue = channel.queue_declare("".into(), durable, arguments).await?;
        let queue = queue.name().to_string();
        for key in &self.keys {
            let options = QueueBindOptions::default();
            let bound = channel.queue_bind(
                queue.as_str().into(),
                EXCHANGE.into(),
                key.as_str().into(),
                options,
                FieldTable::default(),
            );
            bound.await?;
        }
        self.queue = Some(queue.clone());
        Ok((channel, queue))
    }

    /// Prints one; true when it is the one that was to be waited for.
    fn handle(&mut self, delivery: &Delivery) -> bool {
        let header = |name: &str| {
            let table = delivery.properties.headers().as_ref()?;
            match table.inner().get(name)? {
                AMQPValue::LongString(text) => Some(text.to_string()),
                AMQPValue::ShortString(text) => Some(text.to_string()),
                _ => None,
            }
        };
        let (Some(name), Some(id)) = (header("cloudEvents:type"), header("cloudEvents:id")) else {
            eprintln!("{}: no CloudEvent", delivery.routing_key);
            return false;
        };
        if !self.seen.first_time(&id) {
            return false;
        }
        let data: Value = serde_json::from_slice(&delivery.data).unwrap_or_default();
        let at = header("cloudEvents:time").unwrap_or_default();
        let domain = delivery
            .routing_key
            .as_str()
            .split('.')
            .next()
            .unwrap_or_default();
        println!("{at} {domain}: {}", self.tell(&name, &at, &data));
        self.until.as_deref() == Some(name.as_str())
    }

    fn tell(&mut self, name: &str, at: &str, data: &Value) -> String {
        let text = |pointer: &str| {
            data.pointer(pointer)
                .and_then(Value::as_str)
                .unwrap_or("?")
                .to_owned()
        };
        let number = |pointer: &str| data.pointer(pointer).and_then(Value::as_u64).unwrap_or_default();
        let who = format!("{} → {}", text("/server"), text("/stand_in"));
        let failover = text("/failover");
        match name {
            "failover.started" => {
                self.begun.insert(failover, at.to_owned());
                let silent = number("/silent_ms");
                format!(
                    "{who}: STARTED because {} (silent for {silent} ms)",
                    text("/reason/summary")
                )
            }
            "failover.serving" => format!("{who}: SERVING, {} cameras film", number("/filming")),
            "failover.restoring" => format!("{who}: RESTORING"),
            "failover.completed" => {
                let since = self
                    .begun
                    .remove(&failover)
                    .unwrap_or_else(|| "before this began".to_owned());
                let segments = number("/progress/segments_done");
                format!("{who}: COMPLETED, {segments} segments handed back; it began at {since}")
            }
            "failover.aborted" => {
                self.begun.remove(&failover);
                format!("{}: ABORTED, {}", text("/server"), text("/why"))
            }
            // Also those that are newer than this program.
            other => format!("{other} {data}"),
        }
    }
}

/// The ids of late.
#[derive(Default)]
struct Seen {
    order: VecDeque<String>,
    ids: HashSet<String>,
}

impl Seen {
    fn first_time(&mut self, id: &str) -> bool {
        if !self.ids.insert(id.to_owned()) {
            return false;
        }
        self.order.push_back(id.to_owned());
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
        true
    }
}
