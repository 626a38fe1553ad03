//! The database, through diesel: how it is opened, on which thread it works, and the outbox that all services
//! share. Which tables there are is each service's own affair.

mod connection;
pub mod outbox;

pub use connection::{Store, StoreError, connect};
