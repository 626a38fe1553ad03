//! Tells people and programs what happens to the fleet: by e-mail, webhook and syslog, from the host itself.
//!
//! Whom to tell of what, when and how often is decided in [`understudy_core::notice`]; here facts are heard, messages
//! are stored before they are sent, written in words, and delivered. Nothing else waits for it: a receiver that is
//! away costs rows in a file of its own.

mod config;
mod metrics;
mod names;
mod outbox;
mod plan;
mod send;
mod service;
mod tables;
mod text;
mod trial;

pub use config::{NotifierConfig, ReceiverConfig, SmtpSecurity, SyslogFacility};
pub use service::{NotifierError, run};
pub use trial::{Tried, try_each};
