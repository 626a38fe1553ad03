//! How the recording service beside the agent is: a verdict over its answers on `/healthz` (row C4).
//!
//! [`PackageWatch`] is pure, and told what was seen and when; [`look`] goes and sees. A service that is
//! replaced by its supervisor within the patience is never called crashed.

use std::{error::Error as _, io, time::Duration};

use serde::Deserialize;

use super::installed::Installed;
use understudy_core::{
    contract::heartbeat::{Package, PackageState, VolumeErrors},
    time::Monotonic,
};
use understudy_runtime::{VERSION, VERSION_HEADER, innermost};

/// What one look at the recording service showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// It answered that it is alive, and of which version it is, if it says so.
    Answered {
        version: Option<String>,
        /// What its volume refused it.
        volume: Option<VolumeErrors>,
    },
    /// Nobody listens at its address.
    Refused(String),
    /// Nobody listens at its address, and somebody removed it or switched it off.
    Gone(PackageState, String),
    /// Somebody listens or may listen, and there was no proper answer in time.
    Silent(String),
}

/// How long what may be seen before it is believed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// From the agent's start until a service that was never seen is called absent.
    pub(crate) starting: Duration,
    /// From the first trouble until a service that was seen well is called ill.
    pub(crate) trouble: Duration,
    /// From the first answer of another version than the agent's until that is no upgrade under way any more.
    pub(crate) version: Duration,
}

/// The verdict over time.
#[derive(Debug)]
pub(crate) struct PackageWatch {
    patience: Patience,
    began: Monotonic,
    was_up: bool,
    trouble_since: Option<Monotonic>,
    other_version_since: Option<Monotonic>,
}

impl PackageWatch {
    pub(crate) fn new(patience: Patience, now: Monotonic) -> Self {
        Self {
            patience,
            began: now,
            was_up: false,
            trouble_since: None,
            other_version_since: None,
        }
    }

    /// Takes one more look into account.
    pub(crate) fn step(&mut self, look: Look, now: Monotonic) -> Package {
        let (state, seen) = match look {
            Look::Answered { version, .. } => {
                self.was_up = true;
                self.trouble_since = None;
                return self.judge(version.as_deref(), now);
            }
            Look::Refused(seen) => (PackageState::Crashed, seen),
            Look::Gone(state, seen) => (state, seen),
            Look::Silent(seen) => (PackageState::NotAnswering, seen),
        };
        let lasts = now.since(*self.trouble_since.get_or_insert(now));
        if !self.was_up {
            if now.since(self.began) < self.patience.starting {
                return Package {
                    state: PackageState::Starting,
                    evidence: seen,
                };
            }
            return Package {
                state,
                evidence: format!("{seen}; it has not answered since the agent's start"),
            };
        }
        if lasts < self.patience.trouble {
            return Package::default();
        }
        Package {
            state,
            evidence: seen,
        }
    }

    /// Of one that answers. All services of a server come in one executable: of two versions one was not
    /// started again after an upgrade.
    fn judge(&mut self, version: Option<&str>, now: Monotonic) -> Package {
        let Some(other) = version.filter(|version| *version != VERSION) else {
            self.other_version_since = None;
            return Package::default();
        };
        let since = *self.other_version_since.get_or_insert(now);
        if now.since(since) < self.patience.version {
            return Package::default();
        }
        Package {
            state: PackageState::WrongVersion,
            evidence: format!(
                "the recording service is version {other} and its agent {VERSION}: start again what was not \
                 started again after the upgrade"
            ),
        }
    }
}

/// What a recording service says on `/healthz`.
#[derive(Deserialize)]
struct Alive {
    volume_errors: Option<VolumeErrors>,
}

/// Asks the recording service whether it is alive, and if nobody listens, why.
pub(crate) async fn look(
    client: &reqwest::Client,
    url: &str,
    deadline: Duration,
    installed: &Installed,
) -> Look {
    match client.get(url).timeout(deadline).send().await {
        Ok(answer) if answer.status().is_success() => {
            let version = answer.headers().get(VERSION_HEADER);
            let version = version
                .and_then(|version| version.to_str().ok())
                .map(str::to_owned);
            match answer.bytes().await {
                Ok(said) => Look::Answered {
                    version,
                    // One of before says "ok" only.
                    volume: serde_json::from_slice(&said)
                        .ok()
                        .and_then(|said: Alive| said.volume_errors),
                },
                Err(error) => Look::Silent(format!("{url}: {}", innermost(&error))),
            }
        }
        Ok(answer) => Look::Silent(format!("{url} answers {}", answer.status())),
        Err(error) if is_refused(&error) => {
            let refused = format!("{url}: connection refused");
            let installed = installed.clone();
            // The files may lie on what hangs.
            let why = tokio::task::spawn_blocking(move || installed.why_gone());
            match tokio::time::timeout(deadline, why).await {
                Ok(Ok(Some((state, seen)))) => Look::Gone(state, format!("{refused}; {seen}")),
                _ => Look::Refused(refused),
            }
        }
        Err(error) if error.is_timeout() => Look::Silent(format!(
            "{url} has not answered within {} ms",
            deadline.as_millis()
        )),
        Err(error) => Look::Silent(format!("{url}: {}", innermost(&error))),
    }
}

fn is_refused(error: &reqwest::Error) -> bool {
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(io) = cause.downcast_ref::<io::Error>()
            && io.kind() == io::ErrorKind::ConnectionRefused
        {
            return true;
        }
        source = cause.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn at(ms: u64) -> Monotonic {
        Monotonic(Duration::from_millis(ms))
    }

    fn watch() -> PackageWatch {
        PackageWatch::new(
            Patience {
                starting: Duration::from_secs(60),
                trouble: Duration::from_secs(2),
                version: Duration::from_secs(300),
            },
            at(0),
        )
    }

    fn refused() -> Look {
        Look::Refused("connection refused".to_owned())
    }

    fn answered(version: Option<&str>) -> Look {
        Look::Answered {
            version: version.map(str::to_owned),
            volume: None,
        }
    }

    fn silent() -> Look {
        Look::Silent("no answer".to_owned())
    }

    #[test]
    fn c4_a_service_that_was_never_up_is_starting_and_then_absent() {
        let mut watch = watch();
        assert_eq!(watch.step(refused(), at(500)).state, PackageState::Starting);
        assert_eq!(watch.step(silent(), at(59_000)).state, PackageState::Starting);
        let verdict = watch.step(refused(), at(60_000));
        assert_eq!(verdict.state, PackageState::Crashed);
        assert!(
            verdict.evidence.contains("since the agent's start"),
            "{verdict:?}"
        );
    }

    #[test]
    fn c4_a_service_that_was_up_and_is_gone_has_crashed() {
        let mut watch = watch();
        assert_eq!(watch.step(answered(None), at(0)).state, PackageState::Running);
        assert_eq!(watch.step(refused(), at(1_000)).state, PackageState::Running);
        assert_eq!(watch.step(refused(), at(3_000)).state, PackageState::Crashed);
        assert_eq!(watch.step(answered(None), at(3_500)), Package::default());
    }

    #[test]
    fn c4_a_restart_within_the_patience_is_nobodys_business() {
        let mut watch = watch();
        watch.step(answered(None), at(0));
        assert_eq!(watch.step(refused(), at(500)), Package::default());
        assert_eq!(watch.step(answered(None), at(1_500)), Package::default());
        assert_eq!(
            watch.step(refused(), at(2_000)),
            Package::default(),
            "patience begins anew"
        );
        assert_eq!(watch.step(refused(), at(3_900)), Package::default());
    }

    #[test]
    fn c4_a_service_that_hangs_does_not_answer() {
        let mut watch = watch();
        watch.step(answered(None), at(0));
        watch.step(silent(), at(1_000));
        let verdict = watch.step(silent(), at(3_000));
        assert_eq!(verdict.state, PackageState::NotAnswering);
        assert_eq!(verdict.evidence, "no answer");
    }

    /// No file of it is looked at.
    fn anything() -> Installed {
        Installed::new(Path::new(""), "")
    }

    #[test]
    fn c4_a_service_of_another_version_is_wrong_once_an_upgrade_should_be_over() {
        let mut watch = watch();
        let other = || answered(Some("99.0.0"));
        assert_eq!(watch.step(other(), at(0)), Package::default());
        assert_eq!(watch.step(other(), at(299_000)), Package::default(), "an upgrade");
        let verdict = watch.step(other(), at(300_000));
        assert_eq!(verdict.state, PackageState::WrongVersion);
        assert!(
            verdict.evidence.contains("99.0.0") && verdict.evidence.contains(VERSION),
            "{verdict:?}"
        );
        let same = answered(Some(VERSION));
        assert_eq!(watch.step(same, at(301_000)), Package::default());
        assert_eq!(watch.step(other(), at(302_000)), Package::default(), "anew");
    }

    #[test]
    fn c4_a_service_that_is_removed_or_switched_off_is_called_so_when_it_has_ended() {
        let mut watch = watch();
        watch.step(answered(None), at(0));
        let gone = || Look::Gone(PackageState::Disabled, "its unit is disabled".to_owned());
        assert_eq!(watch.step(gone(), at(1_000)), Package::default(), "patience");
        let verdict = watch.step(gone(), at(3_000));
        assert_eq!(verdict.state, PackageState::Disabled);
        assert_eq!(verdict.evidence, "its unit is disabled");
    }

    #[tokio::test]
    async fn c4_one_that_is_gone_with_its_executable_is_uninstalled() {
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let url = format!("http://{}/healthz", listener.local_addr().expect("bound"));
        drop(listener);
        let installed = Installed::new(Path::new("/nowhere/understudy"), "");
        let seen = look(&client, &url, Duration::from_secs(20), &installed).await;
        let Look::Gone(state, why) = seen else {
            panic!("{seen:?}");
        };
        assert_eq!(state, PackageState::Uninstalled);
        assert!(
            why.contains("refused") && why.contains("/nowhere/understudy"),
            "{why}"
        );
    }

    #[tokio::test]
    async fn c4_a_service_says_its_version() {
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        let config = understudy_runtime::RuntimeConfig {
            listen: "127.0.0.1:0".parse().expect("an address"),
            ..understudy_runtime::RuntimeConfig::default()
        };
        let process = understudy_runtime::Process::start("ingest", &config)
            .await
            .expect("started");
        let url = format!("http://{}/healthz", process.address());
        let seen = look(&client, &url, Duration::from_secs(20), &anything()).await;
        assert_eq!(seen, answered(Some(VERSION)));
    }

    #[tokio::test]
    async fn nobody_listening_is_told_from_somebody_silent() {
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let url = format!("http://{}/healthz", listener.local_addr().expect("bound"));
        let seen = look(&client, &url, Duration::from_millis(100), &anything()).await;
        assert!(
            matches!(seen, Look::Silent(_)),
            "accepted by the kernel, never answered: {seen:?}"
        );

        drop(listener);
        let seen = look(&client, &url, Duration::from_secs(5), &anything()).await;
        assert!(matches!(seen, Look::Refused(_)), "{seen:?}");
    }
}
