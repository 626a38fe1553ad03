//! What could not be handled: looked at without being lost, sent again, or dropped, as a person says.
//!
//! Whoever looks takes messages off the queue and acknowledges none, so that the broker puts them back where they
//! were, also if this process dies. One is acknowledged only after it was sent again and confirmed, or to be dropped.
//! While one process looks, another sees fewer: nothing is lost by it, and a second look shows all.

use std::{collections::BTreeMap, time::Duration};

use lapin::{
    Channel,
    message::Delivery,
    options::{BasicAckOptions, BasicGetOptions},
    types::{AMQPValue, FieldTable},
};
use understudy_core::contract::{
    api::{DeadLetterView, DeadLettersView},
    names,
};

use crate::{
    Bus,
    connection::Session,
    lane::{Outgoing, PublishError},
    message::{PREFIX, headers, timestamp},
};

/// Header: why it could not be handled.
pub(crate) const REASON: &str = "understudy-reason";
/// Header: the exchange that it had been sent to.
pub(crate) const EXCHANGE: &str = "understudy-exchange";
/// Header: the key that it had been sent with.
pub(crate) const ROUTING_KEY: &str = "understudy-routing-key";

/// How far into the queue anybody looks: each takes a round to the broker.
const REACH: usize = 5_000;
/// For how long looking may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How much of a body is shown, in bytes.
const SHOWN: usize = 64 * 1024;

/// Why nothing was done about a dead letter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeadError {
    /// The broker can't be asked, or does not confirm. A replay may have got through all the same.
    #[error("the message broker is not reached: {0}")]
    Away(String),
    /// There is none of this id among the oldest.
    #[error("there is no dead letter {0} among the oldest {REACH}")]
    NotThere(String),
    /// It can't be sent again.
    #[error("it can't be replayed: {0}")]
    NotReplayable(String),
}

/// Where it goes if it is sent again.
enum Way {
    /// Into its queue, past the exchange: nobody else gets it a second time.
    Queue(String),
    /// Its queue went with whoever listened: to whoever listens now.
    Exchange(String, String),
}

impl Bus {
    /// The oldest dead letters, `limit` at most; they stay where they are.
    ///
    /// # Errors
    /// [`DeadError::Away`].
    pub async fn dead_letters(&self, limit: usize) -> Result<DeadLettersView, DeadError> {
        let mut found = DeadLettersView::default();
        let limit = limit.min(REACH);
        let look = async |channel: &Channel| {
            while found.letters.len() < limit
                && let Some((delivery, behind)) = next(channel).await?
            {
                if found.letters.is_empty() {
                    found.total = u64::from(behind) + 1;
                }
                found.letters.push(view(&delivery));
            }
            Ok(())
        };
        self.look(look).await?;
        Ok(found)
    }

    /// One of them, with its body and headers.
    ///
    /// # Errors
    /// [`DeadError`].
    pub async fn dead_letter(&self, id: &str) -> Result<DeadLetterView, DeadError> {
        self.with_dead(id, async |delivery, view| {
            let shown = &delivery.data[..delivery.data.len().min(SHOWN)];
            Ok(DeadLetterView {
                body: Some(String::from_utf8_lossy(shown).into_owned()),
                headers: headers(&delivery.properties),
                ..view
            })
        })
        .await
    }

    /// Sends one again to where it was to go, waits until a queue has it, and takes it off the dead letters. It comes
    /// twice if the process dies in between: whoever takes it bears that.
    ///
    /// # Errors
    /// [`DeadError`]: then it is still there.
    pub async fn replay_dead(&self, id: &str) -> Result<DeadLetterView, DeadError> {
        self.with_dead(id, async |delivery, view| {
            let way = way(&view).map_err(DeadError::NotReplayable)?;
            let published = self.facts().publish(again(&delivery, &view, way)).await;
            published.map_err(|error| match error {
                PublishError::Unroutable { .. } => {
                    DeadError::NotReplayable(format!("nobody takes it any more ({error})"))
                }
                PublishError::Refused { .. } => DeadError::NotReplayable(error.to_string()),
                other => DeadError::Away(other.to_string()),
            })?;
            take(&delivery).await?;
            Ok(view)
        })
        .await
    }

    /// Drops one for good.
    ///
    /// # Errors
    /// [`DeadError`]: then it is still there.
    pub async fn drop_dead(&self, id: &str) -> Result<DeadLetterView, DeadError> {
        self.with_dead(id, async |delivery, view| {
            take(&delivery).await?;
            Ok(view)
        })
        .await
    }

    /// Does something with the oldest one of this id.
    async fn with_dead(
        &self,
        id: &str,
        what: impl AsyncFnOnce(Delivery, DeadLetterView) -> Result<DeadLetterView, DeadError>,
    ) -> Result<DeadLetterView, DeadError> {
        let look = async |channel: &Channel| {
            for _ in 0..REACH {
                let Some((delivery, _)) = next(channel).await? else {
                    break;
                };
                let view = view(&delivery);
                if view.id == id {
                    return what(delivery, view).await;
                }
            }
            Err(DeadError::NotThere(id.to_owned()))
        };
        self.look(look).await
    }

    /// Looks through a channel of its own: whatever was not acknowledged goes back when it is closed.
    async fn look<T>(
        &self,
        what: impl AsyncFnOnce(&Channel) -> Result<T, DeadError>,
    ) -> Result<T, DeadError> {
        let _alone = self.dead().lock().await;
        let session = self
            .sessions()
            .current()
            .map_err(|error| DeadError::Away(error.to_string()))?;
        let work = async {
            let channel = session.connection.create_channel().await.map_err(away)?;
            let done = tokio::time::timeout(PATIENCE, what(&channel)).await;
            // Before the next one looks, so that it sees them all; fails only with the connection.
            let _ended = channel.close(200, "done".into()).await;
            done.unwrap_or_else(|_| Err(DeadError::Away(format!("it took longer than {PATIENCE:?}"))))
        };
        let done = while_it_lasts(&session, work).await;
        done.map_err(DeadError::Away)?
    }
}

async fn while_it_lasts<T>(session: &Session, work: impl Future<Output = T>) -> Result<T, String> {
    tokio::select! {
        done = work => Ok(done),
        why = session.ended() => Err(why),
    }
}

fn away(error: lapin::Error) -> DeadError {
    DeadError::Away(error.to_string())
}

/// The next message, and how many are behind it.
async fn next(channel: &Channel) -> Result<Option<(Delivery, u32)>, DeadError> {
    let got = channel
        .basic_get(names::DEAD_QUEUE.into(), BasicGetOptions::default())
        .await;
    Ok(got.map_err(away)?.map(|got| (got.delivery, got.message_count)))
}

async fn take(delivery: &Delivery) -> Result<(), DeadError> {
    delivery
        .acker
        .ack(BasicAckOptions::default())
        .await
        .map_err(away)?;
    Ok(())
}

fn view(delivery: &Delivery) -> DeadLetterView {
    let text = headers(&delivery.properties);
    let said = |name: &str| text.get(name).cloned();
    let attribute = |name: &str| said(&format!("{PREFIX}{name}")).unwrap_or_default();
    let death = Death::of(delivery);
    let (reason, queue) = match (said(REASON), &death) {
        (Some(reason), _) => (reason, delivery.routing_key.to_string()),
        (None, Some(death)) => (death.words(), death.queue.clone()),
        (None, None) => ("nobody said why".to_owned(), String::new()),
    };
    let mut view = DeadLetterView {
        id: id(delivery, &text),
        reason,
        queue,
        exchange: said(EXCHANGE)
            .or_else(|| death.as_ref().map(|death| death.exchange.clone()))
            .unwrap_or_default(),
        routing_key: said(ROUTING_KEY)
            .or_else(|| death.map(|death| death.routing_key))
            .unwrap_or_else(|| delivery.routing_key.to_string()),
        kind: attribute("type"),
        source: attribute("source"),
        time: timestamp(&attribute("time")),
        bytes: delivery.data.len() as u64,
        ..DeadLetterView::default()
    };
    view.not_replayable = way(&view).err().unwrap_or_default();
    view
}

/// Of everything that stays the same however often it is looked at.
fn id(delivery: &Delivery, headers: &BTreeMap<String, String>) -> String {
    let mut hasher = blake3::Hasher::new();
    let mut add = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    add(delivery.routing_key.as_str().as_bytes());
    for (name, value) in headers {
        add(name.as_bytes());
        add(value.as_bytes());
    }
    let message = delivery.properties.message_id();
    add(message.as_ref().map_or("", |id| id.as_str()).as_bytes());
    add(&delivery.data);
    hasher.finalize().to_hex()[..16].to_owned()
}

/// What the broker notes when it puts a message aside itself (RabbitMQ, "Dead Letter Exchanges", `x-death`).
struct Death {
    reason: String,
    queue: String,
    exchange: String,
    routing_key: String,
}

impl Death {
    fn of(delivery: &Delivery) -> Option<Self> {
        let table = delivery.properties.headers().as_ref()?;
        let AMQPValue::FieldArray(deaths) = table.inner().get("x-death")? else {
            return None;
        };
        // The latest comes first.
        let AMQPValue::FieldTable(death) = deaths.as_slice().first()? else {
            return None;
        };
        let value = |name: &str| death.inner().get(name).map(plain).unwrap_or_default();
        Some(Self {
            reason: value("reason"),
            queue: value("queue"),
            exchange: value("exchange"),
            routing_key: match death.inner().get("routing-keys") {
                Some(AMQPValue::FieldArray(keys)) => keys.as_slice().first().map(plain).unwrap_or_default(),
                _ => String::new(),
            },
        })
    }

    fn words(&self) -> String {
        match self.reason.as_str() {
            "delivery_limit" => "the broker handed it out too often, and nobody acknowledged it".to_owned(),
            "maxlen" => "its queue was full".to_owned(),
            "expired" => "nobody took it in time".to_owned(),
            "rejected" => "whoever got it refused it".to_owned(),
            other => format!("the broker put it aside: {other}"),
        }
    }
}

fn plain(value: &AMQPValue) -> String {
    match value {
        AMQPValue::LongString(text) => text.to_string(),
        AMQPValue::ShortString(text) => text.to_string(),
        _ => String::new(),
    }
}

/// Where it would go, or why it can't.
fn way(view: &DeadLetterView) -> Result<Way, String> {
    if view.kind == names::RIGHT_TYPE {
        return Err("what is said about the right to act holds at that moment only".to_owned());
    }
    if view.queue.is_empty() {
        return Err("it does not say where it came from".to_owned());
    }
    // Those who listen have queues of their own that go with them, and name the exchange in their place.
    Ok(
        if [names::EVENTS, names::HEARTBEATS].contains(&view.queue.as_str()) {
            Way::Exchange(view.exchange.clone(), view.routing_key.clone())
        } else {
            Way::Queue(view.queue.clone())
        },
    )
}

/// The message as it was before it was put aside.
fn again(delivery: &Delivery, view: &DeadLetterView, way: Way) -> Outgoing {
    let (exchange, routing_key) = match way {
        Way::Queue(queue) => (String::new(), queue),
        Way::Exchange(exchange, key) => (exchange, key),
    };
    let added = |name: &str| {
        [
            REASON,
            EXCHANGE,
            ROUTING_KEY,
            "x-death",
            "x-delivery-count",
            "x-acquired-count",
        ]
        .contains(&name)
            || name.starts_with("x-first-death-")
            || name.starts_with("x-last-death-")
    };
    let mut kept = FieldTable::default();
    let table = delivery
        .properties
        .headers()
        .iter()
        .flat_map(|table| table.inner());
    for (name, value) in table.filter(|(name, _)| !added(name.as_str())) {
        kept.insert(name.clone(), value.clone());
    }
    let said = delivery.properties.message_id().as_ref().map(ToString::to_string);
    let id = said.unwrap_or_else(|| view.id.clone());
    Outgoing {
        exchange,
        routing_key,
        mandatory: true,
        properties: delivery
            .properties
            .clone()
            .with_headers(kept)
            .with_message_id(id.as_str().into())
            .with_delivery_mode(2),
        id,
        body: delivery.data.clone().into(),
    }
}
