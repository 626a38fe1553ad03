//! The direct path: agents' beats by HTTP, `POST /v1/heartbeats`, the contract's heartbeat as JSON.
//!
//! Takes anything from anyone and believes only what parses: what is too long or makes no sense is refused
//! with a reason, counted, and never kept.

use std::convert::Infallible;

use tokio::{net::TcpListener, sync::mpsc};
use tokio_util::sync::CancellationToken;
use understudy_core::contract::heartbeat::Heartbeat;
use warp::{
    Filter, Rejection, Reply,
    http::StatusCode,
    reject::{LengthRequired, MethodNotAllowed, PayloadTooLarge},
    reply::with_status,
};

/// The longest body taken, in bytes; a beat has about 200, and twice a line of evidence.
pub(crate) const MAX_BEAT_BYTES: u64 = 4 * 1024;

/// Serves until `shutdown`.
pub(crate) async fn serve(
    listener: TcpListener,
    beats: mpsc::Sender<Heartbeat>,
    refused: prometheus::IntCounter,
    shutdown: CancellationToken,
) {
    warp::serve(routes(beats, refused))
        .incoming(listener)
        .graceful(shutdown.cancelled_owned())
        .run()
        .await;
}

#[expect(
    clippy::disallowed_methods,
    reason = "the length is limited before the body is read"
)]
fn routes(
    beats: mpsc::Sender<Heartbeat>,
    refused: prometheus::IntCounter,
) -> impl Filter<Extract = impl Reply, Error = Infallible> + Clone {
    let counter = refused.clone();
    warp::path!("v1" / "heartbeats")
        .and(warp::post())
        .and(warp::body::content_length_limit(MAX_BEAT_BYTES))
        .and(warp::body::bytes())
        .then(move |body: bytes::Bytes| take(body, beats.clone(), refused.clone()))
        .recover(move |rejection| refuse(rejection, counter.clone()))
}

async fn take(
    body: bytes::Bytes,
    beats: mpsc::Sender<Heartbeat>,
    refused: prometheus::IntCounter,
) -> impl Reply {
    let beat = match serde_json::from_slice::<Heartbeat>(&body) {
        Ok(beat) => beat,
        Err(error) => {
            refused.inc();
            tracing::warn!(%error, "a direct beat was refused");
            return with_status(
                format!("this is no heartbeat: {error}\n"),
                StatusCode::BAD_REQUEST,
            );
        }
    };
    // Waits while the monitor is busy: that slows agents down one beat at a time, and nothing piles up.
    match beats.send(beat).await {
        Ok(()) => with_status(String::new(), StatusCode::NO_CONTENT),
        Err(_) => with_status("shutting down\n".to_owned(), StatusCode::SERVICE_UNAVAILABLE),
    }
}

async fn refuse(rejection: Rejection, refused: prometheus::IntCounter) -> Result<impl Reply, Infallible> {
    refused.inc();
    let (status, why) = if rejection.is_not_found() {
        (StatusCode::NOT_FOUND, "only POST /v1/heartbeats is here")
    } else if rejection.find::<PayloadTooLarge>().is_some() {
        (
            StatusCode::PAYLOAD_TOO_LARGE,
            "a heartbeat has at most 4096 bytes",
        )
    } else if rejection.find::<LengthRequired>().is_some() {
        (StatusCode::LENGTH_REQUIRED, "say the Content-Length")
    } else if rejection.find::<MethodNotAllowed>().is_some() {
        (StatusCode::METHOD_NOT_ALLOWED, "only POST /v1/heartbeats is here")
    } else {
        (StatusCode::BAD_REQUEST, "this is no heartbeat")
    };
    tracing::warn!(status = status.as_u16(), why, "a direct request was refused");
    Ok(with_status(format!("{why}\n"), status))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEAT: &str =
        r#"{"server":"recorder-1","domain":"main","sequence":1,"sent_at":0,"interval_ms":500}"#;

    struct Rig {
        url: String,
        client: reqwest::Client,
        beats: mpsc::Receiver<Heartbeat>,
        refused: prometheus::IntCounter,
        _shutdown: tokio_util::sync::DropGuard,
    }

    impl Rig {
        async fn start() -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let url = format!("http://{}/v1/heartbeats", listener.local_addr().expect("bound"));
            let refused = prometheus::IntCounter::new("refused", "refused").expect("a name");
            let shutdown = CancellationToken::new();
            let (sender, beats) = mpsc::channel(4);
            tokio::spawn(serve(listener, sender, refused.clone(), shutdown.clone()));
            Self {
                url,
                client: reqwest::Client::builder().no_proxy().build().expect("a client"),
                beats,
                refused,
                _shutdown: shutdown.drop_guard(),
            }
        }

        async fn post(&self, body: impl Into<reqwest::Body>) -> u16 {
            let request = self.client.post(&self.url).body(body);
            request.send().await.expect("an answer").status().as_u16()
        }
    }

    #[tokio::test]
    async fn a_beat_is_taken_and_garbage_is_refused() {
        let mut rig = Rig::start().await;
        assert_eq!(rig.post(BEAT).await, 204);
        assert_eq!(
            rig.beats.recv().await.expect("taken").server.as_str(),
            "recorder-1"
        );

        for garbage in [
            " ",
            "{",
            "[]",
            "\u{0}\u{1}",
            &BEAT.replace("recorder-1", "../etc"),
        ] {
            assert_eq!(rig.post(garbage.to_owned()).await, 400, "{garbage:?}");
        }
        let long = BEAT.replace("recorder-1", &"r".repeat(5_000));
        assert_eq!(rig.post(long).await, 413);
        assert!(rig.beats.try_recv().is_err());
        assert_eq!(rig.refused.get(), 6);
        assert_eq!(rig.post(BEAT).await, 204, "and goes on");
    }

    #[tokio::test]
    async fn a_body_without_a_length_is_refused_before_it_is_read() {
        let rig = Rig::start().await;
        let endless = futures::stream::pending::<Result<bytes::Bytes, std::io::Error>>();
        assert_eq!(rig.post(reqwest::Body::wrap_stream(endless)).await, 411);
        assert_eq!(rig.refused.get(), 1);
    }
}
