//! Each module breaks one part of the fleet; test names begin with the row that they prove.

mod ailing;
mod archive;
mod broker;
mod cameras;
mod changes;
mod configuration;
mod crash;
mod demo;
mod failback;
mod licenses;
mod modes;
mod overlay;
mod planned;
mod replacement;
mod takeover;
