//! Which chain of causes something belongs to: W3C Trace Context, level 1.
//!
//! What comes in brings its context along, and whatever is sent while it is handled continues that trace; what
//! nobody asked for begins one. Nothing is recorded or exported here.

use std::{fmt, future::Future, str::FromStr};

use rand::RngCore as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tracing::Instrument as _;

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

    /// The next step of the trace that this task is in; the beginning of a new one if it is in none.
    #[must_use]
    pub fn next() -> Self {
        CURRENT.try_with(Self::child).unwrap_or_else(|_| Self::root())
    }

    /// A step of the same trace.
    fn child(&self) -> Self {
        Self {
            span: Self::root().span,
            ..*self
        }
    }

    /// Does `work` as a part of this trace: its log lines carry the trace id.
    pub async fn scope<F: Future>(self, work: F) -> F::Output {
        let span = tracing::info_span!("trace", trace_id = self.trace_id());
        CURRENT.scope(self, work).instrument(span).await
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
            .scope(async { (TraceContext::next(), TraceContext::next()) })
            .await;
        assert_eq!(first.trace_id(), cause.trace_id());
        assert_ne!(first, second, "each step is one of its own");
        assert_ne!(first, cause);
        assert_ne!(
            TraceContext::next().trace_id(),
            cause.trace_id(),
            "outside, a new one begins"
        );
    }
}
