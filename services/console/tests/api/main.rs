//! The console as its callers see it: over HTTP, with a real RabbitMQ where one is needed.

mod dead_letters;
mod events;
mod fleet;
mod nobody;
mod support;
mod wrong;
