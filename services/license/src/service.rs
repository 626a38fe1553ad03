//! The shell: a request at a time, stored before it is answered.

use std::sync::Arc;

use tokio::sync::Mutex;
use understudy_bus::{BrokerConfig, Bus, BusError};
use understudy_core::{
    contract::{
        api::{LicenseHappening, LicensesView, Problem},
        names,
        rpc::{Answer, LicenseReply, LicenseRequest},
    },
    license::{Change, Ledger, LicenseError, history::happenings},
};
use understudy_runtime::{HostConfig, Process, clock};
use understudy_store::{Store, StoreError};

use crate::{
    config::{LicenseConfig, Licensing},
    keys,
    metrics::Metrics,
    tables,
};

/// Why the service could not start.
#[derive(Debug, thiserror::Error)]
pub enum LicenseServiceError {
    /// A configured issuer is no public key.
    #[error("[license] issuers: {0:?} is no Ed25519 public key (64 hexadecimal digits)")]
    Issuer(String),
    /// The database can't be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The broker's configuration can't be used.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// A metric was registered twice.
    #[error(transparent)]
    Metrics(#[from] prometheus::Error),
}

/// Serves the ledger until the process ends.
///
/// # Errors
/// [`LicenseServiceError`] says what to do about it.
pub async fn run(
    config: LicenseConfig,
    host: HostConfig,
    broker: BrokerConfig,
    process: Process,
) -> Result<(), LicenseServiceError> {
    if let Some(wrong) = config.issuers.iter().find(|issuer| !keys::is_public_key(issuer)) {
        return Err(LicenseServiceError::Issuer(wrong.clone()));
    }
    let store = Store::open(host.database(), tables::MIGRATIONS)?;
    let ledger = store.run_patiently(tables::load).await?;
    let metrics = Metrics::register(process.registry(), host.domain.as_str())?;
    metrics.show(&ledger);
    let bus = Bus::start(&broker, names::LICENSE, &process)?;
    let service = Arc::new(Service {
        config,
        store,
        ledger: Mutex::new(ledger),
        metrics,
    });
    bus.serve(
        names::LICENSE,
        move |request: LicenseRequest| {
            let service = service.clone();
            async move { service.answer(request).await }
        },
        &process,
    );
    process.shutdown().cancelled().await;
    Ok(())
}

struct Service {
    config: LicenseConfig,
    store: Store,
    ledger: Mutex<Ledger>,
    metrics: Metrics,
}

impl Service {
    async fn answer(&self, request: LicenseRequest) -> Answer<LicenseReply> {
        let mut ledger = self.ledger.lock().await;
        if request == LicenseRequest::History {
            return self.history().await;
        }
        // The ledger in memory is replaced only once the change is on disk.
        let mut next = ledger.clone();
        let (reply, changes) = decide(&mut next, &self.config, request)?;
        if !changes.is_empty() {
            let happenings = happenings(&ledger, &changes, clock::wall());
            self.persist(changes, happenings).await?;
            *ledger = next;
            self.metrics.show(&ledger);
        }
        Ok(reply)
    }

    async fn history(&self) -> Answer<LicenseReply> {
        let read = self.store.run(tables::history).await;
        let read = read.map_err(|error| {
            tracing::error!(%error, "the ledger's history could not be read");
            Problem::unavailable(format!("the licence ledger can't be read: {error}"))
        })?;
        Ok(LicenseReply::History(read))
    }

    async fn persist(&self, changes: Vec<Change>, happenings: Vec<LicenseHappening>) -> Result<(), Problem> {
        let stored = self.store.run(move |connection| {
            changes
                .iter()
                .try_for_each(|change| tables::store(connection, change))?;
            happenings
                .iter()
                .try_for_each(|happening| tables::note(connection, happening))
        });
        stored.await.map_err(|error| {
            tracing::error!(%error, "a change of the ledger could not be stored");
            Problem::unavailable(format!("the licence ledger can't be written: {error}"))
        })
    }
}

fn decide(
    ledger: &mut Ledger,
    config: &LicenseConfig,
    request: LicenseRequest,
) -> Answer<(LicenseReply, Vec<Change>)> {
    let off = config.licensing == Licensing::Off;
    match request {
        LicenseRequest::List => Ok((LicenseReply::Licenses(shown(ledger, config)), Vec::new())),
        // Answered from the disk.
        LicenseRequest::History => Ok((LicenseReply::History(Vec::new()), Vec::new())),
        LicenseRequest::Add { .. } if off => Err(Problem::conflict(
            "this host needs no licences ([license] licensing = \"off\")",
        )),
        LicenseRequest::Add { key, server } => {
            let payload =
                keys::verify(&key, &config.issuers).map_err(|error| Problem::invalid(error.to_string()))?;
            let changes = ledger.add(payload, &server).map_err(refused)?;
            Ok((LicenseReply::Licenses(shown(ledger, config)), changes))
        }
        LicenseRequest::Remove(key) => {
            let changes = ledger.remove(&key).map_err(refused)?;
            Ok((LicenseReply::Licenses(shown(ledger, config)), changes))
        }
        LicenseRequest::Transfer { .. }
        | LicenseRequest::Replace { .. }
        | LicenseRequest::GiveBack { .. }
            if off =>
        {
            Ok((LicenseReply::Moved { devices: 0 }, Vec::new()))
        }
        LicenseRequest::Transfer { failover, from, to } => {
            let (devices, changes) = ledger.transfer(&failover, &from, &to).map_err(refused)?;
            Ok((LicenseReply::Moved { devices }, changes))
        }
        LicenseRequest::Replace { failover, from, to } => {
            let (devices, changes) = ledger.replace(&failover, &from, &to).map_err(refused)?;
            Ok((LicenseReply::Moved { devices }, changes))
        }
        LicenseRequest::GiveBack { failover } => {
            let (devices, changes) = ledger.give_back(&failover);
            Ok((LicenseReply::Moved { devices }, changes))
        }
    }
}

fn shown(ledger: &Ledger, config: &LicenseConfig) -> LicensesView {
    LicensesView {
        needed: config.licensing == Licensing::On,
        ..ledger.view()
    }
}

fn refused(error: LicenseError) -> Problem {
    match error {
        LicenseError::Unknown(key) => Problem::not_found("licence key", key),
        other => Problem::conflict(other.to_string()),
    }
}
