//! What is sent: a CloudEvent (version 1.0) with where it goes. In AMQP's binary mode its attributes are
//! headers with the prefix `cloudEvents:`, and the body is its data (CloudEvents, "AMQP Protocol Binding", 3.1).

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable},
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use understudy_core::{
    assignment::Assignment,
    authority::{Claim, Word},
    contract::{
        event::Fact,
        heartbeat::{Heartbeat, Observation, RestorationReport, SealedBundle, ServerReport},
        names,
    },
    ids::{DomainId, ServerId},
    time::Timestamp,
};
use understudy_runtime::TraceContext;

/// Prefix of CloudEvents attributes among AMQP headers.
pub(crate) const PREFIX: &str = "cloudEvents:";
/// The header of the W3C's trace context.
const TRACEPARENT: &str = "traceparent";
const SPEC_VERSION: &str = "1.0";
const JSON: &str = "application/json";
/// After this time the next heartbeat has long replaced the last.
const HEARTBEAT_WORTH: Duration = Duration::from_secs(2);
/// After this time the next report has replaced the last.
const REPORT_WORTH: Duration = Duration::from_secs(10);

/// Whether a message survives the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Persistence {
    /// On disk before it is confirmed.
    Durable,
    /// In memory, and dropped when nobody took it in time.
    Transient {
        /// For how long it is worth delivering.
        ttl: Duration,
    },
}

/// One message. Serialised, it can wait in an outbox: its id and time stay the same however often it is sent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// To which exchange.
    pub exchange: String,
    /// Under which key.
    pub routing_key: String,
    /// CloudEvents `type`.
    pub kind: String,
    /// CloudEvents `id`: the same for each repetition of the same message.
    pub id: String,
    /// CloudEvents `time`.
    pub time: Timestamp,
    /// CloudEvents `subject`.
    pub subject: String,
    /// CloudEvents `data`: JSON.
    #[serde(serialize_with = "as_text", deserialize_with = "from_text")]
    pub body: Bytes,
    /// Whether it survives the broker.
    pub persistence: Persistence,
    /// Whether it is a failure if no queue takes it.
    pub mandatory: bool,
    /// Where it stands in the chain of causes: what it was made in answer to, or a beginning.
    #[serde(default = "TraceContext::root")]
    pub trace: TraceContext,
}

fn as_text<S: Serializer>(body: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
    let text = std::str::from_utf8(body).map_err(serde::ser::Error::custom)?;
    serializer.serialize_str(text)
}

fn from_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
    String::deserialize(deserializer).map(Bytes::from)
}

fn json<T: Serialize>(value: &T) -> Bytes {
    // The contract's types are structs, enums and maps with text keys.
    serde_json::to_vec(value)
        .expect("the contract's types are JSON")
        .into()
}

impl Message {
    /// A fact, for anyone; nobody need listen. Its body is the event's fields.
    #[must_use]
    pub fn fact(fact: &Fact) -> Self {
        #[derive(Serialize, Deserialize)]
        struct Tagged {
            data: Box<serde_json::value::RawValue>,
        }
        let tagged: Tagged = serde_json::from_slice(&json(&fact.event))
            .expect("an event is an object with its fields in `data`");
        Self {
            exchange: names::EVENTS.to_owned(),
            routing_key: fact.routing_key(),
            kind: fact.event.name().to_owned(),
            subject: fact.event.subject().to_owned(),
            body: tagged.data.get().to_owned().into(),
            time: fact.at,
            ..Self::durable()
        }
    }

    /// Desired state, for one server.
    #[must_use]
    pub fn assignment(assignment: &Assignment) -> Self {
        Self {
            kind: names::ASSIGNMENT_TYPE.to_owned(),
            body: json(assignment),
            ..Self::to_server(&assignment.server)
        }
    }

    /// Settings, for one server.
    #[must_use]
    pub fn bundle(server: &ServerId, bundle: &SealedBundle) -> Self {
        Self {
            kind: names::BUNDLE_TYPE.to_owned(),
            body: json(bundle),
            ..Self::to_server(server)
        }
    }

    /// About the right to act, for one server: from the host, or from the server to itself.
    #[must_use]
    pub fn word(server: &ServerId, word: &Word) -> Self {
        Self {
            kind: names::RIGHT_TYPE.to_owned(),
            body: json(word),
            ..Self::to_server(server)
        }
    }

    /// Takes the right to act away from every server that has a queue, whether the host knows of it or not.
    #[must_use]
    pub fn fence() -> Self {
        Self {
            exchange: names::ASSIGNMENTS.to_owned(),
            routing_key: names::ALL_SERVERS.to_owned(),
            kind: names::RIGHT_TYPE.to_owned(),
            body: json(&Word::Revoke),
            mandatory: true,
            ..Self::durable()
        }
    }

    /// What a server of `domain` asks the right to act for.
    #[must_use]
    pub fn claim(domain: &DomainId, claim: &Claim) -> Self {
        Self {
            kind: names::CLAIM_TYPE.to_owned(),
            body: json(claim),
            ..Self::alive(domain, "claim", &claim.server, HEARTBEAT_WORTH)
        }
    }

    /// A beat of a server's agent.
    #[must_use]
    pub fn heartbeat(heartbeat: &Heartbeat) -> Self {
        Self {
            kind: names::HEARTBEAT_TYPE.to_owned(),
            body: json(heartbeat),
            ..Self::alive(&heartbeat.domain, "heartbeat", &heartbeat.server, HEARTBEAT_WORTH)
        }
    }

    /// What a server's recording service says of itself.
    #[must_use]
    pub fn report(report: &ServerReport) -> Self {
        Self {
            kind: names::REPORT_TYPE.to_owned(),
            body: json(report),
            ..Self::alive(&report.domain, "report", &report.server, REPORT_WORTH)
        }
    }

    /// What the monitor sees of a server.
    #[must_use]
    pub fn observation(domain: &DomainId, observation: &Observation) -> Self {
        Self {
            kind: names::OBSERVATION_TYPE.to_owned(),
            body: json(observation),
            ..Self::alive(domain, "observation", &observation.server, HEARTBEAT_WORTH)
        }
    }

    /// How far a server has fetched recordings.
    #[must_use]
    pub fn restoration(report: &RestorationReport) -> Self {
        Self {
            kind: names::RESTORATION_TYPE.to_owned(),
            body: json(report),
            ..Self::alive(&report.domain, "restoration", &report.server, REPORT_WORTH)
        }
    }

    fn durable() -> Self {
        Self {
            exchange: String::new(),
            routing_key: String::new(),
            kind: String::new(),
            id: uuid::Uuid::now_v7().to_string(),
            time: understudy_runtime::clock::wall(),
            subject: String::new(),
            body: Bytes::new(),
            persistence: Persistence::Durable,
            mandatory: false,
            trace: TraceContext::carried(),
        }
    }

    fn to_server(server: &ServerId) -> Self {
        Self {
            exchange: names::ASSIGNMENTS.to_owned(),
            routing_key: server.to_string(),
            subject: server.to_string(),
            mandatory: true,
            ..Self::durable()
        }
    }

    fn alive(domain: &DomainId, kind: &str, server: &ServerId, ttl: Duration) -> Self {
        Self {
            exchange: names::HEARTBEATS.to_owned(),
            routing_key: names::heartbeat_key(domain, kind, server),
            subject: server.to_string(),
            persistence: Persistence::Transient { ttl },
            ..Self::durable()
        }
    }

    /// The AMQP properties and headers, CloudEvents' attributes among them.
    pub(crate) fn properties(&self, source: &str) -> BasicProperties {
        let mut attributes = vec![
            ("specversion", SPEC_VERSION.to_owned()),
            ("type", self.kind.clone()),
            ("source", format!("/understudy/{source}")),
            ("id", self.id.clone()),
            ("time", rfc3339(self.time)),
        ];
        if !self.subject.is_empty() {
            // A subject must not be empty (CloudEvents 1.0, "subject").
            attributes.push(("subject", self.subject.clone()));
        }
        let mut headers = traced(self.trace);
        for (name, value) in attributes {
            headers.insert(
                format!("{PREFIX}{name}").into(),
                AMQPValue::LongString(value.into()),
            );
        }
        let properties = BasicProperties::default()
            .with_content_type(JSON.into())
            .with_message_id(self.id.as_str().into())
            .with_type(self.kind.as_str().into())
            .with_headers(headers);
        match self.persistence {
            Persistence::Durable => properties.with_delivery_mode(2),
            Persistence::Transient { ttl } => properties
                .with_delivery_mode(1)
                .with_expiration(ttl.as_millis().to_string().into()),
        }
    }
}

/// Headers that tell the receiver which trace a message belongs to (W3C Trace Context, "AMQP protocol").
pub(crate) fn traced(trace: TraceContext) -> FieldTable {
    let mut headers = FieldTable::default();
    headers.insert(
        TRACEPARENT.into(),
        AMQPValue::LongString(trace.to_string().into()),
    );
    headers
}

/// The trace that a delivery belongs to; one that says none, or nonsense, begins its own.
pub(crate) fn trace_of(properties: &BasicProperties) -> TraceContext {
    let said = headers(properties).remove(TRACEPARENT);
    said.and_then(|text| text.parse().ok())
        .unwrap_or_else(TraceContext::root)
}

/// The text headers of a delivery, by name.
pub(crate) fn headers(properties: &BasicProperties) -> BTreeMap<String, String> {
    let table = properties.headers().iter().flat_map(|table| table.inner());
    table
        .filter_map(|(name, value)| {
            let text = match value {
                AMQPValue::LongString(text) => text.to_string(),
                AMQPValue::ShortString(text) => text.to_string(),
                // An AMQP timestamp counts seconds; other programs may send `time` as one.
                AMQPValue::Timestamp(seconds) => {
                    rfc3339(Timestamp(i64::try_from(*seconds).ok()?.saturating_mul(1000)))
                }
                _ => return None,
            };
            Some((name.to_string(), text))
        })
        .collect()
}

/// A time as RFC 3339 has it, in UTC, with milliseconds.
pub(crate) fn rfc3339(time: Timestamp) -> String {
    let time = jiff::Timestamp::from_millisecond(time.as_millis()).unwrap_or_default();
    format!("{time:.3}")
}

/// A time from RFC 3339.
pub(crate) fn timestamp(text: &str) -> Option<Timestamp> {
    let time: jiff::Timestamp = text.parse().ok()?;
    Some(Timestamp(time.as_millisecond()))
}
