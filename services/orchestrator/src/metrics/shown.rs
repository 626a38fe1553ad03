//! A gauge that is made anew each time and never flickers: whoever scrapes in between sees the old values or the
//! new ones, and not none.

use std::collections::{BTreeMap, BTreeSet};

use prometheus::{GaugeVec, Opts, Registry};

/// One gauge with labels, and what it is to show.
pub(super) struct Shown {
    gauge: GaugeVec,
    /// What [`Self::publish`] will show.
    next: BTreeMap<Vec<String>, f64>,
    /// What is shown.
    now: BTreeSet<Vec<String>>,
}

impl Shown {
    pub(super) fn register(registry: &Registry, options: Opts, labels: &[&str]) -> prometheus::Result<Self> {
        let gauge = GaugeVec::new(options, labels)?;
        registry.register(Box::new(gauge.clone()))?;
        Ok(Self {
            gauge,
            next: BTreeMap::new(),
            now: BTreeSet::new(),
        })
    }

    /// Adds to the next value of a series.
    pub(super) fn add(&mut self, labels: &[&str], value: f64) {
        *self.next.entry(owned(labels)).or_default() += value;
    }

    /// Sets the next value of a series.
    pub(super) fn set(&mut self, labels: &[&str], value: f64) {
        self.next.insert(owned(labels), value);
    }

    /// Shows what was added and set since the last time, and nothing else.
    pub(super) fn publish(&mut self) {
        let next = std::mem::take(&mut self.next);
        for (labels, value) in &next {
            self.gauge.with_label_values(labels).set(*value);
        }
        let shown: BTreeSet<Vec<String>> = next.into_keys().collect();
        for gone in self.now.difference(&shown) {
            // It was shown, so it is there.
            let _removed = self.gauge.remove_label_values(gone);
        }
        self.now = shown;
    }
}

fn owned(labels: &[&str]) -> Vec<String> {
    labels.iter().map(|label| (*label).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(shown: &Shown) -> Vec<f64> {
        use prometheus::core::Collector as _;
        let families = shown.gauge.collect();
        let metrics = families.iter().flat_map(|family| family.get_metric());
        metrics.map(|metric| metric.get_gauge().get_value()).collect()
    }

    #[test]
    fn a_series_stays_until_the_next_is_shown_and_goes_with_what_it_stood_for() {
        let registry = Registry::new();
        let mut shown = Shown::register(&registry, Opts::new("a", "a"), &["x"]).expect("a name");
        shown.add(&["one"], 1.0);
        shown.add(&["one"], 1.0);
        shown.set(&["two"], 0.5);
        assert!(values(&shown).is_empty(), "nothing is shown before it is whole");
        shown.publish();
        assert_eq!(values(&shown).len(), 2);
        shown.add(&["one"], 1.0);
        assert_eq!(values(&shown).len(), 2, "the old ones stay meanwhile");
        shown.publish();
        assert_eq!(values(&shown), [1.0]);
    }
}
