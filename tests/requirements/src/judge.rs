//! Sets the promises beside what the tests did, and says which claims don't hold.

use std::fmt::Write as _;

use crate::{
    junit::{Level, Outcome, Test},
    table::{Row, Status},
};

/// What came of it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Judgement {
    /// Each row with its tests, for people.
    pub(crate) text: String,
    /// The claims that don't hold.
    pub(crate) broken: Vec<String>,
}

/// Sets `rows` beside `tests`.
pub(crate) fn judge(rows: &[Row], tests: &[Test]) -> Judgement {
    let (mut text, mut broken) = (String::new(), Vec::new());
    for row in rows {
        let mut own: Vec<&Test> = tests.iter().filter(|test| test.rows.contains(&row.id)).collect();
        own.sort_by_key(|test| (test.level, test.name.as_str()));
        let status = match &row.status {
            Status::Open => "open".to_owned(),
            Status::Partial(missing) => format!("partial: {missing}"),
            Status::Whole => "whole".to_owned(),
        };
        let _ = writeln!(text, "{:<4}{}\n    {status}", row.id, row.promise);
        for test in &own {
            let _ = writeln!(text, "      {:<9}{:<8}{}", test.level, test.outcome, test.name);
        }
        if row.status == Status::Whole {
            broken.extend(unproven(&row.id, &own));
        }
    }
    let strangers = tests
        .iter()
        .flat_map(|test| test.rows.iter().map(move |row| (row, &test.name)))
        .filter(|(id, _)| rows.iter().all(|row| row.id != **id));
    broken.extend(strangers.map(|(id, name)| format!("{name} names {id}, which the table has not")));
    Judgement { text, broken }
}

/// Why a row that is claimed whole is not shown to be.
fn unproven(id: &str, tests: &[&Test]) -> Vec<String> {
    let failed = tests.iter().filter(|test| test.outcome == Outcome::Failed);
    let mut why: Vec<String> = failed
        .map(|test| format!("{id} is claimed whole, and {} failed", test.name))
        .collect();
    let shown = tests
        .iter()
        .any(|test| test.level != Level::Core && matches!(test.outcome, Outcome::Passed | Outcome::Flaky));
    if !shown {
        why.push(format!(
            "{id} is claimed whole, and no scenario or browser test of it ran and passed"
        ));
    }
    why
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(status: Status) -> Row {
        Row {
            id: "A3".to_owned(),
            promise: "One at a time.".to_owned(),
            status,
        }
    }

    fn test(level: Level, outcome: Outcome) -> Test {
        Test {
            name: "suite a3_waits".to_owned(),
            level,
            outcome,
            rows: vec!["A3".to_owned()],
        }
    }

    #[test]
    fn a_whole_row_needs_a_scenario_or_browser_test_that_passed() {
        let claims = |tests: &[Test]| judge(&[row(Status::Whole)], tests).broken.len();
        assert_eq!(claims(&[]), 1);
        assert_eq!(claims(&[test(Level::Core, Outcome::Passed)]), 1);
        assert_eq!(claims(&[test(Level::Scenario, Outcome::Skipped)]), 1);
        assert_eq!(claims(&[test(Level::Scenario, Outcome::Failed)]), 2);
        assert_eq!(claims(&[test(Level::Scenario, Outcome::Passed)]), 0);
        assert_eq!(claims(&[test(Level::Browser, Outcome::Flaky)]), 0);
        assert_eq!(
            claims(&[
                test(Level::Scenario, Outcome::Passed),
                test(Level::Core, Outcome::Failed)
            ]),
            1,
            "a failed test below speaks against it too"
        );
    }

    #[test]
    fn what_is_not_claimed_is_not_held_against_the_tests() {
        for status in [Status::Open, Status::Partial("the rest".to_owned())] {
            assert_eq!(judge(&[row(status)], &[]).broken, Vec::<String>::new());
        }
    }

    #[test]
    fn a_test_of_a_row_that_is_not_there_is_named() {
        let mut stranger = test(Level::Core, Outcome::Passed);
        stranger.rows = vec!["K99".to_owned()];
        assert_eq!(judge(&[row(Status::Open)], &[stranger]).broken.len(), 1);
    }
}
