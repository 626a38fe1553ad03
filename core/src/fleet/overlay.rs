//! Changes of a recording server's settings during its failover (E13): for the failover server only, until the end.
//!
//! Before somebody has taken over, and from the moment at which the recording server films again, a change is one of
//! its own settings like any other: the failover restores it with the rest.

use std::{collections::BTreeSet, sync::Arc};

use super::{Fleet, Record, Settings};
use crate::{
    camera::Camera,
    contract::{
        api::{CameraEdit, CameraField, OfferState, Problem},
        rpc::{Answer, OrchestratorReply as Reply},
    },
    failover::{
        Failover, Holding,
        overlay::{Change, Overlay},
    },
    ids::{CameraId, FailoverId, ServerId},
    selection,
    time::Moment,
};

impl Fleet {
    /// The failover by whose overlay a recording server's identity is filmed now.
    fn overlaid(&self, server: &ServerId) -> Option<&Failover> {
        self.failover_of(server).filter(|failover| failover.has_overlay())
    }

    /// The settings by which a failover server films, or would.
    pub(super) fn settings_for_stand_in(&self, server: &ServerId) -> Option<&Arc<Settings>> {
        self.overlays.get(server).or_else(|| self.settings.get(server))
    }

    /// Computes anew what the failover server of a recording server films by.
    pub(super) fn renew_overlay_of(&mut self, server: &ServerId) {
        let failover = self.failover_of(server);
        let overlay = failover.map(|failover| &failover.overlay);
        let overlaid = overlay
            .filter(|overlay| !overlay.is_empty())
            .zip(self.settings.get(server))
            .map(|(overlay, settings)| Settings::of(overlay.over(&settings.bundle)));
        match overlaid {
            Some(settings) => drop(self.overlays.insert(server.clone(), Arc::new(settings))),
            None => drop(self.overlays.remove(server)),
        }
    }

    /// A recording server's settings of its own have changed during a failover: they are what it restores.
    pub(super) fn restore_to_new_settings(&mut self, server: &ServerId) {
        let Some(settings) = self.settings.get(server) else {
            return;
        };
        let hash = settings.hash.clone();
        if let Some(mut failover) = self
            .failover_of(server)
            .filter(|each| each.settings != hash)
            .cloned()
        {
            failover.settings = hash;
            self.keep(failover);
        }
    }

    /// Changes the overlay of a recording server's failover, if it has one; answers whether it has. The failover
    /// server may have no room for what was added, or have room again: the lowest priority goes first.
    pub(super) fn in_overlay(&mut self, server: &ServerId, change: impl FnOnce(&mut Overlay)) -> bool {
        let Some(mut failover) = self.overlaid(server).cloned() else {
            return false;
        };
        change(&mut failover.overlay);
        let before = self.settings.get(server);
        let settings = before.map(|before| failover.overlay.over(&before.bundle));
        let stand_in = failover.stand_in().map(|holder| holder.server.clone());
        if let (Some(settings), Some(stand_in)) = (settings, stand_in) {
            let surplus = selection::surplus(&settings.cameras, self.room_on(&stand_in));
            let films = failover
                .holders
                .iter_mut()
                .filter(|each| each.holding == Holding::Films);
            films.for_each(|holder| holder.disabled.clone_from(&surplus));
        }
        self.keep(failover);
        true
    }

    /// A camera is set for good, in these `fields` or anew, while the recording server films again: should it fail
    /// once more in this failover, that is what counts.
    pub(super) fn supersede_in_overlay(
        &mut self,
        server: &ServerId,
        camera: &CameraId,
        fields: Option<&BTreeSet<CameraField>>,
    ) {
        if let Some(mut failover) = self.failover_of(server).cloned() {
            match fields {
                Some(fields) => failover.overlay.superseded(camera, fields),
                None => drop(failover.overlay.cameras.remove(camera)),
            }
            if self.failovers.get(&failover.id) != Some(&failover) {
                self.keep(failover);
            }
        }
    }

    /// A camera as it is now: with what holds until the end of a failover.
    pub(super) fn camera_now(&self, id: &CameraId) -> Option<Camera> {
        let own = self.cameras.get(id);
        let server = match own {
            Some(camera) => &camera.server,
            None => self.added_for_now(id)?,
        };
        if self.overlaid(server).is_none() {
            return own.cloned();
        }
        let cameras = &self.settings_for_stand_in(server)?.bundle.cameras;
        cameras.iter().find(|camera| camera.id == *id).cloned()
    }

    /// The recording server to which a camera was added for the time of its failover.
    fn added_for_now(&self, id: &CameraId) -> Option<&ServerId> {
        let has = |failover: &&Failover| matches!(failover.overlay.cameras.get(id), Some(Change::Added(_)));
        let mut failovers = self
            .unsettled_failovers()
            .filter(|failover| !failover.phase.is_final());
        failovers.find(has).map(|failover| &failover.server)
    }

    /// Whether a camera can't have its id, since another one has it: now, outside of a failover, or in one.
    pub(super) fn is_taken(&self, camera: &Camera) -> bool {
        let of_another = |server: &ServerId| *server != camera.server;
        let own = self.cameras.get(&camera.id).map(|own| &own.server);
        self.camera_now(&camera.id).is_some_and(|known| known != *camera)
            || own.is_some_and(of_another)
            || self.added_for_now(&camera.id).is_some_and(of_another)
    }

    /// All cameras as they are now.
    pub(super) fn cameras_now(&self) -> BTreeSet<CameraId> {
        let added = self
            .overlays
            .values()
            .flat_map(|settings| &settings.bundle.cameras);
        let added = added.map(|camera| &camera.id);
        self.cameras.keys().chain(added).cloned().collect()
    }

    /// Whether some of a camera holds only until the end of a failover.
    pub(super) fn is_temporary(&self, camera: &Camera) -> bool {
        let failover = self.overlaid(&camera.server);
        failover.is_some_and(|failover| match failover.overlay.cameras.get(&camera.id) {
            Some(Change::Edited(edited)) => !edited.fields.is_empty(),
            change => change.is_some(),
        })
    }

    /// A recording server's name as it is now.
    pub(super) fn name_now(&self, server: &ServerId) -> Option<String> {
        let own = &self.members.get(server)?.server.name;
        let overlay = self.overlaid(server).map(|failover| &failover.overlay);
        Some(
            overlay
                .and_then(|overlay| overlay.name.as_ref())
                .unwrap_or(own)
                .clone(),
        )
    }

    /// A person says what is to become of what was changed in devices during a failover.
    pub(super) fn answer_offers(
        &mut self,
        id: &FailoverId,
        chosen: &[CameraId],
        answer: OfferState,
        by: &str,
        now: Moment,
    ) -> Answer<Reply> {
        let failover = self.failovers.get(id);
        let mut failover = failover
            .cloned()
            .ok_or_else(|| Problem::not_found("failover", id))?;
        let open: Vec<CameraId> = failover.overlay.open_offers().cloned().collect();
        if let Some(none) = chosen.iter().find(|camera| !open.contains(camera)) {
            return Err(Problem::conflict(format!(
                "failover {id} has no open offer for camera {none}; open are: {}",
                words(&open)
            )));
        }
        let cameras = if chosen.is_empty() { open } else { chosen.to_vec() };
        if cameras.is_empty() {
            return Err(Problem::conflict(format!("failover {id} has no open offer")));
        }
        if answer == OfferState::Applied
            && let Some(gone) = cameras.iter().find(|camera| !self.cameras.contains_key(camera))
        {
            return Err(Problem::conflict(format!(
                "there is no camera {gone} any more: its offer can only be dropped"
            )));
        }
        for camera in &cameras {
            if answer == OfferState::Applied {
                self.apply(&failover, camera);
            }
            failover.overlay.answer(camera, answer);
        }
        let verb = if answer == OfferState::Applied {
            "keeps"
        } else {
            "drops"
        };
        failover.say(
            format!("{by} {verb} what was changed in {}", words(&cameras)),
            now,
        );
        let server = failover.server.clone();
        self.keep(failover);
        if answer == OfferState::Applied {
            self.settings_changed([server].into(), now);
        }
        Ok(Reply::Failover(Box::new(self.failovers[id].view())))
    }

    /// What was changed in a device becomes one of the recording server's own settings.
    fn apply(&mut self, failover: &Failover, id: &CameraId) {
        let Some(Change::Edited(edited)) = failover.overlay.cameras.get(id) else {
            return;
        };
        if let Some(camera) = self.cameras.get_mut(id) {
            edited.camera.copy_fields(&edited.in_device, camera);
            let camera = camera.clone();
            self.save(Record::Camera(camera));
        }
    }
}

/// What of an edit of a camera was done in the device itself: what the person says, or else every new address and
/// password, since a device that has another one is lost without it.
pub(super) fn in_device(
    before: &Camera,
    after: &Camera,
    edit: &CameraEdit,
) -> Result<BTreeSet<CameraField>, Problem> {
    let mut fields = before.differing_fields(after);
    fields.retain(|field| matches!(field, CameraField::Url | CameraField::Credentials));
    if edit.in_device == Some(true) && edit.url.is_none() && edit.credentials.is_none() {
        return Err(Problem::invalid(format!(
            "camera {}: only its address and its credentials can have been changed in the device itself",
            before.id
        )));
    }
    Ok(if edit.in_device == Some(false) {
        BTreeSet::new()
    } else {
        fields
    })
}

fn words(cameras: &[CameraId]) -> String {
    let names: Vec<&str> = cameras.iter().map(CameraId::as_str).collect();
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    }
}
