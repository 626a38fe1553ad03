//! Section `[license]`.

use serde::{Deserialize, Serialize};

/// Whether devices need licences.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Licensing {
    /// Each device beyond the free ones of its server needs one.
    #[default]
    On,
    /// None does: keys are neither taken nor moved.
    Off,
}

/// Section `[license]`: whose keys count.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LicenseConfig {
    /// Whether devices need licences.
    pub licensing: Licensing,
    /// Public keys of the issuers whose keys count: Ed25519, in hexadecimal.
    pub issuers: Vec<String>,
}
