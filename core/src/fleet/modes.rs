//! What a server is for, switched through the host (B6); and the erasing of a server that becomes a failover server
//! (B3).
//!
//! Nothing is erased but by an order of its own, which a person has confirmed: it is part of the server's assignment
//! until the server says that it has carried it out, and is carried out once.

use super::{Fleet, Record};
use crate::{
    contract::{
        api::Problem,
        heartbeat::ServerReport,
        rpc::{Answer, OrchestratorReply as Reply},
    },
    ids::{CameraId, ErasureId, FailoverId, ServerId},
    server::{Mode, Server},
    time::Moment,
};

impl Fleet {
    /// A server is to have another mode: what that loses has to be confirmed, and goes.
    pub(super) fn leave_mode(
        &mut self,
        known: &Server,
        mode: Mode,
        fresh: &FailoverId,
        now: Moment,
    ) -> Result<(), Problem> {
        let id = &known.id;
        if known.mode == Mode::Host || mode == Mode::Host {
            return Err(Problem::invalid(format!(
                "{id}: a host is set up, not switched to: its mode can't be changed, and no server can become one"
            )));
        }
        let owned: Vec<CameraId> = self.cameras_of(id).map(|camera| camera.id.clone()).collect();
        let films = self.cameras_of(id).filter(|camera| camera.enabled).count();
        let failover = self.failover_with(id);
        let part = failover
            .as_ref()
            .and_then(|failover| self.failovers.get(failover));
        let mut lose = Vec::new();
        lose.extend(part.map(|failover| self.what_interrupting_loses(failover, now)));
        match mode {
            Mode::Failover if owned.is_empty() => {
                lose.push(format!(
                    "{id} becomes a failover server: all of its data is erased"
                ));
            }
            Mode::Failover => lose.push(format!(
                "{id} becomes a failover server: all of its data is erased, every recording on it and its {} \
                 camera(s) with their settings",
                owned.len()
            )),
            _ if known.mode == Mode::Recording && films > 0 && known.enabled => lose.push(format!(
                "{id} films {films} camera(s): not active it films none of them, and is not protected"
            )),
            _ => {}
        }
        if !lose.is_empty() {
            let taking_part = part.map(|failover| (&failover.id, failover.phase, &failover.holders));
            self.confirmed(
                &(id, known.mode, mode, films, &owned, taking_part),
                lose.join(". "),
            )?;
        }
        if let Some(failover) = failover {
            self.interrupt_confirmed(&failover, now);
        }
        if mode == Mode::Failover {
            self.forget_what_is_recorded(id, owned);
            self.order_erasing(id, fresh);
        } else if self.erasing.remove(id).is_some() {
            self.delete("erasing", id.as_str());
        }
        Ok(())
    }

    /// What follows from a mode that a server has from now on.
    pub(super) fn enter_mode(&mut self, id: &ServerId, before: Mode, now: Moment) {
        let Some(mode) = self.members.get(id).map(|member| member.server.mode) else {
            return;
        };
        if mode == before {
            return;
        }
        self.stand_ins.remove(id);
        match mode {
            Mode::Failover => {
                self.stand_ins.insert(id.clone());
                self.stage_for_those_paired_with_all(now);
            }
            Mode::Recording => {
                self.unpair(id);
                self.settings_changed([id.clone()].into(), now);
            }
            Mode::Inactive | Mode::Host => {}
        }
    }

    /// A failover server owns no cameras and is protected by nobody.
    fn forget_what_is_recorded(&mut self, id: &ServerId, owned: Vec<CameraId>) {
        for camera in owned {
            self.cameras.remove(&camera);
            self.delete("camera", camera.as_str());
        }
        self.settings.remove(id);
        self.overlays.remove(id);
        self.protections.remove(id);
        self.dismissed.remove(id);
        self.delete("protection", id.as_str());
        self.delete("dismissed", id.as_str());
    }

    fn order_erasing(&mut self, id: &ServerId, fresh: &FailoverId) {
        // The same letters are allowed in both.
        let Ok(erasure) = ErasureId::new(fresh.as_str()) else {
            return;
        };
        self.erasing.insert(id.clone(), erasure.clone());
        self.save(Record::Erasing(id.clone(), erasure));
        self.touched.insert(id.clone());
    }

    /// A person wants a server's archive erased.
    pub(super) fn erase_server(&mut self, id: &ServerId, fresh: &FailoverId, now: Moment) -> Answer<Reply> {
        let member = self
            .members
            .get(id)
            .ok_or_else(|| Problem::not_found("server", id))?;
        match member.server.mode {
            Mode::Failover | Mode::Inactive => {}
            Mode::Recording => {
                return Err(Problem::conflict(format!(
                    "{id} is a recording server: what it recorded is erased only once it is not active"
                )));
            }
            Mode::Host => return Err(Problem::invalid(format!("{id} is a host: it has no recordings"))),
        }
        let failover = self.failover_with(id);
        let part = failover
            .as_ref()
            .and_then(|failover| self.failovers.get(failover));
        let interrupts = part.map(|failover| self.what_interrupting_loses(failover, now));
        let all = format!("every recording on {id} is erased");
        let lose: Vec<String> = interrupts.into_iter().chain([all]).collect();
        let taking_part = part.map(|failover| (&failover.id, failover.phase, &failover.holders));
        self.confirmed(&(id, taking_part), lose.join(". "))?;
        if let Some(failover) = failover {
            self.interrupt_confirmed(&failover, now);
        }
        self.order_erasing(id, fresh);
        let view = self.server_view(id, now);
        Ok(view.map_or(Reply::Done, |view| Reply::Server(Box::new(view))))
    }

    /// A server says that it has erased everything, by the order that it was given.
    pub(super) fn note_erased(&mut self, report: &ServerReport) {
        let given = self.erasing.get(&report.server);
        if given.is_some() && given == report.erased.as_ref() {
            self.erasing.remove(&report.server);
            self.delete("erasing", report.server.as_str());
            self.touched.insert(report.server.clone());
        }
    }
}
