//! One failover, followed through all processes: what arrives at a real OTLP receiver is one tree.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context as _;
use understudy_core::contract::api::{FailoverView, Phase};
use understudy_demo::rig::{Plan, eventually};
use understudy_runtime::TraceContext;
use understudy_scenarios::{
    Fleet, PATIENCE,
    collector::{Collector, Seen},
    plan,
};

/// The spans of one trace, by what they are called.
struct Tree(Vec<Seen>);

impl Tree {
    fn of(collector: &Collector, trace: &TraceContext) -> Self {
        let mut spans = collector.spans();
        spans.retain(|span| span.trace == trace.trace_id());
        Self(spans)
    }

    fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a Seen> + use<'a> {
        let name = name.to_owned();
        self.0.iter().filter(move |span| span.name == name)
    }

    /// The one span of this name of which `key` is said to be `value`.
    fn only(&self, name: &str, key: &str, value: &str) -> &Seen {
        let found: Vec<&Seen> = self.all(name).filter(|span| says(span, key, value)).collect();
        assert_eq!(found.len(), 1, "one {name} with {key}={value} in {self}");
        found[0]
    }

    fn parent(&self, span: &Seen) -> &Seen {
        let parent = self.0.iter().find(|other| other.id == span.parent);
        parent.unwrap_or_else(|| panic!("{} has no parent in {self}", span.name))
    }

    fn path(&self, span: &Seen) -> String {
        let mut names = vec![format!("{} ({})", span.name, span.service)];
        let mut at = span;
        while !at.parent.is_empty() {
            at = self.parent(at);
            names.push(format!("{} ({})", at.name, at.service));
        }
        names.reverse();
        names.join(" > ")
    }
}

impl std::fmt::Display for Tree {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for span in &self.0 {
            let took = (span.end - span.start) / 1_000_000;
            writeln!(
                f,
                "{} < {}: {} ({}) {took} ms {:?} {}",
                span.id, span.parent, span.name, span.service, span.attributes, span.error
            )?;
        }
        Ok(())
    }
}

fn says(span: &Seen, key: &str, value: &str) -> bool {
    span.attributes.get(key).is_some_and(|said| said == value)
}

fn trace(view: &FailoverView) -> anyhow::Result<TraceContext> {
    let text = view.trace.as_ref().context("the failover names no trace")?;
    Ok(text.parse()?)
}

#[tokio::test]
async fn j4_one_trace_spans_a_failover_from_the_lost_heartbeat_to_failback() -> anyhow::Result<()> {
    let collector = Collector::start().await?;
    let mut fleet = Fleet::filming(Plan {
        extra_configuration: collector.configuration(),
        ..plan()
    })
    .await?;
    let begun = collector.spans();
    assert!(
        begun
            .iter()
            .all(|span| span.name != "failover" && span.name != "decision"),
        "nothing fails over while all is well: {begun:?}"
    );
    fleet.files("recorder-1", 4).await?;

    fleet.rig.server("recorder-1").kill();
    fleet.phase("recorder-1", Phase::Serving).await?;
    fleet.files("failover-1", 8).await?;
    // Whoever decides dies in between: the trace goes on.
    fleet.rig.host.orchestrator.kill();
    fleet.rig.host.orchestrator.start()?;
    fleet.rig.host.orchestrator.healthy().await?;
    fleet.rig.server("recorder-1").start()?;
    fleet.is_back("recorder-1").await?;
    fleet.rig.api.stop_failover("recorder-1").await?;
    let over = fleet.phase("recorder-1", Phase::Completed).await?;
    fleet.stands_by("failover-1").await?;

    let context = trace(&over)?;
    assert!(context.is_sampled(), "{context}");
    let tree = eventually("the whole trace to arrive", PATIENCE, async || {
        let tree = Tree::of(&collector, &context);
        let there = |name: &str| tree.all(name).next().is_some();
        match there("failover")
            && there("license return")
            && there("fetch recordings")
            && there("first frame")
        {
            true => Ok(tree),
            false => Err(tree.to_string()),
        }
    })
    .await?;
    println!("{tree}");
    assert_shape(&tree, &over);

    // By hand, in a trace of the caller's; with the collector away nothing else is different.
    drop(collector);
    let caller = TraceContext::root().to_string().replace("-00", "-01");
    let url = format!(
        "http://{}/api/v1/servers/recorder-1/failover",
        fleet.rig.api_address
    );
    let asked = reqwest::Client::new()
        .post(url)
        .header("traceparent", &caller)
        .json(&serde_json::json!({ "by": "a test" }))
        .send()
        .await?;
    let started: FailoverView = asked.error_for_status()?.json().await?;
    assert_eq!(
        trace(&started)?.trace_id(),
        caller.parse::<TraceContext>()?.trace_id()
    );
    fleet.phase("recorder-1", Phase::Serving).await?;
    fleet.films("failover-1", 4).await?;
    for process in fleet.rig.host.processes() {
        let ready = process.readiness().await;
        assert!(matches!(ready, Some((200, _))), "{}: {ready:?}", process.name());
    }
    fleet.rig.stop().await;
    Ok(())
}

/// One root, every part under what led to it, each camera its own, and the end at the end.
fn assert_shape(tree: &Tree, over: &FailoverView) {
    let ids: BTreeSet<&str> = tree.0.iter().map(|span| span.id.as_str()).collect();
    assert_eq!(ids.len(), tree.0.len(), "no span came twice: {tree}");
    let roots: Vec<&Seen> = tree.0.iter().filter(|span| span.parent.is_empty()).collect();
    assert_eq!(roots.len(), 1, "{tree}");
    assert_eq!(
        (roots[0].name.as_str(), roots[0].service.as_str()),
        ("heartbeat lost", "monitor")
    );

    // Each kind of part, by the way that leads to it.
    let ways: BTreeMap<String, usize> = tree.0.iter().fold(BTreeMap::new(), |mut ways, span| {
        *ways.entry(tree.path(span)).or_default() += 1;
        ways
    });
    let whole = "heartbeat lost (monitor) > failover (orchestrator)";
    let taking =
        format!("{whole} > takeover (orchestrator) > assignment (orchestrator) > take assignment (ingest)");
    for (way, least) in [
        (format!("{whole} > detection (orchestrator)"), 1),
        (format!("{whole} > decision (orchestrator)"), 1),
        (
            format!("{whole} > takeover (orchestrator) > license transfer (orchestrator) > ledger (license)"),
            1,
        ),
        (taking.clone(), 1),
        (format!("{taking} > camera (ingest)"), 4),
        (format!("{taking} > camera (ingest) > connection (ingest)"), 4),
        (format!("{taking} > camera (ingest) > first frame (ingest)"), 4),
        (format!("{whole} > serving (orchestrator)"), 1),
        (format!("{whole} > failback (orchestrator)"), 1),
    ] {
        let there = ways.get(&way).copied().unwrap_or(0);
        assert!(there >= least, "{least} × {way}, not {there}, in {ways:#?}");
    }
    let fetched = tree.only("fetch recordings", "server", "recorder-1");
    let way = tree.path(fetched);
    assert!(
        way.starts_with(&format!(
            "{whole} > failback (orchestrator) > assignment (orchestrator)"
        )) && fetched.service == "sync",
        "{way}"
    );

    // On the failover server each camera once.
    let cameras: BTreeSet<&str> = tree
        .all("camera")
        .filter(|camera| says(tree.parent(camera), "server", "failover-1"))
        .filter_map(|camera| camera.attributes.get("camera").map(String::as_str))
        .collect();
    assert_eq!(cameras.len(), 4, "{tree}");
    assert_eq!(over.first_frames.len(), 4, "{over:?}");

    // One after the other.
    let failover = tree.only("failover", "server", "recorder-1");
    let takeover = tree.only("takeover", "server", "recorder-1");
    let failback = tree.only("failback", "server", "recorder-1");
    assert!(failover.start <= takeover.start && takeover.end <= failback.start);
    assert!(
        failback.end <= failover.end && fetched.end <= failover.end,
        "it ends after failback: {tree}"
    );
    for frame in tree.all("first frame") {
        let camera = tree.parent(frame);
        let mut tries = tree.all("connection").filter(|try_| try_.parent == camera.id);
        assert!(tries.all(|connection| connection.end <= frame.end && connection.error.is_empty()));
        assert!(frame.end <= camera.end, "{tree}");
    }
}
