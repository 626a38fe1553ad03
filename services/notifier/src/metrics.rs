//! `understudy_notices_total{receiver,outcome}`, `understudy_notices_waiting{receiver}` and
//! `understudy_notices_oldest_waiting_seconds{receiver}`.

use prometheus::{GaugeVec, IntCounterVec, IntGaugeVec, Opts, Registry};
use understudy_core::notice::{Now, Settings, State};

/// What can become of an attempt, and of a message.
const OUTCOMES: [&str; 4] = ["sent", "failed", "refused", "given_up"];

#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    notices: IntCounterVec,
    waiting: IntGaugeVec,
    oldest: GaugeVec,
}

impl Metrics {
    pub(crate) fn register(
        registry: &Registry,
        domain: &str,
        settings: &Settings,
    ) -> prometheus::Result<Self> {
        let options = |name: &str, help: &str| Opts::new(name, help).const_label("domain", domain);
        let metrics = Self {
            notices: IntCounterVec::new(
                options(
                    "understudy_notices_total",
                    "Attempts to tell receivers, by what became of them; given_up: messages put among the dead letters",
                ),
                &["receiver", "outcome"],
            )?,
            waiting: IntGaugeVec::new(
                options(
                    "understudy_notices_waiting",
                    "Messages that wait for their receiver",
                ),
                &["receiver"],
            )?,
            oldest: GaugeVec::new(
                options(
                    "understudy_notices_oldest_waiting_seconds",
                    "For how long the oldest message waits: since it was made, or since its first attempt",
                ),
                &["receiver"],
            )?,
        };
        registry.register(Box::new(metrics.notices.clone()))?;
        registry.register(Box::new(metrics.waiting.clone()))?;
        registry.register(Box::new(metrics.oldest.clone()))?;
        // From zero on: a counter that begins with one has not increased.
        for rule in &settings.rules {
            for outcome in OUTCOMES {
                metrics.notices.with_label_values(&[rule.name.as_str(), outcome]);
            }
        }
        Ok(metrics)
    }

    pub(crate) fn count(&self, receiver: &str, outcome: &str) {
        self.notices.with_label_values(&[receiver, outcome]).inc();
    }

    pub(crate) fn show(&self, state: &State, settings: &Settings, now: Now) {
        for rule in &settings.rules {
            let (count, oldest_ms) = state.waiting_for(&rule.name, now);
            let receiver = [rule.name.as_str()];
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            self.waiting.with_label_values(&receiver).set(count);
            self.oldest
                .with_label_values(&receiver)
                .set(oldest_ms as f64 / 1000.0);
        }
    }
}
