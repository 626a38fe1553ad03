//! The host: orchestrator and monitor, with one database and its outbox.

use std::collections::{BTreeMap, VecDeque};

use understudy_core::{
    assignment::{Assignment, Epoch},
    contract::{event::Fact, rpc::LicenseRequest},
    fleet::{Effect, Fleet, Record, RecordKey},
    ids::{FailoverId, ServerId},
    license::{Entry, Move},
    presence::Presence,
    settings::Bundle,
    time::Moment,
};

use crate::{bug::Bug, ledger::LedgerProcess, network::Packet};

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
    /// Until which tick its processes do nothing, though they live.
    pub(crate) frozen_until: u64,
    /// What has arrived meanwhile.
    pub(crate) held: Vec<Packet>,
    /// The database at some time before.
    pub(crate) backup: Option<Backup>,
}

/// A copy of the host's database.
#[derive(Clone, Debug)]
pub(crate) struct Backup {
    records: BTreeMap<RecordKey, Record>,
    outbox: VecDeque<Outgoing>,
    pub(crate) rows: Vec<Entry>,
    pub(crate) moves: Vec<(FailoverId, Move)>,
}

impl Host {
    /// Whether its processes do nothing at the moment.
    pub(crate) fn is_frozen(&self, tick: u64) -> bool {
        tick < self.frozen_until
    }

    pub(crate) fn crash(&mut self) {
        self.fleet = None;
        self.held.clear();
        self.frozen_until = 0;
    }

    /// A copy of its database, and of the ledger's.
    pub(crate) fn back_up(&self, ledger: &LedgerProcess) -> Backup {
        let (rows, moves) = ledger.stored();
        Backup {
            records: self.records.clone(),
            outbox: self.outbox.clone(),
            rows,
            moves,
        }
    }

    pub(crate) fn restore(&mut self, backup: Backup) {
        self.records = backup.records;
        self.outbox = backup.outbox;
    }

    /// Whether another server has taken this one's place for good.
    fn has_replaced(&self, id: &ServerId) -> bool {
        let is_it = |record: &Record| matches!(record, Record::Gone(gone) if gone.server == *id);
        self.records.values().any(is_it)
    }

    /// Whether the database has the server.
    pub(crate) fn knows(&self, id: &ServerId) -> bool {
        let is_it = |record: &Record| matches!(record, Record::Server(server) if server.id == *id);
        self.records.values().any(is_it)
    }

    /// The newest epoch that the database knows.
    pub(crate) fn newest_epoch(&self) -> Epoch {
        let epochs = self.records.values().filter_map(|record| match record {
            Record::Epoch(epoch) => Some(*epoch),
            Record::Assignment(assignment) => Some(assignment.epoch),
            _ => None,
        });
        epochs.max().unwrap_or_default()
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
                Effect::Assign(assignment)
                    if bug == Some(Bug::UntoldOriginal) && self.has_replaced(&assignment.server) => {}
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
