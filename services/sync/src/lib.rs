//! Failback: recordings go from where they were made to where they belong.
//!
//! Every server gives out what it recorded for a failover (`source`, HTTP) and, when its assignment says
//! so, fetches what another one recorded for it (`restorer`), verified by hash and indexed in its own archive.
//! It never erases: the host tells the giving server to, once the fetching one has said that it has everything.
//!
//! It decides nothing: what is to be fetched stands in `assignment.json`, written by the recording service.

mod config;
mod fetch;
mod metrics;
mod order;
mod pace;
mod progress;
mod remote;
mod reports;
mod restorer;
mod source;

use std::{future::Future, io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use tokio::sync::watch;
use understudy_bus::{BrokerConfig, Bus, BusError, Message};
use understudy_core::contract::heartbeat::RestorationReport;
use understudy_media::archive::{Archive, ArchiveError};
use understudy_runtime::{
    ConfigError, FleetConfig, Process, ServerConfig, folder,
    process::{StartError, listen},
};

pub use self::config::SyncConfig;
use self::{metrics::Metrics, pace::Gate, restorer::Restorer, source::Source};

/// Below the server's data folder.
const ARCHIVE: &str = "archive";

/// Why this service does not run.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// Anybody could have every recording, or the token can't be used.
    #[error(transparent)]
    Fleet(#[from] ConfigError),
    /// The server's data folder is not there and can't be made.
    #[error(
        "[server] data: can't make {}: {source}; give this service's user write permission to the folder that it is in \
         (chown), or set server.data to another folder",
        path.display()
    )]
    Folder {
        /// Which folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The archive can't be opened.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The address can't be listened on.
    #[error("[sync] listen: {0}")]
    Listen(#[from] StartError),
    /// The broker's configuration makes no sense.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// A metric is registered twice.
    #[error(transparent)]
    Metrics(#[from] prometheus::Error),
}

/// A sync service whose parts run in its process.
#[derive(Debug)]
pub struct SyncService {
    address: SocketAddr,
    status: watch::Receiver<Option<RestorationReport>>,
}

impl SyncService {
    /// Opens the archive, gives out and fetches until the process's shutdown. Reports go to
    /// [`SyncService::status`] only.
    ///
    /// # Errors
    /// [`SyncError`] says what to do about it.
    pub async fn start(
        config: SyncConfig,
        fleet: &FleetConfig,
        server: ServerConfig,
        process: &Process,
    ) -> Result<Self, SyncError> {
        let guard = fleet.guard(config.listen, "sync.listen")?;
        let token = fleet.token()?;
        let ready = process.condition("archive");
        folder::make_private(&server.data).map_err(|source| SyncError::Folder {
            path: server.data.clone(),
            source,
        })?;
        let archive = Archive::open(server.data.join(ARCHIVE), server.id.clone())?;
        let metrics = Metrics::register(process.registry(), &server.domain, &server.id)?;
        let listener = listen(config.listen).await?;
        let address = listener.local_addr().unwrap_or(config.listen);
        let source = Source::new(archive.clone(), server.data.clone(), process.tracer().clone());
        let routes = source.routes(guard);
        let shutdown = process.shutdown();
        process.spawn(
            "source",
            warp::serve(routes)
                .incoming(listener)
                .graceful(shutdown.cancelled_owned())
                .run(),
        );
        let (give, orders) = watch::channel(None);
        process.spawn("assignment", order::follow(server.data, give, process.shutdown()));
        let (told, status) = watch::channel(None);
        let slow = Duration::from_millis(config.yield_latency_ms);
        let restorer = Restorer {
            gate: Arc::new(Gate::new(slow, archive.folder())),
            archive,
            config,
            token,
            server: server.id,
            domain: server.domain,
            metrics,
            status: told,
            tracer: process.tracer().clone(),
        };
        process.spawn("restorer", restorer.run(orders, process.shutdown()));
        ready.ready();
        Ok(Self { address, status })
    }

    /// Where recordings are given out.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How far the restoration under way is; none if there is none.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<Option<RestorationReport>> {
        self.status.clone()
    }

    /// Has `send` tell the host how far it is, on each change and from time to time, until the shutdown.
    pub fn report<P, F>(&self, process: &Process, send: P)
    where
        P: Fn(RestorationReport) -> F + Send + Sync + 'static,
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        process.spawn(
            "reports",
            reports::publish(self.status(), send, reports::Pace::default(), process.shutdown()),
        );
    }
}

/// Runs until the process's shutdown.
///
/// # Errors
/// [`SyncError`] says what to do about it.
pub async fn run(
    config: SyncConfig,
    fleet: FleetConfig,
    server: ServerConfig,
    broker: BrokerConfig,
    process: Process,
) -> Result<(), SyncError> {
    let bus = Bus::start(&broker, &format!("sync/{}", server.id), &process)?;
    let sync = SyncService::start(config, &fleet, server, &process).await?;
    tracing::info!(address = %sync.address(), "recordings are given out");
    sync.report(&process, move |report| {
        let bus = bus.clone();
        async move {
            bus.publish(Message::restoration(&report))
                .await
                .map_err(|error| error.to_string())
        }
    });
    process.shutdown().cancelled().await;
    process.finish().await;
    Ok(())
}
