//! A small fleet for scenario tests: the demo's rig with few, light cameras, and words for what tests wait for.

pub mod collector;
pub mod command_line;
pub mod mirror;
pub mod network;
pub mod wrong_clock;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;
use tempfile::TempDir;
use understudy_contract::listen::Listener;
use understudy_core::{
    contract::{
        api::{FailoverView, Phase, ServerState, ServerView},
        heartbeat::{CameraFault, CameraStatus},
    },
    policy::Policy,
    server::Mode,
};
use understudy_demo::{
    frames,
    rig::{Plan, Rig, ServerPlan, eventually},
};

/// Far longer than anything takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// The executable under test: `UNDERSTUDY_BIN`, or the one that was built beside this test.
///
/// # Panics
/// If there is none: it is built by `cargo build`.
#[must_use]
pub fn executable() -> PathBuf {
    if let Some(path) = std::env::var_os("UNDERSTUDY_BIN") {
        return PathBuf::from(path);
    }
    let test = std::env::current_exe().expect("a test knows where it lies");
    test.ancestors()
        .map(|folder| folder.join("understudy"))
        .find(|path| path.is_file())
        .expect("no `understudy` executable beside the tests: run `cargo build` first, or set UNDERSTUDY_BIN")
}

/// A fleet and its folder, which goes with it.
#[derive(Debug)]
pub struct Fleet {
    /// The processes.
    pub rig: Rig,
    /// For how long nobody may have filmed at a time, as the test measured it.
    pub unfilmed: Duration,
    /// Every event, held against `docs/events/asyncapi.yaml`: one that is not as described there fails the test.
    pub events: Listener,
    _folder: TempDir,
}

/// What a scenario's fleet looks like, unless it says otherwise: four cameras, one recording server with room
/// for ten, two failover servers with room for ten and twenty.
#[must_use]
pub fn plan() -> Plan {
    let flags = [
        "--fps",
        "15",
        "--gop",
        "15",
        "--width",
        "320",
        "--height",
        "240",
        "--bitrate",
        "400",
    ];
    Plan {
        executable: executable(),
        folder: PathBuf::new(),
        cameras: 4,
        enroll_cameras: true,
        simulator: flags.map(str::to_owned).to_vec(),
        servers: vec![
            ServerPlan::recording("recorder-1", "North gate", 10),
            ServerPlan::failover("failover-1", "Stand-in one", 10),
            ServerPlan::failover("failover-2", "Stand-in two", 20),
        ],
        beat: Duration::from_millis(200),
        segment: Duration::from_secs(4),
        policy: Policy {
            automatic: true,
            disconnection_ms: 1000,
            ..Policy::default()
        },
        extra_configuration: String::new(),
        host_address: None,
    }
}

/// A folder for a fleet.
///
/// # Errors
/// If it can't be made.
pub fn folder() -> std::io::Result<TempDir> {
    tempfile::Builder::new().prefix("understudy-scenario-").tempdir()
}

impl Fleet {
    /// Starts a fleet in a folder of its own.
    ///
    /// # Errors
    /// If a part of it does not start.
    pub async fn start(plan: Plan) -> anyhow::Result<Self> {
        Self::start_in(folder()?, plan).await
    }

    /// As [`Fleet::start`], in a folder that was prepared.
    ///
    /// # Errors
    /// As [`Fleet::start`].
    pub async fn start_in(folder: TempDir, plan: Plan) -> anyhow::Result<Self> {
        let plan = Plan {
            folder: folder.path().to_owned(),
            ..plan
        };
        Self::launch(Rig::describe(plan).await?, folder).await
    }

    async fn launch(rig: Rig, folder: TempDir) -> anyhow::Result<Self> {
        let mut fleet = Self::of(rig, folder)?;
        fleet.rig.launch().await?;
        fleet.rig.enroll().await?;
        Ok(fleet)
    }

    /// A fleet that is started in another way.
    ///
    /// # Errors
    /// If its events can't be heard.
    pub fn of(rig: Rig, folder: TempDir) -> anyhow::Result<Self> {
        Ok(Self {
            events: Listener::start(&rig.broker.url())?,
            rig,
            unfilmed: Duration::ZERO,
            _folder: folder,
        })
    }

    /// As [`Fleet::start`], and waits until every camera films on `recorder-1` and it is protected.
    ///
    /// # Errors
    /// If it does not come to that.
    pub async fn filming(plan: Plan) -> anyhow::Result<Self> {
        Self::filming_in(folder()?, plan).await
    }

    /// As [`Fleet::filming`], in a folder that was prepared.
    ///
    /// # Errors
    /// As [`Fleet::filming`].
    pub async fn filming_in(folder: TempDir, plan: Plan) -> anyhow::Result<Self> {
        Self::start_in(folder, plan).await?.all_film().await
    }

    /// As [`Fleet::filming`], of a rig in `folder` that is described and not started.
    ///
    /// # Errors
    /// As [`Fleet::filming`].
    pub async fn filming_as(rig: Rig, folder: TempDir) -> anyhow::Result<Self> {
        Self::launch(rig, folder).await?.all_film().await
    }

    async fn all_film(self) -> anyhow::Result<Self> {
        let cameras = u32::try_from(self.rig.plan.cameras)?;
        self.films("recorder-1", cameras).await?;
        self.server("recorder-1", "to be protected", |view| view.protected)
            .await
            .context("the failover servers don't stand by")?;
        Ok(self)
    }

    /// Waits until `server` is as `wanted` says.
    ///
    /// # Errors
    /// With how it is instead.
    pub async fn server(
        &self,
        server: &str,
        what: &str,
        wanted: impl Fn(&ServerView) -> bool,
    ) -> anyhow::Result<ServerView> {
        let what = format!("{server} {what}");
        Ok(eventually(&what, PATIENCE, async || {
            let view = self
                .rig
                .api
                .server(server)
                .await
                .map_err(|error| error.to_string())?;
            if wanted(&view) {
                Ok(view)
            } else {
                Err(format!("{view:?}"))
            }
        })
        .await?)
    }

    /// Waits until exactly `cameras` cameras film on `server`.
    ///
    /// # Errors
    /// With how it is instead.
    pub async fn films(&self, server: &str, cameras: u32) -> anyhow::Result<ServerView> {
        self.server(server, &format!("to film {cameras} cameras"), |view| {
            view.filming == cameras
        })
        .await
    }

    /// Waits until a recording server that was started again has been told what it is to do.
    ///
    /// # Errors
    /// With how it is instead.
    pub async fn is_back(&self, server: &str) -> anyhow::Result<ServerView> {
        self.server(server, "to be on standby", |view| view.reached == view.assigned)
            .await
    }

    /// Waits until a failover server stands by.
    ///
    /// # Errors
    /// With how it is instead.
    pub async fn stands_by(&self, server: &str) -> anyhow::Result<ServerView> {
        self.server(server, "to stand by", |view| view.state == ServerState::Standby)
            .await
    }

    /// Waits until the newest failover of `server` is as `wanted` says.
    ///
    /// # Errors
    /// With how it is instead.
    pub async fn failover(
        &self,
        server: &str,
        what: &str,
        wanted: impl Fn(&FailoverView) -> bool,
    ) -> anyhow::Result<FailoverView> {
        let what = format!("the failover of {server} {what}");
        Ok(eventually(&what, PATIENCE, async || {
            let all = self
                .rig
                .api
                .failovers()
                .await
                .map_err(|error| error.to_string())?;
            let newest = all.into_iter().find(|view| view.server.as_str() == server);
            match newest {
                Some(view) if wanted(&view) => Ok(view),
                other => Err(format!("{other:?}")),
            }
        })
        .await?)
    }

    /// Waits until the failovers of these servers, whose processes have been started again, are over, with nothing
    /// damaged, each films `cameras` cameras itself, and every failover server stands by.
    ///
    /// # Errors
    /// With how it is instead.
    pub async fn whole_again(&self, servers: &[&str], cameras: u32) -> anyhow::Result<()> {
        for server in servers {
            let ended = self.phase(server, Phase::Completed).await?;
            anyhow::ensure!(ended.damaged.is_empty(), "{:?}", ended.damaged);
            self.films(server, cameras).await?;
        }
        for server in self
            .rig
            .plan
            .servers
            .iter()
            .filter(|server| server.mode == Mode::Failover)
        {
            self.stands_by(&server.id).await?;
        }
        Ok(())
    }

    /// Waits until the newest failover of `server` is in `phase`.
    ///
    /// # Errors
    /// With how it is instead.
    pub async fn phase(&self, server: &str, phase: Phase) -> anyhow::Result<FailoverView> {
        self.failover(server, &format!("to be in {phase:?}"), |view| view.phase == phase)
            .await
    }

    /// Waits until `camera` is lost for the reason `fault`.
    ///
    /// # Errors
    /// With how it is instead.
    pub async fn lost(&self, camera: &str, fault: CameraFault) -> anyhow::Result<String> {
        Ok(
            eventually(&format!("{camera} to be lost: {fault:?}"), PATIENCE, async || {
                let cameras = self.rig.api.cameras().await.map_err(|error| error.to_string())?;
                let status = cameras.into_iter().find(|view| view.camera.id.as_str() == camera);
                match status.and_then(|view| view.status) {
                    Some(CameraStatus::Lost { fault: seen, detail }) if seen == fault => Ok(detail),
                    other => Err(format!("{other:?}")),
                }
            })
            .await?,
        )
    }

    /// Waits until at least `count` closed segments' worth of files lie in `server`'s archive.
    ///
    /// # Errors
    /// With how many there are instead.
    pub async fn files(&mut self, server: &str, count: usize) -> anyhow::Result<Vec<PathBuf>> {
        let archive = self.rig.server(server).archive();
        Ok(eventually(
            &format!("{count} files in {server}'s archive"),
            PATIENCE,
            async || {
                let files = files(&archive)?;
                if files.len() >= count {
                    Ok(files)
                } else {
                    Err(format!("{} files", files.len()))
                }
            },
        )
        .await?)
    }

    /// The frame numbers in `server`'s archive, by camera.
    ///
    /// # Errors
    /// If a file can't be read.
    pub fn recorded(&mut self, server: &str) -> anyhow::Result<frames::Recorded> {
        Ok(frames::recorded(&self.rig.server(server).archive())?)
    }
}

fn files(archive: &Path) -> Result<Vec<PathBuf>, String> {
    let files = frames::files(archive).map_err(|error| error.to_string())?;
    Ok(files.into_iter().map(|(_, path)| path).collect())
}

/// Of each camera no more is missing than `takeovers` gaps, none longer than nobody filmed (`unfilmed`), with a fragment
/// that was not written and a GOP until the next key frame, at the 15 frames a second and 15 a GOP of [`plan`].
///
/// # Panics
/// If more is.
pub fn assert_only_takeovers_missing(recorded: &frames::Recorded, takeovers: usize, unfilmed: Duration) {
    let longest = ((unfilmed.as_secs_f64() + 1.25) * 15.0).ceil();
    for (camera, numbers) in recorded {
        let gaps = gaps(numbers);
        let missing = gaps.iter().map(|gap| gap.end - gap.start).max().unwrap_or(0);
        assert!(
            gaps.len() <= takeovers && (missing as f64) <= longest,
            "of {camera} {gaps:?} are missing: more than {takeovers} gap(s) of {longest} frames"
        );
    }
}

/// The ranges of numbers that are missing between the first and the last of `numbers`.
#[must_use]
pub fn gaps(numbers: &std::collections::BTreeSet<u64>) -> Vec<std::ops::Range<u64>> {
    numbers
        .iter()
        .zip(numbers.iter().skip(1))
        .filter(|(earlier, later)| **later != **earlier + 1)
        .map(|(earlier, later)| earlier + 1..*later)
        .collect()
}
