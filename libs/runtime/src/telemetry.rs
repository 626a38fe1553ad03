//! Logs, to stderr, for people or for machines. Credentials never get here: whoever logs a URL logs it
//! without its password.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

use crate::config::{LogFormat, RuntimeConfig};

/// The target of the broker's client.
const CLIENT: &str = "lapin";

/// Starts logging as configured. A second start in one process changes nothing.
///
/// # Errors
/// Says what is wrong with `level`.
pub(crate) fn start(config: &RuntimeConfig) -> Result<(), String> {
    let filter = filter(&config.level)?;
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

/// What `level` says. The broker's client calls each end of a connection an error, an orderly one too; how the
/// connection is, the bus says itself, so the client is heard only if it is asked for.
fn filter(level: &str) -> Result<EnvFilter, String> {
    let filter = EnvFilter::try_new(level).map_err(|error| error.to_string())?;
    if level.contains(CLIENT) {
        return Ok(filter);
    }
    let silence = format!("{CLIENT}=off");
    Ok(filter.add_directive(silence.parse().expect("a target and a level are a directive")))
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use super::*;

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(level: &str) -> String {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(filter(level).unwrap())
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::error!(target: "lapin::channels", "Connection error");
            tracing::info!("ours");
            tracing::debug!("detail");
        });
        String::from_utf8(log.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn the_brokers_client_is_heard_only_if_it_is_asked_for() {
        let log = logged("info");
        assert!(log.contains("ours") && !log.contains("Connection error"), "{log}");
        assert!(!log.contains("detail"), "{log}");
        assert!(logged("debug").contains("detail"));
        assert!(logged("info,lapin=error").contains("Connection error"));
    }
}
