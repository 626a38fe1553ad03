//! What traces cost: the same takeover without and with them, in turns, and one span by itself.

use std::{path::Path, process::Command, time::Duration};

use anyhow::ensure;
use tokio::time::Instant;
use understudy_demo::report::Report;
use understudy_runtime::{Process, TelemetryConfig, TraceContext};
use understudy_scenarios::collector::Collector;

/// How often each is measured.
const ROUNDS: usize = 3;
/// Spans that are timed at once: fewer than find room.
const SPANS: u32 = 1_000;

/// What was measured; of several rounds the best, since whatever else runs only ever adds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Traces {
    /// A manual failover without traces.
    pub(crate) off_net_seconds: f64,
    /// The same with every trace recorded.
    pub(crate) on_net_seconds: f64,
    /// Spans of one failover and failback, as the collector got them.
    pub(crate) spans: usize,
    /// One span, from its beginning to the queue, where its trace is recorded.
    pub(crate) span_nanoseconds: f64,
    /// The same where it is not.
    pub(crate) unsampled_nanoseconds: f64,
}

/// Measures with `cameras` cameras.
pub(crate) async fn measure(executable: &Path, cameras: usize, folder: &Path) -> anyhow::Result<Traces> {
    let collector = Collector::start().await?;
    let (mut off, mut on, mut spans) = (f64::MAX, f64::MAX, 0);
    for round in 1..=ROUNDS {
        eprintln!("manual failover of {cameras} cameras without traces, {round} of {ROUNDS}");
        let report = demo(executable, cameras, &folder.join("off.json"), None).await?;
        off = off.min(report.figures.takeover_net_seconds);
        eprintln!("the same with traces");
        let before = collector.spans().len();
        let report = demo(executable, cameras, &folder.join("on.json"), Some(&collector)).await?;
        on = on.min(report.figures.takeover_net_seconds);
        spans = collector.spans().len() - before;
        // Connection, first frame and the camera itself, at least.
        ensure!(spans > 3 * cameras, "only {spans} spans arrived");
    }
    Ok(Traces {
        off_net_seconds: off,
        on_net_seconds: on,
        spans,
        span_nanoseconds: one_span(Some(&collector)).await,
        unsampled_nanoseconds: one_span(None).await,
    })
}

/// In a thread of its own, since it waits for a whole demo.
async fn demo(
    executable: &Path,
    cameras: usize,
    report: &Path,
    collector: Option<&Collector>,
) -> anyhow::Result<Report> {
    let mut command = Command::new(executable);
    command
        .args([
            "demo",
            "--failure",
            "manual",
            "--cameras",
            &cameras.to_string(),
            "--report",
        ])
        .arg(report)
        .stdout(std::process::Stdio::null());
    if let Some(collector) = collector {
        command.env("UNDERSTUDY_TELEMETRY__OTLP_ENDPOINT", collector.endpoint());
    }
    let status = tokio::task::spawn_blocking(move || command.status()).await??;
    ensure!(status.success(), "the demo failed");
    Ok(serde_json::from_str(&std::fs::read_to_string(report)?)?)
}

/// The nanoseconds that one span takes whoever records it.
async fn one_span(collector: Option<&Collector>) -> f64 {
    let config = TelemetryConfig {
        otlp_endpoint: collector.map(Collector::endpoint).unwrap_or_default(),
        ..TelemetryConfig::default()
    };
    let process = Process::for_test_traced("bench", &config);
    let tracer = process.tracer();
    let root = tracer.begin();
    let mut best = Duration::MAX;
    for _ in 0..20 {
        let begun = Instant::now();
        for number in 0..SPANS {
            let open = tracer.open("camera", std::hint::black_box(root));
            open.end(|span| span.with("camera", "cam-001").with("tries", u64::from(number)));
        }
        best = best.min(begun.elapsed());
        // Until the queue has room again for all of them.
        tokio::time::sleep(Duration::from_millis(1_200)).await;
    }
    assert_eq!(TraceContext::is_sampled(&root), collector.is_some());
    process.finish().await;
    best.as_nanos() as f64 / f64::from(SPANS)
}
