//! From a connection to an operation and back: the one place that knows warp.

use std::sync::Arc;

use bytes::{Buf, Bytes};
use futures::Stream;
use serde::de::DeserializeOwned;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use understudy_core::contract::api::Problem;
use understudy_runtime::{
    TraceContext, Tracer,
    clock::wall_nanoseconds,
    trace::{Kind, Span},
};
use warp::{
    Filter,
    filters::path::FullPath,
    http::{HeaderMap, Method, uri::Authority},
    reply::Response,
};

use crate::{
    answer,
    backend::Backend,
    body,
    feed::Feed,
    guard::Guard,
    nouns,
    routes::{Found, Router},
};

/// Everything that an operation may use.
pub(crate) struct Api {
    pub(crate) backend: Backend,
    pub(crate) feed: Arc<Feed>,
    pub(crate) guard: Guard,
    pub(crate) limit: body::Limit,
    pub(crate) shutdown: CancellationToken,
    pub(crate) router: Router,
    pub(crate) tracer: Tracer,
}

/// A request that was found in the table.
pub(crate) struct Call {
    pub(crate) parameters: Vec<(String, String)>,
    pub(crate) query: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// Answers what comes in on `listener` until the shutdown; requests under way are finished.
pub(crate) async fn serve(api: Arc<Api>, listener: TcpListener) {
    let shutdown = api.shutdown.clone();
    let query = warp::query::raw().or(warp::any().map(String::new)).unify();
    // No filter below can reject: whatever comes in is answered in `respond`, problems included.
    let everything = warp::any()
        .map(move || api.clone())
        .and(warp::method())
        .and(warp::path::full())
        .and(query)
        .and(warp::host::optional())
        .and(warp::header::headers_cloned())
        .and(warp::body::stream())
        .then(
            |api: Arc<Api>, method, path, query, authority, headers, stream| async move {
                let head = Head {
                    method,
                    path,
                    query,
                    authority,
                    headers,
                };
                respond(&api, head, stream).await
            },
        );
    warp::serve(everything)
        .incoming(listener)
        .graceful(shutdown.cancelled_owned())
        .run()
        .await;
}

struct Head {
    method: Method,
    path: FullPath,
    query: String,
    authority: Option<Authority>,
    headers: HeaderMap,
}

async fn respond<B: Buf>(
    api: &Arc<Api>,
    head: Head,
    stream: impl Stream<Item = Result<B, warp::Error>>,
) -> Response {
    if let Err(problem) = api.guard.check(&head.headers, head.authority.as_ref()) {
        return answer::problem(&problem);
    }
    let path = head.path.as_str();
    let (operation, parameters) = match api.router.find(&head.method, path) {
        Found::Operation(operation, parameters) => (operation, parameters),
        Found::Methods(possible) => return answer::wrong_method(&head.method, path, &possible),
        Found::Nothing => return answer::problem(&Problem::not_found("address", path)),
    };
    let outcome = match body::read(&head.headers, stream, api.limit).await {
        Ok(body) => {
            let call = Call {
                parameters,
                query: head.query,
                headers: head.headers,
                body,
            };
            carry_out_traced(api, operation, &head.method, &call).await
        }
        Err(problem) => Err(problem),
    };
    outcome.unwrap_or_else(|problem| answer::problem(&problem))
}

/// Carries out a call as a part of the caller's trace (W3C Trace Context 3.2). One that says none, or nonsense, begins its
/// own, which is recorded only if it changes something: pages ask how things are once a second.
async fn carry_out_traced(
    api: &Arc<Api>,
    operation: crate::routes::Operation,
    method: &Method,
    call: &Call,
) -> answer::Outcome {
    let said: Option<TraceContext> = call.header("traceparent").and_then(|text| text.parse().ok());
    let begun = || match *method {
        Method::GET | Method::HEAD => TraceContext::root(),
        _ => api.tracer.begin(),
    };
    let context = said.map_or_else(begun, |said| said.child());
    let since = wall_nanoseconds();
    // On the heap: it is tens of kilobytes, and there is one for each connection.
    let outcome = context
        .scope(Box::pin(nouns::carry_out(api, operation, call)))
        .await;
    if api.tracer.records(&context) {
        let status = match &outcome {
            Ok(response) => response.status().as_u16(),
            Err(problem) => problem.status,
        };
        // What was refused is the caller's fault, and no error of this side (OpenTelemetry, "HTTP server").
        let failed = outcome.as_ref().err().filter(|problem| problem.status >= 500);
        let failed = failed.map(ToString::to_string);
        let span = Span::until_now(format!("{method} {operation:?}"), context, said, since);
        api.tracer.record(
            span.of(Kind::Server)
                .with("http.request.method", method.as_str())
                .with("http.response.status_code", u64::from(status))
                .failed(failed),
        );
    }
    outcome
}

impl Call {
    /// The id in the path. What can't be an id names nothing.
    pub(crate) fn id<T: std::str::FromStr>(&self, noun: &str) -> Result<T, Problem> {
        let text = self
            .parameters
            .iter()
            .find(|(key, _)| key == noun)
            .map_or("", |(_, value)| value.as_str());
        text.parse().map_err(|_| Problem::not_found(noun, text))
    }

    /// A header's value, if it is there and readable.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The body, which has to be JSON and to say so: a form on a foreign page can't.
    pub(crate) fn json<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        let kind = self
            .header("content-type")
            .unwrap_or("")
            .split(';')
            .next()
            .unwrap_or("")
            .trim()
            .to_ascii_lowercase();
        if kind != "application/json" && kind != "application/merge-patch+json" {
            return Err(Problem::new(
                415,
                "not-json",
                "Unsupported media type",
                "send JSON, with Content-Type: application/json",
            ));
        }
        serde_json::from_slice(&self.body).map_err(|error| Problem::invalid(error.to_string()))
    }

    /// The body, or what stands for none.
    pub(crate) fn json_or_default<T: DeserializeOwned + Default>(&self) -> Result<T, Problem> {
        if self.body.is_empty() {
            Ok(T::default())
        } else {
            self.json()
        }
    }

    /// The parameters after the question mark; those that `known` does not name are refused.
    pub(crate) fn query(&self, known: &[&str]) -> Result<Vec<(String, String)>, Problem> {
        let pairs: Vec<(String, String)> = url::form_urlencoded::parse(self.query.as_bytes())
            .into_owned()
            .collect();
        match pairs.iter().find(|(key, _)| !known.contains(&key.as_str())) {
            Some((key, _)) if known.is_empty() => Err(Problem::invalid(format!(
                "{key:?} means nothing here: there are no parameters"
            ))),
            Some((key, _)) => {
                let known = known.join(", ");
                Err(Problem::invalid(format!(
                    "{key:?} means nothing here: there are {known}"
                )))
            }
            None => Ok(pairs),
        }
    }
}
