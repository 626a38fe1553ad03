//! The exchanges and queues of the contract, as RabbitMQ 4 allows them (no transient queue that is not
//! exclusive, no mirroring).

use lapin::{
    Channel, Connection, ErrorKind, ExchangeKind,
    options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions},
    protocol::{AMQPErrorKind, AMQPSoftError},
    types::{AMQPValue, FieldTable},
};
use understudy_core::{contract::names, ids::ServerId};

/// How often a message is given out again before it is dead-lettered.
const DELIVERY_LIMIT: i64 = 20;
/// The most messages that wait for one server; assignments are sent only to servers that are heard.
const ASSIGNMENTS_WAITING: i64 = 10_000;
/// The most facts that wait for a service that does not run.
const FACTS_WAITING: i64 = 10_000;
/// After how long without its service a queue of facts is removed, in milliseconds: a week.
const FACT_QUEUE_EXPIRES_MS: i64 = 7 * 24 * 3_600_000;
/// The most dead letters that are kept; the oldest go first.
const DEAD_KEPT: i64 = 100_000;
/// The most requests that wait for a service.
const REQUESTS_WAITING: i64 = 1_000;
/// For how long a request is worth answering, in milliseconds; no deadline is longer.
const REQUEST_WORTH_MS: i64 = 30_000;
/// After how long without its service a request queue is removed, in milliseconds.
const REQUEST_QUEUE_EXPIRES_MS: i64 = 60_000;

const DURABLE_EXCHANGE: ExchangeDeclareOptions = ExchangeDeclareOptions {
    passive: false,
    durable: true,
    auto_delete: false,
    internal: false,
    nowait: false,
};

pub(crate) const DURABLE_QUEUE: QueueDeclareOptions = QueueDeclareOptions {
    passive: false,
    durable: true,
    exclusive: false,
    auto_delete: false,
    nowait: false,
};

pub(crate) fn table<const N: usize>(entries: [(&str, AMQPValue); N]) -> FieldTable {
    let mut table = FieldTable::default();
    for (key, value) in entries {
        table.insert(key.into(), value);
    }
    table
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}

const EXCHANGES: [(&str, ExchangeKind); 5] = [
    (names::EVENTS, ExchangeKind::Topic),
    (names::ASSIGNMENTS, ExchangeKind::Direct),
    (names::HEARTBEATS, ExchangeKind::Topic),
    (names::RPC, ExchangeKind::Direct),
    (names::DEAD, ExchangeKind::Topic),
];

/// Whether what was asked for is not there.
pub(crate) fn is_missing(error: &lapin::Error) -> bool {
    is(error, &AMQPSoftError::NOTFOUND)
}

/// Whether this account may not do what was asked for.
pub(crate) fn is_forbidden(error: &lapin::Error) -> bool {
    is(error, &AMQPSoftError::ACCESSREFUSED)
}

fn is(error: &lapin::Error, soft: &AMQPSoftError) -> bool {
    matches!(error.kind(), ErrorKind::ProtocolError(said) if *said.kind() == AMQPErrorKind::Soft(soft.clone()))
}

/// Finds what everybody shares, and makes it where it is not there. To find it takes no rights, to make it those of
/// the orchestrator's account: whoever may do anything to an exchange could remove it too.
pub(crate) async fn declare(connection: &Connection) -> lapin::Result<()> {
    let channel = connection.create_channel().await?;
    match find(&channel).await {
        Ok(()) => return channel.close(200, "done".into()).await,
        // The broker has closed the channel with it.
        Err(error) if is_missing(&error) => {}
        Err(error) => return Err(error),
    }
    let channel = connection.create_channel().await?;
    make(&channel).await?;
    channel.close(200, "done".into()).await
}

async fn find(channel: &Channel) -> lapin::Result<()> {
    for (name, kind) in EXCHANGES {
        let passive = ExchangeDeclareOptions {
            passive: true,
            ..DURABLE_EXCHANGE
        };
        channel
            .exchange_declare(name.into(), kind, passive, FieldTable::default())
            .await?;
    }
    find_queue(channel, names::DEAD_QUEUE).await
}

async fn find_queue(channel: &Channel, queue: &str) -> lapin::Result<()> {
    let passive = QueueDeclareOptions {
        passive: true,
        ..DURABLE_QUEUE
    };
    let found = channel.queue_declare(queue.into(), passive, FieldTable::default());
    found.await.map(drop)
}

/// Doing it again changes nothing.
async fn make(channel: &Channel) -> lapin::Result<()> {
    for (name, kind) in EXCHANGES {
        channel
            .exchange_declare(name.into(), kind, DURABLE_EXCHANGE, FieldTable::default())
            .await?;
    }
    let arguments = table([
        ("x-queue-type", text("quorum")),
        ("x-max-length", AMQPValue::LongLongInt(DEAD_KEPT)),
        // Nobody looks at these twenty times by accident: a person who reads and puts back must not lose them.
        ("x-delivery-limit", AMQPValue::LongLongInt(1_000_000)),
    ]);
    channel
        .queue_declare(names::DEAD_QUEUE.into(), DURABLE_QUEUE, arguments)
        .await?;
    bind(channel, names::DEAD_QUEUE, names::DEAD, "#").await
}

/// Makes the queue through which `server` hears its assignments, and binds it again in any case: after a crash RabbitMQ
/// may bring a queue back without what it was bound to. An account that may not do so, a server's own, finds it: the
/// orchestrator's makes it once the server is enrolled, and again whenever the broker comes back.
pub(crate) async fn assignment_queue(connection: &Connection, server: &ServerId) -> lapin::Result<String> {
    let channel = connection.create_channel().await?;
    let queue = match declare_assignment_queue(&channel, server).await {
        Ok(queue) => {
            channel.close(200, "done".into()).await?;
            return Ok(queue);
        }
        // The broker has closed the channel with it.
        Err(error) if is_forbidden(&error) => names::assignment_queue(server),
        Err(error) => return Err(error),
    };
    let channel = connection.create_channel().await?;
    find_queue(&channel, &queue).await?;
    channel.close(200, "done".into()).await?;
    Ok(queue)
}

/// Declares the queue through which `server` hears its assignments.
pub(crate) async fn declare_assignment_queue(channel: &Channel, server: &ServerId) -> lapin::Result<String> {
    let queue = names::assignment_queue(server);
    let arguments = table([
        ("x-queue-type", text("quorum")),
        ("x-overflow", text("reject-publish")),
        ("x-max-length", AMQPValue::LongLongInt(ASSIGNMENTS_WAITING)),
        ("x-single-active-consumer", AMQPValue::Boolean(true)),
        ("x-delivery-limit", AMQPValue::LongLongInt(DELIVERY_LIMIT)),
        ("x-dead-letter-exchange", text(names::DEAD)),
        ("x-dead-letter-routing-key", text(&queue)),
        ("x-dead-letter-strategy", text("at-least-once")),
    ]);
    channel
        .queue_declare(queue.as_str().into(), DURABLE_QUEUE, arguments)
        .await?;
    bind(channel, &queue, names::ASSIGNMENTS, server.as_str()).await?;
    bind(channel, &queue, names::ASSIGNMENTS, names::ALL_SERVERS).await?;
    Ok(queue)
}

/// Declares a queue of facts that outlives its consumer. It forgets its oldest, which are dead-lettered, rather than
/// hold up whoever tells facts; and goes by itself when nobody consumes it for a week.
pub(crate) async fn declare_fact_queue(channel: &Channel, queue: &str) -> lapin::Result<()> {
    let arguments = table([
        ("x-queue-type", text("quorum")),
        ("x-overflow", text("drop-head")),
        ("x-max-length", AMQPValue::LongLongInt(FACTS_WAITING)),
        ("x-expires", AMQPValue::LongLongInt(FACT_QUEUE_EXPIRES_MS)),
        ("x-delivery-limit", AMQPValue::LongLongInt(DELIVERY_LIMIT)),
        ("x-dead-letter-exchange", text(names::DEAD)),
        ("x-dead-letter-routing-key", text(queue)),
    ]);
    channel
        .queue_declare(queue.into(), DURABLE_QUEUE, arguments)
        .await
        .map(drop)
}

/// The queue of a service's requests.
pub(crate) fn request_queue(service: &str) -> String {
    format!("{}.{service}", names::RPC)
}

/// Declares the queue of a service's requests. It goes when the service goes, so that a request to a service
/// that is not there is returned at once instead of waiting for its deadline.
///
/// A server's account may not bind it, since it could bind it to other services' requests as well: then whoever asks
/// first does ([`bind_request_queue`]).
pub(crate) async fn declare_request_queue(connection: &Connection, service: &str) -> lapin::Result<String> {
    let queue = request_queue(service);
    let options = QueueDeclareOptions {
        auto_delete: true,
        ..DURABLE_QUEUE
    };
    let arguments = table([
        ("x-max-length", AMQPValue::LongLongInt(REQUESTS_WAITING)),
        ("x-overflow", text("reject-publish")),
        ("x-message-ttl", AMQPValue::LongLongInt(REQUEST_WORTH_MS)),
        ("x-expires", AMQPValue::LongLongInt(REQUEST_QUEUE_EXPIRES_MS)),
    ]);
    let channel = connection.create_channel().await?;
    channel
        .queue_declare(queue.as_str().into(), options, arguments)
        .await?;
    match bind(&channel, &queue, names::RPC, service).await {
        Ok(()) => channel.close(200, "done".into()).await?,
        // The broker has closed the channel with it.
        Err(error) if is_forbidden(&error) => {
            tracing::debug!(queue, "whoever asks first binds the queue");
        }
        Err(error) => return Err(error),
    }
    Ok(queue)
}

/// Binds the queue of a service's requests, which has to be there.
pub(crate) async fn bind_request_queue(connection: &Connection, service: &str) -> lapin::Result<()> {
    let channel = connection.create_channel().await?;
    bind(&channel, &request_queue(service), names::RPC, service).await?;
    channel.close(200, "done".into()).await
}

/// Declares a queue for this connection alone, that forgets its oldest messages rather than grow.
pub(crate) async fn declare_own_queue(channel: &Channel, max_length: i64) -> lapin::Result<String> {
    let options = QueueDeclareOptions {
        passive: false,
        durable: false,
        exclusive: true,
        auto_delete: true,
        nowait: false,
    };
    let arguments = table([
        ("x-max-length", AMQPValue::LongLongInt(max_length)),
        ("x-overflow", text("drop-head")),
    ]);
    let queue = channel.queue_declare("".into(), options, arguments).await?;
    Ok(queue.name().to_string())
}

pub(crate) async fn bind(channel: &Channel, queue: &str, exchange: &str, key: &str) -> lapin::Result<()> {
    channel
        .queue_bind(
            queue.into(),
            exchange.into(),
            key.into(),
            QueueBindOptions::default(),
            FieldTable::default(),
        )
        .await
}
