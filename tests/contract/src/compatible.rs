//! The rule by which the description may change, for the sake of those who consume events: add only.
//!
//! | change | who would break |
//! | --- | --- |
//! | an event, a field, a header or a word goes or is renamed | whoever waits for it |
//! | a type, a format, a pattern or a bound changes | whoever reads it, or checks it |
//! | a field that was always there may be missing, or null | whoever relies on it |
//! | a field that may be missing is required, a new one included | whoever checks messages of a version before |
//! | an address, an exchange or a content type changes | whoever is bound to it |
//!
//! Events, optional fields and words may be added: consumers ignore what they don't know.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context;
use serde_json::Value;

use crate::folder;

/// Deeper than any schema here goes; one that refers to itself ends there.
const DEPTH: usize = 32;
/// What limits a value.
const LIMITS: [&str; 9] = [
    "format",
    "pattern",
    "minLength",
    "maxLength",
    "minimum",
    "maximum",
    "minItems",
    "maxItems",
    "uniqueItems",
];

/// The released documents, by version.
///
/// # Errors
/// If one can't be read.
pub fn released() -> anyhow::Result<BTreeMap<String, Value>> {
    let folder = folder().join("released");
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        let version = path
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let text = std::fs::read_to_string(&path)?;
        all.insert(
            version,
            serde_json::from_str(&text).with_context(|| path.display().to_string())?,
        );
    }
    Ok(all)
}

/// What a consumer of the document `before` can't rely on any more in `now`, a line each.
#[must_use]
pub fn broken(before: &Value, now: &Value) -> Vec<String> {
    let mut comparison = Comparison {
        before,
        now,
        broken: Vec::new(),
    };
    comparison.document();
    comparison.broken
}

struct Comparison<'a> {
    before: &'a Value,
    now: &'a Value,
    broken: Vec<String>,
}

impl Comparison<'_> {
    fn document(&mut self) {
        let (before, now) = (self.before, self.now);
        self.same(
            "defaultContentType",
            &before["defaultContentType"],
            &now["defaultContentType"],
        );
        for (name, old) in entries(&before["channels"]) {
            let new = &now["channels"][name];
            if new.is_null() {
                self.broken.push(format!("{name}: the event is gone"));
                continue;
            }
            self.same(&format!("{name}: its address"), &old["address"], &new["address"]);
            self.same(
                &format!("{name}: its exchange"),
                &old["bindings"]["amqp"],
                &new["bindings"]["amqp"],
            );
        }
        for (name, old) in entries(&before["components"]["messages"]) {
            let new = &now["components"]["messages"][name];
            if new.is_null() {
                self.broken.push(format!("{name}: the message is gone"));
                continue;
            }
            self.same(
                &format!("{name}: its content type"),
                &old["contentType"],
                &new["contentType"],
            );
            self.schema(
                &format!("{name}: headers"),
                &old["headers"],
                &new["headers"],
                DEPTH,
            );
            self.schema(name, &old["payload"], &new["payload"], DEPTH);
        }
    }

    fn same(&mut self, what: &str, old: &Value, new: &Value) {
        if old != new {
            self.broken.push(format!("{what} was {old}, and is {new}"));
        }
    }

    fn schema(&mut self, at: &str, old: &Value, new: &Value, depth: usize) {
        if depth == 0 {
            return;
        }
        let (old, new) = (Shape::of(self.before, old), Shape::of(self.now, new));
        if old.types != new.types {
            self.broken.push(format!(
                "{at}: its type was {:?}, and is {:?}",
                old.types, new.types
            ));
        }
        if old.words.is_some() != new.words.is_some() {
            self.broken
                .push(format!("{at}: it is a list of words in one version only"));
        }
        for gone in old
            .words
            .iter()
            .flatten()
            .filter(|word| !new.words.iter().flatten().any(|new| new == *word))
        {
            self.broken.push(format!("{at}: the word {gone} is gone"));
        }
        if old.limits != new.limits {
            self.broken.push(format!(
                "{at}: it was limited by {:?}, and is by {:?}",
                old.limits, new.limits
            ));
        }
        if old.alternatives != new.alternatives {
            self.broken.push(format!("{at}: its alternatives changed"));
        }
        for (field, schema) in &old.fields {
            let at = format!("{at}.{field}");
            match new.fields.get(field) {
                Some(now) => self.schema(&at, schema, now, depth - 1),
                None => self.broken.push(format!("{at}: the field is gone")),
            }
        }
        self.required(at, &old, &new);
        for (what, old, new) in [("[]", &old.items, &new.items), ("{}", &old.others, &new.others)] {
            match (old, new) {
                (Some(old), Some(new)) => self.schema(&format!("{at}{what}"), old, new, depth - 1),
                (None, None) => {}
                _ => self
                    .broken
                    .push(format!("{at}{what}: it is described in one version only")),
            }
        }
    }

    fn required(&mut self, at: &str, old: &Shape, new: &Shape) {
        for field in new.required.difference(&old.required) {
            self.broken.push(format!(
                "{at}.{field}: it is required, and was not: give it a default"
            ));
        }
        // One that is gone altogether was named.
        for field in old
            .required
            .difference(&new.required)
            .filter(|field| new.fields.contains_key(*field))
        {
            self.broken
                .push(format!("{at}.{field}: it may be missing, and was always there"));
        }
    }
}

fn entries(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

/// A schema without the ways in which the same can be said differently.
#[derive(Clone, Debug, Default)]
struct Shape {
    types: BTreeSet<String>,
    /// The values of an enumeration.
    words: Option<BTreeSet<String>>,
    limits: BTreeMap<String, String>,
    fields: BTreeMap<String, Value>,
    required: BTreeSet<String>,
    /// Of a list.
    items: Option<Value>,
    /// Of a map, or of the fields that are not described.
    others: Option<Value>,
    /// A choice of whole schemas, which is compared word by word.
    alternatives: Option<String>,
}

impl Shape {
    fn of(document: &Value, schema: &Value) -> Self {
        let mut shape = Self::default();
        shape.add(document, schema, DEPTH);
        shape
    }

    fn add(&mut self, document: &Value, schema: &Value, depth: usize) {
        let Some(depth) = depth.checked_sub(1) else { return };
        if let Some(reference) = schema["$ref"].as_str() {
            let found = document.pointer(reference.trim_start_matches('#'));
            return self.add(document, found.unwrap_or(&Value::Null), depth);
        }
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let texts = |value: &Value| {
            list(value)
                .iter()
                .filter_map(|each| each.as_str().map(str::to_owned))
                .collect::<Vec<_>>()
        };
        self.types.extend(schema["type"].as_str().map(str::to_owned));
        self.types.extend(texts(&schema["type"]));
        let words = list(&schema["enum"])
            .into_iter()
            .chain(schema.get("const").cloned());
        for word in words {
            self.words.get_or_insert_default().insert(word.to_string());
        }
        for limit in LIMITS {
            if let Some(value) = schema.get(limit) {
                self.limits.insert(limit.to_owned(), value.to_string());
            }
        }
        self.fields
            .extend(entries(&schema["properties"]).map(|(name, schema)| (name.clone(), schema.clone())));
        self.required.extend(texts(&schema["required"]));
        self.items = schema.get("items").cloned().or(self.items.take());
        self.others = schema.get("additionalProperties").cloned().or(self.others.take());
        for part in list(&schema["allOf"]) {
            self.add(document, &part, depth);
        }
        for choice in ["anyOf", "oneOf"].map(|name| list(&schema[name])) {
            self.choose(document, &choice, depth);
        }
    }

    /// Of words, or of something and null; of anything else as it stands.
    fn choose(&mut self, document: &Value, choice: &[Value], depth: usize) {
        let is_null = |each: &&Value| each["type"] == "null";
        let words = choice
            .iter()
            .all(|each| each.get("const").is_some() || each.get("enum").is_some());
        if words || choice.iter().filter(|each| !is_null(each)).count() == 1 {
            for each in choice {
                self.add(document, each, depth);
            }
        } else {
            self.alternatives = Some(Value::from(choice).to_string());
        }
    }
}
