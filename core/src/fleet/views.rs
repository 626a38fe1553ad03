//! The fleet as it is shown. Passwords are left out.

use std::time::Duration;

use super::{Fleet, Member};
use crate::{
    camera::{Camera, Credentials},
    contract::{
        api::{CameraView, DomainView, FailoverView, ServerState, ServerView, StandsIn},
        heartbeat::{CameraStatus, PackageState, RightToAct, ServerReport, StorageState},
    },
    coverage,
    failover::{Failover, Holding},
    ids::{CameraId, ServerId},
    policy::Pairing,
    room,
    server::{Mode, Server},
    time::{Moment, Monotonic},
};

/// So many failover servers of other domains are named in one warning.
const STRANGERS_NAMED: usize = 3;

impl Fleet {
    pub(super) fn domain_views(&self) -> Vec<DomainView> {
        let mut domains = coverage::domains(self.servers());
        self.show_vacancies(&mut domains);
        domains
    }

    pub(super) fn server_views(&self, now: Moment) -> Vec<ServerView> {
        self.members
            .keys()
            .filter_map(|server| self.server_view(server, now))
            .collect()
    }

    pub(super) fn server_view(&self, id: &ServerId, now: Moment) -> Option<ServerView> {
        let member = self.members.get(id)?;
        let mut server = member.server.clone();
        server.name = self.name_now(id)?;
        let report = member.report.as_ref();
        let runs = report.map_or(0, |report| {
            count(report.cameras.values().filter(|each| runs(each)))
        });
        let cameras = match server.mode {
            Mode::Recording => count(self.cameras_of(id)),
            _ => runs,
        };
        let identity = report.and_then(|report| report.identity.clone());
        let observation = member.trigger.observation();
        let protected = self.is_protected(id, now);
        Some(ServerView {
            label: format!("{} ({cameras}/{})", server.name, server.max_cameras),
            state: self.state_of(member, now),
            cameras,
            filming: report.map_or(0, |report| {
                count(report.cameras.values().filter(|each| each.films()))
            }),
            bears_name: identity.as_ref().and_then(|identity| self.name_now(identity)),
            identity,
            assigned: self.assignments.get(id).map(|assignment| assignment.epoch),
            reached: report.and_then(|report| report.epoch),
            protected,
            paired_with: self.paired_with(id).into_iter().collect(),
            failover: self
                .failover_of(id)
                .or(self.holding_of(id).map(|(failover, _)| failover))
                .map(|failover| failover.id.clone()),
            package: observation.map(|seen| seen.package.clone()).unwrap_or_default(),
            storage: observation.map(|seen| seen.storage.clone()).unwrap_or_default(),
            warnings: self.warnings(member, cameras, protected),
            maintenance: self.maintenance_of(id).cloned(),
            right_to_act: right_to_act(member, now),
            room: report.and_then(|report| report.room.clone()),
            stands_in: self.stands_in(member),
            server,
        })
    }

    /// For how long a failover server could stand in, whomever it hits; while it does, for how long it still can (K2).
    fn stands_in(&self, member: &Member) -> Option<StandsIn> {
        let id = &member.server.id;
        let room = member.report.as_ref()?.room.as_ref()?;
        if member.server.mode != Mode::Failover {
            return None;
        }
        let rate = |member: &Member| member.report.as_ref()?.room.as_ref()?.bytes_per_second;
        let (server, time) = match self.holding_of(id) {
            Some((failover, _)) => {
                let before = self.members.get(&failover.server).and_then(rate);
                let rate = room.bytes_per_second.or(before)?;
                room::shortest(room, std::iter::once((&failover.server, rate)))?
            }
            None => {
                let paired = self.members.iter().filter(|(other, _)| self.is_paired(other, id));
                room::shortest(
                    room,
                    paired.filter_map(|(other, member)| Some((other, rate(member)?))),
                )?
            }
        };
        Some(StandsIn {
            server: server.clone(),
            for_ms: u64::try_from(time.as_millis()).unwrap_or(u64::MAX),
        })
    }

    fn is_protected(&self, server: &ServerId, now: Moment) -> bool {
        self.candidates(server, self.failover_of(server), now)
            .iter()
            .any(|candidate| candidate.unavailable.is_none())
    }

    pub(super) fn state_of(&self, member: &Member, now: Moment) -> ServerState {
        let id = &member.server.id;
        let heard = member.trigger.is_heard(now.monotonic);
        let sick = member.trigger.observation().is_some_and(|seen| {
            !matches!(seen.package.state, PackageState::Running | PackageState::Starting)
                || seen.storage.state == StorageState::Damaged
        });
        if !member.server.enabled {
            ServerState::Disabled
        } else if self.is_busy(id).is_some() {
            ServerState::FailedOver
        } else if !heard && !member.trigger.ever_heard() {
            ServerState::Unknown
        } else if !heard {
            ServerState::Disconnected
        } else if sick {
            ServerState::Abnormal
        } else {
            self.state_of_healthy(member)
        }
    }

    fn state_of_healthy(&self, member: &Member) -> ServerState {
        let id = &member.server.id;
        let reached = self.reached(id);
        let settled = reached.is_some_and(|report| self.films_all(id, report));
        match (member.server.mode, self.holding_of(id)) {
            (Mode::Failover, Some((_, Holding::Films))) => ServerState::Serving,
            (Mode::Failover, Some(_)) => ServerState::Restoring,
            (Mode::Failover | Mode::Inactive, None) if self.erasing.contains_key(id) => ServerState::Changing,
            (Mode::Failover, None) if reached.is_some() => ServerState::Standby,
            (Mode::Recording, _) if settled => ServerState::Normal,
            (Mode::Failover | Mode::Recording, _) => ServerState::Changing,
            (Mode::Host | Mode::Inactive, _) => ServerState::Normal,
        }
    }

    fn films_all(&self, server: &ServerId, report: &ServerReport) -> bool {
        report.identity.as_ref() == Some(server)
            && self.settings.get(server).is_some_and(|settings| {
                let settled =
                    |camera: &CameraId| report.cameras.get(camera).is_some_and(CameraStatus::is_settled);
                settings.enabled.iter().all(settled)
            })
    }

    fn warnings(&self, member: &Member, cameras: u32, protected: bool) -> Vec<String> {
        let server = &member.server;
        let mut warnings = Vec::new();
        if cameras > server.max_cameras {
            warnings.push(format!(
                "it has {cameras} cameras and is made for {} at most",
                server.max_cameras
            ));
        }
        if let Some(said) = member.report.as_ref().and_then(|report| report.max_cameras)
            && said < server.max_cameras
        {
            warnings.push(format!(
                "it says that it can run {said} cameras, not {}: the lower number counts",
                server.max_cameras
            ));
        }
        if self.erasing.contains_key(&server.id) {
            warnings.push("it has still to erase its data, and does so as soon as it is heard".to_owned());
        }
        if let Some(maintenance) = self.maintenance_of(&server.id) {
            let meanwhile = match server.mode {
                Mode::Failover => "it stands in for nobody new",
                _ => "no failover of it begins by itself",
            };
            warnings.push(format!(
                "it is in maintenance ({}, says {}): {meanwhile} until that ends",
                maintenance.why, maintenance.by
            ));
        }
        if let Some(storage) = member.trigger.observation().map(|seen| &seen.storage)
            && storage.full
        {
            warnings.push(format!(
                "its recording volume stays full although retention should have made room: {}",
                storage.evidence
            ));
        }
        warnings.extend(self.warnings_of_gone(&server.id));
        if server.mode == Mode::Recording {
            self.warn_of_pairing(member, cameras, &mut warnings);
            // While somebody stands in for it, that nobody else could is no news.
            if !protected
                && !self.paired_with(&server.id).is_empty()
                && self.failover_of(&server.id).is_none()
            {
                warnings
                    .push("it is unprotected: none of its failover servers is free at the moment".to_owned());
            }
        }
        warnings
    }

    fn warn_of_pairing(&self, member: &Member, cameras: u32, warnings: &mut Vec<String>) {
        let server = &member.server;
        let paired = self.paired_with(&server.id);
        if paired.is_empty() {
            warnings.push("it is paired with no failover server".to_owned());
            return;
        }
        let largest = paired.iter().map(|id| self.room_on(id)).max().unwrap_or(0);
        if largest < cameras {
            warnings.push(format!(
                "no paired failover server has room for its {cameras} cameras: {} would be disabled",
                cameras - largest
            ));
        }
        let others = paired
            .iter()
            .filter_map(|id| self.members.get(id))
            .map(|member| &member.server)
            .filter(|other| other.domain != server.domain);
        match self.protections.get(&server.id).map(|each| &each.pairing) {
            Some(Pairing::Servers(_)) => warnings.extend(others.map(|other| {
                format!(
                    "{} is in another domain ({}): cameras and recordings may be out of its reach",
                    other.id, other.domain
                )
            })),
            // Nobody chose them one by one, and there may be many.
            Some(Pairing::All) => warnings.extend(warning_of_strangers(others)),
            None => {}
        }
    }

    /// Whether what `server` said last of its cameras is not to be relied on: it is missed, or its recording service
    /// does not run. While the host may be blind nothing is known, and its last word stands.
    #[must_use]
    pub fn is_missed(&self, server: &ServerId, now: Monotonic) -> bool {
        self.members.get(server).is_some_and(|member| {
            let trigger = &member.trigger;
            let ended = trigger.is_heard(now)
                && trigger
                    .observation()
                    .is_some_and(|seen| !answers(seen.package.state));
            ended || trigger.silent(now) > Duration::ZERO
        })
    }

    pub(super) fn camera_views(&self) -> Vec<CameraView> {
        let cameras = self.cameras_now();
        cameras.iter().filter_map(|id| self.camera_view(id)).collect()
    }

    pub(super) fn camera_view(&self, id: &CameraId) -> Option<CameraView> {
        let camera = self.camera_now(id)?;
        let filmed_by = self.filmed_by(&camera);
        let report = filmed_by
            .as_ref()
            .and_then(|server| self.members.get(server)?.report.as_ref());
        let status = report.and_then(|report| report.cameras.get(id)).cloned();
        let relay = report
            .filter(|_| status.as_ref().is_some_and(CameraStatus::films))
            .and_then(|report| report.relay.as_ref())
            .map(|server| format!("{server}/{id}"));
        Some(CameraView {
            temporary: self.is_temporary(&camera),
            camera: without_password(&camera),
            status: status
                .zip(filmed_by.as_ref())
                .map(|(status, server)| self.with_holder(id, server, status)),
            filmed_by,
            relay,
        })
    }

    /// The server that is to film a camera now: during a failover the one that bears the identity.
    fn filmed_by(&self, camera: &Camera) -> Option<ServerId> {
        if !camera.enabled {
            return None;
        }
        let stand_in = self
            .failover_of(&camera.server)
            .and_then(Failover::stand_in)
            .map(|holder| &holder.server);
        Some(stand_in.unwrap_or(&camera.server).clone())
    }

    pub(super) fn failover_views(&self) -> Vec<FailoverView> {
        let mut views: Vec<FailoverView> = self.failovers.values().map(Failover::view).collect();
        views.sort_by(|a, b| (b.started_at, &b.id).cmp(&(a.started_at, &a.id)));
        views
    }
}

/// Whether a recording service is there, and speaks for itself.
fn answers(package: PackageState) -> bool {
    matches!(
        package,
        PackageState::Running | PackageState::Starting | PackageState::WrongVersion
    )
}

/// A server that can't be heard says no more that it has lost the right to act: it loses it by itself.
fn right_to_act(member: &Member, now: Moment) -> Option<RightToAct> {
    let said = member.report.as_ref()?.right_to_act.clone()?;
    let runs = member
        .trigger
        .observation()
        .is_some_and(|seen| answers(seen.package.state));
    let why = if !member.trigger.is_connected(now.monotonic) {
        "it is not heard through the broker; what it had ends by itself within 3 s"
    } else if !runs {
        "its recording service is not heard; what it had ends by itself within 3 s"
    } else {
        return Some(said);
    };
    Some(RightToAct {
        why: why.to_owned(),
        ..RightToAct::default()
    })
}

/// That "all servers" stands for failover servers of other domains too, if there are any.
fn warning_of_strangers<'a>(strangers: impl Iterator<Item = &'a Server>) -> Option<String> {
    let names: Vec<String> = strangers
        .map(|stranger| format!("{} ({})", stranger.id, stranger.domain))
        .collect();
    let more = match names.len() {
        0 => return None,
        few if few <= STRANGERS_NAMED => String::new(),
        many => format!(" and {} more", many - STRANGERS_NAMED),
    };
    let named = names[..names.len().min(STRANGERS_NAMED)].join(", ");
    Some(format!(
        "\"all servers\" stands for failover servers of other domains too, and one of them may be chosen: \
         {named}{more}: cameras and recordings may be out of their reach"
    ))
}

fn runs(status: &CameraStatus) -> bool {
    !matches!(status, CameraStatus::Disabled { .. })
}

fn count<T>(items: impl Iterator<Item = T>) -> u32 {
    u32::try_from(items.count()).unwrap_or(u32::MAX)
}

fn without_password(camera: &Camera) -> Camera {
    let credentials = camera.credentials.as_ref().map(|credentials| Credentials {
        username: credentials.username.clone(),
        password: String::new(),
    });
    Camera {
        credentials,
        ..camera.clone()
    }
}
