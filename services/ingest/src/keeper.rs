//! What is done to the archive beside the filming: repair after a crash, retention, erasing. All of it in the
//! background: none of it may delay a camera.

use std::{io, time::Duration};

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use understudy_core::{
    camera::Camera,
    contract::heartbeat::Room,
    ids::{CameraId, ErasureId, FailoverId},
    reconcile::Input,
    time::Timestamp,
};
use understudy_media::archive::{Archive, ArchiveError, Everything, Retained};
use understudy_runtime::{Process, clock};

use crate::{IngestConfig, disk::Disk, metrics::VolumeGauges};

/// The pause before something that the archive refused is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// How often room is made on a full volume: what is kept free lasts for seconds only where many cameras record and
/// a failback comes in beside them.
const MAKE_ROOM: Duration = Duration::from_secs(1);
/// How often it is looked how much room there is, and how fast it goes: as often as the server reports by itself.
const LOOK: Duration = Duration::from_secs(10);
/// Recordings of this time say how fast room goes: ten minutes.
const LOOK_BACK_MS: i64 = 600_000;

/// The archive's keeper. Clones share it.
#[derive(Clone)]
pub(crate) struct Keeper {
    archive: Archive,
    disk: Disk,
    process: Process,
    /// Whether what a crash left behind has been repaired and indexed.
    repaired: watch::Receiver<bool>,
    results: mpsc::Sender<Input>,
}

impl Keeper {
    /// Begins to repair what a crash left behind.
    pub(crate) fn start(
        archive: Archive,
        disk: Disk,
        results: mpsc::Sender<Input>,
        process: &Process,
    ) -> Self {
        let (done, repaired) = watch::channel(false);
        process.spawn("repair", repair(archive.clone(), done, process.clone()));
        Self {
            archive,
            disk,
            process: process.clone(),
            repaired,
            results,
        }
    }

    /// Ends when what a crash left behind is repaired; false at shutdown.
    pub(crate) async fn repaired(&self) -> bool {
        let shutdown = self.process.shutdown();
        let mut repaired = self.repaired.clone();
        tokio::select! {
            () = shutdown.cancelled() => false,
            repaired = repaired.wait_for(|done| *done) => repaired.is_ok(),
        }
    }

    /// Says [`Input::Closed`] once nothing filmed for `failover` is left without its row, however long the disk
    /// takes. To be called after the filming has ended.
    pub(crate) fn close(&self, failover: FailoverId) {
        let keeper = self.clone();
        self.process.spawn("close", async move {
            if keeper.closed(&failover).await {
                tracing::info!(failover = %failover, "all recordings of the failover are closed");
                keeper.say(Input::Closed(failover)).await;
            }
        });
    }

    /// Erases what was recorded for `failover`, however often the disk refuses; then says [`Input::Erased`], or
    /// [`Input::Spared`] if it was filmed for again after the beginning `up_to` which it arrived.
    /// What is not closed yet is waited for: it is not known to be handed back.
    pub(crate) fn erase(&self, failover: FailoverId, up_to: Option<u64>) {
        let keeper = self.clone();
        self.process.spawn("erase", async move {
            if !keeper.closed(&failover).await {
                return;
            }
            loop {
                match keeper.archive.erase(&failover, up_to).await {
                    Ok(erased) => return keeper.say(what_was_erased(failover, up_to, erased)).await,
                    Err(error) => tracing::error!(failover = %failover, %error, "recordings can't be erased"),
                }
                if !keeper.pause().await {
                    return;
                }
            }
        });
    }

    /// Makes what was recorded for `failover` this server's own, however often the disk refuses; then says
    /// [`Input::Kept`].
    pub(crate) fn keep(&self, failover: FailoverId) {
        let keeper = self.clone();
        self.process.spawn("keep", async move {
            if !keeper.closed(&failover).await {
                return;
            }
            loop {
                match keeper.archive.keep(&failover).await {
                    Ok(segments) => {
                        tracing::info!(failover = %failover, segments, "the failover's recordings are this server's own");
                        return keeper.say(Input::Kept(failover)).await;
                    }
                    Err(error) => tracing::error!(failover = %failover, %error, "recordings can't be made its own"),
                }
                if !keeper.pause().await {
                    return;
                }
            }
        });
    }

    /// Erases everything that the archive has, unless that order was carried out before, however often the disk
    /// refuses; then says [`Input::ErasedAll`]. What is still being closed is waited for. Once `called_off`, nothing
    /// that is recorded from then on is touched, nor anything else if the erasing has not begun.
    pub(crate) fn erase_everything(&self, erasure: ErasureId, called_off: CancellationToken) {
        let keeper = self.clone();
        self.process.spawn("erase everything", async move {
            if !keeper.repaired().await {
                return;
            }
            let shutdown = keeper.process.shutdown();
            let work = async {
                let mut all = None;
                loop {
                    match keeper
                        .try_to_erase_everything(&erasure, &mut all, &called_off)
                        .await
                    {
                        Ok(true) => return keeper.say(Input::ErasedAll(erasure.clone())).await,
                        Ok(false) => {
                            tracing::info!(%erasure, "recordings are being closed before they are erased")
                        }
                        Err(error) => tracing::error!(%erasure, %error, "not everything can be erased yet"),
                    }
                    tokio::time::sleep(RETRY).await;
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = called_off.cancelled() => tracing::info!(%erasure, "erasing everything was called off"),
                () = work => {}
            }
        });
    }

    /// Whether it is done. `all` is what there was when it began.
    async fn try_to_erase_everything(
        &self,
        erasure: &ErasureId,
        all: &mut Option<Everything>,
        called_off: &CancellationToken,
    ) -> Result<bool, Box<dyn std::error::Error + Send + Sync>> {
        if self.on_disk(|disk| disk.load_erased()).await?.contains(erasure) {
            return Ok(true);
        }
        if all.is_none() {
            *all = self.archive.everything().await?;
        }
        // Asked after the list was made: what is filmed since is not in it.
        let Some(everything) = all.clone().filter(|_| !called_off.is_cancelled()) else {
            return Ok(false);
        };
        let segments = everything.segments();
        self.archive.erase_everything(everything).await?;
        let done = erasure.clone();
        self.on_disk(move |disk| disk.store_erased(&done)).await?;
        tracing::warn!(%erasure, segments, "everything is erased, as the host ordered");
        Ok(true)
    }

    async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Disk) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let disk = self.disk.clone();
        tokio::task::spawn_blocking(move || work(&disk))
            .await
            .unwrap_or_else(|ended| Err(io::Error::other(ended)))
    }

    /// Ends when everything filmed for `failover` is closed and indexed, or named as beyond repair; false at
    /// shutdown.
    async fn closed(&self, failover: &FailoverId) -> bool {
        if !self.repaired().await {
            return false;
        }
        let mut waits = false;
        loop {
            match self.archive.films_for(failover).await {
                Ok(false) => return true,
                Ok(true) if !waits => {
                    tracing::warn!(failover = %failover, "not all recordings of the failover are closed yet");
                    waits = true;
                }
                Ok(true) => {}
                Err(error) => {
                    tracing::error!(failover = %failover, %error, "it is not known whether all is closed");
                }
            }
            if !self.pause().await {
                return false;
            }
        }
    }

    /// Waits before something is tried again; false at shutdown.
    async fn pause(&self) -> bool {
        let shutdown = self.process.shutdown();
        let pause = tokio::time::sleep(RETRY);
        shutdown.run_until_cancelled(pause).await.is_some()
    }

    async fn say(&self, result: Input) {
        // Fails only when the shell has ended, and the process with it.
        let _ = self.results.send(result).await;
    }

    /// Applies the limits of `cameras`, whichever they are at the time, every so often.
    pub(crate) fn retain(
        &self,
        config: &IngestConfig,
        cameras: watch::Receiver<Vec<Camera>>,
        volume: VolumeGauges,
        room: watch::Sender<Option<Room>>,
    ) {
        let every = Duration::from_secs(config.retention_interval_seconds);
        let free = config.keep_free_mib.saturating_mul(1024 * 1024);
        let keeper = self.clone();
        self.process.spawn("retention", async move {
            if !keeper.repaired().await {
                return;
            }
            let shutdown = keeper.process.shutdown();
            let work = async {
                let mut limits_due = tokio::time::interval(every);
                let mut room_due = tokio::time::interval(MAKE_ROOM);
                let mut look_due = tokio::time::interval(LOOK);
                for due in [&mut limits_due, &mut room_due, &mut look_due] {
                    due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
                }
                loop {
                    tokio::select! {
                        _ = limits_due.tick() => {
                            let limits = cameras.borrow().clone();
                            say_removed(keeper.archive.retain(clock::wall(), limits, free).await);
                            keeper.measure(&volume).await;
                        }
                        _ = room_due.tick() => say_removed(keeper.archive.make_room(free).await),
                        _ = look_due.tick() => {
                            let run = cameras.borrow().iter().map(|camera| camera.id.clone()).collect();
                            keeper.look(run, free, &volume, &room).await;
                        }
                    }
                }
            };
            shutdown.run_until_cancelled(work).await;
        });
    }

    async fn measure(&self, volume: &VolumeGauges) {
        match self.archive.bytes().await {
            Ok(total) => volume.archive.set(i64::try_from(total).unwrap_or(i64::MAX)),
            Err(error) => tracing::warn!(%error, "the archive's size is not known"),
        }
    }

    /// How much room there is beyond what is kept `free`, and how fast it goes.
    async fn look(
        &self,
        cameras: Vec<CameraId>,
        free: u64,
        volume: &VolumeGauges,
        room: &watch::Sender<Option<Room>>,
    ) {
        let since = Timestamp(clock::wall().0.saturating_sub(LOOK_BACK_MS));
        let rate = self.archive.rate(cameras, since).await.unwrap_or_else(|error| {
            tracing::warn!(%error, "how fast recordings fill the volume is not known");
            None
        });
        match self.archive.free_bytes().await {
            Ok(all) => {
                volume.free.set(i64::try_from(all).unwrap_or(i64::MAX));
                room.send_replace(Some(Room {
                    bytes: all.saturating_sub(free),
                    bytes_per_second: rate,
                }));
            }
            Err(error) => tracing::warn!(%error, "how much is free on the recording volume is not known"),
        }
    }
}

fn what_was_erased(failover: FailoverId, up_to: Option<u64>, erased: Option<usize>) -> Input {
    match (erased, up_to) {
        (None, Some(up_to)) => {
            tracing::warn!(
                failover = %failover, up_to,
                "the failover's recordings stay: it was filmed for again after they were said to have arrived; \
                 was the host restored from a backup?"
            );
            Input::Spared { failover, up_to }
        }
        (segments, _) => {
            tracing::info!(failover = %failover, segments, "the failover's recordings are erased");
            Input::Erased(failover)
        }
    }
}

fn say_removed(result: Result<Retained, ArchiveError>) {
    match result {
        Ok(retained) if retained.removed.is_empty() => {}
        Ok(retained) => {
            let (segments, lost) = (retained.removed.len(), retained.lost.len());
            tracing::info!(segments, lost, "retention removed recordings");
        }
        Err(error) => tracing::error!(%error, "retention failed, and is tried again"),
    }
}

async fn repair(archive: Archive, done: watch::Sender<bool>, process: Process) {
    let shutdown = process.shutdown();
    loop {
        let recovered = tokio::select! {
            () = shutdown.cancelled() => return,
            recovered = archive.recover() => recovered,
        };
        match recovered {
            Ok(found) => {
                if !found.indexed.is_empty() || !found.failed.is_empty() || !found.dropped.is_empty() {
                    tracing::warn!(
                        indexed = found.indexed.len(),
                        cut_off = found.cut_off,
                        removed = found.removed.len(),
                        dropped = found.dropped.len(),
                        failed = found.failed.len(),
                        "repaired what the last run left behind"
                    );
                }
                done.send_replace(true);
                return;
            }
            Err(error) => tracing::error!(%error, "what the last run left behind can't be repaired yet"),
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(RETRY) => {}
        }
    }
}
