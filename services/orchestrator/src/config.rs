//! Section `[orchestrator]`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Section `[orchestrator]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OrchestratorConfig {
    /// The file with the fleet's key, with which settings are encrypted for the servers.
    pub fleet_key_file: PathBuf,
}

impl Default for OrchestratorConfig {
    fn default() -> Self {
        Self {
            fleet_key_file: PathBuf::from("/etc/understudy/fleet.key"),
        }
    }
}
