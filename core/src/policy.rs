//! A recording server's failover settings: when, by whom, how far, and what comes back.

use std::{collections::BTreeSet, time::Duration};

use serde::{Deserialize, Serialize};

use crate::ids::ServerId;

/// The shortest disconnection duration.
pub const MIN_DISCONNECTION: Duration = Duration::from_secs(1);
/// The longest disconnection duration.
pub const MAX_DISCONNECTION: Duration = Duration::from_secs(60 * 60);

/// Which failover servers may stand in for a recording server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind", content = "servers")]
pub enum Pairing {
    /// Every failover server, those added later included.
    All,
    /// These; with none of them the recording server is unprotected.
    Servers(BTreeSet<ServerId>),
}

impl Default for Pairing {
    fn default() -> Self {
        Self::Servers(BTreeSet::new())
    }
}

/// What the failover server does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Range {
    /// Everything that the recording server did.
    #[default]
    Full,
    /// Live view and everything else, but no recording.
    LiveOnly,
}

/// What becomes of the recordings made during a failover.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Failback {
    /// They are synchronised back to the recording server.
    #[default]
    Keep,
    /// They are removed.
    Remove,
}

/// The failover settings of one recording server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// Whether a failover starts by itself at all.
    pub automatic: bool,
    /// Start when the server is not heard.
    pub on_disconnection: bool,
    /// For how long it must not be heard, in milliseconds; [`MIN_DISCONNECTION`] to [`MAX_DISCONNECTION`].
    pub disconnection_ms: u64,
    /// Start when its recording volume is degraded or damaged.
    pub on_storage: bool,
    /// A recording volume that stays full although retention should have made room counts as damaged, so that with
    /// [`Policy::on_storage`] it starts a failover.
    pub full_is_damage: bool,
    /// Start when its recording service is abnormal.
    pub on_package: bool,
    /// End by itself when the reason has cleared.
    pub stop_automatically: bool,
    /// What the failover server does.
    pub range: Range,
    /// What becomes of the recordings made meanwhile.
    pub failback: Failback,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            automatic: false,
            on_disconnection: true,
            disconnection_ms: 10_000,
            on_storage: false,
            full_is_damage: false,
            on_package: false,
            stop_automatically: false,
            range: Range::Full,
            failback: Failback::Keep,
        }
    }
}

/// Why failover settings were refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPolicy {
    /// The disconnection duration is out of range.
    #[error("a disconnection duration of {0:?} is not possible: choose between 1 s and 60 min")]
    Disconnection(Duration),
}

impl Policy {
    /// For how long the server must not be heard.
    #[must_use]
    pub fn disconnection(&self) -> Duration {
        Duration::from_millis(self.disconnection_ms)
    }

    /// Checks what the types can't.
    ///
    /// # Errors
    /// [`InvalidPolicy`] says which value can't be, and what could.
    pub fn validate(&self) -> Result<(), InvalidPolicy> {
        let duration = self.disconnection();
        if (MIN_DISCONNECTION..=MAX_DISCONNECTION).contains(&duration) {
            Ok(())
        } else {
            Err(InvalidPolicy::Disconnection(duration))
        }
    }
}
