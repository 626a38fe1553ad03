//! Which chain of causes something belongs to: W3C Trace Context, level 1.
//!
//! What comes in brings its context along, and whatever is sent while it is handled continues that trace; what
//! nobody asked for begins one. Whether anything of a trace is recorded is decided at its beginning
//! ([`Tracer::begin`]) and travels along as a flag; what is recorded are [`Span`]s, which name their times themselves,
//! since many last for minutes and across processes.

mod export;
mod kept;
mod span;

use std::{fmt, future::Future, str::FromStr};

use rand::RngCore as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tracing::Instrument as _;

pub(crate) use self::export::Exporter;
pub use self::{
    export::{TelemetryConfig, TelemetryError},
    kept::{keep, kept},
    span::{Kind, Open, Span, Tracer, Value},
};

/// The flag that says that the trace is recorded (W3C Trace Context 3.2.2.5).
const SAMPLED: u8 = 1;

/// Version, trace id, parent id and flags, as `traceparent` has them (W3C Trace Context 3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    trace: u128,
    span: u64,
    flags: u8,
}

/// A `traceparent` that is not what the standard says; whoever gets one begins a trace of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no traceparent as W3C Trace Context has it")]
pub struct InvalidTraceparent;

tokio::task_local! {
    static CURRENT: TraceContext;
}

impl TraceContext {
    /// The beginning of a new trace.
    #[must_use]
    pub fn root() -> Self {
        let mut random = [0; 24];
        rand::thread_rng().fill_bytes(&mut random);
        let (trace, span) = random.split_at(16);
        let number = |bytes: &[u8]| bytes.iter().fold(0, |all, byte| all << 8 | u128::from(*byte));
        Self {
            // Neither may be zero.
            trace: number(trace).max(1),
            span: u64::try_from(number(span)).unwrap_or(1).max(1),
            flags: 0,
        }
    }

    /// What this task is a part of; none if nobody said.
    #[must_use]
    pub fn current() -> Option<Self> {
        CURRENT.try_with(|current| *current).ok()
    }

    /// What is sent now carries this: what this task is a part of, or the beginning of a trace that is not recorded.
    #[must_use]
    pub fn carried() -> Self {
        Self::current().unwrap_or_else(Self::root)
    }

    /// A new part of the same trace.
    #[must_use]
    pub fn child(&self) -> Self {
        Self {
            span: Self::root().span,
            ..*self
        }
    }

    /// The part of this one that is called `name` and has this number: the same whoever asks, and after a restart.
    #[must_use]
    pub fn part(&self, name: &str, number: usize) -> Self {
        // FNV-1a, which no version of a compiler changes.
        let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        let bytes = self.span.to_be_bytes().into_iter().chain(name.bytes());
        let hash = bytes.chain(number.to_be_bytes()).fold(0xcbf2_9ce4_8422_2325, mix);
        Self {
            span: hash.max(1),
            ..*self
        }
    }

    /// Whether this trace is recorded.
    #[must_use]
    pub fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// Does `work` as a part of this trace: its log lines carry the trace id.
    pub async fn scope<F: Future>(self, work: F) -> F::Output {
        CURRENT.scope(self, work).instrument(self.in_logs()).await
    }

    /// As [`Self::scope`], for what waits for nothing.
    pub fn within<T>(self, work: impl FnOnce() -> T) -> T {
        CURRENT.sync_scope(self, || self.in_logs().in_scope(work))
    }

    fn in_logs(&self) -> tracing::Span {
        // Of the highest level, so that warnings have it too where nothing below them is logged.
        tracing::error_span!("trace", trace_id = self.trace_id())
    }

    /// The trace id, as logs and other programs show it: 32 hexadecimal digits.
    #[must_use]
    pub fn trace_id(&self) -> String {
        format!("{:032x}", self.trace)
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace, self.span, self.flags)
    }
}

impl FromStr for TraceContext {
    type Err = InvalidTraceparent;

    fn from_str(text: &str) -> Result<Self, InvalidTraceparent> {
        let mut parts = text.split('-');
        let mut field = |digits: usize| {
            parts
                .next()
                .filter(|part| part.len() == digits)
                .filter(|part| part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')))
                .and_then(|part| u128::from_str_radix(part, 16).ok())
                .ok_or(InvalidTraceparent)
        };
        let (version, trace, span, flags) = (field(2)?, field(32)?, field(16)?, field(2)?);
        // A later version may have more fields; version 0 has just these, and ff is forbidden (3.2.2.1).
        let complete = version != 0 || parts.next().is_none();
        if !complete || version == 0xff || trace == 0 || span == 0 {
            return Err(InvalidTraceparent);
        }
        Ok(Self {
            trace,
            span: u64::try_from(span).map_err(|_| InvalidTraceparent)?,
            flags: u8::try_from(flags).map_err(|_| InvalidTraceparent)?,
        })
    }
}

impl Serialize for TraceContext {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TraceContext {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_survives_its_way_as_text() {
        let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let context: TraceContext = text.parse().expect("the standard's own example");
        assert_eq!(context.to_string(), text);
        assert_eq!(context.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        let later = "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-comes";
        assert_eq!(later.parse(), Ok(context));
        let root = TraceContext::root();
        assert_eq!(root.to_string().parse(), Ok(root));
        assert_ne!(root.trace_id(), TraceContext::root().trace_id());
    }

    #[test]
    fn what_the_standard_forbids_is_refused() {
        for text in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(text.parse::<TraceContext>(), Err(InvalidTraceparent), "{text}");
        }
    }

    #[tokio::test]
    async fn what_is_done_in_a_trace_continues_it() {
        let cause = TraceContext::root();
        let (first, second) = cause
            .scope(async { (TraceContext::carried(), TraceContext::current()) })
            .await;
        assert_eq!(
            (first, second),
            (cause, Some(cause)),
            "what is sent names its cause"
        );
        assert_ne!(
            TraceContext::carried().trace_id(),
            cause.trace_id(),
            "outside, a new one begins"
        );
        assert_eq!(TraceContext::current(), None);
    }

    #[test]
    fn a_part_is_the_same_whoever_names_it() {
        let whole = TraceContext::root();
        let part = whole.part("takeover", 3);
        assert_eq!(part, whole.part("takeover", 3));
        assert_eq!(part.trace_id(), whole.trace_id());
        let others = [
            whole,
            whole.part("takeover", 4),
            whole.part("serving", 3),
            whole.child().part("takeover", 3),
        ];
        assert!(others.iter().all(|other| *other != part));
    }
}
