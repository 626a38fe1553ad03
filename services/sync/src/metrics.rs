//! What this service counts for Prometheus.

use prometheus::{IntCounter, Opts, Registry};
use understudy_core::ids::{DomainId, ServerId};

/// The counters. Each carries the domain and the fetching server.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    /// Bytes on disk and verified.
    pub(crate) bytes: IntCounter,
    /// Segments on disk and verified.
    pub(crate) segments: IntCounter,
    /// Segments that could not be had.
    pub(crate) damaged: IntCounter,
}

impl Metrics {
    /// # Errors
    /// A name that is registered already.
    pub(crate) fn register(
        registry: &Registry,
        domain: &DomainId,
        server: &ServerId,
    ) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str| {
            let options = Opts::new(name, help).const_label("domain", domain.as_str());
            let counter = IntCounter::with_opts(options.const_label("server", server.as_str()))?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        Ok(Self {
            bytes: counter(
                "understudy_failback_bytes_total",
                "Bytes fetched at failback, verified and on disk.",
            )?,
            segments: counter(
                "understudy_failback_segments_total",
                "Segments fetched at failback, verified and on disk.",
            )?,
            damaged: counter(
                "understudy_failback_damaged_segments_total",
                "Segments that could not be fetched whole at failback.",
            )?,
        })
    }
}
