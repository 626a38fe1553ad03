//! The tools that read what operators install by: found where `scripts/tools` puts them before the
//! tests (`target/tools`), or on the path.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, ensure};

/// The project's folder.
///
/// # Panics
/// Never: this crate lies two folders below it.
#[must_use]
pub fn project() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors()
        .nth(2)
        .expect("tests/deployment lies below it")
        .to_owned()
}

/// A tool, not yet run.
#[must_use]
pub fn tool(name: &str) -> Command {
    let own = project().join("target/tools").join(name);
    if own.is_file() {
        Command::new(own)
    } else {
        Command::new(name)
    }
}

/// What a tool prints.
///
/// # Errors
/// If it is not here, or fails: then with what it said.
pub fn run<I: AsRef<OsStr>>(name: &str, arguments: impl IntoIterator<Item = I>) -> anyhow::Result<String> {
    let output = tool(name)
        .args(arguments)
        .output()
        .with_context(|| format!("{name} is not here: `scripts/tools` gets it"))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{name}: {}\n{said}{complaint}",
        output.status
    );
    Ok(said)
}
