//! Reads a request's body, bounded in size and in time.

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use futures::{Stream, StreamExt};
use understudy_core::contract::api::Problem;
use warp::http::{HeaderMap, header};

/// How much of a request is taken.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limit {
    /// The largest, in bytes.
    pub(crate) bytes: usize,
    /// The slowest: a caller that needs longer holds memory for nothing.
    pub(crate) time: Duration,
}

/// The whole body, if it is within the limit.
pub(crate) async fn read<B: Buf>(
    headers: &HeaderMap,
    stream: impl Stream<Item = Result<B, warp::Error>>,
    limit: Limit,
) -> Result<Bytes, Problem> {
    let announced = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse().ok());
    if announced.is_some_and(|bytes: u64| bytes > limit.bytes as u64) {
        return Err(too_large(limit.bytes));
    }
    tokio::time::timeout(limit.time, collect(stream, limit.bytes))
        .await
        .unwrap_or_else(|_| {
            let detail = format!("it did not arrive within {:?}", limit.time);
            Err(Problem::new(408, "too-slow", "Request too slow", detail))
        })
}

async fn collect<B: Buf>(
    stream: impl Stream<Item = Result<B, warp::Error>>,
    limit: usize,
) -> Result<Bytes, Problem> {
    let mut stream = std::pin::pin!(stream);
    let mut body = BytesMut::new();
    while let Some(part) = stream.next().await {
        let mut part = part.map_err(|error| Problem::invalid(format!("the request broke off: {error}")))?;
        if body.len() + part.remaining() > limit {
            return Err(too_large(limit));
        }
        body.extend_from_slice(&part.copy_to_bytes(part.remaining()));
    }
    Ok(body.freeze())
}

fn too_large(limit: usize) -> Problem {
    Problem::new(
        413,
        "too-large",
        "Request too large",
        format!("at most {limit} bytes are taken at once ([console] body_max_bytes): send it in parts"),
    )
}

#[cfg(test)]
mod tests {
    use futures::stream;

    use super::*;

    const LIMIT: Limit = Limit {
        bytes: 8,
        time: Duration::from_secs(60),
    };

    #[tokio::test]
    async fn a_body_that_does_not_say_how_large_it_is_is_cut_off_at_the_limit() {
        let parts = || stream::iter([Ok(Bytes::from_static(b"0123")), Ok(Bytes::from_static(b"4567"))]);
        let fits = read(&HeaderMap::new(), parts(), LIMIT)
            .await
            .expect("eight bytes fit into eight");
        assert_eq!(&fits[..], b"01234567");
        let seven = Limit { bytes: 7, ..LIMIT };
        let refused = read(&HeaderMap::new(), parts(), seven)
            .await
            .expect_err("eight don't fit into seven");
        assert_eq!(refused.status, 413);
    }

    #[tokio::test]
    async fn a_body_that_never_comes_is_given_up() {
        let silence = stream::pending::<Result<Bytes, warp::Error>>();
        let limit = Limit {
            time: Duration::from_millis(1),
            ..LIMIT
        };
        let given_up = read(&HeaderMap::new(), silence, limit)
            .await
            .expect_err("nothing came");
        assert_eq!(given_up.status, 408);
    }
}
