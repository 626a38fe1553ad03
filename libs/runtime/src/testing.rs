//! For tests of every crate: what can't be tested here.

use std::io::Write as _;

/// With this set to `1` a test that would be left out fails.
pub const NOTHING_LEFT_OUT: &str = "UNDERSTUDY_NOTHING_LEFT_OUT";

/// The file that each part that is left out is written to, a line each; `make test` names one, and ends with what is
/// in it.
pub const LEFT_OUT_FILE: &str = "UNDERSTUDY_LEFT_OUT_FILE";

/// A test, or a part of it, can't be done on this machine or by this user: it says so, loudly, and the caller leaves
/// it out.
///
/// # Panics
/// Where nothing may be left out ([`NOTHING_LEFT_OUT`]).
#[track_caller]
pub fn left_out(why: impl std::fmt::Display) {
    let strict = std::env::var_os(NOTHING_LEFT_OUT).is_some_and(|value| value == "1");
    assert!(
        !strict,
        "left out, and nothing may be ({NOTHING_LEFT_OUT}=1): {why}"
    );
    eprintln!("LEFT OUT, this was not tested: {why}");
    if let Some(file) = std::env::var_os(LEFT_OUT_FILE) {
        let caller = std::panic::Location::caller();
        let file = std::fs::OpenOptions::new().append(true).create(true).open(file);
        let written = file.and_then(|mut file| writeln!(file, "{}: {why}", caller.file()));
        written.expect("the file of what is left out can be written");
    }
}
