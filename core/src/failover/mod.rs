//! One failover, from its trigger to the end of failback.

use serde::{Deserialize, Serialize};

use crate::ids::{FailoverId, ServerId};

/// One failover.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failover {
    /// Which.
    pub id: FailoverId,
    /// The recording server.
    pub server: ServerId,
}
