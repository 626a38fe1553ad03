//! Mistakes that a shell around the machines could make. Each is planted on purpose: a check that does not notice
//! it is no check.

use crate::{Schedule, run};

/// A mistake. Only the simulation knows of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// The host does not store its failovers.
    ForgetFailovers,
    /// The host does not store the epochs that it gives out.
    ForgetEpoch,
    /// The host sends before it has stored.
    SendBeforeCommit,
    /// The host takes the silence of a domain that is cut off for its servers' own.
    ForgetBlindness,
    /// The host lets settings be changed during a failover.
    EditDuringFailover,
    /// The ledger writes a key's new holder beside the old one.
    LicenceCopied,
    /// A server acts on an assignment that is not durable.
    UnsyncedAssignment,
    /// A server says that it has fetched what it has not.
    ErasedUnverified,
    /// A server erases whatever it has, and not what arrived.
    ErasedBeyond,
    /// A server erases damaged recordings, which nobody else has.
    ErasedDamaged,
    /// A server never says that it has fetched everything.
    NeverComplete,
    /// A server is deaf to whatever ends its right to act.
    DeafToRevocation,
    /// A server does not store what it is about to do.
    ForgetIntent,
    /// A server throws files away that were not closed before it died.
    DropUnclosed,
    /// The host does not tell a server that another one has taken its place for good.
    UntoldOriginal,
}

/// Some are rare: it takes thousands of schedules to reach them.
const SEEDS: u64 = 8000;

impl Bug {
    /// For each invariant of the design one mistake that it is there for.
    pub const OF_INVARIANTS: &'static [(u8, Bug)] = &[
        (1, Bug::DeafToRevocation),
        (2, Bug::LicenceCopied),
        (3, Bug::ErasedUnverified),
        (4, Bug::EditDuringFailover),
        (5, Bug::ForgetEpoch),
        (6, Bug::NeverComplete),
        (7, Bug::ForgetFailovers),
        (8, Bug::SendBeforeCommit),
        (9, Bug::DropUnclosed),
        (10, Bug::ForgetIntent),
    ];

    /// Whether some schedule breaks the invariant with it. A mistake may break others sooner; the one that it is
    /// made for must be among them.
    #[must_use]
    pub fn is_caught(self, invariant: u8) -> bool {
        (0..SEEDS)
            .filter_map(|seed| run(&Schedule::of(seed).with(self)).err())
            .any(|violation| violation.invariant == invariant)
    }
}
