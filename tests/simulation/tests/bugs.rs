//! Each check can fail: a mistake of the kind that it is there for is found within some thousand schedules.

use understudy_simulation::{Bug, run};

/// Some are rare: it takes thousands of schedules to reach them. A mistake may break other invariants sooner; the
/// one that it is made for must be among them.
fn is_caught(bug: Bug, invariant: u8) {
    let caught = (0..8000)
        .filter_map(|seed| run(seed, Some(bug)).err())
        .any(|violation| violation.invariant == invariant);
    assert!(caught, "{bug:?} was not noticed");
}

#[test]
fn a_key_with_two_holders_is_caught() {
    is_caught(Bug::LicenceCopied, 2);
}

#[test]
fn failing_a_domain_over_that_is_cut_off_is_caught() {
    is_caught(Bug::ForgetBlindness, 0);
}

#[test]
fn erasing_what_did_not_arrive_is_caught() {
    is_caught(Bug::ErasedUnverified, 3);
}

#[test]
fn erasing_what_is_damaged_and_nowhere_else_is_caught() {
    is_caught(Bug::ErasedDamaged, 3);
}

#[test]
fn settings_changed_during_a_failover_are_caught() {
    is_caught(Bug::EditDuringFailover, 4);
}

#[test]
fn a_host_that_forgets_its_epochs_is_caught() {
    is_caught(Bug::ForgetEpoch, 5);
}

#[test]
fn a_server_that_forgets_its_assignment_is_caught() {
    is_caught(Bug::UnsyncedAssignment, 5);
}

#[test]
fn a_failover_that_never_ends_is_caught() {
    is_caught(Bug::NeverComplete, 6);
}

#[test]
fn a_host_that_forgets_who_is_busy_is_caught() {
    is_caught(Bug::ForgetFailovers, 7);
}

#[test]
fn a_host_that_sends_before_it_stores_is_caught() {
    is_caught(Bug::SendBeforeCommit, 8);
}

#[test]
fn a_server_that_throws_unclosed_files_away_is_caught() {
    is_caught(Bug::DropUnclosed, 9);
}
