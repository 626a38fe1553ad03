//! Each check can fail: a mistake of the kind that it is there for is found within some thousand schedules.

use understudy_simulation::{Bug, Schedule, shrink};

#[test]
fn the_mistake_of_each_invariant_is_caught() {
    for (invariant, bug) in Bug::OF_INVARIANTS {
        assert!(bug.is_caught(*invariant), "{bug:?} was not noticed");
    }
}

#[test]
fn failing_a_domain_over_that_is_cut_off_is_caught() {
    assert!(Bug::ForgetBlindness.is_caught(0));
}

#[test]
fn erasing_what_is_damaged_and_nowhere_else_is_caught() {
    assert!(Bug::ErasedDamaged.is_caught(3));
}

#[test]
fn erasing_more_than_what_arrived_is_caught() {
    assert!(Bug::ErasedBeyond.is_caught(3));
}

#[test]
fn a_server_that_forgets_its_assignment_is_caught() {
    assert!(Bug::UnsyncedAssignment.is_caught(5));
}

#[test]
fn a_schedule_that_fails_shrinks_to_a_short_one_that_fails_alike() {
    let failing = (0..)
        .map(|seed| Schedule::of(seed).with(Bug::LicenceCopied))
        .filter(|schedule| understudy_simulation::run(schedule).is_err());
    // One that fails at once has nothing to lose; and with fewer faults a story may take longer.
    let shortened = failing.take(5).filter(|failing| {
        let shrunk = shrink(failing).expect("it fails");
        assert_eq!(shrunk.violation.invariant, 2);
        let again: Schedule = shrunk
            .schedule
            .to_string()
            .parse()
            .expect("it is written to be read");
        assert_eq!(again.with(Bug::LicenceCopied), shrunk.schedule);
        let before = understudy_simulation::tell(failing).story.len();
        shrunk.story.len() < before
    });
    assert!(shortened.count() > 0, "none of five became shorter");
}

#[test]
fn an_original_that_is_not_told_of_its_replacement_is_caught() {
    assert!(Bug::UntoldOriginal.is_caught(6));
}
