//! What is wrong with a server, as the beginning of a trace: whatever follows from it, a failover above all, is a part
//! of that. It begins with the last good sign, is recorded when it is found, and holds until the server is well.

use std::collections::BTreeMap;

use understudy_core::{
    contract::heartbeat::{Observation, PackageState, StorageState},
    ids::ServerId,
};
use understudy_runtime::{TraceContext, Tracer, clock::wall_nanoseconds, trace::Span};

/// The findings of all servers that are not well: one each.
pub(super) struct Findings {
    tracer: Tracer,
    open: BTreeMap<ServerId, (&'static str, TraceContext)>,
}

impl Findings {
    pub(super) fn new(tracer: Tracer) -> Self {
        Self {
            tracer,
            open: BTreeMap::new(),
        }
    }

    /// Forgets the servers that are watched no more.
    pub(super) fn keep(&mut self, watched: impl Fn(&ServerId) -> bool) {
        self.open.retain(|server, _| watched(server));
    }

    /// The trace of what is wrong with a server, if anything is.
    pub(super) fn trace_of(&mut self, observation: &Observation) -> Option<TraceContext> {
        let Some(what) = what_is_wrong(observation) else {
            self.open.remove(&observation.server);
            return None;
        };
        if let Some((before, trace)) = self.open.get(&observation.server)
            && *before == what
        {
            return Some(*trace);
        }
        let trace = self.tracer.begin();
        self.open.insert(observation.server.clone(), (what, trace));
        if self.tracer.records(&trace) {
            let silent = observation.silent_ms.saturating_mul(1_000_000);
            let start = wall_nanoseconds().saturating_sub(silent);
            let evidence = observation.evidence.iter();
            let evidence: Vec<String> = evidence
                .map(|one| format!("{}: {}", one.observer, one.seen))
                .collect();
            let span = Span::until_now(what, trace, None, start)
                .with("server", observation.server.as_str())
                .with("silent_ms", observation.silent_ms)
                .with("evidence", evidence.join("; "));
            self.tracer.record(span);
        }
        Some(trace)
    }
}

fn what_is_wrong(observation: &Observation) -> Option<&'static str> {
    if !observation.paths.broker && !observation.paths.direct {
        return Some("heartbeat lost");
    }
    if !matches!(
        observation.package.state,
        PackageState::Running | PackageState::Starting
    ) {
        return Some("recording lost");
    }
    match observation.storage.state {
        StorageState::Normal if observation.storage.full => Some("storage full"),
        StorageState::Normal => None,
        StorageState::Degraded => Some("storage degraded"),
        StorageState::Damaged => Some("storage damaged"),
    }
}
