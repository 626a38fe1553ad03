//! All cameras behind one port: start, stop, and the handle that tests use.

use std::{collections::BTreeMap, io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    net::{TcpListener, TcpSocket},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    behaviour::BehaviourChange,
    camera::{Camera, CameraState},
    client::Client,
    config::SimulatorConfig,
    control,
    media::Media,
    rtsp,
    sent::CameraSent,
    video::EncodeError,
};

/// Connections that may wait to be accepted: at a failover all cameras are connected to at once.
const BACKLOG: u32 = 1024;
/// Pause after an accept that failed, e.g. for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why the simulator does not run.
#[derive(Debug, thiserror::Error)]
pub enum SimulatorError {
    /// The video could not be made.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// An address can't be listened on.
    #[error("can't listen on {address}: {source}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A part of it broke down.
    #[error("a task broke down: {0}")]
    Task(#[from] tokio::task::JoinError),
    /// No camera has that id.
    #[error("there is no camera {0}")]
    NoSuchCamera(String),
}

/// What all connections share.
pub(crate) struct Shared {
    pub(crate) config: Arc<SimulatorConfig>,
    cameras: BTreeMap<String, Arc<Camera>>,
}

/// Cameras that run. Dropping it stops them; [`Simulator::stop`] waits for that.
pub struct Simulator {
    shared: Arc<Shared>,
    address: SocketAddr,
    control: Option<SocketAddr>,
    shutdown: CancellationToken,
    tasks: TaskTracker,
}

impl Shared {
    pub(crate) fn camera(&self, id: &str) -> Option<&Arc<Camera>> {
        self.cameras.get(id)
    }

    pub(crate) fn cameras(&self) -> impl Iterator<Item = &Arc<Camera>> {
        self.cameras.values()
    }
}

impl Simulator {
    /// Encodes the video and starts the cameras.
    ///
    /// # Errors
    /// [`SimulatorError`] if GStreamer lacks an element or an address is taken.
    pub async fn start(config: SimulatorConfig) -> Result<Self, SimulatorError> {
        let listener = listen(config.listen)?;
        let address = bound(&listener, config.listen)?;
        let control = config.control.map(listen).transpose()?;
        let config = Arc::new(config);
        let media = {
            let config = config.clone();
            tokio::task::spawn_blocking(move || Media::prepare(&config)).await??
        };
        let media = Arc::new(media);
        let start = Instant::now();
        let cameras = (0..config.cameras)
            .map(|index| Arc::new(Camera::new(config.clone(), media.clone(), index, start)))
            .map(|camera| (camera.id().to_owned(), camera));
        let shared = Arc::new(Shared {
            cameras: cameras.collect(),
            config: config.clone(),
        });
        let mut simulator = Self {
            shared,
            address,
            control: None,
            shutdown: CancellationToken::new(),
            tasks: TaskTracker::new(),
        };
        for camera in simulator.shared.cameras() {
            simulator
                .tasks
                .spawn(camera.clone().run(simulator.shutdown.clone()));
        }
        simulator.tasks.spawn(accept(
            listener,
            simulator.shared.clone(),
            simulator.tasks.clone(),
            simulator.shutdown.clone(),
        ));
        if let (Some(listener), Some(asked)) = (control, config.control) {
            simulator.control = Some(bound(&listener, asked)?);
            simulator.tasks.spawn(control::serve(
                listener,
                simulator.shared.clone(),
                simulator.shutdown.clone(),
            ));
        }
        Ok(simulator)
    }

    /// Where the cameras are served.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where the control is served (HTTP).
    #[must_use]
    pub fn control_address(&self) -> Option<SocketAddr> {
        self.control
    }

    /// The ids of all cameras.
    pub fn cameras(&self) -> impl Iterator<Item = &str> {
        self.shared.cameras().map(|camera| camera.id())
    }

    /// A camera's RTSP address.
    #[must_use]
    pub fn url(&self, camera: &str) -> String {
        format!("rtsp://{}/{camera}", self.address)
    }

    /// How all cameras are.
    #[must_use]
    pub fn overview(&self) -> Vec<CameraState> {
        self.shared.cameras().map(|camera| camera.overview()).collect()
    }

    /// What a camera sent at `since` (microseconds since 1970) or later.
    ///
    /// # Errors
    /// [`SimulatorError::NoSuchCamera`].
    pub fn sent(&self, camera: &str, since: i64) -> Result<CameraSent, SimulatorError> {
        self.camera(camera).map(|camera| camera.sent(since))
    }

    /// Changes how a camera behaves.
    ///
    /// # Errors
    /// [`SimulatorError::NoSuchCamera`].
    pub fn change(&self, camera: &str, change: &BehaviourChange) -> Result<(), SimulatorError> {
        self.camera(camera).map(|camera| camera.change(change))
    }

    fn camera(&self, id: &str) -> Result<&Arc<Camera>, SimulatorError> {
        self.shared
            .camera(id)
            .ok_or_else(|| SimulatorError::NoSuchCamera(id.to_owned()))
    }

    /// Closes all connections and waits for the end of all tasks.
    pub async fn stop(self) {
        self.shutdown.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

fn listen(address: SocketAddr) -> Result<TcpListener, SimulatorError> {
    let open = || {
        let socket = if address.is_ipv4() {
            TcpSocket::new_v4()
        } else {
            TcpSocket::new_v6()
        }?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    open().map_err(|source| SimulatorError::Listen { address, source })
}

fn bound(listener: &TcpListener, asked: SocketAddr) -> Result<SocketAddr, SimulatorError> {
    listener.local_addr().map_err(|source| SimulatorError::Listen {
        address: asked,
        source,
    })
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, tasks: TaskTracker, shutdown: CancellationToken) {
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                // Frames leave when they are due; without it the last piece of each may wait for the next.
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(client.address = %peer, error = %error, "a connection ended early");
                    continue;
                }
                let client = Arc::new(Client::new(stream, shutdown.child_token()));
                tasks.spawn(rtsp::serve(shared.clone(), client, peer));
            }
            Err(error) => {
                tracing::warn!(error = %error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
