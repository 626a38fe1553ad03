//! Bad input at start gets a clear error that says what to do, and exit status 1.

use std::{net::TcpListener, process::Output};

use understudy_scenarios::executable;

fn start(service: &str, config: &str, more: &[&str]) -> anyhow::Result<Output> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("understudy.toml");
    std::fs::write(&path, config)?;
    let mut command = std::process::Command::new("timeout");
    command
        .args(["30"])
        .arg(executable())
        .arg(service)
        .arg("--config")
        .arg(&path);
    Ok(command.args(more).output()?)
}

fn says(output: &Output, words: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    for word in words {
        assert!(text.contains(word), "{word:?} is missing in: {text}");
    }
    assert!(!text.contains("panicked"), "{text}");
}

#[test]
fn an_unknown_key_is_refused_and_the_nearest_known_one_named() -> anyhow::Result<()> {
    says(
        &start("orchestrator", "[broker]\nulr = \"amqp://x\"\n", &[])?,
        &["broker.ulr", "broker.url"],
    );
    Ok(())
}

#[test]
fn a_taken_port_is_named() -> anyhow::Result<()> {
    let holder = TcpListener::bind("127.0.0.1:0")?;
    let address = holder.local_addr()?.to_string();
    says(
        &start("monitor", "", &["--listen", &address])?,
        &[&holder.local_addr()?.port().to_string(), "taken"],
    );
    Ok(())
}

#[test]
fn a_folder_that_cant_be_written_is_named() -> anyhow::Result<()> {
    // A file in the place of the folder can't be written into, not even by root.
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("taken");
    std::fs::write(&file, "")?;
    for (service, section) in [("orchestrator", "host"), ("ingest", "server")] {
        let key = folder.path().join("fleet.key");
        if !key.exists() {
            understudy_demo::rig::new_fleet_key(&key)?;
        }
        let keys = if service == "orchestrator" {
            format!("\n[orchestrator]\nfleet_key_file = {key:?}\n")
        } else {
            format!("fleet_key_file = {key:?}\nid = \"recorder-1\"\ndomain = \"demo\"\n")
        };
        let config = format!("[{section}]\ndata = {file:?}\n{keys}");
        says(&start(service, &config, &[])?, &["taken"]);
    }
    Ok(())
}

#[test]
fn k4_a_secret_that_is_missing_is_named_with_how_to_set_it() -> anyhow::Result<()> {
    let receiver = "[[notifier.receivers]]\nname = \"anna\"\nto = \"mailto:anna@example.org\"\n";
    let mail =
        "[notifier]\nsmtp_host = \"mail.example.org\"\nmail_from = \"u@example.org\"\nsmtp_user = \"u\"\n";
    says(
        &start("notifier", &format!("{mail}{receiver}"), &[])?,
        &["notifier.smtp_password: set smtp_password or smtp_password_file"],
    );
    let file = "smtp_password_file = \"/no/such/password\"\n";
    says(
        &start("notifier", &format!("{mail}{file}{receiver}"), &[])?,
        &["notifier.smtp_password", "/no/such/password"],
    );
    // A key within a receiver is compared with those that it could be.
    says(
        &start("notifier", &format!("{mail}{receiver}evnts = []\n"), &[])?,
        &["notifier.receivers[0]", "evnts", "did you mean events?"],
    );
    Ok(())
}

#[test]
fn wrong_usage_exits_with_two() -> anyhow::Result<()> {
    let output = std::process::Command::new(executable())
        .args(["failover", "explode"])
        .output()?;
    assert_eq!(output.status.code(), Some(2));
    Ok(())
}
