//! One TOML file for all processes of a machine, overlaid by environment variables. A key that nobody knows
//! is an error, since it is almost always a known one mistyped.
//!
//! What is known is read off the default configuration, so each key has a default, `None` included.

mod load;

use std::{
    fmt,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use serde::{Deserialize, Serialize};
use understudy_core::ids::{DomainId, ServerId};

pub use load::load;

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A file, and the line in it.
    File(PathBuf, usize),
    /// An environment variable.
    Environment(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path, line) => write!(f, "{} line {line}", path.display()),
            Self::Environment(name) => write!(f, "environment variable {name}"),
        }
    }
}

/// Why a configuration can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("can't read the configuration {}: {source}", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is no TOML.
    #[error("{} is no valid TOML: {message}", path.display())]
    NoToml {
        /// Which file.
        path: PathBuf,
        /// Where and why.
        message: String,
    },
    /// Nobody knows this key.
    #[error("{origin}: unknown key {key}{}", nearest.as_ref().map(|n| format!("; did you mean {n}?")).unwrap_or_default())]
    UnknownKey {
        /// Where it stands.
        origin: Origin,
        /// The key, with its sections.
        key: String,
        /// The known one that it resembles most, written as it would stand there.
        nearest: Option<String>,
    },
    /// The value can't be what it is for.
    #[error("{}{message}", origin.as_ref().map(|o| format!("{o}: ")).unwrap_or_default())]
    Invalid {
        /// Where it stands, if that is known.
        origin: Option<Origin>,
        /// The key, and what is wrong.
        message: String,
    },
    /// A secret is missing or given twice.
    #[error("{name}: {what}")]
    Secret {
        /// Its key.
        name: String,
        /// What is wrong.
        what: String,
    },
}

/// How logs are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One line of text for each event.
    #[default]
    Human,
    /// One JSON object for each event.
    Json,
}

/// Section `[runtime]`: what every process needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RuntimeConfig {
    /// How logs are written.
    pub log: LogFormat,
    /// What is logged: `error`, `warn`, `info`, `debug`, `trace`, or by module: `info,understudy_bus=debug`.
    pub level: String,
    /// Where `/healthz`, `/readyz` and `/metrics` are; port 0 takes any free one. Each process needs its own.
    pub listen: SocketAddr,
    /// The domain that this machine's own metrics are labelled with.
    pub domain: String,
}

impl Default for RuntimeConfig {
    fn default() -> Self {
        Self {
            log: LogFormat::Human,
            level: "info".to_owned(),
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            domain: "default".to_owned(),
        }
    }
}

fn default_domain() -> DomainId {
    DomainId::new("default").expect("a valid id")
}

/// Section `[host]`: what the processes of a host share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HostConfig {
    /// Folder of the host's data; `understudy.db` lies in it.
    pub data: PathBuf,
    /// The domain that the host is in.
    pub domain: DomainId,
}

impl Default for HostConfig {
    fn default() -> Self {
        Self {
            data: PathBuf::from("/var/lib/understudy"),
            domain: default_domain(),
        }
    }
}

impl HostConfig {
    /// The host's database.
    #[must_use]
    pub fn database(&self) -> PathBuf {
        self.data.join("understudy.db")
    }
}

/// Section `[server]`: what the processes of a recording or failover server share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServerConfig {
    /// The server's id, as it is enrolled at the host.
    pub id: ServerId,
    /// The domain that it is in.
    pub domain: DomainId,
    /// Folder of `assignment.json`, `bundles/` and `archive/`.
    pub data: PathBuf,
    /// The file with the fleet's key.
    pub fleet_key_file: PathBuf,
    /// The most cameras that it can run.
    pub max_cameras: u32,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            id: ServerId::new("server").expect("a valid id"),
            domain: default_domain(),
            data: PathBuf::from("/var/lib/understudy"),
            fleet_key_file: PathBuf::from("/etc/understudy/fleet.key"),
            max_cameras: 64,
        }
    }
}
