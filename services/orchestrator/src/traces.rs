//! Which trace each failover is a part of, and the spans that it leaves in it.
//!
//! A failover lasts for minutes and outlives the process, so that none of its spans is kept open: each is recorded
//! with its times, from the failover's own steps, when it is over. What is sent for a failover names the phase that it
//! is in as its cause; a phase's id follows from the failover's, so that it is the same after a restart. Nothing is
//! decided here, and nothing waits for it.

use std::collections::BTreeMap;

use understudy_core::{
    assignment::{Assignment, Role},
    contract::{
        api::{FailoverView, Phase, ReasonKind},
        rpc::OrchestratorReply,
    },
    failover::Failover,
    fleet::Fleet,
    ids::{FailoverId, ServerId},
    time::Timestamp,
};
use understudy_runtime::{
    TraceContext, Tracer,
    trace::{Kind, Open, Span},
};

/// So many servers of before may be remembered beside those of the fleet.
const FORGOTTEN: usize = 16;

/// Where a failover stands in its trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Traced {
    /// The failover itself.
    pub(crate) context: TraceContext,
    /// What led to it: the monitor's finding, or a person's request.
    pub(crate) cause: Option<TraceContext>,
}

/// The traces of all failovers.
pub(crate) struct Traces {
    tracer: Tracer,
    failovers: BTreeMap<FailoverId, Traced>,
    /// How many steps of a failover have been looked at; those of before the start had been, or are lost.
    seen: BTreeMap<FailoverId, usize>,
    /// What each server was seen in last: one for each server that is observed.
    observed: BTreeMap<ServerId, TraceContext>,
}

/// A failover that has begun, until what it began with is on disk.
pub(crate) struct Decision {
    failover: FailoverId,
    started: u64,
}

/// An assignment on its way into the outbox.
pub(crate) struct Sending {
    part: Open,
    server: ServerId,
    epoch: String,
    role: &'static str,
}

impl Traces {
    pub(crate) fn new(tracer: Tracer, stored: Vec<(FailoverId, Traced)>, fleet: &Fleet) -> Self {
        let seen = fleet
            .failovers()
            .map(|failover| (failover.id.clone(), failover.steps.len()));
        Self {
            tracer,
            failovers: stored.into_iter().collect(),
            seen: seen.collect(),
            observed: BTreeMap::new(),
        }
    }

    /// A server was seen in this trace. Those that are none of the fleet any more are forgotten now and then.
    pub(crate) fn observed(&mut self, server: &ServerId, trace: TraceContext, fleet: &Fleet) {
        self.observed.insert(server.clone(), trace);
        if self.observed.len() > FORGOTTEN + 2 * fleet.servers().count() {
            let enrolled: std::collections::BTreeSet<_> = fleet.servers().map(|each| &each.id).collect();
            self.observed.retain(|server, _| enrolled.contains(server));
        }
    }

    /// A failover has another state. If it is new, where it stands in its trace: to be stored with it.
    pub(crate) fn changed(&mut self, failover: &Failover) -> Option<Traced> {
        let new = (!self.failovers.contains_key(&failover.id)).then(|| self.begin(failover));
        self.record_what_is_over(failover);
        new
    }

    fn begin(&mut self, failover: &Failover) -> Traced {
        let asked = TraceContext::current();
        let cause = match failover.reason.kind {
            ReasonKind::Manual => asked,
            // It is often time that brings it about: then what was seen last is what led to it.
            _ => self.observed.get(&failover.server).copied().or(asked),
        };
        let traced = Traced {
            context: cause.map_or_else(|| self.tracer.begin(), |cause| cause.child()),
            cause,
        };
        self.failovers.insert(failover.id.clone(), traced);
        self.seen.insert(failover.id.clone(), 0);
        traced
    }

    pub(crate) fn forget(&mut self, failover: &str) {
        self.failovers.retain(|id, _| id.as_str() != failover);
        self.seen.retain(|id, _| id.as_str() != failover);
    }

    /// Its phases that have ended since it was looked at last, and itself if it has.
    fn record_what_is_over(&mut self, failover: &Failover) {
        let steps = failover.steps.len();
        let seen = self.seen.insert(failover.id.clone(), steps).unwrap_or(steps);
        let Some(traced) = self.failovers.get(&failover.id).copied() else {
            return;
        };
        if seen == steps || !self.tracer.records(&traced.context) {
            return;
        }
        for part in phases(failover) {
            let Some((at, end)) = part.end.filter(|(at, _)| *at >= seen) else {
                continue;
            };
            let span = span(
                part.name,
                part.context(traced.context),
                traced.context,
                part.start,
                end,
            )
            .with("failover", failover.id.as_str())
            .with("server", failover.server.as_str())
            .with("steps", at - part.first);
            self.tracer.record(match failover.last_stand_in() {
                Some(stand_in) => span.with("stand_in", stand_in.as_str()),
                None => span,
            });
        }
        let ended = failover.steps.iter().position(|step| step.phase.is_final());
        if let Some(ended) = ended.filter(|at| *at >= seen) {
            let mut whole = span(
                "failover",
                traced.context,
                traced.context,
                begun(failover),
                failover.steps[ended].at,
            );
            whole.parent = traced.cause;
            let whole = whole
                .with("failover", failover.id.as_str())
                .with("server", failover.server.as_str())
                .with("reason", failover.reason.summary.as_str())
                .with("detection_ms", failover.detection_ms)
                .with("cameras", failover.first_frames.len());
            let aborted = failover.phase == Phase::Aborted;
            let why = aborted.then(|| failover.steps[ended].what.clone());
            self.tracer.record(whole.failed(why));
        }
    }

    /// A new failover, from the moment at which whatever led to it was taken in hand.
    pub(crate) fn decision(&self, failover: &FailoverId, started: u64) -> Decision {
        Decision {
            failover: failover.clone(),
            started,
        }
    }

    /// It is on disk, with all that follows from it.
    pub(crate) fn decided(&self, decision: Decision, fleet: &Fleet) {
        let found = fleet.failovers().find(|each| each.id == decision.failover);
        let (Some(failover), Some(traced)) = (found, self.failovers.get(&decision.failover)) else {
            return;
        };
        if !self.tracer.records(&traced.context) {
            return;
        }
        let whole = traced.context;
        if failover.detection_ms > 0 {
            let detection = span(
                "detection",
                whole.part("detection", 0),
                whole,
                begun(failover),
                failover.started_at,
            );
            self.tracer.record(
                detection
                    .with("server", failover.server.as_str())
                    .with("evidence", evidence(failover)),
            );
        }
        let decided = Span::until_now("decision", whole.child(), Some(whole), decision.started)
            .with("server", failover.server.as_str())
            .with("reason", failover.reason.summary.as_str())
            .with("considered", failover.selection.len());
        self.tracer.record(match failover.last_stand_in() {
            Some(chosen) => decided.with("chosen", chosen.as_str()),
            None => decided.with("waits_for", failover.waits_for.as_str()),
        });
    }

    /// What whatever is done for a failover now is a part of: the phase that it is in.
    pub(crate) fn of(&self, failover: &Failover) -> Option<TraceContext> {
        let whole = self.failovers.get(&failover.id)?.context;
        let now = phases(failover).pop().filter(|part| part.end.is_none());
        Some(now.map_or(whole, |part| part.context(whole)))
    }

    /// The same, by a failover's id, or a licence move's, which begins with it.
    pub(crate) fn of_id(&self, fleet: &Fleet, id: &str) -> Option<TraceContext> {
        let mut failovers = fleet.failovers();
        let found = failovers.find(|failover| {
            failover.id.as_str() == id || failover.moves.iter().any(|each| each.id.as_str() == id)
        });
        self.of(found?)
    }

    /// An assignment that is a part of a failover, on its way; none if it is a part of none.
    pub(crate) fn sending(&self, assignment: &Assignment, fleet: &Fleet) -> Option<Sending> {
        let failover = fleet.failovers().find(|failover| {
            !failover.is_settled()
                && (failover.server == assignment.server || failover.holding(&assignment.server).is_some())
        })?;
        Some(Sending {
            part: self.tracer.open("assignment", self.of(failover)?),
            server: assignment.server.clone(),
            epoch: assignment.epoch.to_string(),
            role: role(&assignment.role),
        })
    }

    /// Puts into an answer what the fleet does not know.
    pub(crate) fn complete(&self, reply: &mut OrchestratorReply) {
        let put = |view: &mut FailoverView| {
            let traced = self.failovers.get(&view.id);
            view.trace = traced.map(|traced| traced.context.to_string());
        };
        match reply {
            OrchestratorReply::Failover(view) => put(view),
            OrchestratorReply::Failovers(views) => views.iter_mut().for_each(put),
            _ => {}
        }
    }
}

impl Sending {
    pub(crate) fn context(&self) -> TraceContext {
        self.part.context
    }

    /// It is in the outbox.
    pub(crate) fn sent(self) {
        self.part.end(|span| {
            span.of(Kind::Producer)
                .with("server", self.server.as_str())
                .with("epoch", self.epoch)
                .with("role", self.role)
        });
    }
}

/// A phase of a failover, without a break.
#[derive(Debug, PartialEq, Eq)]
struct Part {
    name: &'static str,
    /// Its first step.
    first: usize,
    start: Timestamp,
    /// The first step after it, and when that was; none while it goes on.
    end: Option<(usize, Timestamp)>,
}

impl Part {
    fn context(&self, whole: TraceContext) -> TraceContext {
        whole.part(self.name, self.first)
    }
}

/// The phases of a failover in their order, but for the one that is its end.
fn phases(failover: &Failover) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    let mut now = None;
    for (index, step) in failover.steps.iter().enumerate() {
        if now == Some(step.phase) {
            continue;
        }
        now = Some(step.phase);
        if let Some(last) = parts.last_mut().filter(|last| last.end.is_none()) {
            last.end = Some((index, step.at));
        }
        if let Some(name) = name(step.phase) {
            parts.push(Part {
                name,
                first: index,
                start: step.at,
                end: None,
            });
        }
    }
    parts
}

fn name(phase: Phase) -> Option<&'static str> {
    match phase {
        Phase::Selecting => Some("selection"),
        Phase::TakingOver => Some("takeover"),
        Phase::Serving => Some("serving"),
        Phase::Restoring => Some("failback"),
        Phase::Replacing => Some("replacement"),
        Phase::Completed | Phase::Aborted => None,
    }
}

fn role(role: &Role) -> &'static str {
    match role {
        Role::Standby => "standby",
        Role::Erases { .. } => "erases",
        Role::HandsBack { .. } => "hands back",
        Role::Films(films) if films.failover.is_some() => "stands in",
        Role::Films(_) => "films",
    }
}

/// The last sign of the server that it was well, or the request of a person.
fn begun(failover: &Failover) -> Timestamp {
    let before = i64::try_from(failover.detection_ms).unwrap_or(0);
    Timestamp(failover.started_at.as_millis().saturating_sub(before))
}

fn evidence(failover: &Failover) -> String {
    let seen = failover.reason.evidence.iter();
    let words: Vec<String> = seen
        .map(|one| format!("{}: {}", one.observer, one.seen))
        .collect();
    words.join("; ")
}

fn span(
    name: &'static str,
    context: TraceContext,
    parent: TraceContext,
    start: Timestamp,
    end: Timestamp,
) -> Span {
    let nanoseconds = |time: Timestamp| u64::try_from(time.as_millis()).unwrap_or(0) * 1_000_000;
    let start = nanoseconds(start);
    Span {
        end: nanoseconds(end).max(start),
        ..Span::until_now(name, context, Some(parent), start)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use understudy_core::{
        contract::api::{FailoverReason, Step},
        failover::Beginning,
        settings::BundleHash,
        time::{Moment, Monotonic},
        trigger::Cause,
    };
    use understudy_runtime::{Process, TelemetryConfig};

    use super::*;

    fn failover(phases: &[Phase]) -> Failover {
        let reason = FailoverReason {
            kind: ReasonKind::Disconnection,
            summary: "not heard".to_owned(),
            evidence: Vec::new(),
        };
        let now = Moment {
            monotonic: Monotonic::default(),
            wall: Timestamp(1_000),
        };
        let beginning = Beginning {
            id: "f-1".parse().expect("an id"),
            server: "recorder-1".parse().expect("an id"),
            cause: Cause {
                reason,
                lasts: Duration::from_millis(400),
            },
            by: None,
            wanted: None,
            settings: BundleHash::of(b"settings"),
            range: Default::default(),
            failback: Default::default(),
            overlap: false,
            planned: false,
            one_session: Default::default(),
        };
        let mut failover = Failover::begin(beginning, now);
        for (number, phase) in (1_i64..).zip(phases) {
            failover.phase = *phase;
            failover.steps.push(Step {
                at: Timestamp(1_000 + 1_000 * number),
                phase: *phase,
                what: String::new(),
            });
        }
        failover
    }

    #[test]
    fn j4_a_phase_that_comes_twice_is_two_parts() {
        use Phase::{Completed, Restoring, Serving, TakingOver};
        let course = [
            TakingOver, TakingOver, Serving, Restoring, TakingOver, Serving, Restoring, Completed, Completed,
        ];
        let parts = phases(&failover(&course));
        let told: Vec<(&str, i64, Option<i64>)> = parts
            .iter()
            .map(|part| (part.name, part.start.0, part.end.map(|(_, at)| at.0)))
            .collect();
        assert_eq!(
            told,
            [
                ("selection", 1_000, Some(2_000)),
                ("takeover", 2_000, Some(4_000)),
                ("serving", 4_000, Some(5_000)),
                ("failback", 5_000, Some(6_000)),
                ("takeover", 6_000, Some(7_000)),
                ("serving", 7_000, Some(8_000)),
                ("failback", 8_000, Some(9_000)),
            ]
        );
        let whole = TraceContext::root();
        let ids: std::collections::BTreeSet<String> =
            parts.iter().map(|part| part.context(whole).to_string()).collect();
        assert_eq!(ids.len(), parts.len(), "each is one of its own");
    }

    #[tokio::test]
    async fn j4_what_is_done_for_a_failover_is_a_part_of_its_phase_also_after_a_restart() {
        let process = Process::for_test_traced(
            "orchestrator",
            &TelemetryConfig {
                otlp_endpoint: "http://127.0.0.1:9".to_owned(),
                ..TelemetryConfig::default()
            },
        );
        let fleet = Fleet::restore(Vec::new());
        let mut traces = Traces::new(process.tracer().clone(), Vec::new(), &fleet);
        let seen = process.tracer().begin();
        traces.observed(&"recorder-1".parse().expect("an id"), seen, &fleet);
        let begun = failover(&[Phase::TakingOver]);
        // It is time that brings it about, in a trace of its own.
        let traced = TraceContext::root()
            .within(|| traces.changed(&begun))
            .expect("it is new");
        assert_eq!(traced.cause, Some(seen));
        assert_eq!(traced.context.trace_id(), seen.trace_id());
        assert_eq!(traces.changed(&begun), None, "it is known");
        let taking_over = traces.of(&begun).expect("known");
        assert_eq!(taking_over, traced.context.part("takeover", 1));

        let again = Traces::new(process.tracer().clone(), vec![(begun.id.clone(), traced)], &fleet);
        assert_eq!(again.of(&begun), Some(taking_over));
        let over = failover(&[Phase::TakingOver, Phase::Aborted]);
        assert_eq!(
            again.of(&over),
            Some(traced.context),
            "what comes after its end is a part of the whole"
        );
        process.finish().await;
    }
}
