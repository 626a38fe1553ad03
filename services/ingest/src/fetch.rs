//! Settings that the server needs and does not have: asked for at the host until they come.

use std::time::Duration;

use tokio::sync::{mpsc, watch};
use understudy_bus::{Bus, Link};
use understudy_core::{
    contract::{
        heartbeat::SealedBundle,
        names::ORCHESTRATOR,
        rpc::{Answer, OrchestratorReply, OrchestratorRequest},
    },
    settings::{Bundle, BundleHash},
};
use understudy_runtime::Process;

use crate::opener::Opener;

/// For how long the host may take to answer.
const DEADLINE: Duration = Duration::from_secs(3);
/// The pause before it is asked again.
const RETRY: Duration = Duration::from_millis(500);

/// Fetches the newest bundle wanted, and hands it over; a new wish replaces the last.
pub(crate) async fn run(
    bus: Bus,
    opener: Opener,
    mut wanted: watch::Receiver<Option<BundleHash>>,
    fetched: mpsc::Sender<(SealedBundle, Bundle)>,
    process: Process,
) {
    let shutdown = process.shutdown();
    loop {
        let wish = wanted.borrow_and_update().clone();
        let fetch = async {
            let Some(hash) = wish else {
                return std::future::pending().await;
            };
            let bundle = until_it_comes(&bus, &opener, &hash).await;
            // Fails only when the shell has ended, and this task with it.
            let _ = fetched.send(bundle).await;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            changed = wanted.changed() => if changed.is_err() { return },
            () = fetch => {}
        }
    }
}

async fn until_it_comes(bus: &Bus, opener: &Opener, hash: &BundleHash) -> (SealedBundle, Bundle) {
    let mut link = bus.link();
    let mut said = String::new();
    loop {
        let _ = link.wait_for(|link| *link == Link::Up).await;
        let why = match fetch(bus, opener, hash).await {
            Ok(bundle) => return bundle,
            Err(why) => why,
        };
        if why != said {
            tracing::warn!(bundle.hash = %hash, why, "the settings that this server needs did not come; asking again");
            said = why;
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn fetch(bus: &Bus, opener: &Opener, hash: &BundleHash) -> Result<(SealedBundle, Bundle), String> {
    let request = OrchestratorRequest::GetBundle(hash.clone());
    let answer = bus.request::<_, Answer<OrchestratorReply>>(ORCHESTRATOR, &request, DEADLINE);
    match answer.await.map_err(|error| error.to_string())? {
        Ok(OrchestratorReply::Bundle(sealed)) if sealed.hash == *hash => {
            let opened = opener.open(std::slice::from_ref(&sealed)).await;
            let mut opened = opened.map_err(|error| error.to_string())?;
            let bundle = opened
                .pop()
                .unwrap_or_else(|| Err("it was not opened".to_owned()))?;
            Ok((sealed, bundle))
        }
        Ok(_) => Err("the host answered something else".to_owned()),
        Err(problem) => Err(problem.to_string()),
    }
}
