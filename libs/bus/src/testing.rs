//! For tests of every crate: a real broker.

pub use crate::private_broker::PrivateBroker as Broker;
