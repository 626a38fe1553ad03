//! CPU and memory per recorded camera, beside `ffmpeg -c copy -f segment` on the same cameras in the same run.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::Context;
use tokio::time::sleep;
use understudy_core::{camera::RecordingMode, contract::api::CameraEdit};
use understudy_demo::rig::{CAMERA_PASSWORD, CAMERA_USER, Plan, Rig, camera_name, eventually};

use crate::usage::{cpu_seconds, resident_mib};

/// Ours and ffmpeg take turns this often, so that a slow spell of the machine meets both.
const ROUNDS: usize = 2;
/// How long each records: from the start of its processes, and from when they run evenly.
const TURN: Duration = Duration::from_secs(20);
/// Until they run evenly: ffmpeg looks at a stream for five seconds before it records it.
const SETTLE: Duration = Duration::from_secs(10);

/// What was measured. CPU is per camera, in per cent of one core.
#[derive(Debug)]
pub(crate) struct Recording {
    /// Ours, and ffmpeg's.
    pub(crate) ours: Cpu,
    /// See `ours`.
    pub(crate) ffmpeg: Cpu,
    /// Ours with the same sessions and nothing recorded: what is left of it is not the recorder's to save.
    pub(crate) receiving: Cpu,
    /// Memory per camera above the base, in MiB.
    pub(crate) rss_mib_per_camera: f64,
    /// Memory of the recording service without cameras, in MiB.
    pub(crate) rss_mib_base: f64,
}

/// CPU time in relation to the time that was recorded.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cpu {
    /// Everything from the start of the processes.
    pub(crate) whole: f64,
    /// Once they run evenly.
    pub(crate) steady: f64,
}

/// Measures with as many cameras as the plan has on one recording server.
pub(crate) async fn measure(plan: Plan) -> anyhow::Result<Recording> {
    let (cameras, folder) = (plan.cameras, plan.folder.clone());
    let mut rig = Rig::start(Plan {
        enroll_cameras: false,
        ..plan
    })
    .await?;
    sleep(SETTLE).await;
    let rss_mib_base = resident_mib(pid(&mut rig)?)?;
    rig.api
        .add_cameras(&rig.cameras("recorder-1", 0..cameras)?)
        .await?;
    all_film(&rig, cameras).await?;

    let (mut ours, mut ffmpeg) = (Cpu::default(), Cpu::default());
    let mut rss_mib: f64 = 0.0;
    for round in 0..ROUNDS {
        rig.server("recorder-1").ingest.stop().await;
        // It films from its own disk at once, as after a restart of the machine.
        rig.server("recorder-1").ingest.start()?;
        let pid = pid(&mut rig)?;
        ours.add(&[pid], cameras).await?;
        rss_mib = rss_mib.max(resident_mib(pid)?);
        all_film(&rig, cameras).await?;
        rig.server("recorder-1").ingest.stop().await;
        let ffmpegs = Ffmpegs::start(&rig, cameras, &folder.join(format!("ffmpeg-{round}")))?;
        ffmpeg.add(&ffmpegs.pids(), cameras).await?;
        drop(ffmpegs);
        rig.server("recorder-1").ingest.start()?;
        all_film(&rig, cameras).await?;
    }
    let receiving = receive_only(&mut rig, cameras).await?;
    rig.stop().await;
    Ok(Recording {
        ours,
        ffmpeg,
        receiving,
        rss_mib_per_camera: (rss_mib - rss_mib_base) / cameras as f64,
        rss_mib_base,
    })
}

/// The same cameras on the same server, and nothing is recorded: sessions, packets and frames alone.
async fn receive_only(rig: &mut Rig, cameras: usize) -> anyhow::Result<Cpu> {
    for index in 0..cameras {
        let edit = CameraEdit {
            recording: Some(RecordingMode::LiveOnly),
            ..CameraEdit::default()
        };
        rig.api.edit_camera(&camera_name(index), &edit).await?;
    }
    let mut receiving = Cpu::default();
    for _ in 0..ROUNDS {
        rig.server("recorder-1").ingest.stop().await;
        rig.server("recorder-1").ingest.start()?;
        let pid = pid(rig)?;
        receiving.add(&[pid], cameras).await?;
        all_film(rig, cameras).await?;
    }
    Ok(receiving)
}

fn pid(rig: &mut Rig) -> anyhow::Result<i32> {
    rig.server("recorder-1")
        .ingest
        .pid()
        .context("ingest does not run")
}

async fn all_film(rig: &Rig, cameras: usize) -> anyhow::Result<()> {
    let wanted = u32::try_from(cameras)?;
    eventually("all cameras to film", Duration::from_secs(60), async || {
        let view = rig
            .api
            .server("recorder-1")
            .await
            .map_err(|error| error.to_string())?;
        if view.filming == wanted {
            Ok(())
        } else {
            Err(format!("{} film", view.filming))
        }
    })
    .await?;
    Ok(())
}

impl Cpu {
    /// Adds a turn of processes that were started just now.
    async fn add(&mut self, pids: &[i32], cameras: usize) -> anyhow::Result<()> {
        let total = || {
            pids.iter()
                .map(|pid| cpu_seconds(*pid))
                .sum::<anyhow::Result<f64>>()
        };
        sleep(SETTLE).await;
        let settled = total()?;
        sleep(TURN - SETTLE).await;
        let ended = total()?;
        let share = 100.0 / (ROUNDS * cameras) as f64;
        self.whole += ended * share / TURN.as_secs_f64();
        self.steady += (ended - settled) * share / (TURN - SETTLE).as_secs_f64();
        Ok(())
    }
}

/// One ffmpeg per camera, as people record with it; they end when dropped.
struct Ffmpegs(Vec<Child>);

impl Ffmpegs {
    fn start(rig: &Rig, cameras: usize, folder: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let address = rig.simulator.cameras_address();
        let children = (0..cameras)
            .map(|index| {
                let name = camera_name(index);
                let url = format!("rtsp://{CAMERA_USER}:{CAMERA_PASSWORD}@{address}/{name}");
                Command::new("ffmpeg")
                    .args([
                        "-nostdin",
                        "-v",
                        "error",
                        "-rtsp_transport",
                        "tcp",
                        "-i",
                        &url,
                        "-c",
                        "copy",
                    ])
                    .args(["-f", "segment", "-segment_time", "60"])
                    .arg(folder.join(format!("{name}-%03d.mp4")))
                    .stdout(Stdio::null())
                    .stderr(Stdio::null())
                    .spawn()
            })
            .collect::<Result<_, _>>()
            .context("ffmpeg can't be started; `make setup` installs it")?;
        Ok(Self(children))
    }

    fn pids(&self) -> Vec<i32> {
        self.0
            .iter()
            .filter_map(|child| i32::try_from(child.id()).ok())
            .collect()
    }
}

impl Drop for Ffmpegs {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
