//! `dead-letters`: messages that nobody could handle, looked at, sent again or dropped.

use understudy_bus::DeadError;
use understudy_core::contract::api::Problem;

use super::CONFIRMATION;
use crate::{
    answer::{self, Outcome},
    backend::Backend,
    http::Call,
};

/// How many are listed if nobody says.
const LISTED: usize = 100;
/// The most that are listed.
const LISTED_MAX: usize = 1_000;

pub(super) async fn list(backend: &Backend, call: &Call) -> Outcome {
    let query = call.query(&["limit"])?;
    let limit = match query.last() {
        None => LISTED,
        Some((_, text)) => text
            .parse()
            .ok()
            .filter(|limit| (1..=LISTED_MAX).contains(limit))
            .ok_or_else(|| Problem::invalid(format!("limit={text:?}: 1 to {LISTED_MAX} is possible")))?,
    };
    let letters = backend.bus().dead_letters(limit).await;
    answer::json(&letters.map_err(problem)?)
}

pub(super) async fn get(backend: &Backend, call: &Call) -> Outcome {
    let letter = backend.bus().dead_letter(&id(call)?).await;
    answer::json(&letter.map_err(problem)?)
}

pub(super) async fn replay(backend: &Backend, call: &Call) -> Outcome {
    let id = id(call)?;
    let letter = backend.bus().replay_dead(&id).await.map_err(problem)?;
    tracing::info!(
        id,
        kind = letter.kind,
        queue = letter.queue,
        "a dead letter was replayed"
    );
    answer::json(&letter)
}

/// What is dropped is lost, so it is named first.
pub(super) async fn remove(backend: &Backend, call: &Call) -> Outcome {
    let id = id(call)?;
    let confirmed = call.query(&[CONFIRMATION])?.pop().map(|(_, token)| token);
    // The id is made of the contents: who confirms has seen what is lost.
    let token = format!("drop-{id}");
    if confirmed.as_ref() != Some(&token) {
        let letter = backend.bus().dead_letter(&id).await.map_err(problem)?;
        let kind = if letter.kind.is_empty() {
            "no type"
        } else {
            &letter.kind
        };
        let detail = format!(
            "dead letter {id} ({kind}, {} bytes, from {}: {}) would be lost for good",
            letter.bytes, letter.queue, letter.reason
        );
        return Err(Problem::to_be_confirmed(detail, token));
    }
    let letter = backend.bus().drop_dead(&id).await.map_err(problem)?;
    tracing::info!(
        id,
        kind = letter.kind,
        queue = letter.queue,
        "a dead letter was dropped"
    );
    answer::json(&letter)
}

fn id(call: &Call) -> Result<String, Problem> {
    call.id("letter")
}

fn problem(error: DeadError) -> Problem {
    match error {
        DeadError::NotThere(_) => Problem::new(404, "not-found", "Not found", error.to_string()),
        DeadError::NotReplayable(_) => Problem::conflict(error.to_string()),
        DeadError::Away(_) => Problem::unavailable(error.to_string()),
    }
}
