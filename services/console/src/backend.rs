//! The services behind the API, asked on the bus, each with a deadline.

use std::time::Duration;

use serde::{Serialize, de::DeserializeOwned};
use understudy_bus::{Bus, RequestError};
use understudy_core::contract::{
    api::Problem,
    names,
    rpc::{
        Answer, LicenseReply, LicenseRequest, OrchestratorReply, OrchestratorRequest, RecorderReply,
        RecorderRequest,
    },
};
use understudy_core::ids::ServerId;

use crate::answer;

/// The services behind the API.
pub(crate) struct Backend {
    bus: Bus,
    deadline: Duration,
}

impl Backend {
    /// Asks on `bus`, and waits for at most `deadline`.
    pub(crate) fn new(bus: Bus, deadline: Duration) -> Self {
        Self { bus, deadline }
    }

    /// The bus itself.
    pub(crate) fn bus(&self) -> &Bus {
        &self.bus
    }

    /// Asks the orchestrator.
    pub(crate) async fn orchestrator(&self, request: OrchestratorRequest) -> Answer<OrchestratorReply> {
        self.ask(names::ORCHESTRATOR, &request).await
    }

    /// Asks the licence ledger.
    pub(crate) async fn license(&self, request: LicenseRequest) -> Answer<LicenseReply> {
        self.ask(names::LICENSE, &request).await
    }

    /// Asks the recording service of a server.
    pub(crate) async fn recorder(
        &self,
        server: &ServerId,
        request: &RecorderRequest,
    ) -> Answer<RecorderReply> {
        self.ask(&names::recorder(server), request).await
    }

    async fn ask<Q: Serialize + Sync, R: DeserializeOwned>(&self, service: &str, request: &Q) -> Answer<R> {
        match self
            .bus
            .request::<Q, Answer<R>>(service, request, self.deadline)
            .await
        {
            Ok(answer) => answer,
            Err(error) => Err(self.problem(service, &error)),
        }
    }

    fn problem(&self, service: &str, error: &RequestError) -> Problem {
        let who = match (service, service.strip_prefix(names::RECORDER)) {
            (_, Some(server)) => format!("the recording service of {server}"),
            (names::LICENSE, None) => "the licence service".to_owned(),
            _ => "the orchestrator".to_owned(),
        };
        match error {
            RequestError::Down(why) => Problem::unavailable(format!(
                "{who} can't be asked: the message broker is not reached ({why}); this goes on by itself once it is"
            )),
            RequestError::NobodyThere(_) => {
                Problem::unavailable(format!("{who} is not running, so nobody can answer this"))
            }
            RequestError::Deadline(_) => Problem::unavailable(format!(
                "{who} did not answer within {:?}; what was asked for may still be done",
                self.deadline
            )),
            RequestError::Malformed(_) => answer::internal(error),
        }
    }
}

/// A reply of another kind than the request asked for: versions that don't fit together.
pub(crate) fn unexpected(reply: &impl std::fmt::Debug) -> Problem {
    let text = format!("{reply:?}");
    let kind = text.split(['(', ' ', '{']).next().unwrap_or_default();
    answer::internal(&format!(
        "a service answered with {kind}, which was not asked for"
    ))
}
