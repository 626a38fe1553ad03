//! What the recording service's volume refused it, as a finding (row C3): the agent's own probe writes one small file,
//! and a disk may be bad elsewhere.

use std::time::Duration;

use understudy_core::{
    contract::heartbeat::{StorageState, VOLUME_ERRORS_COUNT_FOR, VolumeErrors},
    time::Monotonic,
};

use super::beneath::Finding;

/// So many faults within [`WINDOW`] are no accident. One alone costs what was written at that moment: a failover would
/// cost more.
const REPEATED: usize = 3;
/// See [`REPEATED`].
const WINDOW: Duration = Duration::from_secs(60);

/// The verdict over time. A recording service that is started again has forgotten what its disk did; the agent has not.
#[derive(Debug, Default)]
pub(super) struct RefusedWatch {
    known: Option<(Finding, Monotonic)>,
}

impl RefusedWatch {
    /// Takes one more word of the recording service into account, none if there is nothing to say.
    pub(super) fn step(&mut self, said: Option<&VolumeErrors>, now: Monotonic) -> Option<Finding> {
        self.known.take_if(|(_, until)| *until <= now);
        if let Some((errors, age)) = said.and_then(|errors| Some((errors, repeated(errors)?))) {
            let until = Monotonic(now.0 + VOLUME_ERRORS_COUNT_FOR.saturating_sub(age));
            match &mut self.known {
                // The words of the first stay: each further camera meets the fault in another way.
                Some((_, known)) => *known = until.max(*known),
                None => self.known = Some((finding(errors), until)),
            }
        }
        self.known.as_ref().map(|(finding, _)| finding.clone())
    }
}

/// How long ago the newest of several faults within [`WINDOW`] was.
fn repeated(errors: &VolumeErrors) -> Option<Duration> {
    let window_ms = u64::try_from(WINDOW.as_millis()).unwrap_or(u64::MAX);
    let mut windows = errors.ages_ms.windows(REPEATED);
    let found = windows.find(|ages| ages[REPEATED - 1].saturating_sub(ages[0]) <= window_ms)?;
    Some(Duration::from_millis(found[0]))
}

fn finding(errors: &VolumeErrors) -> Finding {
    Finding {
        state: StorageState::Damaged,
        evidence: format!(
            "the recording volume refused the recording service again and again what it wrote: {}",
            errors.newest
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Monotonic {
        Monotonic(Duration::from_secs(seconds))
    }

    fn errors(ages_ms: &[u64]) -> VolumeErrors {
        VolumeErrors {
            ages_ms: ages_ms.to_vec(),
            newest: format!("words {}", ages_ms.len()),
        }
    }

    #[test]
    fn c3_one_io_error_of_the_recorder_is_an_accident_and_several_within_a_minute_are_damage() {
        let damages = |ages_ms: &[u64]| {
            RefusedWatch::default()
                .step(Some(&errors(ages_ms)), at(0))
                .is_some()
        };
        assert!(!damages(&[]) && !damages(&[0]) && !damages(&[0, 1000]));
        assert!(!damages(&[0, 61_000, 122_000]));
        assert!(damages(&[0, 30_000, 60_000]));
        assert!(damages(&[1000, 400_000, 410_000, 420_000]));
    }

    #[test]
    fn c3_what_the_recorder_was_refused_counts_for_ten_minutes_though_it_is_started_again() {
        let mut watch = RefusedWatch::default();
        let first = watch
            .step(Some(&errors(&[0, 1000, 2000])), at(0))
            .expect("damage");
        // Each word of it is the same, so that nothing is told twice.
        let second = watch.step(Some(&errors(&[0, 1000, 2000, 3000])), at(100));
        assert_eq!(second.as_ref(), Some(&first));
        assert_eq!(watch.step(None, at(699)).as_ref(), Some(&first));
        assert_eq!(watch.step(None, at(700)), None);
    }
}
