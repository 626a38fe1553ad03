//! Fetches one segment into a temporary file, hashed while it comes in; goes on where an earlier attempt
//! stopped.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use reqwest::StatusCode;
use tokio::sync::mpsc;
use understudy_core::contract::segment::Segment;

use crate::{
    pace::Gate,
    remote::{Remote, RemoteError},
};

/// Pieces received ahead of the disk; each has some hundred kilobytes.
const PIECES_AHEAD: usize = 8;
/// What is read at once of a file that is gone on with.
const CHUNK_BYTES: usize = 512 << 10;
const SUFFIX: &str = "part";

/// How an attempt ended that brought nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    /// See [`RemoteError`].
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// It began to come and broke off.
    #[error("{0}")]
    BrokeOff(String),
    /// All bytes came, and are not those of the manifest.
    #[error("it arrived with another hash than it should have")]
    Mismatch,
    /// This server's own disk.
    #[error("it can't be written: {0}")]
    Disk(#[from] io::Error),
}

/// Where `segment` is written until it is whole: the same for the same contents, so that what was left by a
/// crash is found.
pub(crate) fn temporary(incoming: &Path, segment: &Segment) -> PathBuf {
    let mut name = blake3::Hasher::new();
    for part in [&segment.path, "\0", &segment.blake3] {
        name.update(part.as_bytes());
    }
    incoming.join(format!("{}.{SUFFIX}", name.finalize().to_hex()))
}

/// Removes what earlier attempts left.
pub(crate) fn sweep(incoming: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(incoming)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == SUFFIX) {
            std::fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// What comes in passes here: it is counted, and held back while recording needs the disk.
#[derive(Clone)]
pub(crate) struct Door {
    pub(crate) received: Arc<AtomicU64>,
    pub(crate) gate: Arc<Gate>,
}

/// Fetches `segment` into `file`; once it returns, the file's bytes are those that the manifest promised.
pub(crate) async fn fetch(
    remote: &Remote,
    segment: &Segment,
    file: &Path,
    door: Door,
) -> Result<(), FetchError> {
    let length = segment.bytes;
    let begun = {
        let file = file.to_owned();
        blocking(move || Writing::begin(&file, length)).await?
    };
    let writing = receive(remote, segment, begun, door).await?;
    if writing.written != length {
        let missing = format!(
            "the connection ended {} bytes before the end",
            length - writing.written
        );
        return Err(RemoteError::Away(missing).into());
    }
    if writing.hasher.finalize().to_hex().as_str() != segment.blake3 {
        // From the start the next time: nobody knows where it went wrong.
        tokio::fs::remove_file(file).await?;
        return Err(FetchError::Mismatch);
    }
    Ok(())
}

async fn receive(
    remote: &Remote,
    segment: &Segment,
    mut writing: Writing,
    door: Door,
) -> Result<Writing, FetchError> {
    if writing.written == segment.bytes {
        return Ok(writing);
    }
    let mut response = remote.segment(segment, writing.written).await?;
    if response.status() != StatusCode::PARTIAL_CONTENT && writing.written > 0 {
        writing = blocking(move || writing.restart()).await?;
    }
    let (pieces, arriving) = mpsc::channel(PIECES_AHEAD);
    let limit = segment.bytes;
    let writer = tokio::task::spawn_blocking(move || writing.write_all(arriving, limit));
    let broken = loop {
        match response.chunk().await {
            Ok(Some(piece)) => {
                door.received.fetch_add(piece.len() as u64, Ordering::Relaxed);
                door.gate.pass(piece.len()).await;
                if pieces.send(piece).await.is_err() {
                    break None; // The writer failed and says why.
                }
            }
            Ok(None) => break None,
            Err(error) => break Some(remote.away(&error)),
        }
    };
    drop(pieces);
    let writing = writer
        .await
        .unwrap_or_else(|error| Err(io::Error::other(error)))?;
    match broken {
        Some(error) => Err(FetchError::BrokeOff(error.to_string())),
        None => Ok(writing),
    }
}

/// A file on its way.
struct Writing {
    file: File,
    hasher: blake3::Hasher,
    written: u64,
}

impl Writing {
    /// Takes up what is there, as long as it is not more than there should be.
    fn begin(path: &Path, length: u64) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        let mut writing = Self {
            file,
            hasher: blake3::Hasher::new(),
            written: 0,
        };
        let mut chunk = Vec::new();
        loop {
            chunk.clear();
            match (&mut writing.file)
                .take(CHUNK_BYTES as u64)
                .read_to_end(&mut chunk)?
            {
                0 => break,
                read => writing.written += read as u64,
            }
            writing.hasher.update(&chunk);
        }
        if writing.written > length {
            writing.restart()
        } else {
            Ok(writing)
        }
    }

    fn restart(mut self) -> io::Result<Self> {
        self.file.set_len(0)?;
        self.file.rewind()?;
        Ok(Self {
            file: self.file,
            hasher: blake3::Hasher::new(),
            written: 0,
        })
    }

    fn write_all(mut self, mut arriving: mpsc::Receiver<Bytes>, limit: u64) -> io::Result<Self> {
        while let Some(piece) = arriving.blocking_recv() {
            let piece = &piece[..piece.len().min((limit - self.written) as usize)];
            self.file.write_all(piece)?;
            self.hasher.update(piece);
            self.written += piece.len() as u64;
        }
        Ok(self)
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(io::Error::other(error)))
}
