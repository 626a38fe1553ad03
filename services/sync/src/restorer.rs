//! Fetches a failover's recordings from the server that made them, until everything that can be had is here.
//!
//! What is here is known by path and hash from the archive's index, so that a crash of either side costs no
//! more than what was under way. Nothing is asked of the other side but to read.

use std::{
    io,
    path::PathBuf,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::{Stream, StreamExt, stream};
use rand::Rng;
use tokio::{sync::watch, time::Instant};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use understudy_core::{
    assignment::Restore,
    contract::{
        heartbeat::RestorationReport,
        segment::{Manifest, Segment},
    },
    ids::{DomainId, ServerId},
    restoration,
};
use understudy_media::archive::{Archive, ArchiveError, Name};
use understudy_runtime::{Secret, Tracer, trace::Open};

use crate::{
    config::SyncConfig,
    fetch::{self, Door, FetchError},
    metrics::Metrics,
    order::Order,
    pace::Gate,
    progress::Tally,
    remote::{Remote, RemoteError},
};

/// Until the source is asked again whether more was closed.
const POLL: Duration = Duration::from_millis(250);
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// Segments that are made durable and indexed together, at most.
const BATCH: usize = 16;
/// Batches under way: while one is made durable, the next one fills.
const BATCHES: usize = 2;
/// How often the rate is worked out anew while nothing else changes.
const REFRESH: Duration = Duration::from_millis(500);

/// The fetching side of one server.
pub(crate) struct Restorer {
    pub(crate) archive: Archive,
    pub(crate) config: SyncConfig,
    /// What this server presents as one of the fleet.
    pub(crate) token: Option<Secret>,
    pub(crate) server: ServerId,
    pub(crate) domain: DomainId,
    pub(crate) metrics: Metrics,
    pub(crate) gate: Arc<Gate>,
    /// How far it is; none while there is nothing to be fetched.
    pub(crate) status: watch::Sender<Option<RestorationReport>>,
    pub(crate) tracer: Tracer,
}

/// What became of one segment.
enum Outcome {
    /// It is in a temporary file, whole.
    Arrived(Segment, PathBuf),
    /// It can't be had.
    Damaged(Segment, String),
    /// Not now; others may go on.
    Later(String),
    /// Nothing can go on now.
    Stuck(String),
}

/// A source's list of which everything is here.
struct Listed {
    /// Whether nothing will be added to it.
    complete: bool,
    /// See [`Manifest::begun`].
    begun: Option<u64>,
}

impl Restorer {
    /// Does what the orders say until the shutdown. Whatever is under way when an order goes is stopped; its
    /// half-fetched segments are removed, what is whole stays (G5).
    pub(crate) async fn run(self, mut orders: watch::Receiver<Option<Order>>, shutdown: CancellationToken) {
        loop {
            let order = orders.borrow_and_update().clone();
            let Some(order) = order else {
                self.status.send_replace(None);
                self.sweep().await;
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    changed = orders.changed() => if changed.is_err() { return },
                }
                continue;
            };
            self.announce(&order);
            // How often the same errand was given again, by a newer assignment.
            let again = AtomicU64::new(0);
            let fetching = order
                .trace
                .map(|trace| self.tracer.open("fetch recordings", trace));
            let mut restoring = pin!(self.restore_traced(&order.restore, &again, fetching));
            let (mut done, mut epoch) = (false, order.epoch);
            loop {
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    () = &mut restoring, if !done => done = true,
                    changed = orders.changed() => if changed.is_err() { return },
                }
                match &*orders.borrow_and_update() {
                    // A newer assignment with the same errand does not interrupt it: it only has to look at
                    // the source once more, which may have filmed for the same failover again in between.
                    // Once all was here it is done over.
                    Some(newer) if newer.restore == order.restore && (!done || newer.epoch == epoch) => {
                        if newer.epoch != epoch {
                            again.fetch_add(1, Ordering::Relaxed);
                        }
                        epoch = newer.epoch;
                        self.announce(newer);
                    }
                    _ => break,
                }
            }
        }
    }

    /// With what was fetched recorded as a part of the assignment's trace, if it has one.
    async fn restore_traced(&self, restore: &Restore, again: &AtomicU64, fetching: Option<Open>) {
        let Some(fetching) = fetching else {
            return self.restore_yielding(restore, again).await;
        };
        fetching.scope(self.restore_yielding(restore, again)).await;
        let progress = self.status.borrow().as_ref().map(|report| report.progress);
        let progress = progress.unwrap_or_default();
        fetching.end(|span| {
            span.with("failover", restore.failover.as_str())
                .with("server", self.server.as_str())
                .with("source", restore.source.as_str())
                .with("segments", progress.segments_done)
                .with("bytes", progress.bytes_done)
        });
    }

    async fn sweep(&self) {
        let incoming = self.archive.incoming();
        let swept = tokio::task::spawn_blocking(move || fetch::sweep(&incoming)).await;
        if let Ok(Err(error)) = swept {
            tracing::warn!(%error, "what was half fetched can't be removed");
        }
    }

    /// Puts the order's epoch into the report, or begins one.
    fn announce(&self, order: &Order) {
        self.status.send_if_modified(|status| {
            let failover = &order.restore.failover;
            match status {
                Some(report) if report.failover == *failover && report.epoch == order.epoch => return false,
                Some(report) if report.failover == *failover => {
                    report.epoch = order.epoch;
                    report.complete = false;
                    report.source = Some(order.restore.source.clone());
                    report.begun = None;
                }
                _ => {
                    *status = Some(RestorationReport {
                        server: self.server.clone(),
                        domain: self.domain.clone(),
                        failover: failover.clone(),
                        epoch: order.epoch,
                        progress: Default::default(),
                        complete: false,
                        source: Some(order.restore.source.clone()),
                        begun: None,
                        damaged: Vec::new(),
                        waiting: String::new(),
                    });
                }
            }
            true
        });
    }

    async fn restore_yielding(&self, restore: &Restore, again: &AtomicU64) {
        tokio::select! {
            () = self.restore(restore, again) => {}
            never = self.gate.watch() => match never {},
        }
    }

    /// Ends when everything is here that the source had when it was asked after the last time that `again` grew.
    async fn restore(&self, restore: &Restore, again: &AtomicU64) {
        tracing::info!(failover = %restore.failover, source = %restore.source, "fetching recordings");
        let mut tally = Tally::default();
        let mut pause = FIRST_PAUSE;
        // The newest list of which everything is here.
        let mut settled = Vec::new();
        let begun = loop {
            let before = tally.progress(Instant::now()).segments_done;
            let asked = again.load(Ordering::Relaxed);
            let waiting = match self.round(restore, &mut tally, &mut settled).await {
                Ok(Listed {
                    complete: true,
                    begun,
                }) => {
                    self.sweep().await;
                    // Nothing is awaited from here to the end: what is complete is complete for the epoch in
                    // the report.
                    if again.load(Ordering::Relaxed) == asked {
                        break begun;
                    }
                    continue;
                }
                Ok(_) => {
                    pause = FIRST_PAUSE;
                    tokio::time::sleep(POLL).await;
                    continue;
                }
                Err(waiting) => waiting,
            };
            self.tell_waiting(restore, &mut tally, waiting);
            if tally.progress(Instant::now()).segments_done > before {
                pause = FIRST_PAUSE;
            }
            tokio::time::sleep(jittered(pause)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        };
        self.tell_complete(restore, &mut tally, begun);
    }

    fn tell_waiting(&self, restore: &Restore, tally: &mut Tally, waiting: String) {
        tracing::warn!(failover = %restore.failover, waiting, "fetching recordings has to wait");
        self.tell(tally, false, waiting);
    }

    fn tell_complete(&self, restore: &Restore, tally: &mut Tally, begun: Option<u64>) {
        self.status.send_if_modified(|status| {
            status.iter_mut().for_each(|report| report.begun = begun);
            // With what follows.
            false
        });
        self.tell(tally, true, String::new());
        let damaged = tally.damaged().len();
        tracing::info!(failover = %restore.failover, damaged, "all recordings that can be had are here");
    }

    /// Asks what there is and fetches what is missing. What is here then, or what it waits for.
    async fn round(
        &self,
        restore: &Restore,
        tally: &mut Tally,
        settled: &mut Vec<Segment>,
    ) -> Result<Listed, String> {
        let words = |error: ArchiveError| error.to_string();
        let remote = Remote::new(restore, self.token.clone()).map_err(|error| error.to_string())?;
        let manifest = remote.manifest().await.map_err(|error| error.to_string())?;
        check(&manifest, restore)?;
        let listed = Listed {
            complete: manifest.complete,
            begun: manifest.begun,
        };
        if !manifest.segments.is_empty() && manifest.segments == *settled {
            return Ok(listed);
        }
        let known = self.archive.known(&restore.failover).await.map_err(words)?;
        let mut plan = restoration::plan(&manifest, &known);
        tally.begin(&mut plan);
        self.tell(tally, false, String::new());
        if !plan.is_complete() {
            self.fetch_all(&remote, plan.fetch, tally).await?;
        }
        // What was listed is here. If the list was final, that is all.
        *settled = manifest.segments;
        Ok(listed)
    }

    /// Fetches segments, several at once, and takes them over in batches.
    async fn fetch_all(
        &self,
        remote: &Remote,
        segments: Vec<Segment>,
        tally: &mut Tally,
    ) -> Result<(), String> {
        let mut waiting = None;
        let mut outcomes = pin!(self.outcomes(remote, segments, tally));
        let mut refresh = tokio::time::interval(REFRESH);
        loop {
            let batch = tokio::select! {
                batch = outcomes.next() => batch,
                _ = refresh.tick() => {
                    self.tell(tally, false, String::new());
                    continue;
                }
            };
            let Some(batch) = batch else { break };
            for outcome in batch.map_err(|error| error.to_string())? {
                match outcome {
                    Outcome::Arrived(segment, _) => {
                        self.metrics.bytes.inc_by(segment.bytes);
                        self.metrics.segments.inc();
                        tally.landed(&segment);
                    }
                    Outcome::Damaged(segment, reason) => {
                        tracing::error!(segment.path, reason, "a recording can't be handed back");
                        self.metrics.damaged.inc();
                        tally.is_damaged(&segment, reason);
                    }
                    Outcome::Later(reason) => waiting = Some(reason),
                    Outcome::Stuck(reason) => return Err(reason),
                }
            }
            self.tell(tally, false, String::new());
        }
        waiting.map_or(Ok(()), Err)
    }

    /// What becomes of each segment, in batches whose arrived segments are durable and in the index.
    fn outcomes<'a>(
        &'a self,
        remote: &'a Remote,
        segments: Vec<Segment>,
        tally: &Tally,
    ) -> impl Stream<Item = Result<Vec<Outcome>, ArchiveError>> + use<'a> {
        let door = Door {
            received: tally.received(),
            gate: Arc::clone(&self.gate),
        };
        let floor = self.config.free_floor_mib << 20;
        stream::iter(segments)
            .map(move |segment| {
                let (archive, remote, door) = (self.archive.clone(), remote.clone(), door.clone());
                // A task of its own, so that it goes on while others are taken over; it ends with this stream.
                let task = async move { attempt(&archive, &remote, segment, door, floor).await };
                AbortOnDropHandle::new(tokio::spawn(task))
            })
            .buffer_unordered(self.config.parallel.max(1))
            .map(|ended| ended.unwrap_or_else(|error| Outcome::Later(error.to_string())))
            .ready_chunks(BATCH)
            .map(|batch| self.take_over(batch))
            .buffered(BATCHES)
    }

    async fn take_over(&self, batch: Vec<Outcome>) -> Result<Vec<Outcome>, ArchiveError> {
        let arrived = batch.iter().filter_map(|outcome| match outcome {
            Outcome::Arrived(segment, file) => Some((segment.clone(), file.clone())),
            _ => None,
        });
        self.archive.import_all(arrived.collect()).await?;
        Ok(batch)
    }

    fn tell(&self, tally: &mut Tally, complete: bool, waiting: String) {
        let progress = tally.progress(Instant::now());
        self.status.send_if_modified(|status| {
            let Some(report) = status else { return false };
            let before = report.clone();
            report.progress = progress;
            report.complete = complete;
            report.damaged = tally.damaged();
            report.waiting = waiting;
            *report != before
        });
    }
}

fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(rand::thread_rng().gen_range(0.5..1.0))
}

/// Whether the manifest is the one that was asked for.
fn check(manifest: &Manifest, restore: &Restore) -> Result<(), String> {
    if manifest.failover == restore.failover && manifest.server == restore.source {
        return Ok(());
    }
    Err(format!(
        "{} answers for {} and failover {}, not for {} and {}",
        restore.address, manifest.server, manifest.failover, restore.source, restore.failover
    ))
}

async fn attempt(archive: &Archive, remote: &Remote, segment: Segment, door: Door, floor: u64) -> Outcome {
    // A name of another server's, of this one's above all, would replace what that one recorded.
    let named = Name::parse(&segment.path);
    if named.is_none_or(|name| name.server != segment.recorded_by || name.camera != segment.camera) {
        return Outcome::Damaged(segment, "its path is not one that its server gives".to_owned());
    }
    match room_for(archive, segment.bytes, floor) {
        Ok(None) => {}
        Ok(Some(reason)) => return Outcome::Stuck(reason),
        Err(error) => return Outcome::Stuck(format!("the volume can't be asked for its room: {error}")),
    }
    let file = fetch::temporary(&archive.incoming(), &segment);
    let outcome = match fetch::fetch(remote, &segment, &file, door).await {
        Ok(()) => Outcome::Arrived(segment, file.clone()),
        Err(FetchError::Remote(RemoteError::Damaged(reason))) => Outcome::Damaged(segment, reason),
        Err(FetchError::Remote(RemoteError::Away(reason))) => Outcome::Stuck(reason),
        Err(FetchError::Remote(RemoteError::Refused(reason))) => Outcome::Later(reason),
        Err(FetchError::Disk(error)) => {
            Outcome::Stuck(format!("{} can't be written: {error}", file.display()))
        }
        // Either it is damaged where it lies, or something happened on the way: the other side knows.
        Err(error @ (FetchError::Mismatch | FetchError::BrokeOff(_))) => match remote.verdict(&segment).await
        {
            Ok(Some(reason)) => Outcome::Damaged(segment, reason),
            Ok(None) => Outcome::Later(format!("{} is fetched again: {error}", segment.path)),
            Err(RemoteError::Away(reason)) => Outcome::Stuck(reason),
            Err(error) => Outcome::Later(error.to_string()),
        },
    };
    if matches!(outcome, Outcome::Damaged(..)) {
        // That it can't be removed shows when the folder is swept.
        let _ = tokio::fs::remove_file(&file).await;
    }
    outcome
}

/// Why there is no room; none if there is.
fn room_for(archive: &Archive, bytes: u64, floor: u64) -> io::Result<Option<String>> {
    let volume = nix::sys::statvfs::statvfs(archive.folder())?;
    let free = volume.blocks_available() * volume.fragment_size();
    let enough = free >= floor.saturating_add(bytes);
    Ok((!enough).then(|| {
        format!(
            "the volume has only {} MiB free; {} MiB are to stay free",
            free >> 20,
            floor >> 20
        )
    }))
}
