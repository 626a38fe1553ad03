//! Starts one service, or the simulator, in this process.

use std::{io, net::SocketAddr, path::PathBuf, time::Duration};

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use understudy_ingest::Opener;
use understudy_runtime::{Process, RuntimeConfig, ServerConfig};
use understudy_simulator::SimulatorConfig;

use crate::{
    config::Config,
    failure::Failure,
    output::{Output, table},
};

/// How a service is started.
#[derive(Debug, Args)]
pub(crate) struct ServiceArgs {
    /// The machine's configuration; without it, defaults and environment variables
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where /healthz, /readyz and /metrics are, instead of runtime.listen
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    #[command(flatten)]
    family: Family,
}

/// How the notifier is started, or tried.
#[derive(Debug, Args)]
pub(crate) struct NotifierArgs {
    #[command(flatten)]
    service: ServiceArgs,
    /// Send a trial message to each receiver, say what became of it, and end
    #[arg(long)]
    test: bool,
    /// With --test: as JSON
    #[arg(long, requires = "test")]
    json: bool,
}

/// How the simulator is started.
#[derive(Debug, Args)]
pub(crate) struct SimulatorArgs {
    #[command(flatten)]
    simulator: SimulatorConfig,
    #[command(flatten)]
    family: Family,
}

/// Which process is asked.
#[derive(Debug, Args)]
pub(crate) struct ReadyArgs {
    /// Its --listen address
    #[arg(default_value = "127.0.0.1:7600")]
    address: SocketAddr,
}

/// How long a process may take to say whether it is ready.
const READY_WITHIN: Duration = Duration::from_secs(3);

/// Asks a process on `/readyz`. Containers have no other program to ask with.
pub(crate) async fn ready(arguments: &ReadyArgs) -> Result<(), Failure> {
    let address = arguments.address;
    let silent = Failure::while_doing(format!("no answer from {address}"));
    let client = reqwest::Client::builder().no_proxy().timeout(READY_WITHIN);
    let client = client.build().map_err(&silent)?;
    let request = client.get(format!("http://{address}/readyz"));
    let answer = request.send().await.map_err(&silent)?;
    let status = answer.status();
    let waiting = answer.text().await.map_err(&silent)?;
    if status.is_success() {
        return Ok(());
    }
    Err(Failure::Failed(format!("not ready: {}", waiting.trim())))
}

/// The subcommand that opens settings.
pub(crate) const OPEN_BUNDLES: &str = "open-bundles";

/// How settings are opened.
#[derive(Debug, Args)]
pub(crate) struct OpenBundlesArgs {
    /// The fleet's key
    #[arg(long, value_name = "FILE")]
    key_file: PathBuf,
}

#[derive(Debug, Args)]
struct Family {
    /// End when the process that started this one ends, however it ends (Linux)
    #[arg(long)]
    die_with_parent: bool,
}

/// The services.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Service {
    Monitor,
    Orchestrator,
    License,
    Notifier,
    Console,
    Agent,
    Ingest,
    Sync,
}

impl Service {
    fn name(self) -> &'static str {
        match self {
            Self::Monitor => "monitor",
            Self::Orchestrator => "orchestrator",
            Self::License => "license",
            Self::Notifier => "notifier",
            Self::Console => "console",
            Self::Agent => "agent",
            Self::Ingest => "ingest",
            Self::Sync => "sync",
        }
    }

    /// The domain of the machine that it belongs to.
    fn domain(self, config: &Config) -> String {
        match self {
            Self::Monitor | Self::Orchestrator | Self::License | Self::Notifier | Self::Console => {
                &config.host.domain
            }
            Self::Agent | Self::Ingest | Self::Sync => &config.server.domain,
        }
        .to_string()
    }
}

/// Runs a service until it is asked to end.
pub(crate) async fn run(service: Service, arguments: ServiceArgs) -> Result<(), Failure> {
    arguments.family.apply()?;
    let mut config = Config::read(arguments.config.as_deref()).map_err(failed)?;
    if let Some(listen) = arguments.listen {
        config.runtime.listen = listen;
    }
    if config.runtime.domain == RuntimeConfig::default().domain {
        config.runtime.domain = service.domain(&config);
    }
    let process = Process::start_traced(service.name(), &config.runtime, &config.telemetry)
        .await
        .map_err(failed)?;
    // On the heap: a service is large.
    let outcome = Box::pin(start(service, config, &process)).await;
    if outcome.is_ok() {
        // Some services start their tasks and leave the waiting to the process.
        process.shutdown().cancelled().await;
    }
    process.finish().await;
    outcome
}

async fn start(service: Service, config: Config, process: &Process) -> Result<(), Failure> {
    let Config {
        broker,
        fleet,
        host,
        server,
        ..
    } = config;
    let process = process.clone();
    match service {
        Service::Console => understudy_console::run(config.console, broker, process)
            .await
            .map_err(failed),
        Service::Monitor => understudy_health::monitor::run(config.monitor, fleet, broker, process)
            .await
            .map_err(failed),
        Service::Agent => understudy_health::agent::run(config.agent, fleet, server, broker, process)
            .await
            .map_err(failed),
        Service::Orchestrator => understudy_orchestrator::run(config.orchestrator, host, broker, process)
            .await
            .map_err(failed),
        Service::License => understudy_license::run(config.license, host, broker, process)
            .await
            .map_err(failed),
        Service::Notifier => understudy_notifier::run(config.notifier, host, broker, process)
            .await
            .map_err(failed),
        Service::Ingest => {
            let opener = opener(&server)?;
            understudy_ingest::run(config.ingest, server, broker, opener, process)
                .await
                .map_err(failed)
        }
        Service::Sync => understudy_sync::run(config.sync, fleet, server, broker, process)
            .await
            .map_err(failed),
    }
}

/// Runs the notifier, or tries its receivers.
pub(crate) async fn notify(arguments: NotifierArgs) -> Result<(), Failure> {
    if !arguments.test {
        return run(Service::Notifier, arguments.service).await;
    }
    let config = Config::read(arguments.service.config.as_deref()).map_err(failed)?;
    let tried = understudy_notifier::try_each(&config.notifier)
        .await
        .map_err(failed)?;
    let failures = tried.iter().filter(|tried| tried.failure.is_some()).count();
    let output = Output { json: arguments.json };
    output.item(&tried, |tried| {
        let rows = tried.iter().map(|tried| {
            let outcome = tried.failure.clone().unwrap_or_else(|| "sent".to_owned());
            [tried.receiver.clone(), tried.at.clone(), outcome]
        });
        table(["receiver", "at", "outcome"], rows.collect(), "nobody")
    })?;
    match failures {
        0 => Ok(()),
        some => Err(Failure::Failed(format!(
            "{some} of {} receivers did not take it",
            tried.len()
        ))),
    }
}

/// Opens settings in another process of this executable.
fn opener(server: &ServerConfig) -> Result<Opener, Failure> {
    let executable = std::env::current_exe().map_err(Failure::while_doing("finding this executable"))?;
    let key_file = server.fleet_key_file.clone().into_os_string();
    Ok(Opener::new(
        executable,
        [OPEN_BUNDLES.into(), "--key-file".into(), key_file],
    ))
}

/// Opens the settings on standard input, for the recording service that started this process.
pub(crate) fn open_bundles(arguments: &OpenBundlesArgs) -> Result<(), Failure> {
    understudy_ingest::answer(&arguments.key_file, io::stdin().lock(), io::stdout().lock()).map_err(failed)
}

/// Runs simulated cameras until they are asked to end.
pub(crate) async fn simulate(arguments: SimulatorArgs) -> Result<(), Failure> {
    arguments.family.apply()?;
    let shutdown = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let ended = shutdown.clone();
    let cameras = understudy_simulator::run(arguments.simulator, shutdown);
    let signals = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
        ended.cancel();
        std::future::pending::<()>().await;
    };
    tokio::select! {
        outcome = cameras => outcome.map_err(failed),
        () = signals => Ok(()),
    }
}

impl Family {
    fn apply(&self) -> Result<(), Failure> {
        if !self.die_with_parent {
            return Ok(());
        }
        let parent = nix::unistd::getppid();
        nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)
            .map_err(Failure::while_doing("--die-with-parent"))?;
        // It may have ended just before: then nobody would end this one.
        if nix::unistd::getppid() == parent {
            Ok(())
        } else {
            Err(Failure::Failed(
                "the process that started this one has ended".into(),
            ))
        }
    }
}

/// An error with all its causes, on one line.
fn failed(error: impl std::error::Error) -> Failure {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(deeper) = cause {
        let more = deeper.to_string();
        // Many errors say their cause themselves.
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = deeper.source();
    }
    Failure::Failed(text)
}
