//! How viewers sign in: Basic (RFC 7617) and Digest with MD5 (RFC 2069, and RFC 7616 with `qop=auth`), which is what
//! players and cameras speak. Decides only; whoever listens brings the nonce.

use std::fmt;

use base64::{Engine, engine::general_purpose::STANDARD};
use md5::{Digest, Md5};

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Nothing.
    None,
    /// Name and password as they are.
    Basic,
    /// A proof of both that is good for one nonce.
    Digest,
}

/// What one connection asks of its client.
#[derive(Clone)]
pub struct Gate {
    scheme: Scheme,
    realm: &'static str,
    user: Option<String>,
    password: String,
    nonce: String,
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate")
            .field("scheme", &self.scheme)
            .finish_non_exhaustive()
    }
}

impl Gate {
    /// A gate for one connection, whose `nonce` nobody can guess and no other connection has. Without a `user` any
    /// name will do.
    #[must_use]
    pub fn new(
        scheme: Scheme,
        realm: &'static str,
        user: Option<String>,
        password: String,
        nonce: String,
    ) -> Self {
        Self {
            scheme,
            realm,
            user,
            password,
            nonce,
        }
    }

    /// What an answer 401 asks for (`WWW-Authenticate`).
    #[must_use]
    pub fn challenge(&self) -> String {
        let realm = self.realm;
        match self.scheme {
            Scheme::Basic => format!("Basic realm=\"{realm}\""),
            Scheme::None | Scheme::Digest => format!("Digest realm=\"{realm}\", nonce=\"{}\"", self.nonce),
        }
    }

    /// Whether a request with this `Authorization` may pass.
    #[must_use]
    pub fn admits(&self, method: &str, authorization: Option<&str>) -> bool {
        match (self.scheme, authorization) {
            (Scheme::None, _) => true,
            (_, None) => false,
            (Scheme::Basic, Some(value)) => value
                .strip_prefix("Basic ")
                .is_some_and(|encoded| self.admits_basic(encoded.trim())),
            (Scheme::Digest, Some(value)) => value
                .strip_prefix("Digest ")
                .is_some_and(|fields| self.admits_digest(method, fields)),
        }
    }

    fn is_ours(&self, user: &str) -> bool {
        self.user.as_deref().is_none_or(|ours| ours == user)
    }

    fn admits_basic(&self, encoded: &str) -> bool {
        let decoded = STANDARD.decode(encoded).ok().map(String::from_utf8);
        let Some(Ok(decoded)) = decoded else {
            return false;
        };
        decoded
            .split_once(':')
            .is_some_and(|(user, password)| self.is_ours(user) && same(password, &self.password))
    }

    fn admits_digest(&self, method: &str, fields: &str) -> bool {
        let field = |name: &str| digest_field(fields, name).unwrap_or_default();
        let (user, realm) = (field("username"), self.realm);
        if !self.is_ours(user) || field("realm") != realm || field("nonce") != self.nonce {
            return false;
        }
        let secret = hash(&format!("{user}:{realm}:{}", self.password));
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
        same(field("response"), &hash(&proof))
    }
}

/// Takes the same time wherever they differ.
fn same(one: &str, other: &str) -> bool {
    let differing = one.bytes().zip(other.bytes());
    one.len() == other.len() && differing.fold(0, |sum, (one, other)| sum | (one ^ other)) == 0
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

    const REALM: &str = "testrealm@host.com";

    fn gate(scheme: Scheme, user: Option<&str>) -> Gate {
        let nonce = "dcd98b7102dd2f0e8b11d0f600bfb0c093".to_owned();
        let user = user.map(str::to_owned);
        Gate::new(scheme, REALM, user, "Circle Of Life".to_owned(), nonce)
    }

    /// "Mufasa" with the right password.
    const BASIC: &str = "Basic TXVmYXNhOkNpcmNsZSBPZiBMaWZl";

    #[test]
    fn basic_takes_the_right_password_only() {
        for user in [Some("Mufasa"), None] {
            let gate = gate(Scheme::Basic, user);
            assert!(gate.admits("DESCRIBE", Some(BASIC)));
            assert!(!gate.admits("DESCRIBE", Some("Basic TXVmYXNhOndyb25n")));
            assert!(!gate.admits("DESCRIBE", Some("Basic ???")));
            assert!(!gate.admits("DESCRIBE", None));
        }
        assert!(!gate(Scheme::Basic, Some("Scar")).admits("DESCRIBE", Some(BASIC)));
    }

    /// As Digest has it, computed here.
    fn proof(gate: &Gate, user: &str) -> String {
        let response = hash(&format!(
            "{}:{}:{}",
            hash(&format!("{user}:{REALM}:Circle Of Life")),
            gate.nonce,
            hash("DESCRIBE:rtsp://camera/cam-001")
        ));
        format!(
            "Digest username=\"{user}\", realm=\"{REALM}\", nonce=\"{}\", uri=\"rtsp://camera/cam-001\", response=\"{response}\"",
            gate.nonce
        )
    }

    #[test]
    fn digest_takes_the_right_proof_for_the_same_method_only() {
        let gate = gate(Scheme::Digest, Some("Mufasa"));
        let value = proof(&gate, "Mufasa");
        assert!(gate.admits("DESCRIBE", Some(&value)));
        assert!(!gate.admits("PLAY", Some(&value)));
        assert!(!gate.admits("DESCRIBE", Some(&value.replace("dcd9", "0000"))));
        assert!(!gate.admits("DESCRIBE", Some(&value.replace("response=", "answer="))));
        assert!(!gate.admits("DESCRIBE", Some(&proof(&gate, "Scar"))));
        assert!(!gate.admits("DESCRIBE", Some(BASIC)), "nobody asked for that");
    }

    #[test]
    fn without_a_name_of_ours_any_name_will_do() {
        let gate = gate(Scheme::Digest, None);
        assert!(gate.admits("DESCRIBE", Some(&proof(&gate, "Mufasa"))));
        assert!(gate.admits("DESCRIBE", Some(&proof(&gate, ""))));
    }

    #[test]
    fn without_a_scheme_everybody_passes() {
        assert!(gate(Scheme::None, None).admits("DESCRIBE", None));
    }
}
