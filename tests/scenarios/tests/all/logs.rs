//! What a whole failover writes into its logs: lines that machines can read, at levels that people can live with, and
//! never a secret (`docs/logging.md`).

use std::{collections::BTreeMap, path::Path};

use reqwest::Method;
use serde_json::Value;
use understudy_core::contract::api::Phase;
use understudy_demo::rig::{CAMERA_PASSWORD, CAMERA_USER, FLEET_TOKEN, Plan, Rig};
use understudy_runtime::TraceContext;
use understudy_scenarios::{Fleet, command_line, plan};

use crate::receivers::{Hook, Smtpd, eventually};

/// The token of live view in this test.
const RELAY_TOKEN: &str = "b2f1c7a94e0d-a-token-for-viewers-only-5d1e";

/// The token of the API in this test.
const API_TOKEN: &str = "c4d0e2b71f58-a-token-of-the-api-7a90";
/// What the notifier's receivers have to keep to themselves: the mail server's password,
const SMTP_PASSWORD: &str = "d81f6a02c5be-a-password-of-mail-33c1";
/// addresses that are secrets,
const HOOK_THERE: &str = "e07b95d3a1c4-an-address-of-a-webhook-f2d8";
/// also of one where nobody listens,
const HOOK_AWAY: &str = "09ac4e6d7f13-another-address-of-a-webhook-8b55";
/// what webhooks are signed with,
const HOOK_SECRET: &str = "1b3f8e5c9d20-what-webhooks-are-signed-with-6e47";
/// and what they present.
const HOOK_TOKEN: &str = "2c6a9b1e4f70-what-webhooks-present-0d3a";

/// Who is told in this test: two webhooks, of which one is away, and a mailbox behind a password.
struct Told {
    hook: Hook,
    /// If one could be had.
    mails: Option<Smtpd>,
    configuration: String,
}

impl Told {
    async fn begin(folder: &Path) -> anyhow::Result<Self> {
        let (there, away, mail) = (Hook::free(), Hook::free(), Hook::free());
        std::fs::create_dir(folder)?;
        let mails = Smtpd::is_here().then(|| {
            Smtpd::certificate(folder);
            let login = ["--user", "understudy", "--password", SMTP_PASSWORD];
            let certificate = ["--cert", "server.pem", "--key", "server.key"];
            Smtpd::start(mail.port(), folder, &[login, certificate].concat())
        });
        let vouches = match &mails {
            Some(_) => format!("ca_file = {:?}", folder.join("client.pem")),
            None => String::new(),
        };
        let configuration = format!(
            r#"
[notifier]
first_pause_ms = 200
longest_pause_ms = 1000
smtp_host = "127.0.0.1"
smtp_port = {port}
smtp_user = "understudy"
smtp_password = "{SMTP_PASSWORD}"
mail_from = "understudy@example.org"
{vouches}

[[notifier.receivers]]
name = "there"
to = "http://{there}/hook?key={HOOK_THERE}"
secret = "{HOOK_SECRET}"
token = "{HOOK_TOKEN}"

[[notifier.receivers]]
name = "away"
to = "http://{away}/hook?key={HOOK_AWAY}"
secret = "{HOOK_SECRET}"
token = "{HOOK_TOKEN}"

[[notifier.receivers]]
name = "anna"
to = "mailto:anna@example.org"
"#,
            port = mail.port(),
        );
        Ok(Self {
            hook: Hook::listen(there, Vec::new()).await,
            mails,
            configuration,
        })
    }

    /// Waits until each that is there was told with what it keeps to itself.
    async fn all(&self) {
        let posts = eventually("the webhook", async || self.hook.taken(4)).await;
        assert!(posts.iter().all(|post| post.body.get("event").is_some()));
        if let Some(mails) = &self.mails {
            eventually("the mail", async || mails.taken(1)).await;
        }
    }
}

/// Every log of a fleet, by process.
fn logs(folder: &Path) -> anyhow::Result<BTreeMap<String, String>> {
    let mut logs = BTreeMap::new();
    for entry in std::fs::read_dir(folder.join("logs"))? {
        let path = entry?.path();
        let name = path
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        // The simulator is no part of the product.
        if name != "simulator" {
            logs.insert(name, std::fs::read_to_string(&path)?);
        }
    }
    Ok(logs)
}

/// The secrets that stand in a text, by what they are.
fn told<'a>(secrets: &'a [(&'static str, String)], log: &str) -> Vec<&'a str> {
    let found = secrets.iter().filter(|(_, secret)| log.contains(secret.as_str()));
    found.map(|(what, _)| *what).collect()
}

/// Everything that this fleet has to keep to itself.
async fn secrets(fleet: &Fleet) -> anyhow::Result<Vec<(&'static str, String)>> {
    use base64::Engine as _;
    let folder = &fleet.rig.plan.folder;
    let text = |name: &str| -> anyhow::Result<String> {
        Ok(std::fs::read_to_string(folder.join(name))?.trim().to_owned())
    };
    let url = fleet.rig.broker.url();
    let broker = url.split_once("://").map_or("", |(_, rest)| rest);
    let broker = broker.split_once('@').map_or("", |(account, _)| account);
    let password = broker.split_once(':').map_or("", |(_, password)| password);
    let basic = base64::engine::general_purpose::STANDARD.encode(format!("{CAMERA_USER}:{CAMERA_PASSWORD}"));
    let mut secrets = vec![
        ("the cameras' password", CAMERA_PASSWORD.to_owned()),
        ("the cameras' password, as Basic has it", basic),
        ("the fleet's key", text("fleet.key")?),
        ("the issuer's key", text("issuer.key")?),
        ("the token of live view", RELAY_TOKEN.to_owned()),
        ("the token of the API", API_TOKEN.to_owned()),
        ("the mail server's password", SMTP_PASSWORD.to_owned()),
        ("a webhook's address", HOOK_THERE.to_owned()),
        ("the address of a webhook that is away", HOOK_AWAY.to_owned()),
        ("what webhooks are signed with", HOOK_SECRET.to_owned()),
        ("what webhooks present", HOOK_TOKEN.to_owned()),
        ("the fleet's token", FLEET_TOKEN.to_owned()),
        ("the broker's account", broker.to_owned()),
        // As in a URL and as in a debug print.
        ("the broker's password", format!(":{password}@")),
        ("the broker's password, quoted", format!("\"{password}\"")),
    ];
    // Settings as they are sent and stored: sealed, and all the same nobody's business.
    for entry in std::fs::read_dir(folder.join("failover-1/data/bundles"))? {
        let bundle: Value = serde_json::from_str(&std::fs::read_to_string(entry?.path())?)?;
        let sealed = bundle["sealed"].as_str().unwrap_or_default().to_owned();
        secrets.push(("a settings bundle", sealed));
    }
    // A key is signed to the same text each time; its second half is the signature.
    let issuer = folder.join("issuer.key").display().to_string();
    let devices = fleet.rig.plan.cameras.to_string();
    let issue = [
        "license",
        "issue",
        "--issuer",
        &issuer,
        "--id",
        "demo-key",
        "--devices",
        &devices,
        "--label",
        "demo",
    ];
    let key = command_line::told(fleet, &issue).await?.trim().to_owned();
    let (payload, signature) = key.rsplit_once('.').unwrap_or_default();
    secrets.push(("what a licence key says, as it is signed", payload.to_owned()));
    secrets.push(("a licence key's signature", signature.to_owned()));
    for (what, secret) in &secrets {
        anyhow::ensure!(
            secret.len() >= 6,
            "{what} is no secret that could be looked for: {secret:?}"
        );
    }
    Ok(secrets)
}

#[tokio::test]
async fn j4_no_log_of_a_failover_names_a_secret_and_each_line_can_be_read_by_machines() -> anyhow::Result<()>
{
    let folder = understudy_scenarios::folder()?;
    let token = folder.path().join("relay.token");
    std::fs::write(&token, RELAY_TOKEN)?;
    let level = "debug,understudy=trace,retina=trace,lapin=debug";
    let receivers = Told::begin(&folder.path().join("mails")).await?;
    let mut rig = Rig::describe(Plan {
        folder: folder.path().to_owned(),
        extra_configuration: format!(
            "\n[runtime]\nlog = \"json\"\nlevel = \"{level}\"\n{}",
            receivers.configuration
        ),
        ..plan()
    })
    .await?;
    for server in &mut rig.servers {
        let token = token.to_string_lossy();
        server
            .ingest
            .set_environment("UNDERSTUDY_INGEST__RELAY_TOKEN_FILE", &token);
    }
    let console = &mut rig.host.console;
    console.set_environment("UNDERSTUDY_CONSOLE__TOKEN", API_TOKEN);
    rig.api = rig.api.with_token(API_TOKEN);
    rig.launch().await?;
    rig.enroll().await?;
    let mut fleet = Fleet::of(rig, folder)?;
    fleet.films("recorder-1", 4).await?;
    fleet
        .server("recorder-1", "to be protected", |view| view.protected)
        .await?;
    fleet.rig.server("recorder-1").kill();
    let serving = fleet.phase("recorder-1", Phase::Serving).await?;
    fleet.files("failover-1", 8).await?;
    fleet.rig.server("recorder-1").start()?;
    fleet.is_back("recorder-1").await?;
    fleet.rig.api.stop_failover("recorder-1").await?;
    fleet.phase("recorder-1", Phase::Completed).await?;
    fleet.stands_by("failover-1").await?;
    let api = &fleet.rig.api;
    let erased = api.confirm(Method::POST, "servers/failover-2/erase", None::<&()>);
    let (warned, _): (_, Value) = erased.await?;
    let token = warned.confirmation.unwrap_or_default();
    receivers.all().await;
    let (mut secrets, folder) = (secrets(&fleet).await?, fleet.rig.plan.folder.clone());
    secrets.push(("the token of a confirmation", token));
    fleet.rig.stop().await;

    let logs = logs(&folder)?;
    assert!(logs.len() >= 13, "a log for each process: {:?}", logs.keys());
    for (process, log) in &logs {
        assert_eq!(told(&secrets, log), [""; 0], "in the log of {process}");
        for line in log.lines() {
            let event: Value = serde_json::from_str(line)
                .map_err(|error| anyhow::anyhow!("{process} writes what is no JSON ({error}): {line}"))?;
            let ours = event["target"]
                .as_str()
                .unwrap_or_default()
                .starts_with("understudy");
            // What a library says may be fields only.
            let keys = &["timestamp", "level", "target", "message"][..if ours { 4 } else { 3 }];
            for key in keys {
                assert!(
                    event.get(key).is_some(),
                    "{process}: a line without {key}: {line}"
                );
            }
        }
    }
    // The looking itself finds each of them.
    for (what, secret) in &secrets {
        let line = format!("{{\"message\":\"connected with {secret}\"}}");
        assert!(told(&secrets, &line).contains(what), "{what} would not be found");
    }

    // The failover can be followed by its trace's id, sampled or not.
    let trace: TraceContext = serving.trace.as_deref().unwrap_or_default().parse()?;
    let id = trace.trace_id();
    let says = |process: &str, words: &str| {
        let log = logs.get(process).map_or("", String::as_str);
        assert!(log.contains("\"level\":\"DEBUG\""), "{process} logs at debug");
        let mut lines = log
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let found = lines.any(|line| line.to_string().contains(words) && line["span"]["trace_id"] == *id);
        assert!(found, "{process} does not say {words:?} with the trace {id}");
    };
    says("orchestrator", "failover.started");
    says("orchestrator", "failover.completed");
    says("ingest@failover-1", "assignment heard");
    says("ingest@recorder-1", "assignment heard");
    Ok(())
}
