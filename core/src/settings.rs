//! A recording server's settings as one bundle, named by its hash.
//!
//! The host is the one writer. A bundle goes to the recording server and to its paired failover servers
//! before anything breaks; at a failover only its hash travels.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{camera::Camera, ids::ServerId};

/// BLAKE3 hash of a bundle's canonical JSON, in hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BundleHash(pub String);

impl fmt::Display for BundleHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Everything that a server needs to be a recording server: its identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bundle {
    /// Whose settings these are.
    pub identity: ServerId,
    /// The recording server's name, which the failover server carries.
    pub name: String,
    /// Its cameras, sorted by id.
    pub cameras: Vec<Camera>,
}

impl Bundle {
    /// The bundle as bytes: the same settings give the same bytes, everywhere.
    #[must_use]
    pub fn canonical(&self) -> Vec<u8> {
        let mut sorted = self.clone();
        sorted.cameras.sort_by(|a, b| a.id.cmp(&b.id));
        serde_json::to_vec(&sorted).expect("a bundle has only strings, numbers and lists")
    }

    /// The bundle's name.
    #[must_use]
    pub fn hash(&self) -> BundleHash {
        BundleHash::of(&self.canonical())
    }
}

impl BundleHash {
    /// The hash of a bundle's canonical bytes.
    #[must_use]
    pub fn of(canonical: &[u8]) -> Self {
        Self(blake3::hash(canonical).to_hex().to_string())
    }
}
