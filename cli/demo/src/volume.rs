//! A volume that really breaks: ext4 on a loop device, of which the kernel finds that it is not as it should be and
//! which it therefore makes read-only, as it does with a disk that fails.
//!
//! It takes root: for the loop device, the mount, and the kernel's own switch for such a fault.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// A mounted volume. It is unmounted, and its loop device taken down, when it is dropped.
#[derive(Debug)]
pub struct Volume {
    device: String,
    point: PathBuf,
    image: PathBuf,
    /// What the kernel does where it finds an error: `errors=` of ext4(5).
    on_error: &'static str,
}

impl Volume {
    /// Makes one of `bytes` bytes (sparse) in the file `image`, and mounts it at `point`.
    ///
    /// # Errors
    /// What this machine or user lacks, in words.
    pub fn mounted_at(point: &Path, image: &Path, bytes: u64) -> Result<Self, String> {
        let volume = Self::made(point, image, bytes, &[], "errors=remount-ro")?;
        if !volume.switch().exists() {
            return Err("this kernel's ext4 can't be made to find an error (no trigger_fs_error)".to_owned());
        }
        Ok(volume)
    }

    /// The same of one that the kernel goes on with whatever it finds, for [`Self::is_cut_off`].
    ///
    /// # Errors
    /// What this machine or user lacks, in words.
    pub fn stubborn_at(point: &Path, image: &Path, bytes: u64) -> Result<Self, String> {
        Self::made(point, image, bytes, &["-O", "^has_journal"], "errors=continue")
    }

    fn made(
        point: &Path,
        image: &Path,
        bytes: u64,
        options: &[&str],
        on_error: &'static str,
    ) -> Result<Self, String> {
        fs::create_dir_all(point).map_err(|error| error.to_string())?;
        let file = fs::File::create(image).map_err(|error| error.to_string())?;
        file.set_len(bytes).map_err(|error| error.to_string())?;
        let device = run(Command::new("losetup").args(["--find", "--show"]).arg(image))?;
        let volume = Self {
            device,
            point: point.to_owned(),
            image: image.to_owned(),
            on_error,
        };
        run(Command::new("mkfs.ext4")
            .args(["-q", "-F"])
            .args(options)
            .arg(&volume.device))?;
        volume.mount()?;
        Ok(volume)
    }

    /// The kernel finds that something on it is not as it should be, and makes it read-only.
    ///
    /// # Errors
    /// Why it could not be told so.
    pub fn breaks(&self) -> Result<(), String> {
        fs::write(self.switch(), "broken").map_err(|error| error.to_string())
    }

    /// All of the disk is gone that lies behind its first `bytes` bytes: the kernel answers EIO there, and writes
    /// before it as ever.
    ///
    /// # Errors
    /// Why it could not be.
    pub fn is_cut_off(&self, bytes: u64) -> Result<(), String> {
        let image = fs::File::options().write(true).open(&self.image);
        image
            .and_then(|image| image.set_len(bytes))
            .map_err(|error| error.to_string())?;
        run(Command::new("losetup").args(["--set-capacity", &self.device])).map(drop)
    }

    /// Repairs it as an administrator would: unmounts it, has it checked, and mounts it again. Nobody may use it
    /// meanwhile.
    ///
    /// # Errors
    /// The program that failed, with its words.
    pub fn repair(&self) -> Result<(), String> {
        run(Command::new("umount").arg(&self.point))?;
        let mut check = Command::new("e2fsck");
        check.args(["-f", "-p", &self.device]);
        let status = environment(&mut check)
            .output()
            .map_err(|error| format!("e2fsck: {error}"))?;
        // 1: errors were found and corrected (e2fsck(8)).
        if !matches!(status.status.code(), Some(0 | 1)) {
            return Err(format!(
                "e2fsck: {}",
                String::from_utf8_lossy(&status.stdout).trim()
            ));
        }
        self.mount()
    }

    fn mount(&self) -> Result<(), String> {
        let mut mount = Command::new("mount");
        mount.args(["-o", self.on_error, &self.device]).arg(&self.point);
        run(&mut mount).map(drop)
    }

    fn switch(&self) -> PathBuf {
        let name = self.device.trim_start_matches("/dev/");
        PathBuf::from(format!("/sys/fs/ext4/{name}/trigger_fs_error"))
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // What can't be undone here is said by the next one who wants the folder.
        let _ = run(Command::new("umount").arg("--lazy").arg(&self.point));
        let _ = run(Command::new("losetup").args(["--detach", &self.device]));
    }
}

fn environment(command: &mut Command) -> &mut Command {
    command
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("LC_ALL", "C")
}

fn run(command: &mut Command) -> Result<String, String> {
    let output = environment(command)
        .output()
        .map_err(|error| format!("{}: {error}", command.get_program().to_string_lossy()))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    Err(format!(
        "{}: {}",
        command.get_program().to_string_lossy(),
        String::from_utf8_lossy(&output.stderr).trim()
    ))
}
