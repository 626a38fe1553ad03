//! What people change of a recording server's settings during its failover: held beside the settings of before,
//! never mixed into them.
//!
//! The failover server films by both together; when the failover ends, the settings of before stand as they were
//! (invariant 4), and this is the account of what was dropped. What changed a device itself, its address or its
//! password, is offered then: it stays an open offer until a person has answered.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::Failover;
use crate::{
    camera::Camera,
    contract::api::{CameraField, ChangeKind, Offer, OfferState, TemporaryChange},
    ids::{CameraId, ServerId},
    settings::Bundle,
};

/// Changes that hold until the end of a failover.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Overlay {
    /// Another name for the recording server.
    pub name: Option<String>,
    /// What is different of its cameras.
    pub cameras: BTreeMap<CameraId, Change>,
}

/// What is different of one camera.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "change", content = "as")]
pub enum Change {
    /// It is there only now, or in the place of the one that was removed.
    Added(Camera),
    /// It is not there for now.
    Removed,
    /// Some of it is set otherwise.
    Edited(Box<Edited>),
}

/// A camera of which some is set otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edited {
    /// The camera as it is for now; of it only `fields` count, and what is offered.
    pub camera: Camera,
    /// What is set otherwise than before.
    pub fields: BTreeSet<CameraField>,
    /// What of it was changed in the device itself.
    pub in_device: BTreeSet<CameraField>,
    /// What became of the offer to keep that.
    pub offer: Option<OfferState>,
}

impl Overlay {
    /// Whether nothing is different.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.name.is_none() && self.cameras.is_empty()
    }

    /// The settings that the failover server films by: those of before with the changes.
    #[must_use]
    pub fn over(&self, before: &Bundle) -> Bundle {
        let mut cameras: BTreeMap<&CameraId, Camera> = before
            .cameras
            .iter()
            .map(|camera| (&camera.id, camera.clone()))
            .collect();
        for (id, change) in &self.cameras {
            match change {
                Change::Added(camera) => drop(cameras.insert(id, camera.clone())),
                Change::Removed => drop(cameras.remove(id)),
                Change::Edited(edited) => {
                    if let Some(camera) = cameras.get_mut(id) {
                        edited.camera.copy_fields(&edited.fields, camera);
                    }
                }
            }
        }
        Bundle {
            identity: before.identity.clone(),
            name: self.name.clone().unwrap_or_else(|| before.name.clone()),
            cameras: cameras.into_values().collect(),
        }
    }

    /// Another server has taken the recording server's place: the cameras are its own.
    pub(crate) fn belongs_to(&mut self, server: &ServerId) {
        for change in self.cameras.values_mut() {
            match change {
                Change::Added(camera) => camera.server.clone_from(server),
                Change::Edited(edited) => edited.camera.server.clone_from(server),
                Change::Removed => {}
            }
        }
    }

    /// A camera is added.
    pub fn add(&mut self, camera: Camera) {
        self.cameras.insert(camera.id.clone(), Change::Added(camera));
    }

    /// A camera is removed that was there `before` or was not.
    pub fn remove(&mut self, camera: &CameraId, before: bool) {
        match before {
            true => self.cameras.insert(camera.clone(), Change::Removed),
            false => self.cameras.remove(camera),
        };
    }

    /// A camera becomes `camera`; `before` is how it is outside of the failover, if it is there. Of what changes now
    /// `in_device` says what was changed in the device itself.
    pub fn edit(&mut self, before: Option<&Camera>, camera: Camera, in_device: &BTreeSet<CameraField>) {
        let id = camera.id.clone();
        let known = self.cameras.remove(&id);
        let (Some(before), None | Some(Change::Edited(_))) = (before, &known) else {
            return self.add(camera);
        };
        let (mut kept, mut offer) = match known {
            Some(Change::Edited(known)) => (known.in_device, known.offer),
            _ => Default::default(),
        };
        let fields = before.differing_fields(&camera);
        if !in_device.is_empty() {
            kept.extend(in_device);
            offer = Some(OfferState::Open);
        }
        // What was set back to what it was before is nothing to be offered.
        if offer == Some(OfferState::Open) {
            kept.retain(|field| fields.contains(field));
            offer = offer.filter(|_| !kept.is_empty());
        }
        if !fields.is_empty() || offer.is_some() {
            let edited = Edited {
                camera,
                fields,
                in_device: kept,
                offer,
            };
            self.cameras.insert(id, Change::Edited(Box::new(edited)));
        }
    }

    /// The camera was set for good in the meantime: of that, nothing is different any more.
    pub fn superseded(&mut self, camera: &CameraId, fields: &BTreeSet<CameraField>) {
        if let Some(Change::Edited(edited)) = self.cameras.get_mut(camera) {
            edited.fields.retain(|field| !fields.contains(field));
            if edited.fields.is_empty() && edited.offer.is_none() {
                self.cameras.remove(camera);
            }
        }
    }

    /// Cameras with an offer that nobody has answered.
    pub fn open_offers(&self) -> impl Iterator<Item = &CameraId> {
        let open = |change: &Change| matches!(change, Change::Edited(edited) if edited.offer == Some(OfferState::Open));
        self.cameras
            .iter()
            .filter(move |(_, change)| open(change))
            .map(|(camera, _)| camera)
    }

    /// A person answers the offer for a camera.
    pub fn answer(&mut self, camera: &CameraId, answer: OfferState) {
        if let Some(Change::Edited(edited)) = self.cameras.get_mut(camera) {
            edited.offer = Some(answer);
            if answer == OfferState::Applied {
                let kept = &edited.in_device;
                edited.fields.retain(|field| !kept.contains(field));
            }
        }
    }

    /// Each change, as it is shown.
    #[must_use]
    pub fn changes(&self) -> Vec<TemporaryChange> {
        let name = self.name.as_ref().map(|_| TemporaryChange {
            camera: None,
            change: ChangeKind::Edited,
            fields: [CameraField::Name].into(),
            offer: None,
        });
        let cameras = self.cameras.iter().map(|(camera, change)| change.shown(camera));
        name.into_iter().chain(cameras).collect()
    }
}

impl Change {
    fn shown(&self, camera: &CameraId) -> TemporaryChange {
        let mut shown = TemporaryChange {
            camera: Some(camera.clone()),
            change: ChangeKind::Edited,
            fields: BTreeSet::new(),
            offer: None,
        };
        match self {
            Self::Added(_) => shown.change = ChangeKind::Added,
            Self::Removed => shown.change = ChangeKind::Removed,
            Self::Edited(edited) => {
                shown.fields.clone_from(&edited.fields);
                shown.offer = edited.offer.map(|state| edited.offered(state));
            }
        }
        shown
    }
}

impl Edited {
    fn offered(&self, state: OfferState) -> Offer {
        let credentials = self.camera.credentials.as_ref();
        let has = |field| self.in_device.contains(&field);
        Offer {
            state,
            url: has(CameraField::Url).then(|| self.camera.url.clone()),
            username: has(CameraField::Credentials)
                .then(|| credentials.map(|each| each.username.clone()).unwrap_or_default()),
        }
    }
}

impl Failover {
    /// Whether the failover server films by the overlay: what people change of the recording server now holds until
    /// the failover's end. Before somebody has taken over and once the recording server films again, a change is
    /// one of its own settings.
    #[must_use]
    pub fn has_overlay(&self) -> bool {
        use crate::contract::api::Phase;
        matches!(self.phase, Phase::TakingOver | Phase::Serving)
    }

    /// What its end drops, in words for its steps; empty when nothing.
    pub(super) fn words_of_dropped(&self) -> String {
        let offers = self.overlay.open_offers().count();
        let dropped = self.dropped().len();
        let mut words = match dropped {
            0 => return String::new(),
            n => format!("; {n} change(s) of settings made meanwhile are dropped"),
        };
        if offers > 0 {
            words.push_str(&format!(
                ", {offers} of them made in a device: they are offered to be kept"
            ));
        }
        words
    }

    /// Changes that its end drops.
    pub(super) fn dropped(&self) -> Vec<TemporaryChange> {
        let mut changes = self.overlay.changes();
        changes.retain(|change| change.change != ChangeKind::Edited || !change.fields.is_empty());
        changes
    }
}
