//! How a command ends when it does not end well.

use std::{io, process::ExitCode};

use understudy_core::contract::api::Problem;

/// Why a command did not do what it should.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// It was tried, and failed: status 1.
    #[error("{0}")]
    Failed(String),
    /// The API refused it: status 1.
    #[error("{}", .0.detail)]
    Refused(Problem),
    /// It can't be done like that: status 2.
    #[error("{0}")]
    Usage(String),
    /// Whoever read the output has gone, e.g. `head`: no failure of ours, status 0.
    #[error("nobody reads the output any more")]
    NobodyReads,
}

impl Failure {
    /// A failure to do `what` because of `error`.
    pub(crate) fn while_doing<E: std::fmt::Display>(what: impl Into<String>) -> impl Fn(E) -> Self {
        let what = what.into();
        move |error| Self::Failed(format!("{what}: {error}"))
    }

    /// Says it on standard error, and gives the exit status.
    pub(crate) fn report(&self) -> ExitCode {
        use std::io::Write;
        let status = match self {
            Self::NobodyReads => return ExitCode::SUCCESS,
            Self::Failed(_) | Self::Refused(_) => 1,
            Self::Usage(_) => 2,
        };
        // Not `eprintln!`, which panics when standard error is closed.
        let _ = writeln!(io::stderr(), "understudy: {self}");
        ExitCode::from(status)
    }
}

impl From<io::Error> for Failure {
    /// Of writing the output; everything else says what it was about.
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::NobodyReads,
            _ => Self::Failed(format!("can't write the output: {error}")),
        }
    }
}
