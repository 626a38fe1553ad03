//! Gives out what this server recorded for a failover (HTTP): the manifest, and the segments in it.
//!
//! Only whoever presents the fleet's token is let in, but to `/healthz`.
//! Nothing else can be asked for: a path is looked up in the index among that failover's segments, and never
//! taken to the file system as it came.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    ops::Range,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use understudy_core::{contract::segment::Segment, ids::FailoverId};
use understudy_media::archive::{Archive, ArchiveError, Filter, Verdict};
use understudy_runtime::{
    Tracer,
    fleet::{Guard, NoToken},
    process::{VERSION, VERSION_HEADER},
    trace::Kind,
};
use warp::{
    Filter as _, Rejection, Reply,
    http::{HeaderValue, StatusCode, header},
    reply::{self, Response},
};

use crate::order;

/// What is read from disk at once, in bytes.
const CHUNK_BYTES: usize = 512 << 10;
/// Chunks read ahead of the network.
const CHUNKS_AHEAD: usize = 4;

/// What a second look at a segment's file says: `GET …/verdicts/{path}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VerdictReply {
    /// Why the file is not what the manifest says; absent if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) damaged: Option<String>,
}

/// The giving side.
#[derive(Clone)]
pub(crate) struct Source {
    archive: Archive,
    data: PathBuf,
    tracer: Tracer,
    /// The segments of the failover asked for last: there is seldom another.
    listed: Arc<Mutex<Listed>>,
}

#[derive(Default)]
struct Listed {
    failover: Option<FailoverId>,
    segments: HashMap<String, Segment>,
}

/// Why something is not given out.
enum Refusal {
    NotFound(String),
    /// It was there and can't be had any more: damaged.
    Gone(String),
    Range(u64),
    Failed(String),
}

impl Source {
    pub(crate) fn new(archive: Archive, data: PathBuf, tracer: Tracer) -> Self {
        Self {
            archive,
            data,
            tracer,
            listed: Arc::default(),
        }
    }

    /// All routes, below the root.
    pub(crate) fn routes(
        self,
        guard: Guard,
    ) -> impl warp::Filter<Extract = (impl Reply,), Error = Rejection> + Clone {
        let failover = warp::path!("v1" / "restorations" / String / ..).and(guard.filter());
        let source = warp::any().map(move || self.clone());
        let manifest = failover
            .clone()
            .and(warp::path!("manifest"))
            .and(warp::header::optional("traceparent"))
            .and(source.clone())
            .then(|failover, cause: Option<String>, source: Source| async move {
                answered(source.manifest(failover, cause.as_deref()).await)
            });
        let segment = failover
            .clone()
            .and(warp::path("segments"))
            .and(warp::path::tail())
            .and(warp::header::optional(header::RANGE.as_str()))
            .and(source.clone())
            .then(
                |failover, path: warp::path::Tail, range: Option<String>, source: Source| async move {
                    answered(source.segment(failover, path.as_str(), range.as_deref()).await)
                },
            );
        let verdict = failover
            .and(warp::path("verdicts"))
            .and(warp::path::tail())
            .and(source)
            .then(|failover, path: warp::path::Tail, source: Source| async move {
                answered(source.verdict(failover, path.as_str()).await)
            });
        // As every service's health address says it: whoever can't reach that one asks here, e.g. the monitor, which
        // looks for a server that is missed and has no need to be known for it.
        let alive = warp::path!("healthz")
            .map(|| reply::with_header("ok\n", VERSION_HEADER, VERSION).into_response());
        let recordings = manifest.or(segment).unify().or(verdict).unify();
        warp::get().and(recordings.or(alive).unify()).recover(stranger)
    }

    async fn manifest(&self, failover: String, cause: Option<&str>) -> Result<Response, Refusal> {
        // What the caller says that it is a part of (W3C Trace Context 3.2); nonsense is nothing.
        let cause = cause.and_then(|text| text.parse().ok());
        let listing = cause.map(|cause| self.tracer.open("list recordings", cause));
        let failover = id(failover)?;
        let assignment = order::assignment(&self.data).await.map_err(failed)?;
        let complete = order::hands_back(assignment.as_ref(), &failover);
        let manifest = self.archive.manifest(&failover, complete).await.map_err(failed)?;
        let mut listed = self.listed();
        listed.segments = by_path(&manifest.segments);
        listed.failover = Some(failover);
        // It is asked for again and again until it is complete; the others say nothing new.
        if let Some(listing) = listing.filter(|_| complete) {
            let segments = manifest.segments.len();
            listing.end(|span| span.of(Kind::Server).with("segments", segments));
        }
        Ok(reply::json(&manifest).into_response())
    }

    async fn segment(&self, failover: String, path: &str, range: Option<&str>) -> Result<Response, Refusal> {
        let segment = self.find(failover, path).await?;
        let file = self.archive.file(&segment.path).map_err(not_found)?;
        let opened = blocking(move || {
            let file = File::open(file)?;
            let length = file.metadata()?.len();
            Ok((file, length))
        });
        let (file, length) = opened.await.map_err(|error| unreadable(&segment, &error))?;
        if length != segment.bytes {
            return Err(Refusal::Gone(format!(
                "its file has {length} bytes instead of {}",
                segment.bytes
            )));
        }
        let asked = match range {
            None => 0..length,
            Some(range) => parse_range(range, length).ok_or(Refusal::Range(length))?,
        };
        Ok(stream(file, asked, length, range.is_some()))
    }

    async fn verdict(&self, failover: String, path: &str) -> Result<Response, Refusal> {
        let segment = self.find(failover, path).await?;
        let damaged = match self.archive.verify(&segment).await.map_err(failed)? {
            Verdict::Whole => None,
            Verdict::Damaged(reason) => {
                tracing::error!(segment.path, reason, "a recording is damaged");
                Some(reason)
            }
        };
        Ok(reply::json(&VerdictReply { damaged }).into_response())
    }

    /// The segment of that failover with that path, as the index has it.
    async fn find(&self, failover: String, path: &str) -> Result<Segment, Refusal> {
        let failover = id(failover)?;
        {
            let listed = self.listed();
            if listed.failover.as_ref() == Some(&failover)
                && let Some(segment) = listed.segments.get(path)
            {
                return Ok(segment.clone());
            }
        }
        let filter = Filter {
            failover: Some(failover.clone()),
            recorded_by: Some(self.archive.server().clone()),
            ..Filter::default()
        };
        let segments = self.archive.segments(filter).await.map_err(failed)?;
        let mut listed = self.listed();
        listed.segments = by_path(&segments);
        listed.failover = Some(failover);
        let found = listed.segments.get(path).cloned();
        found.ok_or_else(|| Refusal::NotFound("this failover has no such segment here".to_owned()))
    }

    fn listed(&self) -> MutexGuard<'_, Listed> {
        self.listed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn by_path(segments: &[Segment]) -> HashMap<String, Segment> {
    segments
        .iter()
        .map(|segment| (segment.path.clone(), segment.clone()))
        .collect()
}

fn id(text: String) -> Result<FailoverId, Refusal> {
    FailoverId::new(text).map_err(|error| Refusal::NotFound(error.to_string()))
}

fn failed(error: impl std::error::Error) -> Refusal {
    Refusal::Failed(error.to_string())
}

/// A file that is gone or that the disk can't read is lost; anything else, as too many open files, passes.
fn unreadable(segment: &Segment, error: &io::Error) -> Refusal {
    tracing::error!(segment.path, %error, "a recording can't be read");
    let reason = format!("its file can't be read: {error}");
    let input_output_error = error.raw_os_error() == Some(nix::errno::Errno::EIO as i32);
    if error.kind() == io::ErrorKind::NotFound || input_output_error {
        Refusal::Gone(reason)
    } else {
        Refusal::Failed(reason)
    }
}

fn not_found(error: ArchiveError) -> Refusal {
    Refusal::NotFound(error.to_string())
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(io::Error::other(error)))
}

/// `bytes=FROM-` or `bytes=FROM-TO` (RFC 9110 14.1.2); other forms are not needed to go on with a file.
fn parse_range(range: &str, length: u64) -> Option<Range<u64>> {
    let (from, to) = range.strip_prefix("bytes=")?.split_once('-')?;
    let from = from.parse::<u64>().ok()?;
    let end = match to {
        "" => length,
        to => to.parse::<u64>().ok()?.checked_add(1)?.min(length),
    };
    (from < end).then_some(from..end)
}

fn stream(file: File, asked: Range<u64>, length: u64, partial: bool) -> Response {
    let (chunks, body) = mpsc::channel(CHUNKS_AHEAD);
    let bytes = asked.end - asked.start;
    // Ends by itself when the file is read or the client is gone.
    tokio::task::spawn_blocking({
        let asked = asked.clone();
        move || read(file, asked, &chunks)
    });
    let mut response = reply::stream(ReceiverStream::new(body)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(bytes));
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/octet-stream"),
    );
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if partial {
        let range = format!("bytes {}-{}/{length}", asked.start, asked.end - 1);
        headers.insert(
            header::CONTENT_RANGE,
            HeaderValue::try_from(range).expect("digits are valid in a header"),
        );
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    response
}

fn read(mut file: File, asked: Range<u64>, chunks: &mpsc::Sender<io::Result<Bytes>>) {
    let mut left = asked.end - asked.start;
    if let Err(error) = file.seek(SeekFrom::Start(asked.start)) {
        let _ = chunks.blocking_send(Err(error));
        return;
    }
    while left > 0 {
        let size = left.min(CHUNK_BYTES as u64);
        let mut chunk = Vec::with_capacity(size as usize);
        let read = match (&mut file).take(size).read_to_end(&mut chunk) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => Ok(Bytes::from(chunk)),
            Err(error) => Err(error),
        };
        let failed = read.is_err();
        left -= read.as_ref().map_or(0, |chunk| chunk.len() as u64);
        // An error of sending means that the client is gone.
        if chunks.blocking_send(read).is_err() || failed {
            return;
        }
    }
}

/// Answers whoever did not present the token.
async fn stranger(rejection: Rejection) -> Result<Response, Rejection> {
    if rejection.find::<NoToken>().is_none() {
        return Err(rejection);
    }
    let mut response = problem(StatusCode::UNAUTHORIZED, NoToken::WHY);
    response
        .headers_mut()
        .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    Ok(response)
}

fn answered(answer: Result<Response, Refusal>) -> Response {
    let refusal = match answer {
        Ok(response) => return response,
        Err(refusal) => refusal,
    };
    let mut range = None;
    let (status, detail) = match refusal {
        Refusal::NotFound(detail) => (StatusCode::NOT_FOUND, detail),
        Refusal::Gone(detail) => (StatusCode::GONE, detail),
        Refusal::Failed(detail) => (StatusCode::INTERNAL_SERVER_ERROR, detail),
        Refusal::Range(length) => {
            range = HeaderValue::try_from(format!("bytes */{length}")).ok();
            (
                StatusCode::RANGE_NOT_SATISFIABLE,
                "the segment has no such part".to_owned(),
            )
        }
    };
    let mut response = problem(status, &detail);
    let range = range.map(|range| (header::CONTENT_RANGE, range));
    response.headers_mut().extend(range);
    response
}

/// Problem details (RFC 9457).
fn problem(status: StatusCode, detail: &str) -> Response {
    let body = serde_json::json!({ "status": status.as_u16(), "detail": detail });
    let mut response = reply::with_status(reply::json(&body), status).into_response();
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/problem+json"),
    );
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_segment_are_asked_for_as_http_does() {
        assert_eq!(parse_range("bytes=0-", 10), Some(0..10));
        assert_eq!(parse_range("bytes=4-5", 10), Some(4..6));
        assert_eq!(parse_range("bytes=4-99", 10), Some(4..10));
        for wrong in [
            "bytes=10-",
            "bytes=5-4",
            "bytes=-5",
            "bytes=a-",
            "4-5",
            "bytes=0-18446744073709551615x",
        ] {
            assert_eq!(parse_range(wrong, 10), None, "{wrong}");
        }
        assert_eq!(
            parse_range("bytes=0-18446744073709551615", 10),
            None,
            "beyond what can be counted"
        );
    }
}
