//! The planned switch (J8): a recording server is drained to a failover server, and back, without a frame lost.
//!
//! Neither server stops before the other films all that it films; once one of them has died it is a failover like
//! any other. Whatever the policy says, everything is recorded and handed back.

use std::collections::BTreeSet;

use super::{Around, Failover, advance::is_held_elsewhere, handing_back::RETURN_PATIENCE};
use crate::{
    contract::{
        api::Problem,
        heartbeat::{CameraStatus, ServerReport},
    },
    ids::CameraId,
    time::Moment,
};

impl Failover {
    /// The recording server films on, but for cameras that allow one session: it lets go of those, so that the
    /// failover server can take them.
    pub(super) fn release(&mut self, cameras: BTreeSet<CameraId>, now: Moment) {
        if cameras.is_empty() {
            return;
        }
        let names: Vec<&str> = cameras.iter().map(CameraId::as_str).collect();
        let what = format!(
            "{} lets go of {} first, which allow(s) one session only: frames are lost until it is taken",
            self.server,
            names.join(", ")
        );
        self.note(self.phase, what, now);
        self.released = cameras;
    }

    /// Cameras that the recording server is to leave to the failover server while it films on.
    #[must_use]
    pub fn left_by_original(&self) -> BTreeSet<CameraId> {
        let Some(stand_in) = self.stand_in().filter(|_| self.overlap && self.ending.is_none()) else {
            return BTreeSet::new();
        };
        let left = |camera: &&CameraId| !stand_in.disabled.contains(camera);
        self.released.iter().filter(left).cloned().collect()
    }

    /// Cameras that keep a planned switch from going on: the recording server films them, and the failover server
    /// can't, though no session stands in its way.
    pub(super) fn missing_at_switch(
        &self,
        index: usize,
        stand_in: &ServerReport,
        around: &Around<'_>,
    ) -> Vec<CameraId> {
        let well = self.planned && self.overlap && around.original.heard && around.cause.is_none();
        let Some(original) = around.original.reached.filter(|_| well) else {
            return Vec::new();
        };
        let disabled = &self.holders[index].disabled;
        let films = |camera: &CameraId| original.cameras.get(camera).is_some_and(CameraStatus::films);
        let lost = |camera: &CameraId| {
            let status = stand_in.cameras.get(camera);
            matches!(status, Some(CameraStatus::Lost { fault, .. }) if !is_held_elsewhere(*fault))
        };
        let cameras = around.cameras.iter();
        cameras
            .filter(|camera| !disabled.contains(camera) && films(camera) && lost(camera))
            .cloned()
            .collect()
    }

    /// Whether its end waits for cameras that the recording server can't film, for longer than other failovers do.
    pub(crate) fn return_is_stuck(&self, now: Moment) -> bool {
        let since = self
            .incomplete_since
            .0
            .filter(|_| self.planned && self.ending.is_some());
        since.is_some_and(|since| now.monotonic.since(since) >= RETURN_PATIENCE)
    }

    /// A person ends it although frames will be lost.
    pub(crate) fn insist(&mut self, by: &str, now: Moment) {
        self.planned = false;
        let what = format!("{by} ends it although {} can't film everything", self.server);
        self.note(self.phase, what, now);
    }

    /// What it does whatever the policy says: a planned switch promises that no frame is lost.
    pub(super) fn keep_everything(&mut self) {
        self.range = crate::policy::Range::Full;
        self.failback = crate::policy::Failback::Keep;
    }
}

/// Why a planned switch can't begin.
pub(crate) fn refuse(why: impl std::fmt::Display) -> Problem {
    Problem::conflict(format!("a planned switch is not possible now: {why}"))
}
