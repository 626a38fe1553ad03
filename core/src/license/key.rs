//! The text of a licence key: what its issuer says, and the issuer's signature under it.
//!
//! `base64url(payload JSON) "." base64url(Ed25519 signature over the first part's characters)`, both without
//! padding (RFC 4648 §5, RFC 8032). Only taken apart here: whether the signature is good, and whether the
//! issuer is one that counts, is for the licence service to say.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};

use crate::ids::LicenseKeyId;

/// The longest key text that is looked at, in bytes.
pub const MAX_LENGTH: usize = 4096;

/// What an issuer signs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Payload {
    /// The key's id: the same key is never counted twice.
    pub id: LicenseKeyId,
    /// For how many devices.
    pub devices: u32,
    /// What the issuer calls it.
    pub label: String,
    /// The issuer's public key, in hexadecimal: which of the configured issuers signed it.
    pub issuer: String,
}

/// A key taken apart; the signature is not verified yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unverified {
    /// What it says.
    pub payload: Payload,
    /// The bytes that were signed.
    pub signed: Vec<u8>,
    /// The Ed25519 signature over `signed`.
    pub signature: [u8; 64],
}

/// Why a text is no licence key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKey {
    /// There are not two parts.
    #[error("a licence key has two parts with a dot between them, and at most {MAX_LENGTH} characters")]
    Shape,
    /// A part is not base64url.
    #[error("the licence key's {0} is not base64url: was it copied whole?")]
    Encoding(&'static str),
    /// The payload is not what an issuer writes.
    #[error("the licence key's contents can't be read: {0}")]
    Payload(String),
    /// It allows no device.
    #[error("the licence key is for no device")]
    NoDevices,
}

/// Takes a key's text apart.
///
/// # Errors
/// [`InvalidKey`] says what is wrong with it.
pub fn parse(text: &str) -> Result<Unverified, InvalidKey> {
    let text = text.trim();
    if text.len() > MAX_LENGTH {
        return Err(InvalidKey::Shape);
    }
    let (first, second) = text.split_once('.').ok_or(InvalidKey::Shape)?;
    let decode = |part: &str, name| {
        URL_SAFE_NO_PAD
            .decode(part)
            .map_err(|_| InvalidKey::Encoding(name))
    };
    let json = decode(first, "first part")?;
    let signature = decode(second, "signature")?;
    let payload: Payload =
        serde_json::from_slice(&json).map_err(|error| InvalidKey::Payload(error.to_string()))?;
    if payload.devices == 0 {
        return Err(InvalidKey::NoDevices);
    }
    Ok(Unverified {
        payload,
        signed: first.as_bytes().to_vec(),
        signature: signature
            .try_into()
            .map_err(|_| InvalidKey::Encoding("signature"))?,
    })
}

/// The part of a key that its issuer signs, as text; its bytes are what is signed.
#[must_use]
pub fn to_be_signed(payload: &Payload) -> String {
    let json = serde_json::to_vec(payload).expect("a payload has only strings and numbers");
    URL_SAFE_NO_PAD.encode(json)
}

/// The whole key.
#[must_use]
pub fn join(signed: &str, signature: &[u8; 64]) -> String {
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}
