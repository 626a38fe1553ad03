//! The giving server, as the fetching one sees it.

use std::time::Duration;

use reqwest::{Client, Response, StatusCode, Url, header};
use serde::{Deserialize, de::DeserializeOwned};
use understudy_core::{
    assignment::Restore,
    contract::segment::{Manifest, Segment},
};
use understudy_runtime::{Secret, TraceContext, innermost};

use crate::source::VerdictReply;

/// A manifest of a hundred thousand segments has some 40 MiB.
const MOST_JSON_BYTES: usize = 128 << 20;
/// For how long the other side may be silent.
const SILENCE: Duration = Duration::from_secs(10);
const CONNECT: Duration = Duration::from_secs(3);
/// A second look reads the whole file from a disk that may be busy.
const VERDICT: Duration = Duration::from_secs(60);

/// Why the other server does not give.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RemoteError {
    /// It is not there, or breaks off: later it may be.
    #[error("{0}")]
    Away(String),
    /// It answers, and does not give what it was asked for.
    #[error("{0}")]
    Refused(String),
    /// It says that the segment can't be had.
    #[error("{0}")]
    Damaged(String),
}

/// A part of the answer to a refusal (RFC 9457).
#[derive(Default, Deserialize)]
struct Problem {
    #[serde(default)]
    detail: String,
}

/// One failover's recordings on another server.
#[derive(Clone, Debug)]
pub(crate) struct Remote {
    http: Client,
    base: Url,
    server: String,
    /// What this server presents as one of the fleet.
    token: Option<Secret>,
    /// What it is fetched for, which the other side is told (W3C Trace Context 3.2).
    trace: Option<TraceContext>,
}

impl Remote {
    /// # Errors
    /// In words, if the order's address is none.
    pub(crate) fn new(restore: &Restore, token: Option<Secret>) -> Result<Self, RemoteError> {
        let base = format!(
            "{}/v1/restorations/{}/",
            restore.address.trim_end_matches('/'),
            restore.failover
        );
        let wrong = |error: String| RemoteError::Away(format!("{} is no address: {error}", restore.address));
        let base = Url::parse(&base).map_err(|error| wrong(error.to_string()))?;
        let http = Client::builder()
            .http1_only()
            .no_proxy()
            .tcp_nodelay(true)
            .connect_timeout(CONNECT)
            .read_timeout(SILENCE)
            .build()
            .map_err(|error| wrong(error.to_string()))?;
        Ok(Self {
            http,
            base,
            server: restore.source.to_string(),
            token,
            trace: TraceContext::current(),
        })
    }

    pub(crate) async fn manifest(&self) -> Result<Manifest, RemoteError> {
        let response = self.get("manifest", 0, SILENCE).await?;
        self.json(response).await
    }

    /// A segment's bytes from `offset` on; the status says whether it does begin there.
    pub(crate) async fn segment(&self, segment: &Segment, offset: u64) -> Result<Response, RemoteError> {
        self.get(&format!("segments/{}", segment.path), offset, SILENCE)
            .await
    }

    /// Has the other side look at its file again; the reason if it is damaged.
    pub(crate) async fn verdict(&self, segment: &Segment) -> Result<Option<String>, RemoteError> {
        let response = self
            .get(&format!("verdicts/{}", segment.path), 0, VERDICT)
            .await?;
        Ok(self.json::<VerdictReply>(response).await?.damaged)
    }

    /// An error of the connection, in words that name the server.
    pub(crate) fn away(&self, error: &reqwest::Error) -> RemoteError {
        RemoteError::Away(format!("{} does not answer: {}", self.server, innermost(error)))
    }

    async fn get(&self, path: &str, offset: u64, patience: Duration) -> Result<Response, RemoteError> {
        let url = self
            .base
            .join(path)
            .map_err(|error| RemoteError::Damaged(error.to_string()))?;
        if !url.as_str().starts_with(self.base.as_str()) {
            return Err(RemoteError::Damaged("its path leads elsewhere".to_owned()));
        }
        let mut request = self.http.get(url);
        if let Some(trace) = &self.trace {
            request = request.header("traceparent", trace.to_string());
        }
        if let Some(token) = &self.token {
            request = request.bearer_auth(token.expose());
        }
        if offset > 0 {
            request = request.header(header::RANGE, format!("bytes={offset}-"));
        }
        let response = tokio::time::timeout(patience, request.send())
            .await
            .map_err(|_| RemoteError::Away(format!("{} does not answer in time", self.server)))?
            .map_err(|error| self.away(&error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let detail = self.json::<Problem>(response).await.unwrap_or_default().detail;
        match status {
            StatusCode::UNAUTHORIZED => Err(RemoteError::Refused(format!(
                "{} wants another token than this server has: set fleet.token_file on both to files with the same \
                 token, and start their sync services again",
                self.server
            ))),
            StatusCode::GONE => Err(RemoteError::Damaged(detail)),
            _ => Err(RemoteError::Refused(format!(
                "{} answers {status}: {detail}",
                self.server
            ))),
        }
    }

    async fn json<T: DeserializeOwned>(&self, mut response: Response) -> Result<T, RemoteError> {
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.away(&error))? {
            body.extend_from_slice(&chunk);
            if body.len() > MOST_JSON_BYTES {
                return Err(RemoteError::Away(format!(
                    "{} sends more than makes sense",
                    self.server
                )));
            }
        }
        serde_json::from_slice(&body).map_err(|error| {
            RemoteError::Away(format!("{} sends what can't be understood: {error}", self.server))
        })
    }
}
