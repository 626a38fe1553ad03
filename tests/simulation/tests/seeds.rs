//! Thousands of schedules, and the ones that failed once. `make simulation` runs many more.

use std::thread;

use understudy_simulation::{Outcome, Schedule, pinned, run, shrink};

/// How many schedules are run.
const SCHEDULES: u64 = 5000;

fn check(schedule: &Schedule) -> Outcome {
    run(schedule).unwrap_or_else(|violation| {
        let shrunk = shrink(schedule).expect("it has just failed");
        panic!(
            "schedule {schedule}: {violation}\n{}\nagain with: target/debug/understudy-simulation --seed {}",
            shrunk.story.join("\n"),
            shrunk.schedule
        );
    })
}

#[test]
fn invariants_hold_on_pinned_schedules() {
    for schedule in pinned() {
        check(&schedule);
    }
}

#[test]
fn invariants_hold_on_every_schedule() {
    let mut sum = Outcome::default();
    thread::scope(|scope| {
        let halves: Vec<_> = (0..2)
            .map(|half| {
                scope.spawn(move || {
                    let mut sum = Outcome::default();
                    for seed in (half..SCHEDULES).step_by(2) {
                        sum.add(&check(&Schedule::of(seed)));
                    }
                    sum
                })
            })
            .collect();
        for half in halves {
            sum.add(&half.join().expect("a schedule failed"));
        }
    });
    // The schedules have to reach what they are there to check.
    assert!(sum.outages > 100 && sum.spared > 0, "{sum}");
    assert!(
        sum.completed > 1000 && sum.crashes > 1000 && sum.replaced > 20 && sum.taken_again > 20,
        "{sum}"
    );
}
