//! A collector of traces, as far as scenarios need one: takes OTLP over HTTP, decoded by the protocol's own types.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{KeyValue, any_value::Value},
    trace::v1::ResourceSpans,
};
use prost::Message as _;
use tokio::task::AbortHandle;
use warp::Filter as _;

/// The most bytes of one request that are taken.
const MOST_BYTES: u64 = 16 << 20;

/// A span, as it arrived. Ids are in hexadecimal, times in nanoseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The process that recorded it, without its prefix, e.g. `orchestrator`.
    pub service: String,
    /// Of which trace.
    pub trace: String,
    /// Its own id.
    pub id: String,
    /// The id of what it is a part of; empty at the root.
    pub parent: String,
    /// Its name.
    pub name: String,
    /// Its beginning.
    pub start: u64,
    /// Its end.
    pub end: u64,
    /// What is said of it.
    pub attributes: BTreeMap<String, String>,
    /// Why it failed; empty if it did not.
    pub error: String,
}

/// A collector that listens until it is dropped.
#[derive(Debug)]
pub struct Collector {
    address: SocketAddr,
    spans: Arc<Mutex<Vec<Seen>>>,
    task: AbortHandle,
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Collector {
    /// Listens on a free port.
    ///
    /// # Errors
    /// If there is none.
    pub async fn start() -> std::io::Result<Self> {
        let spans = Arc::<Mutex<Vec<Seen>>>::default();
        let into = Arc::clone(&spans);
        let body = warp::body::content_length_limit(MOST_BYTES);
        #[expect(clippy::disallowed_methods, reason = "a length limit stands before it")]
        let body = body.and(warp::body::bytes());
        let route =
            warp::path!("v1" / "traces")
                .and(warp::post())
                .and(body)
                .map(move |body: bytes::Bytes| {
                    // What can't be decoded is answered as a fault of the sender, and missed by the test.
                    let Ok(request) = ExportTraceServiceRequest::decode(body) else {
                        return warp::http::StatusCode::BAD_REQUEST;
                    };
                    let seen = request.resource_spans.into_iter().flat_map(seen);
                    into.lock().unwrap_or_else(PoisonError::into_inner).extend(seen);
                    warp::http::StatusCode::OK
                });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let task = tokio::spawn(warp::serve(route).incoming(listener).run());
        Ok(Self {
            address,
            spans,
            task: task.abort_handle(),
        })
    }

    /// What a configuration file says to send traces here.
    #[must_use]
    pub fn configuration(&self) -> String {
        format!("\n[telemetry]\notlp_endpoint = {:?}\n", self.endpoint())
    }

    /// Where it listens.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What arrived so far.
    #[must_use]
    pub fn spans(&self) -> Vec<Seen> {
        self.spans.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn seen(resource: ResourceSpans) -> Vec<Seen> {
    let attributes = said(&resource.resource.unwrap_or_default().attributes);
    let service = attributes.get("service.name").cloned().unwrap_or_default();
    let service = service.trim_start_matches("understudy-").to_owned();
    let spans = resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
    spans
        .map(|span| Seen {
            service: service.clone(),
            trace: hexadecimal(&span.trace_id),
            id: hexadecimal(&span.span_id),
            parent: hexadecimal(&span.parent_span_id),
            name: span.name,
            start: span.start_time_unix_nano,
            end: span.end_time_unix_nano,
            attributes: said(&span.attributes),
            error: span.status.map(|status| status.message).unwrap_or_default(),
        })
        .collect()
}

fn said(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |value: &Value| match value {
        Value::StringValue(text) => text.clone(),
        Value::IntValue(number) => number.to_string(),
        other => format!("{other:?}"),
    };
    attributes
        .iter()
        .filter_map(|one| Some((one.key.clone(), text(one.value.as_ref()?.value.as_ref()?))))
        .collect()
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
