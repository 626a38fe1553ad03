//! What `zpool status` says of one pool. Pure.

use understudy_core::contract::heartbeat::StorageState;

use super::Finding;

/// What is wrong with the pool that `status` is about, and the paths of its devices.
pub(super) fn finding(status: &str) -> Option<Finding> {
    let pool = parse(status);
    let bad: Vec<String> = pool.devices.iter().filter_map(Device::trouble).collect();
    let is_suspended = pool.message.ends_with("ZFS-8000-HC")
        || pool.message.ends_with("ZFS-8000-JQ")
        || pool.errors.contains("pool I/O is currently suspended");
    let (state, what) = if is_suspended || pool.state == "SUSPENDED" {
        // It may call itself online or degraded meanwhile; every write into it hangs or fails.
        (StorageState::Damaged, "has suspended reading and writing")
    } else if !matches!(pool.state.as_str(), "ONLINE" | "DEGRADED" | "") {
        (StorageState::Damaged, "can't be used")
    } else if pool.state == "DEGRADED" || !bad.is_empty() {
        (StorageState::Degraded, "has lost redundancy")
    } else if pool.errors.contains("data errors, use") || pool.errors.starts_with("Permanent errors") {
        (StorageState::Degraded, "has files that can't be read")
    } else {
        return None;
    };
    let mut evidence = format!("ZFS pool {} {what} (state {})", pool.name, pool.state);
    if !bad.is_empty() {
        evidence += &format!(": {}", bad.join(", "));
    }
    Some(Finding { state, evidence })
}

/// The paths of the devices that the pool is made of, where `status` was asked to name them by path.
pub(super) fn devices(status: &str) -> Vec<String> {
    let devices = parse(status).devices.into_iter();
    devices
        .map(|device| device.name)
        .filter(|name| name.starts_with('/'))
        .collect()
}

#[derive(Debug, Default)]
struct Pool {
    name: String,
    state: String,
    message: String,
    errors: String,
    /// Those that hold data or its log, groups of them included.
    devices: Vec<Device>,
}

#[derive(Debug)]
struct Device {
    name: String,
    state: String,
    note: String,
    /// Neither the pool nor a mirror or raidz of it: their state is that of their devices.
    is_leaf: bool,
}

impl Device {
    fn trouble(&self) -> Option<String> {
        if !self.is_leaf || self.state == "ONLINE" {
            return None;
        }
        let note = if self.note.is_empty() {
            String::new()
        } else {
            format!(" ({})", self.note)
        };
        Some(format!("{} is {}{note}", self.name, self.state))
    }
}

fn parse(status: &str) -> Pool {
    let mut pool = Pool::default();
    let mut in_config = false;
    // Caches and spares hold nothing that would be lost with them.
    let mut counts = true;
    for line in status.lines() {
        let key = line.trim_start().split_once(':');
        match key {
            Some(("pool", value)) => value.trim().clone_into(&mut pool.name),
            Some(("state", value)) => value.trim().clone_into(&mut pool.state),
            Some(("see", value)) => value.trim().clone_into(&mut pool.message),
            Some(("config", _)) => in_config = true,
            Some(("errors", value)) => {
                in_config = false;
                value.trim().clone_into(&mut pool.errors);
            }
            _ if in_config => {
                let mut words = line.split_whitespace();
                match (words.next(), words.next()) {
                    (Some("cache" | "spares"), None) => counts = false,
                    (Some("logs" | "special" | "dedup"), None) => counts = true,
                    (Some("NAME"), _) | (_, None) => {}
                    (Some(name), Some(state)) if counts => {
                        let note = words.skip(3).collect::<Vec<_>>().join(" ");
                        pool.devices.push(device(&pool.name, name, state, note));
                    }
                    _ => {}
                }
            }
            _ => {}
        }
    }
    pool
}

fn device(pool: &str, name: &str, state: &str, note: String) -> Device {
    const GROUPS: [&str; 6] = ["mirror-", "raidz", "draid", "spare-", "replacing-", "logs"];
    Device {
        name: name.to_owned(),
        state: state.to_owned(),
        note,
        is_leaf: name != pool && !GROUPS.iter().any(|group| name.starts_with(group)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEALTHY: &str = include_str!("../../../tests/recorded/zfs/healthy.txt");
    const DEGRADED: &str = include_str!("../../../tests/recorded/zfs/faulted_in_degraded_pool.txt");
    const ONLINE_BUT_FAULTED: &str = include_str!("../../../tests/recorded/zfs/faulted_in_online_pool.txt");
    const UNAVAILABLE: &str = include_str!("../../../tests/recorded/zfs/unavailable.txt");
    const SUSPENDED_AND_ONLINE: &str = include_str!("../../../tests/recorded/zfs/suspended_and_online.txt");

    #[test]
    fn c3_a_whole_pool_is_normal() {
        assert_eq!(finding(HEALTHY), None);
    }

    #[test]
    fn c3_a_pool_without_a_device_is_degraded_and_names_it() {
        let found = finding(DEGRADED).expect("degraded");
        assert_eq!(found.state, StorageState::Degraded);
        assert_eq!(
            found.evidence,
            "ZFS pool zfsTest has lost redundancy (state DEGRADED): 5059338246820777521 is UNAVAIL \
             (was /dev/disk/by-id/wwn-0x50014ee2b36b4fea-part1)"
        );
    }

    #[test]
    fn c3_a_pool_that_calls_itself_online_with_a_faulted_device_is_degraded() {
        let found = finding(ONLINE_BUT_FAULTED).expect("degraded");
        assert_eq!(found.state, StorageState::Degraded);
        assert!(
            found.evidence.contains("is FAULTED (too many errors)"),
            "{found:?}"
        );
    }

    #[test]
    fn c3_a_pool_that_takes_nothing_is_damaged_whatever_it_calls_itself() {
        for status in [UNAVAILABLE, SUSPENDED_AND_ONLINE] {
            let found = finding(status).expect("damaged");
            assert_eq!(found.state, StorageState::Damaged);
            assert!(found.evidence.contains("suspended"), "{found:?}");
        }
    }
}
