//! The whole fleet as the pure machines that it is made of, under seeded faults.
//!
//! One host, its licence ledger, recording and failover servers, each with a disk whose unsynced writes die
//! with it; a network that loses, repeats, delays and reorders; a crash between any two effects. After each
//! step the invariants of the design are checked; in the end all faults stop, and the fleet has to come to
//! rest where it would have without them. The same seed gives the same schedule: a seed that fails can be
//! told as a story and pinned as a test.

mod acting;
mod broker;
mod bug;
mod checks;
mod faults;
mod host;
mod late_word;
mod later;
mod ledger;
mod network;
mod node;
mod operator;
mod puller;
mod replacing;
mod scene;
mod schedule;
mod shrink;
mod turn;
mod visits;
mod world;

pub use bug::Bug;
pub use checks::Violation;
pub use schedule::{Schedule, pinned};
pub use shrink::{Shrunk, shrink};
pub use visits::{Fault, Visits};
pub use world::{Outcome, Played};

use world::World;

/// Plays a schedule.
///
/// # Errors
/// The invariant that was broken, and how.
pub fn run(schedule: &Schedule) -> Result<Outcome, Violation> {
    let played = World::new(schedule.clone(), false).run();
    played.result.map(|()| played.outcome)
}

/// Plays a schedule, and tells its story.
#[must_use]
pub fn tell(schedule: &Schedule) -> Played {
    World::new(schedule.clone(), true).run()
}
