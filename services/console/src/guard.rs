//! Who may ask at all: checked before anything of a request is read.
//!
//! On loopback the danger is not the network but a page in this machine's browser: it may send requests to
//! `127.0.0.1`, and with DNS rebinding even read the answers. Both give themselves away, the one by its
//! `Origin`, the other by its `Host`.

use std::net::IpAddr;

use understudy_core::contract::api::Problem;
use understudy_runtime::{
    Secret,
    bearer::{Bearer, TOKEN_MIN},
    secret::secret,
};
use warp::http::{HeaderMap, header, uri::Authority};

use crate::{ConsoleConfig, ConsoleError};

/// Who may ask.
pub(crate) struct Guard {
    token: Option<Bearer>,
    hosts: Vec<String>,
}

impl Guard {
    /// As configured; refuses to be open to the network without a token.
    pub(crate) fn new(config: &ConsoleConfig) -> Result<Self, ConsoleError> {
        let token = if config.token.is_some() || config.token_file.is_some() {
            let token = secret(&config.token, &config.token_file, "[console] token")?;
            let token = token.expose().trim();
            if token.len() < TOKEN_MIN {
                let advice = "for example from: openssl rand -hex 32";
                return Err(ConsoleError::Token(format!(
                    "token has fewer than {TOKEN_MIN} characters: take a longer one, {advice}"
                )));
            }
            Some(Bearer::of(&Secret::new(token)))
        } else if config.listen.ip().is_loopback() {
            None
        } else {
            return Err(ConsoleError::Unprotected(config.listen));
        };
        let hosts = config
            .hosts
            .iter()
            .map(|host| host.to_ascii_lowercase())
            .collect();
        Ok(Self { token, hosts })
    }

    /// Whether this request may be looked at.
    pub(crate) fn check(&self, headers: &HeaderMap, authority: Option<&Authority>) -> Result<(), Problem> {
        let host = authority
            .map(Authority::host)
            .ok_or_else(|| refused("the request names no host"))?;
        if !self.is_ours(host) {
            return Err(refused(format!(
                "{host:?} is no name of this host; if it is, add it to [console] hosts"
            )));
        }
        if let Some(origin) = headers.get(header::ORIGIN) {
            let host = origin.to_str().ok().and_then(origin_host);
            if !host.is_some_and(|host| self.is_ours(&host)) {
                return Err(refused("a page from elsewhere may not use this API"));
            }
        }
        match self.token {
            Some(token) if !token.is_in(headers) => Err(Problem::new(
                401,
                "sign-in",
                "Sign-in needed",
                "present the token: Authorization: Bearer …",
            )),
            _ => Ok(()),
        }
    }

    /// Addresses can't be rebound, names can.
    fn is_ours(&self, host: &str) -> bool {
        let host = host.to_ascii_lowercase();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        bare == "localhost" || bare.parse::<IpAddr>().is_ok() || self.hosts.contains(&host)
    }
}

fn refused(detail: impl Into<String>) -> Problem {
    Problem::new(403, "refused", "Refused", detail)
}

/// The host of an `Origin` header: `scheme://host[:port]`, or `null` for one that has none (RFC 6454).
fn origin_host(origin: &str) -> Option<String> {
    let (_, authority) = origin.split_once("://")?;
    let authority: Authority = authority.parse().ok()?;
    Some(authority.host().to_owned())
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use warp::http::HeaderValue;

    use super::*;

    fn guard(config: &ConsoleConfig) -> Guard {
        Guard::new(config).expect("a configuration that is possible")
    }

    fn asks(guard: &Guard, host: &str, headers: &[(&'static str, &str)]) -> u16 {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, HeaderValue::from_str(value).expect("a header's value"));
        }
        let authority = host.parse().ok();
        guard
            .check(&map, authority.as_ref())
            .map_or_else(|problem| problem.status, |()| 200)
    }

    #[test]
    fn a_rebound_name_is_refused() {
        let guard = guard(&ConsoleConfig {
            hosts: vec!["Host-1.example".into()],
            ..ConsoleConfig::default()
        });
        for ours in ["127.0.0.1:8080", "localhost", "[::1]:8080", "host-1.example:8080"] {
            assert_eq!(asks(&guard, ours, &[]), 200, "{ours}");
        }
        for other in ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", ""] {
            assert_eq!(asks(&guard, other, &[]), 403, "{other}");
        }
    }

    #[test]
    fn a_page_from_elsewhere_is_refused() {
        let guard = guard(&ConsoleConfig::default());
        for (origin, status) in [
            ("http://127.0.0.1:8080", 200),
            ("http://localhost:3000", 200),
            ("https://evil.example", 403),
            ("null", 403),
        ] {
            assert_eq!(
                asks(&guard, "127.0.0.1", &[("origin", origin)]),
                status,
                "{origin}"
            );
        }
    }

    #[test]
    fn beyond_loopback_there_is_a_token_or_nothing() {
        let listen: SocketAddr = "0.0.0.0:8080".parse().expect("an address");
        let open = ConsoleConfig {
            listen,
            ..ConsoleConfig::default()
        };
        assert!(matches!(Guard::new(&open), Err(ConsoleError::Unprotected(_))));

        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("token");
        std::fs::write(&file, "short\n").expect("a file");
        let closed = ConsoleConfig {
            token_file: Some(file.clone()),
            ..open
        };
        assert!(matches!(Guard::new(&closed), Err(ConsoleError::Token(_))));

        let token = "0123456789abcdef0123456789abcdef";
        std::fs::write(&file, format!("{token}\n")).expect("a file");
        let guard = guard(&closed);
        let bearer = format!("Bearer {token}");
        assert_eq!(asks(&guard, "192.0.2.1", &[("authorization", &bearer)]), 200);
        assert_eq!(
            asks(&guard, "192.0.2.1", &[("authorization", "Bearer guessed")]),
            401
        );
        assert_eq!(asks(&guard, "192.0.2.1", &[]), 401);
    }
}
