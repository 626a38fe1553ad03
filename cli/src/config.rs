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
use understudy_notifier::NotifierConfig;
use understudy_orchestrator::OrchestratorConfig;
use understudy_runtime::{
    ConfigError, FleetConfig, HostConfig, RuntimeConfig, ServerConfig, TelemetryConfig, load,
};
use understudy_sync::SyncConfig;

/// Environment variables that are flags of client commands, not keys of the file.
const FLAGS: [&str; 2] = ["UNDERSTUDY_URL", "UNDERSTUDY_TOKEN_FILE"];

/// The whole file.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// What every process needs.
    pub(crate) runtime: RuntimeConfig,
    /// Where traces go.
    pub(crate) telemetry: TelemetryConfig,
    /// Where the broker is.
    pub(crate) broker: BrokerConfig,
    /// What all machines of the fleet have alike.
    pub(crate) fleet: FleetConfig,
    /// What the host's services share.
    pub(crate) host: HostConfig,
    /// What a server's services share.
    pub(crate) server: ServerConfig,
    pub(crate) orchestrator: OrchestratorConfig,
    pub(crate) monitor: MonitorConfig,
    pub(crate) license: LicenseConfig,
    pub(crate) notifier: NotifierConfig,
    pub(crate) console: ConsoleConfig,
    pub(crate) agent: AgentConfig,
    pub(crate) ingest: IngestConfig,
    pub(crate) sync: SyncConfig,
}

impl Config {
    /// Reads the file, if there is one, with the environment over it.
    pub(crate) fn read(file: Option<&Path>) -> Result<Self, ConfigError> {
        let config: Self = load(
            file,
            std::env::vars().filter(|(name, _)| !FLAGS.contains(&name.as_str())),
        )?;
        config.checked()
    }

    /// What one section alone can't know. A volume in its steady state has `keep_free_mib` free and not more:
    /// fetching that wants as much would wait for ever.
    fn checked(self) -> Result<Self, ConfigError> {
        let (floor, kept) = (self.sync.free_floor_mib, self.ingest.keep_free_mib);
        if floor < kept {
            return Ok(self);
        }
        Err(ConfigError::Invalid {
            origin: None,
            message: format!(
                "sync.free_floor_mib ({floor}) has to be less than ingest.keep_free_mib ({kept}): \
                 recordings could never come back to a volume on which retention keeps only that much free"
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::Value;

    use super::*;

    /// The table of keys in the operator's guide: key and default.
    fn described() -> BTreeMap<String, String> {
        let guide = include_str!("../../docs/operating.md");
        let rows = guide
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split_once("` |"));
        rows.filter(|(key, _)| key.contains('.'))
            .map(|(key, rest)| {
                let default = rest
                    .split('|')
                    .next()
                    .unwrap_or_default()
                    .trim()
                    .trim_matches('`');
                (key.to_owned(), default.to_owned())
            })
            .collect()
    }

    fn free(floor: u64, kept: u64) -> Config {
        let mut config = Config::default();
        config.sync.free_floor_mib = floor;
        config.ingest.keep_free_mib = kept;
        config
    }

    #[test]
    fn k2_on_a_full_volume_retention_makes_room_for_what_comes_back() {
        // A volume in its steady state has as much free as retention keeps, and a minute's worth less.
        let defaults = Config::default().checked().expect("the defaults fit each other");
        assert!(defaults.sync.free_floor_mib * 2 <= defaults.ingest.keep_free_mib);
        assert!(free(511, 512).checked().is_ok());
        for (floor, kept) in [(512, 512), (1024, 512), (0, 0)] {
            let refused = free(floor, kept).checked().expect_err("it would wait for ever");
            let text = refused.to_string();
            assert!(
                text.contains("sync.free_floor_mib") && text.contains("ingest.keep_free_mib"),
                "{text}"
            );
        }
    }

    #[test]
    fn the_guide_names_each_key_with_its_default() {
        let config = serde_json::to_value(Config::default()).expect("the configuration can be written");
        let sections = config.as_object().expect("sections").iter();
        let there = sections.flat_map(|(section, keys)| {
            let keys = keys.as_object().expect("keys").iter();
            keys.map(move |(key, value)| {
                let default = match value {
                    Value::Null => String::new(),
                    Value::String(text) => text.clone(),
                    other => other.to_string(),
                };
                (format!("{section}.{key}"), default)
            })
        });
        assert_eq!(described(), there.collect());
    }
}
