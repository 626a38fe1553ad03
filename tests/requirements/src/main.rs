//! `make requirements`: each promise of `docs/requirements.md` with its tests and what they did in the last
//! whole `make test` of this tree, which is started if there was none. Fails if a row is claimed whole and no
//! scenario or browser test of it passed.

mod judge;
mod junit;
mod table;

use std::{
    path::Path,
    process::{Command, ExitCode},
};

use anyhow::{Context as _, bail, ensure};

/// The promises.
const TABLE: &str = "docs/requirements.md";
/// What `scripts/test` keeps of its last whole run.
const REPORT: &str = "target/requirements/junit.xml";
/// The state of the tree that the run was of, as `scripts/tree` prints it.
const STAMP: &str = "target/requirements/tree";

fn main() -> anyhow::Result<ExitCode> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    std::env::set_current_dir(&root).with_context(|| format!("can't enter {}", root.display()))?;
    let text = std::fs::read_to_string(TABLE).with_context(|| format!("can't read {TABLE}"))?;
    let rows = table::parse(&text).context(TABLE)?;
    if !is_of_this_tree()? {
        run_tests()?;
    }
    let report = std::fs::read_to_string(REPORT).with_context(|| format!("can't read {REPORT}"))?;
    let judgement = judge::judge(&rows, &junit::parse(&report).context(REPORT)?);
    print!("{}", judgement.text);
    for what in &judgement.broken {
        println!("BROKEN  {what}");
    }
    Ok(if judgement.broken.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Whether the report is there, and of the tree as it is now.
fn is_of_this_tree() -> anyhow::Result<bool> {
    let output = Command::new("scripts/tree")
        .output()
        .context("can't run scripts/tree")?;
    ensure!(
        output.status.success(),
        "can't tell the state of this tree: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    let stamp = std::fs::read_to_string(STAMP).unwrap_or_default();
    let state = String::from_utf8_lossy(&output.stdout);
    Ok(Path::new(REPORT).exists() && stamp.trim() == state.trim())
}

/// Runs every test. That some fail is seen in their report.
fn run_tests() -> anyhow::Result<()> {
    let nextest = Command::new("cargo").args(["nextest", "--version"]).output();
    if !nextest.is_ok_and(|output| output.status.success()) {
        bail!(
            "cargo-nextest is needed, which reports what each test did: cargo install --locked cargo-nextest"
        );
    }
    eprintln!("no whole run of this tree's tests is known: running them");
    let status = Command::new("scripts/test")
        .status()
        .context("can't run scripts/test")?;
    if !is_of_this_tree()? {
        bail!(
            "scripts/test ({status}) left no report of this tree: it did not get to the tests, or the tree changed meanwhile"
        );
    }
    Ok(())
}
