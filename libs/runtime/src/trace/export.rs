//! Spans on their way to a collector: OTLP over HTTP, protobuf (OpenTelemetry Protocol 1.x, "OTLP/HTTP").
//!
//! Nobody waits for it. What it holds is bounded: a queue, and one batch under way; while the collector is away the
//! queue fills, and what finds no room is dropped and counted. What is measured is never worth more than what it
//! measures.

use std::{sync::Arc, time::Duration};

use opentelemetry_proto::tonic::{
    collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse},
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value},
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span as Proto, Status, span::SpanKind, status::StatusCode},
};
use prometheus::{IntCounterVec, Opts, Registry};
use prost::Message as _;
use serde::{Deserialize, Serialize};
use tokio::{sync::mpsc, time::sleep};
use tokio_util::sync::CancellationToken;

use super::{Kind, Span, Value};

/// Spans that wait, of some 400 bytes each: two takeovers of 90 cameras with all their attempts, or a megabyte.
const WAITING: usize = 2_048;
/// The most spans of one request.
const BATCH: usize = 512;
/// For how long spans are gathered before they are sent.
const GATHERED: Duration = Duration::from_millis(500);
/// For how long a collector may take to answer.
const DEADLINE: Duration = Duration::from_secs(3);
/// The same for the last batch of a process that ends.
const LAST_DEADLINE: Duration = Duration::from_secs(1);
/// How long it waits before it tries again, at first and at most.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Where OTLP/HTTP takes traces, below the endpoint.
const PATH: &str = "v1/traces";

/// Section `[telemetry]`: traces, which go nowhere unless it says where to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TelemetryConfig {
    /// The base URL of a collector that takes OTLP over HTTP, e.g. `http://127.0.0.1:4318`; empty: none.
    pub otlp_endpoint: String,
    /// The share of traces that is recorded, of those that begin at this process: 0 to 1.
    pub trace_ratio: f64,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self {
            otlp_endpoint: String::new(),
            trace_ratio: 1.0,
        }
    }
}

/// Why traces can't be sent.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The share is none.
    #[error("telemetry.trace_ratio = {0} is no share: choose a number from 0 (no trace) to 1 (every trace)")]
    Ratio(f64),
    /// The address can't be used.
    #[error(
        "telemetry.otlp_endpoint = {endpoint:?}: {why}; give the base URL of a collector that takes OTLP over plain \
         HTTP, like http://127.0.0.1:4318"
    )]
    Endpoint {
        /// What was given.
        endpoint: String,
        /// What is wrong with it.
        why: String,
    },
    /// A metric's name is taken.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

impl TelemetryConfig {
    fn url(&self) -> Result<reqwest::Url, TelemetryError> {
        let wrong = |why: String| TelemetryError::Endpoint {
            endpoint: self.otlp_endpoint.clone(),
            why,
        };
        let base = format!("{}/{PATH}", self.otlp_endpoint.trim_end_matches('/'));
        let url = reqwest::Url::parse(&base).map_err(|error| wrong(error.to_string()))?;
        match url.scheme() {
            "http" => Ok(url),
            "https" => Err(wrong(
                "TLS is not spoken to a collector; run one on this machine, and let it pass on what it gets"
                    .to_owned(),
            )),
            other => Err(wrong(format!("{other}: is no way to a collector"))),
        }
    }
}

/// The giving end of the queue.
#[derive(Clone, Debug)]
pub(crate) struct Exporter(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    queue: mpsc::Sender<Span>,
    ratio: f64,
    counted: IntCounterVec,
}

/// The sending end.
pub(crate) struct Sender {
    queue: mpsc::Receiver<Span>,
    http: reqwest::Client,
    url: reqwest::Url,
    resource: Resource,
    counted: IntCounterVec,
    away: bool,
}

/// What became of a batch.
enum Outcome {
    /// Taken, but for so many.
    Taken(u64),
    /// Not now.
    Later(String),
    /// Never.
    Refused(String),
}

impl Exporter {
    /// Both ends for the process `name`; none if no collector is configured.
    ///
    /// # Errors
    /// [`TelemetryError`] says what to do about it.
    pub(crate) fn new(
        config: &TelemetryConfig,
        name: &str,
        instance: &str,
        domain: &str,
        registry: &Registry,
    ) -> Result<Option<(Self, Sender)>, TelemetryError> {
        if !(0.0..=1.0).contains(&config.trace_ratio) {
            return Err(TelemetryError::Ratio(config.trace_ratio));
        }
        if config.otlp_endpoint.is_empty() {
            return Ok(None);
        }
        let url = config.url()?;
        let options = Opts::new(
            "understudy_trace_spans_total",
            "Spans of traces by what became of them: exported, refused by the collector, dropped for want of room.",
        )
        .const_label("domain", domain);
        let counted = IntCounterVec::new(options, &["outcome"])?;
        for outcome in ["exported", "refused", "dropped"] {
            counted.with_label_values(&[outcome]);
        }
        registry.register(Box::new(counted.clone()))?;
        let http = reqwest::Client::builder().no_proxy().timeout(DEADLINE).build();
        let http = http.map_err(|error| TelemetryError::Endpoint {
            endpoint: config.otlp_endpoint.clone(),
            why: error.to_string(),
        })?;
        let (queue, waiting) = mpsc::channel(WAITING);
        let exporter = Self(Arc::new(Inner {
            queue,
            ratio: config.trace_ratio,
            counted: counted.clone(),
        }));
        let attributes = vec![
            attribute("service.namespace", "understudy".into()),
            attribute("service.name", format!("understudy-{name}").into()),
            attribute("service.version", crate::VERSION.into()),
            attribute("service.instance.id", format!("{name}@{instance}").into()),
            attribute("understudy.domain", domain.into()),
        ];
        let sender = Sender {
            queue: waiting,
            http,
            url,
            resource: Resource {
                attributes,
                ..Resource::default()
            },
            counted,
            away: false,
        };
        Ok(Some((exporter, sender)))
    }

    /// Whether a trace that begins here is recorded: by its id, so that it is the same wherever it is asked
    /// (OpenTelemetry, "TraceIdRatioBased").
    pub(crate) fn samples(&self, trace: u128) -> bool {
        // 53 bits are what a double holds exactly.
        let share = (trace & ((1 << 53) - 1)) as f64 / (1u64 << 53) as f64;
        share < self.0.ratio
    }

    pub(crate) fn take(&self, span: Span) {
        if self.0.queue.try_send(span).is_err() {
            self.0.counted.with_label_values(&["dropped"]).inc();
        }
    }
}

impl Sender {
    /// Sends what comes until the shutdown; then once more what is there.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        let mut batch = Vec::new();
        let mut pause = FIRST_PAUSE;
        loop {
            let round = async {
                if batch.is_empty() {
                    self.queue.recv_many(&mut batch, BATCH).await;
                    sleep(GATHERED).await;
                }
                while batch.len() < BATCH
                    && let Ok(span) = self.queue.try_recv()
                {
                    batch.push(span);
                }
            };
            if shutdown.run_until_cancelled(round).await.is_none() {
                break;
            }
            let request = self.request(&batch);
            let Some(outcome) = shutdown.run_until_cancelled(self.send(request)).await else {
                break;
            };
            if self.note(outcome, batch.len()) {
                batch.clear();
                pause = FIRST_PAUSE;
                continue;
            }
            if shutdown.run_until_cancelled(sleep(pause)).await.is_none() {
                break;
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        self.finish(batch).await;
    }

    /// What the tasks of an ending process said last is sent with the rest, if the collector is quick.
    async fn finish(mut self, mut batch: Vec<Span>) {
        sleep(GATHERED).await;
        while let Ok(span) = self.queue.try_recv() {
            batch.push(span);
        }
        if batch.is_empty() {
            return;
        }
        let sent = tokio::time::timeout(LAST_DEADLINE, self.send(self.request(&batch))).await;
        let outcome = sent.unwrap_or_else(|_| Outcome::Later("it does not answer in time".to_owned()));
        if !self.note(outcome, batch.len()) {
            self.count("dropped", batch.len());
        }
    }

    fn count(&self, outcome: &str, spans: usize) {
        let spans = u64::try_from(spans).unwrap_or(u64::MAX);
        self.counted.with_label_values(&[outcome]).inc_by(spans);
    }

    /// Counts, and tells once of a change. Whether the batch is done with.
    fn note(&mut self, outcome: Outcome, spans: usize) -> bool {
        match outcome {
            Outcome::Taken(rejected) => {
                let rejected = usize::try_from(rejected).unwrap_or(spans).min(spans);
                self.count("refused", rejected);
                self.count("exported", spans - rejected);
                if self.away {
                    tracing::info!("the collector takes traces again");
                }
                self.away = false;
                true
            }
            Outcome::Later(why) => {
                if !self.away {
                    tracing::warn!(
                        why,
                        "traces can't be sent; nothing waits for them, and what finds no room is dropped"
                    );
                }
                self.away = true;
                false
            }
            Outcome::Refused(why) => {
                self.count("refused", spans);
                tracing::warn!(why, spans, "the collector refuses traces");
                true
            }
        }
    }

    fn request(&self, batch: &[Span]) -> Vec<u8> {
        let spans = ScopeSpans {
            scope: Some(InstrumentationScope {
                name: "understudy".to_owned(),
                version: crate::VERSION.to_owned(),
                ..InstrumentationScope::default()
            }),
            spans: batch.iter().map(proto).collect(),
            ..ScopeSpans::default()
        };
        ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans {
                resource: Some(self.resource.clone()),
                scope_spans: vec![spans],
                ..ResourceSpans::default()
            }],
        }
        .encode_to_vec()
    }

    async fn send(&self, body: Vec<u8>) -> Outcome {
        let request = self
            .http
            .post(self.url.clone())
            .header("content-type", "application/x-protobuf")
            .body(body);
        let answer = match request.send().await {
            Ok(answer) => answer,
            Err(error) => return Outcome::Later(crate::innermost(&error)),
        };
        let status = answer.status();
        match status.as_u16() {
            200..=299 => {
                let rejected = answer.bytes().await.ok().map_or(0, |body| rejected(&body));
                Outcome::Taken(rejected)
            }
            // What may be tried again ("OTLP/HTTP response", retryable codes).
            429 | 502 | 503 | 504 => Outcome::Later(format!("it answers {status}")),
            _ => Outcome::Refused(format!("it answers {status}")),
        }
    }
}

/// How many spans the collector did not take of those that it was sent.
fn rejected(body: &[u8]) -> u64 {
    let answer = ExportTraceServiceResponse::decode(body).unwrap_or_default();
    let rejected = answer.partial_success.map_or(0, |part| part.rejected_spans);
    u64::try_from(rejected).unwrap_or(0)
}

fn attribute(key: &str, value: Value) -> KeyValue {
    let value = match value {
        Value::Text(text) => any_value::Value::StringValue(text),
        Value::Number(number) => any_value::Value::IntValue(number),
    };
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

fn proto(span: &Span) -> Proto {
    let kind = match span.kind {
        Kind::Internal => SpanKind::Internal,
        Kind::Server => SpanKind::Server,
        Kind::Client => SpanKind::Client,
        Kind::Producer => SpanKind::Producer,
        Kind::Consumer => SpanKind::Consumer,
    };
    let said = span.attributes.iter();
    Proto {
        trace_id: span.context.trace.to_be_bytes().to_vec(),
        span_id: span.context.span.to_be_bytes().to_vec(),
        parent_span_id: span
            .parent
            .map(|parent| parent.span.to_be_bytes().to_vec())
            .unwrap_or_default(),
        name: span.name.clone().into_owned(),
        kind: kind.into(),
        start_time_unix_nano: span.start,
        end_time_unix_nano: span.end,
        attributes: said.map(|(key, value)| attribute(key, value.clone())).collect(),
        flags: u32::from(span.context.flags),
        status: span.error.as_ref().map(|error| Status {
            message: error.clone(),
            code: StatusCode::Error.into(),
        }),
        ..Proto::default()
    }
}
