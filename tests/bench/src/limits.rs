//! The figures with the limits that they are held against.

use std::{fmt::Write as _, path::Path};

use anyhow::ensure;
use serde_json::{Map, Value, json};
use understudy_demo::report::Report;

use crate::{failback::Failback, orchestrator::Decided, recording::Recording, traces::Traces};

/// One figure.
struct Figure {
    name: &'static str,
    value: f64,
    limit: Option<Limit>,
}

enum Limit {
    AtMost(f64),
    AtLeast(f64),
}

/// All figures of one run.
pub(crate) struct Measured(Vec<Figure>);

impl Measured {
    pub(crate) fn new(
        manual: &Report,
        planned: &Report,
        killed: &Report,
        recording: &Recording,
        failback: &Failback,
    ) -> Self {
        use Limit::{AtLeast, AtMost};
        let figure = |name, value, limit| Figure { name, value, limit };
        Self(vec![
            figure("cameras", manual.cameras as f64, None),
            figure(
                "takeover_net_seconds",
                manual.figures.takeover_net_seconds,
                Some(AtMost(1.0)),
            ),
            figure("takeover_seconds", manual.figures.takeover_seconds, None),
            figure(
                "keyframe_wait_seconds",
                manual.figures.keyframe_wait_seconds,
                None,
            ),
            figure("manual_frames_lost", manual.figures.frames_lost as f64, None),
            figure(
                "planned_frames_lost",
                planned.figures.frames_lost as f64,
                Some(AtMost(0.0)),
            ),
            figure("kill_detection_seconds", killed.figures.detection_seconds, None),
            figure(
                "kill_takeover_net_seconds",
                killed.figures.takeover_net_seconds,
                None,
            ),
            figure(
                "kill_detection_plus_takeover_net_seconds",
                killed.figures.detection_seconds + killed.figures.takeover_net_seconds,
                Some(AtMost(2.5)),
            ),
            figure(
                "kill_frames_lost_worst_camera",
                killed.figures.frames_lost_worst_camera as f64,
                Some(AtMost(killed.figures.frames_lost_bound as f64)),
            ),
            figure(
                "kill_longest_gap_seconds",
                killed.figures.longest_gap_seconds,
                None,
            ),
            figure("cpu_percent_per_camera", recording.ours.whole, None),
            figure("cpu_percent_per_camera_ffmpeg", recording.ffmpeg.whole, None),
            figure(
                "cpu_ratio_ffmpeg",
                recording.ours.whole / recording.ffmpeg.whole,
                Some(AtMost(0.4)),
            ),
            figure("cpu_percent_per_camera_steady", recording.ours.steady, None),
            figure(
                "cpu_percent_per_camera_steady_ffmpeg",
                recording.ffmpeg.steady,
                None,
            ),
            figure(
                "cpu_ratio_ffmpeg_steady",
                recording.ours.steady / recording.ffmpeg.steady,
                None,
            ),
            figure(
                "cpu_percent_per_camera_steady_receiving",
                recording.receiving.steady,
                None,
            ),
            figure(
                "cpu_ratio_ffmpeg_steady_receiving",
                recording.receiving.steady / recording.ffmpeg.steady,
                None,
            ),
            figure("rss_mib_base", recording.rss_mib_base, None),
            figure(
                "rss_mib_per_camera",
                recording.rss_mib_per_camera,
                Some(AtMost(1.5)),
            ),
            figure("failback_bytes", failback.bytes as f64, None),
            figure("failback_bytes_per_second", failback.bytes_per_second, None),
            figure("rsync_bytes_per_second", failback.bytes_per_second_rsync, None),
            figure(
                "rsync_durable_bytes_per_second",
                failback.bytes_per_second_rsync_durable,
                None,
            ),
            figure(
                "failback_ratio_rsync",
                failback.bytes_per_second / failback.bytes_per_second_rsync,
                Some(AtLeast(0.7)),
            ),
        ])
    }

    /// What the orchestrators of three sizes took: 10, 100 and 1,000 servers.
    pub(crate) fn of_orchestrators(sizes: &[Decided; 3]) -> Self {
        let figure = |name, value, limit| Figure { name, value, limit };
        let [ten, hundred, thousand] = sizes;
        let per_failover = |size: &Decided| size.seconds * 1000.0 / size.failovers as f64;
        Self(vec![
            figure("orchestrator_failovers_1000", thousand.failovers as f64, None),
            figure(
                "orchestrator_seconds_1000",
                thousand.seconds,
                Some(Limit::AtMost(2.0)),
            ),
            figure("orchestrator_ms_per_failover_10", per_failover(ten), None),
            figure("orchestrator_ms_per_failover_100", per_failover(hundred), None),
            figure("orchestrator_ms_per_failover_1000", per_failover(thousand), None),
            figure("orchestrator_alone_seconds_10", ten.alone_seconds, None),
            figure("orchestrator_alone_seconds_100", hundred.alone_seconds, None),
            figure("orchestrator_alone_seconds_1000", thousand.alone_seconds, None),
            figure(
                "orchestrator_enrolled_seconds_1000",
                thousand.enrolled_seconds,
                None,
            ),
        ])
    }

    /// What traces cost.
    pub(crate) fn of_traces(traces: &Traces) -> Self {
        let figure = |name, value| Figure {
            name,
            value,
            limit: None,
        };
        Self(vec![
            figure("traces_off_takeover_net_seconds", traces.off_net_seconds),
            figure("traces_on_takeover_net_seconds", traces.on_net_seconds),
            figure("traces_spans_per_failover", traces.spans as f64),
            figure("traces_span_nanoseconds", traces.span_nanoseconds),
            figure("traces_unsampled_span_nanoseconds", traces.unsampled_nanoseconds),
        ])
    }

    /// These and those.
    pub(crate) fn and(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// Prints the table, writes the file, and fails if a limit is missed.
    pub(crate) fn publish(&self, output: &Path) -> anyhow::Result<()> {
        print!("{}", self.table());
        std::fs::write(output, serde_json::to_string_pretty(&self.json())?)?;
        eprintln!("written to {}", output.display());
        let missed = self.missed();
        ensure!(missed.is_empty(), "not reached: {}", missed.join(", "));
        Ok(())
    }

    fn table(&self) -> String {
        let mut table = String::new();
        for Figure { name, value, limit } in &self.0 {
            let limit = match limit {
                Some(Limit::AtMost(limit)) => format!("at most {limit}"),
                Some(Limit::AtLeast(limit)) => format!("at least {limit}"),
                None => String::new(),
            };
            let _ = writeln!(table, "{name:<44} {value:>16.3}  {limit}");
        }
        table
    }

    fn json(&self) -> Value {
        let rounded = |value: f64| (value * 1000.0).round() / 1000.0;
        let figures: Map<String, Value> = self
            .0
            .iter()
            .map(|figure| (figure.name.to_owned(), json!(rounded(figure.value))))
            .collect();
        Value::Object(figures)
    }

    /// Names of the figures that are beyond their limits.
    fn missed(&self) -> Vec<&'static str> {
        let holds = |figure: &&Figure| match figure.limit {
            Some(Limit::AtMost(limit)) => figure.value <= limit,
            Some(Limit::AtLeast(limit)) => figure.value >= limit,
            None => true,
        };
        self.0
            .iter()
            .filter(|figure| !holds(figure))
            .map(|figure| figure.name)
            .collect()
    }
}
