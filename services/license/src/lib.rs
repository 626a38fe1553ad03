//! The licence ledger as a service: who holds which key, moved by failovers, kept on disk.
//!
//! What may happen to a key is decided in [`understudy_core::license`]; here signatures are verified, changes
//! are stored before they are answered. It tells when keys are short; of moves the orchestrator tells, and filming
//! waits for none of it.

mod config;
mod keys;
mod metrics;
mod service;
mod tables;

pub use config::{LicenseConfig, Licensing};
pub use keys::{IssueError, KeyError, generate_issuer, issue, verify};
pub use service::{LicenseServiceError, run};
