//! A second opinion: a server that is missed is looked for directly, where its sync service gives recordings out.
//!
//! What is seen is evidence and no more. That the machine answers says nothing of its recording service, and that it
//! doesn't says nothing of its cameras: a failover is neither held up nor hurried by it.

use std::{sync::Arc, time::Duration};

use tokio::sync::{Semaphore, mpsc};
use understudy_core::ids::ServerId;
use understudy_runtime::Process;

/// After so long without an answer nobody is there.
const DEADLINE: Duration = Duration::from_secs(1);
/// Probes under way at once: when a whole site vanishes, the first say it all.
const AT_ONCE: usize = 32;

/// What a probe saw.
pub(crate) struct Probed {
    pub(crate) server: ServerId,
    pub(crate) seen: String,
}

/// Sends probes.
pub(crate) struct Prober {
    client: reqwest::Client,
    free: Arc<Semaphore>,
    seen: mpsc::Sender<Probed>,
    process: Process,
}

impl Prober {
    /// And where what they see comes out: no more than are under way.
    pub(crate) fn new(process: Process) -> Result<(Self, mpsc::Receiver<Probed>), reqwest::Error> {
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .pool_max_idle_per_host(0)
            .timeout(DEADLINE)
            .build()?;
        let (seen, probed) = mpsc::channel(AT_ONCE);
        let prober = Self {
            client,
            free: Arc::new(Semaphore::new(AT_ONCE)),
            seen,
            process,
        };
        Ok((prober, probed))
    }

    /// Looks for a server, unless too many are being looked for.
    pub(crate) fn probe(&self, server: &ServerId, address: &str) {
        let Ok(permit) = Arc::clone(&self.free).try_acquire_owned() else {
            return;
        };
        let url = format!("{}/healthz", address.trim_end_matches('/'));
        let (server, client, sender) = (server.clone(), self.client.clone(), self.seen.clone());
        let shutdown = self.process.shutdown();
        self.process.spawn("probe", async move {
            let answer = tokio::select! {
                () = shutdown.cancelled() => return,
                answer = client.get(&url).send() => answer,
            };
            let seen = match answer {
                Ok(answer) => format!(
                    "its machine answers at {url} (HTTP {}): it is up, and reached from the host",
                    answer.status().as_u16()
                ),
                Err(error) if error.is_timeout() => format!("no answer at {url} within {DEADLINE:?}"),
                Err(error) => {
                    let cause = innermost(&error);
                    format!("no answer at {url}: {cause}")
                }
            };
            drop(permit);
            // Fails only when the watch has ended, and this task with it.
            let _ended = sender.send(Probed { server, seen }).await;
        });
    }
}

/// The innermost cause says what happened; what is around it only where.
fn innermost(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;
    use warp::Filter as _;

    use super::*;

    #[tokio::test]
    async fn c7_what_a_probe_saw_is_said_whoever_answers() {
        let process = Process::for_test("monitor");
        let (prober, mut probed) = Prober::new(process.clone()).expect("a client");
        let server = ServerId::new("recorder-1").expect("an id");

        // Somebody answers, whatever: the machine is up.
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let there = format!("http://{}/", listener.local_addr().expect("bound"));
        let routes = warp::any().map(|| warp::reply::with_status("no", warp::http::StatusCode::NOT_FOUND));
        tokio::spawn(warp::serve(routes).incoming(listener).run());
        prober.probe(&server, &there);
        let seen = probed.recv().await.expect("it was looked for").seen;
        assert!(seen.contains("/healthz (HTTP 404)"), "{seen}");

        // Nobody listens.
        let closed = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let nobody = format!("http://{}", closed.local_addr().expect("bound"));
        drop(closed);
        prober.probe(&server, &nobody);
        let seen = probed.recv().await.expect("it was looked for").seen;
        assert!(seen.contains("refused"), "{seen}");

        // It is connected to, and says nothing: a machine that is frozen.
        let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        prober.probe(
            &server,
            &format!("http://{}", silent.local_addr().expect("bound")),
        );
        let seen = probed.recv().await.expect("it was looked for").seen;
        assert!(seen.contains("within 1s"), "{seen}");

        // What is no address is no reason to fall over.
        prober.probe(&server, "nowhere at all");
        let seen = probed.recv().await.expect("it was looked for").seen;
        assert!(seen.contains("no answer"), "{seen}");
        process.finish().await;
    }
}
