//! `understudy`: the one command people type; it also starts every service and the simulator.
//!
//! Client commands speak to `/api/v1` and to nothing else. Exit status: 0 done, 1 failed, 2 wrong usage.

mod client;
mod commands;
mod config;
mod confirm;
mod demo;
mod failure;
mod output;
mod service;

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::{
    client::Connection,
    commands::{
        camera, coverage, dead_letters, disk, events, failover, license, pair, policy, replace, restoration,
        server,
    },
    failure::Failure,
    service::{Service, ServiceArgs},
};

/// Keeps video surveillance filming when a recording server fails.
#[derive(Debug, Parser)]
#[command(name = "understudy", version, propagate_version = true)]
#[command(after_help = "Exit status: 0 done, 1 failed, 2 wrong usage.\nTry it: understudy demo")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show it: a fleet in a temporary folder, a killed server, a takeover, and everything handed back
    Demo(demo::DemoArgs),
    /// Servers: list, add, edit, enable, disable, remove
    Server(Group<server::Command>),
    /// Which failover servers may stand in for a recording server
    Pair(One<pair::PairArgs>),
    /// When a failover starts and ends, how far it goes, and what comes back
    Policy(One<policy::PolicyArgs>),
    /// Failovers: start, stop, status, show, watch
    Failover(Group<failover::Command>),
    /// The handing back of recordings after a failover
    Restoration(Group<restoration::Command>),
    /// Another server takes a failed recording server's place for good
    Replace(One<replace::ReplaceArgs>),
    /// Licence keys: list, add, remove, issue; without any of them, starts the licence service
    License(LicenseArgs),
    /// Cameras: list, add, edit, remove
    Camera(Group<camera::Command>),
    /// Which recording servers are protected, and what is missing
    Coverage(One<coverage::CoverageArgs>),
    /// What recordings need of a disk; needs no host
    Disk(One<disk::DiskArgs>),
    /// What happened, and what happens
    Events(One<events::EventsArgs>),
    /// Messages that could not be handled: list, show, replay, drop
    DeadLetters(Group<dead_letters::Command>),
    /// Host: starts the service that sees which servers are alive
    Monitor(ServiceArgs),
    /// Host: starts the service that decides on failovers
    Orchestrator(ServiceArgs),
    /// Host: starts the API
    Console(ServiceArgs),
    /// Host: starts the service that tells people and programs: mail, webhooks, syslog; or tries it
    Notifier(service::NotifierArgs),
    /// Server: starts the service that beats, and watches over the recording service
    Agent(ServiceArgs),
    /// Server: starts the recording service
    Ingest(ServiceArgs),
    /// Server: starts the service that hands recordings back
    Sync(ServiceArgs),
    /// Whether a process is ready, by its exit status: for health checks
    Ready(service::ReadyArgs),
    /// Opens settings for the recording service, which has no key of its own
    #[command(name = service::OPEN_BUNDLES, hide = true)]
    OpenBundles(service::OpenBundlesArgs),
    /// Starts cameras that behave like real ones
    Simulator(service::SimulatorArgs),
}

/// A noun with several verbs.
#[derive(Debug, Args)]
struct Group<C: Subcommand> {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    command: C,
}

/// A command of its own.
#[derive(Debug, Args)]
struct One<A: Args> {
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    arguments: A,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
struct LicenseArgs {
    #[command(flatten)]
    service: ServiceArgs,
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    command: Option<license::Command>,
}

fn main() -> ExitCode {
    // Wrong usage, `--help` and `--version` end here, with status 2, 0 and 0.
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return Failure::Failed(format!("can't start: {error}")).report(),
    };
    match runtime.block_on(run(cli.command)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Demo(arguments) => demo::run(arguments).await,
        Command::Server(group) => server::run(&group.connection, group.command).await,
        Command::Pair(one) => pair::run(&one.connection, one.arguments).await,
        Command::Policy(one) => policy::run(&one.connection, one.arguments).await,
        Command::Failover(group) => failover::run(&group.connection, group.command).await,
        Command::Restoration(group) => restoration::run(&group.connection, group.command).await,
        Command::Replace(one) => replace::run(&one.connection, one.arguments).await,
        Command::License(LicenseArgs {
            command: Some(command),
            connection,
            ..
        }) => license::run(&connection, command).await,
        Command::License(LicenseArgs { service, .. }) => service::run(Service::License, service).await,
        Command::Camera(group) => camera::run(&group.connection, group.command).await,
        Command::Coverage(one) => coverage::run(&one.connection).await,
        Command::Disk(one) => disk::run(&one.connection, &one.arguments),
        Command::Events(one) => events::run(&one.connection, one.arguments).await,
        Command::DeadLetters(group) => dead_letters::run(&group.connection, group.command).await,
        Command::Monitor(arguments) => service::run(Service::Monitor, arguments).await,
        Command::Orchestrator(arguments) => service::run(Service::Orchestrator, arguments).await,
        Command::Console(arguments) => service::run(Service::Console, arguments).await,
        Command::Notifier(arguments) => service::notify(arguments).await,
        Command::Agent(arguments) => service::run(Service::Agent, arguments).await,
        Command::Ingest(arguments) => service::run(Service::Ingest, arguments).await,
        Command::Sync(arguments) => service::run(Service::Sync, arguments).await,
        Command::Ready(arguments) => service::ready(&arguments).await,
        Command::OpenBundles(arguments) => service::open_bundles(&arguments),
        Command::Simulator(arguments) => service::simulate(arguments).await,
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_makes_sense() {
        Cli::command().debug_assert();
    }

    #[test]
    fn no_command_hides_where_the_host_is() {
        fn walk(command: &clap::Command, path: &str) {
            let mut seen = std::collections::BTreeSet::new();
            for argument in command.get_arguments().filter_map(clap::Arg::get_long) {
                assert!(seen.insert(argument), "{path}: --{argument} is there twice");
            }
            for below in command.get_subcommands() {
                let path = format!("{path} {}", below.get_name());
                let hidden = below
                    .get_arguments()
                    .any(|argument| argument.get_id() == "url" && argument.get_env().is_none());
                assert!(!hidden, "{path} has a --url of its own");
                walk(below, &path);
            }
        }
        walk(&Cli::command(), "understudy");
    }

    #[test]
    fn license_is_a_service_and_a_noun() {
        let parse = |arguments: &[&str]| Cli::try_parse_from(arguments);
        let started = parse(&["understudy", "license", "--config", "understudy.toml"]).expect("the service");
        assert!(matches!(
            started.command,
            Command::License(LicenseArgs { command: None, .. })
        ));
        let listed = parse(&["understudy", "license", "list", "--json"]).expect("the noun");
        assert!(matches!(
            listed.command,
            Command::License(LicenseArgs {
                command: Some(_),
                connection: Connection { json: true, .. },
                ..
            })
        ));
    }

    #[test]
    fn wrong_usage_exits_with_two() {
        let error = Cli::try_parse_from(["understudy", "failover", "explode"]).expect_err("no such verb");
        assert_eq!(error.exit_code(), 2);
    }
}
