//! What comes in from monitor and servers, and the failovers that begin because of it.

use std::time::Duration;

use super::{Fleet, Record, RecordKey};
use crate::{
    contract::{
        api::{FailoverReason, Phase, ReasonKind, StartMode},
        heartbeat::{Observation, ServerReport, Started},
    },
    failover::{Beginning, Failover, begin::films_on},
    ids::{FailoverId, ServerId},
    policy::Policy,
    server::Mode,
    time::Moment,
    trigger::Cause,
};

/// Earlier starts of a recording service that are remembered, so that late reports of theirs are known as such.
const INCARNATIONS: usize = 8;
/// How often it is looked at who is protected.
const CHECK_PROTECTION: Duration = Duration::from_secs(1);

/// What a person who starts a failover says.
#[derive(Default)]
pub(super) struct ByHand {
    pub(super) by: Option<String>,
    pub(super) wanted: Option<ServerId>,
    pub(super) mode: StartMode,
}

impl Fleet {
    pub(super) fn tick(&mut self, fresh: &FailoverId, now: Moment) {
        self.end_due_maintenance(now);
        let mut begun = 0;
        for server in self.members.keys().cloned().collect::<Vec<_>>() {
            if self.begin_if_due(&server, &numbered(fresh, begun), now) {
                begun += 1;
            }
        }
        let due = self
            .protection_checked
            .is_none_or(|at| now.monotonic.since(at) >= CHECK_PROTECTION);
        if due {
            self.protection_checked = Some(now.monotonic);
            self.check_protection(now);
        }
    }

    pub(super) fn observed(&mut self, observation: Observation, fresh: &FailoverId, now: Moment) {
        let server = observation.server.clone();
        let Some(member) = self.members.get_mut(&server) else {
            return;
        };
        let heard_before = member.trigger.ever_heard();
        let started = observation.started.clone().filter(|_| !observation.blind);
        let has_started = started.is_some() && member.started != started;
        if has_started {
            member.started.clone_from(&started);
        }
        member.trigger.observe(observation, now.monotonic);
        if !heard_before && member.trigger.ever_heard() {
            self.save(Record::Heard(server.clone()));
        }
        if has_started && let Some(started) = started {
            self.note_start(&server, &started, now);
        }
        self.note_condition(&server, heard_before, now);
        self.begin_if_due(&server, fresh, now);
    }

    /// A recording server that has been failed over is back, and knows how it went: that completes the reason (C7).
    fn note_start(&mut self, server: &ServerId, started: &Started, now: Moment) {
        let Some(before) = started.before else { return };
        let Some(mut failover) = self.failover_of(server).cloned() else {
            return;
        };
        failover.say(format!("{server} has started again: it {}", before.words()), now);
        self.keep(failover);
    }

    /// Begins a failover if there is a reason for one; answers whether it did.
    fn begin_if_due(&mut self, server: &ServerId, fresh: &FailoverId, now: Moment) -> bool {
        let Some(member) = self.members.get(server) else {
            return false;
        };
        if member.server.mode != Mode::Recording || !member.server.enabled {
            return false;
        }
        self.count_faults(server, now);
        self.forgive(server, now);
        let Some(cause) = self.cause_of(server, now) else {
            return false;
        };
        // With nobody to wait for, there is nothing that a failover could do.
        if self.failover_of(server).is_some() || self.paired_with(server).is_empty() {
            return false;
        }
        self.begin(server, cause, ByHand::default(), fresh.clone(), now);
        true
    }

    fn count_faults(&mut self, server: &ServerId, now: Moment) {
        let policy = self.protections.get(server).map(|protection| &protection.policy);
        // What happens during its maintenance is no fault of the server: by this policy nothing is a reason.
        let excused = Policy::default();
        let policy = match self.maintenance.contains_key(server) {
            true => Some(&excused),
            false => policy,
        };
        if let (Some(policy), Some(member)) = (policy, self.members.get_mut(server)) {
            member.trigger.count_faults(policy, now);
        }
    }

    /// The reason for a failover of a recording server that holds now, unless a person dismissed it or the server is
    /// in maintenance.
    pub(super) fn cause_of(&self, server: &ServerId, now: Moment) -> Option<Cause> {
        match self.maintenance.contains_key(server) {
            true => None,
            false => self.reason_of(server, now),
        }
    }

    /// The same, maintenance or not.
    pub(super) fn reason_of(&self, server: &ServerId, now: Moment) -> Option<Cause> {
        let policy = &self.protections.get(server)?.policy;
        let cause = self.members.get(server)?.trigger.cause(policy, now)?;
        (self.dismissed.get(server) != Some(&cause.reason.kind)).then_some(cause)
    }

    /// A reason that was dismissed counts again once it has cleared.
    fn forgive(&mut self, server: &ServerId, now: Moment) {
        let Some(kind) = self.dismissed.get(server) else {
            return;
        };
        let policy = self
            .protections
            .get(server)
            .map(|protection| protection.policy.clone())
            .unwrap_or_default();
        let trigger = &self.members[server].trigger;
        // Whatever else is wrong with a server that is heard again: its next silence is another one.
        let cleared = match kind {
            ReasonKind::Disconnection => trigger.has_returned(now),
            _ => trigger.has_cleared(*kind, &policy, now),
        };
        if cleared {
            self.dismissed.remove(server);
            self.out.push(super::Effect::Delete(RecordKey::new(
                "dismissed",
                server.as_str(),
            )));
        }
    }

    /// A person ends a failover although its reason holds: the reason must not start it again at once.
    pub(super) fn dismiss(&mut self, server: &ServerId, now: Moment) {
        if let Some(cause) = self.cause_of(server, now) {
            self.dismissed.insert(server.clone(), cause.reason.kind);
            self.save(Record::Dismissed(server.clone(), cause.reason.kind));
        }
    }

    pub(super) fn begin(
        &mut self,
        server: &ServerId,
        cause: Cause,
        by_hand: ByHand,
        id: FailoverId,
        now: Moment,
    ) {
        let Some(settings) = self.settings.get(server) else {
            return;
        };
        let policy = self
            .protections
            .get(server)
            .map(|protection| protection.policy.clone())
            .unwrap_or_default();
        let beginning = Beginning {
            id,
            server: server.clone(),
            overlap: films_on(cause.reason.kind),
            cause,
            by: by_hand.by,
            wanted: by_hand.wanted,
            settings: settings.hash.clone(),
            range: policy.range,
            failback: policy.failback,
            planned: by_hand.mode == StartMode::Planned,
            one_session: settings.one_session.clone(),
        };
        let failover = Failover::begin(beginning, now);
        self.keep(failover);
    }

    pub(super) fn reported(&mut self, report: ServerReport, now: Moment) {
        if !self.members.contains_key(&report.server) {
            return self.reported_by_gone(&report, now);
        }
        if !self.is_news(&report) {
            return;
        }
        self.check_epoch(&report, now);
        self.stage_what_lacks(&report, now);
        self.note_report(&report, now);
        self.note_erased(&report);
        let server = report.server.clone();
        let reached = report.epoch;
        if let Some(member) = self.members.get_mut(&server) {
            member.others.retain(|(other, _)| *other != report.incarnation);
            let before = member.report.replace(report);
            let now_known = member.report.as_ref().map(|report| &report.incarnation);
            if let Some(before) = before.filter(|before| Some(&before.incarnation) != now_known) {
                member.others.push_back((before.incarnation, before.sequence));
                let surplus = member.others.len().saturating_sub(INCARNATIONS);
                member.others.drain(..surplus);
            }
        }
        self.republish(&server, reached, now);
    }

    /// Whether a report is newer than what is known: reports may come late, twice and out of order. Which of
    /// two starts of a server is the later one can't be told; but only the one that lives counts on, so that a
    /// late word of a dead one holds until the next of the living at most.
    fn is_news(&self, report: &ServerReport) -> bool {
        let Some(member) = self.members.get(&report.server) else {
            return false;
        };
        let known = member
            .report
            .iter()
            .map(|known| (&known.incarnation, known.sequence));
        let others = member.others.iter().map(|(other, sequence)| (other, *sequence));
        known
            .chain(others)
            .find(|(incarnation, _)| **incarnation == report.incarnation)
            .is_none_or(|(_, sequence)| report.sequence > sequence)
    }

    /// What a person's request is as a reason.
    pub(super) fn asked_for(by: &str, now: Moment) -> Cause {
        let summary = format!("started by {by}");
        Cause {
            reason: FailoverReason {
                kind: ReasonKind::Manual,
                evidence: vec![crate::contract::heartbeat::Evidence {
                    at: now.wall,
                    observer: by.to_owned(),
                    seen: "asked for a failover".to_owned(),
                }],
                summary,
            },
            lasts: Duration::ZERO,
        }
    }

    /// The failover that keeps a server's settings from being changed.
    pub(super) fn is_busy(&self, server: &ServerId) -> Option<&Failover> {
        self.failover_of(server)
            .filter(|failover| failover.phase != Phase::Selecting)
    }
}

fn numbered(fresh: &FailoverId, begun: usize) -> FailoverId {
    match begun {
        0 => fresh.clone(),
        more => FailoverId::new(format!("{fresh}-n{more}")).unwrap_or_else(|_| fresh.clone()),
    }
}
