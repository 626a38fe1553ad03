//! A mirror of two disks that really loses one: Btrfs over loop devices. It takes root, and Debian's `btrfs-progs`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Room on each disk; Btrfs wants more than a hundred megabytes. The files are sparse.
const BYTES: u64 = 200 << 20;

/// A mounted mirror. It is unmounted, and its disks are taken down, when it is dropped.
#[derive(Debug)]
pub struct Mirror {
    point: PathBuf,
    /// Its loop devices.
    disks: Vec<String>,
}

impl Mirror {
    /// Makes one of two files in `folder`, and mounts it at `point`.
    ///
    /// # Errors
    /// What this machine or user lacks, in words.
    pub fn mounted_at(point: &Path, folder: &Path) -> Result<Self, String> {
        fs::create_dir_all(point).map_err(|error| error.to_string())?;
        let mut mirror = Self {
            point: point.to_owned(),
            disks: Vec::new(),
        };
        for name in ["one.img", "two.img"] {
            let path = folder.join(name);
            let file = fs::File::create(&path).map_err(|error| error.to_string())?;
            file.set_len(BYTES).map_err(|error| error.to_string())?;
            let disk = run("losetup", &["--find", "--show", text(&path)])?;
            mirror.disks.push(disk);
        }
        let [one, two] = mirror.disks.as_slice() else {
            return Err("there are two disks".to_owned());
        };
        run("mkfs.btrfs", &["-q", "-d", "raid1", "-m", "raid1", one, two])?;
        run("mount", &[one, text(point)])?;
        Ok(mirror)
    }

    /// One disk is gone, as after a restart without it. Nobody may use the volume meanwhile.
    ///
    /// # Errors
    /// The program that failed, with its words; the volume is busy for a moment after its users have ended.
    pub fn loses_a_disk(&mut self) -> Result<(), String> {
        run("umount", &[text(&self.point)])?;
        if let Some(gone) = self.disks.pop() {
            run("losetup", &["--detach", &gone])?;
        }
        // The kernel remembers it for as long as nobody tells it to forget.
        run("btrfs", &["device", "scan", "--forget"])?;
        let left = self.disks.first().map_or("", String::as_str);
        run("mount", &["-o", "degraded", left, text(&self.point)])?;
        Ok(())
    }

    /// It takes nothing any more, as when the kernel has found it faulty.
    ///
    /// # Errors
    /// Why not; the kernel refuses while somebody writes a file on it.
    pub fn turns_read_only(&self) -> Result<(), String> {
        run("mount", &["-o", "remount,ro", text(&self.point)]).map(drop)
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        // What can't be undone here is said by the next one who wants the folder.
        let _ = run("umount", &["--lazy", text(&self.point)]);
        for disk in &self.disks {
            let _ = run("losetup", &["--detach", disk]);
        }
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap_or_default()
}

fn run(program: &str, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(program)
        .args(arguments)
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("LC_ALL", "C")
        .output()
        .map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{program} {}: {}", arguments.join(" "), said.trim()))
}
