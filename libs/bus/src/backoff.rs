//! How long to wait before the next attempt: longer each time, and never at the same moment as others.

use std::time::Duration;

use rand::Rng as _;

/// Doubles from `first` to `most`; each wait is between half of it and all of it.
#[derive(Debug)]
pub(crate) struct Backoff {
    first: Duration,
    most: Duration,
    next: Duration,
}

impl Backoff {
    pub(crate) fn new(first: Duration, most: Duration) -> Self {
        Self {
            first,
            most,
            next: first,
        }
    }

    /// The wait before the next attempt.
    pub(crate) fn pause(&mut self) -> Duration {
        let whole = self.next;
        self.next = (whole * 2).min(self.most);
        whole.mul_f64(rand::thread_rng().gen_range(0.5..=1.0))
    }

    /// It went well.
    pub(crate) fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_limit_and_vary() {
        let limit = Duration::from_secs(5);
        let mut backoff = Backoff::new(Duration::from_millis(200), limit);
        let waits: Vec<_> = (0..10).map(|_| backoff.pause()).collect();
        assert!(waits[0] >= Duration::from_millis(100) && waits[0] <= Duration::from_millis(200));
        assert!(waits.iter().all(|wait| *wait <= limit));
        assert!(waits[9] >= limit / 2);
        backoff.reset();
        assert!(backoff.pause() <= Duration::from_millis(200));
    }
}
