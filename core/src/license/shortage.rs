//! Which cameras have no licence. Nothing is switched off for it: filming never waits for a licence.

use std::collections::BTreeMap;

use super::FREE_DEVICES;
use crate::{
    camera::Camera,
    contract::api::LicenseKeyView,
    ids::{CameraId, ServerId},
    selection,
};

/// Each recording server whose keys are short, with the cameras that are too many: the lowest priority first, in the
/// order in which cameras go when a failover server has no room (E12). Keys count for whom they belong to, wherever
/// they are during a failover.
#[must_use]
pub fn unlicensed(keys: &[LicenseKeyView], cameras: &[Camera]) -> BTreeMap<ServerId, Vec<CameraId>> {
    let mut of: BTreeMap<&ServerId, Vec<Camera>> = BTreeMap::new();
    for camera in cameras {
        of.entry(&camera.server).or_default().push(camera.clone());
    }
    let surplus = |server: &ServerId, cameras: &[Camera]| {
        let own = keys.iter().filter(|key| key.owner == *server);
        let devices = own.fold(FREE_DEVICES, |sum, key| sum.saturating_add(key.devices));
        selection::surplus(cameras, devices)
    };
    of.into_iter()
        .map(|(server, cameras)| (server.clone(), surplus(server, &cameras)))
        .filter(|(_, surplus)| !surplus.is_empty())
        .collect()
}
