//! How each camera is, for whoever asks. A camera that says something is never held up by who listens.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{Notify, mpsc};
use understudy_core::{contract::heartbeat::CameraStatus, ids::CameraId};

/// How many statuses may wait to be read. What changes meanwhile is told once, as it is then.
const WAITING: usize = 128;

#[derive(Debug, Default)]
struct States {
    now: BTreeMap<CameraId, CameraStatus>,
    changed: BTreeMap<CameraId, CameraStatus>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Board {
    states: Arc<Mutex<States>>,
    changed: Arc<Notify>,
}

impl Board {
    fn states(&self) -> std::sync::MutexGuard<'_, States> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set(&self, camera: &CameraId, status: CameraStatus) {
        let mut states = self.states();
        if states.now.get(camera) != Some(&status) {
            states.now.insert(camera.clone(), status.clone());
            states.changed.insert(camera.clone(), status);
            self.changed.notify_one();
        }
    }

    pub(super) fn remove(&self, camera: &CameraId) {
        let mut states = self.states();
        states.now.remove(camera);
        states.changed.remove(camera);
    }

    pub(super) fn all(&self) -> BTreeMap<CameraId, CameraStatus> {
        self.states().now.clone()
    }

    /// Tells all statuses, then each change, until the receiver is dropped or the future is.
    pub(super) fn tell(
        &self,
    ) -> (
        mpsc::Receiver<(CameraId, CameraStatus)>,
        impl Future<Output = ()> + use<>,
    ) {
        let (sender, receiver) = mpsc::channel(WAITING);
        let board = self.clone();
        let pump = async move {
            {
                let mut states = board.states();
                states.changed = states.now.clone();
            }
            loop {
                let news = std::mem::take(&mut board.states().changed);
                for status in news {
                    if sender.send(status).await.is_err() {
                        return;
                    }
                }
                tokio::select! {
                    () = board.changed.notified() => {}
                    () = sender.closed() => return,
                }
            }
        };
        (receiver, pump)
    }
}
