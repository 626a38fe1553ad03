//! Answers: JSON, nothing, or a problem (RFC 9457).

use bytes::Bytes;
use serde::Serialize;
use understudy_core::contract::api::Problem;
use warp::{
    http::{HeaderName, HeaderValue, Method, StatusCode, header},
    reply::Response,
};

/// What comes of a request.
pub(crate) type Outcome = Result<Response, Problem>;

/// 200 with `value` as JSON.
pub(crate) fn json<T: Serialize + ?Sized>(value: &T) -> Outcome {
    let text = serde_json::to_string(value).map_err(|error| internal(&error))?;
    Ok(with(StatusCode::OK, "application/json", text))
}

/// 200 with a picture.
pub(crate) fn jpeg(picture: Vec<u8>) -> Outcome {
    Ok(with(StatusCode::OK, "image/jpeg", picture))
}

/// 204.
pub(crate) fn done() -> Outcome {
    let mut response = Response::default();
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}

/// A problem as it is sent.
pub(crate) fn problem(problem: &Problem) -> Response {
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let text = serde_json::to_string(problem).unwrap_or_else(|_| String::from("{}"));
    let mut response = with(status, "application/problem+json", text);
    let further = match status {
        StatusCode::SERVICE_UNAVAILABLE => Some((header::RETRY_AFTER, "2")),
        StatusCode::UNAUTHORIZED => Some((header::WWW_AUTHENTICATE, "Bearer realm=\"understudy\"")),
        _ => None,
    };
    if let Some((name, value)) = further {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    response
}

/// 405, which names what is possible (RFC 9110, section 15.5.6).
pub(crate) fn wrong_method(method: &Method, path: &str, possible: &[Method]) -> Response {
    let allow = possible.iter().map(Method::as_str).collect::<Vec<_>>().join(", ");
    let detail = format!("{method} is not possible for {path}; {allow} is");
    let mut response = problem(&Problem::new(405, "wrong-method", "Method not allowed", detail));
    if let Ok(allow) = HeaderValue::from_str(&allow) {
        response.headers_mut().insert(header::ALLOW, allow);
    }
    response
}

/// 500: something that can't be, by what is known here.
pub(crate) fn internal(error: &dyn std::fmt::Display) -> Problem {
    tracing::error!(%error, "a request failed in a way that it should not");
    Problem::new(500, "internal", "Internal error", "the console's log says more")
}

fn with(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response {
    let mut response = Response::new(body.into().into());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // A browser must not take an answer for a page.
    headers.insert(
        HeaderName::from_static("x-content-type-options"),
        HeaderValue::from_static("nosniff"),
    );
    response
}
