//! Cameras that allow few sessions (K8): while both servers are to film, the recording server lets go of them, so that
//! the failover server can take them.
//!
//! Known beforehand or noticed when the failover server is refused: the difference is a moment of video. Whoever holds
//! such a camera is named in the failover's steps.

use std::collections::BTreeSet;

use super::{Around, Failover, Side};
use crate::{
    contract::heartbeat::{CameraFault, CameraStatus, ServerReport},
    ids::CameraId,
    time::Moment,
};

impl Failover {
    /// The recording server films on, but for cameras that are known to allow one session: it lets go of those.
    pub(super) fn release(&mut self, cameras: BTreeSet<CameraId>, now: Moment) {
        if cameras.is_empty() {
            return;
        }
        let what = format!(
            "{} lets go of {} first, which allow(s) one session only: frames are lost until it is taken",
            self.server,
            names(&cameras)
        );
        self.note(self.phase, what, now);
        self.released = cameras;
    }

    /// The same for cameras of which nobody has said so: the failover server was refused a session beside the
    /// recording server's. Answers whether there were any.
    pub(super) fn release_refused(
        &mut self,
        index: usize,
        stand_in: Side<'_>,
        around: &Around<'_>,
        now: Moment,
    ) -> bool {
        let refused = self.refused_beside_original(index, stand_in, around);
        let Some(first) = refused.first() else {
            return false;
        };
        let what = format!(
            "{} is refused {}, held by {server}: no session is allowed beside that. {server} lets go: frames are \
             lost until it is taken. So that it does before it is asked: understudy camera edit {first} \
             --max-sessions 1",
            self.holders[index].server,
            names(&refused),
            server = self.server,
        );
        self.note(self.phase, what, now);
        self.released.extend(refused);
        true
    }

    fn refused_beside_original(
        &self,
        index: usize,
        stand_in: Side<'_>,
        around: &Around<'_>,
    ) -> BTreeSet<CameraId> {
        let both_film = self.overlap && self.ending.is_none() && around.original.heard;
        let Some(report) = stand_in
            .reached
            .filter(|report| both_film && report.identity.as_ref() == Some(&self.server))
        else {
            return BTreeSet::new();
        };
        let disabled = &self.holders[index].disabled;
        let left = |camera: &CameraId| disabled.contains(camera) || self.released.contains(camera);
        let cameras = around.stand_in_cameras.iter();
        cameras
            .filter(|camera| !left(camera) && is_refused(report, camera))
            .filter(|camera| self.original_holds(camera, around))
            .cloned()
            .collect()
    }

    /// Whether the recording server has a session with a camera, by its last word.
    fn original_holds(&self, camera: &CameraId, around: &Around<'_>) -> bool {
        let said = around.original.said;
        let own = said.filter(|report| report.identity.as_ref() == Some(&self.server));
        // A volume that takes nothing does not keep it from asking the camera again and again.
        own.and_then(|report| report.cameras.get(camera))
            .is_some_and(|status| {
                status.films()
                    || matches!(
                        status,
                        CameraStatus::Lost {
                            fault: CameraFault::Storage,
                            ..
                        }
                    )
            })
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

    /// Which of the cameras that the failover server can't film others hold, in words; empty if none.
    pub(super) fn words_of_held(
        &self,
        lost: &[&CameraId],
        stand_in: &ServerReport,
        around: &Around<'_>,
    ) -> String {
        let held = lost.iter().copied().filter(|camera| is_refused(stand_in, camera));
        let (own, others): (Vec<&CameraId>, Vec<&CameraId>) =
            held.partition(|camera| self.original_holds(camera, around));
        let unheard = match around.original.heard {
            true => "",
            false => ", which is not heard",
        };
        let own = (!own.is_empty()).then(|| format!("; held by {}{unheard}: {}", self.server, names(own)));
        let others = (!others.is_empty()).then(|| format!("; held elsewhere: {}", names(others)));
        own.into_iter().chain(others).collect()
    }

    /// Cameras that the recording server could not film beside the failover server, in words; empty if none.
    pub(super) fn words_of_taken_back(&self, around: &Around<'_>) -> String {
        let Some((report, stand_in)) = around.original.reached.zip(self.last_stand_in()) else {
            return String::new();
        };
        let refused = around.cameras.iter().filter(|camera| is_refused(report, camera));
        match names(refused.filter(|camera| self.stand_in_films(camera, around))) {
            none if none.is_empty() => none,
            names => format!(
                "; {stand_in} held {names} until now: frames are lost until {} takes it",
                self.server
            ),
        }
    }
}

/// Whether waiting for a camera is of no use: somebody else has to let go of it first.
pub(super) fn is_held_elsewhere(fault: CameraFault) -> bool {
    fault == CameraFault::HeldElsewhere
}

fn is_refused(report: &ServerReport, camera: &CameraId) -> bool {
    let status = report.cameras.get(camera);
    matches!(status, Some(CameraStatus::Lost { fault, .. }) if is_held_elsewhere(*fault))
}

fn names<'a>(cameras: impl IntoIterator<Item = &'a CameraId>) -> String {
    let names: Vec<&str> = cameras.into_iter().map(CameraId::as_str).collect();
    names.join(", ")
}
