//! What is known of the sessions that cameras allow (K8): set by people, and said where a camera is refused.

use super::{Fleet, Record};
use crate::{
    camera::Camera,
    contract::heartbeat::{CameraFault, CameraStatus},
    failover::overlay::Change,
    ids::{CameraId, ServerId},
};

impl Fleet {
    /// What a device allows holds for good, also if it is set during a failover: it is no setting that a failover
    /// restores. Answers whether that is news. A camera that is there for the failover only goes with all it has.
    pub(super) fn set_sessions(&mut self, edited: &Camera) -> bool {
        let failover = self.failover_of(&edited.server);
        let only_now = failover.is_some_and(|failover| {
            let change = failover.overlay.cameras.get(&edited.id);
            failover.has_overlay() && matches!(change, Some(Change::Added(_)))
        });
        let own = self.cameras.get_mut(&edited.id);
        let Some(own) = own.filter(|own| !only_now && own.max_sessions != edited.max_sessions) else {
            return false;
        };
        own.max_sessions = edited.max_sessions;
        let own = own.clone();
        self.save(Record::Camera(own));
        true
    }

    /// How a camera is on `server`, and if it is refused a session there: who holds it, and what to do.
    pub(super) fn with_holder(
        &self,
        camera: &CameraId,
        server: &ServerId,
        status: CameraStatus,
    ) -> CameraStatus {
        match status {
            CameraStatus::Lost {
                fault: fault @ CameraFault::HeldElsewhere,
                detail,
            } => CameraStatus::Lost {
                fault,
                detail: match self.words_of_holder(camera, server) {
                    Some(words) => format!("{words}; {detail}"),
                    None => detail,
                },
            },
            other => other,
        }
    }

    fn words_of_holder(&self, id: &CameraId, refused: &ServerId) -> Option<String> {
        let camera = self.camera_now(id)?;
        let failover = self.failover_of(&camera.server);
        let stand_ins = failover.iter().flat_map(|failover| &failover.holders);
        let films = |server: &&ServerId| {
            let report = self
                .members
                .get(*server)
                .and_then(|member| member.report.as_ref());
            let status = report.and_then(|report| report.cameras.get(id));
            *server != refused && status.is_some_and(CameraStatus::films)
        };
        let holder = stand_ins
            .map(|holder| &holder.server)
            .chain([&camera.server])
            .find(films)?;
        let allows = match camera.max_sessions {
            Some(1) => "this camera allows 1 session".to_owned(),
            Some(most) => format!("this camera allows {most} sessions, and others have the rest"),
            None => format!(
                "this camera allows no session beside that, understudy camera edit {id} --max-sessions 1 says so"
            ),
        };
        Some(format!("held by {holder}: {allows}"))
    }
}
