//! The whole fleet as the pure machines that it is made of, under seeded faults.
//!
//! One host, its licence ledger, recording and failover servers, each with a disk whose unsynced writes die
//! with it; a network that loses, repeats, delays and reorders; a crash between any two effects. After each
//! step the invariants of the design are checked; in the end all faults stop, and the fleet has to come to
//! rest where it would have without them. The same seed gives the same schedule: a seed that fails can be
//! told as a story and pinned as a test.

mod checks;
mod faults;
mod host;
mod ledger;
mod network;
mod node;
mod puller;
mod scene;
mod turn;
mod world;

pub use checks::Violation;
pub use world::{Bug, Outcome, World};

/// Runs the schedule of one seed.
///
/// # Errors
/// The invariant that was broken, and how.
pub fn run(seed: u64, bug: Option<Bug>) -> Result<Outcome, Violation> {
    World::new(seed, bug, false).run().1
}

/// Runs the schedule of one seed, and tells its story.
///
/// # Errors
/// In the second part: the invariant that was broken, and how.
pub fn tell(seed: u64, bug: Option<Bug>) -> (Vec<String>, Result<Outcome, Violation>) {
    World::new(seed, bug, true).run()
}
