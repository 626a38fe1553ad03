//! What `smartctl --json` says of one disk. Pure.

use serde::Deserialize;
use understudy_core::contract::heartbeat::StorageState;

use super::Finding;

/// What matters of the report.
#[derive(Debug, Deserialize)]
struct Report {
    #[serde(default)]
    device: Device,
    #[serde(default)]
    model_name: String,
    #[serde(default)]
    serial_number: String,
    /// Not there if the disk could not be asked.
    smart_status: Option<Status>,
    #[serde(default)]
    ata_smart_attributes: Attributes,
    nvme_smart_health_information_log: Option<NvmeHealth>,
}

#[derive(Debug, Default, Deserialize)]
struct Device {
    #[serde(default)]
    name: String,
}

#[derive(Debug, Deserialize)]
struct Status {
    passed: bool,
}

#[derive(Debug, Default, Deserialize)]
struct Attributes {
    #[serde(default)]
    table: Vec<Attribute>,
}

#[derive(Debug, Deserialize)]
struct Attribute {
    name: String,
    #[serde(default)]
    when_failed: String,
}

#[derive(Debug, Deserialize)]
struct NvmeHealth {
    #[serde(default)]
    critical_warning: u64,
    #[serde(default)]
    percentage_used: u64,
}

/// What is wrong with the disk: it says itself that it is about to fail. It takes recordings until then.
///
/// # Errors
/// With words, if the report makes no sense.
pub(super) fn finding(report: &str) -> Result<Option<Finding>, String> {
    let report: Report = serde_json::from_str(report).map_err(|error| error.to_string())?;
    if report.smart_status.as_ref().is_none_or(|status| status.passed) {
        return Ok(None);
    }
    let mut evidence = format!(
        "disk {} ({}, serial number {}) says of itself that it fails (SMART)",
        report.device.name, report.model_name, report.serial_number
    );
    let failing = report.ata_smart_attributes.table.iter();
    let failing: Vec<_> = failing
        .filter(|attribute| attribute.when_failed == "now")
        .map(|attribute| attribute.name.as_str())
        .collect();
    if !failing.is_empty() {
        evidence += &format!(": {}", failing.join(", "));
    }
    if let Some(health) = &report.nvme_smart_health_information_log {
        evidence += &format!(
            ": critical warning {:#04x}, {} % used",
            health.critical_warning, health.percentage_used
        );
    }
    Ok(Some(Finding {
        state: StorageState::Degraded,
        evidence,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ATA_FAILED: &str = include_str!("../../../tests/recorded/smart/ata_failed.json");
    const NVME_PASSED: &str = include_str!("../../../tests/recorded/smart/nvme_passed.json");
    const SAS_PASSED: &str = include_str!("../../../tests/recorded/smart/sas_passed.json");
    const NOT_OPENED: &str = include_str!("../../../tests/recorded/smart/not_opened.json");

    #[test]
    fn c3_a_disk_that_says_it_fails_is_named_with_what_fails() {
        let found = finding(ATA_FAILED).expect("a report").expect("degraded");
        assert_eq!(found.state, StorageState::Degraded);
        assert_eq!(
            found.evidence,
            "disk /dev/sdc (Hitachi HDS721050DLE630, serial number MSK423Y20S3HBC) says of itself that it fails \
             (SMART): Reallocated_Sector_Ct"
        );
    }

    #[test]
    fn c3_a_healthy_disk_and_one_that_can_t_be_asked_are_no_finding() {
        for report in [NVME_PASSED, SAS_PASSED, NOT_OPENED] {
            assert_eq!(finding(report), Ok(None));
        }
        assert!(finding("smartctl: command failed").is_err());
    }
}
