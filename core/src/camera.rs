//! Cameras: how to reach each one, and what is to be kept of it.

use std::{collections::BTreeSet, fmt};

use serde::{Deserialize, Serialize};

use crate::{
    contract::api::CameraField,
    ids::{CameraId, ServerId},
};

/// A camera as its recording server owns it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Camera {
    /// Its id, the same on whichever server films it.
    pub id: CameraId,
    /// Its name as people see it.
    pub name: String,
    /// The recording server that owns it.
    pub server: ServerId,
    /// Its RTSP address, without credentials (RFC 2326 `rtsp://` or `rtsps://`).
    pub url: String,
    /// How to sign in to it, if it asks.
    #[serde(default)]
    pub credentials: Option<Credentials>,
    /// When it is recorded.
    #[serde(default)]
    pub recording: RecordingMode,
    /// How long and how much of it is kept.
    #[serde(default)]
    pub retention: Retention,
    /// Which cameras stay when a failover server has not room for all: the highest stay.
    #[serde(default)]
    pub priority: i32,
    /// How many RTSP sessions it allows at once, where known.
    #[serde(default)]
    pub max_sessions: Option<u32>,
    /// How its packets come. What is usual is left out, so that settings of before have the hash of before.
    #[serde(default, skip_serializing_if = "Transport::is_usual")]
    pub transport: Transport,
    /// A disabled camera is not connected to.
    #[serde(default = "enabled")]
    pub enabled: bool,
}

fn enabled() -> bool {
    true
}

impl Camera {
    /// What is set otherwise in `other`, of what people can set.
    #[must_use]
    pub fn differing_fields(&self, other: &Self) -> BTreeSet<CameraField> {
        let differs = [
            (CameraField::Name, self.name != other.name),
            (CameraField::Url, self.url != other.url),
            (CameraField::Credentials, self.credentials != other.credentials),
            (CameraField::Recording, self.recording != other.recording),
            (CameraField::Retention, self.retention != other.retention),
            (CameraField::Priority, self.priority != other.priority),
            (CameraField::MaxSessions, self.max_sessions != other.max_sessions),
            (CameraField::Transport, self.transport != other.transport),
            (CameraField::Enabled, self.enabled != other.enabled),
        ];
        let differing = differs.into_iter().filter(|(_, differs)| *differs);
        differing.map(|(field, _)| field).collect()
    }

    /// Sets in `other` the `fields` as they are set here.
    pub fn copy_fields(&self, fields: &BTreeSet<CameraField>, other: &mut Self) {
        for field in fields {
            match field {
                CameraField::Name => other.name.clone_from(&self.name),
                CameraField::Url => other.url.clone_from(&self.url),
                CameraField::Credentials => other.credentials.clone_from(&self.credentials),
                CameraField::Recording => other.recording = self.recording,
                CameraField::Retention => other.retention = self.retention,
                CameraField::Priority => other.priority = self.priority,
                CameraField::MaxSessions => other.max_sessions = self.max_sessions,
                CameraField::Transport => other.transport = self.transport,
                CameraField::Enabled => other.enabled = self.enabled,
            }
        }
    }

    /// Whether it is filmed just like `other`: what differs, if anything, is no matter of its session.
    #[must_use]
    pub fn films_like(&self, other: &Self) -> bool {
        let session = |camera: &Self| {
            (
                camera.id.clone(),
                camera.url.clone(),
                camera.credentials.clone(),
                camera.recording,
                camera.transport,
                camera.enabled,
            )
        };
        session(self) == session(other)
    }
}

/// Basic or Digest credentials (RFC 7617, RFC 7616). Never printed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credentials {
    /// The user's name.
    pub username: String,
    /// The password, in clear: it is encrypted with its whole bundle, on its way and on the servers' disks. The
    /// host's database holds it in clear, readable for the service's user only. Left out wherever a camera is
    /// shown, hence the default.
    #[serde(default)]
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

/// When a camera is recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecordingMode {
    /// All the time.
    #[default]
    Continuous,
    /// Never: it is connected to for live view only.
    LiveOnly,
}

/// How a camera's packets come (RFC 2326 10.12, RFC 3550 11).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Transport {
    /// Within the RTSP connection: nothing is lost on the way.
    #[default]
    Tcp,
    /// By UDP, for cameras that do nothing else: what is lost on the way costs the pictures up to the next key
    /// frame.
    Udp,
}

impl Transport {
    fn is_usual(&self) -> bool {
        *self == Self::default()
    }
}

/// What is kept of a camera's recordings: whatever breaks one of the limits goes, oldest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retention {
    /// Kept for at most this many seconds after it was recorded; without it, for as long as there is room.
    #[serde(default)]
    pub max_age_seconds: Option<u64>,
    /// At most this many bytes on disk; without it, as many as there is room for.
    #[serde(default)]
    pub max_bytes: Option<u64>,
}
