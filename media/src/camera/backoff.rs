//! When a camera is tried again, and when its silence is a fault. Pure: time and chance are arguments.

use std::time::Duration;

use understudy_core::contract::heartbeat::CameraFault;

/// First and longest wait before a camera is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    first: Duration,
    longest: Duration,
}

/// How long a session must have delivered for its camera to count as well again.
pub const STABLE: Duration = Duration::from_secs(10);

/// How long to wait before a camera is tried again: twice as long each time, up to a limit, and jittered so
/// that cameras that failed together don't come back together.
#[derive(Clone, Debug, Default)]
pub struct Backoff {
    attempts: u32,
    fault: Option<CameraFault>,
}

impl Backoff {
    fn span(fault: CameraFault) -> Span {
        let (first, longest) = match fault {
            // Many cameras lock an account out after a few wrong passwords a minute.
            CameraFault::Unauthorized => (10_000, 120_000),
            // Nothing but a person changes a camera's codec.
            CameraFault::UnsupportedCodec => (10_000, 60_000),
            // The other server lets it go any moment.
            CameraFault::HeldElsewhere => (200, 2_000),
            _ => (200, 10_000),
        };
        Span {
            first: Duration::from_millis(first),
            longest: Duration::from_millis(longest),
        }
    }

    /// The wait after another failure. `chance` is evenly spread over 0 to 1.
    pub fn after(&mut self, fault: CameraFault, chance: f64) -> Duration {
        if self.fault != Some(fault) {
            self.fault = Some(fault);
            self.attempts = 0;
        }
        let span = Self::span(fault);
        let doubled = span
            .first
            .saturating_mul(1_u32.checked_shl(self.attempts.min(20)).unwrap_or(u32::MAX));
        self.attempts += 1;
        doubled
            .min(span.longest)
            .mul_f64(0.75 + 0.5 * chance.clamp(0.0, 1.0))
    }

    /// The camera has been well for [`STABLE`].
    pub fn recovered(&mut self) {
        *self = Self::default();
    }
}

/// Watches that frames keep coming. Times are since any fixed point.
#[derive(Clone, Copy, Debug)]
pub struct Watchdog {
    patience: Duration,
    last: Duration,
}

impl Watchdog {
    /// Starts to wait at `now`, for `patience`.
    #[must_use]
    pub fn new(patience: Duration, now: Duration) -> Self {
        Self { patience, last: now }
    }

    /// A frame came.
    pub fn heard(&mut self, now: Duration) {
        self.last = now;
    }

    /// For how long nothing came, if that is too long.
    #[must_use]
    pub fn silence(&self, now: Duration) -> Option<Duration> {
        let silence = now.saturating_sub(self.last);
        (silence >= self.patience).then_some(silence)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn e1_the_first_retry_comes_fast_and_later_ones_ever_slower() {
        let mut backoff = Backoff::default();
        let waits: Vec<u128> = (0..8)
            .map(|_| backoff.after(CameraFault::Unreachable, 0.5).as_millis())
            .collect();
        assert_eq!(waits, [200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
        backoff.recovered();
        assert_eq!(
            backoff.after(CameraFault::Silent, 0.5),
            Duration::from_millis(200)
        );
    }

    #[test]
    fn e1_a_wrong_password_is_not_hammered_at() {
        let mut backoff = Backoff::default();
        assert!(backoff.after(CameraFault::Unauthorized, 0.0) >= Duration::from_secs(7));
        let within_ten_minutes = {
            let mut at = Duration::ZERO;
            (0..)
                .take_while(|_| {
                    at += backoff.after(CameraFault::Unauthorized, 0.5);
                    at < Duration::from_secs(600)
                })
                .count()
        };
        assert!(
            within_ten_minutes < 10,
            "{within_ten_minutes} attempts in ten minutes"
        );
    }

    #[test]
    fn e1_silence_is_a_fault_after_the_patience_and_not_before() {
        let mut watchdog = Watchdog::new(Duration::from_secs(5), Duration::from_secs(100));
        assert_eq!(watchdog.silence(Duration::from_millis(104_999)), None);
        watchdog.heard(Duration::from_secs(104));
        assert_eq!(watchdog.silence(Duration::from_secs(108)), None);
        assert_eq!(
            watchdog.silence(Duration::from_secs(109)),
            Some(Duration::from_secs(5))
        );
    }

    proptest! {
        #[test]
        fn e1_no_wait_is_longer_than_its_limit(chances in prop::collection::vec(0.0..=1.0, 1..100)) {
            let mut backoff = Backoff::default();
            for chance in chances {
                let wait = backoff.after(CameraFault::Garbage, chance);
                prop_assert!((Duration::from_millis(150)..=Duration::from_millis(12_500)).contains(&wait));
            }
        }
    }
}
