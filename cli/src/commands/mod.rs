//! One file per noun.

pub(crate) mod camera;
pub(crate) mod coverage;
pub(crate) mod dead_letters;
pub(crate) mod disk;
pub(crate) mod events;
pub(crate) mod failover;
pub(crate) mod license;
mod overlay;
pub(crate) mod pair;
pub(crate) mod policy;
pub(crate) mod replace;
pub(crate) mod restoration;
pub(crate) mod server;
mod timeline;
