//! What happened to licence keys, one line for each key: read off what a change of the ledger writes, so that
//! nothing can happen to a key without being told.

use super::{Change, Ledger};
use crate::{
    contract::api::{LicenseHappening, LicenseKind},
    time::Timestamp,
};

/// Happenings that are kept and shown: the newest.
pub const MOST_KEPT: usize = 10_000;

/// What `changes` do to the keys of the ledger as it was `before` them.
#[must_use]
pub fn happenings(before: &Ledger, changes: &[Change], at: Timestamp) -> Vec<LicenseHappening> {
    changes
        .iter()
        .filter_map(|change| happening(before, change, at))
        .collect()
}

fn happening(before: &Ledger, change: &Change, at: Timestamp) -> Option<LicenseHappening> {
    match change {
        Change::SaveKey(entry) => {
            let known = before.keys.get(&entry.payload.id);
            let (what, from) = match known {
                None => (LicenseKind::Added, None),
                Some(known) if known.owner != entry.owner => {
                    (LicenseKind::Replaced, Some(known.owner.clone()))
                }
                Some(known) if known.holder == entry.holder => return None,
                Some(known) if entry.moved_by.is_some() => {
                    (LicenseKind::Transferred, Some(known.holder.clone()))
                }
                Some(known) => (LicenseKind::GivenBack, Some(known.holder.clone())),
            };
            let moved_back = known.and_then(|known| known.moved_by.clone());
            Some(LicenseHappening {
                at,
                key: entry.payload.id.clone(),
                devices: entry.payload.devices,
                what,
                from,
                to: Some(entry.holder.clone()),
                failover: entry.moved_by.clone().or(moved_back),
            })
        }
        Change::DeleteKey(key) => {
            let known = before.keys.get(key)?;
            Some(LicenseHappening {
                at,
                key: key.clone(),
                devices: known.payload.devices,
                what: LicenseKind::Removed,
                from: Some(known.holder.clone()),
                to: None,
                failover: None,
            })
        }
        Change::SaveMove(..) => None,
    }
}
