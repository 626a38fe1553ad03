//! Requests between services, on `understudy.rpc`. Each has a deadline; each may be sent twice.

use serde::{Deserialize, Serialize};

use super::{
    api::{
        CameraEdit, CameraView, DomainView, FailoverView, LicenseHappening, LicensesView, MaintenanceOrder,
        Problem, Protection, ReplacementView, ServerEdit, ServerView, SnapshotView, StartMode,
    },
    heartbeat::SealedBundle,
};
use crate::{
    camera::Camera,
    ids::{CameraId, FailoverId, LicenseKeyId, ServerId},
    policy::{Pairing, Policy},
    server::Server,
    settings::BundleHash,
    time::Timestamp,
};

/// The answer to any request.
pub type Answer<T> = Result<T, Problem>;

/// What the orchestrator is asked; it answers with `Answer<OrchestratorReply>`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "request", content = "with", rename_all = "snake_case")]
pub enum OrchestratorRequest {
    /// All domains → `Domains`.
    ListDomains,
    /// All servers → `Servers`.
    ListServers,
    /// Enrols a server → `Server`. The same again is no error.
    AddServer(Server),
    /// Changes a server → `Server`.
    EditServer {
        /// Which.
        server: ServerId,
        /// What changes.
        edit: ServerEdit,
    },
    /// Erases everything on a failover server or an inactive one → `Server`.
    EraseServer(ServerId),
    /// Begins a server's maintenance, or gives it another end → `Server`.
    BeginMaintenance {
        /// Which.
        server: ServerId,
        /// Until when, and why.
        order: MaintenanceOrder,
        /// Who asks.
        by: String,
    },
    /// Ends a server's maintenance early → `Server`. Where none goes on, it is no error.
    EndMaintenance {
        /// Which.
        server: ServerId,
        /// Who asks.
        by: String,
    },
    /// Removes a server → `Done`.
    RemoveServer(ServerId),
    /// Sets which failover servers may stand in → `Protection`.
    SetPairing {
        /// For which recording server.
        server: ServerId,
        /// Which.
        pairing: Pairing,
    },
    /// Sets the failover settings → `Protection`.
    SetPolicy {
        /// For which recording server.
        server: ServerId,
        /// The settings.
        policy: Policy,
    },
    /// Pairing and failover settings → `Protection`.
    GetProtection(ServerId),
    /// All cameras → `Cameras`.
    ListCameras,
    /// Adds cameras → `Cameras`. All or none; the same again is no error.
    AddCameras(Vec<Camera>),
    /// Changes a camera → `Cameras` with that one.
    EditCamera {
        /// Which.
        camera: CameraId,
        /// What changes.
        edit: CameraEdit,
    },
    /// Removes a camera → `Done`.
    RemoveCamera(CameraId),
    /// All failovers, newest first → `Failovers`.
    ListFailovers,
    /// One failover → `Failover`.
    GetFailover(FailoverId),
    /// Starts a failover by hand → `Failover`.
    StartFailover {
        /// Which recording server.
        server: ServerId,
        /// By which failover server; the closest match without it.
        stand_in: Option<ServerId>,
        /// Who asks.
        by: String,
        /// Whether it is a planned switch.
        #[serde(default)]
        mode: StartMode,
    },
    /// Ends a recording server's failover → `Failover`.
    StopFailover {
        /// Which recording server.
        server: ServerId,
        /// Who asks.
        by: String,
    },
    /// Ends the synchronisation: what was not transferred completely is removed → `Failover`.
    StopRestoration {
        /// Which failover.
        failover: FailoverId,
        /// Who asks.
        by: String,
    },
    /// Answers the offers of a failover to keep what was changed in a device meanwhile → `Failover`.
    AnswerOffers {
        /// Which failover.
        failover: FailoverId,
        /// For which cameras; all that are open without any.
        cameras: Vec<CameraId>,
        /// Keep it, or let it go with the failover.
        apply: bool,
        /// Who asks.
        by: String,
    },
    /// Who could take a recording server's place for good → `Replacement`.
    GetReplacement(ServerId),
    /// Has another server take a recording server's place for good → `Failover`. The same again is no error.
    Replace {
        /// Which recording server.
        server: ServerId,
        /// By which server; its failover server without it.
        successor: Option<ServerId>,
        /// Who asks.
        by: String,
    },
    /// A request again, with the token of the answer that said what it would lose → what the request answers.
    Confirmed {
        /// The token.
        confirmation: String,
        /// The request, unchanged.
        request: Box<OrchestratorRequest>,
    },
    /// Settings by hash, for a server that has an assignment and not the bundle → `Bundle`.
    GetBundle(BundleHash),
}

/// What the orchestrator answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "reply", content = "with", rename_all = "snake_case")]
pub enum OrchestratorReply {
    /// Done.
    Done,
    /// Domains.
    Domains(Vec<DomainView>),
    /// Servers.
    Servers(Vec<ServerView>),
    /// One server.
    Server(Box<ServerView>),
    /// Pairing and failover settings.
    Protection(Protection),
    /// Cameras.
    Cameras(Vec<CameraView>),
    /// Failovers.
    Failovers(Vec<FailoverView>),
    /// One failover.
    Failover(Box<FailoverView>),
    /// Who could take a recording server's place.
    Replacement(ReplacementView),
    /// A bundle.
    Bundle(SealedBundle),
}

/// What the licence ledger is asked; it answers with `Answer<LicenseReply>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", content = "with", rename_all = "snake_case")]
pub enum LicenseRequest {
    /// All keys → `Licenses`.
    List,
    /// What happened to keys, newest first → `History`.
    History,
    /// Adds a signed key to a server → `Licenses`. The same again is no error.
    Add {
        /// The signed text.
        key: String,
        /// Who uses it.
        server: ServerId,
    },
    /// Removes a key → `Licenses`.
    Remove(LicenseKeyId),
    /// Moves all keys of `from` to `to` for a failover → `Moved`. The same again is no error and does nothing;
    /// nor does it do anything once that failover's keys were given back.
    Transfer {
        /// The failover: makes it happen once.
        failover: FailoverId,
        /// Who holds them.
        from: ServerId,
        /// Who gets them.
        to: ServerId,
    },
    /// Gives a failover's keys back → `Moved`. The same again is no error; before its transfer, it makes that
    /// transfer never happen.
    GiveBack {
        /// The failover.
        failover: FailoverId,
    },
    /// Makes all keys of `from` those of `to`, for good; those that another failover server holds come back to `to`
    /// → `Moved`. The same again is no error and does nothing.
    Replace {
        /// The failover: makes it happen once.
        failover: FailoverId,
        /// Whose they were.
        from: ServerId,
        /// Whose they are.
        to: ServerId,
    },
}

/// What the licence ledger answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", content = "with", rename_all = "snake_case")]
pub enum LicenseReply {
    /// The ledger.
    Licenses(LicensesView),
    /// What happened to keys.
    History(Vec<LicenseHappening>),
    /// Keys have another holder, or had already.
    Moved {
        /// For how many devices.
        devices: u32,
    },
}

/// What a server's recording service is asked, under the name of [`super::names::recorder`]; it answers with
/// `Answer<RecorderReply>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", content = "with", rename_all = "snake_case")]
pub enum RecorderRequest {
    /// Keeps a picture of what a camera shows now → `Snapshot`. Asked twice, it keeps two.
    TakeSnapshot {
        /// Which camera.
        camera: CameraId,
        /// Who asks.
        by: String,
    },
    /// The pictures of a camera that it has → `Snapshots`, newest first.
    ListSnapshots {
        /// Which camera.
        camera: CameraId,
        /// Not those of before.
        from: Option<Timestamp>,
        /// Not those from then on.
        to: Option<Timestamp>,
    },
    /// One of them → `Picture`.
    GetSnapshot {
        /// Which camera.
        camera: CameraId,
        /// Its name.
        snapshot: String,
    },
}

/// What a recording service answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", content = "with", rename_all = "snake_case")]
pub enum RecorderReply {
    /// The picture that was kept.
    Snapshot(SnapshotView),
    /// Pictures that it has.
    Snapshots(Vec<SnapshotView>),
    /// A picture itself.
    Picture {
        /// JPEG, in base64.
        jpeg: String,
    },
}

/// What a server's agent is asked; it answers with [`AgentReply`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", content = "with", rename_all = "snake_case")]
pub enum AgentRequest {
    /// Look for a server that is missed, from where the agent is → `Looked`.
    Look {
        /// Base URL of its sync service: its health is asked for.
        address: String,
    },
}

/// What an agent answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", content = "with", rename_all = "snake_case")]
pub enum AgentReply {
    /// What it saw.
    Looked(Looked),
}

/// What somebody saw who looked for a server that is missed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Looked {
    /// Whether its machine answered at all, whatever.
    pub answers: bool,
    /// The same in words.
    pub seen: String,
}
