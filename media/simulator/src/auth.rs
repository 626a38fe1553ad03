//! How clients sign in: Basic (RFC 7617) and Digest with MD5 (RFC 2069, and RFC 7616 with `qop=auth`).

use base64::{Engine, engine::general_purpose::STANDARD};
use md5::{Digest, Md5};

use crate::config::{AuthScheme, SimulatorConfig};

const REALM: &str = "understudy-simulator";

/// What one connection asks of its client.
#[derive(Debug)]
pub(crate) struct Gate {
    scheme: AuthScheme,
    user: String,
    password: String,
    nonce: String,
}

impl Gate {
    /// A gate with a nonce of its own.
    pub(crate) fn new(config: &SimulatorConfig) -> Self {
        Self {
            scheme: config.auth,
            user: config.user.clone(),
            password: config.password.clone(),
            nonce: format!("{:032x}", rand::random::<u128>()),
        }
    }

    /// What an answer 401 asks for.
    pub(crate) fn challenge(&self) -> String {
        match self.scheme {
            AuthScheme::Basic => format!("Basic realm=\"{REALM}\""),
            AuthScheme::None | AuthScheme::Digest => {
                format!("Digest realm=\"{REALM}\", nonce=\"{}\"", self.nonce)
            }
        }
    }

    /// Whether a request with this `Authorization` may pass.
    pub(crate) fn admits(&self, method: &str, authorization: Option<&str>) -> bool {
        match (self.scheme, authorization) {
            (AuthScheme::None, _) => true,
            (_, None) => false,
            (AuthScheme::Basic, Some(value)) => {
                let expected = STANDARD.encode(format!("{}:{}", self.user, self.password));
                value.strip_prefix("Basic ").map(str::trim) == Some(&expected)
            }
            (AuthScheme::Digest, Some(value)) => value
                .strip_prefix("Digest ")
                .is_some_and(|fields| self.admits_digest(method, fields)),
        }
    }

    fn admits_digest(&self, method: &str, fields: &str) -> bool {
        let field = |name: &str| digest_field(fields, name).unwrap_or_default();
        if field("username") != self.user || field("realm") != REALM || field("nonce") != self.nonce {
            return false;
        }
        let secret = hash(&format!("{}:{REALM}:{}", self.user, self.password));
        let request = hash(&format!("{method}:{}", field("uri")));
        let proof = match field("qop") {
            "" => format!("{secret}:{}:{request}", self.nonce),
            qop => format!(
                "{secret}:{}:{}:{}:{qop}:{request}",
                self.nonce,
                field("nc"),
                field("cnonce")
            ),
        };
        field("response") == hash(&proof)
    }
}

/// A field's value in `name="value", other=value`.
fn digest_field<'a>(fields: &'a str, name: &str) -> Option<&'a str> {
    fields.split(',').find_map(|field| {
        let (key, value) = field.split_once('=')?;
        (key.trim() == name).then(|| value.trim().trim_matches('"'))
    })
}

fn hash(text: &str) -> String {
    Md5::digest(text)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(auth: AuthScheme) -> Gate {
        let mut gate = Gate::new(&SimulatorConfig {
            auth,
            user: "Mufasa".to_owned(),
            password: "Circle Of Life".to_owned(),
            ..SimulatorConfig::default()
        });
        gate.nonce = "dcd98b7102dd2f0e8b11d0f600bfb0c093".to_owned();
        gate
    }

    #[test]
    fn basic_takes_the_right_password_only() {
        let gate = gate(AuthScheme::Basic);
        assert!(gate.admits("DESCRIBE", Some("Basic TXVmYXNhOkNpcmNsZSBPZiBMaWZl")));
        assert!(!gate.admits("DESCRIBE", Some("Basic TXVmYXNhOndyb25n")));
        assert!(!gate.admits("DESCRIBE", None));
    }

    #[test]
    fn digest_takes_the_right_proof_for_the_same_method_only() {
        let gate = gate(AuthScheme::Digest);
        let response = hash(&format!(
            "{}:{}:{}",
            hash("Mufasa:understudy-simulator:Circle Of Life"),
            gate.nonce,
            hash("DESCRIBE:rtsp://camera/cam-001")
        ));
        let value = format!(
            "Digest username=\"Mufasa\", realm=\"{REALM}\", nonce=\"{}\", uri=\"rtsp://camera/cam-001\", response=\"{response}\"",
            gate.nonce
        );
        assert!(gate.admits("DESCRIBE", Some(&value)));
        assert!(!gate.admits("PLAY", Some(&value)));
        assert!(!gate.admits("DESCRIBE", Some(&value.replace("dcd9", "0000"))));
    }

    #[test]
    fn without_a_scheme_everybody_passes() {
        assert!(gate(AuthScheme::None).admits("DESCRIBE", None));
    }
}
