//! For tests of every crate: what can't be tested here.

/// With this set to `1` a test that would be left out fails. `make test` sets it for root, who has what tests need.
pub const NOTHING_LEFT_OUT: &str = "UNDERSTUDY_NOTHING_LEFT_OUT";

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
}
