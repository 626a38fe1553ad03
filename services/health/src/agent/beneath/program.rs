//! Runs a program that is asked about devices: with a deadline, and never a second time while the first one
//! is still stuck in the kernel.

use std::{collections::BTreeMap, path::PathBuf, process::Stdio, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::{Child, Command},
    time::timeout,
};

/// More than this nobody prints.
const MOST_BYTES: u64 = 1 << 20;
/// For how long a program that was killed is waited for.
const DYING: Duration = Duration::from_secs(1);

/// What came of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It printed this, whatever its exit status: `smartctl` says by it that a disk fails.
    Said(String),
    /// It is not installed.
    NotThere,
    /// It did not end in time, or could not be run: why.
    Silent(String),
}

/// Where programs are, and those that never ended.
#[derive(Debug)]
pub(super) struct Programs {
    folders: Vec<PathBuf>,
    deadline: Duration,
    stuck: BTreeMap<String, Child>,
}

impl Programs {
    /// Those in the folders of `PATH`, and where a system keeps those that only root needs.
    pub(super) fn installed(deadline: Duration) -> Self {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let of_root = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
        Self::within(std::env::split_paths(&path).chain(of_root).collect(), deadline)
    }

    /// Those in `folders`.
    pub(super) fn within(folders: Vec<PathBuf>, deadline: Duration) -> Self {
        Self {
            folders,
            deadline,
            stuck: BTreeMap::new(),
        }
    }

    /// Runs one to its end.
    pub(super) async fn ask(&mut self, program: &str, arguments: &[&str]) -> Answer {
        if let Some(child) = self.stuck.get_mut(program) {
            if !matches!(child.try_wait(), Ok(Some(_))) {
                return Answer::Silent(format!("{program} of an earlier round has not ended yet"));
            }
            self.stuck.remove(program);
        }
        let paths = self.folders.iter().map(|folder| folder.join(program));
        let Some(path) = paths.into_iter().find(|path| path.is_file()) else {
            return Answer::NotThere;
        };
        let child = Command::new(path)
            .args(arguments)
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn();
        let mut child = match child {
            Ok(child) => child,
            Err(error) => return Answer::Silent(format!("{program} could not be run: {error}")),
        };
        let output = child.stdout.take();
        let ending = async {
            let text = read(output).await;
            let _ = child.wait().await;
            text
        };
        if let Ok(text) = timeout(self.deadline, ending).await {
            return Answer::Said(text);
        }
        let _ = child.start_kill();
        if timeout(DYING, child.wait()).await.is_err() {
            self.stuck.insert(program.to_owned(), child);
        }
        Answer::Silent(format!(
            "{program} has not answered within {} ms",
            self.deadline.as_millis()
        ))
    }
}

async fn read(output: Option<impl AsyncRead + Unpin>) -> String {
    let mut bytes = Vec::new();
    if let Some(output) = output {
        // What was read until an error is what there is.
        let _ = output.take(MOST_BYTES).read_to_end(&mut bytes).await;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    fn programs(deadline: Duration, script: &str) -> (tempfile::TempDir, Programs) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("diskctl");
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("set");
        let programs = Programs::within(vec![folder.path().to_owned()], deadline);
        (folder, programs)
    }

    #[tokio::test]
    async fn what_a_program_prints_counts_whatever_its_exit_status() {
        let (_folder, mut programs) = programs(Duration::from_secs(20), "echo \"$1 fails\"; exit 8");
        let said = programs.ask("diskctl", &["sda"]).await;
        assert_eq!(said, Answer::Said("sda fails\n".to_owned()));
        assert_eq!(programs.ask("otherctl", &[]).await, Answer::NotThere);
    }

    #[tokio::test]
    async fn c3_a_program_that_does_not_answer_is_given_up() {
        let (_folder, mut programs) = programs(Duration::from_millis(100), "exec sleep 1000");
        let Answer::Silent(why) = programs.ask("diskctl", &[]).await else {
            panic!("it can't have answered");
        };
        assert!(why.contains("has not answered within 100 ms"), "{why}");
        assert!(programs.stuck.is_empty(), "it could be killed");
    }
}
