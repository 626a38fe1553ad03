//! The console as its callers see it: over HTTP, with a real RabbitMQ where one is needed.

mod events;
mod nobody;
mod support;
mod wrong;
