//! Each module breaks one part of the fleet; test names begin with the row that they prove.

mod acting;
mod ailing;
mod archive;
mod broker;
mod cameras;
mod changes;
mod configuration;
mod crash;
mod dashboards;
mod demo;
mod each_trigger;
mod failback;
mod licenses;
mod maintenance;
mod modes;
mod overlay;
mod planned;
mod power;
mod relay;
mod replacement;
mod restored;
mod sessions;
mod sites;
mod takeover;
mod weather;
