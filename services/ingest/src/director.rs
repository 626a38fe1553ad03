//! Gives the studio its orders, one after the other: so that the shell never waits for a disk that hangs, and
//! a stop is never overtaken by the start that follows it.

use std::sync::Arc;

use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;
use understudy_core::{
    ids::{ErasureId, FailoverId},
    reconcile::Film,
};
use understudy_media::film::{self, Studio};
use understudy_runtime::{Process, TraceContext};

use crate::keeper::Keeper;

/// Orders that wait: a takeover and a hand-back are three; more only when the disk hangs, and then it is
/// right that the shell waits.
pub(crate) const WAITING_ORDERS: usize = 64;

/// One order.
pub(crate) enum Order {
    /// Film exactly this; with the trace of why.
    Film(Film, Option<TraceContext>),
    /// Stop all cameras and close their segments.
    Stop,
    /// Say so when all segments of a failover are closed.
    Close(FailoverId),
    /// Erase everything, until something is filmed again.
    EraseAll(ErasureId),
}

/// Carries out orders; at shutdown it closes all segments. Each order carried out is told to `done`: cameras
/// that just go on have no news of their own.
pub(crate) async fn run(
    studio: Studio,
    keeper: Keeper,
    mut orders: mpsc::Receiver<Order>,
    done: Arc<Notify>,
    process: Process,
) {
    let shutdown = process.shutdown();
    let mut erasing = CancellationToken::new();
    loop {
        let order = tokio::select! {
            () = shutdown.cancelled() => break,
            order = orders.recv() => order,
        };
        match order {
            Some(Order::Film(film, trace)) => {
                erasing.cancel();
                let tracer = process.tracer().clone();
                let cause = trace.map(|context| film::Cause { tracer, context });
                studio.film_because(for_studio(film), cause).await;
            }
            Some(Order::EraseAll(erasure)) => {
                erasing.cancel();
                erasing = CancellationToken::new();
                tracing::warn!(%erasure, "the host orders to erase everything");
                keeper.erase_everything(erasure, erasing.clone());
            }
            Some(Order::Stop) => studio.stop_filming().await,
            Some(Order::Close(failover)) => keeper.close(failover),
            None => break,
        }
        done.notify_one();
    }
    studio.close().await;
}

fn for_studio(film: Film) -> film::Film {
    film::Film {
        identity: film.identity,
        failover: film.failover,
        range: film.range,
        cameras: film.cameras,
    }
}
