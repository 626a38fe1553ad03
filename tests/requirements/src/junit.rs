//! What nextest reports of a run (JUnit XML): each test, its level, and what it did. Reads text, nothing else.

use std::fmt;

use anyhow::Context as _;

use crate::table::is_row;

/// What a test stands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// A person's browser.
    Browser,
    /// Real processes.
    Scenario,
    /// Below: the decisions, their simulation, one service.
    Core,
}

impl fmt::Display for Level {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Browser => "browser",
            Self::Scenario => "scenario",
            Self::Core => "core",
        })
    }
}

/// What a test did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// At the first try.
    Passed,
    /// At a later try.
    Flaky,
    /// Not at all.
    Failed,
    /// It did not run, or said that this machine or user lacks what it takes.
    Skipped,
}

impl fmt::Display for Outcome {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Passed => "passed",
            Self::Flaky => "flaky",
            Self::Failed => "FAILED",
            Self::Skipped => "skipped",
        })
    }
}

/// One test of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Test {
    /// Where it lies and what it is called, e.g. `understudy-scenarios::all takeover::a3_…`.
    pub(crate) name: String,
    /// What it stands on.
    pub(crate) level: Level,
    /// What it did.
    pub(crate) outcome: Outcome,
    /// The rows with which its name begins, e.g. `A5`.
    pub(crate) rows: Vec<String>,
}

/// The tests of a run, as nextest writes them.
///
/// # Errors
/// If it is no such report.
pub(crate) fn parse(xml: &str) -> anyhow::Result<Vec<Test>> {
    let document = roxmltree::Document::parse(xml).context("no report of nextest's")?;
    let cases = document
        .descendants()
        .filter(|node| node.has_tag_name("testcase"));
    cases
        .map(|case| {
            let name = case.attribute("name").context("a test case without a name")?;
            let suite = case
                .attribute("classname")
                .context("a test case without its suite")?;
            let has = |tag: &str| case.children().any(|child| child.has_tag_name(tag));
            let outcome = if has("failure") || has("error") {
                Outcome::Failed
            } else if has("skipped") || case.descendants().any(says_left_out) {
                Outcome::Skipped
            } else if has("flakyFailure") || has("flakyError") {
                Outcome::Flaky
            } else {
                Outcome::Passed
            };
            Ok(Test {
                name: format!("{suite} {name}"),
                level: level(suite),
                outcome,
                rows: rows(name),
            })
        })
        .collect()
}

/// What `understudy_runtime::testing::left_out` writes.
fn says_left_out(node: roxmltree::Node<'_, '_>) -> bool {
    let output = node.has_tag_name("system-out") || node.has_tag_name("system-err");
    output
        && node
            .text()
            .is_some_and(|text| text.contains("LEFT OUT, this was not tested"))
}

fn level(suite: &str) -> Level {
    match suite.split("::").next() {
        Some("understudy-scenarios") => Level::Scenario,
        Some("understudy-browser") => Level::Browser,
        _ => Level::Core,
    }
}

fn rows(test: &str) -> Vec<String> {
    let name = test.rsplit("::").next().unwrap_or(test);
    name.split('_')
        .map(str::to_ascii_uppercase)
        .take_while(|word| is_row(word))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cut from a report of nextest 0.9.
    const REPORT: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<testsuites name="nextest-run" tests="4" failures="1" errors="0" uuid="u" timestamp="t" time="3.0">
    <testsuite name="understudy-scenarios::all" tests="3" disabled="0" errors="0" failures="1">
        <testcase name="takeover::a5_c2_a_dead_server" classname="understudy-scenarios::all" timestamp="t" time="1.0">
        </testcase>
        <testcase name="demo::c6_the_demo" classname="understudy-scenarios::all" timestamp="t" time="1.0">
            <failure type="test failure with exit code 101">panicked &amp; gone</failure>
        </testcase>
        <testcase name="wrong_usage" classname="understudy-scenarios::all" timestamp="t" time="1.0">
            <flakyFailure type="test failure">once</flakyFailure>
        </testcase>
    </testsuite>
    <testsuite name="understudy-core::decides" tests="1" disabled="0" errors="0" failures="0">
        <testcase name="a5_picks_the_closest_match" classname="understudy-core::decides" timestamp="t" time="0.0"/>
        <testcase name="c3_a_mount" classname="understudy-core::decides" timestamp="t" time="0.0">
            <system-out>running 1 test</system-out>
            <system-err>LEFT OUT, this was not tested: mounting needs root</system-err>
        </testcase>
    </testsuite>
</testsuites>"#;

    #[test]
    fn a_report_tells_each_tests_rows_level_and_outcome() {
        let tests = parse(REPORT).expect("a report");
        let read: Vec<_> = tests
            .iter()
            .map(|test| (test.rows.join(" "), test.level, test.outcome))
            .collect();
        assert_eq!(
            read,
            [
                ("A5 C2".to_owned(), Level::Scenario, Outcome::Passed),
                ("C6".to_owned(), Level::Scenario, Outcome::Failed),
                (String::new(), Level::Scenario, Outcome::Flaky),
                ("A5".to_owned(), Level::Core, Outcome::Passed),
                ("C3".to_owned(), Level::Core, Outcome::Skipped),
            ]
        );
    }

    #[test]
    fn a_letter_in_the_middle_of_a_name_is_no_row() {
        assert_eq!(rows("it::a_camera_of_b5"), Vec::<String>::new());
        assert_eq!(rows("it::every_h265_file"), Vec::<String>::new());
    }
}
