//! Servers: what the fleet knows of each.

use serde::{Deserialize, Serialize};

use crate::ids::{DomainId, ServerId};

/// What a server is for. Only a host can switch it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Manages the fleet. Never protected by a failover server.
    Host,
    /// Owns cameras in normal operation.
    Recording,
    /// Stands by, and offers nothing else while it does.
    Failover,
    /// Known, but in no use.
    Inactive,
}

/// A server as it is enrolled at the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// Its id, the same for as long as it is enrolled.
    pub id: ServerId,
    /// Its name as people see it; an identity carries it to the failover server.
    pub name: String,
    /// The domain that it is in.
    pub domain: DomainId,
    /// What it is for.
    pub mode: Mode,
    /// The most cameras that it can run.
    pub max_cameras: u32,
    /// Base URL of its sync service, from which recordings are fetched at failback.
    pub sync_address: String,
    /// A disabled server takes no part: it is neither protected nor a stand-in.
    #[serde(default = "enabled")]
    pub enabled: bool,
}

fn enabled() -> bool {
    true
}
