//! The one configuration file of a machine: a section for each thing that runs there.
//!
//! Every process reads the whole file and takes its own sections; a key that nobody knows is refused by all.

use std::path::Path;

use serde::{Deserialize, Serialize};
use understudy_bus::BrokerConfig;
use understudy_console::ConsoleConfig;
use understudy_health::{agent::AgentConfig, monitor::MonitorConfig};
use understudy_ingest::IngestConfig;
use understudy_license::LicenseConfig;
use understudy_orchestrator::OrchestratorConfig;
use understudy_runtime::{ConfigError, HostConfig, RuntimeConfig, ServerConfig, load};
use understudy_sync::SyncConfig;

/// Environment variables that are flags of client commands, not keys of the file.
const FLAGS: [&str; 2] = ["UNDERSTUDY_URL", "UNDERSTUDY_TOKEN_FILE"];

/// The whole file.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// What every process needs.
    pub(crate) runtime: RuntimeConfig,
    /// Where the broker is.
    pub(crate) broker: BrokerConfig,
    /// What the host's services share.
    pub(crate) host: HostConfig,
    /// What a server's services share.
    pub(crate) server: ServerConfig,
    pub(crate) orchestrator: OrchestratorConfig,
    pub(crate) monitor: MonitorConfig,
    pub(crate) license: LicenseConfig,
    pub(crate) console: ConsoleConfig,
    pub(crate) agent: AgentConfig,
    pub(crate) ingest: IngestConfig,
    pub(crate) sync: SyncConfig,
}

impl Config {
    /// Reads the file, if there is one, with the environment over it.
    pub(crate) fn read(file: Option<&Path>) -> Result<Self, ConfigError> {
        load(
            file,
            std::env::vars().filter(|(name, _)| !FLAGS.contains(&name.as_str())),
        )
    }
}
