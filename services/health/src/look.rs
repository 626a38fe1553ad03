//! Looking for a server that is missed, where its sync service gives recordings out: from the host, and from a
//! failover server that it is paired with.
//!
//! What is seen is evidence. That the machine answers says nothing of its recording service, and that it doesn't says
//! nothing of its cameras: a failover is neither held up nor hurried by it.

use std::time::Duration;

use reqwest::{Client, redirect::Policy};
use understudy_core::contract::rpc::Looked;
use understudy_runtime::innermost;

/// After so long without an answer nobody is there.
pub(crate) const DEADLINE: Duration = Duration::from_secs(1);

/// What it is done with.
pub(crate) fn client() -> Result<Client, reqwest::Error> {
    Client::builder()
        .no_proxy()
        .redirect(Policy::none())
        .pool_max_idle_per_host(0)
        .timeout(DEADLINE)
        .build()
}

/// Asks for the health of the service at the base URL `address`. `from` says in words where this is done.
pub(crate) async fn look(client: &Client, address: &str, from: &str) -> Looked {
    let url = format!("{}/healthz", address.trim_end_matches('/'));
    match client.get(&url).send().await {
        Ok(answer) => Looked {
            answers: true,
            seen: format!(
                "its machine answers at {url} (HTTP {}): it is up, and reached from {from}",
                answer.status().as_u16()
            ),
        },
        Err(error) => {
            let why = match error.is_timeout() {
                true => format!("no answer at {url} within {DEADLINE:?}"),
                false => format!("no answer at {url}: {}", innermost(&error)),
            };
            Looked {
                answers: false,
                seen: format!("{why}, looked for from {from}"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;
    use warp::Filter as _;

    use super::*;

    #[tokio::test]
    async fn c7_what_was_seen_is_said_whoever_answers() {
        let client = client().expect("a client");

        // Somebody answers, whatever: the machine is up.
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let there = format!("http://{}/", listener.local_addr().expect("bound"));
        let routes = warp::any().map(|| warp::reply::with_status("no", warp::http::StatusCode::NOT_FOUND));
        tokio::spawn(warp::serve(routes).incoming(listener).run());
        let looked = look(&client, &there, "the host").await;
        assert!(
            looked.answers && looked.seen.contains("/healthz (HTTP 404)"),
            "{looked:?}"
        );

        // Nobody listens.
        let closed = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let nobody = format!("http://{}", closed.local_addr().expect("bound"));
        drop(closed);
        let looked = look(&client, &nobody, "the host").await;
        assert!(!looked.answers && looked.seen.contains("refused"), "{looked:?}");

        // It is connected to, and says nothing: a machine that is frozen.
        let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let there = format!("http://{}", silent.local_addr().expect("bound"));
        let looked = look(&client, &there, "the host").await;
        assert!(!looked.answers && looked.seen.contains("within 1s"), "{looked:?}");

        // What is no address is no reason to fall over.
        let looked = look(&client, "nowhere at all", "the host").await;
        assert!(!looked.answers && looked.seen.contains("no answer"), "{looked:?}");
    }
}
