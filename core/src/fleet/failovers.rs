//! Moves every failover on, and carries out what follows.

use std::{collections::BTreeSet, time::Duration};

use super::{Effect, Fleet, Record};
use crate::{
    assignment::Role,
    contract::{
        event::Event,
        heartbeat::{RestorationReport, ServerReport},
        rpc::LicenseRequest,
    },
    failover::{Around, Failover, Holding, Side},
    ids::{CameraId, FailoverId, ServerId},
    selection::{self, Candidate, Selection},
    server::Mode,
    settings::BundleHash,
    time::Moment,
};

/// How often the ledger is asked again until it answers.
const ASK_AGAIN: Duration = Duration::from_secs(2);
/// The shortest time that a failover server has to take its assignment in.
const LEAST_PATIENCE: Duration = Duration::from_secs(5);
/// More transitions than any failover can make at once; beyond them something is wrong, and time will pass.
const MOST_TRANSITIONS: usize = 8;

impl Fleet {
    /// Makes all transitions that are due; after each, the servers whose part has changed are told.
    pub(super) fn proceed(&mut self, now: Moment) {
        self.assign_touched(now);
        for id in self.unsettled.iter().cloned().collect::<Vec<_>>() {
            for _ in 0..MOST_TRANSITIONS {
                if !self.advance(&id, now) {
                    break;
                }
                self.assign_touched(now);
            }
            self.ask_ledger(&id, now);
        }
    }

    fn advance(&mut self, id: &FailoverId, now: Moment) -> bool {
        let Some(mut failover) = self.failovers.get(id).cloned() else {
            return false;
        };
        let events = self.advance_one(&mut failover, now);
        if self.failovers.get(id) == Some(&failover) {
            // What only this process remembers may have changed.
            self.failovers.insert(id.clone(), failover);
            return false;
        }
        self.keep(failover);
        self.tell(id, events, now);
        true
    }

    fn advance_one(&self, failover: &mut Failover, now: Moment) -> Vec<Event> {
        let before = failover.clone();
        // A recording server may be removed while its failover server still erases.
        let nothing = BTreeSet::new();
        let settings = self.settings.get(&failover.server);
        let overlaid = self.settings_for_stand_in(&failover.server);
        let protection = self
            .protections
            .get(&failover.server)
            .cloned()
            .unwrap_or_default();
        let patience = protection.policy.disconnection();
        let original = self.members.get(&failover.server);
        let lost: Vec<Option<String>> = before
            .holders
            .iter()
            .map(|holder| {
                self.members
                    .get(&holder.server)?
                    .trigger
                    .lost(patience, now.monotonic)
            })
            .collect();
        let around = Around {
            original: self.side(&failover.server, None, now),
            holders: before
                .holders
                .iter()
                .zip(&lost)
                .map(|(holder, lost)| self.side(&holder.server, lost.as_deref(), now))
                .collect(),
            cameras: settings.map_or(&nothing, |settings| &settings.enabled),
            stand_in_cameras: overlaid.map_or(&nothing, |settings| &settings.enabled),
            one_session: settings.map_or(&nothing, |settings| &settings.one_session),
            cause: self.cause_of(&failover.server, now),
            cleared: original.is_some_and(|original| {
                let trigger = &original.trigger;
                trigger.has_cleared(before.reason.kind, &protection.policy, now)
            }),
            unsettled: match self.maintenance.contains_key(&failover.server) {
                true => Some("end its maintenance".to_owned()),
                false => original
                    .filter(|original| !original.trigger.has_settled(now.monotonic))
                    .map(|original| original.trigger.what_settles(now.monotonic)),
            },
            reopens: self.reopens(&before),
            stop_automatically: protection.policy.stop_automatically,
            select: &|failover, but| self.select_for(failover, but, now),
            patience: patience.max(LEAST_PATIENCE),
            surplus: &|server| self.surplus_on(&before.server, server),
        };
        failover.advance(&around, now)
    }

    /// The settings by which a failover that is over could be handed back once more, or what that would wait for.
    fn reopens(&self, failover: &Failover) -> Result<BundleHash, String> {
        let server = &failover.server;
        let settings = self.settings.get(server).ok_or_else(|| {
            format!("{server} to be a recording server of the fleet again: recordings of it were not fetched")
        })?;
        match self.failover_of(server) {
            Some(other) if other.id != failover.id => Err(format!(
                "failover {} of {server} to end: then recordings that were not fetched are",
                other.id
            )),
            _ => Ok(settings.hash.clone()),
        }
    }

    fn side<'a>(&'a self, server: &ServerId, failed: Option<&'a str>, now: Moment) -> Side<'a> {
        Side {
            heard: self
                .members
                .get(server)
                .is_some_and(|member| member.trigger.is_heard(now.monotonic)),
            failed,
            connected: self
                .members
                .get(server)
                .is_some_and(|member| member.trigger.is_connected(now.monotonic)),
            maintenance: self.maintenance.contains_key(server),
            reached: self.reached(server),
            said: self.members.get(server).and_then(|member| member.report.as_ref()),
        }
    }

    /// What a server said last, if it had its newest assignment then.
    pub(super) fn reached(&self, server: &ServerId) -> Option<&ServerReport> {
        let report = self.members.get(server)?.report.as_ref()?;
        let assigned = self.assignments.get(server)?.epoch;
        report
            .epoch
            .is_some_and(|epoch| epoch >= assigned)
            .then_some(report)
    }

    /// Stores a failover that has changed, and touches the servers that take part in it.
    pub(super) fn keep(&mut self, failover: Failover) {
        self.touched.insert(failover.server.clone());
        self.touched
            .extend(failover.holders.iter().map(|holder| holder.server.clone()));
        if failover.is_settled() {
            self.unsettled.remove(&failover.id);
        } else {
            self.unsettled.insert(failover.id.clone());
        }
        failover.mark_busy(&mut self.busy);
        self.save(Record::Failover(Box::new(failover.clone())));
        let server = failover.server.clone();
        self.failovers.insert(failover.id.clone(), failover);
        self.renew_overlay_of(&server);
    }

    pub(super) fn tell(&mut self, id: &FailoverId, events: Vec<Event>, now: Moment) {
        let server = self.failovers[id].server.clone();
        for event in events {
            if let Event::FailoverStarted { stand_in, .. } = &event {
                self.last_used.insert(stand_in.clone(), self.epoch);
                self.save(Record::LastUsed(stand_in.clone(), self.epoch));
            }
            self.emit(&server, event, now);
        }
    }

    /// Chooses a failover server for a failover (A5), but not the one that has just been found wanting.
    fn select_for(&self, failover: &Failover, but: Option<&ServerId>, now: Moment) -> Selection {
        let mut candidates = self.candidates(&failover.server, Some(failover), now);
        for candidate in candidates.iter_mut().filter(|each| Some(&each.server) == but) {
            candidate.unavailable = Some("does not take its assignment".to_owned());
        }
        if let Some(wanted) = &failover.wanted {
            candidates.retain(|candidate| candidate.server == *wanted);
        }
        self.select_among(&failover.server, &candidates)
    }

    pub(super) fn select_among(&self, server: &ServerId, candidates: &[Candidate]) -> Selection {
        let Some(member) = self.members.get(server) else {
            return Selection::default();
        };
        let cameras = self
            .settings_for_stand_in(server)
            .map_or(0, |settings| settings.enabled.len());
        selection::select(
            u32::try_from(cameras).unwrap_or(u32::MAX),
            &member.server.domain,
            candidates,
        )
    }

    /// The paired failover servers of a recording server, and why each can't be chosen now.
    pub(super) fn candidates(
        &self,
        server: &ServerId,
        failover: Option<&Failover>,
        now: Moment,
    ) -> Vec<Candidate> {
        self.paired_with(server)
            .into_iter()
            .filter_map(|id| self.members.get(&id))
            .map(|member| Candidate {
                server: member.server.id.clone(),
                domain: member.server.domain.clone(),
                max_cameras: self.room_on(&member.server.id),
                last_used: self.last_used.get(&member.server.id).copied(),
                unavailable: self.unavailable(&member.server.id, failover, now),
            })
            .collect()
    }

    fn unavailable(&self, server: &ServerId, failover: Option<&Failover>, now: Moment) -> Option<String> {
        let member = self.members.get(server)?;
        if !member.server.enabled {
            return Some("is switched off".to_owned());
        }
        if member.server.mode != Mode::Failover {
            return Some("is no failover server".to_owned());
        }
        if let Some(maintenance) = self.maintenance_of(server) {
            return Some(format!("is in maintenance: {}", maintenance.why));
        }
        if self.erasing.contains_key(server) {
            return Some("has still to erase its data".to_owned());
        }
        // It may serve the same failover again, unless its copies are just being erased.
        let busy = self.holding_of(server).filter(|(busy_with, holding)| {
            failover.is_none_or(|own| own.id != busy_with.id) || *holding == Holding::Erases
        });
        match busy {
            Some((busy_with, Holding::Films)) => Some(format!("serves {}", busy_with.server)),
            Some((busy_with, Holding::Owes)) => Some(format!("restores {}", busy_with.server)),
            Some((busy_with, _)) => Some(format!("erases its copies of {}", busy_with.server)),
            None => member.trigger.unfit(now.monotonic),
        }
    }

    /// The most cameras that a server can run: the least of what it says and what it is enrolled with.
    pub(super) fn room_on(&self, server: &ServerId) -> u32 {
        let Some(member) = self.members.get(server) else {
            return 0;
        };
        let said = member.report.as_ref().and_then(|report| report.max_cameras);
        said.map_or(member.server.max_cameras, |said| {
            said.min(member.server.max_cameras)
        })
    }

    pub(super) fn surplus_on(&self, identity: &ServerId, stand_in: &ServerId) -> Vec<CameraId> {
        match self.settings_for_stand_in(identity) {
            Some(settings) => selection::surplus(&settings.bundle.cameras, self.room_on(stand_in)),
            None => Vec::new(),
        }
    }

    pub(super) fn restoration(&mut self, report: &RestorationReport, now: Moment) {
        let Some(mut failover) = self.failovers.get(&report.failover).cloned() else {
            return;
        };
        let Some(assignment) = self.assignments.get(&failover.server) else {
            return;
        };
        let restores = matches!(&assignment.role, Role::Films(films) if films.restore.is_some());
        if !restores || !failover.phase.hands_back() {
            return;
        }
        let events = failover.restoration(report, assignment.epoch, now);
        let id = failover.id.clone();
        if self.failovers.get(&id) != Some(&failover) {
            self.keep(failover);
        }
        self.tell(&id, events, now);
    }

    fn ask_ledger(&mut self, id: &FailoverId, now: Moment) {
        let Some(request) = self.failovers.get(id).and_then(Failover::license_request) else {
            return;
        };
        let (LicenseRequest::Transfer { failover, .. }
        | LicenseRequest::Replace { failover, .. }
        | LicenseRequest::GiveBack { failover }) = &request
        else {
            return;
        };
        if self.waits_for_keys(id, &request) {
            return;
        }
        let recently = self
            .asked
            .get(failover)
            .is_some_and(|at| now.monotonic.since(*at) < ASK_AGAIN);
        if !recently {
            self.asked.insert(failover.clone(), now.monotonic);
            self.out.push(Effect::License(request));
        }
    }

    /// Whether a server's keys are not its own yet, since it has only just taken another's place: an earlier failover
    /// has still to say so, or they would be moved on before they have come.
    fn waits_for_keys(&self, id: &FailoverId, request: &LicenseRequest) -> bool {
        let (LicenseRequest::Transfer { from, .. } | LicenseRequest::Replace { from, .. }) = request else {
            return false;
        };
        let order = |failover: &Failover| (failover.started_at, failover.id.clone());
        let own = self.failovers.get(id).map(order);
        self.unsettled_failovers()
            .filter(|other| own.as_ref().is_some_and(|own| order(other) < *own))
            .any(|other| other.takes_keys_for(from))
    }

    pub(super) fn licenses_moved(&mut self, id: &FailoverId, given_back: bool, devices: u32, now: Moment) {
        self.asked.remove(id);
        let owner = self
            .unsettled_failovers()
            .find(|failover| failover.moves.iter().any(|each| each.id == *id))
            .cloned();
        let Some(mut failover) = owner else {
            return;
        };
        let event = failover.licenses_moved(id, given_back, devices);
        if let Some(Event::LicenseTransferred {
            from, to, devices, ..
        }) = &event
        {
            let what = format!("licences for {devices} device(s) moved from {from} to {to}");
            failover.say(what, now);
        }
        let failover_id = failover.id.clone();
        if self.failovers.get(&failover_id) != Some(&failover) {
            self.keep(failover);
        }
        self.tell(&failover_id, event.into_iter().collect(), now);
    }

    /// The next try comes with a tick; the failover says once why it has to be made.
    pub(super) fn license_failed(&mut self, id: &FailoverId, why: &str, now: Moment) {
        self.asked.insert(id.clone(), now.monotonic);
        let owner = self
            .unsettled_failovers()
            .find(|failover| failover.moves.iter().any(|each| each.id == *id))
            .cloned();
        if let Some(mut failover) = owner
            && failover.licenses_failed(why, now)
        {
            self.keep(failover);
        }
    }

    pub(super) fn unsettled_failovers(&self) -> impl Iterator<Item = &Failover> {
        self.unsettled.iter().filter_map(|id| self.failovers.get(id))
    }
}
