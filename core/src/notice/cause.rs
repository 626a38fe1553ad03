//! What a fact has in common with others: its repetitions, and its story.

use crate::{
    contract::event::{Event, Fact},
    ids::ServerId,
};

/// Where a fact belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause<'a> {
    /// Facts of one story go into one message while they wait: one failover, the volume of one server, the protection
    /// of one domain.
    pub story: String,
    /// Facts that are about the same are repetitions of each other.
    pub about: String,
    /// The servers that it names.
    pub servers: Vec<&'a ServerId>,
}

impl<'a> Cause<'a> {
    /// The cause of `fact`.
    #[must_use]
    pub fn of(fact: &'a Fact) -> Self {
        let event = &fact.event;
        let (subject, domain) = (event.subject(), &fact.domain);
        // One failover server that is taken leaves all recording servers of its domain unprotected, and one network
        // that is cut all cameras behind it lost: one message names them all.
        let story = match event {
            Event::FailoverStarted { .. }
            | Event::FailoverWaiting { .. }
            | Event::FailoverServing { .. }
            | Event::FailoverRestoring { .. }
            | Event::FailoverProgress { .. }
            | Event::FailoverCompleted { .. }
            | Event::FailoverAborted { .. }
            | Event::LicenseTransferred { .. } => format!("failover/{subject}"),
            Event::ServerReplaced { failover, .. } => format!("failover/{failover}"),
            Event::ServerUnprotected { .. } | Event::ServerProtected { .. } => format!("protection/{domain}"),
            Event::LicenseShort { .. } | Event::LicenseEnough { .. } => format!("licences/{domain}"),
            Event::CameraLost { server, .. } | Event::CameraRecovered { server, .. } => {
                format!("cameras/{server}")
            }
            Event::ServerStorageDegraded { .. } => format!("storage/{subject}"),
            Event::ServerDisconnected { .. }
            | Event::ServerRecovered { .. }
            | Event::ServerReturned { .. }
            | Event::ServerConflict { .. }
            | Event::ServerMaintenanceBegun { .. }
            | Event::ServerMaintenanceEnded { .. } => format!("server/{subject}"),
        };
        // A volume that gets worse is no repetition of one that is degraded.
        let about = match event {
            Event::ServerStorageDegraded { storage, .. } => {
                format!("{} {subject} {:?} {}", event.name(), storage.state, storage.full)
            }
            _ => format!("{} {subject}", event.name()),
        };
        Self {
            story,
            about,
            servers: servers(event),
        }
    }
}

fn servers(event: &Event) -> Vec<&ServerId> {
    match event {
        Event::FailoverStarted { server, stand_in, .. }
        | Event::FailoverServing { server, stand_in, .. }
        | Event::FailoverRestoring { server, stand_in, .. }
        | Event::FailoverCompleted { server, stand_in, .. } => vec![server, stand_in],
        Event::ServerReplaced {
            server, successor, ..
        } => vec![server, successor],
        Event::ServerReturned { server, replaced_by } => std::iter::once(server).chain(replaced_by).collect(),
        Event::LicenseTransferred { from, to, .. } => vec![from, to],
        Event::FailoverWaiting { server, .. }
        | Event::FailoverProgress { server, .. }
        | Event::FailoverAborted { server, .. }
        | Event::ServerDisconnected { server }
        | Event::ServerRecovered { server }
        | Event::ServerStorageDegraded { server, .. }
        | Event::ServerUnprotected { server, .. }
        | Event::ServerProtected { server }
        | Event::ServerConflict { server, .. }
        | Event::ServerMaintenanceBegun { server, .. }
        | Event::ServerMaintenanceEnded { server, .. }
        | Event::LicenseShort { server, .. }
        | Event::LicenseEnough { server }
        | Event::CameraLost { server, .. }
        | Event::CameraRecovered { server, .. } => vec![server],
    }
}
