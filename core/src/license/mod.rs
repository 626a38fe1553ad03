//! The ledger of licence keys: who holds which, and whose it is.
//!
//! Each key has exactly one holder at any time. A failover moves keys once and gives them back once, however
//! often either is asked for; giving back before the move makes the move never happen. Nothing here verifies
//! signatures or waits for anything.

pub mod history;
pub mod key;
pub mod shortage;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    contract::api::{LicenseKeyView, LicensesView},
    ids::{FailoverId, LicenseKeyId, ServerId},
};

/// Devices that each recording server may have without any key.
pub const FREE_DEVICES: u32 = 2;

/// One key of the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// What the issuer signed.
    pub payload: key::Payload,
    /// Who uses it.
    pub holder: ServerId,
    /// Whose it is; somebody else than the holder during a failover.
    pub owner: ServerId,
    /// The failover that moved it; none while the owner holds it.
    pub moved_by: Option<FailoverId>,
}

/// What a failover did to the ledger: remembered, so that it happens once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum Move {
    /// The keys were moved.
    Transferred {
        /// Who held them.
        from: ServerId,
        /// Who got them.
        to: ServerId,
        /// For how many devices.
        devices: u32,
    },
    /// The keys belong to another server, for good.
    Replaced {
        /// Whose they were.
        from: ServerId,
        /// Whose they are.
        to: ServerId,
        /// For how many devices.
        devices: u32,
    },
    /// The keys were given back, or never moved and never will be.
    GivenBack {
        /// For how many devices.
        devices: u32,
    },
}

/// What a change to the ledger means for its store. The caller persists all of one call before it answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A key is new or has another holder.
    SaveKey(Entry),
    /// A key was removed.
    DeleteKey(LicenseKeyId),
    /// A failover moved keys or gave them back.
    SaveMove(FailoverId, Move),
}

/// Why the ledger refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LicenseError {
    /// The key is in use elsewhere.
    #[error("licence key {key} is in use by {owner}: remove it there first")]
    InUse {
        /// Which.
        key: LicenseKeyId,
        /// By whom.
        owner: ServerId,
    },
    /// Another key has its id.
    #[error("there is another licence key {0}, with other contents")]
    Different(LicenseKeyId),
    /// There is no such key.
    #[error("there is no licence key {0}")]
    Unknown(LicenseKeyId),
    /// The failover moved keys between others.
    #[error("failover {failover} moved keys from {from} to {to} before")]
    OtherMove {
        /// Which.
        failover: FailoverId,
        /// Who held them.
        from: ServerId,
        /// Who got them.
        to: ServerId,
    },
}

/// The ledger.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    keys: BTreeMap<LicenseKeyId, Entry>,
    moves: BTreeMap<FailoverId, Move>,
}

impl Ledger {
    /// The ledger as it was stored.
    #[must_use]
    pub fn restore(
        keys: impl IntoIterator<Item = Entry>,
        moves: impl IntoIterator<Item = (FailoverId, Move)>,
    ) -> Self {
        Self {
            keys: keys
                .into_iter()
                .map(|entry| (entry.payload.id.clone(), entry))
                .collect(),
            moves: moves.into_iter().collect(),
        }
    }

    /// Adds a verified key to `server`. The same again changes nothing.
    ///
    /// # Errors
    /// If another server has it, or another key has its id.
    pub fn add(&mut self, payload: key::Payload, server: &ServerId) -> Result<Vec<Change>, LicenseError> {
        if let Some(known) = self.keys.get(&payload.id) {
            return match known {
                known if known.payload != payload => Err(LicenseError::Different(payload.id)),
                known if known.owner != *server => Err(LicenseError::InUse {
                    key: payload.id,
                    owner: known.owner.clone(),
                }),
                _ => Ok(Vec::new()),
            };
        }
        let entry = Entry {
            payload,
            holder: server.clone(),
            owner: server.clone(),
            moved_by: None,
        };
        Ok(vec![self.save(entry)])
    }

    /// Removes a key.
    ///
    /// # Errors
    /// If there is none.
    pub fn remove(&mut self, key: &LicenseKeyId) -> Result<Vec<Change>, LicenseError> {
        match self.keys.remove(key) {
            Some(_) => Ok(vec![Change::DeleteKey(key.clone())]),
            None => Err(LicenseError::Unknown(key.clone())),
        }
    }

    /// Moves the keys that are `from`'s own to `to`, once for each failover; answers for how many devices.
    ///
    /// # Errors
    /// If this failover moved keys between other servers.
    pub fn transfer(
        &mut self,
        failover: &FailoverId,
        from: &ServerId,
        to: &ServerId,
    ) -> Result<(u32, Vec<Change>), LicenseError> {
        match self.moves.get(failover) {
            Some(Move::GivenBack { .. }) => return Ok((0, Vec::new())),
            Some(Move::Transferred {
                from: before,
                to: receiver,
                devices,
            })
            | Some(Move::Replaced {
                from: before,
                to: receiver,
                devices,
            }) => {
                return if (before, receiver) == (from, to) {
                    Ok((*devices, Vec::new()))
                } else {
                    Err(LicenseError::OtherMove {
                        failover: failover.clone(),
                        from: before.clone(),
                        to: receiver.clone(),
                    })
                };
            }
            None => {}
        }
        let moved: Vec<Entry> = self
            .keys
            .values()
            .filter(|entry| entry.holder == *from && entry.moved_by.is_none())
            .map(|entry| Entry {
                holder: to.clone(),
                moved_by: Some(failover.clone()),
                ..entry.clone()
            })
            .collect();
        let devices = devices_of(&moved);
        let mut changes: Vec<Change> = moved.into_iter().map(|entry| self.save(entry)).collect();
        changes.push(self.remember(
            failover,
            Move::Transferred {
                from: from.clone(),
                to: to.clone(),
                devices,
            },
        ));
        Ok((devices, changes))
    }

    /// Gives back the keys that a failover moved, once; answers for how many devices. Before its transfer it
    /// makes that transfer never happen.
    pub fn give_back(&mut self, failover: &FailoverId) -> (u32, Vec<Change>) {
        if let Some(Move::GivenBack { devices }) = self.moves.get(failover) {
            return (*devices, Vec::new());
        }
        let back: Vec<Entry> = self
            .keys
            .values()
            .filter(|entry| entry.moved_by.as_ref() == Some(failover))
            .map(|entry| Entry {
                holder: entry.owner.clone(),
                moved_by: None,
                ..entry.clone()
            })
            .collect();
        let devices = devices_of(&back);
        let mut changes: Vec<Change> = back.into_iter().map(|entry| self.save(entry)).collect();
        changes.push(self.remember(failover, Move::GivenBack { devices }));
        (devices, changes)
    }

    /// Makes the keys that are `from`'s own those of `to`, once for each failover; answers for how many devices. What
    /// somebody else holds for a failover stays there, and comes back to `to`.
    ///
    /// # Errors
    /// If this failover moved keys between other servers.
    pub fn replace(
        &mut self,
        failover: &FailoverId,
        from: &ServerId,
        to: &ServerId,
    ) -> Result<(u32, Vec<Change>), LicenseError> {
        if self.moves.contains_key(failover) {
            // Of what was done before, only the same again is no error.
            return self.transfer(failover, from, to);
        }
        let owned = |entry: &&Entry| entry.owner == *from;
        let replaced: Vec<Entry> = self
            .keys
            .values()
            .filter(owned)
            .map(|entry| {
                let moved = entry.holder != *from && entry.holder != *to;
                Entry {
                    payload: entry.payload.clone(),
                    holder: if moved { &entry.holder } else { to }.clone(),
                    owner: to.clone(),
                    moved_by: entry.moved_by.clone().filter(|_| moved),
                }
            })
            .collect();
        let devices = devices_of(&replaced);
        let mut changes: Vec<Change> = replaced.into_iter().map(|entry| self.save(entry)).collect();
        changes.push(self.remember(
            failover,
            Move::Replaced {
                from: from.clone(),
                to: to.clone(),
                devices,
            },
        ));
        Ok((devices, changes))
    }

    /// The ledger as it is shown.
    #[must_use]
    pub fn view(&self) -> LicensesView {
        let mut view = LicensesView::default();
        for entry in self.keys.values() {
            let devices = view.devices.entry(entry.holder.clone()).or_default();
            *devices = devices.saturating_add(entry.payload.devices);
            view.transferred.extend(entry.moved_by.clone());
            view.keys.push(LicenseKeyView {
                id: entry.payload.id.clone(),
                label: entry.payload.label.clone(),
                devices: entry.payload.devices,
                holder: entry.holder.clone(),
                owner: entry.owner.clone(),
            });
        }
        view
    }

    /// Each key.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.keys.values()
    }

    fn save(&mut self, entry: Entry) -> Change {
        self.keys.insert(entry.payload.id.clone(), entry.clone());
        Change::SaveKey(entry)
    }

    fn remember(&mut self, failover: &FailoverId, what: Move) -> Change {
        self.moves.insert(failover.clone(), what.clone());
        Change::SaveMove(failover.clone(), what)
    }
}

fn devices_of(entries: &[Entry]) -> u32 {
    let add = |sum: u32, entry: &Entry| sum.saturating_add(entry.payload.devices);
    entries.iter().fold(0, add)
}
