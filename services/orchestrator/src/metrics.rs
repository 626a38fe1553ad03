//! The fleet in figures, as `docs` promises them to Prometheus: gauges from what the fleet shows, counters and
//! histograms from what it tells.

mod shown;

use std::collections::{BTreeMap, BTreeSet};

use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry};
use understudy_core::{
    contract::{
        api::{FailoverView, Phase, ReasonKind, ServerState, ServerView},
        event::Event,
        heartbeat::CameraStatus,
        rpc::{OrchestratorReply, OrchestratorRequest},
    },
    fleet::Fleet,
    ids::{DomainId, FailoverId, ServerId},
    server::Mode,
};
use understudy_runtime::clock;

use self::shown::Shown;
use crate::job::fresh;

/// Upper bounds in seconds: from the target of half a second to the longest disconnection duration.
const BUCKETS: [f64; 12] = [0.25, 0.5, 1.0, 1.5, 2.0, 2.5, 5.0, 8.7, 15.0, 30.0, 60.0, 3600.0];

pub(crate) struct Metrics {
    cameras: Shown,
    servers: Shown,
    /// Per server, so that an alert can name it.
    states: Shown,
    guarded: Shown,
    protected: Shown,
    unprotected: Shown,
    active: Shown,
    phases: Shown,
    steps: Shown,
    progress: Shown,
    failovers: IntCounterVec,
    detection: HistogramVec,
    downtime: HistogramVec,
    failback_bytes: IntCounterVec,
    /// Of each failover, the bytes that are in `failback_bytes`; none before the first look, since what arrived
    /// before the start of this process is not counted by it.
    arrived: Option<BTreeMap<FailoverId, u64>>,
}

impl Metrics {
    pub(crate) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let gauge = |name: &str, help: &str, labels: &[&str]| {
            Shown::register(registry, Opts::new(name, help), labels)
        };
        let counter = |name: &str, help: &str, labels: &[&str]| -> prometheus::Result<IntCounterVec> {
            let counter = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let histogram = |name: &str, help: &str, labels: &[&str]| -> prometheus::Result<HistogramVec> {
            let options = HistogramOpts::new(name, help).buckets(BUCKETS.to_vec());
            let histogram = HistogramVec::new(options, labels)?;
            registry.register(Box::new(histogram.clone()))?;
            Ok(histogram)
        };
        Ok(Self {
            cameras: gauge("understudy_cameras", "Cameras by state", &["domain", "state"])?,
            servers: gauge(
                "understudy_servers",
                "Servers by role and state",
                &["domain", "role", "state"],
            )?,
            states: gauge(
                "understudy_server_state",
                "A server: 1 for the state it is in",
                &["domain", "server", "role", "state"],
            )?,
            guarded: gauge(
                "understudy_server_protected",
                "A recording server: 1 if a failover server could take over now",
                &["domain", "server"],
            )?,
            protected: gauge(
                "understudy_protected_servers",
                "Recording servers that a failover server could take over now",
                &["domain"],
            )?,
            unprotected: gauge(
                "understudy_unprotected_servers",
                "Recording servers that nobody could take over now",
                &["domain"],
            )?,
            active: gauge(
                "understudy_failovers_active",
                "Failovers that are not over",
                &["domain"],
            )?,
            phases: gauge(
                "understudy_failover_phase",
                "A recording server's failover that is not over: 1 for the phase it is in",
                &["domain", "server", "phase"],
            )?,
            steps: gauge(
                "understudy_failover_step_seconds",
                "How long each step of a recording server's newest failover took, once it is over",
                &["domain", "server", "step"],
            )?,
            progress: gauge(
                "understudy_failback_progress_ratio",
                "Share of the bytes of a server's newest failback that arrived",
                &["domain", "server"],
            )?,
            failovers: counter(
                "understudy_failovers_total",
                "Failovers that are over",
                &["domain", "mode", "reason", "outcome"],
            )?,
            detection: histogram(
                "understudy_failover_detection_seconds",
                "From the last sign of a server, or the last one without the fault, to the decision",
                &["domain"],
            )?,
            downtime: histogram(
                "understudy_failover_downtime_seconds",
                "From the last sign of a server, or the last one without the fault, until its last camera films again",
                &["domain", "mode"],
            )?,
            failback_bytes: counter(
                "understudy_failback_bytes_total",
                "Bytes handed back",
                &["domain"],
            )?,
            arrived: None,
        })
    }

    /// Brings the gauges up to date.
    pub(crate) fn show(&mut self, fleet: &mut Fleet) {
        let Some(servers) = servers(fleet) else { return };
        let domains: BTreeMap<ServerId, DomainId> = servers
            .iter()
            .map(|view| (view.server.id.clone(), view.server.domain.clone()))
            .collect();
        self.begin(&domains.values().collect());
        for view in &servers {
            self.show_server(view);
        }
        self.show_cameras(fleet, &domains);
        // Newest first: of an older one only what is left of it is shown.
        let mut told = BTreeSet::new();
        let failovers = failovers(fleet);
        self.count_bytes(&failovers, &domains);
        for failover in failovers {
            let newest = told.insert(failover.server.clone());
            self.show_failover(&failover, newest, &domains);
        }
        for gauge in self.gauges() {
            gauge.publish();
        }
    }

    fn gauges(&mut self) -> [&mut Shown; 10] {
        [
            &mut self.cameras,
            &mut self.servers,
            &mut self.states,
            &mut self.guarded,
            &mut self.protected,
            &mut self.unprotected,
            &mut self.active,
            &mut self.phases,
            &mut self.steps,
            &mut self.progress,
        ]
    }

    /// Begins each domain with zeros: a series that comes and goes can't be alerted on, and a counter's first
    /// count is no increase to Prometheus.
    fn begin(&mut self, domains: &BTreeSet<&DomainId>) {
        for domain in domains.iter().map(|domain| domain.as_str()) {
            for state in ["recording", "live_only", "disabled", "surplus", "lost"] {
                self.cameras.add(&[domain, state], 0.0);
            }
            for gauge in [&mut self.protected, &mut self.unprotected, &mut self.active] {
                gauge.add(&[domain], 0.0);
            }
            for kind in KINDS {
                self.downtime.with_label_values(&[domain, mode(kind)]);
                for outcome in ["completed", "aborted"] {
                    self.failovers
                        .with_label_values(&[domain, mode(kind), reason(kind), outcome]);
                }
            }
            self.detection.with_label_values(&[domain]);
            self.failback_bytes.with_label_values(&[domain]);
        }
    }

    fn show_server(&mut self, view: &ServerView) {
        let (domain, server) = (view.server.domain.as_str(), view.server.id.as_str());
        let (role, state) = (role(view.server.mode), state(view.state));
        self.servers.add(&[domain, role, state], 1.0);
        self.states.add(&[domain, server, role, state], 1.0);
        if view.server.mode == Mode::Recording {
            let protected = f64::from(u8::from(view.protected));
            self.guarded.add(&[domain, server], protected);
            self.protected.add(&[domain], protected);
            self.unprotected.add(&[domain], 1.0 - protected);
        }
    }

    fn show_cameras(&mut self, fleet: &mut Fleet, domains: &BTreeMap<ServerId, DomainId>) {
        let now = clock::now();
        let (answer, _) = fleet.answer(OrchestratorRequest::ListCameras, fresh(), now);
        let Ok(OrchestratorReply::Cameras(cameras)) = answer else {
            return;
        };
        for view in cameras {
            let Some(domain) = domains.get(&view.camera.server) else {
                continue;
            };
            // A server that is missed said that it films before it was.
            let missed = |server: &ServerId| fleet.is_missed(server, now.monotonic);
            let state = match view.status {
                Some(CameraStatus::Recording | CameraStatus::LiveOnly)
                    if view.filmed_by.as_ref().is_some_and(missed) =>
                {
                    "lost"
                }
                Some(CameraStatus::Recording) => "recording",
                Some(CameraStatus::LiveOnly) => "live_only",
                // It is to film, and the failover server has no room for it: missing, but nobody's fault.
                Some(CameraStatus::Disabled { .. }) if view.camera.enabled => "surplus",
                Some(CameraStatus::Disabled { .. }) => "disabled",
                None if !view.camera.enabled => "disabled",
                Some(CameraStatus::Connecting | CameraStatus::Lost { .. }) | None => "lost",
            };
            self.cameras.add(&[domain.as_str(), state], 1.0);
        }
    }

    fn show_failover(
        &mut self,
        failover: &FailoverView,
        newest: bool,
        domains: &BTreeMap<ServerId, DomainId>,
    ) {
        let Some(domain) = domains.get(&failover.server).map(DomainId::as_str) else {
            return;
        };
        let server = failover.server.as_str();
        if !failover.phase.is_final() {
            self.active.add(&[domain], 1.0);
            self.phases.set(&[domain, server, phase(failover.phase)], 1.0);
        }
        // The newest one's share stays when it is complete: a failback of seconds would not be seen at all.
        let shown = failover.phase.hands_back() || (newest && failover.phase == Phase::Completed);
        if shown && failover.progress.bytes_total > 0 {
            let ratio = failover.progress.bytes_done as f64 / failover.progress.bytes_total as f64;
            self.progress.set(&[domain, server], ratio);
        }
        if newest {
            for (step, seconds) in steps(failover) {
                self.steps.set(&[domain, server, step], seconds);
            }
        }
    }

    /// Counts what arrived since the last look. A failover that is gone on with may have less for a while, until what
    /// is here is found again: that is not counted twice.
    fn count_bytes(&mut self, failovers: &[FailoverView], domains: &BTreeMap<ServerId, DomainId>) {
        let mut now = BTreeMap::new();
        for failover in failovers {
            let done = failover.progress.bytes_done;
            let counted = match &self.arrived {
                Some(before) => before.get(&failover.id).copied().unwrap_or(0),
                None => done,
            };
            if let Some(domain) = domains.get(&failover.server) {
                let bytes = self.failback_bytes.with_label_values(&[domain.as_str()]);
                bytes.inc_by(done.saturating_sub(counted));
            }
            now.insert(failover.id.clone(), done.max(counted));
        }
        self.arrived = Some(now);
    }

    /// Counts what the fleet tells.
    pub(crate) fn count(&self, event: &Event, fleet: &Fleet) {
        match event {
            Event::FailoverStarted { failover, server, .. } => self.detection(fleet, failover, server),
            Event::FailoverServing { failover, server, .. } => self.downtime(fleet, failover, server),
            Event::FailoverCompleted { failover, server, .. } => {
                self.ended(fleet, failover, server, "completed")
            }
            Event::FailoverAborted { failover, server, .. } => {
                self.ended(fleet, failover, server, "aborted");
            }
            _ => {}
        }
    }

    fn detection(&self, fleet: &Fleet, id: &FailoverId, server: &ServerId) {
        let begun = fleet.failovers().find(|failover| failover.id == *id);
        if let Some(failover) = begun.filter(|failover| failover.reason.kind != ReasonKind::Manual) {
            let seconds = failover.detection_ms as f64 / 1000.0;
            let detection = self.detection.with_label_values(&[domain(fleet, server)]);
            detection.observe(seconds);
        }
    }

    fn downtime(&self, fleet: &Fleet, id: &FailoverId, server: &ServerId) {
        let Some(failover) = fleet.failovers().find(|failover| failover.id == *id) else {
            return;
        };
        let view = failover.view();
        // Who is relieved films until then.
        if view.planned {
            return;
        }
        let (Some(takeover), Some(last)) = (view.takeover_ms, view.first_frames.values().max()) else {
            return;
        };
        // A camera that nobody can film holds the phase up, and nothing else. After a second failover server the
        // beginning is long ago.
        let since_fault = last.0.saturating_sub(view.started_at.0).max(0).unsigned_abs() + view.detection_ms;
        let seconds = since_fault.min(view.detection_ms + takeover) as f64 / 1000.0;
        let labels = [domain(fleet, server), mode(view.reason.kind)];
        self.downtime.with_label_values(&labels).observe(seconds);
    }

    fn ended(&self, fleet: &Fleet, id: &FailoverId, server: &ServerId, outcome: &str) {
        let Some(kind) = kind(fleet, id) else { return };
        let labels = [domain(fleet, server), mode(kind), reason(kind), outcome];
        self.failovers.with_label_values(&labels).inc();
    }
}

fn servers(fleet: &mut Fleet) -> Option<Vec<ServerView>> {
    match fleet
        .answer(OrchestratorRequest::ListServers, fresh(), clock::now())
        .0
    {
        Ok(OrchestratorReply::Servers(servers)) => Some(servers),
        _ => None,
    }
}

fn failovers(fleet: &mut Fleet) -> Vec<FailoverView> {
    match fleet
        .answer(OrchestratorRequest::ListFailovers, fresh(), clock::now())
        .0
    {
        Ok(OrchestratorReply::Failovers(failovers)) => failovers,
        _ => Vec::new(),
    }
}

fn kind(fleet: &Fleet, id: &FailoverId) -> Option<ReasonKind> {
    fleet
        .failovers()
        .find(|failover| failover.id == *id)
        .map(|failover| failover.reason.kind)
}

/// A server that was removed meanwhile has no domain any more.
fn domain<'a>(fleet: &'a Fleet, server: &ServerId) -> &'a str {
    fleet
        .servers()
        .find(|known| known.id == *server)
        .map_or("", |server| server.domain.as_str())
}

/// Every kind of reason.
const KINDS: [ReasonKind; 4] = [
    ReasonKind::Manual,
    ReasonKind::Disconnection,
    ReasonKind::Storage,
    ReasonKind::Package,
];

/// The steps of a failover that are over, with their durations in seconds.
fn steps(failover: &FailoverView) -> Vec<(&'static str, f64)> {
    let seconds = |ms: u64| ms as f64 / 1000.0;
    let reached = |wanted: fn(Phase) -> bool| {
        let mut steps = failover.steps.iter();
        steps
            .find(|step| wanted(step.phase))
            .map(|step| step.at.as_millis())
    };
    let between = |from: Option<i64>, to: Option<i64>| Some(to?.abs_diff(from?));
    let back = reached(Phase::hands_back);
    let ended = failover.ended_at.map(|at| at.as_millis());
    [
        ("detection", Some(failover.detection_ms)),
        ("takeover", failover.takeover_ms),
        ("serving", between(reached(|phase| phase == Phase::Serving), back)),
        ("restoring", between(back, ended)),
    ]
    .into_iter()
    .filter_map(|(step, ms)| Some((step, seconds(ms?))))
    .collect()
}

fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Selecting => "selecting",
        Phase::TakingOver => "taking_over",
        Phase::Serving => "serving",
        Phase::Restoring => "restoring",
        Phase::Replacing => "replacing",
        Phase::Completed => "completed",
        Phase::Aborted => "aborted",
    }
}

fn mode(kind: ReasonKind) -> &'static str {
    if kind == ReasonKind::Manual {
        "manual"
    } else {
        "automatic"
    }
}

fn reason(kind: ReasonKind) -> &'static str {
    match kind {
        ReasonKind::Manual => "manual",
        ReasonKind::Disconnection => "disconnection",
        ReasonKind::Storage => "storage",
        ReasonKind::Package => "package",
    }
}

fn role(mode: Mode) -> &'static str {
    match mode {
        Mode::Host => "host",
        Mode::Recording => "recording",
        Mode::Failover => "failover",
        Mode::Inactive => "inactive",
    }
}

fn state(state: ServerState) -> &'static str {
    match state {
        ServerState::Unknown => "unknown",
        ServerState::Normal => "normal",
        ServerState::Changing => "changing",
        ServerState::FailedOver => "failed_over",
        ServerState::Standby => "standby",
        ServerState::Serving => "serving",
        ServerState::Restoring => "restoring",
        ServerState::Disconnected => "disconnected",
        ServerState::Abnormal => "abnormal",
        ServerState::Disabled => "disabled",
    }
}
