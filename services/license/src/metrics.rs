//! `understudy_licenses{state}`: devices that keys allow, with their owners or moved by a failover; and cameras
//! that no key covers.

use prometheus::{IntGaugeVec, Opts, Registry};
use understudy_core::license::Ledger;

#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    licenses: IntGaugeVec,
}

impl Metrics {
    pub(crate) fn register(registry: &Registry, domain: &str) -> prometheus::Result<Self> {
        let options = Opts::new(
            "understudy_licenses",
            "Devices that licence keys allow, by where the keys are; missing: cameras that none covers",
        )
        .const_label("domain", domain);
        let licenses = IntGaugeVec::new(options, &["state"])?;
        registry.register(Box::new(licenses.clone()))?;
        Ok(Self { licenses })
    }

    pub(crate) fn show(&self, ledger: &Ledger) {
        let devices = |moved: bool| -> i64 {
            ledger
                .entries()
                .filter(|entry| entry.moved_by.is_some() == moved)
                .map(|entry| i64::from(entry.payload.devices))
                .sum()
        };
        self.licenses.with_label_values(&["owner"]).set(devices(false));
        self.licenses
            .with_label_values(&["transferred"])
            .set(devices(true));
    }

    /// Shows how many cameras no key covers.
    pub(crate) fn missing(&self, cameras: usize) {
        let cameras = i64::try_from(cameras).unwrap_or(i64::MAX);
        self.licenses.with_label_values(&["missing"]).set(cameras);
    }
}
