//! Publishing on one channel, with confirms.
//!
//! A message that no queue takes comes back before its confirm, but lapin hands what came back to whichever
//! confirm is resolved next, and RabbitMQ confirms several at once. So messages go out in batches: when all of
//! a batch are confirmed, what came back is known by its message id.

use std::{collections::BTreeSet, future::Future, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{StreamExt as _, stream::FuturesUnordered};
use lapin::{BasicProperties, Channel, options::BasicPublishOptions};
use tokio::sync::{mpsc, oneshot};
use understudy_runtime::Process;

use crate::{
    connection::{Session, Sessions},
    metrics::Metrics,
};

/// For how long confirms may be outstanding, and a publisher waits.
pub(crate) const DEADLINE: Duration = Duration::from_secs(5);
/// For how long a lane publishes after a shutdown began.
pub(crate) const GRACE: Duration = Duration::from_secs(1);
/// Messages that wait for the lane: the publishers wait beyond it.
const WAITING: usize = 256;
/// Messages of one batch: enough for a hundred failovers at once, few enough that a confirm is not late.
const BATCH: usize = 128;

/// Why a message was not published. It may have been, after [`PublishError::Deadline`] and
/// [`PublishError::Down`]: whoever sends it again relies on its id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// There is no connection to the broker.
    #[error("the broker is away: {0}")]
    Down(String),
    /// The broker takes no messages: it is short of memory or disk.
    #[error("the broker takes no messages: {0}")]
    Blocked(String),
    /// No queue takes it.
    #[error("no queue takes messages for {routing_key} of {exchange}")]
    Unroutable {
        /// The exchange.
        exchange: String,
        /// The key.
        routing_key: String,
    },
    /// A queue refused it: it is full, or has no majority.
    #[error("a queue for {routing_key} of {exchange} refused the message: it is full or has no leader")]
    Refused {
        /// The exchange.
        exchange: String,
        /// The key.
        routing_key: String,
    },
    /// The broker did not confirm it in time.
    #[error("the broker did not confirm within {DEADLINE:?}")]
    Deadline,
}

impl PublishError {
    fn outcome(&self) -> &'static str {
        match self {
            Self::Down(_) => "down",
            Self::Blocked(_) => "blocked",
            Self::Unroutable { .. } => "unroutable",
            Self::Refused { .. } => "refused",
            Self::Deadline => "deadline",
        }
    }
}

/// What goes out.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing {
    pub(crate) exchange: String,
    pub(crate) routing_key: String,
    pub(crate) mandatory: bool,
    pub(crate) id: String,
    pub(crate) body: Bytes,
    pub(crate) properties: BasicProperties,
}

type Answer = oneshot::Sender<Result<(), PublishError>>;
type Setup = dyn Fn(Channel) -> Pin<Box<dyn Future<Output = lapin::Result<()>> + Send>> + Send + Sync;

/// One channel for messages of one kind; in the order in which they are handed over.
#[derive(Clone)]
pub(crate) struct Lane {
    waiting: mpsc::Sender<(Outgoing, Answer)>,
    metrics: Metrics,
}

impl Lane {
    /// Starts the lane's task; it ends when the last clone is dropped. `setup` prepares each new channel.
    pub(crate) fn start(
        sessions: &Sessions,
        metrics: &Metrics,
        process: &Process,
        setup: impl Fn(Channel) -> Pin<Box<dyn Future<Output = lapin::Result<()>> + Send>> + Send + Sync + 'static,
    ) -> Self {
        let (waiting, outgoing) = mpsc::channel(WAITING);
        let worker = Worker {
            sessions: sessions.clone(),
            setup: Arc::new(setup),
            open: None,
        };
        let shutdown = process.shutdown();
        process.spawn("bus publisher", async move {
            tokio::select! {
                () = worker.run(outgoing) => {}
                // What others say at their end still gets through.
                () = async { shutdown.cancelled().await; tokio::time::sleep(GRACE).await } => {}
            }
        });
        Self {
            waiting,
            metrics: metrics.clone(),
        }
    }

    /// Publishes, and waits for the confirm.
    pub(crate) async fn publish(&self, outgoing: Outgoing) -> Result<(), PublishError> {
        let exchange = outgoing.exchange.clone();
        let (answer, confirmed) = oneshot::channel();
        let published = async {
            let gone = |_| PublishError::Down("the process ends".to_owned());
            self.waiting
                .send((outgoing, answer))
                .await
                .map_err(|_| gone(()))?;
            confirmed.await.map_err(|_| gone(()))?
        };
        let result = tokio::time::timeout(DEADLINE, published)
            .await
            .unwrap_or(Err(PublishError::Deadline));
        self.metrics.count(
            &exchange,
            result.as_ref().err().map_or("published", PublishError::outcome),
        );
        result
    }
}

struct Worker {
    sessions: Sessions,
    setup: Arc<Setup>,
    /// The channel, and the session that it belongs to.
    open: Option<(u64, Channel)>,
}

impl Worker {
    async fn run(mut self, mut outgoing: mpsc::Receiver<(Outgoing, Answer)>) {
        let mut batch = Vec::new();
        while outgoing.recv_many(&mut batch, BATCH).await > 0 {
            let (messages, answers): (Vec<_>, Vec<_>) = batch.drain(..).unzip();
            let results = self.publish(&messages).await;
            for (answer, result) in answers.into_iter().zip(results) {
                // The publisher may have given up meanwhile.
                let _gone = answer.send(result);
            }
        }
    }

    /// One result for each message.
    async fn publish(&mut self, messages: &[Outgoing]) -> Vec<Result<(), PublishError>> {
        let mut batch = Batch::new(messages);
        let session = match self.sessions.current() {
            Ok(session) => session,
            Err(error) => return batch.results(&error),
        };
        let work = async {
            let channel = self.channel(&session).await?;
            batch.publish(&channel).await
        };
        let failure = tokio::select! {
            outcome = tokio::time::timeout(DEADLINE, work) => match outcome {
                Ok(Ok(())) => return batch.results(&PublishError::Deadline),
                Ok(Err(error)) => PublishError::Down(error.to_string()),
                Err(_late) => PublishError::Deadline,
            },
            why = session.ended() => PublishError::Down(why),
        };
        // Confirms may be outstanding: they must not be taken for the next batch's.
        self.open = None;
        batch.results(&failure)
    }

    async fn channel(&mut self, session: &Session) -> lapin::Result<Channel> {
        if let Some((id, channel)) = &self.open
            && *id == session.id
            && channel.status().connected()
        {
            return Ok(channel.clone());
        }
        let channel = session.connection.create_channel().await?;
        channel.confirm_select(Default::default()).await?;
        (self.setup)(channel.clone()).await?;
        self.open = Some((session.id, channel.clone()));
        Ok(channel)
    }
}

/// Messages that go out together, and what became of each.
struct Batch<'a> {
    messages: &'a [Outgoing],
    /// Whether a queue took it, for each that was confirmed.
    confirmed: Vec<Option<bool>>,
    /// Ids of those that came back.
    returned: BTreeSet<String>,
}

impl<'a> Batch<'a> {
    fn new(messages: &'a [Outgoing]) -> Self {
        Self {
            messages,
            confirmed: vec![None; messages.len()],
            returned: BTreeSet::new(),
        }
    }

    async fn publish(&mut self, channel: &Channel) -> lapin::Result<()> {
        let mut confirms = FuturesUnordered::new();
        for (index, message) in self.messages.iter().enumerate() {
            let options = BasicPublishOptions {
                mandatory: message.mandatory,
                immediate: false,
            };
            let sent = channel.basic_publish(
                message.exchange.as_str().into(),
                message.routing_key.as_str().into(),
                options,
                &message.body,
                message.properties.clone(),
            );
            let confirm = sent.await?;
            confirms.push(async move { (index, confirm.await) });
        }
        while let Some((index, confirmation)) = confirms.next().await {
            let confirmation = confirmation?;
            self.confirmed[index] = Some(confirmation.is_ack());
            if let Some(back) = confirmation.take_message() {
                let id = back
                    .delivery
                    .properties
                    .message_id()
                    .as_ref()
                    .map(ToString::to_string);
                self.returned.insert(id.unwrap_or_default());
            }
        }
        Ok(())
    }

    /// What became of each; of those that were not confirmed, `otherwise`.
    fn results(&self, otherwise: &PublishError) -> Vec<Result<(), PublishError>> {
        let result = |(message, confirmed): (&Outgoing, &Option<bool>)| {
            let (exchange, routing_key) = (message.exchange.clone(), message.routing_key.clone());
            if self.returned.contains(&message.id) {
                return Err(PublishError::Unroutable {
                    exchange,
                    routing_key,
                });
            }
            match confirmed {
                Some(true) => Ok(()),
                Some(false) => Err(PublishError::Refused {
                    exchange,
                    routing_key,
                }),
                None => Err(otherwise.clone()),
            }
        };
        self.messages.iter().zip(&self.confirmed).map(result).collect()
    }
}
