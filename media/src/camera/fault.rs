//! What retina says, put into the words that the fleet shares. Never lets a password through.

use std::{fmt, time::Duration};

use understudy_core::{camera::Credentials, contract::heartbeat::CameraFault};

/// Why a camera does not film at the moment.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Fault {
    /// What kind.
    pub kind: CameraFault,
    /// What was seen, in words, without credentials.
    pub detail: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl Fault {
    pub(crate) fn new(kind: CameraFault, detail: impl Into<String>) -> Self {
        Self {
            kind,
            detail: detail.into(),
        }
    }

    pub(crate) fn no_answer(within: Duration) -> Self {
        Self::new(
            CameraFault::Unreachable,
            format!("did not answer within {} s", within.as_secs_f32()),
        )
    }

    pub(crate) fn closed() -> Self {
        Self::new(CameraFault::Unreachable, "the camera closed the connection")
    }

    pub(crate) fn silent(silence: Duration) -> Self {
        Self::new(
            CameraFault::Silent,
            format!("connected, but sent nothing for {:.1} s", silence.as_secs_f32()),
        )
    }

    /// What an error of an RTSP session means.
    pub(crate) fn of_session(error: &retina::Error, credentials: Option<&Credentials>) -> Self {
        let words = error.to_string();
        // The rest says which bytes of which connection: for the log only.
        let first = words.lines().next().unwrap_or_default();
        let kind = match error.status_code() {
            Some(status) => of_status(status),
            None => of_words(first),
        };
        Self::new(kind, without(first, credentials))
    }
}

/// RFC 2326, 7.1.1. A success that is an error nevertheless is one that retina could not make sense of.
fn of_status(status: u16) -> CameraFault {
    match status {
        200..=299 => CameraFault::Garbage,
        401 | 403 | 407 => CameraFault::Unauthorized,
        // Not Enough Bandwidth; Service Unavailable: what cameras say whose sessions are all taken.
        453 | 503 => CameraFault::HeldElsewhere,
        415 => CameraFault::UnsupportedCodec,
        _ => CameraFault::Unreachable,
    }
}

/// retina's errors are opaque but for their words; a test holds these against real ones.
fn of_words(first_line: &str) -> CameraFault {
    let unreachable = [
        "Unable to connect",
        "Error reading from RTSP peer",
        "Error writing",
        "Timeout",
        "Invalid argument",
    ];
    if unreachable.iter().any(|start| first_line.starts_with(start)) {
        CameraFault::Unreachable
    } else {
        CameraFault::Garbage
    }
}

fn without(words: &str, credentials: Option<&Credentials>) -> String {
    match credentials {
        Some(credentials) if !credentials.password.is_empty() => words.replace(&credentials.password, "***"),
        _ => words.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_never_gets_into_a_detail() {
        let credentials = Credentials {
            username: "root".to_owned(),
            password: "s3cret".to_owned(),
        };
        assert_eq!(
            without("bad url rtsp://root:s3cret@x", Some(&credentials)),
            "bad url rtsp://root:***@x"
        );
    }

    #[test]
    fn e1_a_camera_that_allows_no_further_session_is_held_elsewhere() {
        assert_eq!(of_status(453), CameraFault::HeldElsewhere);
        assert_eq!(of_status(401), CameraFault::Unauthorized);
        assert_eq!(of_status(404), CameraFault::Unreachable);
    }
}
