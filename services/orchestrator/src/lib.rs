//! The orchestrator: feeds what is seen and asked into the pure fleet, and carries out what it decides.
//!
//! Nothing is decided here. What the fleet wants stored and what it wants sent go to disk in one transaction;
//! only then is anything published or answered.

mod config;
mod grants;
mod job;
mod ledger;
mod listen;
mod metrics;
mod outbox;
mod queues;
mod service;
mod tables;
mod traces;

pub use config::OrchestratorConfig;
pub use service::{OrchestratorError, run};
