//! The words of the bus and of the API: plain serde types, nothing else.
//!
//! People and programs outside rely on these names: extend them, never rename or remove one. New fields
//! have a default, so that versions N and N+1 understand each other.

pub mod api;
pub mod event;
pub mod heartbeat;
pub mod names;
pub mod rpc;
pub mod segment;
