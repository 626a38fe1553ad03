//! Reads the file, lays the environment over it, and checks each key against the known ones.

use std::{collections::BTreeMap, path::Path};

use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{ConfigError, Origin};

/// Each environment variable of ours begins with it.
const PREFIX: &str = "UNDERSTUDY_";
/// Parts sections from keys in the name of an environment variable.
const NESTING: &str = "__";
/// Below this similarity (0 to 1) no known key is suggested: one of three letters may differ, or be swapped.
const RESEMBLES: f64 = 0.66;

/// Where each value came from, by its dotted key.
type Origins = BTreeMap<String, Origin>;

/// Reads `file`, lays `UNDERSTUDY_<SECTION>__<KEY>=value` from `environment` over it, and refuses unknown keys.
///
/// A variable's value is read as its default's type says: text as it stands, everything else as TOML; a list
/// may also be parted by commas.
///
/// # Errors
/// [`ConfigError`] names the place, and the nearest known key.
pub fn load<T>(
    file: Option<&Path>,
    environment: impl Iterator<Item = (String, String)>,
) -> Result<T, ConfigError>
where
    T: DeserializeOwned + Serialize + Default,
{
    let known = serde_json::to_value(T::default()).map_err(|error| ConfigError::Invalid {
        origin: None,
        message: format!("the default configuration can't be written: {error}"),
    })?;
    let mut origins = Origins::new();
    let mut values = match file {
        Some(path) => read(path, &known, &mut origins)?,
        None => Map::new(),
    };
    for (name, value) in environment {
        overlay(&name, &value, &known, &mut values, &mut origins)?;
    }
    decode(Value::Object(values), &origins)
}

/// Turns the values into the configuration. A variable whose default is `None` does not tell its type: it is
/// taken as text, and as a number or a truth value where text does not fit.
fn decode<T: DeserializeOwned>(mut values: Value, origins: &Origins) -> Result<T, ConfigError> {
    let mut retried = None;
    loop {
        let error = match serde_path_to_error::deserialize::<_, T>(values.clone()) {
            Ok(config) => return Ok(config),
            Err(error) => error,
        };
        let key = error.path().to_string();
        let origin = origins.get(&key).cloned();
        let pointer = format!("/{}", key.replace('.', "/"));
        if let (Some(Origin::Environment(_)), Some(value)) = (&origin, values.pointer_mut(&pointer))
            && retried.as_ref() != Some(&key)
            && let Some(other) = value.as_str().and_then(scalar)
        {
            *value = other;
            retried = Some(key);
            continue;
        }
        let why = error.inner().to_string();
        let hint = meant(&why).map(|name| format!("; did you mean {name}?"));
        return Err(ConfigError::Invalid {
            origin,
            message: format!("{key}: {why}{}", hint.unwrap_or_default()),
        });
    }
}

/// Inside of a list nothing is known of keys but what serde says of them: "unknown field `a`, expected one of `b`,
/// `c`". The one that was meant, if one resembles it.
fn meant(why: &str) -> Option<&str> {
    let mut names = why.strip_prefix("unknown field ")?.split('`').skip(1).step_by(2);
    nearest(names.next()?, names)
}

fn read(path: &Path, known: &Value, origins: &mut Origins) -> Result<Map<String, Value>, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable {
        path: path.to_owned(),
        source,
    })?;
    let no_toml = |error: toml::de::Error| ConfigError::NoToml {
        path: path.to_owned(),
        message: error.to_string(),
    };
    let table = DeTable::parse(&text).map_err(no_toml)?;
    let mut file = File {
        path,
        text: &text,
        origins,
    };
    file.check(table.get_ref(), "", known)?;
    toml::from_str(&text).map_err(no_toml)
}

/// The file as it is read: knows on which line each key stands.
struct File<'a> {
    path: &'a Path,
    text: &'a str,
    origins: &'a mut Origins,
}

impl File<'_> {
    /// Refuses keys below `section` that `known` does not have. An empty `known` has any: it is a map.
    fn check(&mut self, table: &DeTable<'_>, section: &str, known: &Value) -> Result<(), ConfigError> {
        let Some(known) = known.as_object().filter(|known| !known.is_empty()) else {
            return Ok(());
        };
        for (key, value) in table {
            let name = key.get_ref().as_ref();
            let path = join(section, name);
            let origin = self.origin(key);
            let Some(known_below) = known.get(name) else {
                let nearest = nearest(name, known.keys().map(String::as_str));
                return Err(ConfigError::UnknownKey {
                    origin,
                    key: path,
                    nearest: nearest.map(|name| join(section, name)),
                });
            };
            self.origins.insert(path.clone(), origin);
            if let DeValue::Table(below) = value.get_ref() {
                self.check(below, &path, known_below)?;
            }
        }
        Ok(())
    }

    fn origin<K>(&self, key: &Spanned<K>) -> Origin {
        let before = self.text.get(..key.span().start).unwrap_or_default();
        Origin::File(self.path.to_owned(), before.matches('\n').count() + 1)
    }
}

/// Puts one environment variable where it belongs. One without `__` is a flag's or a stranger's, unless a
/// section's name shows that only an underscore is missing.
fn overlay(
    name: &str,
    value: &str,
    known: &Value,
    values: &mut Map<String, Value>,
    origins: &mut Origins,
) -> Result<(), ConfigError> {
    let Some(key) = name.strip_prefix(PREFIX) else {
        return Ok(());
    };
    let mut paths = Vec::new();
    leaves(known, "", &mut paths);
    let variables: BTreeMap<String, &String> = paths.iter().map(|path| (variable(path), path)).collect();
    let path = match variables.get(name) {
        Some(path) => (*path).clone(),
        None if is_meant_for_us(key, known) => {
            let nearest = nearest(name, variables.keys().map(String::as_str));
            return Err(ConfigError::UnknownKey {
                origin: Origin::Environment(name.to_owned()),
                key: key.to_lowercase().replace(NESTING, "."),
                nearest: nearest.map(str::to_owned),
            });
        }
        None => return Ok(()),
    };
    let origin = Origin::Environment(name.to_owned());
    let default = known.pointer(&format!("/{}", path.replace('.', "/")));
    let value = typed(value, default).ok_or_else(|| ConfigError::Invalid {
        origin: Some(origin.clone()),
        message: format!("{path}: {value:?} is not of the right type"),
    })?;
    put(values, &path, value);
    origins.insert(path, origin);
    Ok(())
}

fn is_meant_for_us(key: &str, known: &Value) -> bool {
    let sections = known
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(_, value)| value.is_object());
    let misses_an_underscore = |section: &String| {
        key.strip_prefix(&section.to_uppercase())
            .is_some_and(|rest| rest.starts_with('_'))
    };
    key.contains(NESTING) || sections.map(|(name, _)| name).any(misses_an_underscore)
}

/// The dotted keys of all values that are no sections.
fn leaves(known: &Value, section: &str, into: &mut Vec<String>) {
    for (name, value) in known.as_object().into_iter().flatten() {
        let path = join(section, name);
        if value.as_object().is_some_and(|below| !below.is_empty()) {
            leaves(value, &path, into);
        } else {
            into.push(path);
        }
    }
}

fn variable(path: &str) -> String {
    format!("{PREFIX}{}", path.to_uppercase().replace('.', NESTING))
}

fn typed(text: &str, default: Option<&Value>) -> Option<Value> {
    match default {
        None | Some(Value::Null | Value::String(_)) => Some(Value::from(text)),
        Some(Value::Array(_)) if !text.trim_start().starts_with('[') => Some(
            text.split(',')
                .map(str::trim)
                .filter(|item| !item.is_empty())
                .map(Value::from)
                .collect(),
        ),
        Some(_) => scalar(text),
    }
}

/// A value other than text, as TOML writes it.
fn scalar(text: &str) -> Option<Value> {
    let mut table: Map<String, Value> = toml::from_str(&format!("value = {text}")).ok()?;
    table.remove("value").filter(|_| table.is_empty())
}

fn put(values: &mut Map<String, Value>, path: &str, value: Value) {
    match path.split_once('.') {
        None => {
            values.insert(path.to_owned(), value);
        }
        Some((section, rest)) => {
            let below = values.entry(section).or_insert_with(|| Value::Object(Map::new()));
            if !below.is_object() {
                *below = Value::Object(Map::new());
            }
            if let Value::Object(below) = below {
                put(below, rest, value);
            }
        }
    }
}

fn nearest<'a>(key: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|candidate| {
            // The first sees shared beginnings, the second swapped letters, which matter in short keys.
            let similarity = strsim::jaro_winkler(key, candidate)
                .max(strsim::normalized_damerau_levenshtein(key, candidate));
            (similarity, candidate)
        })
        .filter(|(similarity, _)| *similarity >= RESEMBLES)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, candidate)| candidate)
}

fn join(section: &str, name: &str) -> String {
    if section.is_empty() {
        name.to_owned()
    } else {
        format!("{section}.{name}")
    }
}
