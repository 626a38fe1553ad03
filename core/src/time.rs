//! Time as data. Nothing here reads a clock: every decision is told what time it is.

use std::{ops::Sub, time::Duration};

use serde::{Deserialize, Serialize};

/// A wall-clock time in UTC, in milliseconds since 1970-01-01, as stored and shown.
///
/// May jump when somebody sets the clock: never subtract two of them to decide anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// Milliseconds since 1970-01-01 UTC.
    #[must_use]
    pub fn as_millis(self) -> i64 {
        self.0
    }
}

/// A reading of a clock that never goes back (`CLOCK_BOOTTIME`), since an arbitrary start; it means
/// nothing on another machine or after a restart, so it is never persisted or sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Monotonic(pub Duration);

impl Monotonic {
    /// The time that has passed since `earlier`, or zero if it lies ahead.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Sub<Duration> for Monotonic {
    type Output = Self;

    fn sub(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(by))
    }
}

/// Now, on both clocks, read once by the service that calls a decision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    /// For durations.
    pub monotonic: Monotonic,
    /// For what is stored and shown.
    pub wall: Timestamp,
}
