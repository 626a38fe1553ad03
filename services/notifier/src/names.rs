//! What servers are called, asked of the orchestrator; without it, ids have to do.

use std::{sync::Arc, time::Duration};

use tokio::{sync::Mutex, time::Instant};
use understudy_bus::Bus;
use understudy_core::contract::{
    names,
    rpc::{Answer, OrchestratorReply, OrchestratorRequest},
};

use crate::text::Names;

/// For how long an answer is good.
const GOOD_FOR: Duration = Duration::from_secs(60);
/// How soon it is asked again when there was none.
const AGAIN: Duration = Duration::from_secs(5);
/// For how long a message waits for the names in it.
const DEADLINE: Duration = Duration::from_secs(1);
/// For how long the first does: it may be on its way before the broker is.
const FIRST: Duration = Duration::from_secs(5);
/// The pause between two tries for the first.
const PAUSE: Duration = Duration::from_millis(200);

/// Names that are asked for once in a while. All clones are the same.
#[derive(Clone)]
pub(crate) struct NameBook {
    bus: Bus,
    known: Arc<Mutex<Known>>,
}

#[derive(Default)]
struct Known {
    names: Names,
    /// Ask again then; none: it was never asked.
    again: Option<Instant>,
}

impl NameBook {
    pub(crate) fn new(bus: Bus) -> Self {
        Self {
            bus,
            known: Arc::default(),
        }
    }

    /// The names as far as they are known.
    pub(crate) async fn names(&self) -> Names {
        let mut known = self.known.lock().await;
        if known.again.is_none_or(|again| again <= Instant::now()) {
            let until = Instant::now()
                + if known.again.is_none() {
                    FIRST
                } else {
                    Duration::ZERO
                };
            let mut asked = self.ask().await;
            while asked.is_none() && Instant::now() < until {
                tokio::time::sleep(PAUSE).await;
                asked = self.ask().await;
            }
            let good_for = if asked.is_some() { GOOD_FOR } else { AGAIN };
            known.names = asked.unwrap_or_else(|| std::mem::take(&mut known.names));
            known.again = Some(Instant::now() + good_for);
        }
        known.names.clone()
    }

    async fn ask(&self) -> Option<Names> {
        let request = OrchestratorRequest::ListServers;
        let asked = self
            .bus
            .request::<_, Answer<OrchestratorReply>>(names::ORCHESTRATOR, &request, DEADLINE);
        match asked.await {
            Ok(Ok(OrchestratorReply::Servers(views))) => Some(
                views
                    .into_iter()
                    .map(|view| (view.server.id, view.server.name))
                    .collect(),
            ),
            _ => None,
        }
    }
}
