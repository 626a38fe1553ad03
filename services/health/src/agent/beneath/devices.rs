//! Which devices carry a folder, by `/proc/self/mountinfo` and `/sys`. Reads nothing on the volume itself, so
//! that one that hangs hangs nobody.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// The mount that a folder is on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mount {
    /// The device's number, `8:1`; of no block device where the filesystem has none or several.
    pub(super) number: String,
    /// `ext4`, `zfs`, …
    pub(super) kind: String,
    /// What is mounted: `/dev/sda1`, `pool/dataset`, …
    pub(super) source: String,
    /// Where.
    pub(super) point: PathBuf,
}

/// The mount that holds `path`, which has no links in it.
pub(super) fn mount_of(mountinfo: &str, path: &Path) -> Option<Mount> {
    let mut best: Option<(usize, Mount)> = None;
    for line in mountinfo.lines() {
        let Some((before, after)) = line.split_once(" - ") else {
            continue;
        };
        let before: Vec<&str> = before.split(' ').collect();
        let mut after = after.split(' ');
        let (Some(number), Some(point)) = (before.get(2), before.get(4)) else {
            continue;
        };
        let (Some(kind), Some(source)) = (after.next(), after.next()) else {
            continue;
        };
        let point = PathBuf::from(unescaped(point));
        let depth = point.components().count();
        // Of two on the same point the later one is seen.
        if path.starts_with(&point) && best.as_ref().is_none_or(|(deepest, _)| *deepest <= depth) {
            let mount = Mount {
                number: (*number).to_owned(),
                kind: kind.to_owned(),
                source: unescaped(source),
                point,
            };
            best = Some((depth, mount));
        }
    }
    best.map(|(_, mount)| mount)
}

/// `\040` is a space: the kernel writes what would break a line as three octal digits.
fn unescaped(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let octal = after.get(..3).and_then(|digits| {
            let digits = std::str::from_utf8(digits).ok()?;
            u8::from_str_radix(digits, 8).ok()
        });
        match octal {
            Some(value) if byte == b'\\' => {
                bytes.push(value);
                rest = after.get(3..).unwrap_or_default();
            }
            _ => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What lies beneath block devices.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Devices {
    /// md arrays: `md0`.
    pub(super) arrays: BTreeSet<String>,
    /// Whole disks at the bottom: `sda`, `nvme0n1`.
    pub(super) disks: BTreeSet<String>,
}

impl Devices {
    /// Adds the block device of that number, and what is beneath it.
    pub(super) fn add_number(&mut self, sys: &Path, number: &str) {
        self.add(&sys.join("dev/block").join(number));
    }

    /// Adds the block device at that path (`/dev/sdb1`), and what is beneath it.
    pub(super) fn add_path(&mut self, sys: &Path, path: &str) {
        if !path.starts_with("/dev/") {
            return;
        }
        let path = fs::canonicalize(path).unwrap_or_else(|_| PathBuf::from(path));
        if let Some(name) = path.file_name() {
            self.add(&sys.join("class/block").join(name));
        }
    }

    fn add(&mut self, link: &Path) {
        let Ok(mut device) = fs::canonicalize(link) else {
            return;
        };
        if device.join("partition").exists() {
            device.pop();
        }
        let Some(name) = device.file_name().map(|name| name.to_string_lossy().into_owned()) else {
            return;
        };
        if device.join("md").is_dir() {
            self.arrays.insert(name.clone());
        }
        let slaves = fs::read_dir(device.join("slaves"))
            .into_iter()
            .flatten()
            .flatten();
        let slaves: Vec<PathBuf> = slaves.map(|slave| slave.path()).collect();
        if slaves.is_empty() {
            self.disks.insert(name);
        }
        for slave in slaves {
            self.add(&slave);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    const MOUNTS: &str = "\
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
58 27 9:0 / /srv/under\\040study rw,relatime shared:7 - xfs /dev/md0 rw
59 27 0:46 / /srv/pool rw,relatime - zfs tank/archive rw,xattr
60 27 8:1 / /srv/pool rw,relatime - ext4 /dev/sda1 rw
";

    #[test]
    fn the_deepest_and_latest_mount_holds_a_folder() {
        let source = |path: &str| mount_of(MOUNTS, Path::new(path)).expect("a mount").source;
        assert_eq!(source("/srv/under study/archive"), "/dev/md0");
        assert_eq!(source("/srv/pool/archive"), "/dev/sda1");
        assert_eq!(
            source("/srv/poolside/archive"),
            "/dev/vda",
            "not by the name's beginning"
        );
    }

    #[test]
    fn c3_only_what_carries_the_volume_is_found_through_partitions_mappings_and_arrays() {
        // Given a mapping on a partition of an array of two partitions, and a third disk.
        let sys = tempfile::tempdir().expect("a folder");
        let block = sys.path().join("devices/block");
        let device = |path: &str, partition: bool| {
            let path = block.join(path);
            fs::create_dir_all(path.join("slaves")).expect("made");
            if partition {
                fs::write(path.join("partition"), "1\n").expect("written");
            }
            path
        };
        let (sda1, sdb1) = (device("sda/sda1", true), device("sdb/sdb1", true));
        device("sdc", false);
        let md0 = device("md0", false);
        fs::create_dir(md0.join("md")).expect("made");
        let md0p1 = device("md0/md0p1", true);
        let dm0 = device("dm-0", false);
        symlink(&sda1, md0.join("slaves/sda1")).expect("linked");
        symlink(&sdb1, md0.join("slaves/sdb1")).expect("linked");
        symlink(&md0p1, dm0.join("slaves/md0p1")).expect("linked");
        fs::create_dir_all(sys.path().join("dev/block")).expect("made");
        symlink(&dm0, sys.path().join("dev/block/253:0")).expect("linked");

        let mut found = Devices::default();
        found.add_number(sys.path(), "253:0");
        assert_eq!(found.arrays, BTreeSet::from(["md0".to_owned()]));
        assert_eq!(found.disks, BTreeSet::from(["sda".to_owned(), "sdb".to_owned()]));
        found.add_number(sys.path(), "0:46");
        assert_eq!(found.disks.len(), 2, "no block device, nothing beneath");
    }
}
