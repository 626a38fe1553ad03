//! The main job, told once: cameras are recorded, the server is killed, a failover server takes over, the
//! server comes back, the recordings are handed back and verified, and a report is made of it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::time::sleep;
use understudy_core::{
    assignment::{Assignment, Role},
    contract::{api::CameraEdit, event::Event},
    policy::Policy,
    server::Mode,
};

use crate::{
    DemoError,
    display::Display,
    frames,
    keep::Keeper,
    listener::{Facts, Heard, Listener, now_us},
    measure::{Figures, Seen, figures, rounded},
    report::{Licenses, Report},
    rig::{Plan, Rig, ServerPlan, camera_name, eventually},
    volume::Volume,
};

/// The recording server of the story.
pub const ORIGINAL: &str = "recorder-1";
/// What its cameras send: frames a second.
pub const FPS: u32 = 15;
/// Frames between key frames: one second.
pub const GOP: u32 = 15;
/// Kilobits a second of one camera.
pub const KILOBITS: u32 = 2000;
/// Length of a fragment of a recording: what a kill may cost.
const FRAGMENT_SECONDS: f64 = 0.25;
/// A volume that breaks takes with it what was not made durable yet: as much as a power cut does.
const UNSYNCED_SECONDS: f64 = 2.0;
/// A second at full rate of one camera, with room for a whole demo of them: the size of a volume.
const VOLUME_BYTES_PER_CAMERA: u64 = 64 << 20;
/// How long the fleet films before the fault, between takeover and return, and after failback.
const FILM: Duration = Duration::from_secs(8);
/// Far longer than anything here takes on a slow machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// How the recording server is taken away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Failure {
    /// Its processes are killed with SIGKILL; it is noticed by its silence.
    #[default]
    Kill,
    /// A person starts the failover.
    Manual,
    /// A person drains it for maintenance: neither server stops before the other films all cameras.
    Planned,
    /// Its recording volume breaks: the kernel makes it read-only. Takes root, since it really does.
    Storage,
    /// Its lines to the host are cut, while it runs on and goes on filming.
    Partition,
}

impl Failure {
    /// As it is called in the report and on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Manual => "manual",
            Self::Planned => "planned",
            Self::Storage => "storage",
            Self::Partition => "partition",
        }
    }

    /// For how long what was filmed may be missing that was written already, in seconds.
    fn unwritten_seconds(self) -> f64 {
        match self {
            Self::Kill | Self::Manual | Self::Planned | Self::Partition => FRAGMENT_SECONDS,
            Self::Storage => UNSYNCED_SECONDS,
        }
    }
}

/// What is to be shown.
#[derive(Clone, Debug)]
pub struct Options {
    /// The `understudy` executable.
    pub executable: PathBuf,
    /// How many cameras.
    pub cameras: usize,
    /// How the recording server is taken away.
    pub failure: Failure,
    /// Leave the folder with logs and recordings.
    pub keep: bool,
    /// More arguments for the simulator.
    pub simulator: Vec<String>,
}

/// Tells the story in a temporary folder (below `TMPDIR`), and takes everything away again.
///
/// # Errors
/// [`DemoError`] if something did not work at all. What was promised and did not hold stands in the report.
pub async fn tell(options: &Options, display: &Display) -> Result<Report, DemoError> {
    let mut folder = tempfile::Builder::new()
        .prefix("understudy-demo-")
        .tempdir()
        .map_err(DemoError::io(
            "can't create a temporary folder; set TMPDIR to one that is writable",
        ))?;
    let stays = || display.say(format!("logs and recordings stay in {}", folder.path().display()));
    if options.keep {
        stays();
    }
    display.say(
        "starting RabbitMQ, the host's services, one recording server, two failover servers and the cameras",
    );
    let told = tell_in(folder.path(), options, display).await;
    // What went wrong stands in the logs.
    let failed = told
        .as_ref()
        .is_err_and(|error| !matches!(error, DemoError::Lacking(_)));
    if failed && !options.keep {
        stays();
    }
    folder.disable_cleanup(options.keep || failed);
    told
}

async fn tell_in(folder: &Path, options: &Options, display: &Display) -> Result<Report, DemoError> {
    let volume = volume(options, folder)?;
    let rig = Rig::start(plan(options, folder)).await?;
    let told = Told {
        rig,
        display,
        options,
        volume,
    };
    told.tell().await
}

/// The recording server's volume, if it is to break.
fn volume(options: &Options, folder: &Path) -> Result<Option<Volume>, DemoError> {
    if options.failure != Failure::Storage {
        return Ok(None);
    }
    let archive = folder.join(ORIGINAL).join("data/archive");
    let bytes = (options.cameras as u64 * VOLUME_BYTES_PER_CAMERA) + (2 << 30);
    Volume::mounted_at(&archive, &folder.join("volume.img"), bytes)
        .map(Some)
        .map_err(|why| {
            DemoError::Lacking(format!(
                "--failure storage makes a volume of its own and breaks it, which takes root (a loop device, \
                 mkfs.ext4, mount, and the kernel's ext4 with trigger_fs_error): {why}"
            ))
        })
}

fn plan(options: &Options, folder: &Path) -> Plan {
    let cameras = u32::try_from(options.cameras).unwrap_or(u32::MAX);
    let numbers = [
        ("--codec", "h264".to_owned()),
        ("--fps", FPS.to_string()),
        ("--gop", GOP.to_string()),
        ("--bitrate", KILOBITS.to_string()),
    ];
    let mut simulator: Vec<String> = numbers
        .into_iter()
        .flat_map(|(flag, value)| [flag.to_owned(), value])
        .collect();
    simulator.extend(options.simulator.iter().cloned());
    let original = ServerPlan::recording(ORIGINAL, "Recording server 1", cameras.max(100));
    Plan {
        executable: options.executable.clone(),
        folder: folder.to_owned(),
        cameras: options.cameras,
        enroll_cameras: true,
        simulator,
        servers: vec![
            match options.failure {
                Failure::Partition => original.with_lines(),
                Failure::Kill | Failure::Manual | Failure::Planned | Failure::Storage => original,
            },
            ServerPlan::failover("failover-1", "Failover server 1", cameras.max(100)),
            ServerPlan::failover("failover-2", "Failover server 2", cameras.max(100) * 2),
        ],
        beat: Duration::from_millis(200),
        segment: Duration::from_secs(10),
        policy: Policy {
            automatic: true,
            disconnection_ms: 1000,
            on_storage: options.failure == Failure::Storage,
            stop_automatically: true,
            ..Policy::default()
        },
        extra_configuration: String::new(),
        host_address: None,
    }
}

/// The settings by which a server is to film, by the assignment beside its `archive`.
fn films_by(archive: &Path) -> Result<Option<String>, DemoError> {
    let file = archive.with_file_name("assignment.json");
    let what = || format!("{} is not an assignment", file.display());
    let text = std::fs::read(&file).map_err(|source| DemoError::Io { what: what(), source })?;
    let assignment: Assignment = serde_json::from_slice(&text).map_err(|error| DemoError::Io {
        what: what(),
        source: error.into(),
    })?;
    Ok(match assignment.role {
        Role::Films(films) => Some(films.settings.0),
        Role::Standby | Role::Erases { .. } | Role::HandsBack { .. } => None,
    })
}

struct Told<'a> {
    rig: Rig,
    display: &'a Display,
    options: &'a Options,
    /// What is broken. It goes after the servers that use it.
    volume: Option<Volume>,
}

/// The settings of a recording server: cameras and failover settings as the API gives them, and the hash of those that
/// it films by, as its own disk has it.
type Settings = (Vec<serde_json::Value>, serde_json::Value, Option<String>);

/// Where everything that a failover server recorded is kept, from before it erases it.
async fn kept_of(server: &str, keepers: Vec<(String, Keeper)>) -> Result<PathBuf, DemoError> {
    let mut kept = BTreeMap::new();
    for (whose, keeper) in keepers {
        kept.insert(whose, keeper.stop().await?);
    }
    kept.remove(server)
        .ok_or_else(|| DemoError::Account(format!("{server} took over, and is none of the failover servers")))
}

impl Told<'_> {
    async fn tell(mut self) -> Result<Report, DemoError> {
        let listener = Listener::start(&self.rig.broker.url()).await?;
        let mut facts = listener.facts();
        self.all_film(ORIGINAL).await?;
        self.protected().await?;
        self.display.say(format!(
            "{} cameras are recorded on {ORIGINAL}",
            self.options.cameras
        ));
        facts.so_far(|heard| self.tell_of(heard));
        self.film("before the fault").await;
        facts.so_far(|heard| self.tell_of(heard));
        let settings = self.settings().await?;
        let mut licenses = Licenses {
            before: self.devices().await?,
            ..Licenses::default()
        };
        let keepers = self.keepers();

        let (killed_at_us, started) = self.fail(&mut facts).await?;
        let stand_in = self.serving(&mut facts).await?;
        licenses.during = self.devices_at(&stand_in).await?;
        self.change_settings(&stand_in).await?;
        self.film("on the failover server").await;

        self.come_back().await?;
        let (restoring, completed) = self.restored(&mut facts).await?;
        licenses.after = self.devices_at(ORIGINAL).await?;
        self.erased(&stand_in).await?;
        self.all_film(ORIGINAL).await?;
        self.film("after failback").await;

        self.display
            .say("counting: every file is read again and hashed again");
        let settings_restored = self.settings().await? == settings;
        let sent = self.rig.simulator.account().await?;
        let kept = kept_of(&stand_in, keepers).await?;
        let stopped_gently = self.stop_servers().await;
        let archive = self.rig.server(ORIGINAL).archive();
        let (stand_in_frames, archive_frames) = (frames::recorded(&kept)?, frames::recorded(&archive)?);
        let figures = figures(&Seen {
            killed_at_us,
            decided_at_us: started,
            completed_at_us: completed.at_us,
            sent: &sent,
            stand_in: &stand_in_frames,
            archive: &archive_frames,
            fps: f64::from(FPS),
            fragment_seconds: self.options.failure.unwritten_seconds(),
            gop_seconds: f64::from(GOP) / f64::from(FPS),
        });
        let hashes = compare(&kept, &archive)?;
        let mut report = self.report(figures, &hashes, licenses, settings_restored);
        report.overlap_seconds = rounded(overlap(&kept, &archive, &stand_in_frames)? / f64::from(FPS));
        report.failback_seconds = seconds(completed.at_us - restoring.at_us);
        if !stopped_gently {
            report.figures.broken.push(format!(
                "{ORIGINAL} had to be killed at the end: it did not stop by itself"
            ));
        }
        check(&mut report, &stand_in);
        listener.stop().await;
        self.rig.stop().await;
        Ok(report)
    }

    /// Takes the recording server away. Returns when it was killed and when the failover was decided.
    async fn fail(&mut self, facts: &mut Facts) -> Result<(Option<i64>, i64), DemoError> {
        let at = now_us();
        let killed_at_us = match self.options.failure {
            Failure::Kill => {
                self.rig.server(ORIGINAL).kill();
                self.display
                    .say(format!("kill -9 of every process of {ORIGINAL}"));
                Some(at)
            }
            Failure::Storage => {
                if let Some(volume) = &self.volume {
                    volume.breaks().map_err(DemoError::Lacking)?;
                }
                self.display.say(format!(
                    "the recording volume of {ORIGINAL} is read-only from now on"
                ));
                Some(at)
            }
            Failure::Partition => {
                self.rig.server(ORIGINAL).cut();
                self.display.say(format!(
                    "the lines from {ORIGINAL} to the host are cut; it films on"
                ));
                Some(at)
            }
            Failure::Manual | Failure::Planned => None,
        };
        let asked_at = now_us();
        match self.options.failure {
            Failure::Manual => {
                self.display
                    .say(format!("a person starts the failover of {ORIGINAL}"));
                self.rig.api.start_failover(ORIGINAL).await?;
            }
            Failure::Planned => {
                self.display
                    .say(format!("a person drains {ORIGINAL} for maintenance"));
                self.rig.api.drain(ORIGINAL, None).await?;
            }
            Failure::Kill | Failure::Storage | Failure::Partition => {}
        }
        let started = self.hear(facts, "failover.started").await?;
        if let Event::FailoverStarted { stand_in, reason, .. } = &started.fact.event {
            self.display
                .say(format!("{stand_in} takes over: {}", reason.summary));
        }
        Ok((
            killed_at_us,
            if killed_at_us.is_some() {
                started.at_us
            } else {
                asked_at
            },
        ))
    }

    /// Waits until the failover server serves. Returns which it is.
    async fn serving(&self, facts: &mut Facts) -> Result<String, DemoError> {
        let heard = self.hear(facts, "failover.serving").await?;
        let Event::FailoverServing {
            stand_in,
            filming,
            lost,
            ..
        } = &heard.fact.event
        else {
            return Err(DemoError::Account(
                "failover.serving has another shape".to_owned(),
            ));
        };
        self.display.say(format!(
            "{stand_in} films {filming} cameras, {} are lost",
            lost.len()
        ));
        if self.options.failure == Failure::Planned {
            self.films(ORIGINAL, 0).await?;
            self.display
                .say(format!("{ORIGINAL} stands by: its machine may be serviced"));
        }
        Ok(stand_in.to_string())
    }

    async fn come_back(&mut self) -> Result<(), DemoError> {
        match self.options.failure {
            Failure::Kill => {
                self.display.say(format!("{ORIGINAL} is started again"));
                self.rig.server(ORIGINAL).start()
            }
            Failure::Storage => {
                // The cameras are filmed elsewhere, and a volume that is in use can't be checked.
                self.rig.server(ORIGINAL).stop().await;
                if let Some(volume) = &self.volume {
                    volume.repair().map_err(DemoError::Lacking)?;
                }
                self.display
                    .say(format!("the volume is repaired, and {ORIGINAL} is started again"));
                self.rig.server(ORIGINAL).start()
            }
            Failure::Partition => {
                self.display
                    .say(format!("the lines from {ORIGINAL} to the host carry again"));
                self.rig.server(ORIGINAL).mend();
                Ok(())
            }
            Failure::Manual | Failure::Planned => {
                self.display.say("the person ends the failover");
                self.rig.api.stop_failover(ORIGINAL).await.map(|_| ())
            }
        }
    }

    async fn restored(&self, facts: &mut Facts) -> Result<(Heard, Heard), DemoError> {
        let restoring = self.hear(facts, "failover.restoring").await?;
        self.display.say(format!(
            "{ORIGINAL} films again, and fetches what was recorded meanwhile"
        ));
        let completed = self.hear(facts, "failover.completed").await?;
        if let Event::FailoverCompleted {
            progress, damaged, ..
        } = &completed.fact.event
        {
            self.display.say(format!(
                "failback is complete: {} segments, {:.1} MB, {} damaged",
                progress.segments_done,
                progress.bytes_done as f64 / 1e6,
                damaged.len()
            ));
        }
        Ok((restoring, completed))
    }

    /// What else happens.
    fn tell_of(&self, heard: &Heard) {
        match &heard.fact.event {
            Event::FailoverProgress { progress, .. } => self.display.status(format!(
                "failback: {} of {} segments, {:.1} MB/s",
                progress.segments_done,
                progress.segments_total,
                progress.bytes_per_second as f64 / 1e6
            )),
            event => self
                .display
                .say(format!("· {} {}", event.name(), event.subject())),
        }
    }

    async fn hear(&self, facts: &mut Facts, name: &str) -> Result<Heard, DemoError> {
        let others = |heard: &Heard| self.tell_of(heard);
        facts
            .next(name, PATIENCE, |event| event.name() == name, others)
            .await
    }

    /// Waits until every camera films on `server`.
    async fn all_film(&self, server: &str) -> Result<(), DemoError> {
        let all = u32::try_from(self.options.cameras).unwrap_or(u32::MAX);
        self.films(server, all).await
    }

    /// Waits until as many cameras as `wanted` film on `server`.
    async fn films(&self, server: &str, wanted: u32) -> Result<(), DemoError> {
        eventually(
            &format!("{wanted} cameras to film on {server}"),
            PATIENCE,
            async || {
                let view = self
                    .rig
                    .api
                    .server(server)
                    .await
                    .map_err(|error| error.to_string())?;
                self.display
                    .status(format!("{} of {} cameras film on {server}", view.filming, wanted));
                if view.filming == wanted {
                    Ok(())
                } else {
                    Err(format!("{} film", view.filming))
                }
            },
        )
        .await
    }

    async fn protected(&self) -> Result<(), DemoError> {
        eventually(&format!("{ORIGINAL} to be protected"), PATIENCE, async || {
            let view = self
                .rig
                .api
                .server(ORIGINAL)
                .await
                .map_err(|error| error.to_string())?;
            if view.protected {
                Ok(())
            } else {
                Err("no failover server is free".to_owned())
            }
        })
        .await
    }

    /// Waits until the failover server has erased its copies.
    async fn erased(&mut self, stand_in: &str) -> Result<(), DemoError> {
        let archive = self.rig.server(stand_in).archive();
        eventually(&format!("{stand_in} to erase its copies"), PATIENCE, async || {
            let left = frames::files(&archive).map_err(|error| error.to_string())?.len();
            if left == 0 {
                Ok(())
            } else {
                Err(format!("{left} files are left"))
            }
        })
        .await?;
        self.display
            .say(format!("{stand_in} has erased its copies, and stands by again"));
        Ok(())
    }

    /// Stops the failover servers, and then the recording server, for which nobody is to stand in any more.
    /// Returns whether it ended by itself.
    async fn stop_servers(&mut self) -> bool {
        for server in &mut self.rig.servers {
            if server.plan.mode == Mode::Failover {
                server.stop().await;
            }
        }
        self.rig.server(ORIGINAL).stop().await
    }

    async fn film(&self, when: &str) {
        self.display.status(format!("filming {when}"));
        sleep(FILM).await;
    }

    /// What people change meanwhile holds until the failover's end: else there would be nothing to restore.
    async fn change_settings(&mut self, stand_in: &str) -> Result<(), DemoError> {
        let before = self.films_by(stand_in)?;
        let edit = CameraEdit {
            name: Some("Renamed during the failover".to_owned()),
            ..CameraEdit::default()
        };
        self.rig.api.edit_camera(&camera_name(0), &edit).await?;
        self.display.say(format!(
            "a person renames a camera, for as long as {stand_in} stands in"
        ));
        let files = self.rig.server(stand_in).archive();
        eventually(
            "the change to reach the failover server",
            PATIENCE,
            async || match films_by(&files) {
                Ok(now) if now != before => Ok(()),
                Ok(now) => Err(format!("it films by {now:?}")),
                Err(error) => Err(error.to_string()),
            },
        )
        .await
    }

    fn films_by(&mut self, server: &str) -> Result<Option<String>, DemoError> {
        films_by(&self.rig.server(server).archive())
    }

    async fn settings(&mut self) -> Result<Settings, DemoError> {
        let cameras: Vec<serde_json::Value> = self
            .rig
            .api
            .cameras()
            .await?
            .into_iter()
            .filter_map(|view| serde_json::to_value(view.camera).ok())
            .collect();
        let protection = self
            .rig
            .api
            .get(&format!("servers/{ORIGINAL}/failover-policy"))
            .await?;
        Ok((cameras, protection, self.films_by(ORIGINAL)?))
    }

    async fn devices(&self) -> Result<BTreeMap<String, u32>, DemoError> {
        let licenses = self.rig.api.licenses().await?;
        let mut devices: BTreeMap<String, u32> = self
            .rig
            .servers
            .iter()
            .map(|server| (server.plan.id.clone(), 0))
            .collect();
        for (server, count) in licenses.devices {
            devices.insert(server.to_string(), count);
        }
        Ok(devices)
    }

    /// The licences, once `server` holds them.
    async fn devices_at(&self, server: &str) -> Result<BTreeMap<String, u32>, DemoError> {
        eventually(&format!("{server} to hold the licences"), PATIENCE, async || {
            let devices = self.devices().await.map_err(|error| error.to_string())?;
            if devices.get(server).is_some_and(|count| *count > 0) {
                Ok(devices)
            } else {
                Err(format!("{devices:?}"))
            }
        })
        .await
    }

    fn keepers(&self) -> Vec<(String, Keeper)> {
        let kept = self.rig.plan.folder.join("kept");
        self.rig
            .servers
            .iter()
            .filter(|server| server.plan.mode == Mode::Failover)
            .map(|server| {
                let keeper = Keeper::start(&server.archive(), &kept.join(&server.plan.id));
                (server.plan.id.clone(), keeper)
            })
            .collect()
    }

    fn report(&self, figures: Figures, hashes: &Hashes, licenses: Licenses, settings: bool) -> Report {
        Report {
            cameras: self.options.cameras,
            failure: self.options.failure.name().to_owned(),
            key_frame_on_connect: self
                .options
                .simulator
                .iter()
                .any(|flag| flag == "--key-frame-on-connect"),
            figures: figures.rounded(),
            overlap_seconds: 0.0,
            failback_seconds: 0.0,
            failback_bytes: hashes.bytes,
            segments_verified: hashes.verified,
            segments_mismatched: hashes.mismatched,
            licenses,
            settings_restored: settings,
        }
    }
}

/// Whether what arrived is what was sent.
#[derive(Debug, Default)]
struct Hashes {
    bytes: u64,
    verified: u64,
    mismatched: u64,
}

fn compare(kept: &Path, archive: &Path) -> Result<Hashes, DemoError> {
    let mut hashes = Hashes::default();
    for (_, path) in frames::files(kept)? {
        let sent = std::fs::read(&path).map_err(DemoError::io(format!("can't read {}", path.display())))?;
        let arrived = path.strip_prefix(kept).ok().map(|below| archive.join(below));
        let arrived = arrived.and_then(|path| std::fs::read(path).ok());
        hashes.bytes += sent.len() as u64;
        if arrived.is_some_and(|arrived| frames::hash(&arrived) == frames::hash(&sent)) {
            hashes.verified += 1;
        } else {
            hashes.mismatched += 1;
        }
    }
    Ok(hashes)
}

/// How many frames both servers have of the camera of which both have the least: those of the stand-in that are
/// also in files of the archive that did not come from it.
#[allow(clippy::cast_precision_loss, reason = "a demo's frames are far below 2^52")]
fn overlap(kept: &Path, archive: &Path, stand_in: &frames::Recorded) -> Result<f64, DemoError> {
    let mut own = frames::Recorded::new();
    for (camera, path) in frames::files(archive)? {
        let came = path
            .strip_prefix(archive)
            .is_ok_and(|below| kept.join(below).exists());
        if !came {
            own.entry(camera).or_default().extend(frames::numbers(&path)?);
        }
    }
    let both = stand_in.iter().map(|(camera, theirs)| {
        own.get(camera)
            .map_or(0, |ours| ours.intersection(theirs).count())
    });
    Ok(both.min().unwrap_or(0) as f64)
}

/// Holds the report against what is promised.
fn check(report: &mut Report, stand_in: &str) {
    let held = |devices: &BTreeMap<String, u32>, server: &str| devices.get(server).copied().unwrap_or(0);
    let promises = [
        (
            report.segments_verified > 0,
            "no segment was handed back".to_owned(),
        ),
        (
            report.segments_mismatched == 0,
            "a segment is not what it was before failback".to_owned(),
        ),
        (
            report.settings_restored,
            "the recording server's settings are not those of before".to_owned(),
        ),
        (
            stand_in == "failover-1",
            format!("{stand_in} took over, which is not the closest match"),
        ),
        (
            held(&report.licenses.during, ORIGINAL) == 0 && held(&report.licenses.during, stand_in) > 0,
            "the licences did not move with the failover".to_owned(),
        ),
        (
            report.licenses.before == report.licenses.after,
            "the licences did not come back".to_owned(),
        ),
    ];
    let both_film = report.both_film().then(|| {
        [
            (
                report.figures.frames_lost == 0,
                "frames were lost, although no server stopped filming before the other films".to_owned(),
            ),
            (
                report.overlap_seconds > 0.0,
                "the two servers' recordings don't overlap".to_owned(),
            ),
        ]
    });
    report.figures.broken.extend(
        promises
            .into_iter()
            .chain(both_film.into_iter().flatten())
            .filter(|(held, _)| !held)
            .map(|(_, what)| what),
    );
}

#[allow(
    clippy::cast_precision_loss,
    reason = "a demo's microseconds are far below 2^52"
)]
fn seconds(microseconds: i64) -> f64 {
    rounded(microseconds as f64 / 1e6)
}
