//! How a camera comes to be filmed, as parts of the trace of whatever it is filmed for: each try to connect, and the
//! first frame on disk. Told once; what happens to a camera afterwards is in its status.

use std::{
    fmt,
    sync::{Mutex, PoisonError},
};

use understudy_core::ids::CameraId;
use understudy_runtime::{
    TraceContext, Tracer,
    clock::wall_nanoseconds,
    trace::{Kind, Span},
};

use crate::camera::Fault;

/// The tries that are told of a camera that can't be connected to: later ones say nothing new.
const TOLD: u32 = 5;

/// Why cameras are filmed: where that is recorded, and the part of a trace that it is.
#[derive(Clone, Debug)]
pub struct Cause {
    /// Where it is recorded.
    pub tracer: Tracer,
    /// What it is a part of.
    pub context: TraceContext,
}

/// One camera, from the order to film it to its first frame on disk.
pub(super) struct Opening {
    cause: Cause,
    camera: CameraId,
    context: TraceContext,
    ordered: u64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    tries: u32,
    connected: Option<u64>,
    films: bool,
}

impl fmt::Debug for Opening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Opening").field(&self.camera).finish()
    }
}

impl Opening {
    /// Begins now; none if nothing of it is recorded.
    pub(super) fn begin(cause: Option<&Cause>, camera: &CameraId) -> Option<Self> {
        let cause = cause.filter(|cause| cause.tracer.records(&cause.context))?;
        Some(Self {
            camera: camera.clone(),
            context: cause.context.child(),
            ordered: wall_nanoseconds(),
            state: Mutex::default(),
            cause: cause.clone(),
        })
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        // Plain values, whole at any time.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A try to connect that began at `since` has ended, or a session has.
    pub(super) fn tried(&self, since: u64, fault: Option<&Fault>) {
        let mut state = self.state();
        if state.films || state.tries >= TOLD {
            return;
        }
        state.tries += 1;
        if fault.is_none() {
            state.connected = Some(wall_nanoseconds());
        }
        let failed = fault.map(|fault| fault.detail.clone());
        self.record(
            Span::until_now("connection", self.context.child(), Some(self.context), since)
                .of(Kind::Client)
                .failed(failed),
        );
    }

    /// A frame of it is on disk, or given out live where nothing is recorded.
    pub(super) fn films(&self) {
        let mut state = self.state();
        if std::mem::replace(&mut state.films, true) {
            return;
        }
        if let Some(connected) = state.connected {
            self.record(Span::until_now(
                "first frame",
                self.context.child(),
                Some(self.context),
                connected,
            ));
        }
        let camera = Span::until_now("camera", self.context, Some(self.cause.context), self.ordered);
        self.record(camera.with("tries", u64::from(state.tries)));
    }

    fn record(&self, span: Span) {
        self.cause
            .tracer
            .record(span.with("camera", self.camera.as_str()));
    }
}
