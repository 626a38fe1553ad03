//! The shell: a request at a time, stored before it is answered.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::sync::{Mutex, Notify};
use understudy_bus::{BrokerConfig, Bus, BusError, Message, OutboxSource};
use understudy_core::{
    contract::{
        api::Problem,
        event::{Event, Fact},
        names,
        rpc::{Answer, LicenseReply, LicenseRequest},
    },
    ids::{DomainId, FailoverId, ServerId},
    license::{Change, Ledger, LicenseError},
};
use understudy_runtime::{HostConfig, Process, clock};
use understudy_store::{Store, StoreError, outbox};

use crate::{
    config::{LicenseConfig, Licensing},
    keys,
    metrics::Metrics,
    tables,
};

/// The outbox's rows of this service.
const SERVICE: &str = "license";
/// How long it waits before it tries an unreadable database again.
const RETRY: Duration = Duration::from_secs(1);

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
    let ledger = loop {
        match store.run(tables::load).await {
            Ok(ledger) => break ledger,
            Err(error) if error.is_passing() => {
                tracing::warn!(%error, "the ledger can't be read yet");
                tokio::time::sleep(RETRY).await;
            }
            Err(error) => return Err(error.into()),
        }
    };
    let metrics = Metrics::register(process.registry(), host.domain.as_str())?;
    metrics.show(&ledger);
    let bus = Bus::start(&broker, SERVICE, &process)?;
    let wake = Arc::new(Notify::new());
    understudy_bus::outbox::pump(bus.clone(), Outbox(store.clone()), wake.clone(), &process);
    let service = Arc::new(Service {
        config,
        domain: host.domain,
        store,
        ledger: Mutex::new(ledger),
        wake,
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
    domain: DomainId,
    store: Store,
    ledger: Mutex<Ledger>,
    wake: Arc<Notify>,
    metrics: Metrics,
}

/// What a request comes to: what is stored, what is told, what is answered.
struct Outcome {
    changes: Vec<Change>,
    facts: Vec<Event>,
    reply: LicenseReply,
}

impl Service {
    async fn answer(&self, request: LicenseRequest) -> Answer<LicenseReply> {
        let mut ledger = self.ledger.lock().await;
        // The ledger in memory is replaced only once the change is on disk.
        let mut next = ledger.clone();
        let outcome = decide(&mut next, &self.config, request)?;
        if !outcome.changes.is_empty() {
            self.persist(outcome.changes, outcome.facts).await?;
            *ledger = next;
            self.metrics.show(&ledger);
        }
        Ok(outcome.reply)
    }

    async fn persist(&self, changes: Vec<Change>, facts: Vec<Event>) -> Result<(), Problem> {
        let told: Vec<String> = facts
            .into_iter()
            .filter_map(|event| {
                let fact = Fact { domain: self.domain.clone(), at: clock::wall(), event };
                serde_json::to_string(&Message::fact(&fact)).ok()
            })
            .collect();
        let stored = self.store.run(move |connection| {
            changes.iter().try_for_each(|change| tables::store(connection, change))?;
            told.iter().try_for_each(|message| outbox::push(connection, SERVICE, message))
        });
        stored.await.map_err(|error| {
            tracing::error!(%error, "a change of the ledger could not be stored");
            Problem::unavailable(format!("the licence ledger can't be written: {error}"))
        })?;
        self.wake.notify_one();
        Ok(())
    }
}

fn decide(ledger: &mut Ledger, config: &LicenseConfig, request: LicenseRequest) -> Answer<Outcome> {
    let off = config.licensing == Licensing::Off;
    let silent = |changes, ledger: &Ledger| Outcome {
        changes,
        facts: Vec::new(),
        reply: LicenseReply::Licenses(ledger.view()),
    };
    match request {
        LicenseRequest::List => Ok(silent(Vec::new(), ledger)),
        LicenseRequest::Add { .. } if off => {
            Err(Problem::conflict("this host needs no licences ([license] licensing = \"off\")"))
        }
        LicenseRequest::Add { key, server } => {
            let payload =
                keys::verify(&key, &config.issuers).map_err(|error| Problem::invalid(error.to_string()))?;
            let changes = ledger.add(payload, &server).map_err(refused)?;
            Ok(silent(changes, ledger))
        }
        LicenseRequest::Remove(key) => {
            let changes = ledger.remove(&key).map_err(refused)?;
            Ok(silent(changes, ledger))
        }
        LicenseRequest::Transfer { .. } | LicenseRequest::GiveBack { .. } if off => Ok(Outcome {
            changes: Vec::new(),
            facts: Vec::new(),
            reply: LicenseReply::Moved { devices: 0 },
        }),
        LicenseRequest::Transfer { failover, from, to } => {
            let (devices, changes) = ledger.transfer(&failover, &from, &to).map_err(refused)?;
            Ok(moved(&failover, devices, changes, BTreeMap::from([((from, to), devices)])))
        }
        LicenseRequest::GiveBack { failover } => {
            let returning = returning(ledger, &failover);
            let (devices, changes) = ledger.give_back(&failover);
            Ok(moved(&failover, devices, changes, returning))
        }
    }
}

/// Devices by (who holds them, whose they are), of the keys that a failover moved.
fn returning(ledger: &Ledger, failover: &FailoverId) -> BTreeMap<(ServerId, ServerId), u32> {
    let mut devices = BTreeMap::new();
    for entry in ledger.entries().filter(|entry| entry.moved_by.as_ref() == Some(failover)) {
        *devices.entry((entry.holder.clone(), entry.owner.clone())).or_default() += entry.payload.devices;
    }
    devices
}

/// A move that changed nothing, since it had happened before, is told to nobody.
fn moved(
    failover: &FailoverId,
    devices: u32,
    changes: Vec<Change>,
    ways: BTreeMap<(ServerId, ServerId), u32>,
) -> Outcome {
    let facts = ways
        .into_iter()
        .filter(|(_, devices)| *devices > 0 && !changes.is_empty())
        .map(|((from, to), devices)| Event::LicenseTransferred { failover: failover.clone(), from, to, devices })
        .collect();
    Outcome { changes, facts, reply: LicenseReply::Moved { devices } }
}

fn refused(error: LicenseError) -> Problem {
    match error {
        LicenseError::Unknown(key) => Problem::not_found("licence key", key),
        other => Problem::conflict(other.to_string()),
    }
}

/// This service's rows of the outbox.
struct Outbox(Store);

impl OutboxSource for Outbox {
    async fn pending(
        &self,
        limit: usize,
    ) -> Result<Vec<(i64, Message)>, Box<dyn std::error::Error + Send + Sync>> {
        let rows = self.0.run(move |connection| outbox::pending(connection, SERVICE, limit)).await?;
        rows.into_iter().map(|(id, json)| Ok((id, serde_json::from_str(&json)?))).collect()
    }

    async fn sent(&self, ids: &[i64]) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let ids = ids.to_vec();
        Ok(self.0.run(move |connection| outbox::sent(connection, &ids)).await?)
    }
}
