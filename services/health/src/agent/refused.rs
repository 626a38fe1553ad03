//! What the recording service's volume refused it, as a finding (row C3): the agent's own probe writes one small file,
//! and a disk may be bad elsewhere.

use std::time::Duration;

use understudy_core::contract::heartbeat::{StorageState, VolumeErrors};

use super::beneath::Finding;

/// So many errors within [`WINDOW`] of one another are no accident.
const REPEATED: usize = 3;
/// See [`REPEATED`].
const WINDOW: Duration = Duration::from_secs(60);

/// One error is a sign that a disk begins to fail; several within a minute say that recordings are lost.
pub(super) fn finding(errors: &VolumeErrors) -> Option<Finding> {
    errors.ages_ms.first()?;
    let window_ms = WINDOW.as_millis();
    let repeated = errors
        .ages_ms
        .windows(REPEATED)
        .any(|window| u128::from(window[REPEATED - 1].saturating_sub(window[0])) <= window_ms);
    let (state, what) = match repeated {
        true => (StorageState::Damaged, "again and again what it wrote"),
        false => (StorageState::Degraded, "something that it wrote"),
    };
    Some(Finding {
        state,
        evidence: format!(
            "the recording volume refused the recording service {what}: {}",
            errors.newest
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(ages_ms: &[u64]) -> Option<StorageState> {
        let errors = VolumeErrors {
            ages_ms: ages_ms.to_vec(),
            newest: "Input/output error (os error 5)".to_owned(),
        };
        finding(&errors).map(|finding| finding.state)
    }

    #[test]
    fn c3_one_io_error_of_the_recorder_is_a_sign_and_several_at_once_are_damage() {
        assert_eq!(state(&[]), None);
        assert_eq!(state(&[500_000]), Some(StorageState::Degraded));
        assert_eq!(state(&[0, 61_000, 122_000]), Some(StorageState::Degraded));
        assert_eq!(state(&[0, 30_000, 60_000]), Some(StorageState::Damaged));
        // It stays so for as long as the recorder speaks of it.
        assert_eq!(state(&[400_000, 400_500, 401_000]), Some(StorageState::Damaged));
    }
}
