//! What the simulated cameras sent: their own count, per client, asked over the simulator's control address.

use std::{collections::BTreeMap, net::SocketAddr};

use understudy_simulator::CameraSent;

use crate::DemoError;

/// The running simulator, from outside.
#[derive(Clone, Debug)]
pub struct Simulator {
    control: SocketAddr,
    cameras: SocketAddr,
    client: reqwest::Client,
}

/// Everything that the cameras sent, by camera. Times are microseconds of `CLOCK_REALTIME`.
pub type Account = BTreeMap<String, CameraSent>;

/// When each frame was first handed to any client's socket.
#[must_use]
pub fn first_sent(camera: &CameraSent) -> BTreeMap<u64, i64> {
    let mut first = BTreeMap::new();
    for (number, at, _) in camera.sessions.iter().flat_map(|session| &session.frames) {
        first
            .entry(*number)
            .and_modify(|known: &mut i64| *known = (*known).min(*at))
            .or_insert(*at);
    }
    first
}

impl Simulator {
    /// The simulator whose cameras are at `cameras` and whose control address is `control`.
    pub fn new(control: SocketAddr, cameras: SocketAddr) -> Self {
        Self {
            control,
            cameras,
            client: reqwest::Client::new(),
        }
    }

    /// Where its cameras are: `rtsp://<this>/<camera>`.
    pub fn cameras_address(&self) -> SocketAddr {
        self.cameras
    }

    /// What every camera sent so far.
    ///
    /// # Errors
    /// [`DemoError::Account`] if the simulator does not answer.
    pub async fn account(&self) -> Result<Account, DemoError> {
        let failed = |error: reqwest::Error| DemoError::Account(format!("the simulator's account: {error}"));
        let url = format!("http://{}/sent", self.control);
        let answer = self.client.get(url).send().await.map_err(failed)?;
        let cameras: Vec<CameraSent> = answer
            .error_for_status()
            .map_err(failed)?
            .json()
            .await
            .map_err(failed)?;
        Ok(cameras
            .into_iter()
            .map(|sent| (sent.camera.clone(), sent))
            .collect())
    }

    /// Changes how one camera behaves, e.g. `{"mute": true}`.
    ///
    /// # Errors
    /// [`DemoError::Account`] if the simulator refuses it.
    pub async fn behave(&self, camera: &str, behaviour: &serde_json::Value) -> Result<(), DemoError> {
        let failed = |error: reqwest::Error| DemoError::Account(format!("behaviour of {camera}: {error}"));
        let url = format!("http://{}/cameras/{camera}/behaviour", self.control);
        let answer = self
            .client
            .post(url)
            .json(behaviour)
            .send()
            .await
            .map_err(failed)?;
        answer.error_for_status().map_err(failed)?;
        Ok(())
    }
}
