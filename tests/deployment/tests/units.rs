//! The systemd units: read by systemd's own tools. No systemd runs where this is tested: that the services start
//! in what they are shut into is not shown here.

use std::{fs, path::PathBuf};

use anyhow::{Context, ensure};
use understudy_deployment::{project, run};

const SERVICES: [&str; 8] = [
    "orchestrator",
    "monitor",
    "license",
    "notifier",
    "console",
    "agent",
    "ingest",
    "sync",
];

/// The most that systemd may find exposed, in tenths. 96 is what a service without any of it has.
const EXPOSURE: u32 = 20;

fn units() -> PathBuf {
    project().join("infra/systemd")
}

#[test]
fn a1_systemd_takes_each_unit_without_a_word() -> anyhow::Result<()> {
    // In a folder of their own, with an executable that exists: this one.
    let folder = tempfile::tempdir()?;
    let executable = std::env::current_exe()?;
    let mut files = Vec::new();
    for entry in fs::read_dir(units())? {
        let path = entry?.path();
        let ending = path.extension().and_then(|ending| ending.to_str());
        if !matches!(ending, Some("service" | "target")) {
            continue;
        }
        let text = fs::read_to_string(&path)?;
        let copy = folder.path().join(path.file_name().context("a name")?);
        fs::write(
            &copy,
            text.replace("/usr/bin/understudy", &executable.display().to_string()),
        )?;
        files.push(copy.display().to_string());
    }
    assert_eq!(
        files.len(),
        SERVICES.len() + 2,
        "each service, host and server: {files:?}"
    );
    let words = ["verify", "--man=no", "--recursive-errors=yes"].map(str::to_owned);
    run("systemd-analyze", words.into_iter().chain(files)).map(drop)
}

#[test]
fn a1_each_unit_is_shut_in() -> anyhow::Result<()> {
    for service in SERVICES {
        let unit = units().join(format!("understudy-{service}.service"));
        let words = ["security", "--offline=true", "--no-pager"].map(str::to_owned);
        let rest = [format!("--threshold={EXPOSURE}"), unit.display().to_string()];
        run("systemd-analyze", words.into_iter().chain(rest)).with_context(|| service.to_owned())?;
    }
    Ok(())
}

#[test]
fn a1_each_service_is_handed_its_own_address_of_the_broker_and_no_other() -> anyhow::Result<()> {
    for service in SERVICES {
        let text = fs::read_to_string(units().join(format!("understudy-{service}.service")))?;
        let set = |key: &str| -> Vec<&str> {
            let lines = text.lines();
            lines
                .filter_map(|line| line.strip_prefix(key)?.strip_prefix('='))
                .collect()
        };
        // Root's file, which the services' user can't read: systemd shows each service a copy of its own.
        let file = format!("broker.url:/etc/understudy/broker/{service}.url");
        assert_eq!(set("LoadCredential"), [file.as_str()], "{service}");
        assert_eq!(set("SetCredential"), ["broker.url:unset"], "{service}");
        assert_eq!(
            set("Environment"),
            ["UNDERSTUDY_BROKER__URL_FILE=%d/broker.url"],
            "{service}"
        );
        assert_eq!(set("User"), ["understudy"], "{service}");
        assert_eq!(text.matches("/etc/understudy/broker").count(), 1, "{service}");
        // systemd hides the others' copies from who has a file system of its own, and nobody looks through a
        // neighbour's /proc/PID/root: they are in other user namespaces, or may not trace.
        assert_eq!(set("ProtectSystem"), ["strict"], "{service}");
        assert_eq!(
            set("PrivateUsers"),
            [if service == "agent" { "no" } else { "yes" }],
            "{service}"
        );
    }
    Ok(())
}

#[test]
fn a1_the_package_has_each_unit() -> anyhow::Result<()> {
    let manifest = fs::read_to_string(project().join("cli/Cargo.toml"))?;
    for name in SERVICES.into_iter().chain(["host", "server"]) {
        ensure!(
            manifest.contains(&format!("{{ unit-name = \"understudy-{name}\", ")),
            "{name} is not in the package"
        );
    }
    Ok(())
}

#[test]
fn c4_the_agent_looks_where_the_recording_service_answers() -> anyhow::Result<()> {
    let mut taken = std::collections::BTreeSet::new();
    for service in SERVICES {
        let text = fs::read_to_string(units().join(format!("understudy-{service}.service")))?;
        let start = format!(
            "ExecStart=/usr/bin/understudy {service} --config /etc/understudy/understudy.toml --listen "
        );
        let address = text.lines().find_map(|line| line.strip_prefix(&start));
        let address = address.with_context(|| format!("{service} is started in another way"))?;
        ensure!(
            address.starts_with("127.0.0.1:"),
            "{service} tells everybody: {address}"
        );
        ensure!(taken.insert(address.to_owned()), "{address} is taken twice");
        // The default of `agent.ingest_url`.
        assert_eq!(
            service == "ingest",
            address == "127.0.0.1:7611",
            "{service}: {address}"
        );
        ensure!(
            text.contains("\nRestart=always\n"),
            "{service} is not started again"
        );
    }
    Ok(())
}
