//! Exchanges, queues and routing keys of the broker.

use crate::ids::{DomainId, ServerId};

/// Topic exchange of facts, for anyone: `<domain>.<entity>.<event>`.
pub const EVENTS: &str = "understudy.events";
/// Direct exchange of desired state: one quorum queue per server, the server's id as routing key.
pub const ASSIGNMENTS: &str = "understudy.assignments";
/// Topic exchange of what is alive and how it is: transient.
pub const HEARTBEATS: &str = "understudy.heartbeats";
/// Direct exchange of requests between services; the routing key is the service's name.
pub const RPC: &str = "understudy.rpc";
/// Topic exchange of what could not be handled, with the reason; the routing key is the queue it came from.
pub const DEAD: &str = "understudy.dead";
/// The queue that keeps what was dead-lettered until somebody looks.
pub const DEAD_QUEUE: &str = "understudy.dead";

/// The queue through which the notifier hears facts, also those of the time in which it did not run.
pub const NOTIFIER_QUEUE: &str = "understudy.notifier";

/// Routing key on [`ASSIGNMENTS`] that the queue of every server is bound to, beside its own: no id has this
/// character.
pub const ALL_SERVERS: &str = "*";

/// The service name under which the orchestrator answers.
pub const ORCHESTRATOR: &str = "orchestrator";
/// The service name under which the licence ledger answers.
pub const LICENSE: &str = "license";
/// How the names begin under which recording services answer; the server's id follows.
pub const RECORDER: &str = "recorder.";

/// The service name under which the agent of `server` answers.
#[must_use]
pub fn agent(server: &ServerId) -> String {
    format!("agent.{server}")
}

/// CloudEvents type of an [`crate::assignment::Assignment`].
pub const ASSIGNMENT_TYPE: &str = "understudy.assignment";
/// CloudEvents type of a [`super::heartbeat::SealedBundle`], sent through the assignment queue.
pub const BUNDLE_TYPE: &str = "understudy.bundle";
/// CloudEvents type of a [`crate::authority::Word`], sent through the assignment queue: by the host, and by the
/// server to itself.
pub const RIGHT_TYPE: &str = "understudy.right";
/// CloudEvents type of a [`crate::authority::Claim`].
pub const CLAIM_TYPE: &str = "understudy.claim";
/// CloudEvents type of a [`super::heartbeat::Heartbeat`].
pub const HEARTBEAT_TYPE: &str = "understudy.heartbeat";
/// CloudEvents type of a [`super::heartbeat::ServerReport`].
pub const REPORT_TYPE: &str = "understudy.report";
/// CloudEvents type of a [`super::heartbeat::Observation`].
pub const OBSERVATION_TYPE: &str = "understudy.observation";
/// CloudEvents type of a [`super::heartbeat::RestorationReport`].
pub const RESTORATION_TYPE: &str = "understudy.restoration";

/// The queue through which `server` hears its assignments.
#[must_use]
pub fn assignment_queue(server: &ServerId) -> String {
    format!("{ASSIGNMENTS}.{server}")
}

/// Routing key on [`HEARTBEATS`]: `<domain>.<kind>.<server>`, where kind is `heartbeat`, `report`,
/// `observation`, `restoration` or `claim`.
#[must_use]
pub fn heartbeat_key(domain: &DomainId, kind: &str, server: &ServerId) -> String {
    format!("{domain}.{kind}.{server}")
}

/// The service name under which the recording service of `server` answers.
#[must_use]
pub fn recorder(server: &ServerId) -> String {
    format!("{RECORDER}{server}")
}
