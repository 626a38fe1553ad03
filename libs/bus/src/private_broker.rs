//! A real RabbitMQ for a test or a demonstration: on free ports, in a folder, of its own user, with its own
//! epmd and cookie, and gone when whoever started it is gone.
//!
//! Not for production: it has one node, and listens on loopback unless it is told otherwise.

use std::{
    io::Write as _,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::Instant,
};

use crate::BrokerConfig;

/// Where RabbitMQ's own start script lies: Debian's, then the generic archive's.
const PLACES: [&str; 3] = [
    "/usr/lib/rabbitmq/bin/rabbitmq-server",
    "/opt/rabbitmq/sbin/rabbitmq-server",
    "/usr/local/sbin/rabbitmq-server",
];
/// How long a start may take on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long an orderly end may take.
const STOP_PATIENCE: Duration = Duration::from_secs(20);
/// The user that it knows.
const USER: &str = "understudy";

/// Runs epmd and the broker, and ends both when its standard input ends, as it does when whoever holds the
/// other end is killed. `stop` on it ends the broker in good order.
const KEEPER: &str = r#"
epmd -port "$ERL_EPMD_PORT" -address 127.0.0.1 & epmd=$!
"$RABBITMQ_SERVER" >>"$RABBITMQ_LOG_BASE/console.log" 2>&1 & broker=$!
echo "$broker" >"$RABBITMQ_LOG_BASE/broker.pid"
read -r order
if [ "$order" = stop ]; then kill -TERM "$broker"; wait "$broker"; fi
kill -KILL "$broker" "$epmd" 2>/dev/null
wait
"#;

/// Why it did not start.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// RabbitMQ or Erlang is not there.
    #[error("RabbitMQ is not installed: no {} (on Debian or Ubuntu: apt-get install rabbitmq-server)", PLACES[0])]
    NotInstalled,
    /// Its folder or a process could not be made.
    #[error("can't start RabbitMQ in {}: {source}", folder.display())]
    Io {
        /// Where.
        folder: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It ended, or did not listen in time.
    #[error("RabbitMQ did not start within {PATIENCE:?}; its last words, from {}:\n{words}", log.display())]
    Silent {
        /// Its log.
        log: PathBuf,
        /// The log's end.
        words: String,
    },
    /// A command of `rabbitmqctl` failed.
    #[error("rabbitmqctl: {0}")]
    Control(String),
}

/// A running broker. Dropping it kills it, and removes its folder if that was a temporary one.
#[derive(Debug)]
pub struct PrivateBroker {
    folder: PathBuf,
    server: PathBuf,
    ports: Ports,
    password: String,
    /// Where it listens besides loopback.
    also_at: Vec<IpAddr>,
    keeper: Option<Child>,
    /// Removed last.
    _temporary: Option<tempfile::TempDir>,
}

#[derive(Clone, Copy, Debug)]
struct Ports {
    amqp: u16,
    distribution: u16,
    epmd: u16,
}

impl Ports {
    fn free() -> std::io::Result<Self> {
        // All are held until all are known, so that they differ.
        let held = [(); 3].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
        let [amqp, distribution, epmd] = held;
        let (amqp, distribution, epmd) = (amqp?, distribution?, epmd?);
        Ok(Self {
            amqp: amqp.local_addr()?.port(),
            distribution: distribution.local_addr()?.port(),
            epmd: epmd.local_addr()?.port(),
        })
    }
}

impl PrivateBroker {
    /// Starts a broker in a temporary folder of its own, and waits until it takes connections (about 5 s).
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn start() -> Result<Self, BrokerError> {
        let temporary = tempfile::Builder::new().prefix("understudy-broker-").tempdir();
        let temporary = temporary.map_err(|source| BrokerError::Io {
            folder: std::env::temp_dir(),
            source,
        })?;
        let mut broker = Self::start_in(temporary.path()).await?;
        broker._temporary = Some(temporary);
        Ok(broker)
    }

    /// Starts a broker in `folder`, which stays when it ends.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn start_in(folder: &Path) -> Result<Self, BrokerError> {
        Self::start_listening(folder, &[]).await
    }

    /// As [`Self::start_in`], and it listens on these addresses of this machine too: for networks that a test has
    /// to itself.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn start_listening(folder: &Path, also_at: &[IpAddr]) -> Result<Self, BrokerError> {
        let server = PLACES.iter().map(PathBuf::from).find(|place| place.exists());
        let failed = |source| BrokerError::Io {
            folder: folder.to_owned(),
            source,
        };
        let mut broker = Self {
            folder: folder.to_owned(),
            server: server.ok_or(BrokerError::NotInstalled)?,
            ports: Ports::free().map_err(failed)?,
            password: uuid::Uuid::new_v4().simple().to_string(),
            also_at: also_at.to_vec(),
            keeper: None,
            _temporary: None,
        };
        broker.write_files().map_err(failed)?;
        broker.run().await?;
        Ok(broker)
    }

    /// `amqp://user:password@127.0.0.1:port/%2f`.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_at(self.address())
    }

    /// The same for whoever reaches it at another address.
    #[must_use]
    pub fn url_at(&self, address: SocketAddr) -> String {
        format!("amqp://{USER}:{}@{address}/%2f", self.password)
    }

    /// The section `[broker]` that leads to it.
    #[must_use]
    pub fn config(&self) -> BrokerConfig {
        BrokerConfig {
            url: self.url(),
            url_file: None,
        }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.ports.amqp))
    }

    /// Its log.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.folder.join("log/console.log")
    }

    /// Ends it in good order, and waits until it has ended. It can be started again.
    pub async fn stop(&mut self) {
        let Some(mut keeper) = self.keeper.take() else {
            return;
        };
        if let Some(mut input) = keeper.stdin.take() {
            // Fails only if the keeper is dead already.
            let _dead = input.write_all(b"stop\n");
            let deadline = Instant::now() + STOP_PATIENCE;
            while Instant::now() < deadline && matches!(keeper.try_wait(), Ok(None)) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        end(keeper);
    }

    /// Kills it, as a power cut would, and waits until it is gone. It can be started again.
    pub fn kill(&mut self) {
        if let Some(keeper) = self.keeper.take() {
            end(keeper);
        }
    }

    /// Starts it again, on the same ports and with what it has on disk; kills it first if it runs.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn restart(&mut self) -> Result<(), BrokerError> {
        self.kill();
        self.run().await
    }

    /// Stops its threads, as a machine that hangs would: connections stay open and nothing is answered.
    ///
    /// Returns once each of them stands still: the signal alone stops them when the kernel comes round to it.
    #[expect(clippy::disallowed_methods, reason = "for tests, and done in a moment")]
    pub fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
        let deadline = Instant::now() + PATIENCE;
        while self.pid().is_some_and(|pid| !stands_still(pid)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Lets it go on after [`Self::freeze`].
    pub fn thaw(&self) {
        self.signal(Signal::SIGCONT);
    }

    fn pid(&self) -> Option<Pid> {
        let pid = std::fs::read_to_string(self.folder.join("log/broker.pid")).ok()?;
        pid.trim().parse().ok().map(Pid::from_raw)
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.pid() {
            // Fails only if it is dead, which then shows.
            let _dead = kill(pid, signal);
        }
    }

    /// Runs `rabbitmqctl` on it and returns what it printed. Takes a second or two.
    ///
    /// # Errors
    /// [`BrokerError::Control`].
    pub async fn control(&self, arguments: &[&str]) -> Result<String, BrokerError> {
        let mut command =
            tokio::process::Command::from(self.command(&self.server.with_file_name("rabbitmqctl")));
        command
            .arg("-q")
            .args(arguments)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let output = command
            .output()
            .await
            .map_err(|error| BrokerError::Control(error.to_string()))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() {
            Ok(text(&output.stdout))
        } else {
            Err(BrokerError::Control(text(&output.stderr)))
        }
    }

    fn write_files(&self) -> std::io::Result<()> {
        for name in ["home", "log", "mnesia"] {
            std::fs::create_dir_all(self.folder.join(name))?;
        }
        let cookie = self.folder.join("home/.erlang.cookie");
        std::fs::write(&cookie, uuid::Uuid::new_v4().simple().to_string())?;
        std::fs::set_permissions(&cookie, std::fs::Permissions::from_mode(0o400))?;
        std::fs::write(self.folder.join("enabled_plugins"), "[].\n")?;
        let config = self.folder.join("rabbitmq.conf");
        let mut text = format!(
            "listeners.tcp.default = 127.0.0.1:{}\n\
             default_user = {USER}\n\
             default_pass = {}\n\
             disk_free_limit.absolute = 50MB\n\
             log.console = true\n\
             log.console.level = info\n\
             log.file = false\n",
            self.ports.amqp, self.password
        );
        for (index, address) in self.also_at.iter().enumerate() {
            let listener = SocketAddr::new(*address, self.ports.amqp);
            text.push_str(&format!("listeners.tcp.also_{index} = {listener}\n"));
        }
        std::fs::write(&config, text)?;
        std::fs::set_permissions(&config, std::fs::Permissions::from_mode(0o600))
    }

    /// A command with the environment that keeps this broker apart from any other.
    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        let ports = self.ports;
        command
            .current_dir(&self.folder)
            .env("HOME", self.folder.join("home"))
            .env("LC_ALL", "C.UTF-8")
            .env("RABBITMQ_SERVER", &self.server)
            .env(
                "RABBITMQ_NODENAME",
                format!("understudy-{}@localhost", ports.amqp),
            )
            .env("RABBITMQ_DIST_PORT", ports.distribution.to_string())
            .env("RABBITMQ_MNESIA_BASE", self.folder.join("mnesia"))
            .env("RABBITMQ_LOG_BASE", self.folder.join("log"))
            .env("RABBITMQ_CONFIG_FILE", self.folder.join("rabbitmq.conf"))
            .env(
                "RABBITMQ_ENABLED_PLUGINS_FILE",
                self.folder.join("enabled_plugins"),
            )
            .env("RABBITMQ_CONF_ENV_FILE", "/dev/null")
            .env("ERL_EPMD_PORT", ports.epmd.to_string())
            .env("ERL_EPMD_ADDRESS", "127.0.0.1");
        command
    }

    async fn run(&mut self) -> Result<(), BrokerError> {
        let mut command = self.command(Path::new("/bin/sh"));
        command
            .args(["-c", KEEPER])
            // The start script becomes the broker instead of starting it, so that the keeper can await it.
            .env("RABBITMQ_ALLOW_INPUT", "1")
            // Idle schedulers sleep instead of spinning: others need the cores.
            .env(
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
                "-noinput +sbwt none +sbwtdcpu none +sbwtdio none -kernel inet_dist_use_interface {127,0,0,1}",
            )
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // A Ctrl-C in the terminal is for whoever started it, who ends it in order.
            .process_group(0);
        let keeper = command.spawn().map_err(|source| BrokerError::Io {
            folder: self.folder.clone(),
            source,
        })?;
        self.keeper = Some(keeper);
        if tokio::time::timeout(PATIENCE, self.answers()).await.is_ok() {
            return Ok(());
        }
        self.kill();
        let log = self.log();
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        let words = lines[lines.len().saturating_sub(20)..].join("\n");
        Err(BrokerError::Silent { log, words })
    }

    /// Waits until it answers an AMQP greeting.
    async fn answers(&self) {
        let greet = async || -> std::io::Result<()> {
            let mut stream = tokio::net::TcpStream::connect(self.address()).await?;
            stream.write_all(b"AMQP\x00\x00\x09\x01").await?;
            stream.read_u8().await.map(drop)
        };
        while greet().await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for PrivateBroker {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Whether none of its threads runs; true also when it is gone. By the third field of `/proc/PID/task/*/stat`
/// (proc(5)), after the name in brackets.
fn stands_still(pid: Pid) -> bool {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else {
        return true;
    };
    threads.flatten().all(|thread| {
        let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        stat.rsplit_once(") ")
            .is_none_or(|(_, rest)| rest.starts_with(['T', 't', 'Z', 'X']))
    })
}

/// Ends the keeper and everything that it started.
#[expect(
    clippy::disallowed_methods,
    reason = "a drop ends it too, and can't wait in any other way"
)]
fn end(mut keeper: Child) {
    // Its input ends: it kills broker and epmd, and reaps them.
    drop(keeper.stdin.take());
    let deadline = Instant::now() + Duration::from_secs(5);
    while Instant::now() < deadline {
        if !matches!(keeper.try_wait(), Ok(None)) {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    if let Ok(group) = i32::try_from(keeper.id()) {
        // Whatever is left of its group.
        let _gone = killpg(Pid::from_raw(group), Signal::SIGKILL);
    }
    let _reaped = keeper.wait();
}
