//! Values that must not be seen: in logs, in errors, in a printed configuration.

use std::{fmt, path::PathBuf};

use serde::{Deserialize, Serialize, Serializer};

use crate::config::ConfigError;

/// What stands where a secret would.
const HIDDEN: &str = "***";

/// A password, a key, a URL with a password in it. Shown and written as `***`.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Hides `value`.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The secret itself, for the one who uses it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(HIDDEN)
    }
}

/// The secret `name`, from its value or from the file that holds it (`<name>_file`); a file's trailing line
/// break is not part of it.
///
/// # Errors
/// [`ConfigError::Secret`] if both or neither are given, or if the file can't be read.
pub fn secret(value: &Option<Secret>, file: &Option<PathBuf>, name: &str) -> Result<Secret, ConfigError> {
    let problem = |what: String| ConfigError::Secret {
        name: name.to_owned(),
        what,
    };
    match (value, file) {
        (Some(_), Some(_)) => Err(problem(format!(
            "both {name} and {name}_file are set: keep only one"
        ))),
        (None, None) => Err(problem(format!("set {name} or {name}_file"))),
        (Some(value), None) => Ok(value.clone()),
        (None, Some(file)) => std::fs::read_to_string(file)
            .map(|text| Secret(text.trim_end_matches(['\r', '\n']).to_owned()))
            .map_err(|error| {
                problem(format!(
                    "can't read {}: {error}; put the secret there, readable for this service's user only",
                    file.display()
                ))
            }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_never_shown() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret:?}"), "***");
        assert_eq!(serde_json::to_string(&secret).unwrap(), "\"***\"");
        assert_eq!(secret.expose(), "hunter2");
    }

    #[test]
    fn a_secret_comes_from_its_value_or_its_file_but_not_from_both() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password");
        std::fs::write(&file, "hunter2\n").unwrap();
        let value = Some(Secret::new("hunter2"));
        assert_eq!(
            secret(&None, &Some(file.clone()), "password").unwrap().expose(),
            "hunter2"
        );
        assert_eq!(secret(&value, &None, "password").unwrap().expose(), "hunter2");
        assert!(
            secret(&value, &Some(file), "password")
                .unwrap_err()
                .to_string()
                .contains("only one")
        );
        assert!(
            secret(&None, &None, "password")
                .unwrap_err()
                .to_string()
                .contains("password_file")
        );
        let missing = Some(folder.path().join("missing"));
        assert!(
            secret(&None, &missing, "password")
                .unwrap_err()
                .to_string()
                .contains("missing")
        );
    }
}
