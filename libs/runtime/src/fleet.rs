//! Section `[fleet]`: the token by which the machines of a fleet know one another where they speak HTTP, for direct
//! heartbeats and for recordings. It is never logged, and nobody listens beyond their own machine without it.

use std::{
    fmt,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use warp::{Filter, Rejection, http::HeaderMap, reject::Reject};

use crate::{
    ConfigError, Secret,
    bearer::{self, Bearer, TOKEN_MIN},
    secret::secret,
};

/// How often it is logged that somebody comes without the token: an agent that lacks it beats twice a second.
const TOLD_EVERY: Duration = Duration::from_secs(60);

/// Section `[fleet]`: what all machines of a fleet have alike.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FleetConfig {
    /// What the fleet's processes present to one another by HTTP.
    pub token: Option<Secret>,
    /// A file with it.
    pub token_file: Option<PathBuf>,
}

impl FleetConfig {
    /// What this machine presents to others; none if none is configured.
    ///
    /// # Errors
    /// [`ConfigError::Secret`] if it can't be read, is too short, or has what a header can't.
    pub fn token(&self) -> Result<Option<Secret>, ConfigError> {
        if self.token.is_none() && self.token_file.is_none() {
            return Ok(None);
        }
        let token = secret(&self.token, &self.token_file, "fleet.token")?;
        let plain = bearer::plain(&token).ok_or_else(|| ConfigError::Secret {
            name: "fleet.token".to_owned(),
            what: format!(
                "it has to have {TOKEN_MIN} characters or more, letters, digits and -_.~ only, for example from: \
                 openssl rand -hex 32"
            ),
        })?;
        Ok(Some(plain))
    }

    /// Who is let in at `listen`, the value of the key `key`.
    ///
    /// # Errors
    /// As [`FleetConfig::token`]; and [`ConfigError::Invalid`] if other machines could reach it without a token.
    pub fn guard(&self, listen: SocketAddr, key: &'static str) -> Result<Guard, ConfigError> {
        let bearer = self.token()?.as_ref().map(Bearer::of);
        if bearer.is_none() && !listen.ip().is_loopback() {
            return Err(ConfigError::Invalid {
                origin: None,
                message: format!(
                    "{key} = {listen} can be reached from other machines: set fleet.token_file to a file with the \
                     fleet's token, the same on the host and on each server (made once: openssl rand -hex 32), or \
                     listen on 127.0.0.1"
                ),
            });
        }
        Ok(Guard {
            bearer,
            key,
            told: Arc::default(),
        })
    }
}

/// Who is let in at an address of a fleet's machine.
#[derive(Clone)]
pub struct Guard {
    bearer: Option<Bearer>,
    key: &'static str,
    /// When it was last logged that somebody was not.
    told: Arc<Mutex<Option<Instant>>>,
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard")
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

/// A request came without the fleet's token, or with a wrong one: it is answered with 401.
#[derive(Clone, Copy, Debug)]
pub struct NoToken;

impl Reject for NoToken {}

impl NoToken {
    /// What whoever asked is told.
    pub const WHY: &str = "present the fleet's token: Authorization: Bearer …";
}

impl Guard {
    /// Lets a request pass that presents the token, before anything of its body is read; others are rejected with
    /// [`NoToken`], which is logged here.
    pub fn filter(&self) -> impl Filter<Extract = (), Error = Rejection> + Clone + use<> {
        let guard = self.clone();
        warp::header::headers_cloned()
            .and_then(move |headers: HeaderMap| {
                let let_in = guard.lets_in(&headers);
                async move { let_in.then_some(()).ok_or_else(|| warp::reject::custom(NoToken)) }
            })
            .untuple_one()
    }

    fn lets_in(&self, headers: &HeaderMap) -> bool {
        if self.bearer.is_none_or(|bearer| bearer.is_in(headers)) {
            return true;
        }
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if told.is_none_or(|told| now.duration_since(told) >= TOLD_EVERY) {
            *told = Some(now);
            tracing::warn!(
                listen.key = self.key,
                "somebody without the fleet's token was refused; if it is a machine of this fleet, give it the same \
                 fleet.token_file and start its services again"
            );
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use warp::http::{HeaderValue, header};

    use super::*;

    const TOKEN: &str = "0123456789abcdef0123456789abcdef";

    fn with(token: &str) -> FleetConfig {
        FleetConfig {
            token: Some(Secret::new(token)),
            token_file: None,
        }
    }

    fn at(address: &str) -> SocketAddr {
        address.parse().expect("an address")
    }

    #[test]
    fn beyond_loopback_there_is_a_token_or_nothing() {
        let open = FleetConfig::default();
        for here in ["127.0.0.1:7601", "[::1]:7601"] {
            assert!(open.guard(at(here), "monitor.listen").is_ok(), "{here}");
        }
        for elsewhere in ["0.0.0.0:7601", "192.0.2.1:7601", "[::]:7601"] {
            let refused = open
                .guard(at(elsewhere), "monitor.listen")
                .expect_err("open to all");
            let text = refused.to_string();
            assert!(
                text.contains(&format!("monitor.listen = {elsewhere}")) && text.contains("fleet.token_file"),
                "{text}"
            );
            assert!(with(TOKEN).guard(at(elsewhere), "monitor.listen").is_ok());
        }
    }

    #[test]
    fn a_token_that_can_be_guessed_or_that_no_header_takes_is_refused_and_not_shown() {
        for wrong in ["short", "", &TOKEN.replace('0', " "), &TOKEN.replace('0', "ü")] {
            let text = with(wrong).token().expect_err("no token").to_string();
            assert!(text.contains("openssl rand -hex 32"), "{text}");
            assert!(wrong.is_empty() || !text.contains(wrong), "{text}");
        }
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("fleet.token");
        let config = FleetConfig {
            token: None,
            token_file: Some(file.clone()),
        };
        let missing = config.token().expect_err("no file").to_string();
        assert!(
            missing.contains("fleet.token") && missing.contains("put the secret there"),
            "{missing}"
        );
        std::fs::write(&file, format!("{TOKEN} \r\n")).expect("a file");
        assert_eq!(config.token().expect("a token"), Some(Secret::new(TOKEN)));
    }

    #[test]
    fn only_who_presents_the_token_is_let_in() {
        let guard = with(TOKEN)
            .guard(at("0.0.0.0:7400"), "sync.listen")
            .expect("guarded");
        let asks = |value: Option<&str>| {
            let value = value.map(|value| {
                (
                    header::AUTHORIZATION,
                    HeaderValue::from_str(value).expect("a value"),
                )
            });
            guard.lets_in(&value.into_iter().collect())
        };
        assert!(asks(Some(&format!("Bearer {TOKEN}"))));
        assert!(
            asks(Some(&format!("bearer  {TOKEN}"))),
            "RFC 9110 11.1: in any case"
        );
        for wrong in [
            TOKEN.to_owned(),
            format!("Basic {TOKEN}"),
            format!("Bearer {TOKEN}0"),
            "Bearer ".to_owned(),
        ] {
            assert!(!asks(Some(&wrong)), "{wrong}");
        }
        assert!(!asks(None));
        let open = FleetConfig::default()
            .guard(at("127.0.0.1:1"), "sync.listen")
            .expect("loopback");
        assert!(open.lets_in(&HeaderMap::new()));
    }
}
