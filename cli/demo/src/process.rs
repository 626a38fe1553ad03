//! One operating-system process of the fleet: started from the executable's subcommands, logged to a file,
//! killed by its id.

use std::{
    ffi::OsStr,
    fs::{File, OpenOptions},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::time::{Instant, sleep};

use crate::DemoError;

/// How long a process may take to answer on its health address.
const START_DEADLINE: Duration = Duration::from_secs(60);
/// How long a process may take to end when asked to.
const STOP_DEADLINE: Duration = Duration::from_secs(20);

/// A process of the fleet, running or not.
#[derive(Debug)]
pub struct Process {
    name: String,
    executable: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    /// A program that runs it in another place.
    enter: Vec<String>,
    health: SocketAddr,
    log: PathBuf,
    child: Option<Child>,
}

impl Process {
    /// Describes a process: `<executable> <arguments>`, whose `/healthz` answers at `health`.
    pub fn new(
        executable: &Path,
        name: &str,
        arguments: Vec<String>,
        health: SocketAddr,
        logs: &Path,
    ) -> Self {
        Self {
            name: name.to_owned(),
            executable: executable.to_owned(),
            arguments,
            environment: Vec::new(),
            enter: Vec::new(),
            health,
            log: logs.join(format!("{name}.log")),
            child: None,
        }
    }

    /// Sets an environment variable for later starts.
    pub fn set_environment(&mut self, key: &str, value: &str) {
        self.environment.retain(|(known, _)| known != key);
        self.environment.push((key.to_owned(), value.to_owned()));
    }

    /// Runs it, from its next start on, by a program that turns into what follows it on its command line, e.g.
    /// `nsenter --net=… --`.
    pub fn enter(&mut self, by: &[String]) {
        by.clone_into(&mut self.enter);
    }

    /// Starts it; its output is added to its log.
    ///
    /// # Errors
    /// [`DemoError::Io`] if it can't be started at all.
    pub fn start(&mut self) -> Result<(), DemoError> {
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log)
            .map_err(DemoError::io(format!("can't write {}", self.log.display())))?;
        let clone = |file: &File| file.try_clone().map_err(DemoError::io("can't share a log file"));
        let mut words = self
            .enter
            .iter()
            .map(OsStr::new)
            .chain([self.executable.as_os_str()]);
        let program = words.next().expect("there is the executable at least");
        let child = Command::new(program)
            .args(words)
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(key, value)| (key, value)))
            .stdin(Stdio::null())
            .stdout(clone(&log)?)
            .stderr(log)
            .spawn()
            .map_err(DemoError::io(format!(
                "can't start {}",
                self.executable.display()
            )))?;
        self.child = Some(child);
        Ok(())
    }

    /// Waits until it answers on `/healthz`.
    ///
    /// # Errors
    /// [`DemoError::Process`] if it ends instead, or says nothing for a minute.
    pub async fn healthy(&mut self) -> Result<(), DemoError> {
        let url = format!("http://{}/healthz", self.health);
        let deadline = Instant::now() + START_DEADLINE;
        loop {
            if let Some(status) = self.ended() {
                return Err(self.failure(&format!("ended at its start ({status})")));
            }
            if reqwest::get(&url)
                .await
                .is_ok_and(|answer| answer.status().is_success())
            {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(self.failure("does not answer on its health address"));
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// What `/readyz` says: its status and its body; none if it does not answer.
    pub async fn readiness(&self) -> Option<(u16, String)> {
        let answer = reqwest::get(format!("http://{}/readyz", self.health))
            .await
            .ok()?;
        Some((answer.status().as_u16(), answer.text().await.ok()?))
    }

    /// What `/metrics` says.
    pub async fn metrics(&self) -> Option<String> {
        reqwest::get(format!("http://{}/metrics", self.health))
            .await
            .ok()?
            .text()
            .await
            .ok()
    }

    /// What `/metrics` says of one metric, of the lines with all of these labels, each as it stands there; none if it
    /// does not answer.
    pub async fn figures(&self, metric: &str, labels: &[&str]) -> Option<Vec<f64>> {
        let text = self.metrics().await?;
        let lines = text.lines().filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let (name, with) = series.split_once('{').unwrap_or((series, ""));
            let meant = name == metric && labels.iter().all(|label| with.contains(label));
            meant.then(|| value.parse().ok()).flatten()
        });
        Some(lines.collect())
    }

    /// Its exit status, if it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child
            .as_mut()
            .and_then(|child| child.try_wait().ok().flatten())
    }

    /// Waits for it to end by itself.
    pub async fn wait(&mut self, at_most: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + at_most;
        while Instant::now() < deadline {
            if let Some(status) = self.ended() {
                return Some(status);
            }
            sleep(Duration::from_millis(20)).await;
        }
        None
    }

    /// Sends it a signal; nothing if it does not run.
    pub fn signal(&mut self, signal: Signal) {
        if self.ended().is_none()
            && let Some(pid) = self.pid()
        {
            // It may end in between: then there is nobody left to signal.
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }

    /// Kills it as `kill -9` does, and waits until it is gone.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Both fail only when it has ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Asks it to end (SIGTERM), and kills it if it does not. Returns whether it ended by itself.
    pub async fn stop(&mut self) -> bool {
        self.signal(Signal::SIGTERM);
        let gently = self.child.is_none() || self.wait(STOP_DEADLINE).await.is_some();
        self.kill();
        gently
    }

    /// Its process id while it runs.
    pub fn pid(&self) -> Option<i32> {
        self.child
            .as_ref()
            .and_then(|child| i32::try_from(child.id()).ok())
    }

    /// Its name in the fleet, e.g. `ingest@recorder-1`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its log file.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Where it answers on `/healthz`, `/readyz` and `/metrics`.
    pub fn health(&self) -> SocketAddr {
        self.health
    }

    fn failure(&self, what: &str) -> DemoError {
        DemoError::Process {
            name: self.name.clone(),
            what: what.to_owned(),
            log: self.log.display().to_string(),
            tail: tail(&self.log),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(12)..].join("\n")
}
