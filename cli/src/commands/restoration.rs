//! `understudy restoration`.

use clap::Subcommand;
use reqwest::Method;
use serde_json::json;
use understudy_core::contract::api::FailoverView;

use super::failover::resolve;
use crate::{
    client::{Connection, who},
    confirm::Consent,
    failure::Failure,
    output::{length, list, phase, size},
};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// End the synchronisation: what was not transferred completely is removed, what was stays
    Stop {
        /// The failover's id, or its recording server's
        which: String,
        #[command(flatten)]
        consent: Consent,
    },
}

pub(crate) async fn run(connection: &Connection, command: Command) -> Result<(), Failure> {
    let Command::Stop { which, consent } = command;
    let (api, output) = (connection.client()?, connection.output());
    let id = resolve(&api, &which).await?;
    let view: FailoverView = api.get_as(&format!("failovers/{id}")).await?;
    if view.phase.hands_back() && !consent.given(lost(&view).trim_end_matches('.'))? {
        return output.done("nothing was changed");
    }
    let path = format!("failovers/{id}/restoration/stop");
    let answer = api.send(Method::POST, &path, &json!({ "by": who() })).await?;
    output.answer(answer, |view: FailoverView| {
        format!("{}: {}", view.id, phase(view.phase))
    })
}

/// What would be lost, by the last report. What nobody has a list of yet is not called nothing.
fn lost(view: &FailoverView) -> String {
    let progress = view.progress;
    let segments = progress.segments_total.saturating_sub(progress.segments_done);
    let mut lost = Vec::new();
    if segments > 0 {
        lost.push(format!(
            "{} of recordings, summed over cameras ({} in {segments} segments), were not handed back to {} yet, \
             and would be removed.",
            length(progress.recorded_ms_total.saturating_sub(progress.recorded_ms_done)),
            size(progress.bytes_total.saturating_sub(progress.bytes_done)),
            view.server,
        ));
    }
    if !view.unread.is_empty() {
        lost.push(format!(
            "Everything that {} recorded for {} would be removed; how much that is, is unknown.",
            list(&view.unread),
            view.server,
        ));
    }
    if lost.is_empty() {
        lost.push(format!(
            "Everything known to exist is back on {}; what is left to do is to remove the copies.",
            view.server
        ));
    }
    lost.join(" ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn view(progress: serde_json::Value, unread: &[&str]) -> FailoverView {
        let view = json!({
            "id": "f", "server": "recorder-1", "stand_in": "standby-1", "phase": "restoring",
            "reason": { "kind": "manual", "summary": "", "evidence": [] }, "reason_cleared": true,
            "waits_for": "", "started_at": 0, "ended_at": null, "detection_ms": 0, "takeover_ms": null,
            "disabled": [], "progress": progress, "unread": unread, "damaged": [], "selection": [],
            "licenses_settled": true, "steps": [],
        });
        serde_json::from_value(view).expect("a failover")
    }

    #[test]
    fn g5_it_names_hours_and_bytes_before_it_asks() {
        let progress = json!({
            "segments_total": 300, "segments_done": 120, "bytes_total": 6_u64 << 30, "bytes_done": 1_u64 << 30,
            "bytes_per_second": 0, "recorded_ms_total": 18_000_000, "recorded_ms_done": 7_200_000,
        });
        let text = lost(&view(progress, &[]));
        assert!(text.starts_with("3 h 0 min of recordings"), "{text}");
        assert!(text.contains("5.0 GiB in 180 segments"), "{text}");
    }

    #[test]
    fn g5_nothing_read_yet_is_not_nothing_lost() {
        let nothing = json!({
            "segments_total": 0, "segments_done": 0, "bytes_total": 0, "bytes_done": 0, "bytes_per_second": 0,
        });
        let text = lost(&view(nothing, &["standby-1"]));
        assert!(
            text.starts_with("Everything that standby-1 recorded for recorder-1"),
            "{text}"
        );
        assert!(text.contains("unknown") && !text.contains("0 B"), "{text}");
    }
}
