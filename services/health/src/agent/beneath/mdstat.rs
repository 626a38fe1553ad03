//! What `/proc/mdstat` says of one array. Pure.

use understudy_core::contract::heartbeat::StorageState;

use super::Finding;

/// What one array's paragraph says.
#[derive(Debug, Default)]
struct Array {
    active: bool,
    read_only: bool,
    level: String,
    /// How many members it is made for, and how many of them work; none for a level without redundancy.
    members: Option<(u32, u32)>,
    failed: Vec<String>,
    rebuilding: Option<String>,
}

/// What is wrong with the array `name`; none if nothing is, or it is not there.
pub(super) fn finding(mdstat: &str, name: &str) -> Option<Finding> {
    let array = parse(mdstat, name)?;
    let finding = |state, what: &str| {
        let mut evidence = format!("RAID array {name} {what}");
        if !array.failed.is_empty() {
            evidence += &format!("; failed: {}", array.failed.join(", "));
        }
        if let Some(progress) = &array.rebuilding {
            evidence += &format!("; being rebuilt, {progress} done");
        }
        Some(Finding { state, evidence })
    };
    if !array.active {
        return finding(StorageState::Damaged, "is inactive");
    }
    if array.read_only {
        return finding(StorageState::Damaged, "is read-only");
    }
    let (made_for, working) = array.members?;
    let missing = made_for.saturating_sub(working);
    if missing == 0 {
        return None;
    }
    let words = format!("({}) runs with {working} of {made_for} members", array.level);
    if missing > spare_of(&array.level, made_for) {
        finding(
            StorageState::Damaged,
            &format!("{words}, fewer than it needs to work"),
        )
    } else {
        finding(StorageState::Degraded, &words)
    }
}

/// How many members may be missing at most. For RAID 10 it depends on which ones: whether it still takes
/// anything the probe write tells.
fn spare_of(level: &str, members: u32) -> u32 {
    match level {
        "raid1" => members.saturating_sub(1),
        "raid4" | "raid5" => 1,
        "raid6" => 2,
        "raid10" => members / 2,
        _ => 0,
    }
}

fn parse(mdstat: &str, name: &str) -> Option<Array> {
    let mut lines = mdstat.lines();
    let head = lines.find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix(':'))?;
    let mut array = Array::default();
    for word in head.split_whitespace() {
        match word {
            "active" => array.active = true,
            "(read-only)" => array.read_only = true,
            // A member: `sda1[0]`, `sda1[0](F)`; the rest but the level is brackets.
            _ if word.contains('[') => {
                if let Some(member) = word.strip_suffix("(F)") {
                    array
                        .failed
                        .push(member.split('[').next().unwrap_or(member).to_owned());
                }
            }
            _ if word.starts_with('(') || word == "inactive" => {}
            level => level.clone_into(&mut array.level),
        }
    }
    // Its paragraph is indented; the next array or the end of the file is not.
    for line in lines.take_while(|line| line.starts_with([' ', '\t'])) {
        array.members = array.members.or_else(|| members(line));
        if let Some((_, progress)) = line.split_once("recovery =") {
            array.rebuilding = progress.split_whitespace().next().map(str::to_owned);
        }
    }
    Some(array)
}

/// `[4/3]`, as `(4, 3)`.
fn members(line: &str) -> Option<(u32, u32)> {
    line.split(['[', ']']).find_map(|part| {
        let (made_for, working) = part.split_once('/')?;
        Some((made_for.parse().ok()?, working.parse().ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE_EXPORTER: &str = include_str!("../../../tests/recorded/md/node_exporter.txt");
    const FAILED_DISK: &str = include_str!("../../../tests/recorded/md/failed_disk.txt");
    const THREE_OF_TEN_GONE: &str = include_str!("../../../tests/recorded/md/three_of_ten_gone.txt");

    fn is(mdstat: &str, name: &str, state: StorageState) -> String {
        let finding = finding(mdstat, name).expect("something is wrong");
        assert_eq!(finding.state, state, "{finding:?}");
        finding.evidence
    }

    #[test]
    fn c3_an_array_without_a_member_is_degraded_and_says_which_failed() {
        let evidence = is(FAILED_DISK, "md3", StorageState::Degraded);
        assert_eq!(
            evidence,
            "RAID array md3 (raid1) runs with 1 of 2 members; failed: sda4"
        );
        let evidence = is(NODE_EXPORTER, "md7", StorageState::Degraded);
        assert_eq!(evidence, "RAID array md7 (raid6) runs with 3 of 4 members");
    }

    #[test]
    fn c3_an_array_being_rebuilt_is_degraded_until_it_is_whole() {
        let evidence = is(NODE_EXPORTER, "md6", StorageState::Degraded);
        assert!(evidence.ends_with("being rebuilt, 8.5% done"), "{evidence}");
    }

    #[test]
    fn c3_an_array_with_too_few_members_or_stopped_is_damaged() {
        let evidence = is(THREE_OF_TEN_GONE, "md3", StorageState::Damaged);
        assert!(evidence.contains("7 of 10 members"), "{evidence}");
        assert!(is(NODE_EXPORTER, "md4", StorageState::Damaged).contains("inactive"));
        assert!(is(NODE_EXPORTER, "md219", StorageState::Damaged).contains("inactive"));
    }

    #[test]
    fn c3_a_whole_array_and_one_without_redundancy_are_normal() {
        for name in ["md3", "md127", "md0", "md8", "md9", "md10", "md11", "md12"] {
            assert_eq!(finding(NODE_EXPORTER, name), None, "{name}");
        }
        assert_eq!(finding(NODE_EXPORTER, "md1"), None, "md1 is not md127");
        assert_eq!(finding("", "md0"), None);
    }
}
