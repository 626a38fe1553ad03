//! When the server speaks of itself: on each change, gathered for a moment, and every so often anyway.
//!
//! Reports replace one another: the publisher sends the newest only, until it is through, and none is queued.

use std::time::Duration;

use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use understudy_bus::{Bus, Message};
use understudy_core::contract::heartbeat::ServerReport;
use understudy_runtime::Process;

/// Changes within this time go out as one report: 90 cameras start to film within a few of them.
const GATHER: Duration = Duration::from_millis(60);
/// A report that did not get through is tried again after this time, or when the broker is back.
const RETRY: Duration = Duration::from_secs(1);

/// Knows when the next report is due.
#[derive(Debug)]
pub(crate) struct Schedule {
    every: Duration,
    due: Instant,
}

impl Schedule {
    /// The first report is due at once.
    pub(crate) fn new(every: Duration, now: Instant) -> Self {
        Self { every, due: now }
    }

    /// Something changed.
    pub(crate) fn changed(&mut self, now: Instant) {
        self.due = self.due.min(now + GATHER);
    }

    /// Ends when a report is due.
    pub(crate) async fn due(&self) {
        sleep_until(self.due).await;
    }

    /// A report was made.
    pub(crate) fn reported(&mut self, now: Instant) {
        self.due = now + self.every;
    }
}

/// Publishes the newest report, again and again until it is through or replaced.
pub(crate) async fn publish(bus: Bus, mut reports: watch::Receiver<Option<ServerReport>>, process: Process) {
    let shutdown = process.shutdown();
    let mut link = bus.link();
    loop {
        let newest = reports.borrow_and_update().clone();
        let sent = match &newest {
            Some(report) => bus.publish(Message::report(report)).await,
            None => Ok(()),
        };
        let retry = async {
            match &sent {
                Ok(()) => std::future::pending::<()>().await,
                Err(error) => {
                    tracing::debug!(%error, "the report did not get through, and is sent again");
                    tokio::select! {
                        () = tokio::time::sleep(RETRY) => {}
                        Ok(()) = link.changed() => {}
                    }
                }
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            changed = reports.changed() => if changed.is_err() { return },
            () = retry => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_gathered_and_silence_is_broken() {
        let every = Duration::from_secs(10);
        let start = Instant::now();
        let mut schedule = Schedule::new(every, start);
        assert_eq!(schedule.due, start, "the first is due at once");
        schedule.reported(start);
        assert_eq!(schedule.due, start + every);

        schedule.changed(start);
        schedule.changed(start + Duration::from_millis(40));
        assert_eq!(schedule.due, start + GATHER, "a later change delays nothing");
        schedule.reported(start + GATHER);
        assert_eq!(schedule.due, start + GATHER + every);
    }
}
