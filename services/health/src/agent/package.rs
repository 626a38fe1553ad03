//! How the recording service beside the agent is: a verdict over its answers on `/healthz` (row C4).
//!
//! [`PackageWatch`] is pure, and told what was seen and when; [`look`] goes and sees. A service that is
//! replaced by its supervisor within the patience is never called crashed.

use std::{error::Error as _, io, time::Duration};

use understudy_core::{
    contract::heartbeat::{Package, PackageState},
    time::Monotonic,
};

/// What one look at the recording service showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// It answered that it is alive.
    Answered,
    /// Nobody listens at its address.
    Refused(String),
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
}

/// The verdict over time.
#[derive(Debug)]
pub(crate) struct PackageWatch {
    patience: Patience,
    began: Monotonic,
    was_up: bool,
    trouble_since: Option<Monotonic>,
}

impl PackageWatch {
    pub(crate) fn new(patience: Patience, now: Monotonic) -> Self {
        Self {
            patience,
            began: now,
            was_up: false,
            trouble_since: None,
        }
    }

    /// Takes one more look into account.
    pub(crate) fn step(&mut self, look: Look, now: Monotonic) -> Package {
        let (state, seen) = match look {
            Look::Answered => {
                self.was_up = true;
                self.trouble_since = None;
                return Package::default();
            }
            Look::Refused(seen) => (PackageState::Crashed, seen),
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
}

/// Asks the recording service whether it is alive.
pub(crate) async fn look(client: &reqwest::Client, url: &str, deadline: Duration) -> Look {
    match client.get(url).timeout(deadline).send().await {
        Ok(answer) if answer.status().is_success() => Look::Answered,
        Ok(answer) => Look::Silent(format!("{url} answers {}", answer.status())),
        Err(error) if is_refused(&error) => Look::Refused(format!("{url}: connection refused")),
        Err(error) if error.is_timeout() => Look::Silent(format!(
            "{url} has not answered within {} ms",
            deadline.as_millis()
        )),
        Err(error) => Look::Silent(format!("{url}: {}", root_cause(&error))),
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

fn root_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Monotonic {
        Monotonic(Duration::from_millis(ms))
    }

    fn watch() -> PackageWatch {
        PackageWatch::new(
            Patience {
                starting: Duration::from_secs(60),
                trouble: Duration::from_secs(2),
            },
            at(0),
        )
    }

    fn refused() -> Look {
        Look::Refused("connection refused".to_owned())
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
        assert_eq!(watch.step(Look::Answered, at(0)).state, PackageState::Running);
        assert_eq!(watch.step(refused(), at(1_000)).state, PackageState::Running);
        assert_eq!(watch.step(refused(), at(3_000)).state, PackageState::Crashed);
        assert_eq!(watch.step(Look::Answered, at(3_500)), Package::default());
    }

    #[test]
    fn c4_a_restart_within_the_patience_is_nobodys_business() {
        let mut watch = watch();
        watch.step(Look::Answered, at(0));
        assert_eq!(watch.step(refused(), at(500)), Package::default());
        assert_eq!(watch.step(Look::Answered, at(1_500)), Package::default());
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
        watch.step(Look::Answered, at(0));
        watch.step(silent(), at(1_000));
        let verdict = watch.step(silent(), at(3_000));
        assert_eq!(verdict.state, PackageState::NotAnswering);
        assert_eq!(verdict.evidence, "no answer");
    }

    #[tokio::test]
    async fn nobody_listening_is_told_from_somebody_silent() {
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let url = format!("http://{}/healthz", listener.local_addr().expect("bound"));
        let seen = look(&client, &url, Duration::from_millis(100)).await;
        assert!(
            matches!(seen, Look::Silent(_)),
            "accepted by the kernel, never answered: {seen:?}"
        );

        drop(listener);
        let seen = look(&client, &url, Duration::from_secs(5)).await;
        assert!(matches!(seen, Look::Refused(_)), "{seen:?}");
    }
}
