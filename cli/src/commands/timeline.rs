//! What happened in a failover, and how long each part of it took: for somebody who was woken up.

use understudy_core::{
    contract::api::{FailoverView, Phase, ReasonKind, Step},
    ids::CameraId,
    time::Timestamp,
    words::length,
};

use crate::output::{phase, time};

/// One line, and the phase that began with it.
struct Entry {
    at: Timestamp,
    phase: Option<Phase>,
    what: String,
}

/// How long the parts took, in one line.
pub(crate) fn durations(view: &FailoverView) -> String {
    let mut parts = vec![format!("detection {}", short(view.detection_ms))];
    if let Some(takeover) = view.takeover_ms {
        parts.push(format!("takeover {}", short(takeover)));
    }
    let over = |phases: &[Phase]| {
        let of = |step: &&Step| phases.contains(&step.phase);
        let first = view.steps.iter().find(of)?.at;
        let last = view.steps.iter().rposition(|step| of(&step))?;
        let end = view.steps.get(last + 1).map(|step| step.at);
        Some((first, end))
    };
    for (name, phases) in [
        ("served", &[Phase::Serving][..]),
        ("failback", &[Phase::Restoring, Phase::Replacing][..]),
    ] {
        match over(phases) {
            Some((first, Some(end))) => parts.push(format!("{name} {}", short(between(first, end)))),
            Some((_, None)) => parts.push(format!("{name}: goes on")),
            None => {}
        }
    }
    if let Some(ended) = view.ended_at {
        parts.push(format!("in all {}", short(between(began(view), ended))));
    }
    parts.join(", ")
}

/// When cameras came back, in one line; none before the first.
pub(crate) fn cameras(view: &FailoverView) -> Option<String> {
    let (first, last) = ends(view)?;
    let since = decided(view);
    let after = |at: Timestamp| short(between(since, at));
    let count = view.first_frames.len();
    Some(match count {
        1 => format!("{} films after {}", first.0, after(first.1)),
        _ => format!(
            "{count} film: the first after {} ({}), the slowest after {} ({})",
            after(first.1),
            first.0,
            after(last.1),
            last.0
        ),
    })
}

/// How the trace is found.
pub(crate) fn trace(view: &FailoverView) -> Option<String> {
    let mut parts = view.trace.as_ref()?.split('-').skip(1);
    let id = parts.next()?;
    let recorded = parts.nth(1)?.ends_with(['1', '3', '5', '7', '9', 'b', 'd', 'f']);
    Some(match recorded {
        true => format!("{id} (open it in the trace viewer; logs carry it)"),
        false => format!("{id} (not recorded; logs carry it)"),
    })
}

/// Everything that happened, in its order: when, how long after the last sign of the server that it was well (or the
/// request), and what.
pub(crate) fn lines(view: &FailoverView) -> Vec<String> {
    let start = began(view);
    let mut now = None;
    let entries = entries(view).into_iter();
    entries
        .map(|entry| {
            let after = if entry.at < start {
                format!("-{}", short(between(entry.at, start)))
            } else {
                format!("+{}", short(between(start, entry.at)))
            };
            let begins = entry.phase.filter(|phase| now != Some(*phase));
            now = entry.phase.or(now);
            let head = begins.map_or("", phase);
            format!("  {}  {after:>12}  {head:<26}  {}", time(entry.at), entry.what)
        })
        .collect()
}

fn entries(view: &FailoverView) -> Vec<Entry> {
    let plain = |at, what| Entry {
        at,
        phase: None,
        what,
    };
    let mut entries = Vec::new();
    if view.detection_ms > 0 {
        let last = match view.reason.kind {
            ReasonKind::Storage | ReasonKind::Package => format!("{} was well until then", view.server),
            ReasonKind::Disconnection | ReasonKind::Manual => format!("last sign of {}", view.server),
        };
        entries.push(plain(began(view), last));
    }
    let seen = view.reason.evidence.iter();
    entries.extend(seen.map(|one| plain(one.at, format!("{}: {}", one.observer, one.seen))));
    entries.extend(view.steps.iter().map(|step| Entry {
        at: step.at,
        phase: Some(step.phase),
        what: step.what.clone(),
    }));
    if let Some((first, last)) = ends(view) {
        entries.push(plain(first.1, format!("first frame: {}", first.0)));
        if view.first_frames.len() > 1 {
            entries.push(plain(
                last.1,
                format!("first frame of the slowest camera: {}", last.0),
            ));
        }
    }
    // In the order in which they were written down, where two are of the same millisecond.
    entries.sort_by_key(|entry| entry.at);
    entries
}

/// A camera, and when its first frame was heard of.
type First<'a> = (&'a CameraId, Timestamp);

/// The earliest and the slowest camera.
fn ends(view: &FailoverView) -> Option<(First<'_>, First<'_>)> {
    let frames = || view.first_frames.iter().map(|(camera, at)| (camera, *at));
    let first = frames().min_by_key(|(_, at)| *at)?;
    let last = frames().max_by_key(|(_, at)| *at)?;
    Some((first, last))
}

/// The last sign of the server that it was well, or the request.
fn began(view: &FailoverView) -> Timestamp {
    let before = i64::try_from(view.detection_ms).unwrap_or(0);
    Timestamp(view.started_at.as_millis().saturating_sub(before))
}

/// When the failover server that films, or filmed last, was chosen.
fn decided(view: &FailoverView) -> Timestamp {
    let steps = view.steps.iter().enumerate();
    let mut began = steps.filter(|(index, step)| {
        let before = index.checked_sub(1).and_then(|before| view.steps.get(before));
        step.phase == Phase::TakingOver && before.is_none_or(|before| before.phase != Phase::TakingOver)
    });
    began.next_back().map_or(view.started_at, |(_, step)| step.at)
}

fn between(from: Timestamp, to: Timestamp) -> u64 {
    u64::try_from(to.as_millis().saturating_sub(from.as_millis())).unwrap_or(0)
}

/// Short times to the hundredth, long ones in minutes.
fn short(millis: u64) -> String {
    match millis {
        0..60_000 => format!("{}.{:02} s", millis / 1_000, millis % 1_000 / 10),
        _ => length(millis),
    }
}

#[cfg(test)]
mod tests {
    use understudy_core::contract::{
        api::{FailoverReason, ReasonKind},
        heartbeat::Evidence,
    };

    use super::*;

    fn view() -> FailoverView {
        let step = |at, phase, what: &str| Step {
            at: Timestamp(at),
            phase,
            what: what.to_owned(),
        };
        let camera = |number: u32, at| {
            let id: CameraId = format!("cam-{number}").parse().expect("an id");
            (id, Timestamp(at))
        };
        FailoverView {
            id: "f-1".parse().expect("an id"),
            server: "recorder-1".parse().expect("an id"),
            stand_in: Some("failover-1".parse().expect("an id")),
            phase: Phase::Completed,
            reason: FailoverReason {
                kind: ReasonKind::Disconnection,
                summary: "not heard for 1 s".to_owned(),
                evidence: vec![Evidence {
                    at: Timestamp(9_900),
                    observer: "monitor".to_owned(),
                    seen: "connection refused".to_owned(),
                }],
            },
            reason_cleared: true,
            planned: false,
            replaces: None,
            waits_for: String::new(),
            started_at: Timestamp(10_000),
            ended_at: Some(Timestamp(172_500)),
            detection_ms: 1_200,
            takeover_ms: Some(840),
            disabled: Vec::new(),
            progress: Default::default(),
            unread: Vec::new(),
            damaged: Vec::new(),
            damaged_count: 0,
            overlay: Vec::new(),
            selection: Vec::new(),
            licenses_settled: true,
            steps: vec![
                step(10_000, Phase::Selecting, "decided: not heard for 1 s"),
                step(10_000, Phase::TakingOver, "failover-1 takes over"),
                step(10_840, Phase::Serving, "failover-1 films 2 camera(s)"),
                step(160_000, Phase::Restoring, "recorder-1 films"),
                step(172_500, Phase::Completed, "everything is back"),
            ],
            first_frames: [camera(1, 10_700), camera(2, 10_310)].into(),
            trace: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned()),
        }
    }

    #[test]
    fn j4_the_timeline_says_when_and_how_long() {
        let view = view();
        assert_eq!(
            durations(&view),
            "detection 1.20 s, takeover 0.84 s, served 2 min 29 s, failback 12.50 s, in all 2 min 43 s"
        );
        assert_eq!(
            cameras(&view).as_deref(),
            Some("2 film: the first after 0.31 s (cam-2), the slowest after 0.70 s (cam-1)")
        );
        assert_eq!(
            trace(&view).as_deref(),
            Some("4bf92f3577b34da6a3ce929d0e0e4736 (open it in the trace viewer; logs carry it)")
        );
        let lines = lines(&view);
        let words = |line: &String| line.split_whitespace().skip(2).collect::<Vec<_>>().join(" ");
        let told: Vec<String> = lines.iter().map(words).collect();
        assert_eq!(
            told,
            [
                "+0.00 s last sign of recorder-1",
                "+1.10 s monitor: connection refused",
                "+1.20 s seeking a failover server decided: not heard for 1 s",
                "+1.20 s taking over failover-1 takes over",
                "+1.51 s first frame: cam-2",
                "+1.90 s first frame of the slowest camera: cam-1",
                "+2.04 s serving failover-1 films 2 camera(s)",
                "+2 min 31 s handing back recorder-1 films",
                "+2 min 43 s completed everything is back",
            ]
        );
    }

    #[test]
    fn j4_a_failover_that_has_just_begun_has_no_end_yet() {
        let mut view = view();
        view.steps.truncate(1);
        view.first_frames.clear();
        (view.takeover_ms, view.ended_at, view.trace) = (None, None, None);
        assert_eq!(durations(&view), "detection 1.20 s");
        assert_eq!((cameras(&view), trace(&view)), (None, None));
        assert_eq!(lines(&view).len(), 3);
    }
}
