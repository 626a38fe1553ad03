//! The notifier as a fleet meets it: a real broker, a real database, and receivers that listen, are away, or refuse.

#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

mod desk;
mod mail;
mod receivers;
mod tell;
