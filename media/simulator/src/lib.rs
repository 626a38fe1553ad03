//! RTSP cameras for tests and trials that behave like real ones.
//!
//! The video is encoded once and shared by all cameras; each camera numbers its frames inside the stream
//! ([`numbering`]), counts what it sent to whom and when ([`CameraSent`]), runs free whether or not anybody
//! watches, and can be told to misbehave ([`BehaviourChange`]). It knows nothing of Understudy, and must not:
//! it is the measure from outside.

mod audio;
mod behaviour;
mod camera;
mod client;
mod config;
mod control;
mod media;
mod nal;
pub mod numbering;
mod rtsp;
mod sdp;
mod sent;
mod simulator;
mod udp;
mod video;

use tokio_util::sync::CancellationToken;

pub use self::{
    behaviour::{Behaviour, BehaviourChange, Garbage, Switch, Unsupported},
    camera::CameraState,
    config::{AuthScheme, Codec, SimulatorConfig},
    sent::{CameraSent, SessionSent},
    simulator::{Simulator, SimulatorError},
    video::EncodeError,
};

/// Runs cameras until the shutdown; says on standard output where they are.
///
/// # Errors
/// [`SimulatorError`] if they don't start.
pub async fn run(config: SimulatorConfig, shutdown: CancellationToken) -> Result<(), SimulatorError> {
    let simulator = Simulator::start(config).await?;
    let mut cameras = simulator.cameras();
    if let (Some(first), last) = (cameras.next(), cameras.last()) {
        println!("cameras: {}", simulator.url(first));
        if let Some(last) = last {
            println!("     to: {}", simulator.url(last));
        }
    }
    if let Some(control) = simulator.control_address() {
        println!("control: http://{control}/cameras");
    }
    shutdown.cancelled().await;
    simulator.stop().await;
    Ok(())
}
