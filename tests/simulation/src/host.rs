//! The host: orchestrator and monitor, with one database and its outbox.

use std::collections::{BTreeMap, VecDeque};

use understudy_core::{
    assignment::Assignment,
    contract::{event::Fact, rpc::LicenseRequest},
    fleet::{Effect, Fleet, Record, RecordKey},
    ids::ServerId,
    presence::Presence,
    settings::Bundle,
    time::Moment,
};

use crate::bug::Bug;

/// What waits in the outbox.
#[derive(Clone, Debug)]
pub(crate) enum Outgoing {
    Assign(Assignment),
    Stage(ServerId, Bundle),
    Emit(Fact),
}

/// The host's processes and its disk.
#[derive(Debug, Default)]
pub(crate) struct Host {
    pub(crate) records: BTreeMap<RecordKey, Record>,
    pub(crate) outbox: VecDeque<Outgoing>,
    pub(crate) fleet: Option<Fleet>,
    pub(crate) presence: Presence,
}

impl Host {
    pub(crate) fn crash(&mut self) {
        self.fleet = None;
    }

    /// Starts again from the disk.
    pub(crate) fn start(&mut self, now: Moment) {
        let fleet = Fleet::restore(self.records.values().cloned());
        self.fleet = Some(fleet);
        self.start_monitor(now);
    }

    /// The monitor starts, and knows nothing but who is enrolled.
    pub(crate) fn start_monitor(&mut self, now: Moment) {
        self.presence = Presence::new();
        self.presence.broker(None, now);
        let servers = self.fleet.iter().flat_map(Fleet::servers);
        let watched = servers.map(|server| (server.id.clone(), server.domain.clone()));
        self.presence.watch(watched.collect::<Vec<_>>(), now);
    }

    /// One transaction: records, and what is to be sent.
    pub(crate) fn commit(&mut self, effects: Vec<Effect>, bug: Option<Bug>) -> Vec<LicenseRequest> {
        let mut requests = Vec::new();
        for effect in effects {
            match effect {
                Effect::Save(record) if is_forgotten(&record, bug) => {}
                Effect::Save(record) => {
                    self.records.insert(record.key(), *record);
                }
                Effect::Delete(key) => {
                    self.records.remove(&key);
                }
                Effect::Assign(assignment) => self.outbox.push_back(Outgoing::Assign(assignment)),
                Effect::Stage { server, bundle } => self.outbox.push_back(Outgoing::Stage(server, bundle)),
                Effect::Emit(fact) => self.outbox.push_back(Outgoing::Emit(fact)),
                Effect::License(request) => requests.push(request),
            }
        }
        requests
    }
}

fn is_forgotten(record: &Record, bug: Option<Bug>) -> bool {
    match bug {
        Some(Bug::ForgetFailovers) => matches!(record, Record::Failover(_)),
        Some(Bug::ForgetEpoch) => matches!(record, Record::Epoch(_) | Record::Assignment(_)),
        _ => false,
    }
}
