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
mod dead_letters;
mod demo;
mod each_trigger;
mod events;
mod failback;
mod licenses;
mod logs;
mod maintenance;
mod modes;
mod notices;
mod overlay;
mod planned;
mod power;
mod prometheus;
#[path = "../../../../services/notifier/tests/telling/receivers/mod.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "the notifier's own tests use more of it"
)]
mod receivers;
mod relay;
mod replacement;
mod restored;
mod room;
mod sessions;
mod sites;
mod takeover;
mod traces;
mod weather;
