//! What the fleet tells about servers and cameras when they change.

use super::{Fleet, Member};
use crate::{
    contract::{
        event::Event,
        heartbeat::{CameraStatus, ServerReport, StorageState},
    },
    ids::{CameraId, ServerId},
    server::Mode,
    time::Moment,
    trigger,
};

impl Fleet {
    /// Tells when a server was lost or is back, or when its volume has another state.
    pub(super) fn note_condition(&mut self, server: &ServerId, heard_before: bool, now: Moment) {
        let Some(member) = self.members.get_mut(server) else {
            return;
        };
        let events = member.changes(server, heard_before);
        for event in events {
            self.emit(server, event, now);
        }
    }

    /// Tells which cameras were lost or are back, and whether the server was told two things by one epoch.
    pub(super) fn note_report(&mut self, report: &ServerReport, now: Moment) {
        let server = &report.server;
        let before = self.members.get(server).and_then(|member| member.report.as_ref());
        let mut events: Vec<Event> = report
            .cameras
            .iter()
            .filter_map(|(camera, status)| {
                let old = before.and_then(|before| before.cameras.get(camera));
                camera_event(
                    server,
                    camera,
                    old,
                    &self.with_holder(camera, server, status.clone()),
                )
            })
            .collect();
        if let Some(epoch) = report.conflict
            && before.and_then(|before| before.conflict) != Some(epoch)
        {
            events.push(Event::ServerConflict {
                server: server.clone(),
                epoch,
            });
        }
        for event in events {
            self.emit(server, event, now);
        }
    }

    /// Tells which recording servers lost their last free failover server, or have one again (A3).
    pub(super) fn check_protection(&mut self, now: Moment) {
        for server in self.protections.keys().cloned().collect::<Vec<_>>() {
            let watched = self
                .members
                .get(&server)
                .is_some_and(|member| member.server.mode == Mode::Recording && member.server.enabled);
            if !watched || self.failover_of(&server).is_some() {
                continue;
            }
            let selection = self.select_among(&server, &self.candidates(&server, None, now));
            let protected = selection.chosen.is_some();
            let Some(member) = self.members.get_mut(&server) else {
                continue;
            };
            let before = member.protected.replace(protected);
            let event = match (before, protected) {
                (Some(true), false) => Event::ServerUnprotected {
                    server: server.clone(),
                    why: format!("it has to wait for {}", selection.waits_for()),
                },
                (Some(false) | None, true) => Event::ServerProtected {
                    server: server.clone(),
                },
                _ => continue,
            };
            self.emit(&server, event, now);
        }
    }
}

impl Member {
    fn changes(&mut self, server: &ServerId, heard_before: bool) -> Vec<Event> {
        let Some(observation) = self.trigger.observation().filter(|seen| !seen.blind) else {
            return Vec::new();
        };
        let heard = trigger::is_heard(observation);
        let storage = observation.storage.clone();
        let presence = match (self.heard.replace(heard), heard) {
            (Some(true), false) => Some(Event::ServerDisconnected {
                server: server.clone(),
            }),
            (Some(false), true) if heard_before => Some(Event::ServerRecovered {
                server: server.clone(),
            }),
            _ => None,
        };
        let volume = (storage.state != self.storage && storage.state != StorageState::Normal).then(|| {
            Event::ServerStorageDegraded {
                server: server.clone(),
                storage: storage.clone(),
            }
        });
        self.storage = storage.state;
        presence.into_iter().chain(volume).collect()
    }
}

fn camera_event(
    server: &ServerId,
    camera: &CameraId,
    old: Option<&CameraStatus>,
    new: &CameraStatus,
) -> Option<Event> {
    let was_lost = matches!(old, Some(CameraStatus::Lost { .. }));
    match new {
        CameraStatus::Lost { fault, detail } if !was_lost => Some(Event::CameraLost {
            camera: camera.clone(),
            server: server.clone(),
            fault: *fault,
            detail: detail.clone(),
        }),
        status if status.films() && was_lost => Some(Event::CameraRecovered {
            camera: camera.clone(),
            server: server.clone(),
        }),
        _ => None,
    }
}
