//! Why a recording service that is gone is gone: its executable, and its unit file as systemd keeps it (row C4).
//!
//! Reads files only, so that it tells the same where no systemd runs; never starts or stops anything.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use understudy_core::contract::heartbeat::PackageState;

/// Where units lie, the first found counts.
const UNIT_FOLDERS: [&str; 5] = [
    "etc/systemd/system",
    "run/systemd/system",
    "usr/local/lib/systemd/system",
    "usr/lib/systemd/system",
    "lib/systemd/system",
];

/// What the recording service is made of on this machine.
#[derive(Clone, Debug)]
pub(crate) struct Installed {
    root: PathBuf,
    /// Its executable; none: not looked at.
    executable: Option<PathBuf>,
    /// The name of its unit; none: not looked at.
    unit: Option<String>,
}

impl Installed {
    /// Of the executable at `executable` and the unit `unit`; an empty one is not looked at.
    pub(crate) fn new(executable: &Path, unit: &str) -> Self {
        Self {
            root: PathBuf::from("/"),
            executable: (!executable.as_os_str().is_empty()).then(|| executable.to_owned()),
            unit: (!unit.is_empty()).then(|| unit.to_owned()),
        }
    }

    /// Whether somebody removed it or switched it off, and what shows that; none if it could run.
    pub(crate) fn why_gone(&self) -> Option<(PackageState, String)> {
        if let Some(executable) = &self.executable
            && is_gone(executable)
        {
            let seen = format!("its executable {} is not there", executable.display());
            return Some((PackageState::Uninstalled, seen));
        }
        let unit = self.unit.as_ref()?;
        let folders = UNIT_FOLDERS.map(|folder| self.root.join(folder));
        let mut files = folders.iter().map(|folder| folder.join(unit));
        let Some(file) = files.find(|file| fs::symlink_metadata(file).is_ok()) else {
            let seen = format!("its unit {unit} is not there");
            return Some((PackageState::Uninstalled, seen));
        };
        if fs::read_link(&file).is_ok_and(|target| target == Path::new("/dev/null")) {
            return Some((PackageState::Disabled, format!("its unit {unit} is masked")));
        }
        // A unit without an [Install] section can't be enabled: something else starts it.
        let can_be_enabled = fs::read_to_string(&file).is_ok_and(|text| text.contains("[Install]"));
        if can_be_enabled && !self.is_enabled(unit) {
            return Some((PackageState::Disabled, format!("its unit {unit} is disabled")));
        }
        None
    }

    /// Enabling a unit is a link to it in some `….wants` or `….requires`.
    fn is_enabled(&self, unit: &str) -> bool {
        UNIT_FOLDERS.iter().any(|folder| {
            let entries = fs::read_dir(self.root.join(folder))
                .into_iter()
                .flatten()
                .flatten();
            entries
                .map(|entry| entry.path())
                .filter(|path| {
                    path.extension()
                        .is_some_and(|kind| kind == "wants" || kind == "requires")
                })
                .any(|path| fs::symlink_metadata(path.join(unit)).is_ok())
        })
    }
}

/// Only what is certainly not there: a folder that can't be read proves nothing.
fn is_gone(path: &Path) -> bool {
    matches!(fs::metadata(path), Err(error) if error.kind() == io::ErrorKind::NotFound)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    const UNIT: &str = "understudy-ingest.service";

    /// A machine's root with the executable and an enabled unit, as its package leaves it.
    fn machine() -> (tempfile::TempDir, Installed) {
        let root = tempfile::tempdir().expect("a folder");
        let executable = root.path().join("usr/bin/understudy");
        for folder in [
            "usr/bin",
            "usr/lib/systemd/system",
            "etc/systemd/system/multi-user.target.wants",
        ] {
            fs::create_dir_all(root.path().join(folder)).expect("made");
        }
        fs::copy(std::env::current_exe().expect("this test"), &executable).expect("installed");
        let text =
            "[Service]\nExecStart=/usr/bin/understudy ingest\n\n[Install]\nWantedBy=multi-user.target\n";
        fs::write(root.path().join("usr/lib/systemd/system").join(UNIT), text).expect("written");
        symlink(
            Path::new("/usr/lib/systemd/system").join(UNIT),
            wanted(root.path()),
        )
        .expect("enabled");
        let installed = Installed {
            root: root.path().to_owned(),
            ..Installed::new(&executable, UNIT)
        };
        (root, installed)
    }

    fn wanted(root: &Path) -> PathBuf {
        root.join("etc/systemd/system/multi-user.target.wants").join(UNIT)
    }

    #[test]
    fn c4_what_is_installed_and_enabled_has_no_reason_to_be_gone() {
        let (_root, installed) = machine();
        assert_eq!(installed.why_gone(), None);
        assert_eq!(
            Installed::new(Path::new(""), "").why_gone(),
            None,
            "not looked at"
        );
    }

    #[test]
    fn c4_a_service_whose_unit_is_disabled_or_masked_is_disabled() {
        let (root, installed) = machine();
        fs::remove_file(wanted(root.path())).expect("as systemctl disable does");
        let (state, seen) = installed.why_gone().expect("disabled");
        assert_eq!(state, PackageState::Disabled);
        assert_eq!(seen, "its unit understudy-ingest.service is disabled");

        symlink("/dev/null", root.path().join("etc/systemd/system").join(UNIT))
            .expect("as systemctl mask does");
        let (state, seen) = installed.why_gone().expect("masked");
        assert_eq!(state, PackageState::Disabled);
        assert!(seen.contains("masked"), "{seen}");
    }

    #[test]
    fn c4_a_service_without_its_executable_or_its_unit_is_uninstalled() {
        let (root, installed) = machine();
        fs::remove_file(root.path().join("usr/lib/systemd/system").join(UNIT)).expect("removed");
        let (state, seen) = installed.why_gone().expect("uninstalled");
        assert_eq!(state, PackageState::Uninstalled);
        assert_eq!(seen, "its unit understudy-ingest.service is not there");

        fs::remove_file(root.path().join("usr/bin/understudy")).expect("removed");
        let (state, seen) = installed.why_gone().expect("uninstalled");
        assert_eq!(state, PackageState::Uninstalled);
        assert!(
            seen.contains("executable") && seen.contains("understudy"),
            "{seen}"
        );
    }
}
