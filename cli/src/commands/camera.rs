//! `understudy camera`.

use std::{
    io::Read,
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand, ValueEnum};
use reqwest::Method;
use serde_json::Value;
use understudy_core::{
    camera::{Camera, Credentials, RecordingMode, Retention, Transport},
    contract::{
        api::{CameraEdit, CameraView, SnapshotView, SnapshotsView},
        heartbeat::CameraStatus,
    },
    ids::{CameraId, ServerId},
};

use crate::{
    client::{Api, Connection, understood, who},
    failure::Failure,
    output::{or_dash, table, time, word},
};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// All cameras, and who films them
    List {
        /// Only those of this recording server
        #[arg(long)]
        server: Option<ServerId>,
    },
    /// Add a camera, or many from a file; the same again is no error
    Add(AddArgs),
    /// Change a camera; what is left out stays
    Edit {
        /// Which
        camera: CameraId,
        #[command(flatten)]
        settings: Box<Settings>,
        /// Switch it off
        #[arg(long, conflicts_with = "enable")]
        disable: bool,
        /// Switch it on again
        #[arg(long)]
        enable: bool,
        /// During a failover: the new address or password is not the camera's own, and no offer at the end
        #[arg(long)]
        not_in_device: bool,
    },
    /// Keep a picture of what a camera shows now, on the server that films it
    Snapshot {
        /// Which
        camera: CameraId,
        /// Write the picture (JPEG) into this file too
        #[arg(long, value_name = "FILE")]
        save: Option<PathBuf>,
    },
    /// All pictures that were kept of a camera, newest first; or one of them, into a file
    Snapshots {
        /// Which
        camera: CameraId,
        /// One of them, by its name in the list
        #[arg(requires = "save")]
        snapshot: Option<String>,
        /// Write that picture (JPEG) into this file
        #[arg(long, value_name = "FILE", requires = "snapshot")]
        save: Option<PathBuf>,
    },
    /// Remove a camera; what was recorded of it stays until its retention takes it
    Remove {
        /// Which
        camera: CameraId,
    },
}

#[derive(Debug, Args)]
pub(crate) struct AddArgs {
    /// Its id: lower-case letters, digits, hyphens
    #[arg(required_unless_present = "file")]
    camera: Option<CameraId>,
    /// The recording server that owns it
    #[arg(long, required_unless_present = "file")]
    server: Option<ServerId>,
    #[command(flatten)]
    settings: Box<Settings>,
    /// A JSON file with a list of cameras, as the API takes them; - for standard input
    #[arg(long, conflicts_with_all = ["camera", "server", "Settings"])]
    file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Settings {
    /// Its name as people see it; the id without it
    #[arg(long)]
    name: Option<String>,
    /// Its address: rtsp://host/path, without user name and password
    #[arg(long, value_name = "URL")]
    stream: Option<String>,
    /// The user name that it asks for
    #[arg(long, requires = "password_file")]
    user: Option<String>,
    /// A file with the password that it asks for; - for standard input
    #[arg(long, value_name = "FILE", requires = "user")]
    password_file: Option<PathBuf>,
    /// When it is recorded
    #[arg(long)]
    recording: Option<RecordingArg>,
    /// Keep what is at most this old, in days
    #[arg(long, value_name = "DAYS")]
    max_age_days: Option<u32>,
    /// Keep at most this much, in GiB
    #[arg(long, value_name = "GIB")]
    max_gib: Option<u32>,
    /// Which cameras stay when a failover server has not room for all: the highest
    #[arg(long, allow_negative_numbers = true)]
    priority: Option<i32>,
    /// How many RTSP sessions it allows at once; 0: not known, or any number
    #[arg(long, value_name = "COUNT")]
    max_sessions: Option<u32>,
    /// How its packets come: within the RTSP connection, or by UDP for cameras that do nothing else
    #[arg(long)]
    transport: Option<TransportArg>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum RecordingArg {
    Continuous,
    LiveOnly,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum TransportArg {
    Tcp,
    Udp,
}

pub(crate) async fn run(connection: &Connection, command: Command) -> Result<(), Failure> {
    let (api, output) = (connection.client()?, connection.output());
    match command {
        Command::List { server } => {
            let path = server.map_or_else(|| "cameras".into(), |server| format!("cameras?server={server}"));
            output.answer(api.get(&path).await?, |views: Vec<CameraView>| overview(&views))
        }
        Command::Add(AddArgs { file: Some(file), .. }) => {
            let cameras: Value = serde_json::from_str(&text_of(&file)?)
                .map_err(Failure::while_doing(format!("{}", file.display())))?;
            output.answer(
                api.send(Method::POST, "cameras", &cameras).await?,
                |views: OneOrMany| format!("{} cameras are enrolled", views.count()),
            )
        }
        Command::Add(arguments) => {
            let camera = arguments.camera()?;
            output.answer(
                api.send(Method::POST, "cameras", &camera).await?,
                |view: CameraView| format!("{} is enrolled as {}", view.camera.name, view.camera.id),
            )
        }
        Command::Edit {
            camera,
            settings,
            disable,
            enable,
            not_in_device,
        } => {
            let enabled = (disable || enable).then_some(enable);
            let edit = CameraEdit {
                in_device: not_in_device.then_some(false),
                ..settings.edit(enabled)?
            };
            let answer = api
                .send(Method::PATCH, &format!("cameras/{camera}"), &edit)
                .await?;
            output.answer(answer, |view: CameraView| overview(&[view]))
        }
        Command::Snapshot { camera, save } => {
            let path = format!("cameras/{camera}/snapshots");
            let by = serde_json::json!({ "by": who() });
            let answer = api.send(Method::POST, &path, &by).await?;
            let view: SnapshotView = understood(answer.clone())?;
            if let Some(file) = save {
                self::save(&api, &camera, &view.id, &file).await?;
            }
            output.answer(answer, |view: SnapshotView| {
                format!(
                    "{} is kept on {}, with {} bytes",
                    view.id, view.held_by, view.bytes
                )
            })
        }
        Command::Snapshots {
            camera,
            snapshot: Some(snapshot),
            save: Some(file),
        } => {
            save(&api, &camera, &snapshot, &file).await?;
            output.done(format!("{snapshot} is in {}", file.display()))
        }
        Command::Snapshots { camera, .. } => {
            let answer = api.get(&format!("cameras/{camera}/snapshots")).await?;
            output.answer(answer, |view: SnapshotsView| pictures(&view))
        }
        Command::Remove { camera } => {
            api.delete(&format!("cameras/{camera}")).await?;
            output.done(format!("{camera} is removed"))
        }
    }
}

/// Writes a picture into a file.
async fn save(api: &Api, camera: &CameraId, snapshot: &str, file: &Path) -> Result<(), Failure> {
    let picture = api
        .bytes(&format!("cameras/{camera}/snapshots/{snapshot}"))
        .await?;
    std::fs::write(file, picture).map_err(Failure::while_doing(format!("can't write {}", file.display())))
}

fn pictures(view: &SnapshotsView) -> String {
    let row = |picture: &SnapshotView| {
        [
            picture.id.clone(),
            time(picture.at),
            picture.taken_by.to_string(),
            picture.held_by.to_string(),
            or_dash(picture.failover.as_ref()),
            picture.bytes.to_string(),
        ]
    };
    let head = ["snapshot", "taken at", "by", "lies on", "failover", "bytes"];
    let rows = view.snapshots.iter().map(row).collect();
    let mut text = table(
        head,
        rows,
        "no picture was kept: understudy camera snapshot --help",
    );
    for unreached in &view.unreached {
        text.push_str(&format!(
            "\nwarning: {} may have more: {}",
            unreached.server, unreached.why
        ));
    }
    text
}

/// What the API answers when cameras are added.
#[derive(serde::Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    Many(Vec<CameraView>),
    One(Box<CameraView>),
}

impl OneOrMany {
    fn count(&self) -> usize {
        match self {
            Self::Many(views) => views.len(),
            Self::One(view) => usize::from(!view.camera.id.as_str().is_empty()),
        }
    }
}

impl AddArgs {
    fn camera(self) -> Result<Camera, Failure> {
        let missing = |what: &str| Failure::Usage(format!("--{what} is needed for a new camera"));
        let id = self.camera.ok_or_else(|| missing("file, or an id,"))?;
        let edit = self.settings.edit(None)?;
        Ok(Camera {
            name: edit.name.unwrap_or_else(|| id.to_string()),
            id,
            server: self.server.ok_or_else(|| missing("server"))?,
            url: edit.url.ok_or_else(|| missing("stream"))?,
            credentials: edit.credentials,
            recording: edit.recording.unwrap_or_default(),
            retention: edit.retention.unwrap_or_default(),
            priority: edit.priority.unwrap_or_default(),
            max_sessions: edit.max_sessions.filter(|most| *most > 0),
            transport: edit.transport.unwrap_or_default(),
            enabled: true,
        })
    }
}

impl Settings {
    fn edit(self, enabled: Option<bool>) -> Result<CameraEdit, Failure> {
        let credentials = match (self.user, self.password_file) {
            (Some(username), Some(file)) => {
                let password = text_of(&file)?.trim_end_matches(['\r', '\n']).to_owned();
                Some(Credentials { username, password })
            }
            _ => None,
        };
        let retention = (self.max_age_days.is_some() || self.max_gib.is_some()).then(|| Retention {
            max_age_seconds: self.max_age_days.map(|days| u64::from(days) * 24 * 60 * 60),
            max_bytes: self.max_gib.map(|gib| u64::from(gib) << 30),
        });
        Ok(CameraEdit {
            name: self.name,
            url: self.stream,
            credentials,
            recording: self.recording.map(|recording| match recording {
                RecordingArg::Continuous => RecordingMode::Continuous,
                RecordingArg::LiveOnly => RecordingMode::LiveOnly,
            }),
            retention,
            priority: self.priority,
            max_sessions: self.max_sessions,
            transport: self.transport.map(|transport| match transport {
                TransportArg::Tcp => Transport::Tcp,
                TransportArg::Udp => Transport::Udp,
            }),
            enabled,
            in_device: None,
        })
    }
}

fn text_of(file: &Path) -> Result<String, Failure> {
    let failed = Failure::while_doing(format!("can't read {}", file.display()));
    if file.as_os_str() != "-" {
        return std::fs::read_to_string(file).map_err(failed);
    }
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).map_err(failed)?;
    Ok(text)
}

fn overview(views: &[CameraView]) -> String {
    let row = |view: &CameraView| {
        let detail = match &view.status {
            Some(CameraStatus::Lost { fault, detail }) => format!("{}: {detail}", word(fault)),
            Some(CameraStatus::Disabled { reason }) => reason.clone(),
            _ => String::new(),
        };
        [
            view.camera.id.to_string(),
            view.camera.name.clone(),
            view.camera.server.to_string(),
            or_dash(view.filmed_by.as_ref()),
            view.status.as_ref().map_or_else(|| "-".into(), word),
            view.camera.priority.to_string(),
            match view.temporary {
                true => format!("until the failover ends; {detail}")
                    .trim_end_matches("; ")
                    .to_owned(),
                false => detail,
            },
        ]
    };
    let head = [
        "camera",
        "name",
        "server",
        "filmed by",
        "state",
        "priority",
        "why",
    ];
    table(
        head,
        views.iter().map(row).collect(),
        "no camera: understudy camera add --help",
    )
}
