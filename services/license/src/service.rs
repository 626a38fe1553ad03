//! The shell: a request at a time, stored before it is answered.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::sync::{Mutex, Notify};
use understudy_bus::{BrokerConfig, Bus, BusError, Link, Message};
use understudy_core::{
    contract::{
        api::{LicenseHappening, LicensesView, Problem},
        event::{Event, Fact},
        names,
        rpc::{Answer, LicenseReply, LicenseRequest, OrchestratorReply, OrchestratorRequest},
    },
    ids::{CameraId, DomainId, ServerId},
    license::{Change, Ledger, LicenseError, history::happenings, shortage},
};
use understudy_runtime::{HostConfig, Process, TraceContext, clock, trace::Kind};
use understudy_store::{Store, StoreError};

use crate::{
    config::{LicenseConfig, Licensing},
    keys,
    metrics::Metrics,
    tables,
};

/// How often the cameras are counted that no key covers. A fleet of 20,000 answers with some megabytes.
const COUNT_EVERY: Duration = Duration::from_secs(60);
/// How soon it is tried again when the orchestrator could not be asked.
const COUNT_AGAIN: Duration = Duration::from_secs(5);
/// Cameras that are named when keys are short.
const CAMERAS_NAMED: usize = 100;
/// For how long the orchestrator may take to say which cameras there are.
const COUNT_DEADLINE: Duration = Duration::from_secs(5);

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
        changed: Notify::new(),
        told: Mutex::default(),
        domain: host.domain.clone(),
    });
    process.spawn(
        "shortage",
        count_missing(service.clone(), bus.clone(), process.clone()),
    );
    let tracer = process.tracer().clone();
    bus.serve(
        names::LICENSE,
        move |request: LicenseRequest| {
            let (service, tracer) = (service.clone(), tracer.clone());
            async move {
                let handling = tracer.open("ledger", TraceContext::carried());
                let answer = handling.scope(service.answer(request)).await;
                let failed = answer.as_ref().err().map(ToString::to_string);
                handling.end(|span| span.of(Kind::Server).failed(failed));
                answer
            }
        },
        &process,
    );
    process.shutdown().cancelled().await;
    Ok(())
}

/// Counts again after each change of the ledger, and every so often, since cameras change too.
async fn count_missing(service: Arc<Service>, bus: Bus, process: Process) {
    let shutdown = process.shutdown();
    let mut link = bus.link();
    loop {
        let counted = async {
            // Fails only with the bus, and the process with it.
            let _ = link.wait_for(|link| *link == Link::Up).await;
            let again = match service.count_missing(&bus).await {
                Ok(()) => COUNT_EVERY,
                Err(why) => {
                    tracing::debug!(
                        why,
                        "cameras without a licence could not be counted, or not told of"
                    );
                    COUNT_AGAIN
                }
            };
            // Whichever comes first.
            let _ = tokio::time::timeout(again, service.changed.notified()).await;
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = counted => {}
        }
    }
}

struct Service {
    config: LicenseConfig,
    domain: DomainId,
    store: Store,
    ledger: Mutex<Ledger>,
    metrics: Metrics,
    /// The ledger is another one.
    changed: Notify,
    /// Cameras without a licence that were told of, by their servers.
    told: Mutex<BTreeMap<ServerId, usize>>,
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
            self.changed.notify_one();
        }
        Ok(reply)
    }

    /// Counts the cameras that no key covers, for the metrics, and tells when they change. The orchestrator knows which there are.
    async fn count_missing(&self, bus: &Bus) -> Result<(), String> {
        if self.config.licensing == Licensing::Off {
            self.metrics.missing(0);
            return Ok(());
        }
        let request = OrchestratorRequest::ListCameras;
        let asked =
            bus.request::<_, Answer<OrchestratorReply>>(names::ORCHESTRATOR, &request, COUNT_DEADLINE);
        let views = match asked.await {
            Ok(Ok(OrchestratorReply::Cameras(views))) => views,
            Ok(Ok(_)) => return Err("it answered something else".to_owned()),
            Ok(Err(problem)) => return Err(problem.to_string()),
            Err(error) => return Err(error.to_string()),
        };
        let cameras: Vec<_> = views.into_iter().map(|view| view.camera).collect();
        let short = shortage::unlicensed(&self.ledger.lock().await.view().keys, &cameras);
        self.metrics.missing(short.values().map(Vec::len).sum());
        self.tell(bus, short).await
    }

    /// Tells whose keys are short, and whose no more are: each once, and again if more cameras are concerned. What was
    /// told is forgotten with the process, so that a shortage that lasts is told again after its next start.
    async fn tell(&self, bus: &Bus, short: BTreeMap<ServerId, Vec<CameraId>>) -> Result<(), String> {
        let mut told = self.told.lock().await;
        let events = changes(&told, &short);
        let domains = if events.is_empty() {
            BTreeMap::new()
        } else {
            domains(bus).await?
        };
        for event in events {
            let server = event.subject().to_owned();
            // A server that was removed meanwhile has none any more.
            let domain = domains.get(&server).unwrap_or(&self.domain);
            let fact = Fact {
                domain: domain.clone(),
                at: clock::wall(),
                event,
            };
            // What is not told now is told with the next count.
            bus.publish(Message::fact(&fact)).await.map_err(|error| {
                format!("that the licences of {server} are short, or are not, can't be told: {error}")
            })?;
        }
        *told = short
            .into_iter()
            .map(|(server, cameras)| (server, cameras.len()))
            .collect();
        Ok(())
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

/// In which domain each server is.
async fn domains(bus: &Bus) -> Result<BTreeMap<String, DomainId>, String> {
    let request = OrchestratorRequest::ListServers;
    let asked = bus.request::<_, Answer<OrchestratorReply>>(names::ORCHESTRATOR, &request, COUNT_DEADLINE);
    match asked.await {
        Ok(Ok(OrchestratorReply::Servers(views))) => Ok(views
            .into_iter()
            .map(|view| (view.server.id.to_string(), view.server.domain))
            .collect()),
        Ok(_) => Err("which servers there are can't be said".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// What is to be told, when cameras beyond the keys were `told` of, and `short` are now.
fn changes(told: &BTreeMap<ServerId, usize>, short: &BTreeMap<ServerId, Vec<CameraId>>) -> Vec<Event> {
    let worse = short
        .iter()
        .filter(|(server, cameras)| told.get(*server).is_none_or(|before| cameras.len() > *before));
    let enough = told.keys().filter(|server| !short.contains_key(*server));
    worse
        .map(|(server, cameras)| Event::LicenseShort {
            server: server.clone(),
            missing: u32::try_from(cameras.len()).unwrap_or(u32::MAX),
            cameras: cameras.iter().take(CAMERAS_NAMED).cloned().collect(),
        })
        .chain(enough.map(|server| Event::LicenseEnough {
            server: server.clone(),
        }))
        .collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn k4_a_shortage_is_told_once_and_again_when_it_grows_and_when_it_is_over() {
        let server = ServerId::new("recorder-1").unwrap();
        let cameras = |count: usize| -> BTreeMap<ServerId, Vec<CameraId>> {
            let ids = (0..count).map(|number| CameraId::new(format!("cam-{number}")).unwrap());
            [(server.clone(), ids.collect())].into()
        };
        let told = |count: usize| -> BTreeMap<ServerId, usize> { [(server.clone(), count)].into() };
        let names = |told: &BTreeMap<ServerId, usize>, short: &BTreeMap<ServerId, Vec<CameraId>>| {
            let events = changes(told, short);
            events.iter().map(Event::name).collect::<Vec<_>>()
        };
        let none = BTreeMap::new();
        assert_eq!(names(&BTreeMap::new(), &cameras(2)), ["license.short"]);
        assert!(names(&told(2), &cameras(2)).is_empty());
        assert!(names(&told(2), &cameras(1)).is_empty(), "it gets better");
        assert_eq!(names(&told(2), &cameras(3)), ["license.short"]);
        assert_eq!(names(&told(2), &none), ["license.enough"]);
        let Some(Event::LicenseShort { missing, cameras, .. }) =
            changes(&BTreeMap::new(), &cameras(300)).pop()
        else {
            panic!("it is short");
        };
        assert_eq!((missing, cameras.len()), (300, 100), "a fact is bounded");
    }
}
