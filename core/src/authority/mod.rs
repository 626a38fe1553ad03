//! The right to act: of the servers that bear one identity at most one opens doors and switches outputs.
//!
//! Filming needs no such right. A server has it while it holds a grant of the host and a fresh echo: a message that
//! it sent through its own queue and got back, which counts from its sending. Whoever takes the right away puts a
//! revocation into the same queue; each later echo lies behind it. So the host knows, without hearing anything of
//! the server, when the right is over: [`OUTLAST`] after the broker confirmed the revocation.
//!
//! [`right`] is the server's side, [`granter`] the host's, [`action`] what is done with it. `docs/decisions/016`
//! says why it is built so, and what it can't promise.

pub mod action;
pub mod granter;
pub mod right;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    assignment::Epoch,
    ids::{Incarnation, ServerId},
};

/// For how long an echo gives the right to act, from its sending, on the server's clock.
pub const LEASE: Duration = Duration::from_secs(3);
/// For how long the host waits after the broker's confirm, on its own clock: a lease on a clock that runs 10 % slow,
/// measured by one that runs 10 % fast (1.1 / 0.9 = 1.22), and some more.
pub const OUTLAST: Duration = Duration::from_millis(3_750);
/// How often a server sends itself an echo.
pub const ECHO_AGAIN: Duration = Duration::from_secs(1);
/// How often a claim or a publication is repeated until it is answered.
pub const ASK_AGAIN: Duration = Duration::from_secs(1);
/// How far apart in time one event of a device may reach two servers.
pub const SKEW: Duration = Duration::from_secs(2);

/// What a server asks the right for. It has a new number after each start, each connection and each loss, so that
/// a grant fits the one claim that it answers and none after it; a claim with a higher number of the same start
/// says that all before it are void.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Claim {
    /// Who asks.
    pub server: ServerId,
    /// Which start of its recording service.
    pub incarnation: Incarnation,
    /// Counts up within that start.
    pub number: u64,
    /// The identity that it bears, by its newest assignment, and that one's epoch; none if it bears none.
    pub wants: Option<(ServerId, Epoch)>,
}

/// What travels through a server's own queue besides assignments, in order with them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "word")]
pub enum Word {
    /// The host gives the right.
    Grant {
        /// The claim that it answers.
        claim: Claim,
        /// For how long, before it was published, nobody but this start of this server can have had it.
        alone_ms: u64,
    },
    /// The host takes the right away, whoever reads this and whatever it was given for.
    Revoke,
    /// The server's own message to itself.
    Echo {
        /// Which start sent it.
        incarnation: Incarnation,
        /// The number of the claim at that time.
        number: u64,
        /// Which echo of this start.
        sequence: u64,
    },
}
