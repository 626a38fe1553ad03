//! Pictures for whoever asks on the bus: taken of what a camera shows now, listed, and given out.
//!
//! A picture is kept in the archive, indexed, with the failover that is filmed for: so it is handed back with the
//! recordings, or removed with them, and in the range "live only" it is all that is kept.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use understudy_bus::Bus;
use understudy_core::{
    contract::{
        api::{Problem, SnapshotView},
        names,
        rpc::{Answer, RecorderReply as Reply, RecorderRequest as Request},
        segment::Segment,
    },
    ids::{CameraId, ServerId},
};
use understudy_media::{
    archive::Archive,
    film::Studio,
    snapshot::{self, SnapshotError},
};
use understudy_runtime::Process;

/// The largest picture that is given out on the bus, whose messages are bounded; one of 4K has some two million bytes.
const LARGEST: usize = 8 << 20;

/// What pictures are made of, and where they lie.
#[derive(Clone)]
pub(crate) struct Snapshots {
    pub(crate) server: ServerId,
    pub(crate) studio: Studio,
    pub(crate) archive: Archive,
}

impl Snapshots {
    /// Answers on the bus until the process ends.
    pub(crate) fn serve(self, bus: &Bus, process: &Process) {
        let name = names::recorder(&self.server);
        let answer = move |request| {
            let snapshots = self.clone();
            async move { snapshots.answer(request).await }
        };
        bus.serve(&name, answer, process);
    }

    async fn answer(&self, request: Request) -> Answer<Reply> {
        match request {
            Request::TakeSnapshot { camera, by } => self.take(&camera, &by).await,
            Request::ListSnapshots { camera, from, to } => {
                let pictures = snapshot::list(&self.archive, camera, from, to).await;
                let pictures = pictures.map_err(|error| self.problem("its pictures", &error.into()))?;
                Ok(Reply::Snapshots(
                    pictures.iter().filter_map(|each| self.view(each)).collect(),
                ))
            }
            Request::GetSnapshot { camera, snapshot } => self.read(&camera, &snapshot).await,
        }
    }

    async fn take(&self, camera: &CameraId, by: &str) -> Answer<Reply> {
        let kept = self.studio.snapshot(camera).await;
        let kept = kept.map_err(|error| self.problem(camera.as_str(), &error))?;
        tracing::info!(camera.id = %camera, by, segment.path = kept.path, "a picture is kept, as was asked for");
        let view = self.view(&kept);
        view.map(Reply::Snapshot)
            .ok_or_else(|| Problem::unavailable(format!("{} is the path of no picture", kept.path)))
    }

    async fn read(&self, camera: &CameraId, id: &str) -> Answer<Reply> {
        let picture = snapshot::read(&self.archive, camera, id).await;
        match picture.map_err(|error| self.problem(id, &error))? {
            None => Err(Problem::not_found("snapshot", id)),
            Some(picture) if picture.len() > LARGEST => Err(Problem::unavailable(format!(
                "the picture has {} bytes, too many to be given out here: it lies in the archive of {}",
                picture.len(),
                self.server
            ))),
            Some(picture) => Ok(Reply::Picture {
                jpeg: BASE64.encode(picture),
            }),
        }
    }

    fn view(&self, kept: &Segment) -> Option<SnapshotView> {
        Some(SnapshotView {
            id: snapshot::id(kept)?.to_owned(),
            camera: kept.camera.clone(),
            at: kept.start,
            taken_by: kept.recorded_by.clone(),
            held_by: self.server.clone(),
            failover: kept.failover.clone(),
            bytes: kept.bytes,
            blake3: kept.blake3.clone(),
        })
    }

    fn problem(&self, what: &str, error: &SnapshotError) -> Problem {
        let server = &self.server;
        match error {
            SnapshotError::NoPicture => Problem::conflict(format!(
                "{server} has no picture of {what}: it does not film it at the moment"
            )),
            error => {
                tracing::error!(%error, what, "a picture could not be kept or given out");
                Problem::unavailable(format!("{server}, {what}: {error}"))
            }
        }
    }
}
