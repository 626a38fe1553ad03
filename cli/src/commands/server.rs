//! `understudy server`.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Args, Subcommand, ValueEnum};
use reqwest::Method;
use serde_json::json;
use understudy_core::{
    contract::api::{ServerEdit, ServerView},
    ids::{DomainId, ServerId},
    server::{Mode, Server},
    words::{length, size},
};
use understudy_runtime::seal::{FleetKey, SealError};

use crate::{
    client::{Api, Connection, who},
    commands::policy::duration,
    confirm::Consent,
    failure::Failure,
    output::{Output, list, or_dash, table, time, word},
};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// All servers, or one in detail
    List {
        /// Only this one
        server: Option<ServerId>,
    },
    /// Enrol a server; the same again is no error
    Add(AddArgs),
    /// Remove a server, and its cameras with it; its archive stays on its own disk
    Remove {
        /// Which
        server: ServerId,
        #[command(flatten)]
        consent: Consent,
    },
    /// Change a server; what is left out stays
    Edit(EditArgs),
    /// Switch a server on: it takes part again
    Enable {
        /// Which
        server: ServerId,
    },
    /// Switch a server off: it films nothing, and is neither protected nor a stand-in
    Disable {
        /// Which
        server: ServerId,
        #[command(flatten)]
        consent: Consent,
    },
    /// For a while, what happens to a server is meant: no failover of it begins by itself
    Maintenance(MaintenanceArgs),
    /// Erase everything that was recorded on a failover server or one that is not active
    Erase {
        /// Which
        server: ServerId,
        #[command(flatten)]
        consent: Consent,
    },
    /// Make the key that all machines of a fleet share, in a new file; needs no host
    Key {
        /// Where; a file that is there is never overwritten
        file: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(crate) struct AddArgs {
    /// Its id: lower-case letters, digits, hyphens. The same as its own server.id
    server: ServerId,
    /// Its name as people see it; the id without it
    #[arg(long)]
    name: Option<String>,
    /// The site or network that it is in
    #[arg(long, default_value = "default")]
    domain: DomainId,
    /// What it is for
    #[arg(long)]
    mode: ModeArg,
    /// The most cameras that it can run
    #[arg(long, value_name = "COUNT")]
    max_cameras: u32,
    /// Where its sync service is reached, e.g. http://192.0.2.7:7400
    #[arg(long, value_name = "URL")]
    sync_address: String,
    /// Known, but taking no part
    #[arg(long)]
    disabled: bool,
}

#[derive(Debug, Args)]
pub(crate) struct EditArgs {
    /// Which
    server: ServerId,
    /// Its name as people see it
    #[arg(long)]
    name: Option<String>,
    /// The most cameras that it can run
    #[arg(long, value_name = "COUNT")]
    max_cameras: Option<u32>,
    /// Where its sync service is reached
    #[arg(long, value_name = "URL")]
    sync_address: Option<String>,
    /// What it is for from now on. A server that becomes a failover server is erased
    #[arg(long)]
    mode: Option<ModeArg>,
    #[command(flatten)]
    consent: Consent,
}

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("what").required(true).args(["time", "end"]))]
pub(crate) struct MaintenanceArgs {
    /// Which: a recording server, or a failover server, which then stands in for nobody new
    server: ServerId,
    /// For how long from now on: up to 7 days. Given again, it replaces what was given before
    #[arg(long = "for", value_name = "DURATION", value_parser = duration, requires = "why")]
    time: Option<Duration>,
    /// Why, for everybody who wonders
    #[arg(long, requires = "time")]
    why: Option<String>,
    /// End it early
    #[arg(long)]
    end: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ModeArg {
    /// Owns cameras in normal operation
    Recording,
    /// Stands by
    Failover,
    /// In no use
    Inactive,
}

pub(crate) async fn run(connection: &Connection, command: Command) -> Result<(), Failure> {
    let output = connection.output();
    // Making a key needs no host.
    let api = || connection.client();
    match command {
        Command::List { server: None } => output
            .answer(api()?.get("servers").await?, |servers: Vec<ServerView>| {
                overview(&servers)
            }),
        Command::List { server: Some(server) } => output.answer(
            api()?.get(&format!("servers/{server}")).await?,
            |view: ServerView| detail(&view),
        ),
        Command::Add(arguments) => {
            let server = enrolled(arguments);
            output.answer(
                api()?.send(Method::POST, "servers", &server).await?,
                |view: ServerView| format!("{} is enrolled as {}", view.label, view.server.id),
            )
        }
        Command::Edit(arguments) => {
            let changes = ServerEdit {
                name: arguments.name,
                max_cameras: arguments.max_cameras,
                sync_address: arguments.sync_address,
                enabled: None,
                mode: arguments.mode.map(mode),
            };
            edit(&api()?, output, &arguments.server, &changes, &arguments.consent).await
        }
        Command::Enable { server } => {
            edit(&api()?, output, &server, &switch(true), &Consent::default()).await
        }
        Command::Disable { server, consent } => {
            edit(&api()?, output, &server, &switch(false), &consent).await
        }
        Command::Maintenance(arguments) => output
            .answer(maintain(&api()?, &arguments).await?, |view: ServerView| {
                detail(&view)
            }),
        Command::Erase { server, consent } => {
            let nothing: Option<&()> = None;
            let path = format!("servers/{server}/erase");
            match consent.send(&api()?, Method::POST, &path, nothing).await? {
                Some(answer) => output.answer(answer, |view: ServerView| detail(&view)),
                None => output.done("nothing was changed"),
            }
        }
        Command::Remove { server, consent } => {
            let (api, path) = (api()?, format!("servers/{server}"));
            let view: ServerView = api.get_as(&path).await?;
            let nothing: Option<&()> = None;
            if consent
                .send(&api, Method::DELETE, &path, nothing)
                .await?
                .is_none()
            {
                return output.done("nothing was changed");
            }
            let cameras = match view.cameras {
                cameras if cameras > 0 && view.server.mode == Mode::Recording => {
                    format!(", with its {cameras} camera(s)")
                }
                _ => String::new(),
            };
            output.done(format!(
                "{server} is removed{cameras}; what it recorded stays on its disk"
            ))
        }
        Command::Key { file } => {
            make_key(&file)?;
            output.done(format!(
                "{} holds a new fleet key: copy it to the host and to each server, for the service's user only",
                file.display()
            ))
        }
    }
}

fn switch(on: bool) -> ServerEdit {
    ServerEdit {
        enabled: Some(on),
        ..ServerEdit::default()
    }
}

async fn edit(
    api: &Api,
    output: Output,
    server: &ServerId,
    edit: &ServerEdit,
    consent: &Consent,
) -> Result<(), Failure> {
    let path = format!("servers/{server}");
    match consent.send(api, Method::PATCH, &path, Some(edit)).await? {
        Some(answer) => output.answer(answer, |view: ServerView| detail(&view)),
        None => output.done("nothing was changed"),
    }
}

async fn maintain(api: &Api, arguments: &MaintenanceArgs) -> Result<serde_json::Value, Failure> {
    let path = format!("servers/{}/maintenance", arguments.server);
    match arguments.time {
        Some(time) => {
            let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
            let body = json!({ "for_ms": millis, "why": arguments.why, "by": who() });
            api.send(Method::PUT, &path, &body).await
        }
        None => {
            let body = json!({ "by": who() });
            api.send(Method::POST, &format!("{path}/end"), &body).await
        }
    }
}

fn make_key(file: &Path) -> Result<(), Failure> {
    match FleetKey::generate_to(file) {
        Ok(_) => Ok(()),
        Err(SealError::File { path, source }) if source.kind() == std::io::ErrorKind::AlreadyExists => {
            Err(Failure::Failed(format!(
                "{} is there already, and a fleet's key is not overwritten: without it no server could read its settings",
                path.display()
            )))
        }
        Err(error) => Err(Failure::Failed(error.to_string())),
    }
}

fn mode(argument: ModeArg) -> Mode {
    match argument {
        ModeArg::Recording => Mode::Recording,
        ModeArg::Failover => Mode::Failover,
        ModeArg::Inactive => Mode::Inactive,
    }
}

fn enrolled(arguments: AddArgs) -> Server {
    Server {
        name: arguments.name.unwrap_or_else(|| arguments.server.to_string()),
        id: arguments.server,
        domain: arguments.domain,
        mode: mode(arguments.mode),
        max_cameras: arguments.max_cameras,
        sync_address: arguments.sync_address,
        enabled: !arguments.disabled,
    }
}

fn overview(servers: &[ServerView]) -> String {
    let row = |view: &ServerView| {
        [
            view.server.id.to_string(),
            view.label.clone(),
            word(&view.server.mode),
            view.server.domain.to_string(),
            word(&view.state),
            format!("{}/{}", view.filming, view.cameras),
            if view.server.mode != Mode::Recording {
                or_dash(view.bears_name.as_ref().map(|name| format!("as {name}")))
            } else if view.protected {
                "protected".into()
            } else {
                "unprotected".into()
            },
            acts(view).into(),
        ]
    };
    let mut text = table(
        [
            "server",
            "name (cameras/maximum)",
            "mode",
            "domain",
            "state",
            "filming",
            "protection",
            "acts",
        ],
        servers.iter().map(row).collect(),
        "no server is enrolled yet: understudy server add --help",
    );
    for view in servers {
        for warning in &view.warnings {
            text.push_str(&format!("\n{}: {warning}", view.server.id));
        }
    }
    text
}

/// Whether it may open doors and switch outputs, in a word.
fn acts(view: &ServerView) -> &'static str {
    match &view.right_to_act {
        Some(right) if right.held => "yes",
        Some(_) => "no",
        None => "-",
    }
}

fn acts_and_why(view: &ServerView) -> String {
    let words = view.right_to_act.as_ref().map(|right| match right.since {
        Some(since) if right.held => format!(", since {}", time(since)),
        _ if right.why.is_empty() => String::new(),
        _ => format!(": {}", right.why),
    });
    format!("{}{}", acts(view), words.unwrap_or_default())
}

/// What is free for recordings, how fast it goes, and for how long a failover server could stand in.
fn room(view: &ServerView) -> String {
    let Some(room) = &view.room else {
        return "-".to_owned();
    };
    let mut text = format!("{} free", size(room.bytes));
    if let Some(rate) = room.bytes_per_second.filter(|rate| *rate > 0) {
        text.push_str(&format!(", records {} an hour", size(rate.saturating_mul(3600))));
    }
    if let Some(stands_in) = &view.stands_in {
        text.push_str(&format!(
            "; enough to stand in for {} for {}",
            stands_in.server,
            length(stands_in.for_ms)
        ));
    }
    text
}

fn detail(view: &ServerView) -> String {
    let mut lines = vec![
        format!("{}  {}", view.server.id, view.label),
        format!(
            "mode         {} in {}",
            word(&view.server.mode),
            view.server.domain
        ),
        format!("state        {}", word(&view.state)),
        format!("filming      {} of {} cameras", view.filming, view.cameras),
        format!("bears        {}", or_dash(view.bears_name.as_ref())),
        format!(
            "assignment   {} given, {} reached",
            or_dash(view.assigned),
            or_dash(view.reached)
        ),
        format!("service      {} {}", word(&view.package), view.package.evidence),
        format!("volume       {} {}", word(&view.storage), view.storage.evidence),
        format!("room         {}", room(view)),
        format!("acts         {}", acts_and_why(view)),
        format!("sync         {}", view.server.sync_address),
    ];
    if view.server.mode == Mode::Recording {
        let protected = if view.protected { "yes" } else { "no" };
        lines.push(format!(
            "protected    {protected}, paired with {}",
            list(&view.paired_with)
        ));
    }
    if let Some(maintenance) = &view.maintenance {
        lines.push(format!(
            "maintenance  until {}, says {}: {}",
            time(maintenance.until),
            maintenance.by,
            maintenance.why
        ));
    }
    lines.push(format!("failover     {}", or_dash(view.failover.as_ref())));
    lines.extend(
        view.warnings
            .iter()
            .map(|warning| format!("warning      {warning}")),
    );
    lines
        .iter()
        .map(|line| line.trim_end())
        .collect::<Vec<_>>()
        .join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fleet_key_is_made_once_and_never_overwritten() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("fleet.key");
        make_key(&file).expect("it is made");
        let made = std::fs::read(&file).expect("it is there");
        FleetKey::load(&file).expect("a service can use it");
        let mode = std::fs::metadata(&file)
            .expect("it is there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        let refused = make_key(&file).expect_err("it is there already").to_string();
        assert!(refused.contains("not overwritten"), "{refused}");
        assert_eq!(std::fs::read(&file).expect("it is there"), made);
    }
}
