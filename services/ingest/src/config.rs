//! Section `[ingest]` of the configuration.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use serde::{Deserialize, Serialize};
use understudy_media::film::StudioConfig;
use understudy_runtime::{
    Secret,
    bearer::{self, TOKEN_MIN},
    secret::secret,
};

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
    /// Where live view is given out (RTSP): beyond this machine only with a token. Port 0 takes any free one.
    pub relay_listen: SocketAddr,
    /// The name or address under which viewers reach it, where that is not the one that it listens on.
    pub relay_host: Option<String>,
    /// What viewers give as password, under any name.
    pub relay_token: Option<Secret>,
    /// A file with it.
    pub relay_token_file: Option<PathBuf>,
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
            relay_host: None,
            relay_token: None,
            relay_token_file: None,
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
        let named = self.relay_host.as_deref();
        if named.is_some_and(|host| host.is_empty() || host.contains(|c: char| "/@?# ".contains(c))) {
            return Err(IngestError::Relay(
                "relay_host has to be a name or an address, and nothing else".to_owned(),
            ));
        }
        if self.relay_listen.ip().is_unspecified() && named.is_none() && self.has_token() {
            return Err(IngestError::Relay(format!(
                "relay_listen = {}: say in relay_host under which name or address viewers reach it",
                self.relay_listen
            )));
        }
        Ok(())
    }

    fn has_token(&self) -> bool {
        self.relay_token.is_some() || self.relay_token_file.is_some()
    }

    /// What viewers have to know; none where only this machine can reach it and no token is set.
    pub(crate) fn token(&self) -> Result<Option<Secret>, IngestError> {
        if !self.has_token() {
            return match self.relay_listen.ip().is_loopback() {
                true => Ok(None),
                false => Err(IngestError::OpenRelay(self.relay_listen)),
            };
        }
        let token = secret(&self.relay_token, &self.relay_token_file, "[ingest] relay_token")
            .map_err(|error| IngestError::Relay(error.to_string()))?;
        // It is part of addresses, and of RTSP's headers.
        let plain = bearer::plain(&token).ok_or_else(|| {
            IngestError::Relay(format!(
                "relay_token has to have {TOKEN_MIN} characters or more, letters, digits and -_.~ only, for example \
                 from: openssl rand -hex 32"
            ))
        })?;
        Ok(Some(plain))
    }

    /// Where viewers find it, listening on `address`.
    pub(crate) fn relay_url(&self, address: SocketAddr) -> String {
        match &self.relay_host {
            Some(host) => format!("rtsp://{host}:{}", address.port()),
            None => format!("rtsp://{address}"),
        }
    }

    pub(crate) fn studio(&self) -> StudioConfig {
        StudioConfig {
            segment_seconds: self.segment_seconds,
            silence_ms: self.stall_seconds * 1_000,
            ..StudioConfig::default()
        }
    }
}
