//! The licence service: the ledger, and its rows on disk.

use understudy_core::{
    contract::rpc::LicenseRequest,
    ids::{FailoverId, LicenseKeyId, ServerId},
    license::{Change, Entry, Ledger, Move, key::Payload},
};

use crate::{bug::Bug, host::Backup};

/// The licence process and its disk. One transaction is one call of `commit`.
#[derive(Debug)]
pub(crate) struct LedgerProcess {
    pub(crate) rows: Vec<Entry>,
    moves: Vec<(FailoverId, Move)>,
    ledger: Option<Ledger>,
}

impl LedgerProcess {
    pub(crate) fn with_keys(owners: &[ServerId]) -> Self {
        let mut ledger = Ledger::default();
        let mut process = Self {
            rows: Vec::new(),
            moves: Vec::new(),
            ledger: None,
        };
        for (number, owner) in owners.iter().enumerate() {
            let payload = Payload {
                id: LicenseKeyId::new(format!("key-{number}")).expect("this is an id"),
                devices: 4,
                label: String::new(),
                issuer: String::new(),
            };
            let changes = ledger.add(payload, owner).expect("the keys are new");
            process.commit(changes, None);
        }
        process.ledger = Some(ledger);
        process
    }

    pub(crate) fn is_up(&self) -> bool {
        self.ledger.is_some()
    }

    pub(crate) fn crash(&mut self) {
        self.ledger = None;
    }

    /// What is on its disk.
    pub(crate) fn stored(&self) -> (Vec<Entry>, Vec<(FailoverId, Move)>) {
        (self.rows.clone(), self.moves.clone())
    }

    pub(crate) fn restore(&mut self, backup: &Backup) {
        self.rows.clone_from(&backup.rows);
        self.moves.clone_from(&backup.moves);
    }

    pub(crate) fn start(&mut self) {
        self.ledger = Some(Ledger::restore(
            self.rows.iter().cloned(),
            self.moves.iter().cloned(),
        ));
    }

    /// What the ledger says and what it wants stored; nothing if it is down.
    pub(crate) fn decide(
        &mut self,
        request: &LicenseRequest,
    ) -> Option<(FailoverId, bool, u32, Vec<Change>)> {
        let ledger = self.ledger.as_mut()?;
        match request {
            LicenseRequest::Transfer { failover, from, to } => {
                let (devices, changes) = ledger.transfer(failover, from, to).ok()?;
                Some((failover.clone(), false, devices, changes))
            }
            LicenseRequest::Replace { failover, from, to } => {
                let (devices, changes) = ledger.replace(failover, from, to).ok()?;
                Some((failover.clone(), false, devices, changes))
            }
            LicenseRequest::GiveBack { failover } => {
                let (devices, changes) = ledger.give_back(failover);
                Some((failover.clone(), true, devices, changes))
            }
            _ => None,
        }
    }

    pub(crate) fn commit(&mut self, changes: Vec<Change>, bug: Option<Bug>) {
        for change in changes {
            match change {
                Change::SaveKey(entry) => {
                    if bug != Some(Bug::LicenceCopied) {
                        self.rows.retain(|row| row.payload.id != entry.payload.id);
                    }
                    self.rows.push(entry);
                }
                Change::DeleteKey(key) => self.rows.retain(|row| row.payload.id != key),
                Change::SaveMove(failover, what) => {
                    self.moves.retain(|(known, _)| *known != failover);
                    self.moves.push((failover, what));
                }
            }
        }
    }
}
