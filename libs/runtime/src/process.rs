//! One running process: its shutdown, its tasks, what it waits for, its metrics and its health endpoints.

use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use prometheus::Encoder as _;
use tokio::net::TcpListener;
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};
use warp::{Filter as _, http::StatusCode};

use crate::{
    config::RuntimeConfig,
    telemetry,
    trace::{Exporter, TelemetryConfig, TelemetryError, Tracer},
};

/// For how long [`Process::finish`] waits for the tasks.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long answers of the health endpoints that are under way are waited for.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// Why a process could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Something else listens where the health endpoints should.
    #[error(
        "port {} on {} is taken by another process: stop that one, or set runtime.listen (or --listen) to another address, or to port 0 for any free one",
        .0.port(), .0.ip()
    )]
    PortTaken(SocketAddr),
    /// The address can't be listened on.
    #[error(
        "can't listen on {address}: {source}; set runtime.listen (or --listen) to an address of this machine"
    )]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The level of logging makes no sense.
    #[error("runtime.level: {0}; use error, warn, info, debug or trace, or e.g. info,understudy_bus=debug")]
    Level(String),
    /// Traces can't be sent as configured.
    #[error("{0}")]
    Telemetry(#[from] TelemetryError),
    /// Signals can't be heard.
    #[error("can't listen for signals: {0}")]
    Signals(#[source] std::io::Error),
}

impl StartError {
    /// The error of binding to `address`, said so that it helps. For every listener of every service.
    #[must_use]
    pub fn listen(address: SocketAddr, source: std::io::Error) -> Self {
        if source.kind() == std::io::ErrorKind::AddrInUse {
            Self::PortTaken(address)
        } else {
            Self::Listen { address, source }
        }
    }
}

/// One running process. Cheap to clone; all clones are the same process.
#[derive(Clone)]
pub struct Process {
    inner: Arc<Inner>,
}

struct Inner {
    name: &'static str,
    domain: String,
    address: SocketAddr,
    shutdown: CancellationToken,
    /// Cancelled after the tasks have ended, so that health can be asked for until then.
    closed: CancellationToken,
    tasks: TaskTracker,
    /// The health endpoints, which end after the other tasks.
    endpoints: TaskTracker,
    running: Mutex<BTreeMap<&'static str, usize>>,
    conditions: Mutex<BTreeMap<&'static str, String>>,
    remarks: Mutex<BTreeMap<&'static str, Remark>>,
    registry: prometheus::Registry,
    tracer: Tracer,
    /// Ends the HTTP server if the process is dropped without [`Process::finish`].
    _guard: DropGuard,
}

/// See [`Process::remark`].
type Remark = Box<dyn Fn() -> Option<serde_json::Value> + Send>;

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Process")
            .field("name", &self.inner.name)
            .finish_non_exhaustive()
    }
}

/// Something that a process needs before it is ready, e.g. `broker`.
#[derive(Clone)]
pub struct Condition {
    name: &'static str,
    inner: Arc<Inner>,
}

impl fmt::Debug for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Condition").field(&self.name).finish()
    }
}

impl Condition {
    /// It is there.
    pub fn ready(&self) {
        let waited = lock(&self.inner.conditions).remove(self.name);
        if waited.is_some() {
            tracing::info!(condition = self.name, "ready");
        }
    }

    /// It is not there, and the process waits for it.
    pub fn not_ready(&self, why: impl Into<String>) {
        let why = why.into();
        let before = lock(&self.inner.conditions).insert(self.name, why.clone());
        if before.as_ref() != Some(&why) {
            tracing::warn!(condition = self.name, why, "waiting");
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is guarded is a plain map: it holds after a panic as before.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The header in which a process says on `/healthz` of which version it is.
pub const VERSION_HEADER: &str = "understudy-version";
/// The version that this was built as; all services of a server come in one executable.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

impl Process {
    /// Starts logging, listens for SIGTERM and SIGINT, and opens the health endpoints.
    ///
    /// # Errors
    /// [`StartError`] says what to do about it.
    pub async fn start(name: &'static str, config: &RuntimeConfig) -> Result<Self, StartError> {
        Self::start_traced(name, config, &TelemetryConfig::default()).await
    }

    /// As [`Self::start`], and sends traces as `traces` says.
    ///
    /// # Errors
    /// [`StartError`] says what to do about it.
    pub async fn start_traced(
        name: &'static str,
        config: &RuntimeConfig,
        traces: &TelemetryConfig,
    ) -> Result<Self, StartError> {
        telemetry::start(config).map_err(StartError::Level)?;
        let listener = listen(config.listen).await?;
        let address = listener
            .local_addr()
            .map_err(|source| StartError::listen(config.listen, source))?;
        let process = Self::new(name, &config.domain, address, traces)?;
        process.hear_signals()?;
        process.open(listener);
        tracing::info!(process = name, health = %format!("http://{address}"), "started");
        Ok(process)
    }

    /// A process for a test: no signals, no logging of its own, no health endpoints.
    #[must_use]
    pub fn for_test(name: &'static str) -> Self {
        Self::for_test_traced(name, &TelemetryConfig::default())
    }

    /// As [`Self::for_test`], and sends traces as `traces` says.
    ///
    /// # Panics
    /// If that can't be done.
    #[must_use]
    pub fn for_test_traced(name: &'static str, traces: &TelemetryConfig) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        Self::new(name, "test", address, traces).expect("a collector's address")
    }

    fn new(
        name: &'static str,
        domain: &str,
        address: SocketAddr,
        traces: &TelemetryConfig,
    ) -> Result<Self, TelemetryError> {
        let registry = prometheus::Registry::new();
        let metrics = prometheus::process_collector::ProcessCollector::for_self();
        registry
            .register(Box::new(metrics))
            .expect("nothing else is registered yet");
        let exporter = Exporter::new(traces, name, &address.to_string(), domain, &registry)?;
        let (exporter, sender) = exporter.unzip();
        let closed = CancellationToken::new();
        let inner = Inner {
            name,
            domain: domain.to_owned(),
            address,
            shutdown: CancellationToken::new(),
            closed: closed.clone(),
            tasks: TaskTracker::new(),
            endpoints: TaskTracker::new(),
            running: Mutex::default(),
            conditions: Mutex::default(),
            remarks: Mutex::default(),
            registry,
            tracer: exporter.map(Tracer::to).unwrap_or_default(),
            _guard: closed.drop_guard(),
        };
        let process = Self {
            inner: Arc::new(inner),
        };
        if let Some(sender) = sender {
            process.spawn("traces", sender.run(process.shutdown()));
        }
        Ok(process)
    }

    /// What this process is called in logs, e.g. `orchestrator`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.inner.name
    }

    /// The domain that this process's own metrics are labelled with.
    #[must_use]
    pub fn domain(&self) -> &str {
        &self.inner.domain
    }

    /// Cancelled when the process is to end: by a signal, by [`Self::finish`], or by a task that panicked.
    #[must_use]
    pub fn shutdown(&self) -> CancellationToken {
        self.inner.shutdown.clone()
    }

    /// Where metrics are registered; `/metrics` shows them.
    #[must_use]
    pub fn registry(&self) -> &prometheus::Registry {
        &self.inner.registry
    }

    /// Where spans of traces go.
    #[must_use]
    pub fn tracer(&self) -> &Tracer {
        &self.inner.tracer
    }

    /// Where the health endpoints are.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.inner.address
    }

    /// Something that this process needs before it is ready. Not there at first.
    #[must_use]
    pub fn condition(&self, name: &'static str) -> Condition {
        lock(&self.inner.conditions).insert(name, "starting".to_owned());
        Condition {
            name,
            inner: Arc::clone(&self.inner),
        }
    }

    /// What this process waits for, by condition; empty when it is ready.
    #[must_use]
    pub fn waiting_for(&self) -> BTreeMap<&'static str, String> {
        lock(&self.inner.conditions).clone()
    }

    /// Something that `/healthz` says under `name`, besides that the process is alive, whenever there is something to
    /// say. Asked with each answer, so that it must not block.
    pub fn remark(&self, name: &'static str, say: impl Fn() -> Option<serde_json::Value> + Send + 'static) {
        lock(&self.inner.remarks).insert(name, Box::new(say));
    }

    /// Runs `task` until it ends by itself; [`Self::finish`] awaits it. A task that panics ends the process,
    /// since half a process is worse than one that its supervisor starts again.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let process = self.clone();
        *lock(&self.inner.running).entry(name).or_default() += 1;
        let task = tokio::spawn(task);
        self.inner.tasks.spawn(async move {
            if let Err(error) = task.await
                && error.is_panic()
            {
                tracing::error!(task = name, %error, "task panicked; the process ends");
                process.inner.shutdown.cancel();
            }
            let mut running = lock(&process.inner.running);
            if let Some(count) = running.get_mut(name) {
                *count -= 1;
                if *count == 0 {
                    running.remove(name);
                }
            }
        });
    }

    /// Ends the process: asks all tasks to end, waits for them (10 s at most), closes the health endpoints.
    pub async fn finish(self) {
        self.inner.shutdown.cancel();
        self.inner.tasks.close();
        if tokio::time::timeout(PATIENCE, self.inner.tasks.wait())
            .await
            .is_err()
        {
            let running: Vec<_> = lock(&self.inner.running).keys().copied().collect();
            tracing::error!(?running, "tasks did not end in time");
        }
        self.inner.closed.cancel();
        self.inner.endpoints.close();
        // A client that doesn't read its answer holds nobody up.
        let ended = tokio::time::timeout(LAST_ANSWERS, self.inner.endpoints.wait()).await;
        if ended.is_err() {
            tracing::warn!("a request to the health endpoints was cut off");
        }
    }

    fn hear_signals(&self) -> Result<(), StartError> {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate()).map_err(StartError::Signals)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(StartError::Signals)?;
        let shutdown = self.shutdown();
        self.spawn("signals", async move {
            let signal = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
                () = shutdown.cancelled() => return,
            };
            tracing::info!(signal, "shutting down");
            shutdown.cancel();
        });
        Ok(())
    }

    fn open(&self, listener: TcpListener) {
        // Weak: the endpoints must not keep a process alive that everybody else has dropped.
        let weak = Arc::downgrade(&self.inner);
        let readiness = warp::path!("readyz").map({
            let weak = weak.clone();
            move || {
                let waiting = weak.upgrade().map(|inner| lock(&inner.conditions).clone());
                ready_reply(&waiting.unwrap_or_default())
            }
        });
        let metrics = warp::path!("metrics").map({
            let weak = weak.clone();
            move || {
                let registry = weak.upgrade().map(|inner| inner.registry.clone());
                metrics_reply(&registry.unwrap_or_default())
            }
        });
        let alive = warp::path!("healthz").map(move || alive_reply(weak.upgrade().as_deref()));
        let routes = warp::get().and(alive.or(readiness).or(metrics));
        let closed = self.inner.closed.clone();
        // It ends last, after the other tasks that `finish` awaits.
        self.inner.endpoints.spawn(
            warp::serve(routes)
                .incoming(listener)
                .graceful(closed.cancelled_owned())
                .run(),
        );
    }
}

/// Listens on `address`.
///
/// # Errors
/// [`StartError::PortTaken`] or [`StartError::Listen`], which say what to do.
pub async fn listen(address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| StartError::listen(address, source))
}

fn alive_reply(inner: Option<&Inner>) -> impl warp::Reply + use<> {
    let mut body = serde_json::Map::from_iter([("alive".to_owned(), true.into())]);
    if let Some(inner) = inner {
        let remarks = lock(&inner.remarks);
        let said = remarks
            .iter()
            .filter_map(|(name, say)| Some(((*name).to_owned(), say()?)));
        body.extend(said);
    }
    warp::reply::with_header(warp::reply::json(&body), VERSION_HEADER, VERSION)
}

fn ready_reply(waiting: &BTreeMap<&'static str, String>) -> impl warp::Reply + use<> {
    let (body, status) = if waiting.is_empty() {
        (serde_json::json!({"ready": true}), StatusCode::OK)
    } else {
        let body = serde_json::json!({"ready": false, "waiting_for": waiting});
        (body, StatusCode::SERVICE_UNAVAILABLE)
    };
    warp::reply::with_status(warp::reply::json(&body), status)
}

fn metrics_reply(registry: &prometheus::Registry) -> impl warp::Reply + use<> {
    let encoder = prometheus::TextEncoder::new();
    let mut text = Vec::new();
    // Fails only for a metric without a name or a value, which the prometheus crate does not make.
    let status = match encoder.encode(&registry.gather(), &mut text) {
        Ok(()) => StatusCode::OK,
        Err(error) => {
            tracing::error!(%error, "metrics can't be written");
            StatusCode::INTERNAL_SERVER_ERROR
        }
    };
    let reply = warp::reply::with_header(text, "content-type", prometheus::TEXT_FORMAT);
    warp::reply::with_status(reply, status)
}
