//! Somebody is told of a failover, from the host itself.

use std::net::SocketAddr;

use understudy_core::{contract::api::Phase, policy::Pairing};
use understudy_demo::rig::Plan;
use understudy_runtime::clock;
use understudy_scenarios::{Fleet, command_line::told, executable, folder, plan};

use crate::receivers::{Hook, Post, Smtpd, Syslogd, eventually};

const DAY: i64 = 24 * 60;

/// A time of day around now, in UTC.
fn around_now() -> String {
    let minutes = clock::wall().as_millis() / 60_000 % DAY;
    let shown = |minutes: i64| format!("{:02}:{:02}", minutes / 60, minutes % 60);
    format!(
        "{}-{}",
        shown((minutes + DAY - 60) % DAY),
        shown((minutes + 180) % DAY)
    )
}

fn events(posts: &[Post]) -> Vec<&str> {
    posts
        .iter()
        .filter_map(|post| post.body["event"].as_str())
        .collect()
}

/// How often a line stands in all mails.
fn count(mails: &[String], line: &str) -> usize {
    let unfolded: Vec<String> = mails.iter().map(|mail| mail.replace("=\r\n", "")).collect();
    unfolded.iter().map(|mail| mail.matches(line).count()).sum()
}

fn configuration(hook: SocketAddr, night: SocketAddr, mail: SocketAddr, syslog: SocketAddr) -> String {
    format!(
        r#"
[notifier]
time_zone = "UTC"
first_pause_ms = 200
longest_pause_ms = 1000
smtp_host = "127.0.0.1"
smtp_port = {port}
smtp_security = "plain"
mail_from = "understudy@example.org"

[[notifier.receivers]]
name = "control-room"
to = "http://{hook}/hook"

[[notifier.receivers]]
name = "night"
to = "http://{night}/hook"
quiet = "{quiet}"

[[notifier.receivers]]
name = "anna"
to = "mailto:anna@example.org"

[[notifier.receivers]]
name = "log"
to = "syslog+udp://{syslog}"
"#,
        port = mail.port(),
        quiet = around_now(),
    )
}

/// A trial says of each receiver what became of it.
async fn trial(fleet: &Fleet) -> anyhow::Result<()> {
    let config = fleet.rig.plan.folder.join("host/host.toml");
    let tried = tokio::process::Command::new(executable())
        .args(["notifier", "--test", "--config"])
        .arg(&config)
        .output()
        .await?;
    let said = String::from_utf8(tried.stdout)?;
    assert!(tried.status.success(), "{said}");
    for receiver in ["control-room", "night", "anna", "log"] {
        let line = said.lines().find(|line| line.starts_with(receiver));
        assert!(
            line.is_some_and(|line| line.ends_with("sent")),
            "{receiver}: {said}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn k4_a_failover_is_told_once_by_mail_webhook_and_syslog_whatever_is_away_meanwhile()
-> anyhow::Result<()> {
    if !Smtpd::is_here() {
        return Ok(());
    }
    // Given a control room's webhook, one that sleeps at this hour, a syslog, and a mail server that is down:
    let (hook_at, night_at, mail_at) = (Hook::free(), Hook::free(), Hook::free());
    let (hook, night) = (
        Hook::listen(hook_at, Vec::new()).await,
        Hook::listen(night_at, Vec::new()).await,
    );
    let (folder, mails) = (folder()?, tempfile::tempdir()?);
    let syslogd = Syslogd::listen(mails.path()).await;
    let extra = configuration(hook_at, night_at, mail_at, syslogd.udp);
    let mut fleet = Fleet::filming_in(
        folder,
        Plan {
            extra_configuration: extra,
            ..plan()
        },
    )
    .await?;

    // when the server fails, whoever is there hears of it at once, by the servers' names,
    fleet.rig.server("recorder-1").kill();
    fleet.phase("recorder-1", Phase::Serving).await?;
    let posts = eventually("started and serving", async || hook.taken(2)).await;
    assert_eq!(events(&posts), ["failover.started", "failover.serving"]);
    assert_eq!(
        posts[0].body["subject"],
        "Understudy: North gate (recorder-1) failed, and Stand-in one (failover-1) takes over"
    );
    let line = eventually("syslog", async || syslogd.heard("udp")).await;
    assert!(
        line.contains(" failover.started - Understudy: North gate"),
        "{line}"
    );

    // and the mail is kept, though the notifier dies with it, until the mail server is there: one mail.
    eventually("attempts", async || {
        let notifier = &fleet.rig.host.notifier;
        let failed = notifier
            .figures("understudy_notices_total", &["anna", "failed"])
            .await?;
        (*failed.first()? > 0.0).then_some(())
    })
    .await;
    fleet.rig.host.notifier.kill();
    fleet.rig.host.notifier.start()?;
    let smtpd = Smtpd::start(mail_at.port(), mails.path(), &[]);
    let mail = eventually("the mail", async || smtpd.taken(1)).await;
    for line in [
        "North gate (recorder-1) failed, and Stand-in one (failover-1) takes over.",
        "Stand-in one (failover-1) films for North gate (recorder-1).",
        "4 camera(s) are filmed.",
        "UTC",
    ] {
        assert_eq!(count(&mail, line).min(1), 1, "{line} is missing in {mail:?}");
    }

    // Its end is told too, each step once.
    fleet.rig.server("recorder-1").start()?;
    fleet.is_back("recorder-1").await?;
    fleet.rig.api.stop_failover("recorder-1").await?;
    fleet.phase("recorder-1", Phase::Completed).await?;
    let posts = eventually("all four steps", async || hook.taken(4)).await;
    let whole = [
        "failover.started",
        "failover.serving",
        "failover.restoring",
        "failover.completed",
    ];
    assert_eq!(events(&posts), whole);
    let mails = eventually("the mail of the end", async || {
        smtpd.taken(2).filter(|mails| count(mails, "stands by.") > 0)
    })
    .await;
    // With their full stops: a subject has none.
    for step in [
        "takes over.",
        "films for North gate (recorder-1).",
        "recorded meanwhile.",
        "stands by.",
    ] {
        let told = count(&mails, step);
        assert_eq!(told, 1, "{step:?} was told {told} times: {mails:?}");
    }
    let keys: std::collections::BTreeSet<&str> = posts.iter().map(|post| post.key.as_str()).collect();
    assert_eq!(keys.len(), 4, "each has a key of its own");
    assert_eq!(night.taken(1), None, "who sleeps was not woken by what went well");

    what_goes_wrong_is_told(&mut fleet, &hook, &night).await?;
    trial(&fleet).await?;
    fleet.rig.stop().await;
    Ok(())
}

/// The control room, which has heard of one failover, hears of each; the night of what is urgent only.
async fn what_goes_wrong_is_told(fleet: &mut Fleet, hook: &Hook, night: &Hook) -> anyhow::Result<()> {
    // Licences that are short, and a server that nobody can stand in for, are told as well;
    told(fleet, &["license", "remove", "demo-key"]).await?;
    let only = Pairing::Servers(["failover-1".parse()?].into());
    fleet.rig.api.pair("recorder-1", &only).await?;
    fleet.rig.server("failover-1").kill();
    let posts = eventually("both", async || hook.taken(6)).await;
    let mut more = events(&posts)[4..].to_vec();
    more.sort_unstable();
    assert_eq!(more, ["license.short", "server.unprotected"]);
    let short = posts.iter().find(|post| post.body["event"] == "license.short");
    assert_eq!(
        short.map(|post| &post.body["facts"][0]["data"]["missing"]),
        Some(&2.into())
    );
    // and when it fails so that nobody films, whoever sleeps is woken, and of nothing else.
    assert_eq!(night.taken(1), None);
    fleet.rig.server("recorder-1").kill();
    let woken = eventually("the night", async || night.taken(1)).await;
    assert_eq!(events(&woken), ["failover.waiting"]);
    // A volume that goes away is told by day only, and that a failover is interrupted at any hour.
    let archive = fleet.rig.server("failover-2").archive();
    std::fs::rename(&archive, archive.with_extension("gone"))?;
    let posts = eventually("the volume", async || hook.taken(8)).await;
    assert_eq!(
        events(&posts)[6..],
        ["failover.waiting", "server.storage_degraded"]
    );
    told(fleet, &["server", "disable", "recorder-1", "--yes"]).await?;
    let woken = eventually("the night again", async || night.taken(2)).await;
    assert_eq!(events(&woken)[1..], ["failover.aborted"]);

    Ok(())
}
