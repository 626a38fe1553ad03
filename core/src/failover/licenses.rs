//! The licence keys of a failover: they move beside it, and nothing ever waits for them.
//!
//! Each move has an id of its own, made of the failover's, since the ledger does one id's move once: a second
//! failover server, or a second fault during failback, is a second move. Moves happen strictly in order.

use serde::{Deserialize, Serialize};

use super::Failover;
use crate::{
    contract::{event::Event, rpc::LicenseRequest},
    ids::{FailoverId, ServerId},
    time::Moment,
};

/// One move of the keys to a failover server, and back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LicenseMove {
    /// What the ledger knows it by.
    pub id: FailoverId,
    /// Who has them before; without it the failover's recording server.
    #[serde(default)]
    pub from: Option<ServerId>,
    /// Who gets them.
    pub to: ServerId,
    /// How far it is.
    pub state: MoveState,
}

/// How far a move is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MoveState {
    /// The ledger has not said yet that they moved.
    Transferring,
    /// They are with the failover server.
    Transferred,
    /// The ledger has not said yet that they are back.
    GivingBack,
    /// They are back.
    GivenBack,
    /// The ledger has not said yet that they belong to whoever took the recording server's place.
    Replacing,
    /// They do.
    Replaced,
}

impl Failover {
    /// Whether the licence keys are where they belong.
    #[must_use]
    pub fn licenses_settled(&self) -> bool {
        self.license_request().is_none()
    }

    /// What the ledger is to be asked now; the same until it has answered.
    #[must_use]
    pub fn license_request(&self) -> Option<LicenseRequest> {
        self.moves.iter().find_map(|each| match each.state {
            MoveState::Transferring => Some(LicenseRequest::Transfer {
                failover: each.id.clone(),
                from: each.from.as_ref().unwrap_or(&self.server).clone(),
                to: each.to.clone(),
            }),
            MoveState::Replacing => Some(LicenseRequest::Replace {
                failover: each.id.clone(),
                from: each.from.as_ref().unwrap_or(&self.server).clone(),
                to: each.to.clone(),
            }),
            MoveState::GivingBack => Some(LicenseRequest::GiveBack {
                failover: each.id.clone(),
            }),
            MoveState::Transferred | MoveState::GivenBack | MoveState::Replaced => None,
        })
    }

    /// The ledger has answered. An answer that nobody waits for any more changes nothing.
    pub fn licenses_moved(&mut self, id: &FailoverId, given_back: bool, devices: u32) -> Option<Event> {
        let failover = self.id.clone();
        let server = self.server.clone();
        self.licenses_wait.clear();
        let each = self.moves.iter_mut().find(|each| each.id == *id)?;
        let (from, to) = match (each.state, given_back) {
            (MoveState::Transferring, false) => {
                each.state = MoveState::Transferred;
                (each.from.clone().unwrap_or(server), each.to.clone())
            }
            (MoveState::Replacing, false) => {
                each.state = MoveState::Replaced;
                (each.from.clone().unwrap_or(server), each.to.clone())
            }
            (MoveState::GivingBack, true) => {
                each.state = MoveState::GivenBack;
                (each.to.clone(), server)
            }
            _ => return None,
        };
        (devices > 0).then_some(Event::LicenseTransferred {
            failover,
            from,
            to,
            devices,
        })
    }

    /// The ledger refused or could not be asked; answers whether that is news. Nobody waits for it.
    pub fn licenses_failed(&mut self, why: &str, now: Moment) -> bool {
        if self.licenses_wait == why {
            return false;
        }
        why.clone_into(&mut self.licenses_wait);
        self.note(
            self.phase,
            format!("the licences are asked for again: {why}"),
            now,
        );
        true
    }

    /// The keys are to go to `to`.
    pub(super) fn move_licenses(&mut self, to: &ServerId) {
        self.give_licenses_back();
        let id = self.next_move();
        self.moves.push(LicenseMove {
            id,
            from: Some(self.server.clone()),
            to: to.clone(),
            state: MoveState::Transferring,
        });
    }

    /// The keys are to come back; one that has not moved yet never will.
    pub(super) fn give_licenses_back(&mut self) {
        for each in &mut self.moves {
            if matches!(each.state, MoveState::Transferring | MoveState::Transferred) {
                each.state = MoveState::GivingBack;
            }
        }
    }
}
