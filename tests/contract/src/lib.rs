//! What other programs may rely on: the events on `understudy.events`, described from the types that are sent.
//!
//! [`document`] makes `docs/events/asyncapi.yaml`, [`check`] holds a message against it, [`compatible`] holds it
//! against the versions that were released, and [`listen`] checks every message of a fleet under test.
//! After a change of an event: `cargo run --package understudy-contract`.

pub mod accounts;
pub mod check;
pub mod compatible;
pub mod document;
pub mod examples;
pub mod listen;

use std::path::{Path, PathBuf};

/// What makes the file anew.
pub const REGENERATE: &str = "cargo run --package understudy-contract";

/// The folder `docs/events`.
///
/// # Panics
/// Never: this crate lies two folders below the project's.
#[must_use]
pub fn folder() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let project = here.ancestors().nth(2).expect("tests/contract lies below it");
    project.join("docs/events")
}
