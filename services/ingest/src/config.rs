//! Section `[ingest]` of the configuration.

use std::net::{Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};
use understudy_media::film::StudioConfig;

use crate::IngestError;

/// Section `[ingest]`: how the recording service records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IngestConfig {
    /// The length of a segment, in seconds; it is cut at the first key frame after it.
    pub segment_seconds: u64,
    /// After so many seconds without a frame a camera counts as silent and is connected to anew.
    pub stall_seconds: u64,
    /// How often the whole state is reported when nothing changes, in seconds.
    pub report_interval_seconds: u64,
    /// How often retention is applied, in seconds.
    pub retention_interval_seconds: u64,
    /// So much of the recording volume is kept free, in MiB: the oldest recordings go for it.
    pub keep_free_mib: u64,
    /// Where live view is given out (RTSP): on this machine only, since it can't ask yet who watches. Port 0 takes
    /// any free one.
    pub relay_listen: SocketAddr,
}

impl Default for IngestConfig {
    fn default() -> Self {
        Self {
            segment_seconds: 60,
            stall_seconds: 5,
            report_interval_seconds: 10,
            retention_interval_seconds: 60,
            keep_free_mib: 1024,
            relay_listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8555)),
        }
    }
}

impl IngestConfig {
    pub(crate) fn validate(&self) -> Result<(), IngestError> {
        for (key, value, least, most) in [
            ("segment_seconds", self.segment_seconds, 1, 3_600),
            ("stall_seconds", self.stall_seconds, 1, 600),
            ("report_interval_seconds", self.report_interval_seconds, 1, 60),
            (
                "retention_interval_seconds",
                self.retention_interval_seconds,
                1,
                86_400,
            ),
        ] {
            if !(least..=most).contains(&value) {
                return Err(IngestError::Config {
                    key,
                    value,
                    least,
                    most,
                });
            }
        }
        if !self.relay_listen.ip().is_loopback() {
            return Err(IngestError::OpenRelay(self.relay_listen));
        }
        Ok(())
    }

    pub(crate) fn studio(&self) -> StudioConfig {
        StudioConfig {
            segment_seconds: self.segment_seconds,
            silence_ms: self.stall_seconds * 1_000,
            ..StudioConfig::default()
        }
    }
}
