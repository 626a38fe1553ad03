//! Making and verifying the text of licence keys: Ed25519 (RFC 8032) by issuers that the operator configures.

use std::{
    fs::OpenOptions,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use understudy_core::{
    ids::LicenseKeyId,
    license::key::{InvalidKey, Payload, join, parse, to_be_signed},
};

/// Why no key could be made.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The issuer's file can't be read or written.
    #[error("can't use the issuer's file {}: {source}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The issuer's file holds something else.
    #[error("{} holds no Ed25519 secret key (64 hexadecimal digits): make one with --new-issuer", .0.display())]
    NoKey(PathBuf),
    /// A key for no device is of no use.
    #[error("a licence key is for one device at least")]
    NoDevices,
}

/// Why a key does not count.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Its text is no key.
    #[error(transparent)]
    Invalid(#[from] InvalidKey),
    /// Its issuer is not one of ours.
    #[error("the key's issuer {0} is not among [license] issuers of this host")]
    Stranger(String),
    /// The signature is not the issuer's.
    #[error("the key's signature is wrong: it was changed, or not copied whole")]
    Signature,
}

/// Makes a new issuer: writes its secret key to `path`, readable by its owner only, and returns the public
/// key in hexadecimal. A file that is there already is left alone.
///
/// # Errors
/// [`IssueError::File`], also if there is such a file.
pub fn generate_issuer(path: &Path) -> Result<String, IssueError> {
    let key = SigningKey::generate(&mut rand::rngs::OsRng);
    let failed = |source| IssueError::File {
        path: path.to_owned(),
        source,
    };
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(failed)?;
    writeln!(file, "{}", to_hex(&key.to_bytes())).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    Ok(to_hex(key.verifying_key().as_bytes()))
}

/// Makes a licence key, signed with the issuer's secret key in `issuer_file`.
///
/// # Errors
/// [`IssueError`] says what is wrong with the file or the request.
pub fn issue(issuer_file: &Path, id: &LicenseKeyId, devices: u32, label: &str) -> Result<String, IssueError> {
    if devices == 0 {
        return Err(IssueError::NoDevices);
    }
    let text = std::fs::read_to_string(issuer_file).map_err(|source| IssueError::File {
        path: issuer_file.to_owned(),
        source,
    })?;
    let secret = from_hex(text.trim()).ok_or_else(|| IssueError::NoKey(issuer_file.to_owned()))?;
    let key = SigningKey::from_bytes(&secret);
    let payload = Payload {
        id: id.clone(),
        devices,
        label: label.to_owned(),
        issuer: to_hex(key.verifying_key().as_bytes()),
    };
    let signed = to_be_signed(&payload);
    let signature = key.sign(signed.as_bytes());
    Ok(join(&signed, &signature.to_bytes()))
}

/// What a key says, if one of `issuers` (public keys in hexadecimal) signed it.
///
/// # Errors
/// [`KeyError`] says why it does not count.
pub fn verify(text: &str, issuers: &[String]) -> Result<Payload, KeyError> {
    let unverified = parse(text)?;
    let stranger = || KeyError::Stranger(unverified.payload.issuer.clone());
    let issuer = issuers
        .iter()
        .find(|issuer| issuer.eq_ignore_ascii_case(&unverified.payload.issuer))
        .ok_or_else(stranger)?;
    let public = from_hex(issuer).ok_or_else(stranger)?;
    let public = VerifyingKey::from_bytes(&public).map_err(|_| stranger())?;
    public
        .verify_strict(&unverified.signed, &Signature::from_bytes(&unverified.signature))
        .map_err(|_| KeyError::Signature)?;
    Ok(unverified.payload)
}

/// Whether `text` is a public key as it is configured.
pub(crate) fn is_public_key(text: &str) -> bool {
    from_hex(text).is_some_and(|bytes| VerifyingKey::from_bytes(&bytes).is_ok())
}

fn to_hex(bytes: &[u8; 32]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    let mut bytes = [0; 32];
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> LicenseKeyId {
        LicenseKeyId::new("key-1").unwrap()
    }

    #[test]
    fn e10_a_key_counts_only_with_the_signature_of_a_known_issuer() {
        let folder = tempfile::tempdir().unwrap();
        let (ours, theirs) = (folder.path().join("ours"), folder.path().join("theirs"));
        let known = generate_issuer(&ours).unwrap();
        generate_issuer(&theirs).unwrap();

        let key = issue(&ours, &id(), 90, "hospital").unwrap();
        let payload = verify(&key, std::slice::from_ref(&known)).unwrap();
        assert_eq!(
            (payload.id, payload.devices, payload.label.as_str()),
            (id(), 90, "hospital")
        );

        let foreign = issue(&theirs, &id(), 90, "hospital").unwrap();
        assert!(matches!(
            verify(&foreign, std::slice::from_ref(&known)),
            Err(KeyError::Stranger(_))
        ));

        // Ninety devices become a thousand, under the signature for ninety.
        let more = issue(&ours, &id(), 1000, "hospital").unwrap();
        let forged = format!(
            "{}.{}",
            more.split_once('.').unwrap().0,
            key.split_once('.').unwrap().1
        );
        assert_eq!(verify(&forged, &[known]), Err(KeyError::Signature));
    }

    #[test]
    fn an_issuers_file_is_private_and_never_overwritten() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("issuer");
        generate_issuer(&path).unwrap();
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert!(matches!(generate_issuer(&path), Err(IssueError::File { .. })));
        std::fs::write(&path, "nonsense").unwrap();
        assert!(matches!(issue(&path, &id(), 1, ""), Err(IssueError::NoKey(_))));
        assert!(matches!(issue(&path, &id(), 0, ""), Err(IssueError::NoDevices)));
    }
}
