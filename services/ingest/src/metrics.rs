//! What the recording service counts and shows on `/metrics`.

use std::{collections::BTreeMap, time::Duration};

use prometheus::{Counter, IntCounter, IntGauge, IntGaugeVec, Opts, Registry};
use understudy_core::{
    contract::heartbeat::CameraStatus,
    ids::{CameraId, DomainId, ServerId},
};

use crate::acting::{Acting, RightGauge};

/// The recording volume's metrics.
#[derive(Clone)]
pub(crate) struct VolumeGauges {
    /// Bytes of recordings.
    pub(crate) archive: IntGauge,
    /// Bytes that are free.
    pub(crate) free: IntGauge,
}

/// The recording service's metrics.
pub(crate) struct Metrics {
    cameras: IntGaugeVec,
    gap: Counter,
    volume: VolumeGauges,
    assignments: IntCounter,
    viewers: IntGauge,
    damaged: IntCounter,
}

impl Metrics {
    pub(crate) fn register(
        registry: &Registry,
        domain: &DomainId,
        server: &ServerId,
        acting: &Acting,
    ) -> Result<Self, prometheus::Error> {
        let opts = |name: &str, help: &str| {
            Opts::new(name, help)
                .const_label("domain", domain.as_str())
                .const_label("server", server.as_str())
        };
        let metrics = Self {
            cameras: IntGaugeVec::new(
                opts("understudy_cameras", "Cameras of this server by state"),
                &["state"],
            )?,
            gap: Counter::with_opts(opts(
                "understudy_recording_gap_seconds_total",
                "Seconds in which a camera that is to be run did not film, summed over all cameras",
            ))?,
            volume: VolumeGauges {
                archive: IntGauge::with_opts(opts(
                    "understudy_archive_bytes",
                    "Bytes of recordings in the archive",
                ))?,
                free: IntGauge::with_opts(opts(
                    "understudy_archive_free_bytes",
                    "Bytes that are free on the recording volume",
                ))?,
            },
            assignments: IntCounter::with_opts(opts(
                "understudy_assignments_total",
                "Assignments put on disk since the start",
            ))?,
            viewers: IntGauge::with_opts(opts(
                "understudy_relay_viewers",
                "Viewers that are sent live view by this server",
            ))?,
            damaged: IntCounter::with_opts(opts(
                "understudy_damaged_pictures_total",
                "Pictures of UDP cameras that were left out since packets of them, or of what they build on, were lost",
            ))?,
        };
        registry.register(Box::new(metrics.cameras.clone()))?;
        registry.register(Box::new(metrics.gap.clone()))?;
        registry.register(Box::new(metrics.volume.archive.clone()))?;
        registry.register(Box::new(metrics.volume.free.clone()))?;
        registry.register(Box::new(metrics.assignments.clone()))?;
        registry.register(Box::new(metrics.viewers.clone()))?;
        registry.register(Box::new(metrics.damaged.clone()))?;
        let right = IntGauge::with_opts(opts(
            "understudy_right_to_act",
            "1 while this server may open doors and switch outputs for the identity that it bears",
        ))?;
        registry.register(Box::new(RightGauge::new(right, acting.clone())))?;
        Ok(metrics)
    }

    pub(crate) fn volume(&self) -> VolumeGauges {
        self.volume.clone()
    }

    pub(crate) fn assigned(&self) {
        self.assignments.inc();
    }

    /// Shows how many watch, and how many pictures were left out so far.
    pub(crate) fn live(&self, viewers: usize, damaged: u64) {
        self.viewers.set(i64::try_from(viewers).unwrap_or(i64::MAX));
        self.damaged.inc_by(damaged.saturating_sub(self.damaged.get()));
    }

    /// Shows the cameras as they are; those that did not film have a gap of `since` more.
    pub(crate) fn cameras(&self, cameras: &BTreeMap<CameraId, CameraStatus>, since: Duration) {
        for state in ["connecting", "recording", "live_only", "disabled", "lost"] {
            let count = cameras.values().filter(|status| name(status) == state).count();
            self.cameras
                .with_label_values(&[state])
                .set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        let without =
            |status: &&CameraStatus| matches!(status, CameraStatus::Connecting | CameraStatus::Lost { .. });
        let missing = u32::try_from(cameras.values().filter(without).count()).unwrap_or(u32::MAX);
        self.gap.inc_by(since.as_secs_f64() * f64::from(missing));
    }
}

fn name(status: &CameraStatus) -> &'static str {
    match status {
        CameraStatus::Connecting => "connecting",
        CameraStatus::Recording => "recording",
        CameraStatus::LiveOnly => "live_only",
        CameraStatus::Disabled { .. } => "disabled",
        CameraStatus::Lost { .. } => "lost",
    }
}
