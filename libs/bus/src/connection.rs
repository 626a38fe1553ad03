//! The one connection of a process: made, watched, and made again.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::StreamExt as _;
use lapin::{Connection, ConnectionProperties, Event};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use understudy_core::{contract::names, ids::ServerId};
use understudy_runtime::{Condition, Process};

use crate::{
    backoff::Backoff,
    config::{Address, BrokerConfig, BusError},
    lane::{DEADLINE, GRACE, Lane, Outgoing, PublishError},
    message::Message,
    metrics::Metrics,
    rpc::Requests,
    subscription::{self, Queue, Subscription},
    topology,
};

const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How long connecting and declaring may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// How the connection is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Link {
    /// There is none.
    Down {
        /// Why.
        why: String,
    },
    /// It is there.
    Up,
    /// It is there, and the broker takes no messages from anybody: it is short of memory or disk.
    Blocked {
        /// What the broker says.
        why: String,
    },
}

/// One connection while it holds.
pub(crate) struct Session {
    /// Another for each connection.
    pub(crate) id: u64,
    pub(crate) connection: Connection,
    ended: watch::Sender<Option<String>>,
}

impl Session {
    /// Waits until this connection is no more, and says why.
    pub(crate) async fn ended(&self) -> String {
        let mut ended = self.ended.subscribe();
        match ended.wait_for(Option::is_some).await {
            Ok(why) => why.clone().unwrap_or_default(),
            Err(_) => "the process ends".to_owned(),
        }
    }
}

/// The connection of the moment, for whoever needs a channel.
#[derive(Clone)]
pub(crate) struct Sessions {
    current: watch::Receiver<Option<Arc<Session>>>,
    link: watch::Receiver<Link>,
}

impl Sessions {
    /// The connection, if messages can be sent through it now.
    pub(crate) fn current(&self) -> Result<Arc<Session>, PublishError> {
        match (&*self.link.borrow(), &*self.current.borrow()) {
            (Link::Blocked { why }, _) => Err(PublishError::Blocked(why.clone())),
            (Link::Down { why }, _) => Err(PublishError::Down(why.clone())),
            (Link::Up, Some(session)) => Ok(Arc::clone(session)),
            (Link::Up, None) => Err(PublishError::Down("connecting".to_owned())),
        }
    }

    /// Waits for a connection; none if the bus is no more.
    pub(crate) async fn next(&mut self) -> Option<Arc<Session>> {
        self.current.wait_for(Option::is_some).await.ok()?.clone()
    }
}

/// The bus. Cheap to clone; all clones share one connection.
#[derive(Clone)]
pub struct Bus {
    inner: Arc<Inner>,
}

struct Inner {
    source: String,
    sessions: Sessions,
    process: Process,
    metrics: Metrics,
    /// Assignments and bundles.
    state: Lane,
    /// The same for servers whose queue did not confirm in time, so that it holds up nobody else's.
    slow: Lane,
    slow_keys: Mutex<HashSet<String>>,
    facts: Lane,
    transient: Lane,
    requests: Requests,
    /// Held by whoever reads the dead letters: what one has in hand, another would not see.
    dead: tokio::sync::Mutex<()>,
    _gone: DropGuard,
}

impl std::fmt::Debug for Bus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bus")
            .field("source", &self.inner.source)
            .finish_non_exhaustive()
    }
}

impl Bus {
    /// Begins to connect, and returns at once: a broker that is absent is waited for, however long, which
    /// `/readyz` says under `broker`. `source` is this process in CloudEvents, e.g. `ingest/recorder-1`.
    ///
    /// # Errors
    /// [`BusError`] if the configuration makes no sense.
    pub fn start(config: &BrokerConfig, source: &str, process: &Process) -> Result<Self, BusError> {
        let address = Address::from(config)?;
        let starting = Link::Down {
            why: format!("connecting to {}", address.shown),
        };
        let (link, link_seen) = watch::channel(starting);
        let (current, current_seen) = watch::channel(None);
        let gone = CancellationToken::new();
        let metrics = Metrics::new(process);
        let connector = Connector {
            name: format!("understudy {source}"),
            address,
            link,
            current,
            condition: process.condition("broker"),
            metrics: metrics.clone(),
            shutdown: process.shutdown(),
            gone: gone.clone(),
            sessions: 0,
        };
        process.spawn("bus connection", connector.run());
        let sessions = Sessions {
            current: current_seen,
            link: link_seen,
        };
        let lane = || Lane::start(&sessions, &metrics, process, |_| Box::pin(async { Ok(()) }));
        let inner = Inner {
            source: source.to_owned(),
            state: lane(),
            slow: lane(),
            slow_keys: Mutex::default(),
            facts: lane(),
            transient: lane(),
            requests: Requests::start(&sessions, &metrics, process),
            dead: tokio::sync::Mutex::default(),
            process: process.clone(),
            sessions,
            metrics,
            _gone: gone.drop_guard(),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// How the connection is, and becomes.
    #[must_use]
    pub fn link(&self) -> watch::Receiver<Link> {
        self.inner.sessions.link.clone()
    }

    /// Waits until the connection is there; returns whether it ever will be.
    pub async fn connected(&self) -> bool {
        self.link().wait_for(|link| *link == Link::Up).await.is_ok()
    }

    /// Publishes `message` and waits until the broker has taken responsibility for it.
    ///
    /// # Errors
    /// [`PublishError`]; at once while there is no connection, since nothing is queued here.
    pub async fn publish(&self, message: Message) -> Result<(), PublishError> {
        let outgoing = Outgoing {
            properties: message.properties(&self.inner.source),
            exchange: message.exchange,
            routing_key: message.routing_key,
            mandatory: message.mandatory,
            id: message.id,
            body: message.body,
        };
        match outgoing.exchange.as_str() {
            names::ASSIGNMENTS => self.publish_state(outgoing).await,
            names::HEARTBEATS => self.inner.transient.publish(outgoing).await,
            _ => self.inner.facts.publish(outgoing).await,
        }
    }

    async fn publish_state(&self, outgoing: Outgoing) -> Result<(), PublishError> {
        // A plain set: it holds after a panic as before.
        let slow_keys = || {
            self.inner
                .slow_keys
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
        };
        let key = outgoing.routing_key.clone();
        let slow = slow_keys().contains(&key);
        let lane = if slow { &self.inner.slow } else { &self.inner.state };
        let result = lane.publish(outgoing).await;
        match &result {
            Err(PublishError::Deadline) => drop(slow_keys().insert(key)),
            Ok(()) if slow => drop(slow_keys().remove(&key)),
            _ => {}
        }
        result
    }

    /// Begins to consume, and goes on however often the broker goes and comes, until the process ends or the
    /// subscription is dropped.
    #[must_use]
    pub fn subscribe(&self, queue: Queue) -> Subscription {
        subscription::start(self, queue)
    }

    /// Makes the queue of a server's assignments, if it is not there yet.
    ///
    /// # Errors
    /// [`PublishError`], as publishing.
    pub async fn declare_assignment_queue(&self, server: &ServerId) -> Result<(), PublishError> {
        let session = self.inner.sessions.current()?;
        let work = async {
            let channel = session.connection.create_channel().await?;
            topology::declare_assignment_queue(&channel, server).await?;
            channel.close(200, "done".into()).await
        };
        let outcome = tokio::select! {
            outcome = tokio::time::timeout(DEADLINE, work) => outcome,
            why = session.ended() => return Err(PublishError::Down(why)),
        };
        match outcome {
            Ok(done) => done.map_err(|error| PublishError::Down(error.to_string())),
            Err(_late) => Err(PublishError::Deadline),
        }
    }

    pub(crate) fn sessions(&self) -> Sessions {
        self.inner.sessions.clone()
    }

    pub(crate) fn process(&self) -> &Process {
        &self.inner.process
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.inner.metrics
    }

    pub(crate) fn dead(&self) -> &tokio::sync::Mutex<()> {
        &self.inner.dead
    }

    pub(crate) fn requests(&self) -> &Requests {
        &self.inner.requests
    }

    pub(crate) fn facts(&self) -> Lane {
        self.inner.facts.clone()
    }
}

/// The task that makes the connection, and makes it again.
struct Connector {
    name: String,
    address: Address,
    link: watch::Sender<Link>,
    current: watch::Sender<Option<Arc<Session>>>,
    condition: Condition,
    metrics: Metrics,
    shutdown: CancellationToken,
    /// Cancelled when the last [`Bus`] is dropped.
    gone: CancellationToken,
    sessions: u64,
}

impl Connector {
    async fn run(mut self) {
        let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        let done = Self::done(self.shutdown.clone(), self.gone.clone());
        tokio::pin!(done);
        loop {
            let attempt = tokio::time::timeout(PATIENCE, self.connect());
            let connected = tokio::select! {
                connected = attempt => connected,
                () = &mut done => return,
            };
            let why = match connected {
                Ok(Ok(session)) => {
                    backoff.reset();
                    tracing::info!(broker = self.address.shown, "connected to the broker");
                    let session = Arc::new(session);
                    self.current.send_replace(Some(Arc::clone(&session)));
                    self.set(Link::Up);
                    let why = tokio::select! {
                        why = self.watch(&session) => why,
                        () = &mut done => "the process ends".to_owned(),
                    };
                    self.current.send_replace(None);
                    let ends = self.shutdown.is_cancelled() || self.gone.is_cancelled();
                    let down = Link::Down { why: why.clone() };
                    if ends {
                        // Nobody waits for the broker any more, and nobody is to be warned of that.
                        self.link.send_replace(down);
                    } else {
                        self.set(down);
                    }
                    session.ended.send_replace(Some(why.clone()));
                    if ends {
                        // Best effort: the broker notices a closed socket as well.
                        let close = session.connection.close(200, "the process ends".into());
                        let _ended = tokio::time::timeout(GRACE, close).await;
                        return;
                    }
                    why
                }
                Ok(Err(error)) => error.to_string(),
                Err(_late) => format!("no answer within {PATIENCE:?}"),
            };
            self.set(Link::Down { why });
            tokio::select! {
                () = tokio::time::sleep(backoff.pause()) => {}
                () = &mut done => return,
            }
        }
    }

    async fn done(shutdown: CancellationToken, gone: CancellationToken) {
        tokio::select! {
            () = shutdown.cancelled() => {
                // What others still publish at their end gets through, unless they are all gone.
                let _either = tokio::time::timeout(GRACE, gone.cancelled()).await;
            }
            () = gone.cancelled() => {}
        }
    }

    async fn connect(&mut self) -> lapin::Result<Session> {
        let properties = ConnectionProperties::default().with_connection_name(self.name.as_str().into());
        let connection = Connection::connect_uri(self.address.uri.clone(), properties).await?;
        topology::declare(&connection).await?;
        self.sessions += 1;
        let (ended, _) = watch::channel(None);
        Ok(Session {
            id: self.sessions,
            connection,
            ended,
        })
    }

    /// Follows the connection until it ends, and says why.
    async fn watch(&self, session: &Session) -> String {
        let mut events = session.connection.events_listener();
        // Whatever ended before anybody listened is seen here.
        let mut looks = tokio::time::interval(Duration::from_secs(1));
        loop {
            tokio::select! {
                event = events.next() => match event {
                    Some(Event::ConnectionBlocked(why)) => self.set(Link::Blocked { why }),
                    Some(Event::ConnectionUnblocked) => self.set(Link::Up),
                    // It ended a channel, whose owner hears of it, and no other.
                    Some(Event::Error(error)) => tracing::debug!(%error, "the broker has closed a channel"),
                    Some(_) => {}
                    None => return "the connection ended".to_owned(),
                },
                _ = looks.tick() => if !session.connection.status().connected() {
                    return "the connection ended".to_owned();
                },
            }
        }
    }

    fn set(&self, link: Link) {
        self.metrics.connected(link == Link::Up);
        match &link {
            Link::Up => self.condition.ready(),
            Link::Down { why } => self.condition.not_ready(format!("{}: {why}", self.address.shown)),
            Link::Blocked { why } => self
                .condition
                .not_ready(format!("{} takes no messages: {why}", self.address.shown)),
        }
        self.link.send_replace(link);
    }
}
