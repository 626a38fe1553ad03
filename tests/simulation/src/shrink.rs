//! Makes a schedule that fails as short as it can be while it still fails in the same way: no bad weather, fewer
//! ticks, fewer faults. The same schedule always shrinks to the same.

use std::collections::BTreeSet;

use crate::{Schedule, Violation, run, tell};

/// A schedule that fails, and what is left of it.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// What is left.
    pub schedule: Schedule,
    /// How it fails.
    pub violation: Violation,
    /// What happens in it.
    pub story: Vec<String>,
}

/// Shrinks a schedule; none if it does not fail.
#[must_use]
pub fn shrink(schedule: &Schedule) -> Option<Shrunk> {
    let invariant = run(schedule).err()?.invariant;
    let fails = |schedule: &Schedule| run(schedule).is_err_and(|violation| violation.invariant == invariant);
    let mut best = schedule.clone();
    let calm = Schedule {
        calm: true,
        ..best.clone()
    };
    if fails(&calm) {
        best = calm;
    }
    best = fewer_ticks(best, &fails);
    best = fewer_faults(best, &fails);
    best = fewer_ticks(best, &fails);
    let played = tell(&best);
    Some(Shrunk {
        violation: played.result.err()?,
        story: played.story,
        schedule: best,
    })
}

/// Halves what can be cut off the time of the faults.
fn fewer_ticks(mut best: Schedule, fails: &impl Fn(&Schedule) -> bool) -> Schedule {
    let mut step = best.until.unwrap_or(160).div_ceil(2);
    while step > 0 {
        let until = best.until.unwrap_or(160).saturating_sub(step);
        let shorter = Schedule {
            until: Some(until),
            ..best.clone()
        };
        if fails(&shorter) {
            best = shorter;
            step = step.min(until);
        } else {
            step /= 2;
        }
    }
    best
}

/// Leaves faults out: many at once first, then one by one.
fn fewer_faults(mut best: Schedule, fails: &impl Fn(&Schedule) -> bool) -> Schedule {
    let struck = u32::try_from(tell(&best).outcome.struck).unwrap_or(u32::MAX);
    let mut chunk = struck.div_ceil(2);
    while chunk > 0 {
        for first in (0..struck).step_by(chunk as usize) {
            let more: BTreeSet<u32> = (first..first + chunk).collect();
            if more.is_subset(&best.without) {
                continue;
            }
            let fewer = Schedule {
                without: best.without.union(&more).copied().collect(),
                ..best.clone()
            };
            if fails(&fewer) {
                best = fewer;
            }
        }
        chunk /= 2;
    }
    best
}
