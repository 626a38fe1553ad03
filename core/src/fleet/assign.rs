//! From what every failover is at to what every server is to be: assignments, epochs and staged settings.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use super::{Effect, Fleet, Record, Settings};
use crate::{
    assignment::{Assignment, Epoch, Films, Restore, Role},
    contract::heartbeat::ServerReport,
    failover::{Failover, Holding},
    ids::{FailoverId, ServerId},
    policy::{Pairing, Range},
    server::Mode,
    settings::Bundle,
    time::Moment,
};

/// How often an assignment is sent again to a server that is heard without it.
pub(super) const REPUBLISH: Duration = Duration::from_secs(2);
/// For how long a server may have an assignment and not do as it says before it is given a newer one.
const STUBBORN: Duration = Duration::from_secs(15);
/// How often settings are sent again to a server that is heard without them.
const STAGE_AGAIN: Duration = Duration::from_secs(5);

impl Fleet {
    /// Every server whose part has changed gets a new assignment.
    pub(super) fn assign_touched(&mut self, now: Moment) {
        for server in std::mem::take(&mut self.touched) {
            self.assign(&server, false, now);
        }
    }

    fn assign(&mut self, server: &ServerId, in_any_case: bool, now: Moment) {
        let Some(role) = self.wanted_role(server) else {
            return;
        };
        let (erase, erase_up_to) = self.to_be_erased(server);
        let stands = self.assignments.get(server).is_some_and(|current| {
            let as_far =
                |failover: &FailoverId| current.erase_up_to.get(failover) == erase_up_to.get(failover);
            covers(&current.role, &role) && erase.is_subset(&current.erase) && erase.iter().all(as_far)
        });
        if stands && !in_any_case {
            return;
        }
        self.stage_overlay_to(server, &role, now);
        let epoch = self.next_epoch();
        let assignment = Assignment {
            server: server.clone(),
            epoch,
            role,
            erase,
            erase_up_to,
        };
        self.assignments.insert(server.clone(), assignment.clone());
        self.save(Record::Assignment(assignment.clone()));
        self.publish(assignment, now);
    }

    /// What people changed during a failover goes to the server that films by it, before its assignment does.
    fn stage_overlay_to(&mut self, server: &ServerId, role: &Role, now: Moment) {
        let settings = role.identity().and_then(|identity| self.overlays.get(identity));
        let films_by_it = |settings: &&Arc<Settings>| match role {
            Role::Films(films) => films.settings == settings.hash,
            Role::Standby | Role::Erases { .. } | Role::HandsBack { .. } => false,
        };
        if let Some(settings) = settings.filter(films_by_it).cloned() {
            self.stage(server, &settings, now);
        }
    }

    /// Epochs are persisted before use: the record comes before whatever bears it, in the same transaction.
    pub(super) fn next_epoch(&mut self) -> Epoch {
        self.epoch = self.epoch.next();
        self.save(Record::Epoch(self.epoch));
        self.epoch
    }

    fn publish(&mut self, assignment: Assignment, now: Moment) {
        if let Some(member) = self.members.get_mut(&assignment.server) {
            member.published_at = Some(now.monotonic);
        }
        self.out.push(Effect::Assign(assignment));
    }

    /// A last word to a server that is removed: it stands down, and keeps its archive but for what a person said
    /// to drop.
    pub(super) fn stand_down(&mut self, server: &ServerId) -> Assignment {
        let epoch = self.next_epoch();
        let (erase, erase_up_to) = self.to_be_erased(server);
        let assignment = Assignment {
            server: server.clone(),
            epoch,
            role: Role::Standby,
            erase,
            erase_up_to,
        };
        self.out.push(Effect::Assign(assignment.clone()));
        assignment
    }

    /// What a server is to be, by the state of the failovers; none for one that takes no part.
    fn wanted_role(&self, server: &ServerId) -> Option<Role> {
        let member = self.members.get(server)?;
        Some(match member.server.mode {
            Mode::Host => return None,
            Mode::Failover | Mode::Inactive if self.erasing.contains_key(server) => Role::Erases {
                erasure: self.erasing[server].clone(),
            },
            Mode::Inactive => Role::Standby,
            _ if !member.server.enabled => Role::Standby,
            Mode::Recording => self.role_of_original(server)?,
            Mode::Failover => self.role_of_stand_in(server),
        })
    }

    fn role_of_original(&self, server: &ServerId) -> Option<Role> {
        let failover = self.failover_of(server);
        if failover.is_some_and(|failover| !failover.original_films()) {
            return Some(Role::Standby);
        }
        let settings = match failover {
            Some(failover) => failover.settings.clone(),
            None => self.settings.get(server)?.hash.clone(),
        };
        Some(Role::Films(Films {
            identity: server.clone(),
            settings,
            range: Range::Full,
            disabled: failover.map(Failover::left_by_original).unwrap_or_default(),
            failover: None,
            restore: failover.and_then(|failover| self.restore_from(failover)),
            keep: self.holding_in(server, Holding::Keeps),
        }))
    }

    fn restore_from(&self, failover: &Failover) -> Option<Restore> {
        let source = failover.source.as_ref().filter(|_| failover.phase.hands_back())?;
        Some(Restore {
            failover: failover.id.clone(),
            source: source.clone(),
            address: self.members.get(source)?.server.sync_address.clone(),
        })
    }

    fn role_of_stand_in(&self, server: &ServerId) -> Role {
        let held = self.holding_of(server);
        match held {
            Some((failover, Holding::Films)) => Role::Films(Films {
                identity: failover.server.clone(),
                settings: match self.overlays.get(&failover.server) {
                    Some(settings) => settings.hash.clone(),
                    None => failover.settings.clone(),
                },
                range: failover.range,
                disabled: failover
                    .stand_in()
                    .map(|holder| holder.disabled.iter().cloned().collect())
                    .unwrap_or_default(),
                failover: Some(failover.id.clone()),
                restore: None,
                keep: BTreeSet::new(),
            }),
            Some((failover, Holding::Owes)) => Role::HandsBack {
                failover: failover.id.clone(),
            },
            Some((_, Holding::Erases | Holding::Keeps | Holding::Done)) | None => Role::Standby,
        }
    }

    /// The failover that keeps a failover server busy, with its part in it.
    pub(super) fn holding_of(&self, server: &ServerId) -> Option<(&Failover, Holding)> {
        let failover = self.failovers.get(self.busy.get(server)?)?;
        Some((failover, failover.holding(server)?))
    }

    /// The failovers whose recordings a server is to erase, and up to which beginning those arrived that did.
    fn to_be_erased(&self, server: &ServerId) -> (BTreeSet<FailoverId>, BTreeMap<FailoverId, u64>) {
        let erase = self.holding_in(server, Holding::Erases);
        let arrived = erase.iter().filter_map(|id| {
            let mut holders = self.failovers.get(id)?.holders.iter();
            let up_to = holders.find(|holder| holder.server == *server)?.arrived_up_to?;
            Some((id.clone(), up_to))
        });
        let arrived = arrived.collect();
        (erase, arrived)
    }

    /// The failovers in which a server has that part.
    fn holding_in(&self, server: &ServerId, part: Holding) -> BTreeSet<FailoverId> {
        self.unsettled
            .iter()
            .filter_map(|id| self.failovers.get(id))
            .filter(|failover| failover.holding(server) == Some(part))
            .map(|failover| failover.id.clone())
            .collect()
    }

    /// The failover of a recording server that has not ended.
    pub(super) fn failover_of(&self, server: &ServerId) -> Option<&Failover> {
        self.unsettled
            .iter()
            .filter_map(|id| self.failovers.get(id))
            .find(|failover| failover.server == *server && !failover.phase.is_final())
    }

    /// A server knows an epoch that was never given out here: the counter can't be trusted, so a new term
    /// begins and every server hears of it. The same if a server was told two things by one epoch.
    pub(super) fn check_epoch(&mut self, report: &ServerReport, now: Moment) {
        // A restored host may have counted on past what it gave out before: what this server says must be no newer
        // than what it was given.
        let own = self
            .assignments
            .get(&report.server)
            .map_or(self.epoch, |own| own.epoch);
        let above = report.epoch.max(report.outlived).filter(|epoch| *epoch > own);
        let conflict = report.conflict.filter(|epoch| {
            self.assignments
                .get(&report.server)
                .is_some_and(|own| own.epoch == *epoch)
        });
        // The same epoch, and another identity than it gives: the server was given it by a host of before.
        let contradicted = report.epoch.filter(|epoch| {
            let own = self
                .assignments
                .get(&report.server)
                .filter(|own| own.epoch == *epoch);
            let bears = report.identity.as_ref();
            bears.is_some() && own.is_some_and(|own| own.role.identity() != bears)
        });
        if let Some(seen) = above.or(conflict).or(contradicted) {
            self.begin_term(seen, now);
        }
    }

    /// Everything is told anew, by epochs above one that can't be relied on.
    pub(super) fn begin_term(&mut self, seen: Epoch, now: Moment) {
        self.epoch = Epoch::next_term(seen.max(self.epoch));
        self.save(Record::Epoch(self.epoch));
        for server in self.members.keys().cloned().collect::<Vec<_>>() {
            self.assign(&server, true, now);
        }
        self.touched.clear();
    }

    /// Sends its assignment again to a server that is heard without it.
    pub(super) fn republish(&mut self, server: &ServerId, reached: Option<Epoch>, now: Moment) {
        let Some(assignment) = self.assignments.get(server) else {
            return;
        };
        let otherwise = self.runs_otherwise(assignment) || self.films_nothing(assignment);
        let otherwise = otherwise && reached == Some(assignment.epoch);
        if self.stays_otherwise(server, otherwise, now) {
            return self.assign(server, true, now);
        }
        let Some(assignment) = self.assignments.get(server) else {
            return;
        };
        let published_at = self.members[server].published_at;
        let recently = published_at.is_some_and(|at| now.monotonic.since(at) < REPUBLISH);
        // Once after each start in any case: a host that was restored may have given one epoch out twice, and the
        // server tells when it hears the second.
        let behind = reached.is_none_or(|epoch| epoch < assignment.epoch)
            || published_at.is_none()
            || self.runs_otherwise(assignment);
        if behind && !recently {
            self.publish(assignment.clone(), now);
        }
    }

    /// Whether a server is to film, and says that it bears no identity: it has no settings yet, or was given the same
    /// epoch by a host of before, to stand by.
    fn films_nothing(&self, assignment: &Assignment) -> bool {
        let member = self.members.get(&assignment.server);
        let report = member.and_then(|member| member.report.as_ref());
        assignment.role.identity().is_some() && report.is_some_and(|report| report.identity.is_none())
    }

    /// Whether a server has gone on otherwise than its assignment says for longer than being on the way takes: an older
    /// version, which does not say that it was told two things by one epoch. A newer epoch with the same contents is
    /// one that it takes.
    fn stays_otherwise(&mut self, server: &ServerId, otherwise: bool, now: Moment) -> bool {
        let Some(member) = self.members.get_mut(server) else {
            return false;
        };
        if !otherwise {
            member.otherwise_since = None;
            return false;
        }
        let since = *member.otherwise_since.get_or_insert(now.monotonic);
        let stays = now.monotonic.since(since) >= STUBBORN;
        if stays {
            member.otherwise_since = None;
        }
        stays
    }

    /// Whether a server says that it has its assignment and runs other settings, or has what it is to erase: it is on
    /// its way, or it was given the same epoch by a host of before, and says so when it hears this one's.
    fn runs_otherwise(&self, assignment: &Assignment) -> bool {
        let report = self
            .members
            .get(&assignment.server)
            .and_then(|member| member.report.as_ref());
        let runs = report.and_then(|report| report.settings.as_ref());
        // What it is to erase it still has: it is at it, or knows nothing of it.
        let has = |failover: &FailoverId| {
            report.is_some_and(|report| {
                let holds = report.closed.contains(failover) || report.open.contains(failover);
                holds && !report.spared.contains(failover)
            })
        };
        let otherwise = match &assignment.role {
            Role::Films(films) => {
                runs.is_some_and(|runs| *runs != films.settings) || films.keep.iter().any(has)
            }
            Role::Erases { .. } => report.is_some_and(|report| report.erased.is_none()),
            Role::Standby | Role::HandsBack { .. } => runs.is_some(),
        };
        otherwise || assignment.erase.iter().any(has)
    }

    /// Computes the settings of recording servers anew, after a change of their name or cameras.
    pub(super) fn renew_settings_of(&mut self, servers: &[ServerId]) {
        let wanted: BTreeSet<&ServerId> = servers.iter().collect();
        let mut cameras: BTreeMap<&ServerId, Vec<_>> = Default::default();
        for camera in self.cameras.values() {
            if wanted.contains(&camera.server) {
                cameras.entry(&camera.server).or_default().push(camera.clone());
            }
        }
        for server in servers {
            let Some(member) = self.members.get(server) else {
                self.settings.remove(server);
                continue;
            };
            if member.server.mode != Mode::Recording {
                continue;
            }
            let bundle = Bundle {
                identity: server.clone(),
                name: member.server.name.clone(),
                cameras: cameras.remove(server).unwrap_or_default(),
            };
            self.settings
                .insert(server.clone(), Arc::new(Settings::of(bundle)));
        }
        servers.iter().for_each(|server| self.renew_overlay_of(server));
    }

    /// Sends a recording server's settings to itself and to its paired failover servers.
    pub(super) fn stage_settings_of(&mut self, identity: &ServerId, now: Moment) {
        let Some(settings) = self.settings.get(identity).cloned() else {
            return;
        };
        let receivers = self.paired_with(identity).into_iter().chain([identity.clone()]);
        for server in receivers.collect::<Vec<_>>() {
            self.stage(&server, &settings, now);
        }
    }

    pub(super) fn stage(&mut self, server: &ServerId, settings: &Settings, now: Moment) {
        let Some(member) = self.members.get_mut(server) else {
            return;
        };
        let recently = member
            .staged
            .get(&settings.hash)
            .is_some_and(|at| now.monotonic.since(*at) < STAGE_AGAIN);
        if recently {
            return;
        }
        member.staged.insert(settings.hash.clone(), now.monotonic);
        self.out.push(Effect::Stage {
            server: server.clone(),
            bundle: settings.bundle.clone(),
        });
    }

    /// Sends a server that is heard whatever settings it may need and does not have.
    pub(super) fn stage_what_lacks(&mut self, report: &ServerReport, now: Moment) {
        let server = &report.server;
        if let Some(member) = self.members.get_mut(server) {
            member.staged.retain(|hash, _| !report.bundles.contains(hash));
        }
        let serves = self
            .holding_of(server)
            .filter(|(_, holding)| *holding == Holding::Films);
        let overlaid = serves
            .and_then(|(failover, _)| self.overlays.get(&failover.server))
            .into_iter();
        let lacking: Vec<Arc<Settings>> = self
            .settings
            .iter()
            .filter(|(_, settings)| !report.bundles.contains(&settings.hash))
            .filter(|(identity, _)| *identity == server || self.is_paired(identity, server))
            .map(|(_, settings)| settings)
            .chain(overlaid.filter(|settings| !report.bundles.contains(&settings.hash)))
            .cloned()
            .collect();
        for settings in lacking {
            self.stage(server, &settings, now);
        }
    }

    /// The failover servers that a recording server is paired with.
    pub(super) fn paired_with(&self, server: &ServerId) -> BTreeSet<ServerId> {
        match self.protections.get(server).map(|protection| &protection.pairing) {
            Some(Pairing::All) => self.stand_ins.clone(),
            Some(Pairing::Servers(chosen)) => chosen.intersection(&self.stand_ins).cloned().collect(),
            None => BTreeSet::new(),
        }
    }

    pub(super) fn is_paired(&self, recording: &ServerId, stand_in: &ServerId) -> bool {
        self.stand_ins.contains(stand_in)
            && match self
                .protections
                .get(recording)
                .map(|protection| &protection.pairing)
            {
                Some(Pairing::All) => true,
                Some(Pairing::Servers(chosen)) => chosen.contains(stand_in),
                None => false,
            }
    }
}

/// Whether a server that has been given one role need not be given the other: what it was to keep, it has kept.
fn covers(given: &Role, wanted: &Role) -> bool {
    match (given, wanted) {
        (Role::Films(given), Role::Films(wanted)) => {
            let rest = Films {
                keep: given.keep.clone(),
                ..wanted.clone()
            };
            wanted.keep.is_subset(&given.keep) && *given == rest
        }
        _ => given == wanted,
    }
}
