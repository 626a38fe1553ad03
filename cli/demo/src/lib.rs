//! A whole fleet of real processes in one temporary folder, and what can be measured of it from outside.
//!
//! The demo, the scenario tests and the bench stand on the same [`rig::Rig`]: a private RabbitMQ, the host's
//! services, recording and failover servers and the camera simulator, each an operating-system process of its
//! own. Nothing here looks inside a service: it starts, kills, asks the API, listens to the events, and reads
//! files.

pub mod api;
pub mod display;
pub mod frames;
pub mod keep;
pub mod line;
pub mod listener;
pub mod measure;
pub mod ports;
pub mod process;
pub mod report;
pub mod rig;
pub mod sent;
pub mod story;
pub mod volume;

/// Why the demo, or something that it promised, failed.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// A file or folder could not be used.
    #[error("{what}: {source}")]
    Io {
        /// What was to be done.
        what: String,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// A process did not start, or ended too early; its log says why.
    #[error("{name} {what}; see {log}:\n{tail}")]
    Process {
        /// Which.
        name: String,
        /// What happened to it.
        what: String,
        /// Its log file.
        log: String,
        /// The last lines of it.
        tail: String,
    },
    /// The broker did not start.
    #[error("the private RabbitMQ did not start: {0}")]
    Broker(String),
    /// The API answered with a problem, or not at all.
    #[error("API: {0}")]
    Api(String),
    /// Something did not happen in time.
    #[error("gave up after {seconds} s waiting for {what}; {state}")]
    Deadline {
        /// For how long it was waited.
        seconds: u64,
        /// What was waited for.
        what: String,
        /// How things stood.
        state: String,
    },
    /// What was asked for needs something that this machine or user lacks.
    #[error("{0}")]
    Lacking(String),
    /// The simulator's or the archive's account can't be read.
    #[error("{0}")]
    Account(String),
}

impl DemoError {
    /// An error of the file system, with what was to be done.
    pub fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}
