//! Hears every event of a fleet under test, as a program outside would, and holds it against the document.
//!
//! In a thread of its own, so that a test that is busy loses nothing, and dropping it can tell what was wrong.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread::JoinHandle,
    time::Duration,
};

use anyhow::Context;
use futures::StreamExt as _;
use lapin::{
    Connection, ConnectionProperties, ExchangeKind,
    message::Delivery,
    options::{BasicConsumeOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable},
};
use serde_json::Value;
use tokio::sync::oneshot;
use understudy_core::contract::names;

use crate::{
    check::{Checker, Message},
    document,
};

/// For how long nothing more may come before what was sent counts as heard.
const QUIET: Duration = Duration::from_millis(100);
/// Until a broker that went is tried again.
const AGAIN: Duration = Duration::from_millis(100);
/// For how long a broker may take at first.
const PATIENCE: Duration = Duration::from_secs(30);

/// What was heard.
#[derive(Clone, Debug, Default)]
pub struct Heard {
    /// How often each event was, by name.
    pub events: BTreeMap<String, u64>,
    /// What was wrong.
    pub wrong: Vec<String>,
}

/// Listens for as long as it lives.
///
/// # Panics
/// When it is dropped, if a message was not as described: the test that it belongs to fails.
#[derive(Debug)]
pub struct Listener {
    heard: Arc<Mutex<Heard>>,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Listener {
    /// Returns once the broker at `url` has the subscription.
    ///
    /// # Errors
    /// If it can't be had.
    pub fn start(url: &str) -> anyhow::Result<Self> {
        let checker = Checker::new(&document::document())?;
        let heard = Arc::<Mutex<Heard>>::default();
        let (end, ends) = oneshot::channel();
        let (ready, is_ready) = mpsc::sync_channel(1);
        let (url, kept) = (url.to_owned(), heard.clone());
        let thread = std::thread::Builder::new()
            .name("events under test".to_owned())
            .spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                match runtime {
                    Ok(runtime) => runtime.block_on(follow(&url, &checker, &kept, ready, ends)),
                    Err(error) => tell(&kept, |heard| heard.wrong.push(error.to_string())),
                }
            })?;
        is_ready
            .recv_timeout(PATIENCE)
            .context("the events under test can't be heard")?;
        Ok(Self {
            heard,
            end: Some(end),
            thread: Some(thread),
        })
    }

    /// What was heard so far.
    #[must_use]
    pub fn heard(&self) -> Heard {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        drop(self.end.take());
        let ended = self.thread.take().map(JoinHandle::join);
        let wrong = self.heard().wrong;
        if !std::thread::panicking() {
            assert!(
                matches!(ended, Some(Ok(()))),
                "the check of the events itself failed"
            );
            assert!(
                wrong.is_empty(),
                "events are not as docs/events/asyncapi.yaml describes them:\n{}",
                wrong.join("\n")
            );
        }
    }
}

fn tell(heard: &Mutex<Heard>, what: impl FnOnce(&mut Heard)) {
    what(&mut heard.lock().unwrap_or_else(PoisonError::into_inner));
}

/// However often the broker goes and comes, until the end.
async fn follow(
    url: &str,
    checker: &Checker,
    heard: &Mutex<Heard>,
    ready: mpsc::SyncSender<()>,
    mut ends: oneshot::Receiver<()>,
) {
    loop {
        // A broker that is killed ends this, as the test wants it.
        let _gone = consume(url, checker, heard, &ready, &mut ends).await;
        if ends.is_terminated() {
            return;
        }
        tokio::select! {
            _ = &mut ends => return,
            () = tokio::time::sleep(AGAIN) => {}
        }
    }
}

async fn consume(
    url: &str,
    checker: &Checker,
    heard: &Mutex<Heard>,
    ready: &mpsc::SyncSender<()>,
    ends: &mut oneshot::Receiver<()>,
) -> anyhow::Result<()> {
    let connection = Connection::connect(url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    let durable = ExchangeDeclareOptions {
        durable: true,
        ..ExchangeDeclareOptions::default()
    };
    // Services may come later.
    let exchange = channel.exchange_declare(
        names::EVENTS.into(),
        ExchangeKind::Topic,
        durable,
        FieldTable::default(),
    );
    exchange.await?;
    let own = QueueDeclareOptions {
        exclusive: true,
        auto_delete: true,
        ..QueueDeclareOptions::default()
    };
    let queue = channel
        .queue_declare("".into(), own, FieldTable::default())
        .await?;
    let name = queue.name().to_string();
    let bound = channel.queue_bind(
        name.as_str().into(),
        names::EVENTS.into(),
        "#".into(),
        QueueBindOptions::default(),
        FieldTable::default(),
    );
    bound.await?;
    let options = BasicConsumeOptions {
        no_ack: true,
        ..BasicConsumeOptions::default()
    };
    let mut consumer = channel
        .basic_consume(name.as_str().into(), "".into(), options, FieldTable::default())
        .await?;
    // One is waited for, at the start.
    let _again = ready.try_send(());
    let mut ending = false;
    loop {
        let delivery = if ending {
            tokio::time::timeout(QUIET, consumer.next()).await.unwrap_or(None)
        } else {
            tokio::select! {
                delivery = consumer.next() => delivery,
                _ = &mut *ends => { ending = true; continue }
            }
        };
        let Some(delivery) = delivery else { return Ok(()) };
        let checked = checker.check(&message(delivery?));
        tell(heard, |heard| match checked {
            Ok(name) => *heard.events.entry(name).or_default() += 1,
            Err(wrong) => heard.wrong.extend(wrong),
        });
    }
}

fn message(delivery: Delivery) -> Message {
    let table = delivery
        .properties
        .headers()
        .iter()
        .flat_map(|table| table.inner());
    let headers = table.map(|(name, value)| {
        let value = match value {
            AMQPValue::LongString(text) => Value::from(text.to_string()),
            AMQPValue::ShortString(text) => Value::from(text.to_string()),
            // No text, which the schema refuses with its name.
            other => Value::from(vec![format!("{other:?}")]),
        };
        (name.to_string(), value)
    });
    Message {
        routing_key: delivery.routing_key.to_string(),
        content_type: delivery
            .properties
            .content_type()
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        headers: headers.collect(),
        body: delivery.data,
    }
}
