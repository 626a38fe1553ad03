//! The only place that reads clocks for decisions. Decisions themselves are told the time.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use understudy_core::time::{Moment, Monotonic, Timestamp};

/// Now, on both clocks.
#[must_use]
pub fn now() -> Moment {
    Moment {
        monotonic: monotonic(),
        wall: wall(),
    }
}

/// The wall clock, in UTC.
#[must_use]
pub fn wall() -> Timestamp {
    Timestamp(i64::try_from(since_1970().as_millis()).unwrap_or(i64::MAX))
}

/// The wall clock, in UTC, in nanoseconds since 1970: for the spans of a trace, which may take less than a millisecond.
#[must_use]
pub fn wall_nanoseconds() -> u64 {
    u64::try_from(since_1970().as_nanos()).unwrap_or(u64::MAX)
}

#[expect(clippy::disallowed_methods, reason = "this is the one place that reads it")]
fn since_1970() -> Duration {
    let now = std::time::SystemTime::now();
    now.duration_since(std::time::UNIX_EPOCH).unwrap_or_default()
}

/// `CLOCK_BOOTTIME`: never goes back, and goes on while the machine is suspended (clock_gettime(2)).
fn monotonic() -> Monotonic {
    let time = clock_gettime(ClockId::CLOCK_BOOTTIME).expect("Linux has CLOCK_BOOTTIME since 2.6.39");
    Monotonic(Duration::from(time))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_clocks_go_forward() {
        let earlier = now();
        let later = now();
        assert!(later.monotonic >= earlier.monotonic);
        assert!(later.monotonic.0 > Duration::ZERO);
        assert!(later.wall.as_millis() > 1_600_000_000_000);
    }
}
