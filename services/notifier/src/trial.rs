//! A trial message to each receiver, and what became of it.

use serde::Serialize;
use understudy_runtime::clock;

use crate::{config::NotifierConfig, plan::Plan, service::NotifierError, text::Letter};

/// What became of a trial message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Tried {
    /// The receiver.
    pub receiver: String,
    /// Where it is, without secrets.
    pub at: String,
    /// Why it did not take it; none: it did.
    pub failure: Option<String>,
}

/// Sends a trial message to each receiver, one after the other, once.
///
/// # Errors
/// [`NotifierError::Configuration`] if the configuration can't work, or has no receiver.
pub async fn try_each(config: &NotifierConfig) -> Result<Vec<Tried>, NotifierError> {
    let plan = Plan::of(config)?;
    if plan.targets.is_empty() {
        return Err(NotifierError::Configuration(
            "notifier.receivers: nobody is to be told; add a [[notifier.receivers]] with name and to"
                .to_owned(),
        ));
    }
    let mut tried = Vec::new();
    for (receiver, target) in &plan.targets {
        let now = clock::wall();
        let id = format!("trial-{}-{receiver}", now.as_millis());
        let letter = Letter::trial(receiver, id, now, &plan.zone);
        let outcome = target.send(&letter, plan.deadline).await;
        tried.push(Tried {
            receiver: receiver.clone(),
            at: target.shown(),
            failure: outcome.err().map(|failed| failed.why),
        });
    }
    Ok(tried)
}
