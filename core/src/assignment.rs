//! What one server is to be: the desired state that the host computes and the server moves to.
//!
//! An assignment is whole in itself: the newest replaces all earlier ones, so that a lost, repeated or
//! reordered message does no harm.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde::{Deserialize, Serialize};

use crate::{
    ids::{CameraId, ErasureId, FailoverId, ServerId},
    policy::Range,
    settings::BundleHash,
};

/// The age of an assignment: one counter for the whole fleet, given out by the orchestrator and persisted
/// before use. A higher term begins whenever somebody reports an epoch above the orchestrator's own, as after
/// a restore from a backup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Epoch {
    /// Counts the times at which the counter could not be trusted to go on.
    pub term: u32,
    /// Counts the assignments of a term.
    pub number: u64,
}

impl Epoch {
    /// The next epoch of the same term.
    #[must_use]
    pub fn next(self) -> Self {
        Self {
            term: self.term,
            number: self.number.saturating_add(1),
        }
    }

    /// The first epoch of the term after `seen`'s.
    #[must_use]
    pub fn next_term(seen: Self) -> Self {
        Self {
            term: seen.term.saturating_add(1),
            number: 1,
        }
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.term, self.number)
    }
}

/// What one server is to be, from one epoch on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Assignment {
    /// Whom it is for.
    pub server: ServerId,
    /// From when; of two assignments the one of the higher epoch holds.
    pub epoch: Epoch,
    /// What the server is to be.
    pub role: Role,
    /// Failovers whose recordings the server is to erase: they arrived where they belong, or were dropped by
    /// the policy or by a person.
    #[serde(default)]
    pub erase: BTreeSet<FailoverId>,
    /// Of these, the ones that arrived, each with the beginning up to which they did
    /// ([`Manifest::begun`](crate::contract::segment::Manifest::begun)): a server that has begun to film for one since
    /// erases nothing of it, and says so. Those that are not in here go whatever there is. Left out when there is none,
    /// so that a server of before reads the rest.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub erase_up_to: BTreeMap<FailoverId, u64>,
}

/// What a server is to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Role {
    /// Offers nothing; what lies in its archive stays.
    Standby,
    /// Offers nothing, and erases its whole archive: once for each order, however often it hears of it.
    Erases {
        /// The order.
        erasure: ErasureId,
    },
    /// Bears an identity, and films its cameras.
    Films(Films),
    /// Films no more; keeps what it recorded for a failover and gives it out until it is told to erase it.
    HandsBack {
        /// The failover whose recordings it gives out.
        failover: FailoverId,
    },
}

/// Bearing an identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Films {
    /// The recording server whose cameras, settings, licences and name these are.
    pub identity: ServerId,
    /// The settings, by hash.
    pub settings: BundleHash,
    /// Everything, or everything but recording.
    #[serde(default)]
    pub range: Range,
    /// Cameras of the bundle that are not to be run, since they are more than the server supports.
    #[serde(default)]
    pub disabled: BTreeSet<CameraId>,
    /// The failover for which a failover server films; none for the recording server itself.
    #[serde(default)]
    pub failover: Option<FailoverId>,
    /// Where to fetch the recordings that a failover server made meanwhile.
    #[serde(default)]
    pub restore: Option<Restore>,
    /// Failovers for which the server filmed before it took the recording server's place for good: what it recorded
    /// for them is its own from now on. Left out when there is none, so that a server of before reads the rest.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub keep: BTreeSet<FailoverId>,
}

/// Recordings to be fetched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Restore {
    /// The failover during which they were made.
    pub failover: FailoverId,
    /// The server that has them.
    pub source: ServerId,
    /// Base URL of that server's sync service.
    pub address: String,
}

impl Role {
    /// The identity that the server bears in this role.
    #[must_use]
    pub fn identity(&self) -> Option<&ServerId> {
        match self {
            Self::Films(films) => Some(&films.identity),
            Self::Standby | Self::Erases { .. } | Self::HandsBack { .. } => None,
        }
    }
}
