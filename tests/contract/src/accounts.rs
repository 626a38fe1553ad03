//! The accounts of `infra/rabbitmq/accounts` on a broker of a test's own.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, ensure};
use understudy_bus::private_broker::PrivateBroker;

/// Accounts that a broker knows.
#[derive(Debug)]
pub struct Accounts {
    passwords: PathBuf,
}

impl Accounts {
    /// Makes them; passwords and definitions lie in `folder`.
    ///
    /// # Errors
    /// With what the script or the broker said.
    pub async fn make(broker: &PrivateBroker, folder: &Path, names: &[&str]) -> anyhow::Result<Self> {
        let project = crate::folder()
            .ancestors()
            .nth(2)
            .expect("docs/events")
            .to_owned();
        let passwords = Self::passwords(folder);
        let output = Command::new(project.join("infra/rabbitmq/accounts"))
            .args(["--at", &format!("amqp://{}", broker.address())])
            .arg(&passwords)
            .args(names)
            .output()
            .context("infra/rabbitmq/accounts does not run")?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "infra/rabbitmq/accounts: {said}");
        let definitions = folder.join("definitions.json");
        std::fs::write(&definitions, &output.stdout)?;
        broker
            .control(&["import_definitions", &definitions.display().to_string()])
            .await?;
        Ok(Self { passwords })
    }

    /// Where passwords lie that are there before: one of them is not made anew.
    #[must_use]
    pub fn passwords(folder: &Path) -> PathBuf {
        folder.join("passwords")
    }

    /// The address of the broker for one of them, as the script wrote it.
    ///
    /// # Errors
    /// If there is none.
    pub fn url(&self, name: &str) -> anyhow::Result<String> {
        let kind = match name.split_once('.') {
            None => "host",
            Some(("events", _)) => "others",
            Some(_) => "servers",
        };
        let file = self.passwords.join(format!("addresses/{kind}/{name}.url"));
        let url = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        Ok(url.trim().to_owned())
    }
}
