//! What Understudy decides, and nothing else.
//!
//! Everything here is a pure function of its arguments: no clock, no randomness, no input or output.
//! Time comes in as a [`time::Moment`], what happened comes in as an input, and what has to be done goes
//! out as a list of effects that a service carries out: first persist, then send.
//!
//! Read in this order: [`server`] and [`camera`] (the nouns), [`policy`] and [`selection`] (who stands in
//! for whom), [`trigger`] (when), [`failover`] (one takeover from start to end), [`fleet`] (the host's whole
//! state), [`reconcile`] (a server's way to its assignment), [`authority`] (who
//! may act, once), [`license`] and [`restoration`] (what moves), [`notice`] (who is told of what).

pub mod assignment;
pub mod authority;
pub mod camera;
pub mod contract;
pub mod coverage;
pub mod failover;
pub mod fleet;
pub mod ids;
pub mod license;
pub mod maintenance;
pub mod notice;
pub mod policy;
pub mod presence;
pub mod reconcile;
pub mod restoration;
pub mod room;
pub mod selection;
pub mod server;
pub mod settings;
pub mod time;
pub mod trigger;
pub mod words;
