//! Logs, to stderr, for people or for machines. Credentials never get here: whoever logs a URL logs it
//! without its password.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

use crate::config::{LogFormat, RuntimeConfig};

/// Libraries that are heard only if they are asked for. The broker's client calls each end of a connection an error, an
/// orderly one too, and how the connection is, the bus says itself; to the web server a page that was closed while it
/// followed the events is one.
const SILENT: [(&str, &str); 2] = [("lapin", "lapin=off"), ("warp", "warp::server=off")];

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
        // The innermost span is the only one that says anything: `span.trace_id`.
        LogFormat::Json => logs.json().flatten_event(true).with_span_list(false).try_init(),
    };
    Ok(())
}

/// What `level` says, without the libraries that it does not name and that cry wolf.
fn filter(level: &str) -> Result<EnvFilter, String> {
    let filter = EnvFilter::try_new(level).map_err(|error| error.to_string())?;
    let unnamed = SILENT.iter().filter(|(library, _)| !level.contains(library));
    Ok(unnamed.fold(filter, |filter, (_, silence)| {
        filter.add_directive(silence.parse().expect("a target and a level are a directive"))
    }))
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

    fn wolves_cry() {
        tracing::error!(target: "lapin::channels", "Connection error");
        tracing::error!(target: "warp::server::run", "server connection error");
    }

    fn logged(level: &str) -> String {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(filter(level).unwrap())
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            wolves_cry();
            tracing::info!("ours");
            tracing::debug!("detail");
        });
        String::from_utf8(log.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn a_library_that_cries_wolf_is_heard_only_if_it_is_asked_for() {
        let log = logged("info");
        assert!(log.contains("ours") && !log.contains("onnection error"), "{log}");
        assert!(!log.contains("detail"), "{log}");
        assert!(logged("debug").contains("detail"));
        assert!(logged("info,lapin=error").contains("Connection error"));
    }
}
