//! `Authorization: Bearer …` (RFC 6750), as a server checks it: no more of the token is kept than its hash.

use warp::http::{HeaderMap, header};

use crate::Secret;

/// The fewest characters of a token: 128 bits, in hexadecimal.
pub const TOKEN_MIN: usize = 32;

/// A token without the blanks around it; none if it is shorter than [`TOKEN_MIN`], or has what can't stand in headers
/// and addresses as it is (RFC 3986, 2.3).
#[must_use]
pub fn plain(token: &Secret) -> Option<Secret> {
    let token = token.expose().trim();
    let unreserved = |c: char| c.is_ascii_alphanumeric() || "-_.~".contains(c);
    (token.len() >= TOKEN_MIN && token.chars().all(unreserved)).then(|| Secret::new(token))
}

/// A token that callers have to present.
#[derive(Clone, Copy)]
pub struct Bearer(blake3::Hash);

impl Bearer {
    /// Who presents `token` may come in.
    #[must_use]
    pub fn of(token: &Secret) -> Self {
        Self(blake3::hash(token.expose().as_bytes()))
    }

    /// Whether a request with these headers presents it. Comparing hashes takes the same time whatever was guessed.
    #[must_use]
    pub fn is_in(&self, headers: &HeaderMap) -> bool {
        presented(headers) == Some(self.0)
    }
}

fn presented(headers: &HeaderMap) -> Option<blake3::Hash> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then(|| blake3::hash(token.trim().as_bytes()))
}
