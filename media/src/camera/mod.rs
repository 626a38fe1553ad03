//! One camera: its RTSP session, what its faults are called, and when it is tried again.

pub mod backoff;
pub mod fault;
pub mod frame;
pub mod session;

pub use self::{fault::Fault, session::Session};
