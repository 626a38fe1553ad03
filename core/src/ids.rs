//! Identifiers. Each kind is a type of its own, so that one can't stand where another belongs.
//!
//! An id is chosen by people or made by a service, never here. It appears in routing keys, folder names and
//! URLs, so only lower-case letters, digits and inner hyphens are allowed, 64 characters at most. Ids are copied all
//! the time, so that copies share their text.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The most characters an id may have.
pub const MAX_LENGTH: usize = 64;

/// Why a text is no id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} can't be an id: use 1 to {MAX_LENGTH} lower-case letters, digits and hyphens, beginning and ending with a letter or digit"
)]
pub struct InvalidId {
    text: String,
}

fn check(text: &str) -> Result<(), InvalidId> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let valid = (1..=MAX_LENGTH).contains(&text.len())
        && text.bytes().all(allowed)
        && !text.starts_with('-')
        && !text.ends_with('-');
    if valid {
        Ok(())
    } else {
        Err(InvalidId {
            text: text.to_owned(),
        })
    }
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
        #[cfg_attr(feature = "schema", schemars(transparent, extend(
            "pattern" = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$",
            "maxLength" = MAX_LENGTH
        )))]
        pub struct $name(Arc<str>);

        impl $name {
            /// Takes `text` as an id.
            ///
            /// # Errors
            /// [`InvalidId`] if it has characters that an id can't have.
            pub fn new(text: impl Into<String>) -> Result<Self, InvalidId> {
                let text = text.into();
                check(&text)?;
                Ok(Self(text.into()))
            }

            /// The id as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                Self::new(text)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                Self::new(text).map_err(serde::de::Error::custom)
            }
        }
    };
}

id! {
    /// A server of the fleet, whatever its mode. Stays with the machine's enrolment, not with its name.
    ServerId
}
id! {
    /// A camera. Stays the same on whichever server films it.
    CameraId
}
id! {
    /// A site or network in which servers and devices reach each other directly.
    DomainId
}
id! {
    /// One takeover of one recording server, from trigger to the end of failback.
    FailoverId
}
id! {
    /// One order to erase everything on a server: carried out once.
    ErasureId
}
id! {
    /// A device licence key, by the id that its issuer signed.
    LicenseKeyId
}
id! {
    /// One start of one server's recording service; new at each start, so that a cloned machine is noticed.
    Incarnation
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_safe_in_routing_keys_and_paths() {
        for good in ["a", "recorder-1", "0190e2c4-6f7a-7c52-8f7e-1d2c3b4a5968"] {
            assert!(ServerId::new(good).is_ok(), "{good}");
        }
        for bad in ["", "A", "a.b", "../a", "a/b", "-a", "a-", "a b", &"a".repeat(65)] {
            assert!(ServerId::new(bad).is_err(), "{bad}");
            let json = serde_json::to_string(bad).expect("a string is JSON");
            assert!(serde_json::from_str::<ServerId>(&json).is_err(), "{bad}");
        }
    }
}
