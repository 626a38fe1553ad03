//! Tells the host how far a restoration is: on each change, but not too often, and again from time to time, so
//! that a lost report does no harm.

use std::{future::Future, time::Duration};

use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;
use understudy_core::contract::heartbeat::RestorationReport;

/// How often the host is told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// The least time between two reports.
    apart: Duration,
    /// Until it is told again when nothing changes.
    again: Duration,
    /// The same when nothing is left to be done: the host waits for this one.
    complete_again: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            apart: Duration::from_millis(250),
            again: Duration::from_secs(10),
            complete_again: Duration::from_secs(2),
        }
    }
}

/// Publishes until the shutdown. What can't be published is replaced by what is true when it can.
pub(crate) async fn publish<P, F>(
    mut report: watch::Receiver<Option<RestorationReport>>,
    publish: P,
    pace: Pace,
    shutdown: CancellationToken,
) where
    P: Fn(RestorationReport) -> F,
    F: Future<Output = Result<(), String>>,
{
    let mut reached = true;
    while !shutdown.is_cancelled() {
        let current = report.borrow_and_update().clone();
        let complete = current.as_ref().is_some_and(|report| report.complete);
        let published_at = Instant::now();
        let mut again = if complete { pace.complete_again } else { pace.again };
        if let Some(current) = current {
            match publish(current).await {
                Ok(()) => reached = true,
                Err(error) => {
                    if std::mem::take(&mut reached) {
                        tracing::warn!(error, "the host can't be told how far the restoration is");
                    }
                    again = pace.apart;
                }
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep_until(published_at + again) => {}
            changed = report.changed() => match changed {
                Ok(()) => tokio::time::sleep_until(published_at + pace.apart).await,
                Err(_) => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use understudy_core::{
        assignment::Epoch,
        contract::heartbeat::Progress,
        ids::{DomainId, FailoverId, ServerId},
    };

    use super::*;

    fn report(segments_done: u64, complete: bool) -> RestorationReport {
        RestorationReport {
            server: ServerId::new("recorder-1").expect("an id"),
            domain: DomainId::new("east").expect("an id"),
            failover: FailoverId::new("f").expect("an id"),
            epoch: Epoch { term: 1, number: 1 },
            progress: Progress {
                segments_done,
                ..Progress::default()
            },
            complete,
            damaged: Vec::new(),
            source: None,
            begun: None,
            waiting: String::new(),
        }
    }

    /// Ten times as fast as in earnest.
    const PACE: Pace = Pace {
        apart: Duration::from_millis(25),
        again: Duration::from_secs(1),
        complete_again: Duration::from_millis(200),
    };

    type Log = Arc<Mutex<Vec<(Duration, u64)>>>;

    /// Publishes into a log, but for the attempts in `failing`.
    async fn run(
        told: watch::Receiver<Option<RestorationReport>>,
        failing: std::ops::Range<usize>,
        log: Log,
    ) {
        let (start, attempts) = (Instant::now(), Mutex::new(0));
        let sink = |report: RestorationReport| {
            let attempt = {
                let mut attempts = attempts.lock().expect("nothing panicked");
                *attempts += 1;
                *attempts - 1
            };
            let fails = failing.contains(&attempt);
            if !fails {
                let entry = (start.elapsed(), report.progress.segments_done);
                log.lock().expect("nothing panicked").push(entry);
            }
            async move {
                if fails {
                    Err("the broker is away".to_owned())
                } else {
                    Ok(())
                }
            }
        };
        publish(told, sink, PACE, CancellationToken::new()).await;
    }

    /// Waits until the log is as it should be.
    async fn until(log: &Log, holds: impl Fn(&[(Duration, u64)]) -> bool) -> Vec<(Duration, u64)> {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let entries = log.lock().expect("nothing panicked").clone();
            if holds(&entries) {
                return entries;
            }
            assert!(Instant::now() < deadline, "{entries:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test]
    async fn f4_changes_are_told_not_too_often_and_the_last_one_always() {
        let (tell, told) = watch::channel(None);
        let log = Log::default();
        let publishing = tokio::spawn(run(told, 0..0, log.clone()));
        for step in 0..=100 {
            tell.send_replace(Some(report(step, false)));
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let entries = until(&log, |entries| entries.last().is_some_and(|last| last.1 == 100)).await;
        publishing.abort();
        assert!(
            entries.windows(2).all(|pair| pair[1].0 - pair[0].0 >= PACE.apart),
            "{entries:?}"
        );
    }

    #[tokio::test]
    async fn g4_that_it_is_complete_is_said_again_until_it_is_over() {
        let (tell, told) = watch::channel(Some(report(1, true)));
        let log = Log::default();
        let publishing = tokio::spawn(run(told, 0..4, log.clone()));
        let entries = until(&log, |entries| entries.len() == 3).await;
        assert!(
            entries[0].0 >= PACE.apart * 4,
            "tried again and again while the broker was away"
        );
        assert!(entries[0].0 < PACE.again, "and heard soon after it was back");
        assert!(entries[2].0 - entries[1].0 >= PACE.complete_again);
        tell.send_replace(None);
        tokio::time::sleep(PACE.complete_again * 3).await;
        publishing.abort();
        assert!(
            until(&log, |_| true).await.len() <= 4,
            "nothing is said when it is over"
        );
    }
}
