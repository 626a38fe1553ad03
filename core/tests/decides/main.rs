//! What the core decides, told as stories and as properties.

mod authority;
mod fleet;
mod licenses;
mod modes;
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
mod trigger;
