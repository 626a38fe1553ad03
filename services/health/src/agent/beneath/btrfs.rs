//! What `btrfs filesystem show` and `btrfs device stats` say of one filesystem. Pure, but for the memory of the
//! first counts.

use std::collections::BTreeMap;

use understudy_core::contract::heartbeat::StorageState;

use super::Finding;

/// What `btrfs filesystem show` says is wrong.
pub(super) fn missing(show: &str) -> Option<Finding> {
    let named = show.lines().filter_map(|line| {
        let line = line.trim();
        let id = line.strip_prefix("devid")?.split_whitespace().next()?;
        line.ends_with("MISSING").then(|| format!("device {id}"))
    });
    let mut named: Vec<String> = named.collect();
    if named.is_empty() && show.contains("Some devices missing") {
        named.push("some devices".to_owned());
    }
    // What is mounted works without them, or it would not be mounted.
    (!named.is_empty()).then(|| Finding {
        state: StorageState::Degraded,
        evidence: format!("the Btrfs filesystem misses {}", named.join(", ")),
    })
}

/// The paths of the devices that the filesystem is made of.
pub(super) fn devices(show: &str) -> Vec<String> {
    let paths = show.lines().filter_map(|line| {
        let line = line.trim();
        let (_, path) = line.strip_prefix("devid")?.rsplit_once(" path ")?;
        Some(path.trim().split(' ').next()?.to_owned())
    });
    paths.filter(|path| path.starts_with('/')).collect()
}

/// The error counts of one filesystem's devices. They are kept on disk until somebody resets them
/// (`btrfs device stats --reset`), so that only what is added while the agent looks on counts.
#[derive(Debug, Default)]
pub(super) struct Errors {
    /// By device and kind, as they were first, or after the last reset.
    first: BTreeMap<(String, String), u64>,
}

impl Errors {
    /// What `btrfs device stats` says is wrong.
    pub(super) fn finding(&mut self, stats: &str) -> Option<Finding> {
        let mut grown = Vec::new();
        for (device, kind, count) in counts(stats) {
            let first = self
                .first
                .entry((device.to_owned(), kind.to_owned()))
                .or_insert(count);
            *first = count.min(*first);
            if count > *first {
                grown.push(format!("{} {} on {device}", count - *first, words(kind)));
            }
        }
        (!grown.is_empty()).then(|| Finding {
            state: StorageState::Degraded,
            evidence: format!("Btrfs has counted new errors: {}", grown.join(", ")),
        })
    }
}

/// `[/dev/sdb1].write_io_errs    7489899`
fn counts(stats: &str) -> impl Iterator<Item = (&str, &str, u64)> {
    stats.lines().filter_map(|line| {
        let (device, rest) = line.trim().strip_prefix('[')?.split_once("].")?;
        let (kind, count) = rest.split_once(char::is_whitespace)?;
        Some((device, kind, count.trim().parse().ok()?))
    })
}

fn words(kind: &str) -> &str {
    match kind {
        "write_io_errs" => "failed writes",
        "read_io_errs" => "failed reads",
        "flush_io_errs" => "failed flushes",
        "corruption_errs" => "wrong checksums",
        "generation_errs" => "lost writes",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATS: &str = include_str!("../../../tests/recorded/btrfs/stats.txt");
    const WHOLE: &str = include_str!("../../../tests/recorded/btrfs/show_whole.txt");
    const SOME_MISSING: &str = include_str!("../../../tests/recorded/btrfs/show_some_missing.txt");
    const DEGRADED_MOUNT: &str = include_str!("../../../tests/recorded/btrfs/show_degraded_mount.txt");

    #[test]
    fn c3_a_filesystem_without_a_device_is_degraded() {
        assert_eq!(missing(WHOLE), None);
        let found = missing(DEGRADED_MOUNT).expect("degraded");
        assert_eq!(found.state, StorageState::Degraded);
        assert_eq!(found.evidence, "the Btrfs filesystem misses device 2");
        let found = missing(SOME_MISSING).expect("degraded");
        assert!(found.evidence.contains("some devices"), "{found:?}");
    }

    #[test]
    fn its_devices_are_named() {
        assert_eq!(devices(WHOLE), ["/dev/loop0", "/dev/loop1"]);
        assert_eq!(devices(DEGRADED_MOUNT), ["/dev/loop0"]);
    }

    #[test]
    fn c3_only_errors_that_are_added_count() {
        let mut errors = Errors::default();
        assert_eq!(errors.finding(STATS), None, "they may be years old");
        let more = STATS.replace("7489899", "7489902");
        let found = errors.finding(&more).expect("degraded");
        assert_eq!(
            found.evidence,
            "Btrfs has counted new errors: 3 failed writes on /dev/sdb1"
        );
        let reset = STATS.replace("7489899", "0");
        assert_eq!(errors.finding(&reset), None, "somebody has reset the counts");
        assert!(errors.finding(STATS).is_some());
    }
}
