//! Moves the bytes: from the cameras into segments on disk, and keeps the index of what is there.
//!
//! Nothing here decides which server films what: [`film::Studio`] is told which cameras to run and says how
//! each one is. One bad camera never slows or stops the others.
//!
//! Read in this order: [`camera`] (one RTSP session, and when it is tried again), [`recorder`] (frames into
//! files), [`archive`] (files and their index), [`film`] (all cameras of a server), [`relay`] (what
//! they show, for other programs), [`snapshot`].

pub mod archive;
pub mod camera;
pub mod film;
pub mod recorder;
pub mod relay;
pub mod snapshot;
