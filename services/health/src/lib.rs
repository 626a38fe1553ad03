//! What is alive, and what is damaged: the [`agent`] on each server, and the [`monitor`] on the host.
//!
//! The agent outlives the recording service and speaks of it; the monitor hears all agents on two paths and
//! says for how long each has been silent. Neither decides what is to be done about it.

pub mod agent;
mod look;
pub mod monitor;
