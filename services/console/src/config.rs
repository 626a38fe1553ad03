//! The section `[console]`.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};
use understudy_runtime::Secret;

/// The section `[console]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ConsoleConfig {
    /// Where the API listens. Beyond loopback only with a token.
    pub listen: SocketAddr,
    /// What callers have to present as `Authorization: Bearer …` (RFC 6750). None on loopback: whoever is on
    /// the machine is trusted.
    pub token: Option<Secret>,
    /// A file with the token, instead of `token`.
    pub token_file: Option<PathBuf>,
    /// Further host names by which the API is reached; addresses and `localhost` need not be named. A request
    /// for any other name is refused: it comes from a page that had its name rebound (DNS rebinding).
    pub hosts: Vec<String>,
    /// The largest request that is taken, in bytes.
    pub body_max_bytes: usize,
    /// For how long another service may think about a request, in milliseconds.
    pub deadline_ms: u64,
    /// How many of the latest events are kept in memory for those who connect later.
    pub recent_events: usize,
}

impl Default for ConsoleConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            token: None,
            token_file: None,
            hosts: Vec::new(),
            // 20,000 cameras in one request, at 400 bytes each.
            body_max_bytes: 8 * 1024 * 1024,
            deadline_ms: 5_000,
            recent_events: 1_000,
        }
    }
}

impl ConsoleConfig {
    /// For how long another service may think about a request.
    #[must_use]
    pub fn deadline(&self) -> Duration {
        Duration::from_millis(self.deadline_ms)
    }
}
