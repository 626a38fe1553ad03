//! The recording service: makes one server's real state match its assignment.
//!
//! A shell around [`understudy_core::reconcile`], which decides, and [`understudy_media::film::Studio`], which
//! films. It films at once from what lies on its own disk, before the broker is there, and goes on when the
//! broker goes. Killed at any moment, it goes on where it was.

mod acting;
mod config;
mod director;
mod disk;
mod fetch;
mod inbox;
mod keeper;
mod metrics;
mod opener;
mod report;
mod shell;
mod snapshots;

use std::{collections::BTreeSet, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use tokio::sync::{Notify, mpsc, watch};
use understudy_bus::{BrokerConfig, Bus, BusError};
use understudy_core::{
    assignment::{Assignment, Role},
    authority::right,
    ids::{FailoverId, Incarnation},
    settings::Bundle,
};
use understudy_media::{
    archive::{Archive, ArchiveError},
    camera::Fault,
    film::Studio,
    relay::Relay,
};
use understudy_runtime::{Process, Secret, ServerConfig};

use self::{
    acting::Acting,
    disk::Disk,
    inbox::Inbox,
    keeper::Keeper,
    metrics::Metrics,
    shell::{Doors, Shell, Tools},
    snapshots::Snapshots,
};
pub use self::{
    config::IngestConfig,
    disk::DiskError,
    opener::{AnswerError, Opener, OpenerError, answer},
};

/// Work done elsewhere whose result waits for the shell: one `Closed` or `Erased` for each failover that the
/// archive holds, of which there are seldom more than two.
const RESULTS: usize = 16;

/// How long the start of a server that films nothing waits for the repair of what a crash left behind. Some
/// ninety files of a minute each are read once.
const REPAIRING: Duration = Duration::from_secs(10);

/// Why the recording service could not start.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// A value of `[ingest]` can't be.
    #[error("ingest.{key} = {value} is not possible: choose {least} to {most}")]
    Config {
        /// Which.
        key: &'static str,
        /// Its value.
        value: u64,
        /// The least that it can be.
        least: u64,
        /// The most that it can be.
        most: u64,
    },
    /// Live view would be open to everybody.
    #[error(
        "ingest.relay_listen = {0}: other machines could watch every camera there; set relay_token_file, or choose an \
         address of this machine only, like 127.0.0.1:8555"
    )]
    OpenRelay(SocketAddr),
    /// What is said of live view can't be.
    #[error("[ingest] {0}")]
    Relay(String),
    /// The server's folder can't be used.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The archive can't be opened.
    #[error(
        "{source}; see that the folder {} is there and that this service's user may write to it (chown), or set \
         server.data to another folder",
        path.display()
    )]
    Archive {
        /// Where.
        path: PathBuf,
        /// Why.
        source: ArchiveError,
    },
    /// GStreamer lacks what recording needs.
    #[error("cameras can't be recorded: {0}")]
    Studio(#[from] Fault),
    /// The fleet's key can't be used.
    #[error("server.fleet_key_file: {0}")]
    Key(#[from] OpenerError),
    /// The bus could not be set up.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// A metric's name is taken.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// Gives out live what is filmed, to those who know the token if there is one.
fn relay(config: &IngestConfig, token: Option<&Secret>, studio: &Studio, process: &Process) -> Relay {
    let relay = match token {
        Some(token) => Relay::new(studio.clone()).guarded_by(token.expose()),
        None => Relay::new(studio.clone()),
    };
    process.spawn(
        "relay",
        relay.clone().run(config.relay_listen, process.shutdown()),
    );
    relay
}

/// Films what is assigned until the process is shut down; then closes all segments. Settings are opened by
/// `opener`, so that this process never holds the fleet's key.
///
/// # Errors
/// [`IngestError`] if it can't start; later nothing ends it.
pub async fn run(
    config: IngestConfig,
    server: ServerConfig,
    broker: BrokerConfig,
    opener: Opener,
    process: Process,
) -> Result<(), IngestError> {
    config.validate()?;
    let token = config.token()?;
    let assigned = process.condition("assignment");
    let opened = process.condition("archive");
    let id = uuid::Uuid::new_v4().to_string();
    let incarnation = Incarnation::new(id).expect("a UUID is lower-case letters, digits and hyphens");
    let (acting, said) = Acting::new(server.id.clone(), incarnation.clone());
    let metrics = Metrics::register(process.registry(), &server.domain, &server.id, &acting)?;
    let (disk, archive) = open(&server, &process).await?;
    let persisted = disk.load_assignment(&server.id)?;
    let bundles = open_bundles(&disk, &opener).await?;
    opened.ready();

    let known = persisted
        .assignment
        .iter()
        .find(|known| known.server == server.id);
    known
        .into_iter()
        .for_each(|assignment| acting.step(right::Input::Assigned(assignment)));

    // Connects by itself, and nothing below waits for it: cameras are filmed without a broker too.
    let bus = Bus::start(&broker, &format!("ingest/{}", server.id), &process)?;
    let (sender, results) = mpsc::channel(RESULTS);
    let keeper = Keeper::start(archive.clone(), disk.clone(), sender, &process);
    let held = held(&archive, &keeper, persisted.assignment.as_ref())
        .await
        .map_err(|source| IngestError::Archive {
            path: archive.folder().to_owned(),
            source,
        })?;
    let studio = Studio::new(archive.clone(), config.studio()).await?;
    Snapshots {
        server: server.id.clone(),
        studio: studio.clone(),
        archive,
    }
    .serve(&bus, &process);
    let statuses = studio.statuses();
    let relay = relay(&config, token.as_ref(), &studio, &process);
    let (orders, taken) = mpsc::channel(director::WAITING_ORDERS);
    let directed = Arc::new(Notify::new());
    let director = director::run(
        studio.clone(),
        keeper.clone(),
        taken,
        Arc::clone(&directed),
        process.clone(),
    );
    process.spawn("director", director);

    let (wanted, wishes) = watch::channel(None);
    let (reports, published) = watch::channel(None);
    let (limits, cameras) = watch::channel(Vec::new());
    let (measured, room) = watch::channel(None);
    keeper.retain(&config, cameras, metrics.volume(), measured);
    let announced = relay.address();
    let tools = Tools {
        disk,
        studio,
        relay,
        orders,
        keeper,
        wanted,
        reports,
        limits,
        room,
        metrics,
        assigned,
        acting: acting.clone(),
        tracer: process.tracer().clone(),
    };
    let shell = Shell::start(tools, &config, &server, incarnation, (persisted, bundles, held)).await;

    let (fetched, fetches) = mpsc::channel(1);
    process.spawn(
        "fetch",
        fetch::run(bus.clone(), opener.clone(), wishes, fetched, process.clone()),
    );
    let publisher = report::publish(bus.clone(), published, process.clone());
    process.spawn("reports", publisher);
    // One batch waits while the shell has the one before on its way to the disk.
    let (batches, inbox) = mpsc::channel(1);
    let right = acting.changes();
    let listening = Inbox::open(&bus, &server.id, opener, acting.clone());
    acting.start(said, listening.consumption(), bus.clone(), &server, &process);
    process.spawn("inbox", listening.run(batches));
    shell
        .run(
            Doors {
                inbox,
                fetches,
                statuses,
                directed,
                results,
                announced,
                link: bus.link(),
                right,
            },
            &process,
        )
        .await;
    process.finish().await;
    Ok(())
}

/// Says on `/healthz` what the volume refuses, which the agent asks for.
fn say_refusals(archive: &Archive, process: &Process) {
    let refusals = archive.refusals().clone();
    process.remark("volume_errors", move || {
        serde_json::to_value(refusals.lately()?).ok()
    });
}

/// Opens the server's folder and its archive, in a thread where a slow disk harms nobody.
async fn open(server: &ServerConfig, process: &Process) -> Result<(Disk, Archive), IngestError> {
    let (data, id) = (server.data.clone(), server.id.clone());
    let opened = tokio::task::spawn_blocking(move || {
        let disk = Disk::open(&data)?;
        let path = disk.archive();
        let archive = Archive::open(&path, id).map_err(|source| IngestError::Archive { path, source })?;
        Ok((disk, archive))
    });
    let opened = opened
        .await
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
    opened.inspect(|(_, archive)| say_refusals(archive, process))
}

/// The failovers of which the archive has recordings to give out. Who films does so at once; who only hands
/// back first has to have whole what a crash left behind, but does not wait for a disk that can't give it:
/// nothing is erased, and no manifest is complete, before it is.
async fn held(
    archive: &Archive,
    keeper: &Keeper,
    assignment: Option<&Assignment>,
) -> Result<BTreeSet<FailoverId>, ArchiveError> {
    let held = archive.failovers().await?;
    let films = assignment.is_some_and(|assignment| matches!(assignment.role, Role::Films(_)));
    if films || held.is_empty() {
        return Ok(held);
    }
    let _ = tokio::time::timeout(REPAIRING, keeper.repaired()).await;
    archive.failovers().await
}

/// The settings in store, opened and oldest first. Those that were sealed with another key are left out.
async fn open_bundles(disk: &Disk, opener: &Opener) -> Result<Vec<Bundle>, IngestError> {
    let opened = opener.open(&disk.load_bundles()?).await?;
    let usable = opened.into_iter().filter_map(|opened| {
        opened
            .inspect_err(|why| {
                tracing::error!(
                    why,
                    "settings on disk can't be used; they will be asked for again when needed"
                );
            })
            .ok()
    });
    Ok(usable.collect())
}
