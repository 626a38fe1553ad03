//! `understudy license`: keys in the fleet, and the making of keys, which needs no fleet.

use std::{
    io::Read,
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::json;
use understudy_core::{
    contract::api::{LicenseHappening, LicensesView},
    ids::{LicenseKeyId, ServerId},
};

use crate::{
    client::Connection,
    failure::Failure,
    output::{Output, list, or_dash, table, time, word},
};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// All keys, and who holds them
    List,
    /// What happened to keys, newest first: added, moved by which failover, given back, removed
    History {
        /// Only of keys that this server had or got
        #[arg(long)]
        server: Option<ServerId>,
    },
    /// Add a key to a server; the same again is no error
    Add {
        /// Who uses it
        server: ServerId,
        /// The key's text
        #[arg(required_unless_present = "file", conflicts_with = "file")]
        key: Option<String>,
        /// A file with the key's text; - for standard input
        #[arg(long)]
        file: Option<PathBuf>,
    },
    /// Remove a key
    Remove {
        /// The key's id
        license: LicenseKeyId,
    },
    /// Make a key: for those who sell or hand them out
    Issue(IssueArgs),
}

#[derive(Debug, Args)]
pub(crate) struct IssueArgs {
    /// The file with the issuer's secret key
    #[arg(long, value_name = "FILE")]
    issuer: PathBuf,
    /// Make that file first: a new issuer. Its public key belongs into license.issuers of each host
    #[arg(long)]
    new_issuer: bool,
    /// The key's id; a random one without it
    #[arg(long)]
    id: Option<LicenseKeyId>,
    /// For how many devices
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    devices: u32,
    /// What people see
    #[arg(long, default_value = "")]
    label: String,
}

pub(crate) async fn run(connection: &Connection, command: Command) -> Result<(), Failure> {
    let output = connection.output();
    let command = match command {
        Command::Issue(arguments) => return issue(output, &arguments),
        other => other,
    };
    let api = connection.client()?;
    let answer = match command {
        Command::History { server } => {
            let mut happenings: Vec<LicenseHappening> = api.get_as("license-history").await?;
            let of = |each: &LicenseHappening| [&each.from, &each.to].into_iter().any(|id| *id == server);
            happenings.retain(|each| server.is_none() || of(each));
            return output.item(&happenings, |happenings| history(happenings));
        }
        Command::Add { server, key, file } => {
            let key = match (key, file) {
                (Some(key), _) => key,
                (None, Some(file)) => text_of(&file)?,
                (None, None) => return Err(Failure::Usage("give the key's text, or --file".into())),
            };
            api.send(
                Method::POST,
                "licenses",
                &json!({ "key": key.trim(), "server": server }),
            )
            .await?
        }
        Command::Remove { license } => api.delete(&format!("licenses/{license}")).await?,
        Command::List | Command::Issue(_) => api.get("licenses").await?,
    };
    output.answer(answer, |licenses: LicensesView| overview(&licenses))
}

fn issue(output: Output, arguments: &IssueArgs) -> Result<(), Failure> {
    let failed = |error: understudy_license::IssueError| Failure::Failed(error.to_string());
    if arguments.new_issuer {
        let public = understudy_license::generate_issuer(&arguments.issuer).map_err(failed)?;
        // Beside the key, which is all that standard output has.
        eprint(&format!(
            "the new issuer's public key, for [license] issuers:\n{public}\n"
        ));
    }
    let id = match &arguments.id {
        Some(id) => id.clone(),
        None => LicenseKeyId::new(uuid::Uuid::new_v4().to_string())
            .map_err(Failure::while_doing("can't make an id"))?,
    };
    let key = understudy_license::issue(&arguments.issuer, &id, arguments.devices, &arguments.label)
        .map_err(failed)?;
    let issued = json!({ "id": id, "devices": arguments.devices, "label": arguments.label, "key": key });
    output.item(&issued, |_| key.clone())
}

fn eprint(text: &str) {
    use std::io::Write;
    // Whoever closed standard error does not want to know.
    let _ = std::io::stderr().write_all(text.as_bytes());
}

fn text_of(file: &Path) -> Result<String, Failure> {
    let failed = Failure::while_doing(format!("can't read {}", file.display()));
    if file.as_os_str() != "-" {
        return std::fs::read_to_string(file).map_err(failed);
    }
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).map_err(failed)?;
    Ok(text)
}

fn overview(licenses: &LicensesView) -> String {
    let row = |key: &understudy_core::contract::api::LicenseKeyView| {
        let owner = if key.owner == key.holder {
            "-".into()
        } else {
            key.owner.to_string()
        };
        [
            key.id.to_string(),
            key.label.clone(),
            key.devices.to_string(),
            key.holder.to_string(),
            owner,
        ]
    };
    let head = ["key", "label", "devices", "held by", "goes back to"];
    let mut text = table(
        head,
        licenses.keys.iter().map(row).collect(),
        "there is no licence key: two cameras per server need none",
    );
    for (server, cameras) in licenses.unlicensed.iter().flatten() {
        text.push_str(&format!(
            "\n{server}: {} camera(s) without a licence; they film all the same: {}",
            cameras.len(),
            list(cameras)
        ));
    }
    text
}

fn history(happenings: &[LicenseHappening]) -> String {
    let row = |each: &LicenseHappening| {
        [
            time(each.at),
            each.key.to_string(),
            each.devices.to_string(),
            word(&each.what),
            or_dash(each.from.as_ref()),
            or_dash(each.to.as_ref()),
            or_dash(each.failover.as_ref()),
        ]
    };
    let head = ["when", "key", "devices", "what", "from", "to", "failover"];
    table(
        head,
        happenings.iter().map(row).collect(),
        "nothing happened to any key yet",
    )
}
