//! One camera: its RTSP session, what its faults are called, when it is tried again, and who gets its frames.

pub mod backoff;
pub mod fanout;
pub mod fault;
pub mod frame;
mod loss;
pub(crate) mod nal;
pub mod session;

pub use self::{fanout::Fanout, fault::Fault, session::Session};
