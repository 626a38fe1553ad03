//! The simulator's control (HTTP): what was sent, and how cameras behave.

use std::{convert::Infallible, sync::Arc};

use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use warp::{
    Filter, Reply,
    http::StatusCode,
    reply::{self, Response},
};

use crate::{behaviour::BehaviourChange, simulator::Shared};

/// A change of behaviour has a few dozen bytes.
const MOST_BODY_BYTES: u64 = 4096;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Since {
    /// Microseconds since 1970.
    #[serde(default)]
    since: i64,
}

/// Serves until the shutdown.
pub(crate) async fn serve(listener: TcpListener, shared: Arc<Shared>, shutdown: CancellationToken) {
    warp::serve(routes(shared))
        .incoming(listener)
        .graceful(shutdown.cancelled_owned())
        .run()
        .await;
}

fn routes(shared: Arc<Shared>) -> impl Filter<Extract = (impl Reply,), Error = Infallible> + Clone {
    let shared = warp::any().map(move || shared.clone());
    let healthy = warp::path!("healthz")
        .and(warp::get())
        .map(|| "ok\n".into_response());
    let overview = warp::path!("cameras")
        .and(warp::get())
        .and(shared.clone())
        .map(|shared: Arc<Shared>| {
            let cameras = shared
                .cameras()
                .map(|camera| camera.overview())
                .collect::<Vec<_>>();
            json(StatusCode::OK, &cameras)
        });
    let sent = warp::path!("cameras" / String / "sent")
        .and(warp::get())
        .and(warp::query::<Since>())
        .and(shared.clone())
        .map(
            |id: String, Since { since }, shared: Arc<Shared>| match shared.camera(&id) {
                Some(camera) => json(StatusCode::OK, &camera.sent(since)),
                None => unknown(&id),
            },
        );
    let all_sent = warp::path!("sent")
        .and(warp::get())
        .and(warp::query::<Since>())
        .and(shared.clone())
        .map(|Since { since }, shared: Arc<Shared>| {
            let cameras = shared
                .cameras()
                .map(|camera| camera.sent(since))
                .collect::<Vec<_>>();
            json(StatusCode::OK, &cameras)
        });
    let change = warp::path!("cameras" / String / "behaviour")
        .and(body())
        .and(shared.clone())
        .map(
            |id: String, change: BehaviourChange, shared: Arc<Shared>| match shared.camera(&id) {
                Some(camera) => {
                    camera.change(&change);
                    json(StatusCode::OK, &camera.behaviour())
                }
                None => unknown(&id),
            },
        );
    let change_all = warp::path!("behaviour").and(body()).and(shared).map(
        |change: BehaviourChange, shared: Arc<Shared>| {
            shared.cameras().for_each(|camera| camera.change(&change));
            StatusCode::NO_CONTENT.into_response()
        },
    );
    let routes = healthy
        .or(overview)
        .unify()
        .or(sent)
        .unify()
        .or(all_sent)
        .unify()
        .or(change)
        .unify()
        .or(change_all)
        .unify();
    routes.recover(refuse).unify()
}

#[expect(
    clippy::disallowed_methods,
    reason = "the length is limited before it is read"
)]
fn body() -> impl Filter<Extract = (BehaviourChange,), Error = warp::Rejection> + Copy {
    warp::post()
        .and(warp::body::content_length_limit(MOST_BODY_BYTES))
        .and(warp::body::json())
}

fn json(status: StatusCode, body: &impl Serialize) -> Response {
    reply::with_status(reply::json(body), status).into_response()
}

fn unknown(id: &str) -> Response {
    problem(StatusCode::NOT_FOUND, &format!("there is no camera {id}"))
}

fn problem(status: StatusCode, detail: &str) -> Response {
    json(
        status,
        &serde_json::json!({ "status": status.as_u16(), "detail": detail }),
    )
}

async fn refuse(rejection: warp::Rejection) -> Result<Response, Infallible> {
    let (status, detail) = if rejection.is_not_found() {
        (StatusCode::NOT_FOUND, "there is nothing at this path".to_owned())
    } else if let Some(error) = rejection.find::<warp::filters::body::BodyDeserializeError>() {
        (StatusCode::BAD_REQUEST, error.to_string())
    } else {
        (StatusCode::BAD_REQUEST, format!("{rejection:?}"))
    };
    Ok(problem(status, &detail))
}
