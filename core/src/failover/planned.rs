//! The planned switch (J8): a recording server is drained to a failover server, and back, without a frame lost.
//!
//! Neither server stops before the other films all that it films; once one of them has died it is a failover like
//! any other. Whatever the policy says, everything is recorded and handed back.

use super::{Around, Failover, handing_back::RETURN_PATIENCE, sessions::is_held_elsewhere};
use crate::{
    contract::{
        api::Problem,
        heartbeat::{CameraStatus, ServerReport},
    },
    ids::CameraId,
    time::Moment,
};

impl Failover {
    /// Cameras that keep a planned switch from going on: the recording server films them, and the failover server
    /// can't, though no session stands in its way.
    pub(super) fn missing_at_switch(
        &self,
        index: usize,
        stand_in: &ServerReport,
        around: &Around<'_>,
    ) -> Vec<CameraId> {
        let well = self.planned && self.overlap && around.original.heard && around.cause.is_none();
        // Its last word counts also while it lets go of some: it films the others meanwhile.
        let Some(original) = around.original.said.filter(|_| well) else {
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
