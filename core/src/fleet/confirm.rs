//! What a person has to confirm, since it interrupts a failover or ends filming (G7).
//!
//! A request that would lose something is refused with what it would lose, and with a token; asked again with
//! that token it is done. The token names the request and what was shown, so that it is good for nothing else,
//! and no longer good once the situation has changed. Nothing has to be remembered for it.

use serde::Serialize;

use super::Fleet;
use crate::{
    contract::{api::Problem, rpc::OrchestratorRequest},
    failover::{Failover, Holding},
    ids::{FailoverId, ServerId},
    time::Moment,
};

/// The request that is being answered, as far as it may have to be confirmed.
#[derive(Clone, Debug, Default)]
pub(super) struct Asking {
    request: String,
    confirmation: Option<String>,
}

impl Asking {
    pub(super) fn of(request: &OrchestratorRequest, confirmation: Option<String>) -> Self {
        Self {
            request: serde_json::to_string(request).unwrap_or_default(),
            confirmation,
        }
    }

    /// The token for this request in that situation.
    fn token(&self, situation: &impl Serialize) -> String {
        let situation = serde_json::to_string(situation).unwrap_or_default();
        let mut hasher = blake3::Hasher::new();
        for part in [self.request.as_str(), "\0", &situation] {
            hasher.update(part.as_bytes());
        }
        hasher.finalize().to_hex()[..32].to_owned()
    }
}

impl Fleet {
    /// Refuses what was not confirmed for this `situation`, saying what it would `lose`.
    pub(super) fn confirmed(&self, situation: &impl Serialize, lose: String) -> Result<(), Problem> {
        let token = self.asking.token(situation);
        match &self.asking.confirmation {
            Some(given) if *given == token => Ok(()),
            Some(_) => Err(Problem::to_be_confirmed(
                format!("The situation is not the one that was confirmed. {lose}"),
                token,
            )),
            None => Err(Problem::to_be_confirmed(lose, token)),
        }
    }

    /// Interrupts the failover that a change of `server` would interrupt, if there is one and a person has
    /// confirmed it: what was recorded for it on failover servers is erased, and the recording server is to
    /// film again. A reason that still holds begins another failover, by the settings of then.
    pub(super) fn interrupt_failover_of(&mut self, server: &ServerId, now: Moment) -> Result<(), Problem> {
        match self.failover_with(server) {
            Some(failover) => self.interrupt(&failover, now),
            None => Ok(()),
        }
    }

    /// The failover that a server takes part in: as the recording server, or as the failover server that films for
    /// it or has its recordings.
    pub(super) fn failover_with(&self, server: &ServerId) -> Option<FailoverId> {
        let own = self.failover_of(server);
        let served = self
            .holding_of(server)
            .filter(|(_, holding)| matches!(holding, Holding::Films | Holding::Owes))
            .map(|(failover, _)| failover);
        own.or(served).map(|failover| failover.id.clone())
    }

    fn interrupt(&mut self, id: &FailoverId, now: Moment) -> Result<(), Problem> {
        let Some(failover) = self.failovers.get(id).cloned() else {
            return Ok(());
        };
        let situation = (&failover.id, failover.phase, &failover.holders);
        self.confirmed(&situation, self.what_interrupting_loses(&failover, now))?;
        self.interrupt_confirmed(id, now);
        Ok(())
    }

    /// Interrupts a failover, as a person has confirmed with the rest of what was asked for.
    pub(super) fn interrupt_confirmed(&mut self, id: &FailoverId, now: Moment) {
        if let Some(mut failover) = self.failovers.get(id).cloned() {
            let event = failover.interrupt(now);
            self.keep(failover);
            self.tell(id, vec![event], now);
        }
    }

    pub(super) fn what_interrupting_loses(&self, failover: &Failover, now: Moment) -> String {
        let server = &failover.server;
        let mut words = format!(
            "{server} is failed over (failover {}): it would be interrupted",
            failover.id
        );
        let lost = failover.what_would_be_lost(now);
        if lost.is_empty() {
            words.push_str(". No recordings would be lost");
        } else {
            words.push_str(&format!(", and its data on the failover server erased: {lost}"));
        }
        let heard = self
            .members
            .get(server)
            .is_some_and(|member| member.trigger.is_heard(now.monotonic));
        let cameras = self.cameras_of(server).filter(|camera| camera.enabled).count();
        if !heard && cameras > 0 && failover.stand_in().is_some() {
            words.push_str(&format!(
                ". {server} is not heard: nobody would film its {cameras} camera(s) until another failover begins"
            ));
        }
        words.push_str(". Instead, stop the failover and let it hand everything back first");
        words
    }
}
