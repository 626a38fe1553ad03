//! The API of the fleet, `/api/v1`: people and programs, the command line among them, have no other way in.
//!
//! It decides nothing and owns no table. A request is checked (`guard`, `body`), looked up in the table of
//! `routes`, and passed on to the service that owns the noun (`nouns`, `backend`); the answer is JSON, or
//! problem details after RFC 9457. Facts from the bus are passed on as server-sent events (`feed`).
//! Passwords never leave through here, and nothing is answered from memory but events.

mod answer;
mod backend;
mod body;
mod config;
mod feed;
mod guard;
mod http;
mod nouns;
mod routes;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::net::TcpListener;
use understudy_bus::{BrokerConfig, Bus, BusError};
use understudy_runtime::{Condition, ConfigError, Process, StartError, process::listen};

pub use crate::config::ConsoleConfig;
use crate::{backend::Backend, body::Limit, feed::Feed, guard::Guard, http::Api, routes::Router};

/// For how long a request may take to arrive.
const BODY_DEADLINE: Duration = Duration::from_secs(30);

/// Why the console does not run.
#[derive(Debug, thiserror::Error)]
pub enum ConsoleError {
    /// Whoever reaches it could do anything.
    #[error(
        "[console] listen = \"{0}\" can be reached from other machines: set token_file, or listen on 127.0.0.1"
    )]
    Unprotected(SocketAddr),
    /// The token can't be used.
    #[error("[console] {0}")]
    Token(String),
    /// The secret can't be read.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The address can't be listened on.
    #[error("[console] listen: {0}")]
    Listen(#[from] StartError),
    /// The bus does not start.
    #[error(transparent)]
    Bus(#[from] BusError),
}

/// Answers requests until the process shuts down.
///
/// Without a broker it answers 503 to whatever needs another service, and goes on by itself when the broker
/// is there.
///
/// # Errors
/// [`ConsoleError`] before it listens; afterwards nothing ends it but a shutdown.
pub async fn run(config: ConsoleConfig, broker: BrokerConfig, process: Process) -> Result<(), ConsoleError> {
    Console::bind(config, &broker, &process).await?.serve().await;
    Ok(())
}

/// A console that listens, and does not answer yet.
pub struct Console {
    listener: TcpListener,
    address: SocketAddr,
    api: Arc<Api>,
    condition: Condition,
}

impl Console {
    /// Listens, and connects to the broker in the background.
    ///
    /// # Errors
    /// [`ConsoleError`] says what to do about it.
    pub async fn bind(
        config: ConsoleConfig,
        broker: &BrokerConfig,
        process: &Process,
    ) -> Result<Self, ConsoleError> {
        let guard = Guard::new(&config)?;
        let condition = process.condition("api");
        let listener = listen(config.listen).await?;
        let address = listener.local_addr().unwrap_or(config.listen);
        let bus = Bus::start(broker, "console", process)?;
        let feed = Arc::new(Feed::new(config.recent_events));
        process.spawn("events", feed::follow(bus.clone(), feed.clone()));
        let api = Api {
            backend: Backend::new(bus, config.deadline()),
            feed,
            guard,
            limit: Limit {
                bytes: config.body_max_bytes,
                time: BODY_DEADLINE,
            },
            shutdown: process.shutdown(),
            router: Router::new(),
            tracer: process.tracer().clone(),
        };
        Ok(Self {
            listener,
            address,
            api: Arc::new(api),
            condition,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until the process shuts down. Ready (`/readyz`, condition `api`) from here on.
    pub async fn serve(self) {
        tracing::info!(address = %self.address, "the API listens at http://{}/api/v1", self.address);
        self.condition.ready();
        http::serve(self.api, self.listener).await;
    }
}
