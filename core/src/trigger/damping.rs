//! Damping: what one fault may do at once, many may not.
//!
//! Two things are damped, and one is not. A recording server that failed again and again has to stay well for
//! longer before its failover ends by itself ([`Faults`]): each handing back and taking over again is a gap. A
//! recording service that fails briefly again and again is a reason although none of its spells is long enough for
//! one ([`Spells`]): consecutive failure and rate combined, the rate above a minimum of samples. What is never held
//! down is the takeover itself: that would be a gap for certain, to avoid a possible one.

use std::{collections::VecDeque, time::Duration};

use crate::time::Monotonic;

/// Faults count against a server for so long.
pub const FAULT_WINDOW: Duration = Duration::from_secs(60 * 60);
/// For how much longer a server has to stay well after its second fault within [`FAULT_WINDOW`].
const SECOND_HOLD: Duration = Duration::from_secs(5);
/// By how much each further fault multiplies it.
const GROWTH: u32 = 4;
/// The longest that a server has to stay well, whatever it did.
pub const LONGEST_HOLD: Duration = Duration::from_secs(5 * 60);
/// Faults remembered: with so many the longest is long reached.
const FAULTS_KEPT: usize = 16;

/// Spells of a recording service that is abnormal count together for so long.
const SPELL_WINDOW: Duration = Duration::from_secs(60);
/// So many of them at least, before their rate says anything.
const LEAST_SPELLS: usize = 3;
/// Abnormal for one part in so many, of the time since the first of them.
const ABNORMAL_PART: u32 = 4;
/// Spells remembered.
const SPELLS_KEPT: usize = 32;

/// The faults of one server, each from the moment that it was a reason until the server was well.
#[derive(Clone, Debug, Default)]
pub(super) struct Faults {
    began: VecDeque<Monotonic>,
    goes_on: bool,
    ended: Option<Monotonic>,
}

impl Faults {
    /// Takes in whether there is a reason now, and whether the server is well. Between the two, when it is neither
    /// well nor a reason, or the host can't see, a fault goes on.
    pub(super) fn note(&mut self, reason: bool, well: bool, now: Monotonic) {
        if reason && !self.goes_on {
            self.goes_on = true;
            self.began.push_back(now);
            let surplus = self.began.len().saturating_sub(FAULTS_KEPT);
            self.began.drain(..surplus);
        } else if well && !reason && self.goes_on {
            self.goes_on = false;
            self.ended = Some(now);
        }
    }

    /// How many there were within [`FAULT_WINDOW`].
    pub(super) fn recent(&self, now: Monotonic) -> usize {
        let is_recent = |at: &&Monotonic| now.since(**at) < FAULT_WINDOW;
        self.began.iter().filter(is_recent).count()
    }

    /// For how long the server has to stay well after the last one, beyond what is asked of any.
    pub(super) fn hold(&self, now: Monotonic) -> Duration {
        hold_after(self.recent(now))
    }

    /// Whether it has been well for that long.
    pub(super) fn are_over(&self, now: Monotonic) -> bool {
        !self.goes_on && self.ended.is_none_or(|at| now.since(at) >= self.hold(now))
    }
}

fn hold_after(faults: usize) -> Duration {
    let Some(grown) = faults.checked_sub(2) else {
        return Duration::ZERO;
    };
    let factor = u32::try_from(grown)
        .ok()
        .and_then(|grown| GROWTH.checked_pow(grown));
    let hold = factor.and_then(|factor| SECOND_HOLD.checked_mul(factor));
    hold.map_or(LONGEST_HOLD, |hold| hold.min(LONGEST_HOLD))
}

/// The times at which a recording service was abnormal, the last one perhaps still.
#[derive(Clone, Debug, Default)]
pub(super) struct Spells {
    all: VecDeque<(Monotonic, Option<Monotonic>)>,
}

impl Spells {
    /// Takes in whether it is abnormal now.
    pub(super) fn note(&mut self, abnormal: bool, now: Monotonic) {
        match (self.all.back_mut(), abnormal) {
            (Some((_, None)), true) => {}
            (Some((_, end @ None)), false) => *end = Some(now),
            (_, true) => self.all.push_back((now, None)),
            (_, false) => {}
        }
        let is_old = |spell: &(Monotonic, Option<Monotonic>)| {
            spell.1.is_some_and(|end| now.since(end) >= SPELL_WINDOW)
        };
        while self.all.front().is_some_and(is_old) || self.all.len() > SPELLS_KEPT {
            self.all.pop_front();
        }
    }

    /// How many there were, if they are too many and too long together.
    pub(super) fn too_many(&self, now: Monotonic) -> Option<usize> {
        let (first, _) = self.all.front()?;
        let abnormal: Duration = self
            .all
            .iter()
            .map(|(began, ended)| ended.unwrap_or(now).since(*began))
            .sum();
        let too_many = self.all.len() >= LEAST_SPELLS && abnormal * ABNORMAL_PART >= now.since(*first);
        too_many.then_some(self.all.len())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(millis: u64) -> Monotonic {
        Monotonic(Duration::from_millis(millis))
    }

    proptest! {
        #[test]
        fn c5_the_hold_never_shrinks_with_more_faults_and_is_bounded(faults in 0_usize..1_000_000) {
            prop_assert!(hold_after(faults) <= hold_after(faults + 1));
            prop_assert!(hold_after(faults) <= LONGEST_HOLD);
        }

        #[test]
        fn c5_whatever_a_server_did_a_time_of_wellness_ends_its_faults(
            past in prop::collection::vec((1_u64..100_000, any::<bool>(), any::<bool>()), 0..200),
        ) {
            let mut faults = Faults::default();
            let mut now = 0;
            for (later, reason, well) in past {
                now += later;
                faults.note(reason, well, at(now));
                prop_assert!(faults.began.len() <= FAULTS_KEPT);
            }
            faults.note(false, true, at(now));
            prop_assert!(faults.are_over(Monotonic(at(now).0 + LONGEST_HOLD)));
            let much_later = Monotonic(at(now).0 + FAULT_WINDOW);
            prop_assert_eq!(faults.hold(much_later), Duration::ZERO, "forgotten");
        }

        #[test]
        fn c4_a_service_that_is_mostly_well_is_no_reason(
            spells in prop::collection::vec((5_000_u64..60_000, 1_u64..1_000), 1..60),
        ) {
            let mut seen = Spells::default();
            let mut now = 0;
            for (well, ill) in spells {
                now += well;
                seen.note(true, at(now));
                // The first moments of a spell: what it adds itself is not long enough for a reason.
                prop_assert_eq!(seen.too_many(at(now)), None);
                now += ill;
                seen.note(false, at(now));
            }
        }
    }

    #[test]
    fn c5_the_first_fault_holds_nothing_up_and_the_sixth_for_minutes() {
        let holds: Vec<u64> = (0..8).map(|faults| hold_after(faults).as_secs()).collect();
        assert_eq!(holds, [0, 0, 5, 20, 80, 300, 300, 300]);
    }
}
