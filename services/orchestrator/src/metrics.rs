//! The fleet in figures, as `docs` promises them to Prometheus: gauges from what the fleet shows, counters and
//! histograms from what it tells.

use std::collections::BTreeMap;

use prometheus::{GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry};
use understudy_core::{
    contract::{
        api::{FailoverView, ReasonKind, ServerState, ServerView},
        event::Event,
        heartbeat::CameraStatus,
        rpc::{OrchestratorReply, OrchestratorRequest},
    },
    fleet::Fleet,
    ids::{DomainId, FailoverId, ServerId},
    server::Mode,
};
use understudy_runtime::clock;

use crate::job::fresh;

/// Upper bounds in seconds: from the target of half a second to the longest disconnection duration.
const BUCKETS: [f64; 12] = [0.25, 0.5, 1.0, 1.5, 2.0, 2.5, 5.0, 8.7, 15.0, 30.0, 60.0, 3600.0];

pub(crate) struct Metrics {
    cameras: IntGaugeVec,
    servers: IntGaugeVec,
    protected: IntGaugeVec,
    unprotected: IntGaugeVec,
    active: IntGaugeVec,
    progress: GaugeVec,
    failovers: IntCounterVec,
    detection: HistogramVec,
    downtime: HistogramVec,
    failback_bytes: IntCounterVec,
}

impl Metrics {
    pub(crate) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let gauge = |name: &str, help: &str, labels: &[&str]| -> prometheus::Result<IntGaugeVec> {
            let gauge = IntGaugeVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
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
        let progress = GaugeVec::new(
            Opts::new(
                "understudy_failback_progress_ratio",
                "Share of a failback's bytes that arrived",
            ),
            &["domain", "server"],
        )?;
        registry.register(Box::new(progress.clone()))?;
        Ok(Self {
            cameras: gauge("understudy_cameras", "Cameras by state", &["domain", "state"])?,
            servers: gauge(
                "understudy_servers",
                "Servers by role and state",
                &["domain", "role", "state"],
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
            progress,
            failovers: counter(
                "understudy_failovers_total",
                "Failovers that are over",
                &["domain", "mode", "reason", "outcome"],
            )?,
            detection: histogram(
                "understudy_failover_detection_seconds",
                "From the last sign of a server to the decision",
                &["domain"],
            )?,
            downtime: histogram(
                "understudy_failover_downtime_seconds",
                "From the last sign of a server until its last camera films again",
                &["domain", "mode"],
            )?,
            failback_bytes: counter(
                "understudy_failback_bytes_total",
                "Bytes handed back",
                &["domain"],
            )?,
        })
    }

    /// Brings the gauges up to date.
    pub(crate) fn show(&self, fleet: &mut Fleet) {
        let Some(servers) = servers(fleet) else { return };
        let domains: BTreeMap<ServerId, DomainId> = servers
            .iter()
            .map(|view| (view.server.id.clone(), view.server.domain.clone()))
            .collect();
        for gauge in [
            &self.cameras,
            &self.servers,
            &self.protected,
            &self.unprotected,
            &self.active,
        ] {
            gauge.reset();
        }
        self.progress.reset();
        for view in &servers {
            self.show_server(view);
        }
        self.show_cameras(fleet, &domains);
        for failover in failovers(fleet) {
            self.show_failover(&failover, &domains);
        }
    }

    fn show_server(&self, view: &ServerView) {
        let domain = view.server.domain.as_str();
        self.servers
            .with_label_values(&[domain, role(view.server.mode), state(view.state)])
            .inc();
        if view.server.mode == Mode::Recording {
            self.protected
                .with_label_values(&[domain])
                .add(i64::from(view.protected));
            self.unprotected
                .with_label_values(&[domain])
                .add(i64::from(!view.protected));
        }
    }

    fn show_cameras(&self, fleet: &mut Fleet, domains: &BTreeMap<ServerId, DomainId>) {
        let (answer, _) = fleet.answer(OrchestratorRequest::ListCameras, fresh(), clock::now());
        let Ok(OrchestratorReply::Cameras(cameras)) = answer else {
            return;
        };
        for view in cameras {
            let Some(domain) = domains.get(&view.camera.server) else {
                continue;
            };
            let state = match view.status {
                Some(CameraStatus::Recording) => "recording",
                Some(CameraStatus::LiveOnly) => "live_only",
                Some(CameraStatus::Disabled { .. }) => "disabled",
                None if !view.camera.enabled => "disabled",
                Some(CameraStatus::Connecting | CameraStatus::Lost { .. }) | None => "lost",
            };
            self.cameras.with_label_values(&[domain.as_str(), state]).inc();
        }
    }

    fn show_failover(&self, failover: &FailoverView, domains: &BTreeMap<ServerId, DomainId>) {
        let Some(domain) = domains.get(&failover.server) else {
            return;
        };
        if !failover.phase.is_final() {
            self.active.with_label_values(&[domain.as_str()]).inc();
        }
        if failover.phase.hands_back() && failover.progress.bytes_total > 0 {
            let ratio = failover.progress.bytes_done as f64 / failover.progress.bytes_total as f64;
            self.progress
                .with_label_values(&[domain.as_str(), failover.server.as_str()])
                .set(ratio);
        }
    }

    /// Counts what the fleet tells.
    pub(crate) fn count(&self, event: &Event, fleet: &Fleet) {
        match event {
            Event::FailoverStarted {
                failover,
                server,
                silent_ms,
                ..
            } if kind(fleet, failover).is_some_and(|kind| kind != ReasonKind::Manual) => {
                let seconds = *silent_ms as f64 / 1000.0;
                self.detection
                    .with_label_values(&[domain(fleet, server)])
                    .observe(seconds);
            }
            Event::FailoverServing { failover, server, .. } => self.downtime(fleet, failover, server),
            Event::FailoverCompleted {
                failover,
                server,
                progress,
                ..
            } => {
                self.ended(fleet, failover, server, "completed");
                let bytes = self.failback_bytes.with_label_values(&[domain(fleet, server)]);
                bytes.inc_by(progress.bytes_done);
            }
            Event::FailoverAborted { failover, server, .. } => {
                self.ended(fleet, failover, server, "aborted");
            }
            _ => {}
        }
    }

    fn downtime(&self, fleet: &Fleet, id: &FailoverId, server: &ServerId) {
        let Some(failover) = fleet.failovers().find(|failover| failover.id == *id) else {
            return;
        };
        let view = failover.view();
        let Some(takeover) = view.takeover_ms else { return };
        let seconds = (view.detection_ms + takeover) as f64 / 1000.0;
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
