//! The section `[sync]` of the configuration.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// How a server gives out and fetches recordings at failback.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SyncConfig {
    /// Where recordings are given out (HTTP). Other servers must reach it: it is the `sync_address` that this
    /// server is enrolled with. Beyond this machine only with the fleet's token.
    pub listen: SocketAddr,
    /// How many segments are fetched at once.
    pub parallel: usize,
    /// Fetching waits while less than this would be left free on the volume, in MiB. Below what the recording
    /// service keeps free (`[ingest] keep_free_mib`), or it would wait on a volume in its steady state for ever.
    pub free_floor_mib: u64,
    /// Fetching yields to recording while the volume takes this long to make a few bytes durable, in
    /// milliseconds: down to 1 MiB a second, never to nothing.
    pub yield_latency_ms: u64,
}

impl Default for SyncConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 7400)),
            parallel: 3,
            free_floor_mib: 256,
            yield_latency_ms: 500,
        }
    }
}
