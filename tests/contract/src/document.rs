//! The description of the events, after AsyncAPI 3.0: schemas from the Rust types, words from their comments.
//!
//! The schemas say what a reader has to expect of this version and its neighbours: a field with a default may be
//! missing, since a version before it does not send it; a field that is not described may be there, since a version
//! after it may.

use schemars::generate::SchemaSettings;
use serde::Serialize;
use serde_json::{Map, Value, json};
use understudy_core::contract::{event::Event, names};

use crate::examples;

const HEAD: &str = "# Made from core/src/contract/event.rs by: cargo run --package understudy-contract\n";

const WHAT: &str = "What happens in a fleet of Understudy, for any program that wants to know: CloudEvents 1.0 in the binary mode of \
AMQP 0-9-1 on the topic exchange `understudy.events`. The routing key is `<domain>.<entity>.<event>`, the attributes \
are headers that begin with `cloudEvents:`, the body is JSON.\n\nFields, events and words of an enumeration are added, \
never renamed or removed: ignore what you don't know. docs/events/README.md says how to consume them.";

/// The document.
///
/// # Panics
/// If the events' type is not tagged as it is sent.
#[must_use]
pub fn document() -> Value {
    let (events, mut schemas) = schemas();
    let (mut channels, mut operations, mut messages) = (Map::new(), Map::new(), Map::new());
    for Described { name, about, data } in events {
        channels.insert(name.clone(), channel(&name, &about));
        operations.insert(name.clone(), operation(&name));
        messages.insert(name.clone(), message(&name, &about));
        schemas.insert(name, data);
    }
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "Understudy events",
            "version": env!("CARGO_PKG_VERSION"),
            "description": WHAT,
            "license": { "name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0" },
        },
        "defaultContentType": "application/json",
        "servers": {
            "broker": {
                "host": "broker:5672",
                "protocol": "amqp",
                "protocolVersion": "0.9.1",
                "description": "The fleet's RabbitMQ, with an account of your own that may read events and nothing else.",
            },
        },
        "channels": channels,
        "operations": operations,
        "components": { "messages": messages, "schemas": schemas },
    })
}

/// The document as it lies in `docs/events/asyncapi.yaml`.
///
/// # Errors
/// If it can't be written as YAML.
pub fn yaml(document: &Value) -> anyhow::Result<String> {
    /// What a reader looks for first comes first.
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Ordered<'a> {
        asyncapi: &'a Value,
        info: &'a Value,
        default_content_type: &'a Value,
        servers: &'a Value,
        channels: &'a Value,
        operations: &'a Value,
        components: &'a Value,
    }
    let ordered = Ordered {
        asyncapi: &document["asyncapi"],
        info: &document["info"],
        default_content_type: &document["defaultContentType"],
        servers: &document["servers"],
        channels: &document["channels"],
        operations: &document["operations"],
        components: &document["components"],
    };
    Ok(HEAD.to_owned() + &serde_saphyr::to_string(&ordered)?)
}

/// An event as its type describes it.
struct Described {
    name: String,
    about: String,
    data: Value,
}

/// Each event, and what their fields refer to.
fn schemas() -> (Vec<Described>, Map<String, Value>) {
    let settings = SchemaSettings::draft07().with(|settings| {
        settings.meta_schema = None;
        settings.definitions_path = "/components/schemas".into();
    });
    let mut root = settings
        .into_generator()
        .into_root_schema_for::<Event>()
        .to_value();
    open(&mut root);
    let variants = root["oneOf"].take();
    let variants = variants.as_array().expect("an enum is one of its variants");
    let described = variants.iter().map(|variant| Described {
        name: text(&variant["properties"]["name"]["const"]),
        about: text(&variant["description"]),
        data: variant["properties"]["data"].clone(),
    });
    let described = described.collect();
    let Value::Object(referred) = root["components"]["schemas"].take() else {
        panic!("fields refer to other types");
    };
    (described, referred)
}

fn text(value: &Value) -> String {
    value
        .as_str()
        .expect("each event has a name and a comment")
        .to_owned()
}

/// That this version refuses what it does not know somewhere is no promise to others.
fn open(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            if fields.get("additionalProperties") == Some(&Value::Bool(false)) {
                fields.remove("additionalProperties");
            }
            fields.values_mut().for_each(open);
        }
        Value::Array(items) => items.iter_mut().for_each(open),
        _ => {}
    }
}

fn channel(name: &str, about: &str) -> Value {
    json!({
        "address": format!("{{domain}}.{name}"),
        "description": about,
        "parameters": {
            "domain": { "description": "The domain of the server that it is about.", "examples": ["east"] },
        },
        "messages": { name: { "$ref": format!("#/components/messages/{name}") } },
        "bindings": {
            "amqp": {
                "is": "routingKey",
                "exchange": {
                    "name": names::EVENTS, "type": "topic", "durable": true, "autoDelete": false, "vhost": "/",
                },
                "bindingVersion": "0.3.0",
            },
        },
    })
}

fn operation(name: &str) -> Value {
    json!({
        "action": "send",
        "channel": { "$ref": format!("#/channels/{name}") },
        "messages": [{ "$ref": format!("#/channels/{name}/messages/{name}") }],
        "bindings": { "amqp": { "deliveryMode": 2, "mandatory": false, "bindingVersion": "0.3.0" } },
    })
}

fn message(name: &str, about: &str) -> Value {
    let (headers, payload) = examples::example(name);
    json!({
        "name": name,
        "summary": about,
        "contentType": "application/json",
        "headers": headers_schema(name),
        "payload": { "$ref": format!("#/components/schemas/{name}") },
        "bindings": { "amqp": { "messageType": name, "bindingVersion": "0.3.0" } },
        "examples": [{ "headers": headers, "payload": payload }],
    })
}

fn headers_schema(name: &str) -> Value {
    json!({
        "type": "object",
        "required": [
            "cloudEvents:specversion", "cloudEvents:type", "cloudEvents:source", "cloudEvents:id",
            "cloudEvents:time", "cloudEvents:subject",
        ],
        "properties": {
            "cloudEvents:specversion": { "type": "string", "const": "1.0" },
            "cloudEvents:type": { "type": "string", "const": name, "description": "The event's name." },
            "cloudEvents:source": {
                "type": "string", "pattern": "^/understudy/",
                "description": "Which service says so.",
            },
            "cloudEvents:id": {
                "type": "string", "minLength": 1,
                "description": "The same for each repetition of the same message: who has handled it ignores the next.",
            },
            "cloudEvents:time": {
                "type": "string", "format": "date-time",
                "description": "When it was decided or seen, by the host's clock, in UTC.",
            },
            "cloudEvents:subject": {
                "type": "string", "minLength": 1,
                "description": "The id of what it is about: a failover, a server, a camera.",
            },
            "traceparent": {
                "type": "string", "pattern": "^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$",
                "description": "The trace that it belongs to (W3C Trace Context).",
            },
        },
    })
}
