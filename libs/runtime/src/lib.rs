//! What every process needs: configuration, logs, metrics, health endpoints, shutdown, clocks, the fleet's key and token.
//!
//! Nothing here knows what Understudy is for: no cameras, no failovers.

pub mod bearer;
mod cause;
pub mod clock;
pub mod config;
pub mod fleet;
pub mod folder;
pub mod process;
pub mod seal;
pub mod secret;
mod telemetry;
pub mod testing;
pub mod trace;

pub use cause::innermost;
pub use config::{ConfigError, HostConfig, LogFormat, RuntimeConfig, ServerConfig, load};
pub use fleet::FleetConfig;
pub use process::{Condition, Process, StartError, VERSION, VERSION_HEADER};
pub use secret::Secret;
pub use trace::{TelemetryConfig, TraceContext, Tracer};
