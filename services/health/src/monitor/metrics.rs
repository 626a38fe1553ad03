//! What the monitor counts and shows on `/metrics`.

use std::collections::{BTreeMap, BTreeSet};

use prometheus::{GaugeVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};
use understudy_core::{
    contract::heartbeat::{Heartbeat, Observation, StorageState},
    ids::{DomainId, ServerId},
    presence::Path,
    time::{Moment, Monotonic},
};

use super::offset::Offset;

/// The monitor's metrics, and the moment of each server's last beat.
pub(crate) struct Metrics {
    age: GaugeVec,
    offset: GaugeVec,
    storage: IntGaugeVec,
    blind: IntGauge,
    beats: IntCounterVec,
    refused: IntCounter,
    last: BTreeMap<ServerId, (DomainId, Monotonic)>,
    clocks: BTreeMap<ServerId, Offset>,
}

impl Metrics {
    pub(crate) fn register(registry: &Registry, host_domain: &str) -> Result<Self, prometheus::Error> {
        let own = |name: &str, help: &str| Opts::new(name, help).const_label("domain", host_domain);
        let metrics = Self {
            age: GaugeVec::new(
                Opts::new(
                    "understudy_heartbeat_age_seconds",
                    "Time since a server was last heard, on any path",
                ),
                &["domain", "server"],
            )?,
            offset: GaugeVec::new(
                Opts::new(
                    "understudy_clock_offset_seconds",
                    "How far a server's wall clock is ahead of the host's, by its beats; late by the way they take",
                ),
                &["domain", "server"],
            )?,
            storage: IntGaugeVec::new(
                Opts::new(
                    "understudy_storage_state",
                    "A server's recording volume: 1 for the state it is in",
                ),
                &["domain", "server", "state"],
            )?,
            blind: IntGauge::with_opts(own(
                "understudy_host_blind",
                "1 while the host may be cut off, so that nothing is concluded from silence",
            ))?,
            beats: IntCounterVec::new(own("understudy_heartbeats_total", "Heartbeats taken"), &["path"])?,
            refused: IntCounter::with_opts(own(
                "understudy_heartbeats_refused_total",
                "Messages and requests that were no heartbeat",
            ))?,
            last: BTreeMap::new(),
            clocks: BTreeMap::new(),
        };
        registry.register(Box::new(metrics.age.clone()))?;
        registry.register(Box::new(metrics.offset.clone()))?;
        registry.register(Box::new(metrics.storage.clone()))?;
        registry.register(Box::new(metrics.blind.clone()))?;
        registry.register(Box::new(metrics.beats.clone()))?;
        registry.register(Box::new(metrics.refused.clone()))?;
        Ok(metrics)
    }

    pub(crate) fn refused(&self) -> IntCounter {
        self.refused.clone()
    }

    pub(crate) fn beat(&mut self, path: Path, beat: &Heartbeat, now: Moment) {
        let (server, domain) = (&beat.server, &beat.domain);
        let path = match path {
            Path::Broker => "broker",
            Path::Direct => "direct",
        };
        self.beats.with_label_values(&[path]).inc();
        let before = self.last.insert(server.clone(), (domain.clone(), now.monotonic));
        if let Some((old, _)) = before
            && old != *domain
        {
            self.remove(&old, server);
        }
        let clock = self.clocks.entry(server.clone()).or_default();
        let seconds = clock.heard(beat.sent_at, now.wall).as_secs_f64();
        self.offset
            .with_label_values(&[domain.as_str(), server.as_str()])
            .set(seconds);
    }

    pub(crate) fn observed(&self, domain: &DomainId, observation: &Observation) {
        for (state, name) in [
            (StorageState::Normal, "normal"),
            (StorageState::Degraded, "degraded"),
            (StorageState::Damaged, "damaged"),
        ] {
            self.storage
                .with_label_values(&[domain.as_str(), observation.server.as_str(), name])
                .set(i64::from(observation.storage.state == state));
        }
    }

    pub(crate) fn tick(&self, blind: bool, now: Monotonic) {
        self.blind.set(i64::from(blind));
        for (server, (domain, last)) in &self.last {
            self.age
                .with_label_values(&[domain.as_str(), server.as_str()])
                .set(now.since(*last).as_secs_f64());
        }
    }

    /// Shows only these servers from now on.
    pub(crate) fn keep(&mut self, enrolled: &BTreeSet<ServerId>) {
        let gone: Vec<ServerId> = self
            .last
            .keys()
            .filter(|server| !enrolled.contains(*server))
            .cloned()
            .collect();
        for server in gone {
            self.clocks.remove(&server);
            if let Some((domain, _)) = self.last.remove(&server) {
                self.remove(&domain, &server);
            }
        }
    }

    fn remove(&self, domain: &DomainId, server: &ServerId) {
        // A series that was never shown can't be removed, and need not be.
        for gauge in [&self.age, &self.offset] {
            let _ = gauge.remove_label_values(&[domain.as_str(), server.as_str()]);
        }
        for state in ["normal", "degraded", "damaged"] {
            let _ = self
                .storage
                .remove_label_values(&[domain.as_str(), server.as_str(), state]);
        }
    }
}
