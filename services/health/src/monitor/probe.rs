//! A second opinion on a server that is missed: it is looked for from the host, and failover servers that it is paired
//! with are asked to look too ([`crate::look`]).

use std::{sync::Arc, time::Duration};

use tokio::sync::{Semaphore, mpsc};
use understudy_bus::Bus;
use understudy_core::{
    contract::{
        names,
        rpc::{AgentReply, AgentRequest, Looked},
    },
    ids::ServerId,
};
use understudy_runtime::Process;

use crate::look::{DEADLINE, client, look};

/// For how long an agent may take to look and to answer.
const ASKED_DEADLINE: Duration = DEADLINE.saturating_add(Duration::from_secs(1));
/// Looks under way at once: when a whole site vanishes, the first say it all.
const AT_ONCE: usize = 32;

/// What somebody saw who looked for a server.
pub(crate) struct Probed {
    pub(crate) server: ServerId,
    /// Who; none: the host.
    pub(crate) observer: Option<ServerId>,
    pub(crate) looked: Looked,
}

/// Looks, and has others look.
pub(crate) struct Prober {
    client: reqwest::Client,
    bus: Bus,
    free: Arc<Semaphore>,
    seen: mpsc::Sender<Probed>,
    process: Process,
}

impl Prober {
    /// And where what is seen comes out: no more than is under way.
    pub(crate) fn new(bus: Bus, process: Process) -> Result<(Self, mpsc::Receiver<Probed>), reqwest::Error> {
        let (seen, probed) = mpsc::channel(AT_ONCE);
        let prober = Self {
            client: client()?,
            bus,
            free: Arc::new(Semaphore::new(AT_ONCE)),
            seen,
            process,
        };
        Ok((prober, probed))
    }

    /// Looks for a server at the address of its sync service, and has `witnesses` look. Says whether it does: not if
    /// too much is under way.
    pub(crate) fn probe(&self, server: &ServerId, address: &str, witnesses: Vec<ServerId>) -> bool {
        let (client, base) = (self.client.clone(), address.to_owned());
        let begun = self.spawn(server, None, async move {
            Some(look(&client, &base, "the host").await)
        });
        for witness in witnesses {
            let (bus, service) = (self.bus.clone(), names::agent(&witness));
            let request = AgentRequest::Look {
                address: address.to_owned(),
            };
            self.spawn(server, Some(witness), async move {
                match bus.request(&service, &request, ASKED_DEADLINE).await {
                    Ok(AgentReply::Looked(looked)) => Some(looked),
                    Err(error) => {
                        tracing::debug!(service, %error, "it could not be asked to look");
                        None
                    }
                }
            });
        }
        begun
    }

    fn spawn(
        &self,
        server: &ServerId,
        observer: Option<ServerId>,
        looks: impl Future<Output = Option<Looked>> + Send + 'static,
    ) -> bool {
        let Ok(permit) = Arc::clone(&self.free).try_acquire_owned() else {
            return false;
        };
        let (server, sender, shutdown) = (server.clone(), self.seen.clone(), self.process.shutdown());
        self.process.spawn("probe", async move {
            let looked = tokio::select! {
                () = shutdown.cancelled() => return,
                looked = looks => looked,
            };
            drop(permit);
            if let Some(looked) = looked {
                let probed = Probed {
                    server,
                    observer,
                    looked,
                };
                // Fails only when the watch has ended, and this task with it.
                let _ended = sender.send(probed).await;
            }
        });
        true
    }
}
