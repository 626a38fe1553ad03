//! Failback yields to recording (row J7): while this server's volume is slow to make things durable, less is
//! fetched, down to a trickle, never to nothing; once it is quick again, step by step as much as there is.
//!
//! What the recorder would have to wait for is measured beside it: a few bytes made durable on the same volume.

use std::{
    convert::Infallible,
    fs::File,
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// How often the volume is asked.
const EVERY: Duration = Duration::from_millis(500);
/// What is fetched however slow the volume is, in bytes a second: a failback never comes to a halt by this.
const LEAST: u64 = 1 << 20;
/// The probe's file, in the archive's folder.
const FILE: &str = ".latency-probe";

/// The decision: how much may be fetched, from how long the volume took. Halved while it is slow, raised by a
/// quarter while it is quick, free again once the limit has not mattered for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pace {
    /// From this on the volume is slow.
    slow: Duration,
    /// Bytes a second; none: as much as there is.
    limit: Option<u64>,
}

impl Pace {
    pub(crate) fn new(slow: Duration) -> Self {
        Self { slow, limit: None }
    }

    pub(crate) fn limit(self) -> Option<u64> {
        self.limit
    }

    /// The volume took `latency` while `rate` bytes a second came in.
    #[must_use]
    pub(crate) fn after(self, latency: Duration, rate: u64) -> Self {
        let limit = match self.limit {
            // What comes in may be far below what the limit allowed.
            limit if latency >= self.slow => {
                Some((limit.map_or(rate, |limit| limit.min(rate)) / 2).max(LEAST))
            }
            Some(limit) if rate < limit / 4 => None,
            Some(limit) => Some(limit.saturating_add(limit / 4)),
            None => None,
        };
        Self { limit, ..self }
    }
}

/// What all fetching passes through.
pub(crate) struct Gate {
    state: Mutex<State>,
    probe: PathBuf,
}

struct State {
    pace: Pace,
    /// When the next piece may pass.
    free_at: Instant,
    passed: u64,
    looked_at: Instant,
}

impl State {
    /// When `bytes` may pass; none if nothing holds them back.
    fn turn(&mut self, bytes: usize, now: Instant) -> Option<Instant> {
        self.passed += bytes as u64;
        let limit = self.pace.limit()?;
        let turn = self.free_at.max(now);
        self.free_at = turn + Duration::from_secs_f64(bytes as f64 / limit as f64);
        Some(turn)
    }
}

impl Gate {
    /// Open; `slow` is the latency from which fetching yields, and `folder` lies on the volume.
    pub(crate) fn new(slow: Duration, folder: &Path) -> Self {
        let now = Instant::now();
        Self {
            state: Mutex::new(State {
                pace: Pace::new(slow),
                free_at: now,
                passed: 0,
                looked_at: now,
            }),
            probe: folder.join(FILE),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Plain numbers: they hold after a panic as before.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `bytes` may be written.
    pub(crate) async fn pass(&self, bytes: usize) {
        let turn = self.state().turn(bytes, Instant::now());
        if let Some(turn) = turn {
            tokio::time::sleep_until(turn).await;
        }
    }

    /// Measures the volume for as long as it is polled, and sets the pace.
    pub(crate) async fn watch(&self) -> Infallible {
        let slow = self.state().pace.slow;
        loop {
            let began = Instant::now();
            let path = self.probe.clone();
            let mut probing = tokio::task::spawn_blocking(move || probe(&path));
            // One that hangs is a slow one already, and again for as long as it does.
            while tokio::time::timeout(slow.max(EVERY), &mut probing).await.is_err() {
                self.set(began.elapsed());
            }
            self.set(began.elapsed());
            tokio::time::sleep(EVERY).await;
        }
    }

    fn set(&self, latency: Duration) {
        let mut state = self.state();
        let now = Instant::now();
        let seconds = now.duration_since(state.looked_at).as_secs_f64().max(0.001);
        let before = state.pace.limit();
        state.pace = state.pace.after(latency, (state.passed as f64 / seconds) as u64);
        state.passed = 0;
        state.looked_at = now;
        match (before, state.pace.limit()) {
            (None, Some(limit)) => tracing::info!(
                latency_ms = u64::try_from(latency.as_millis()).unwrap_or(u64::MAX),
                bytes_per_second = limit,
                "the volume is slow: fetching yields to recording"
            ),
            (Some(_), None) => tracing::info!("the volume is quick again: fetching goes on at full rate"),
            _ => {}
        }
    }
}

/// Makes a few bytes durable. How a volume fails is for the agent to see; here only the time counts.
fn probe(path: &Path) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(b"probe")?;
    file.sync_data()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOW: Duration = Duration::from_millis(500);
    const QUICK: Duration = Duration::from_millis(20);

    #[test]
    fn j7_a_quick_volume_is_never_held_back() {
        let pace = Pace::new(SLOW).after(QUICK, 400 << 20).after(QUICK, 0);
        assert_eq!(pace.limit(), None);
    }

    #[test]
    fn j7_a_slow_volume_halves_the_rate_down_to_a_trickle() {
        let mut pace = Pace::new(SLOW);
        let mut rate = 64 << 20;
        let mut limits = Vec::new();
        for _ in 0..10 {
            pace = pace.after(SLOW, rate);
            rate = pace.limit().expect("a limit");
            limits.push(rate >> 20);
        }
        assert_eq!(limits, [32, 16, 8, 4, 2, 1, 1, 1, 1, 1]);
        assert_eq!(pace.after(SLOW, 0).limit(), Some(LEAST), "never to nothing");
    }

    #[test]
    fn j7_a_volume_that_is_quick_again_gets_everything_again() {
        let mut pace = Pace::new(SLOW).after(SLOW, 100 << 20);
        // The network gives no more than so much.
        let most = 60 << 20;
        for _ in 0..20 {
            let rate = pace.limit().map_or(most, |limit| limit.min(most));
            pace = pace.after(QUICK, rate);
        }
        assert_eq!(pace.limit(), None);
    }

    #[test]
    fn j7_what_passes_keeps_to_the_pace() {
        let now = Instant::now();
        let mut state = State {
            pace: Pace::new(SLOW),
            free_at: now,
            passed: 0,
            looked_at: now,
        };
        assert_eq!(state.turn(100 << 20, now), None, "without a limit nothing waits");
        state.pace.limit = Some(2 << 20);
        let turns: Vec<_> = (0..9).filter_map(|_| state.turn(1 << 20, now)).collect();
        assert_eq!(
            (turns[0] - now, turns[8] - now),
            (Duration::ZERO, Duration::from_secs(4))
        );
        assert_eq!(state.passed, 109 << 20);
    }
}
