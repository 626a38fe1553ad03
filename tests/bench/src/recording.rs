//! CPU and memory per recorded camera, beside `ffmpeg -c copy -f segment` on the same cameras in the same run.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::Context;
use tokio::time::sleep;
use understudy_demo::rig::{CAMERA_PASSWORD, CAMERA_USER, Plan, Rig, camera_name, eventually};

use crate::usage::{cpu_seconds, resident_mib};

/// Ours and ffmpeg take turns this often, so that a slow spell of the machine meets both.
const ROUNDS: usize = 3;
/// How long each turn is measured.
const TURN: Duration = Duration::from_secs(10);
/// Until the processes that were just started run evenly.
const SETTLE: Duration = Duration::from_secs(3);

/// What was measured.
#[derive(Debug)]
pub(crate) struct Recording {
    /// CPU per camera, in per cent of one core.
    pub(crate) cpu_percent: f64,
    /// The same of ffmpeg.
    pub(crate) cpu_percent_ffmpeg: f64,
    /// Memory per camera above the base, in MiB.
    pub(crate) rss_mib_per_camera: f64,
    /// Memory of the recording service without cameras, in MiB.
    pub(crate) rss_mib_base: f64,
}

/// Measures with `cameras` cameras on one recording server.
pub(crate) async fn measure(plan: Plan) -> anyhow::Result<Recording> {
    let (cameras, folder) = (plan.cameras, plan.folder.clone());
    let mut rig = Rig::start(Plan {
        enroll_cameras: false,
        ..plan
    })
    .await?;
    sleep(SETTLE).await;
    let pid = rig
        .server("recorder-1")
        .ingest
        .pid()
        .context("ingest does not run")?;
    let rss_mib_base = resident_mib(pid)?;
    let wanted = u32::try_from(cameras)?;
    rig.api
        .add_cameras(&rig.cameras("recorder-1", 0..cameras)?)
        .await?;
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
    sleep(SETTLE).await;

    let (mut ours, mut theirs) = (0.0, 0.0);
    for round in 0..ROUNDS {
        ours += spent(&[pid], TURN).await?;
        let ffmpegs = Ffmpegs::start(&rig, cameras, &folder.join(format!("ffmpeg-{round}")))?;
        sleep(SETTLE).await;
        theirs += spent(&ffmpegs.pids(), TURN).await?;
    }
    let rss_mib = resident_mib(pid)?;
    rig.stop().await;
    let turns = ROUNDS as f64 * TURN.as_secs_f64() * cameras as f64;
    Ok(Recording {
        cpu_percent: 100.0 * ours / turns,
        cpu_percent_ffmpeg: 100.0 * theirs / turns,
        rss_mib_per_camera: (rss_mib - rss_mib_base) / cameras as f64,
        rss_mib_base,
    })
}

async fn spent(pids: &[i32], during: Duration) -> anyhow::Result<f64> {
    let total = || {
        pids.iter()
            .map(|pid| cpu_seconds(*pid))
            .sum::<anyhow::Result<f64>>()
    };
    let before = total()?;
    sleep(during).await;
    Ok(total()? - before)
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
