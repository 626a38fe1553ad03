//! Spans reach a collector as the protocol says, and a collector that is away harms nobody.

#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};

use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    trace::v1::{ResourceSpans, span::SpanKind},
};
use prost::Message as _;
use understudy_runtime::{
    Process, TelemetryConfig, TraceContext,
    trace::{Kind, Span},
};
use warp::{Filter as _, http::StatusCode};

/// A collector: what it takes is decoded by the protocol's own types.
struct Collector {
    address: SocketAddr,
    taken: Arc<Mutex<Vec<ResourceSpans>>>,
    answers: Arc<AtomicU16>,
    /// How often it was asked.
    asked: Arc<AtomicU16>,
}

impl Collector {
    async fn start() -> Self {
        let taken = Arc::<Mutex<Vec<ResourceSpans>>>::default();
        let answers = Arc::new(AtomicU16::new(200));
        let asked = Arc::<AtomicU16>::default();
        let (into, says, counts) = (Arc::clone(&taken), Arc::clone(&answers), Arc::clone(&asked));
        #[expect(clippy::disallowed_methods, reason = "a length limit stands before it")]
        let body = warp::body::content_length_limit(8 << 20).and(warp::body::bytes());
        let route = warp::path!("v1" / "traces")
            .and(warp::post())
            .and(warp::header::exact("content-type", "application/x-protobuf"))
            .and(body)
            .map(move |body: bytes::Bytes| {
                counts.fetch_add(1, Ordering::Relaxed);
                let status = says.load(Ordering::Relaxed);
                if status == 200 {
                    let request = ExportTraceServiceRequest::decode(body).unwrap();
                    into.lock().unwrap().extend(request.resource_spans);
                }
                warp::reply::with_status("", StatusCode::from_u16(status).unwrap())
            });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(warp::serve(route).incoming(listener).run());
        Self {
            address,
            taken,
            answers,
            asked,
        }
    }

    fn config(&self) -> TelemetryConfig {
        TelemetryConfig {
            otlp_endpoint: format!("http://{}", self.address),
            ..TelemetryConfig::default()
        }
    }

    fn spans(&self) -> Vec<opentelemetry_proto::tonic::trace::v1::Span> {
        let taken = self.taken.lock().unwrap();
        let scopes = taken.iter().flat_map(|resource| &resource.scope_spans);
        scopes.flat_map(|scope| scope.spans.clone()).collect()
    }
}

fn counted(process: &Process, outcome: &str) -> u64 {
    let families = process.registry().gather();
    let family = families
        .iter()
        .find(|family| family.name() == "understudy_trace_spans_total")
        .expect("spans are counted");
    let found = family.get_metric().iter().find(|metric| {
        let labels = metric.get_label();
        labels.iter().any(|label| label.value() == outcome)
    });
    found.map_or(0.0, |metric| metric.get_counter().get_value()) as u64
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(tokio::time::Instant::now() < deadline, "not within 20 s: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn numbered(context: TraceContext, number: usize) -> Span {
    Span::until_now("camera", context.part("camera", number), Some(context), 1)
}

#[tokio::test]
async fn j4_a_span_arrives_as_the_protocol_says() {
    let collector = Collector::start().await;
    let process = Process::for_test_traced("orchestrator", &collector.config());
    let tracer = process.tracer();
    let root = tracer.begin();
    assert!(root.is_sampled() && tracer.records(&root));
    let open = tracer.open("license transfer", root);
    let inside = open.scope(async { TraceContext::current() }).await;
    assert_eq!(
        inside,
        Some(open.context),
        "what is sent meanwhile is a part of it"
    );
    let context = open.context;
    open.end(|span| {
        span.of(Kind::Client)
            .with("failover", "f-1")
            .with("devices", 4_usize)
            .failed(Some("the ledger is away".to_owned()))
    });
    // It is sent at the latest when the process ends.
    process.finish().await;

    let spans = collector.spans();
    assert_eq!(spans.len(), 1, "{spans:?}");
    let span = &spans[0];
    let hexadecimal = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!(hexadecimal(&span.trace_id), root.trace_id());
    assert!(
        context.to_string().contains(&hexadecimal(&span.span_id)),
        "{context} {span:?}"
    );
    assert!(root.to_string().contains(&hexadecimal(&span.parent_span_id)));
    assert_eq!(
        (span.name.as_str(), span.kind()),
        ("license transfer", SpanKind::Client)
    );
    assert!(span.end_time_unix_nano >= span.start_time_unix_nano);
    assert!(span.start_time_unix_nano > 1_600_000_000_000_000_000);
    assert_eq!(span.attributes.len(), 2);
    assert_eq!(span.status.as_ref().unwrap().message, "the ledger is away");
    let taken = collector.taken.lock().unwrap();
    let resource = taken[0].resource.as_ref().unwrap();
    let name = resource.attributes.iter().find(|one| one.key == "service.name");
    assert!(
        format!("{name:?}").contains("understudy-orchestrator"),
        "{resource:?}"
    );
}

#[tokio::test]
async fn j4_what_is_not_sampled_is_recorded_nowhere() {
    let collector = Collector::start().await;
    let config = TelemetryConfig {
        trace_ratio: 0.25,
        ..collector.config()
    };
    let process = Process::for_test_traced("monitor", &config);
    let tracer = process.tracer();
    let sampled = (0..4_000).filter(|_| tracer.begin().is_sampled()).count();
    // Of 4,000 traces 1,000 in the mean, with a deviation of 27.
    assert!((800..1_200).contains(&sampled), "{sampled} of 4000");
    // The one who begins decides for all.
    let unsampled = TraceContext::root();
    tracer.record(numbered(unsampled, 1));
    let open = tracer.open("camera", unsampled);
    assert_eq!(
        open.context, unsampled,
        "without a span of its own it hands on its cause"
    );
    open.end(|_| panic!("nothing is described that nobody records"));
    process.finish().await;
    assert_eq!(collector.spans(), []);

    // Without a collector nothing is sampled, whatever the ratio.
    let process = Process::for_test("monitor");
    assert!(!process.tracer().begin().is_sampled());
    process.finish().await;
}

#[tokio::test]
async fn j4_a_collector_that_is_away_costs_a_bounded_queue_and_no_time() {
    // It is overloaded at first.
    let collector = Collector::start().await;
    collector.answers.store(503, Ordering::Relaxed);
    let process = Process::for_test_traced("ingest", &collector.config());
    let tracer = process.tracer();
    let root = tracer.begin();
    tracer.record(numbered(root, 60_000));
    until("it to be asked", || collector.asked.load(Ordering::Relaxed) > 0).await;
    let begun = tokio::time::Instant::now();
    for number in 0..50_000 {
        tracer.record(numbered(root, number));
    }
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(2), "nothing is waited for: {took:?}");
    // The queue holds 2,048, and a batch under way 512; the rest was dropped, and counted.
    let dropped = counted(&process, "dropped");
    assert!(dropped >= 50_000 - 2_048 - 512, "{dropped}");
    assert_eq!(counted(&process, "exported"), 0);

    // Back again: what was kept arrives, and new spans do.
    collector.answers.store(200, Ordering::Relaxed);
    let kept = usize::try_from(50_001 - dropped).unwrap();
    until("what was kept to arrive", || collector.spans().len() >= kept).await;
    tracer.record(numbered(root, 50_000));
    until("a new span to arrive", || collector.spans().len() > kept).await;
    assert_eq!(counted(&process, "dropped"), dropped, "nothing more is dropped");
    until("all of them to be counted", || {
        counted(&process, "exported") == 50_002 - dropped
    })
    .await;

    // One that refuses gets nothing twice.
    collector.answers.store(400, Ordering::Relaxed);
    tracer.record(numbered(root, 50_001));
    until("the refusal to be counted", || counted(&process, "refused") == 1).await;
    process.finish().await;
}

#[tokio::test]
async fn j4_a_process_ends_in_time_although_its_collector_hangs() {
    // It takes connections and never answers.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = TelemetryConfig {
        otlp_endpoint: format!("http://{}/", listener.local_addr().unwrap()),
        ..TelemetryConfig::default()
    };
    let process = Process::for_test_traced("ingest", &config);
    let root = process.tracer().begin();
    process.tracer().record(numbered(root, 1));
    let connection = listener.accept().await.unwrap();
    let begun = tokio::time::Instant::now();
    let same = process.clone();
    process.finish().await;
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!(counted(&same, "dropped"), 1, "what could not be sent is counted");
    drop(connection);
}

#[tokio::test]
async fn an_address_that_is_none_is_refused_with_what_to_do() {
    for (endpoint, ratio, says) in [
        ("collector:4318", 1.0, "http://127.0.0.1:4318"),
        ("https://collector:4318", 1.0, "TLS"),
        ("http://127.0.0.1:4318", 1.5, "trace_ratio"),
        ("", f64::NAN, "trace_ratio"),
    ] {
        let config = TelemetryConfig {
            otlp_endpoint: endpoint.to_owned(),
            trace_ratio: ratio,
        };
        let started = Process::start_traced("test", &Default::default(), &config).await;
        let text = started.expect_err("it is wrong").to_string();
        assert!(text.contains(says), "{text}");
    }
}
