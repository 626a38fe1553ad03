//! The simulator alone, without the rest of Understudy: takes the flags of `understudy simulator`.

use clap::Parser;
use tokio_util::sync::CancellationToken;
use understudy_simulator::SimulatorConfig;

/// RTSP cameras for tests and trials.
#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    simulator: SimulatorConfig,
}

#[tokio::main]
async fn main() -> Result<(), understudy_simulator::SimulatorError> {
    let shutdown = CancellationToken::new();
    let interrupted = shutdown.clone();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            interrupted.cancel();
        }
    });
    understudy_simulator::run(Arguments::parse().simulator, shutdown).await
}
