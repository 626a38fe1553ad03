//! The demo's report: its fields are a contract (`design.md`), extended but never renamed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{measure::Figures, story::Failure};

/// What one demo showed. Seconds are rounded to milliseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// How many cameras.
    pub cameras: usize,
    /// `kill`, `manual`, `planned`, `storage` or `partition`.
    pub failure: String,
    /// Whether the cameras began with a key frame for each client, as some real ones do.
    pub key_frame_on_connect: bool,
    /// How long it took, and what is missing.
    #[serde(flatten)]
    pub figures: Figures,
    /// For how long both servers filmed each camera at least, by the frames that both have.
    #[serde(default)]
    pub overlap_seconds: f64,
    /// From `failover.restoring` to `failover.completed`.
    pub failback_seconds: f64,
    /// Size of the failover server's files.
    pub failback_bytes: u64,
    /// Files whose hash after failback is that of before.
    pub segments_verified: u64,
    /// Files whose hash is another, or that did not arrive.
    pub segments_mismatched: u64,
    /// Licensed devices per server.
    pub licenses: Licenses,
    /// Whether the recording server's settings are those of before, byte for byte.
    pub settings_restored: bool,
}

/// Licensed devices per server, from the API.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Licenses {
    /// Before the fault.
    pub before: BTreeMap<String, u32>,
    /// While the failover server serves.
    pub during: BTreeMap<String, u32>,
    /// After failback.
    pub after: BTreeMap<String, u32>,
}

impl Report {
    /// Whether the two servers filmed at the same time, so that no frame may be missing.
    pub(crate) fn both_film(&self) -> bool {
        [Failure::Partition, Failure::Planned]
            .iter()
            .any(|failure| failure.name() == self.failure)
    }

    /// The report for people, line by line.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![
            format!("cameras            {} ({})", self.cameras, self.failure),
            format!("detection          {:.3} s", self.figures.detection_seconds),
            format!(
                "takeover           {:.3} s, of which {:.3} s waiting for the cameras' key frames at most; {:.3} s net",
                self.figures.takeover_seconds,
                self.figures.keyframe_wait_seconds,
                self.figures.takeover_net_seconds
            ),
            format!(
                "frames             {} sent, {} recorded, {} lost ({} at most per camera, {} allowed)",
                self.figures.frames_sent,
                self.figures.frames_recorded,
                self.figures.frames_lost,
                self.figures.frames_lost_worst_camera,
                self.figures.frames_lost_bound
            ),
            format!("longest gap        {:.3} s", self.figures.longest_gap_seconds),
            format!(
                "failback           {:.1} MB in {:.3} s, {} segments verified, {} mismatched",
                self.failback_bytes as f64 / 1e6,
                self.failback_seconds,
                self.segments_verified,
                self.segments_mismatched
            ),
            format!(
                "licences           before {}; during {}; after {}",
                holders(&self.licenses.before),
                holders(&self.licenses.during),
                holders(&self.licenses.after)
            ),
            format!(
                "settings restored  {}",
                if self.settings_restored { "yes" } else { "NO" }
            ),
        ];
        if self.both_film() {
            lines.push(format!("both filmed        {:.3} s", self.overlap_seconds));
        }
        lines.extend(
            self.figures
                .broken
                .iter()
                .map(|what| format!("BROKEN             {what}")),
        );
        lines
    }
}

fn holders(devices: &BTreeMap<String, u32>) -> String {
    let held: Vec<String> = devices
        .iter()
        .filter(|(_, devices)| **devices > 0)
        .map(|(server, devices)| format!("{server} {devices}"))
        .collect();
    if held.is_empty() {
        "nobody".to_owned()
    } else {
        held.join(", ")
    }
}
