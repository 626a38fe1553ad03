//! Live view for other programs: each camera that is filmed here, at `rtsp://<address>/<camera>` (RFC 2326, packets
//! within the connection). Fed from the camera's one session; what the camera encoded is passed on as it is.
//!
//! A viewer never slows the recorder: it has a queue of its own, and who falls behind goes on with the next key frame.
//! A camera that is not filmed here is not there (404), so that a server on standby offers nothing.

mod feed;
mod tracks;
mod viewer;

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpSocket},
    sync::{Semaphore, watch},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::film::Studio;

/// Connections that may wait to be accepted: after a failover everybody comes at once.
const BACKLOG: u32 = 1024;
/// Connections at once; each may hold some megabytes of waiting frames.
const MOST_VIEWERS: usize = 512;
/// What the kernel keeps for one viewer: more would only keep a slow one farther behind the camera.
const SEND_BUFFER_BYTES: u32 = 256 << 10;
/// After an address that is taken, and after an accept that failed.
const RETRY: Duration = Duration::from_secs(2);

/// Gives out what a studio films.
#[derive(Clone)]
pub struct Relay {
    studio: Studio,
    token: Option<Arc<str>>,
    address: watch::Sender<Option<SocketAddr>>,
    viewers: Arc<AtomicUsize>,
}

impl Relay {
    /// A relay of what `studio` films; it listens once it runs.
    #[must_use]
    pub fn new(studio: Studio) -> Self {
        Self {
            studio,
            token: None,
            address: watch::Sender::new(None),
            viewers: Arc::default(),
        }
    }

    /// The same, for those only who know `token`: it is their password, under any name (Digest, RFC 7616).
    #[must_use]
    pub fn guarded_by(self, token: &str) -> Self {
        Self {
            token: Some(token.into()),
            ..self
        }
    }

    /// Where it listens; none before, and while the address is taken.
    #[must_use]
    pub fn address(&self) -> watch::Receiver<Option<SocketAddr>> {
        self.address.subscribe()
    }

    /// How many viewers are being sent frames.
    #[must_use]
    pub fn viewers(&self) -> usize {
        self.viewers.load(Ordering::Relaxed)
    }

    /// Serves until the shutdown. An address that is taken is tried again and again: nothing waits for it.
    pub async fn run(self, listen: SocketAddr, shutdown: CancellationToken) {
        let tasks = TaskTracker::new();
        let serving = self.serve(listen, &shutdown, &tasks);
        shutdown.run_until_cancelled(serving).await;
        tasks.close();
        tasks.wait().await;
    }

    async fn serve(&self, listen: SocketAddr, shutdown: &CancellationToken, tasks: &TaskTracker) {
        let listener = self.listener(listen).await;
        let room = Arc::new(Semaphore::new(MOST_VIEWERS));
        loop {
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "a viewer's connection could not be accepted");
                    tokio::time::sleep(RETRY).await;
                    continue;
                }
            };
            let Ok(place) = Arc::clone(&room).try_acquire_owned() else {
                tracing::warn!(most = MOST_VIEWERS, "a viewer is turned away: there are too many");
                continue;
            };
            let (studio, viewers, until) = (self.studio.clone(), Arc::clone(&self.viewers), shutdown.clone());
            let token = self.token.clone();
            tasks.spawn(async move {
                let watching = Box::pin(viewer::serve(stream, studio, viewers, token.as_deref()));
                until.run_until_cancelled(watching).await;
                drop(place);
            });
        }
    }

    async fn listener(&self, listen: SocketAddr) -> TcpListener {
        let mut told = false;
        loop {
            let opened = open(listen).and_then(|listener| Ok((listener.local_addr()?, listener)));
            match opened {
                Ok((address, listener)) => {
                    tracing::info!(%address, "live view is given out");
                    self.address.send_replace(Some(address));
                    return listener;
                }
                Err(error) => {
                    if !std::mem::replace(&mut told, true) {
                        tracing::error!(%listen, %error, "live view can't be given out; it is tried again");
                    }
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }
}

fn open(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }?;
    socket.set_reuseaddr(true)?;
    // Each connection inherits it.
    socket.set_send_buffer_size(SEND_BUFFER_BYTES)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}
