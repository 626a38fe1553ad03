//! What the core decides, told as stories and as properties.

mod again;
mod authority;
mod damping;
mod fleet;
mod licenses;
mod maintenance;
mod modes;
mod notice;
mod overlay;
mod planned;
mod presence;
mod reconcile;
mod replacement;
mod requests;
mod restoration;
mod rig;
mod scale;
mod selection;
mod sessions;
mod trigger;
