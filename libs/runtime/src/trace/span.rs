//! A part of a trace with its beginning and its end, and whoever hands it to the exporter.

use std::{borrow::Cow, future::Future};

use super::{Exporter, TraceContext};
use crate::clock::wall_nanoseconds;

/// What a span is of a conversation (OpenTelemetry, "SpanKind").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Work of its own.
    Internal,
    /// Answers a request.
    Server,
    /// Waits for an answer.
    Client,
    /// Sends a message.
    Producer,
    /// Handles a message.
    Consumer,
}

/// What is said of a span under one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Words.
    Text(String),
    /// A number; its unit is part of the key.
    Number(i64),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<usize> for Value {
    fn from(number: usize) -> Self {
        Self::Number(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Number(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

/// One part of a trace, over. Times are nanoseconds since 1970, by this machine's wall clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// Itself.
    pub context: TraceContext,
    /// What it is a part of; none at the beginning of a trace.
    pub parent: Option<TraceContext>,
    /// One of few names; ids are attributes.
    pub name: Cow<'static, str>,
    /// What it is of a conversation.
    pub kind: Kind,
    /// Its beginning.
    pub start: u64,
    /// Its end.
    pub end: u64,
    /// What else there is to say.
    pub attributes: Vec<(&'static str, Value)>,
    /// Why it failed, in words.
    pub error: Option<String>,
}

impl Span {
    /// A span that began at `start` and ends now.
    #[must_use]
    pub fn until_now(
        name: impl Into<Cow<'static, str>>,
        context: TraceContext,
        parent: Option<TraceContext>,
        start: u64,
    ) -> Self {
        Self {
            context,
            parent,
            name: name.into(),
            kind: Kind::Internal,
            start,
            // The wall clock may have been set back meanwhile.
            end: wall_nanoseconds().max(start),
            attributes: Vec::new(),
            error: None,
        }
    }

    /// With this said of it.
    #[must_use]
    pub fn with(mut self, key: &'static str, value: impl Into<Value>) -> Self {
        self.attributes.push((key, value.into()));
        self
    }

    /// Of this kind.
    #[must_use]
    pub fn of(self, kind: Kind) -> Self {
        Self { kind, ..self }
    }

    /// Failed, if there is a reason.
    #[must_use]
    pub fn failed(self, error: Option<String>) -> Self {
        Self { error, ..self }
    }
}

/// Where spans go; nowhere unless an exporter is configured. Cheap to clone, and never waited for.
#[derive(Clone, Debug, Default)]
pub struct Tracer(Option<Exporter>);

impl Tracer {
    pub(crate) fn to(exporter: Exporter) -> Self {
        Self(Some(exporter))
    }

    /// The beginning of a trace. Whether it is recorded is decided here, for all who take part in it; without an
    /// exporter it is not.
    #[must_use]
    pub fn begin(&self) -> TraceContext {
        let root = TraceContext::root();
        match &self.0 {
            Some(exporter) if exporter.samples(root.trace) => TraceContext {
                flags: super::SAMPLED,
                ..root
            },
            _ => root,
        }
    }

    /// Whether spans of this trace are recorded here: who is told not, need not gather what they would say.
    #[must_use]
    pub fn records(&self, context: &TraceContext) -> bool {
        self.0.is_some() && context.is_sampled()
    }

    /// Hands a span over, if its trace is recorded. Never waits: what finds no room is dropped and counted.
    pub fn record(&self, span: Span) {
        if let Some(exporter) = &self.0
            && span.context.is_sampled()
        {
            exporter.take(span);
        }
    }

    /// A part of `parent` that begins now.
    #[must_use]
    pub fn open(&self, name: impl Into<Cow<'static, str>>, parent: TraceContext) -> Open {
        Open {
            tracer: self.clone(),
            // Without a span of its own, whatever follows is a part of the parent itself.
            context: if self.records(&parent) {
                parent.child()
            } else {
                parent
            },
            parent,
            name: name.into(),
            start: wall_nanoseconds(),
        }
    }
}

/// A part of a trace that goes on. Dropped before [`Open::end`] it is not recorded.
#[derive(Debug)]
pub struct Open {
    tracer: Tracer,
    /// Itself: what follows from it is a part of this.
    pub context: TraceContext,
    parent: TraceContext,
    name: Cow<'static, str>,
    start: u64,
}

impl Open {
    /// Does `work` as a part of it.
    pub async fn scope<F: Future>(&self, work: F) -> F::Output {
        self.context.scope(work).await
    }

    /// It is over now. `describe` is called only if it is recorded.
    pub fn end(self, describe: impl FnOnce(Span) -> Span) {
        if !self.tracer.records(&self.context) {
            return;
        }
        let span = Span::until_now(self.name, self.context, Some(self.parent), self.start);
        self.tracer.record(describe(span));
    }
}
