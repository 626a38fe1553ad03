//! Where the broker is.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use lapin::uri::AMQPUri;
use serde::{Deserialize, Serialize};

/// Seconds after which a silent connection is given up, if the URL does not say (AMQP 0-9-1, "heartbeats").
const HEARTBEAT_SECONDS: u16 = 6;
/// Milliseconds that connecting may take, if the URL does not say.
const CONNECT_MILLIS: u64 = 3_000;

/// Section `[broker]`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BrokerConfig {
    /// `amqp://user:password@host:port/vhost`, `amqps://` for TLS; `%2f` is the vhost `/`.
    pub url: String,
    /// A file with that URL, instead of `url`.
    pub url_file: Option<PathBuf>,
}

impl Default for BrokerConfig {
    fn default() -> Self {
        Self {
            url: "amqp://guest:guest@127.0.0.1:5672/%2f".to_owned(),
            url_file: None,
        }
    }
}

impl fmt::Debug for BrokerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BrokerConfig")
            .field("url", &"***")
            .field("url_file", &self.url_file)
            .finish()
    }
}

/// Why the bus can't be used as configured.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// The URL's file can't be read.
    #[error(
        "broker.url_file: can't read {}: {source}; put the broker's address there, amqp://user:password@host:port/vhost, \
         readable for this service's user only",
        path.display()
    )]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The URL makes no sense. It is not repeated, since it holds a password.
    #[error("broker.url is no AMQP URL ({0}); expected amqp://user:password@host:port/vhost")]
    Url(String),
    /// What is in the URL's file makes no sense.
    #[error(
        "broker.url_file: {} holds no AMQP URL ({reason}); expected amqp://user:password@host:port/vhost{}",
        path.display(),
        source_of(path)
    )]
    UrlInFile {
        /// Which file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

/// Where what systemd hands to a service comes from: nobody can put anything into its own copy.
fn source_of(path: &Path) -> &'static str {
    if path.starts_with("/run/credentials") {
        ", in the file that LoadCredential= of the unit names: /etc/understudy/broker/SERVICE.url"
    } else {
        ""
    }
}

/// A broker's address that can be connected to, and shown.
#[derive(Clone)]
pub(crate) struct Address {
    pub(crate) uri: AMQPUri,
    /// Without the password.
    pub(crate) shown: String,
}

impl Address {
    pub(crate) fn from(config: &BrokerConfig) -> Result<Self, BusError> {
        let url = match &config.url_file {
            None => config.url.clone(),
            Some(path) => std::fs::read_to_string(path).map_err(|source| BusError::File {
                path: path.clone(),
                source,
            })?,
        };
        let parsed: Result<AMQPUri, String> = url.trim().parse();
        let mut uri = parsed.map_err(|reason| match &config.url_file {
            None => BusError::Url(reason),
            Some(path) => BusError::UrlInFile {
                path: path.clone(),
                reason,
            },
        })?;
        uri.query.heartbeat.get_or_insert(HEARTBEAT_SECONDS);
        uri.query.connection_timeout.get_or_insert(CONNECT_MILLIS);
        let authority = &uri.authority;
        let shown = format!(
            "{}://{}@{}:{}/{}",
            uri.scheme,
            authority.userinfo.username,
            authority.host,
            authority.port,
            uri.vhost.replace('/', "%2f")
        );
        Ok(Self { uri, shown })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_is_never_shown() {
        let config = BrokerConfig {
            url: "amqp://anna:hunter2@broker:5673/%2f".to_owned(),
            url_file: None,
        };
        let address = Address::from(&config).unwrap();
        assert_eq!(address.shown, "amqp://anna@broker:5673/%2f");
        assert_eq!(address.uri.authority.userinfo.password, "hunter2");
        assert!(!format!("{config:?}").contains("hunter2"));
        let wrong = BrokerConfig {
            url: "http://anna:hunter2@x".to_owned(),
            url_file: None,
        };
        let error = Address::from(&wrong).err().unwrap().to_string();
        assert!(
            error.contains("amqp://user:password@host") && !error.contains("hunter2"),
            "{error}"
        );
    }

    #[test]
    fn the_url_can_lie_in_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("url");
        std::fs::write(&file, "amqp://anna:hunter2@broker\n").unwrap();
        let config = BrokerConfig {
            url_file: Some(file.clone()),
            ..BrokerConfig::default()
        };
        assert_eq!(Address::from(&config).unwrap().uri.authority.host, "broker");
        std::fs::write(&file, "http://anna:hunter2@broker\n").unwrap();
        let error = Address::from(&config).err().unwrap().to_string();
        assert!(error.contains(&file.display().to_string()), "{error}");
        assert!(
            error.contains("amqp://user:password@host") && !error.contains("hunter2"),
            "{error}"
        );
        assert!(!error.contains("LoadCredential"), "{error}");
        let config = BrokerConfig {
            url_file: Some("/no/such".into()),
            ..BrokerConfig::default()
        };
        assert!(
            Address::from(&config)
                .err()
                .unwrap()
                .to_string()
                .contains("/no/such")
        );
    }

    #[test]
    fn who_is_started_by_systemd_is_told_where_the_url_belongs() {
        let unset = BusError::UrlInFile {
            path: "/run/credentials/understudy-console.service/broker.url".into(),
            reason: "unset".to_owned(),
        };
        let error = unset.to_string();
        assert!(error.contains("/etc/understudy/broker/"), "{error}");
    }
}
