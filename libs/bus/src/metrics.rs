//! `understudy_bus_messages_total{domain,exchange,outcome}` and `understudy_bus_connected{domain}`.

use prometheus::{IntCounterVec, IntGauge, Opts};
use understudy_core::contract::names;
use understudy_runtime::Process;

#[derive(Clone)]
pub(crate) struct Metrics {
    messages: IntCounterVec,
    connected: IntGauge,
}

impl Metrics {
    pub(crate) fn new(process: &Process) -> Self {
        let options = Opts::new(
            "understudy_bus_messages_total",
            "Messages by exchange and by what became of them",
        )
        .const_label("domain", process.domain());
        let messages = IntCounterVec::new(options, &["exchange", "outcome"])
            .expect("the metric's name and labels are valid");
        // Refused only for a second bus of the same process, whose messages are not counted then.
        let _second = process.registry().register(Box::new(messages.clone()));
        // From zero on: the first dead letter is the one that should be noticed, and a counter that begins with
        // one has not increased.
        messages.with_label_values(&[names::DEAD, "published"]);
        let options = Opts::new(
            "understudy_bus_connected",
            "1 while the broker takes this process's messages, 0 while there is no connection or it takes none",
        )
        .const_label("domain", process.domain());
        let connected = IntGauge::with_opts(options).expect("the metric's name is valid");
        // As above: of a second bus nobody asks.
        let _second = process.registry().register(Box::new(connected.clone()));
        Self { messages, connected }
    }

    /// Shows whether messages get through.
    pub(crate) fn connected(&self, up: bool) {
        self.connected.set(i64::from(up));
    }

    /// Counts one message.
    pub(crate) fn count(&self, exchange: &str, outcome: &str) {
        let exchange = if exchange.is_empty() { "reply" } else { exchange };
        self.messages.with_label_values(&[exchange, outcome]).inc();
    }
}
