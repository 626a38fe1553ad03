//! Servers that are none of the fleet any more: removed, or replaced for good (H2). What is known of them is by whom,
//! and the word that they are to stand down, so that one that comes back a month later is told.
//!
//! Only who was parted with is told. A server that this host knows nothing of is left alone: a host that was restored
//! from a backup of before its enrolment must not stop it filming.

use serde::{Deserialize, Serialize};

use super::{Effect, Fleet, Record};
use crate::{
    assignment::Assignment,
    contract::{
        api::DomainView,
        event::{Event, Fact},
        heartbeat::ServerReport,
    },
    ids::{DomainId, FailoverId, ServerId},
    server::Mode,
    time::{Moment, Timestamp},
};

/// A server that is none of the fleet any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gone {
    /// Which.
    pub server: ServerId,
    /// Since when.
    pub at: Timestamp,
    /// Who took its place; none if it was removed.
    pub replaced: Option<Replaced>,
    /// The last that it is to hear.
    pub assignment: Assignment,
    /// When it came back and filmed as before.
    pub returned_at: Option<Timestamp>,
}

/// Who took a server's place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replaced {
    /// Who.
    pub successor: ServerId,
    /// In the course of which failover.
    pub failover: FailoverId,
    /// The place that the successor left, if it was a failover server.
    pub vacancy: Option<Vacancy>,
}

/// A failover server's place that is empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vacancy {
    /// Where.
    pub domain: DomainId,
    /// How many failover servers there were.
    pub had: u32,
}

impl Fleet {
    /// A server is none of the fleet any more: it is told so now, and again if it comes back without knowing.
    pub(super) fn part_with(&mut self, id: &ServerId, replaced: Option<Replaced>, now: Moment) {
        let assignment = self.stand_down(id);
        self.forget_holder(id);
        for kind in [
            "server",
            "protection",
            "assignment",
            "last_used",
            "heard",
            "dismissed",
            "erasing",
            "maintenance",
        ] {
            self.delete(kind, id.as_str());
        }
        self.members.remove(id);
        self.stand_ins.remove(id);
        self.settings.remove(id);
        self.overlays.remove(id);
        self.protections.remove(id);
        self.assignments.remove(id);
        self.last_used.remove(id);
        self.dismissed.remove(id);
        self.erasing.remove(id);
        self.maintenance.remove(id);
        self.unpair(id);
        self.told.insert(id.clone(), now.monotonic);
        self.note_gone(Gone {
            server: id.clone(),
            at: now.wall,
            replaced,
            assignment,
            returned_at: None,
        });
    }

    /// A server is one of the fleet again.
    pub(super) fn take_back(&mut self, id: &ServerId) {
        self.told.remove(id);
        if self.gone.remove(id).is_some() {
            self.delete("gone", id.as_str());
        }
    }

    fn note_gone(&mut self, gone: Gone) {
        self.save(Record::Gone(gone.clone()));
        self.gone.insert(gone.server.clone(), gone);
    }

    /// A server that is none of the fleet any more says how it is: unless it stands down already, it is told to.
    pub(super) fn reported_by_gone(&mut self, report: &ServerReport, now: Moment) {
        let Some(mut gone) = self.gone.get(&report.server).cloned() else {
            return;
        };
        let films = report.identity.is_some() || report.settings.is_some();
        let told = gone.assignment.epoch;
        let stands_down = !films && report.epoch.is_some_and(|epoch| epoch >= told);
        if stands_down {
            return;
        }
        let recently = self
            .told
            .get(&gone.server)
            .is_some_and(|at| now.monotonic.since(*at) < super::assign::REPUBLISH);
        if recently {
            return;
        }
        if films && gone.returned_at.is_none() {
            gone.returned_at = Some(now.wall);
            let event = Event::ServerReturned {
                server: gone.server.clone(),
                replaced_by: gone.replaced.as_ref().map(|replaced| replaced.successor.clone()),
            };
            self.note_gone(gone.clone());
            self.out.push(Effect::Emit(Fact {
                domain: report.domain.clone(),
                at: now.wall,
                event,
            }));
        }
        // It may know epochs that a restored host has given to nobody, or this very one from a host of before.
        let seen = report.epoch.max(report.outlived).filter(|seen| *seen >= told);
        if let Some(seen) = seen {
            if seen > self.epoch {
                self.begin_term(seen, now);
            }
            gone.assignment.epoch = self.next_epoch();
            self.note_gone(gone.clone());
        }
        self.told.insert(gone.server.clone(), now.monotonic);
        self.out.push(Effect::Assign(gone.assignment));
    }

    /// What of those that are gone a person should know of the server that took their place.
    pub(super) fn warnings_of_gone(&self, successor: &ServerId) -> impl Iterator<Item = String> {
        self.gone.values().filter_map(move |gone| {
            let replaced = gone.replaced.as_ref()?;
            let returned = (replaced.successor == *successor && gone.returned_at.is_some())
                .then_some(&gone.server)?;
            Some(format!(
                "{returned}, whose place it took, came back and was told to stand down: it is no server of the fleet"
            ))
        })
    }

    /// The places of failover servers that have taken a recording server's place for good, for as long as nobody
    /// fills them.
    pub(super) fn show_vacancies(&self, domains: &mut [DomainView]) {
        for gone in self.gone.values() {
            let Some(replaced) = &gone.replaced else { continue };
            let Some(vacancy) = &replaced.vacancy else {
                continue;
            };
            let there = self
                .servers()
                .filter(|server| server.mode == Mode::Failover && server.domain == vacancy.domain)
                .count();
            let filled = u32::try_from(there).unwrap_or(u32::MAX) >= vacancy.had;
            let domain = domains.iter_mut().find(|domain| domain.id == vacancy.domain);
            if let Some(domain) = domain.filter(|_| !filled) {
                domain.gaps.push(format!(
                    "{} was a failover server and has taken the place of {} for good: domain {} has {there} failover \
                     server(s) where it had {}",
                    replaced.successor, gone.server, domain.id, vacancy.had
                ));
            }
        }
    }
}
