//! Logs, to stderr, for people or for machines. Credentials never get here: whoever logs a URL logs it
//! without its password.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

use crate::config::{LogFormat, RuntimeConfig};

/// Starts logging as configured. A second start in one process changes nothing.
///
/// # Errors
/// Says what is wrong with `level`.
pub(crate) fn start(config: &RuntimeConfig) -> Result<(), String> {
    let filter = EnvFilter::try_new(&config.level).map_err(|error| error.to_string())?;
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        // It would be said on standard error, which is what failed, and a task would panic: a service must
        // outlive whoever reads its log.
        .log_internal_errors(false)
        .with_writer(std::io::stderr);
    // Fails only if logging has been started before, as when several processes of a test share one.
    let _already = match config.log {
        LogFormat::Human => logs.with_target(false).try_init(),
        LogFormat::Json => logs.json().flatten_event(true).try_init(),
    };
    Ok(())
}
