//! The direct path: agents' beats by HTTP, `POST /v1/heartbeats`, the contract's heartbeat as JSON.
//!
//! Takes beats from whoever presents the fleet's token, and believes only what parses: what is too long or makes no
//! sense is refused with a reason, counted, and never kept. A beat of somebody else would keep a dead server alive.

use std::convert::Infallible;

use tokio::{net::TcpListener, sync::mpsc};
use tokio_util::sync::CancellationToken;
use understudy_core::contract::heartbeat::Heartbeat;
use understudy_runtime::fleet::{Guard, NoToken};
use warp::{
    Filter, Rejection, Reply,
    http::{HeaderValue, StatusCode, header},
    reject::{LengthRequired, MethodNotAllowed, PayloadTooLarge},
    reply::{Response, with_status},
};

/// The longest body taken, in bytes; a beat has about 200, and twice a line of evidence.
pub(crate) const MAX_BEAT_BYTES: u64 = 4 * 1024;

/// Serves until `shutdown`.
pub(crate) async fn serve(
    listener: TcpListener,
    guard: Guard,
    beats: mpsc::Sender<Heartbeat>,
    refused: prometheus::IntCounter,
    shutdown: CancellationToken,
) {
    warp::serve(routes(guard, beats, refused))
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
    guard: Guard,
    beats: mpsc::Sender<Heartbeat>,
    refused: prometheus::IntCounter,
) -> impl Filter<Extract = impl Reply, Error = Infallible> + Clone {
    let counter = refused.clone();
    warp::path!("v1" / "heartbeats")
        .and(warp::post())
        .and(guard.filter())
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

async fn refuse(rejection: Rejection, refused: prometheus::IntCounter) -> Result<Response, Infallible> {
    refused.inc();
    if rejection.find::<NoToken>().is_some() {
        let answer = with_status(format!("{}\n", NoToken::WHY), StatusCode::UNAUTHORIZED);
        let mut answer = answer.into_response();
        answer
            .headers_mut()
            .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        return Ok(answer);
    }
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
    Ok(with_status(format!("{why}\n"), status).into_response())
}

#[cfg(test)]
mod tests {
    use understudy_runtime::{FleetConfig, Secret};

    use super::*;

    const TOKEN: &str = "0123456789abcdef0123456789abcdef";
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
            Self::start_with(FleetConfig::default()).await
        }

        async fn start_with(fleet: FleetConfig) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let url = format!("http://{}/v1/heartbeats", listener.local_addr().expect("bound"));
            let refused = prometheus::IntCounter::new("refused", "refused").expect("a name");
            let shutdown = CancellationToken::new();
            let (sender, beats) = mpsc::channel(4);
            let address = listener.local_addr().expect("bound");
            let guard = fleet.guard(address, "monitor.listen").expect("guarded");
            tokio::spawn(serve(listener, guard, sender, refused.clone(), shutdown.clone()));
            Self {
                url,
                client: reqwest::Client::builder().no_proxy().build().expect("a client"),
                beats,
                refused,
                _shutdown: shutdown.drop_guard(),
            }
        }

        async fn post(&self, body: impl Into<reqwest::Body>) -> u16 {
            self.post_with(None, body).await
        }

        async fn post_with(&self, token: Option<&str>, body: impl Into<reqwest::Body>) -> u16 {
            let mut request = self.client.post(&self.url).body(body);
            if let Some(token) = token {
                request = request.bearer_auth(token);
            }
            let answer = request.send().await.expect("an answer");
            let asks = answer.headers().contains_key("www-authenticate");
            assert_eq!(asks, answer.status() == 401, "RFC 9110 15.5.2");
            answer.status().as_u16()
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
    async fn only_who_presents_the_token_is_heard_and_nothing_is_read_of_others() {
        let mut rig = Rig::start_with(FleetConfig {
            token: Some(Secret::new(TOKEN)),
            token_file: None,
        })
        .await;
        for token in [None, Some(""), Some("guessed"), Some(&TOKEN[1..])] {
            assert_eq!(rig.post_with(token, BEAT).await, 401, "{token:?}");
            let endless = futures::stream::pending::<Result<bytes::Bytes, std::io::Error>>();
            let endless = reqwest::Body::wrap_stream(endless);
            assert_eq!(
                rig.post_with(token, endless).await,
                401,
                "{token:?}, before the body"
            );
        }
        assert!(rig.beats.try_recv().is_err());
        assert_eq!(rig.refused.get(), 8);
        assert_eq!(rig.post_with(Some(TOKEN), BEAT).await, 204);
        assert!(rig.beats.recv().await.is_some());
    }

    #[tokio::test]
    async fn a_body_without_a_length_is_refused_before_it_is_read() {
        let rig = Rig::start().await;
        let endless = futures::stream::pending::<Result<bytes::Bytes, std::io::Error>>();
        assert_eq!(rig.post(reqwest::Body::wrap_stream(endless)).await, 411);
        assert_eq!(rig.refused.get(), 1);
    }
}
