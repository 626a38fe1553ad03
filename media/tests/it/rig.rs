//! Cameras that number their frames, a studio that films them, and the count of what is on disk.

use std::{collections::BTreeSet, path::Path, process::Command, time::Duration};

use anyhow::{Context, ensure};
use tempfile::TempDir;
use understudy_core::{
    camera::{Camera, Credentials, RecordingMode, Retention},
    contract::{heartbeat::CameraStatus, segment::Segment},
    ids::{CameraId, FailoverId, ServerId},
    policy::Range,
};
use understudy_media::{
    archive::{Archive, Filter, mp4},
    film::{Film, Studio, StudioConfig},
};
use understudy_simulator::{Simulator, SimulatorConfig, numbering};

/// Generous, since other builds and tests share the machine; nothing waits longer than it has to.
pub(crate) const DEADLINE: Duration = Duration::from_secs(40);

pub(crate) struct Rig {
    pub(crate) simulator: Simulator,
    pub(crate) archive: Archive,
    pub(crate) studio: Studio,
    /// Deleted with the rig.
    folder: TempDir,
}

pub(crate) fn server() -> ServerId {
    ServerId::new("recorder-1").expect("valid")
}

pub(crate) fn camera_id(number: u32) -> CameraId {
    CameraId::new(SimulatorConfig::camera_id(number)).expect("valid")
}

pub(crate) fn failover(id: &str) -> FailoverId {
    FailoverId::new(id).expect("valid")
}

pub(crate) fn quick() -> StudioConfig {
    StudioConfig {
        segment_seconds: 2,
        silence_ms: 1_500,
        connect_ms: 5_000,
    }
}

pub(crate) fn camera(simulator: &Simulator, number: u32) -> Camera {
    let id = camera_id(number);
    Camera {
        url: simulator.url(id.as_str()),
        id,
        name: format!("Camera {number}"),
        server: server(),
        credentials: Some(Credentials {
            username: "admin".to_owned(),
            password: "admin".to_owned(),
        }),
        recording: RecordingMode::Continuous,
        retention: Retention::default(),
        priority: 0,
        max_sessions: None,
        transport: understudy_core::camera::Transport::default(),
        enabled: true,
    }
}

impl Rig {
    pub(crate) async fn start(cameras: SimulatorConfig) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let archive = Archive::open(folder.path(), server())?;
        let studio = Studio::new(archive.clone(), quick()).await?;
        Ok(Self {
            simulator: Simulator::start(cameras).await?,
            archive,
            studio,
            folder,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn cameras(&self, count: u32) -> Vec<Camera> {
        (1..=count)
            .map(|number| camera(&self.simulator, number))
            .collect()
    }

    pub(crate) async fn film(&self, cameras: Vec<Camera>) {
        self.film_for(None, cameras).await;
    }

    pub(crate) async fn film_for(&self, failover: Option<FailoverId>, cameras: Vec<Camera>) {
        self.studio
            .film(Film {
                identity: server(),
                failover,
                range: Range::Full,
                cameras,
            })
            .await;
    }

    pub(crate) fn status(&self, number: u32) -> Option<CameraStatus> {
        self.studio.now().remove(&camera_id(number))
    }

    pub(crate) async fn until_recording(&self, number: u32) -> anyhow::Result<()> {
        until(&format!("camera {number} is recorded"), || {
            self.status(number) == Some(CameraStatus::Recording)
        })
        .await
    }

    pub(crate) async fn segments(&self, number: u32) -> anyhow::Result<Vec<Segment>> {
        let filter = Filter {
            camera: Some(camera_id(number)),
            ..Filter::default()
        };
        Ok(self.archive.segments(filter).await?)
    }

    /// Waits until a camera has so many closed segments.
    pub(crate) async fn until_segments(&self, number: u32, count: usize) -> anyhow::Result<()> {
        let end = tokio::time::Instant::now() + DEADLINE;
        while self.segments(number).await?.len() < count {
            ensure!(
                tokio::time::Instant::now() < end,
                "camera {number} has no {count} segments"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    pub(crate) async fn end(self) {
        self.studio.close().await;
        self.simulator.stop().await;
    }
}

pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) -> anyhow::Result<()> {
    let end = tokio::time::Instant::now() + DEADLINE;
    while !condition() {
        ensure!(tokio::time::Instant::now() < end, "it never came to pass: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

/// The numbers of the frames in a file, in their order; its first frame is a key frame.
pub(crate) fn numbers(file: &Path) -> anyhow::Result<Vec<u64>> {
    let mut samples = mp4::samples(file)?;
    let mut numbers = Vec::new();
    while let Some((sample, bytes)) = samples.next_video()? {
        ensure!(
            sample.key || !numbers.is_empty(),
            "{} does not begin with a key frame",
            file.display()
        );
        let number = numbering::frame_number(&bytes)
            .with_context(|| format!("a frame of {} has no number", file.display()))?;
        numbers.push(number.number);
    }
    Ok(numbers)
}

/// Codecs and frame count, by ffprobe's reading of the whole file.
pub(crate) fn ffprobe(file: &Path) -> anyhow::Result<(BTreeSet<String>, u64)> {
    let output = Command::new("ffprobe")
        .args([
            "-v",
            "error",
            "-count_frames",
            "-show_entries",
            "stream=codec_name,codec_type,nb_read_frames",
        ])
        .args(["-of", "csv=p=0"])
        .arg(file)
        .output()?;
    let text = String::from_utf8(output.stdout)?;
    ensure!(
        output.status.success() && output.stderr.is_empty(),
        "{}: {}",
        file.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    let mut codecs = BTreeSet::new();
    let mut frames = 0;
    for line in text.lines() {
        let fields: Vec<&str> = line.split(',').collect();
        codecs.insert((*fields.first().context("no codec")?).to_owned());
        if fields.contains(&"video") {
            frames = fields.last().context("no count")?.parse()?;
        }
    }
    Ok((codecs, frames))
}
