//! Real RTSP cameras (the simulator), real GStreamer, real files: what is recorded is counted from outside.

mod archive;
mod crash;
mod faults;
mod filming;
mod relay;
mod rig;
mod udp;
