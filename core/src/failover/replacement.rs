//! Permanent replacement (H1–H3): the recording server of a failover becomes another server, for good.
//!
//! From then on the failover is the new server's. If another recording server takes the place, the failover ends like
//! any other, with the new server where the original would have been: it films first, then the failover server stops,
//! then the recordings go to it. If the failover server itself takes the place, there is nothing to come back to: what
//! it recorded is its own, and only what other failover servers recorded before it is still fetched.

use serde::{Deserialize, Serialize};

use super::{Ending, Failover, Holding, LicenseMove, Mark, MoveState};
use crate::{
    contract::api::Phase,
    ids::{FailoverId, ServerId},
    policy::Failback,
    settings::BundleHash,
    time::Moment,
};

/// That a recording server was replaced for good in the course of a failover.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replacement {
    /// Whose place was taken; of several, the last.
    pub original: ServerId,
    /// Who asked for it.
    pub by: String,
}

impl Failover {
    /// `new` takes the place of the recording server; its settings are `settings` from now on.
    pub(crate) fn replace(&mut self, new: &ServerId, settings: BundleHash, by: &str, now: Moment) {
        let original = std::mem::replace(&mut self.server, new.clone());
        for each in &mut self.moves {
            each.from.get_or_insert_with(|| original.clone());
        }
        self.own_licenses(&original);
        self.settings = settings;
        self.overlay.belongs_to(new);
        self.again = false;
        self.wanted = None;
        self.planned = false;
        self.overlap = false;
        self.released.clear();
        self.waits_for.clear();
        self.reason_cleared = true;
        self.incomplete_since = Mark(None);
        self.ending = Some(Ending {
            by: Some(by.to_owned()),
        });
        let itself = self.holding(new) == Some(Holding::Films);
        if itself {
            let recorded = match self.failback {
                Failback::Keep => Holding::Keeps,
                Failback::Remove => Holding::Erases,
            };
            self.set_holding(new, recorded);
        }
        let phase = match itself || self.stand_in().is_none() {
            true => Phase::Replacing,
            false => self.phase,
        };
        let then = match phase {
            Phase::Replacing => String::new(),
            _ => format!("; {new} films first, then the failover server stops"),
        };
        self.replaced = Some(Replacement {
            original: original.clone(),
            by: by.to_owned(),
        });
        let what = format!("{by} has {new} take the place of {original} for good{then}");
        self.note(phase, what, now);
    }

    /// The keys of the original are the new server's own from now on.
    fn own_licenses(&mut self, original: &ServerId) {
        let id = self.next_move();
        self.moves.push(LicenseMove {
            id,
            from: Some(original.clone()),
            to: self.server.clone(),
            state: MoveState::Replacing,
        });
    }

    /// Whether the ledger has still to say that keys are `server`'s own for good.
    pub(crate) fn takes_keys_for(&self, server: &ServerId) -> bool {
        let mut moves = self.moves.iter();
        moves.any(|each| each.state == MoveState::Replacing && each.to == *server)
    }

    /// What the ledger knows the next move of the keys by.
    pub(super) fn next_move(&self) -> FailoverId {
        match self.moves.len() {
            0 => self.id.clone(),
            // Ids are 64 characters at most; the shell's are far shorter.
            before => FailoverId::new(format!("{}-{}", self.id, before + 1)).unwrap_or(self.id.clone()),
        }
    }

    /// The phase in which recordings go to the server where they belong.
    pub(super) fn handing_back(&self) -> Phase {
        match self.replaced {
            Some(_) => Phase::Replacing,
            None => Phase::Restoring,
        }
    }
}
