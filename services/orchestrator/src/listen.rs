//! What servers and the monitor say, from the bus to the fleet.

use tokio::sync::mpsc;
use understudy_bus::{Bus, Incoming, MalformedMessage, Queue};
use understudy_core::{contract::names, fleet::Input};

use crate::job::{Job, fresh};

/// Everything on the heartbeats' exchange but the beats themselves, which are the monitor's.
const KEYS: [&str; 3] = ["*.observation.*", "*.report.*", "*.restoration.*"];

/// Passes what it hears on, until the bus ends.
pub(crate) async fn listen(bus: Bus, jobs: mpsc::Sender<Job>) {
    let mut subscription = bus.subscribe(Queue::heartbeats(&KEYS));
    while let Some(incoming) = subscription.next().await {
        match input(&incoming) {
            Ok(input) => {
                if jobs.send(Job::input(incoming.trace, input)).await.is_err() {
                    return;
                }
                incoming.ack().await;
            }
            Err(error) => incoming.dead(error.to_string()).await,
        }
    }
}

fn input(incoming: &Incoming) -> Result<Input, MalformedMessage> {
    match incoming.kind.as_str() {
        names::OBSERVATION_TYPE => Ok(Input::Observed {
            observation: incoming.json()?,
            fresh: fresh(),
        }),
        names::REPORT_TYPE => Ok(Input::Reported(incoming.json()?)),
        names::RESTORATION_TYPE => Ok(Input::Restoration(incoming.json()?)),
        _ => Err(MalformedMessage {
            id: incoming.id.clone(),
            kind: incoming.kind.clone(),
            why: "the orchestrator does not know this type".to_owned(),
        }),
    }
}
