//! The bus: everything that goes through RabbitMQ.
//!
//! One connection for each process, with a channel for each purpose. It comes back by itself; until then
//! publishing fails at once, and nothing is queued in secret: whoever must not lose a message keeps it in an
//! outbox ([`outbox`]). Events are CloudEvents 1.0 in AMQP's binary mode.
//!
//! Nothing here knows what a message means.

mod backoff;
mod config;
mod connection;
mod dead;
mod lane;
mod message;
mod metrics;
pub mod outbox;
pub mod private_broker;
mod rpc;
mod subscription;
pub mod testing;
mod topology;

pub use config::{BrokerConfig, BusError};
pub use connection::{Bus, Link};
pub use dead::DeadError;
pub use lane::PublishError;
pub use message::{Message, Persistence};
pub use outbox::OutboxSource;
pub use rpc::RequestError;
pub use subscription::{Incoming, MalformedMessage, Queue, Subscription};
