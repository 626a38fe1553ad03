//! Bundles on their way: encrypted with the fleet's key, checked against their hash when opened.
//!
//! XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha), random 24-byte nonce first, associated data is the hash.

use std::{
    fmt,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use chacha20poly1305::{
    XChaCha20Poly1305, XNonce,
    aead::{Aead as _, KeyInit as _, Payload},
};
use understudy_core::{
    contract::heartbeat::SealedBundle,
    settings::{Bundle, BundleHash},
};

const KEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 24;

/// The key that all of a fleet's machines share.
#[derive(Clone)]
pub struct FleetKey([u8; KEY_BYTES]);

impl fmt::Debug for FleetKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FleetKey(***)")
    }
}

/// Why a key or a bundle could not be used.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The key's file could not be read or written.
    #[error(
        "the fleet key {}: {source}; it is made once, on the host, by `understudy server key FILE`, and copied to each \
         server, readable for this service's user only",
        path.display()
    )]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file does not hold a key.
    #[error("{} holds no fleet key, {KEY_BYTES} bytes in base64: copy the host's file anew", .0.display())]
    NoKey(PathBuf),
    /// The bundle was sealed with another key, or changed on its way.
    #[error("bundle {0} can't be opened: it was sealed with another fleet key, or changed on its way")]
    Refused(BundleHash),
    /// What was inside is not what the hash names.
    #[error("bundle {0} holds something else than its hash says")]
    Mismatch(BundleHash),
}

impl FleetKey {
    /// Reads the key from its file.
    ///
    /// # Errors
    /// If the file can't be read or holds something else.
    pub fn load(path: &Path) -> Result<Self, SealError> {
        let text = std::fs::read_to_string(path).map_err(|source| SealError::File {
            path: path.to_owned(),
            source,
        })?;
        let bytes = STANDARD.decode(text.trim()).ok();
        let key = bytes.and_then(|bytes| <[u8; KEY_BYTES]>::try_from(bytes).ok());
        key.map(Self).ok_or_else(|| SealError::NoKey(path.to_owned()))
    }

    /// Makes a new key and writes it to a new file that only its owner can read.
    ///
    /// # Errors
    /// If the file exists, or can't be written.
    pub fn generate_to(path: &Path) -> Result<Self, SealError> {
        let mut key = [0; KEY_BYTES];
        random(&mut key);
        let write = || -> std::io::Result<()> {
            let mut file = std::fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(path)?;
            writeln!(file, "{}", STANDARD.encode(key))?;
            file.sync_all()
        };
        write().map_err(|source| SealError::File {
            path: path.to_owned(),
            source,
        })?;
        Ok(Self(key))
    }

    /// Encrypts a bundle for its way.
    #[must_use]
    pub fn seal(&self, bundle: &Bundle) -> SealedBundle {
        let clear = bundle.canonical();
        let hash = BundleHash::of(&clear);
        let mut nonce = [0; NONCE_BYTES];
        random(&mut nonce);
        let payload = Payload {
            msg: &clear,
            aad: hash.0.as_bytes(),
        };
        let encrypted = XChaCha20Poly1305::new(&self.0.into())
            .encrypt(XNonce::from_slice(&nonce), payload)
            .expect("a bundle is far below the cipher's limit of 256 GiB");
        SealedBundle {
            identity: bundle.identity.clone(),
            hash,
            sealed: STANDARD.encode([nonce.as_slice(), &encrypted].concat()),
        }
    }

    /// Decrypts a bundle and checks that it is the one that its hash names.
    ///
    /// # Errors
    /// [`SealError::Refused`] or [`SealError::Mismatch`].
    pub fn open(&self, sealed: &SealedBundle) -> Result<Bundle, SealError> {
        let refused = || SealError::Refused(sealed.hash.clone());
        let bytes = STANDARD.decode(&sealed.sealed).map_err(|_| refused())?;
        let (nonce, encrypted) = bytes.split_at_checked(NONCE_BYTES).ok_or_else(refused)?;
        let payload = Payload {
            msg: encrypted,
            aad: sealed.hash.0.as_bytes(),
        };
        let clear = XChaCha20Poly1305::new(&self.0.into())
            .decrypt(XNonce::from_slice(nonce), payload)
            .map_err(|_| refused())?;
        let mismatch = || SealError::Mismatch(sealed.hash.clone());
        if BundleHash::of(&clear) != sealed.hash {
            return Err(mismatch());
        }
        let bundle: Bundle = serde_json::from_slice(&clear).map_err(|_| mismatch())?;
        if bundle.identity != sealed.identity {
            return Err(mismatch());
        }
        Ok(bundle)
    }
}

/// From the system's own source, which is there as soon as the system has started (getrandom(2)).
fn random(bytes: &mut [u8]) {
    getrandom::fill(bytes).expect("the system's random numbers");
}

/// Encrypts a bundle for its way.
#[must_use]
pub fn seal(key: &FleetKey, bundle: &Bundle) -> SealedBundle {
    key.seal(bundle)
}

/// Decrypts a bundle and checks that it is the one that its hash names.
///
/// # Errors
/// See [`FleetKey::open`].
pub fn open(key: &FleetKey, sealed: &SealedBundle) -> Result<Bundle, SealError> {
    key.open(sealed)
}

#[cfg(test)]
mod tests {
    use understudy_core::ids::ServerId;

    use super::*;

    fn bundle() -> Bundle {
        Bundle {
            identity: ServerId::new("recorder-1").unwrap(),
            name: "Gate".to_owned(),
            cameras: vec![],
        }
    }

    #[test]
    fn a_bundle_arrives_as_it_was_sealed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fleet.key");
        let written = FleetKey::generate_to(&path).unwrap();
        let read = FleetKey::load(&path).unwrap();
        let sealed = written.seal(&bundle());
        assert!(!sealed.sealed.contains("Gate"));
        assert_eq!(read.open(&sealed).unwrap(), bundle());
        assert!(
            FleetKey::generate_to(&path).is_err(),
            "a key is never overwritten"
        );
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "nobody else can read the key");
    }

    #[test]
    fn another_key_another_hash_or_a_changed_byte_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let key = FleetKey::generate_to(&folder.path().join("a")).unwrap();
        let other = FleetKey::generate_to(&folder.path().join("b")).unwrap();
        let sealed = key.seal(&bundle());
        assert!(matches!(other.open(&sealed), Err(SealError::Refused(_))));
        let renamed = SealedBundle {
            hash: BundleHash::of(b"else"),
            ..sealed.clone()
        };
        assert!(matches!(key.open(&renamed), Err(SealError::Refused(_))));
        let mut bytes = STANDARD.decode(&sealed.sealed).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        let changed = SealedBundle {
            sealed: STANDARD.encode(bytes),
            ..sealed.clone()
        };
        assert!(matches!(key.open(&changed), Err(SealError::Refused(_))));
        let short = SealedBundle {
            sealed: "AAAA".to_owned(),
            ..sealed.clone()
        };
        assert!(matches!(key.open(&short), Err(SealError::Refused(_))));
        let misnamed = SealedBundle {
            identity: ServerId::new("recorder-2").unwrap(),
            ..sealed
        };
        assert!(matches!(key.open(&misnamed), Err(SealError::Mismatch(_))));
    }

    #[test]
    fn a_file_without_a_key_says_what_is_expected() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fleet.key");
        std::fs::write(&path, "not a key").unwrap();
        assert!(
            FleetKey::load(&path)
                .unwrap_err()
                .to_string()
                .contains("32 bytes in base64")
        );
        assert!(
            FleetKey::load(&folder.path().join("none"))
                .unwrap_err()
                .to_string()
                .contains("none")
        );
    }
}
