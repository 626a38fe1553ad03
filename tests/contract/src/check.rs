//! Holds one message against the document, more strictly than a consumer would: what is not described is wrong too.

use std::collections::BTreeMap;

use anyhow::Context;
use jsonschema::{Draft, Validator};
use serde_json::{Value, json};

/// A message as it came from the broker.
#[derive(Clone, Debug, Default)]
pub struct Message {
    /// The key that it was sent with.
    pub routing_key: String,
    /// AMQP's `content-type`.
    pub content_type: String,
    /// Its headers.
    pub headers: BTreeMap<String, Value>,
    /// Its body.
    pub body: Vec<u8>,
}

/// The schemas, ready to be used.
#[derive(Debug)]
pub struct Checker {
    events: BTreeMap<String, Schemas>,
}

#[derive(Debug)]
struct Schemas {
    headers: Validator,
    body: Validator,
}

impl Checker {
    /// By this document.
    ///
    /// # Errors
    /// If a schema of it is none.
    pub fn new(document: &Value) -> anyhow::Result<Self> {
        let mut schemas = document["components"]["schemas"].clone();
        close(&mut schemas);
        let messages = document["components"]["messages"]
            .as_object()
            .context("the document has no messages")?;
        let mut events = BTreeMap::new();
        for (name, message) in messages {
            let mut headers = message["headers"].clone();
            close(&mut headers);
            let body = json!({ "allOf": [message["payload"]], "components": { "schemas": schemas } });
            let built = Schemas {
                headers: validator(&headers).with_context(|| format!("headers of {name}"))?,
                body: validator(&body).with_context(|| format!("body of {name}"))?,
            };
            events.insert(name.clone(), built);
        }
        Ok(Self { events })
    }

    /// The event's name, or everything that is wrong.
    ///
    /// # Errors
    /// With a line for each fault.
    pub fn check(&self, message: &Message) -> Result<String, Vec<String>> {
        let said = |name: &str| {
            message
                .headers
                .get(name)
                .and_then(Value::as_str)
                .unwrap_or_default()
        };
        let name = said("cloudEvents:type").to_owned();
        let Some(schemas) = self.events.get(&name) else {
            return Err(vec![format!(
                "{}: the event {name:?} is not described",
                message.routing_key
            )]);
        };
        let mut wrong = Vec::new();
        let domain = message.routing_key.strip_suffix(&format!(".{name}"));
        if domain.is_none_or(|domain| understudy_core::ids::DomainId::new(domain).is_err()) {
            wrong.push(format!(
                "the routing key {:?} is not <domain>.{name}",
                message.routing_key
            ));
        }
        if message.content_type != "application/json" {
            wrong.push(format!("{name}: its content type is {:?}", message.content_type));
        }
        let headers = json!(message.headers);
        let faults = schemas.headers.iter_errors(&headers);
        wrong.extend(faults.map(|fault| format!("{name}: header {}: {fault}", fault.instance_path())));
        match serde_json::from_slice::<Value>(&message.body) {
            Ok(body) => {
                let faults = schemas.body.iter_errors(&body);
                wrong.extend(
                    faults.map(|fault| format!("{name}: {}: {fault}: {body}", fault.instance_path())),
                );
            }
            Err(error) => wrong.push(format!("{name}: its body is no JSON: {error}")),
        }
        if wrong.is_empty() { Ok(name) } else { Err(wrong) }
    }
}

fn validator(schema: &Value) -> anyhow::Result<Validator> {
    let options = jsonschema::options()
        .with_draft(Draft::Draft7)
        .should_validate_formats(true);
    // The error borrows from the schema.
    options.build(schema).map_err(|error| anyhow::anyhow!("{error}"))
}

/// A field that is not described is a fault of the document.
fn close(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            fields.values_mut().for_each(close);
            if fields.get("properties").is_some_and(Value::is_object)
                && fields.get("type") == Some(&json!("object"))
            {
                fields.entry("additionalProperties").or_insert(Value::Bool(false));
            }
        }
        Value::Array(items) => items.iter_mut().for_each(close),
        _ => {}
    }
}
