//! One client's connection, as seen by those who send through it: never blocks, and counts what was sent.
//!
//! Whoever has something to send tries the socket at once; what it does not take waits here and is written by
//! the connection's own task. A client for which too much waits is closed.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::{Buf, Bytes};
use tokio::{net::TcpStream, sync::Notify};
use tokio_util::sync::CancellationToken;

use crate::sent::{SessionLog, now_us};

/// What waits for one client at most: two seconds of a stream of 16 Mbit/s, on top of the socket's own buffer.
const MOST_WAITING_BYTES: usize = 4 << 20;

/// A frame to be counted when its last byte is handed over.
#[derive(Clone, Debug)]
pub(crate) struct Mark {
    pub(crate) log: Arc<SessionLog>,
    pub(crate) number: u64,
    pub(crate) key: bool,
}

/// The sending side of a connection.
#[derive(Debug)]
pub(crate) struct Client {
    stream: TcpStream,
    waiting: Mutex<Waiting>,
    /// Told when something waits.
    more: Notify,
    closed: CancellationToken,
}

#[derive(Debug, Default)]
struct Waiting {
    queue: VecDeque<(Bytes, Option<Mark>)>,
    bytes: usize,
}

impl Client {
    pub(crate) fn new(stream: TcpStream, closed: CancellationToken) -> Self {
        Self {
            stream,
            waiting: Mutex::default(),
            more: Notify::new(),
            closed,
        }
    }

    pub(crate) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Cancelled when the connection is to be closed.
    pub(crate) fn closed(&self) -> &CancellationToken {
        &self.closed
    }

    /// Sends, or lets it wait.
    pub(crate) fn send(&self, mut bytes: Bytes, mark: Option<Mark>) {
        if self.closed.is_cancelled() {
            return;
        }
        let mut waiting = self.lock();
        if waiting.queue.is_empty() {
            match self.write(&mut bytes) {
                Ok(true) => return count(mark),
                Ok(false) => {}
                Err(_) => return self.closed.cancel(),
            }
        }
        waiting.bytes += bytes.len();
        waiting.queue.push_back((bytes, mark));
        if waiting.bytes > MOST_WAITING_BYTES {
            tracing::warn!("a client that reads too slowly is closed");
            self.closed.cancel();
        }
        self.more.notify_one();
    }

    /// Writes what waits whenever the socket takes it; ends with the connection.
    ///
    /// # Errors
    /// The socket's.
    pub(crate) async fn write_waiting(&self) -> io::Result<()> {
        loop {
            self.more.notified().await;
            while !self.lock().queue.is_empty() {
                self.stream.writable().await?;
                self.flush()?;
            }
        }
    }

    fn flush(&self) -> io::Result<()> {
        let mut waiting = self.lock();
        while let Some((mut bytes, mark)) = waiting.queue.pop_front() {
            let before = bytes.len();
            let all = self.write(&mut bytes)?;
            waiting.bytes -= before - bytes.len();
            if !all {
                waiting.queue.push_front((bytes, mark));
                break;
            }
            count(mark);
        }
        Ok(())
    }

    /// Whether the socket took everything.
    fn write(&self, bytes: &mut Bytes) -> io::Result<bool> {
        while bytes.has_remaining() {
            match self.stream.try_write(bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => bytes.advance(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn count(mark: Option<Mark>) {
    if let Some(Mark { log, number, key }) = mark {
        log.sent(number, key, now_us());
    }
}
