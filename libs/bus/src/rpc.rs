//! Requests with a deadline, through RabbitMQ's direct reply-to: replies come back on the channel that the
//! request went out on, without a queue. A service that is not there is known at once, since its queue goes
//! with it.

use std::{
    collections::HashMap,
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures::StreamExt as _;
use lapin::{
    BasicProperties, Channel, Consumer,
    message::Delivery,
    options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions},
    types::FieldTable,
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::{sync::oneshot, task::JoinSet};
use understudy_core::contract::names;
use understudy_runtime::{Process, TraceContext};

use crate::{
    Bus,
    backoff::Backoff,
    connection::{Session, Sessions},
    lane::{GRACE, Lane, Outgoing, PublishError},
    message::{trace_of, traced},
    metrics::Metrics,
    topology,
};

/// RabbitMQ's pseudo queue for replies (RabbitMQ, "Direct Reply-to").
const REPLY_TO: &str = "amq.rabbitmq.reply-to";
const REQUEST: &str = "understudy.request";
const REPLY: &str = "understudy.reply";
/// The type of a reply that says that the request could not be read.
const MALFORMED: &str = "understudy.malformed";
/// Requests of one service that are handled at once.
const AT_ONCE: u16 = 64;

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// There is no connection to the broker.
    #[error("the broker is away: {0}")]
    Down(String),
    /// Nobody serves such requests at the moment.
    #[error("the service {0} is not there")]
    NobodyThere(String),
    /// No answer came in time; the request may have been carried out.
    #[error("no answer within {0:?}")]
    Deadline(Duration),
    /// Request or answer is not what the other side expects.
    #[error("request or answer can't be read: {0}")]
    Malformed(String),
}

type Reply = Result<Bytes, RequestError>;
type Pending = Arc<Mutex<HashMap<String, oneshot::Sender<Reply>>>>;

fn lock(pending: &Pending) -> MutexGuard<'_, HashMap<String, oneshot::Sender<Reply>>> {
    // A plain map: it holds after a panic as before.
    pending.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The asking side.
pub(crate) struct Requests {
    lane: Lane,
    pending: Pending,
}

impl Requests {
    pub(crate) fn start(sessions: &Sessions, metrics: &Metrics, process: &Process) -> Self {
        let pending = Pending::default();
        let lane = Lane::start(sessions, metrics, process, {
            let (pending, process) = (Arc::clone(&pending), process.clone());
            move |channel| {
                let (pending, process) = (Arc::clone(&pending), process.clone());
                Box::pin(async move {
                    let replies = consume_replies(&channel).await?;
                    process.spawn("bus replies", hand_out(replies, pending, process.shutdown()));
                    Ok(())
                })
            }
        });
        Self { lane, pending }
    }
}

async fn consume_replies(channel: &Channel) -> lapin::Result<Consumer> {
    let options = BasicConsumeOptions {
        no_ack: true,
        ..BasicConsumeOptions::default()
    };
    channel
        .basic_consume(REPLY_TO.into(), "".into(), options, FieldTable::default())
        .await
}

/// Gives each reply to who waits for it, until the channel ends; whoever waits then hears that.
async fn hand_out(mut replies: Consumer, pending: Pending, shutdown: tokio_util::sync::CancellationToken) {
    loop {
        let reply = tokio::select! {
            reply = replies.next() => reply,
            () = shutdown.cancelled() => break,
        };
        let Some(Ok(reply)) = reply else { break };
        let correlation = reply
            .properties
            .correlation_id()
            .as_ref()
            .map(ToString::to_string);
        let Some(waiting) = correlation.and_then(|id| lock(&pending).remove(&id)) else {
            continue;
        };
        let malformed = reply
            .properties
            .kind()
            .as_ref()
            .is_some_and(|kind| kind.as_str() == MALFORMED);
        let body = Bytes::from(reply.data);
        // Its deadline may have passed meanwhile.
        let _gone = waiting.send(if malformed {
            Err(RequestError::Malformed(
                String::from_utf8_lossy(&body).into_owned(),
            ))
        } else {
            Ok(body)
        });
    }
    lock(&pending).clear();
}

/// Takes a request off the list however its waiting ends.
struct Waiting<'a> {
    pending: &'a Pending,
    id: &'a str,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        lock(self.pending).remove(self.id);
    }
}

impl Bus {
    /// Asks `service` and waits for its answer, `deadline` at most. The request may be carried out even if no
    /// answer came: whoever repeats it relies on its being idempotent.
    ///
    /// # Errors
    /// [`RequestError`]; at once if there is no connection or nobody serves.
    pub async fn request<Q, R>(
        &self,
        service: &str,
        request: &Q,
        deadline: Duration,
    ) -> Result<R, RequestError>
    where
        Q: Serialize + Sync,
        R: DeserializeOwned,
    {
        let malformed = |error: serde_json::Error| RequestError::Malformed(error.to_string());
        let body = serde_json::to_vec(request).map_err(malformed)?;
        let asked = self.ask(service, body.into());
        let reply = tokio::time::timeout(deadline, asked).await;
        let reply = reply.map_err(|_late| RequestError::Deadline(deadline))??;
        serde_json::from_slice(&reply).map_err(malformed)
    }

    async fn ask(&self, service: &str, body: Bytes) -> Reply {
        let requests = self.requests();
        let id = uuid::Uuid::now_v7().to_string();
        let (sender, answer) = oneshot::channel();
        lock(&requests.pending).insert(id.clone(), sender);
        let _waiting = Waiting {
            pending: &requests.pending,
            id: &id,
        };
        let properties = BasicProperties::default()
            .with_content_type("application/json".into())
            .with_type(REQUEST.into())
            .with_headers(traced(TraceContext::carried()))
            .with_message_id(id.as_str().into())
            .with_correlation_id(id.as_str().into())
            .with_reply_to(REPLY_TO.into())
            .with_delivery_mode(1);
        let outgoing = Outgoing {
            exchange: names::RPC.to_owned(),
            routing_key: service.to_owned(),
            mandatory: true,
            id: id.clone(),
            body,
            properties,
        };
        let mut published = requests.lane.publish(outgoing.clone()).await;
        if matches!(published, Err(PublishError::Unroutable { .. })) && self.bind_requests(service).await {
            published = requests.lane.publish(outgoing).await;
        }
        published.map_err(|error| match error {
            PublishError::Unroutable { .. } => RequestError::NobodyThere(service.to_owned()),
            PublishError::Down(why) => RequestError::Down(why),
            other => RequestError::Down(other.to_string()),
        })?;
        let lost = |_| RequestError::Down("the connection was lost before the answer came".to_owned());
        answer.await.map_err(lost)?
    }

    /// Binds the queue of `service`, whose own account may not; false if it is not there.
    async fn bind_requests(&self, service: &str) -> bool {
        let Ok(session) = self.sessions().current() else {
            return false;
        };
        tokio::select! {
            bound = topology::bind_request_queue(&session.connection, service) => bound.is_ok(),
            _why = session.ended() => false,
        }
    }

    /// Answers requests to `service` with `handler`, several at once, until the process ends; those begun have
    /// a second to finish then. A request may come twice.
    pub fn serve<Q, R, F, A>(&self, service: &str, handler: F, process: &Process)
    where
        Q: DeserializeOwned + Send + 'static,
        R: Serialize + Send + 'static,
        F: Fn(Q) -> A + Send + Sync + 'static,
        A: Future<Output = R> + Send + 'static,
    {
        let server = Server {
            bus: self.clone(),
            service: service.to_owned(),
            handler: Arc::new(handler),
        };
        process.spawn("bus service", server.run(process.shutdown()));
    }
}

/// The answering side.
struct Server<F> {
    bus: Bus,
    service: String,
    handler: Arc<F>,
}

impl<F> Server<F> {
    async fn run<Q, R, A>(self, shutdown: tokio_util::sync::CancellationToken)
    where
        Q: DeserializeOwned + Send + 'static,
        R: Serialize + Send + 'static,
        F: Fn(Q) -> A + Send + Sync + 'static,
        A: Future<Output = R> + Send + 'static,
    {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
        let mut sessions = self.bus.sessions();
        // Bounded by the prefetch.
        let mut handling = JoinSet::new();
        let serving = async {
            while let Some(session) = sessions.next().await {
                let why = tokio::select! {
                    why = self.consume(&session, &mut backoff, &mut handling) => why,
                    why = session.ended() => why,
                };
                tracing::debug!(service = self.service, why, "serving begins anew");
                drop(session);
                tokio::time::sleep(backoff.pause()).await;
            }
        };
        tokio::select! {
            () = serving => {}
            () = shutdown.cancelled() => {}
        }
        let finished = async { while handling.join_next().await.is_some() {} };
        let _late = tokio::time::timeout(GRACE, finished).await;
    }

    async fn consume<Q, R, A>(
        &self,
        session: &Session,
        backoff: &mut Backoff,
        handling: &mut JoinSet<()>,
    ) -> String
    where
        Q: DeserializeOwned + Send + 'static,
        R: Serialize + Send + 'static,
        F: Fn(Q) -> A + Send + Sync + 'static,
        A: Future<Output = R> + Send + 'static,
    {
        let mut requests = match self.open(session).await {
            Ok(requests) => requests,
            Err(error) => return error.to_string(),
        };
        backoff.reset();
        loop {
            tokio::select! {
                request = requests.next() => match request {
                    Some(Ok(request)) => {
                        let (bus, handler) = (self.bus.clone(), Arc::clone(&self.handler));
                        let trace = trace_of(&request.properties);
                        handling.spawn(trace.scope(async move { answer(&bus, request, &*handler).await }));
                    }
                    Some(Err(error)) => return error.to_string(),
                    None => return "the broker ended the consumer".to_owned(),
                },
                Some(done) = handling.join_next() => if let Err(error) = done {
                    tracing::error!(service = self.service, %error, "a request was not handled");
                },
            }
        }
    }

    async fn open(&self, session: &Session) -> lapin::Result<Consumer> {
        let queue = topology::declare_request_queue(&session.connection, &self.service).await?;
        let channel = session.connection.create_channel().await?;
        channel.basic_qos(AT_ONCE, BasicQosOptions::default()).await?;
        let options = BasicConsumeOptions::default();
        channel
            .basic_consume(queue.as_str().into(), "".into(), options, FieldTable::default())
            .await
    }
}

async fn answer<Q, R, F, A>(bus: &Bus, request: Delivery, handler: &F)
where
    Q: DeserializeOwned,
    R: Serialize,
    F: Fn(Q) -> A,
    A: Future<Output = R>,
{
    let (kind, body) = match serde_json::from_slice::<Q>(&request.data) {
        Ok(question) => match serde_json::to_vec(&handler(question).await) {
            Ok(body) => (REPLY, body),
            Err(error) => (MALFORMED, error.to_string().into_bytes()),
        },
        Err(error) => (MALFORMED, error.to_string().into_bytes()),
    };
    if let Some(reply_to) = request.properties.reply_to() {
        let mut properties = BasicProperties::default()
            .with_content_type("application/json".into())
            .with_type(kind.into())
            .with_headers(traced(TraceContext::carried()))
            .with_delivery_mode(1);
        if let Some(correlation) = request.properties.correlation_id() {
            properties = properties.with_correlation_id(correlation.clone());
        }
        let outgoing = Outgoing {
            exchange: String::new(),
            routing_key: reply_to.to_string(),
            mandatory: false,
            id: uuid::Uuid::now_v7().to_string(),
            body: body.into(),
            properties,
        };
        if let Err(error) = bus.facts().publish(outgoing).await {
            tracing::debug!(%error, "an answer did not get through; it is asked again");
        }
    }
    // After the answer, so that a request whose service died is asked of the next one. Fails with the
    // connection, which hands it out again.
    let _lost = request.acker.ack(BasicAckOptions::default()).await;
}
