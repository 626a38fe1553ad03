//! What an error is about.

use std::error::Error;

/// The innermost cause of an error: it says what happened; what is around it only where.
#[must_use]
pub fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}
