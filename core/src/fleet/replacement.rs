//! Permanent replacement (H1–H3): another server takes a failed recording server's place for good.
//!
//! The new server keeps its own id, which stays with the machine, and gets all that the original was to its users:
//! its name, its cameras, its pairing and failover settings, its licences. All of it changes in one step, and so in
//! one transaction: whoever dies over it, it has happened or it has not. What follows (recordings, licences, the
//! original's end) follows from the state like everything else.

use super::{Fleet, Record, gone::Replaced};
use crate::{
    contract::{
        api::{Phase, Problem, ReplacementCandidate, ReplacementView, ServerState},
        event::Event,
        rpc::{Answer, OrchestratorReply as Reply},
    },
    failover::{Failover, Holding},
    ids::ServerId,
    server::{Mode, Server},
    time::Moment,
};

impl Fleet {
    /// Who could take a recording server's place, and why others can't.
    pub(super) fn replacement_of(&self, server: &ServerId, now: Moment) -> Answer<Reply> {
        self.recording_server(server)?;
        let refused = self.replaceable(server).err();
        Ok(Reply::Replacement(ReplacementView {
            server: server.clone(),
            failover: self.failover_of(server).map(|failover| failover.id.clone()),
            refused: refused.map_or_else(String::new, |problem| problem.detail),
            candidates: self.successors(server, now),
        }))
    }

    /// The failover in the course of which a recording server can be replaced now.
    fn replaceable(&self, server: &ServerId) -> Result<&Failover, Problem> {
        let Some(failover) = self.failover_of(server) else {
            return Err(Problem::conflict(format!(
                "{server} is not failed over: start a failover first, so that its cameras are filmed meanwhile"
            )));
        };
        if failover.phase.hands_back() {
            return Err(Problem::conflict(format!(
                "{server} films again, and failover {} hands back to it: it can't be replaced before that is over",
                failover.id
            )));
        }
        Ok(failover)
    }

    fn successors(&self, server: &ServerId, now: Moment) -> Vec<ReplacementCandidate> {
        let failover = self.failover_of(server).filter(|each| !each.phase.hands_back());
        let stand_in = failover.and_then(Failover::stand_in).map(|holder| &holder.server);
        let others = self
            .members
            .values()
            .filter(|member| member.server.mode == Mode::Recording && member.server.id != *server)
            .map(|member| &member.server.id);
        let all = stand_in.into_iter().chain(others);
        all.filter_map(|id| self.successor(server, failover, id, now))
            .collect()
    }

    fn successor(
        &self,
        server: &ServerId,
        failover: Option<&Failover>,
        id: &ServerId,
        now: Moment,
    ) -> Option<ReplacementCandidate> {
        let member = self.members.get(id)?;
        let mode = member.server.mode;
        let why_not = match (mode, failover) {
            (Mode::Failover, Some(failover)) => self.why_not_stand_in(failover, id, now),
            _ => self.why_not_recording_server(server, id, now),
        };
        let domain = &self.members.get(server)?.server.domain;
        let why = match &why_not {
            Some(why) => why.clone(),
            None if member.server.domain != *domain => format!(
                "is in another domain ({}): the cameras may be out of its reach",
                member.server.domain
            ),
            None if mode == Mode::Failover => "films its cameras already, and has the recordings".to_owned(),
            None => "is in normal state, has room and no cameras of its own".to_owned(),
        };
        Some(ReplacementCandidate {
            server: id.clone(),
            name: member.server.name.clone(),
            mode,
            offered: why_not.is_none(),
            why,
        })
    }

    fn why_not_stand_in(&self, failover: &Failover, id: &ServerId, now: Moment) -> Option<String> {
        let member = self.members.get(id)?;
        let disabled = failover.stand_in().map_or(0, |holder| holder.disabled.len());
        if let Some(why) = self.why_no_room(&failover.server, id) {
            Some(why)
        } else if disabled > 0 {
            Some(format!("has no room for {disabled} of the cameras"))
        } else if failover.phase != Phase::Serving {
            Some("does not film all that it can yet".to_owned())
        } else {
            match self.state_of(member, now) {
                ServerState::Serving => None,
                state => Some(is_not(state, "normal")),
            }
        }
    }

    fn why_not_recording_server(&self, server: &ServerId, id: &ServerId, now: Moment) -> Option<String> {
        let member = self.members.get(id)?;
        let owned = self
            .cameras
            .values()
            .filter(|camera| camera.server == *id)
            .count();
        if owned > 0 {
            return Some(format!("has {owned} camera(s) of its own"));
        }
        if let Some(failover) = self.failover_with(id) {
            return Some(format!("takes part in failover {failover}"));
        }
        match self.state_of(member, now) {
            ServerState::Normal => self.why_no_room(server, id),
            state => Some(is_not(state, "normal")),
        }
    }

    fn why_no_room(&self, server: &ServerId, id: &ServerId) -> Option<String> {
        let cameras = self.settings.get(server).map_or(0, |own| own.enabled.len());
        let room = self.room_on(id);
        (u32::try_from(cameras).unwrap_or(u32::MAX) > room)
            .then(|| format!("has room for {room} camera(s), not for {cameras}"))
    }

    /// A person has another server take a recording server's place for good.
    pub(super) fn replace_server(
        &mut self,
        server: &ServerId,
        successor: Option<&ServerId>,
        by: &str,
        now: Moment,
    ) -> Answer<Reply> {
        if let Some(done) = self.replaced_before(server, successor) {
            return done;
        }
        self.recording_server(server)?;
        let failover = self.replaceable(server)?.clone();
        let successor = match successor.or(failover.stand_in().map(|holder| &holder.server)) {
            Some(successor) => successor.clone(),
            None => {
                return Err(Problem::conflict(format!(
                    "no failover server films for {server} yet: say which recording server is to take its place"
                )));
            }
        };
        if !self.members.contains_key(&successor) {
            return Err(Problem::not_found("server", &successor));
        }
        let candidates = self.successors(server, now);
        match candidates.iter().find(|each| each.server == successor) {
            Some(candidate) if candidate.offered => {}
            Some(candidate) => {
                return Err(Problem::conflict(format!(
                    "{successor} can't take the place of {server}: it {}",
                    candidate.why
                )));
            }
            None => {
                return Err(Problem::conflict(format!(
                    "{successor} can't take the place of {server}: it is neither the failover server that films for it, \
                     nor a recording server"
                )));
            }
        }
        let situation = (
            server,
            &successor,
            &failover.id,
            failover.phase,
            &failover.holders,
        );
        self.confirmed(&situation, self.what_replacing_means(&failover, &successor))?;
        self.replace(&failover, &successor, by, now);
        Ok(Reply::Failover(Box::new(self.failovers[&failover.id].view())))
    }

    /// The answer to a request that was carried out before: it may be sent twice.
    fn replaced_before(&self, server: &ServerId, successor: Option<&ServerId>) -> Option<Answer<Reply>> {
        let replaced = self.gone.get(server)?.replaced.as_ref()?;
        let failover = self.failovers.get(&replaced.failover)?;
        Some(match successor {
            Some(other) if *other != replaced.successor => Err(Problem::conflict(format!(
                "{} has taken the place of {server} already",
                replaced.successor
            ))),
            _ => Ok(Reply::Failover(Box::new(failover.view()))),
        })
    }

    fn what_replacing_means(&self, failover: &Failover, successor: &ServerId) -> String {
        let server = &failover.server;
        let mut words = format!(
            "{successor} takes the place of {server} for good, with its name, cameras, settings and licences. {server} is \
             deleted: it stands down when it comes back, and keeps what it recorded on its own disk"
        );
        let itself = failover.holding(successor) == Some(Holding::Films);
        if itself {
            words.push_str(&format!(
                ". {successor} is no failover server any more: nobody is protected by it"
            ));
        }
        if failover.failback == crate::policy::Failback::Remove {
            words.push_str(". What was recorded during the failover is erased, as its failback setting says");
        }
        let dropped = failover.overlay.changes().len();
        if dropped > 0 {
            words.push_str(&format!(
                ". {dropped} change(s) of settings made during the failover end with it"
            ));
        }
        words
    }

    fn replace(&mut self, failover: &Failover, successor: &ServerId, by: &str, now: Moment) {
        let original = failover.server.clone();
        let (Some(old), Some(new)) = (
            self.members.get(&original).map(|member| member.server.clone()),
            self.members.get(successor).map(|member| member.server.clone()),
        ) else {
            return;
        };
        let vacancy = (new.mode == Mode::Failover).then(|| self.place_of(&new));
        self.hand_over(&original, successor);
        let mut server = new.clone();
        server.mode = Mode::Recording;
        server.name.clone_from(&old.name);
        self.save(Record::Server(server.clone()));
        if let Some(member) = self.members.get_mut(successor) {
            member.server = server;
            member.protected = None;
        }
        let replaced = Replaced {
            successor: successor.clone(),
            failover: failover.id.clone(),
            vacancy,
        };
        self.part_with(&original, Some(replaced), now);
        self.renew_settings_of(std::slice::from_ref(successor));
        let Some(settings) = self.settings.get(successor).cloned() else {
            return;
        };
        // As it is now: whoever is gone has no part in it any more.
        let Some(mut failover) = self.failovers.get(&failover.id).cloned() else {
            return;
        };
        failover.replace(successor, settings.hash.clone(), by, now);
        let films = failover.stand_in().map(|holder| holder.server.clone());
        let id = failover.id.clone();
        self.keep(failover);
        self.stage_settings_of(successor, now);
        if let Some(films) = films {
            self.stage(&films, &settings, now);
        }
        let event = Event::ServerReplaced {
            server: original,
            successor: successor.clone(),
            server_name: old.name,
            failover: id,
            by: by.to_owned(),
        };
        self.emit(successor, event, now);
    }

    /// Cameras, pairing and failover settings.
    fn hand_over(&mut self, original: &ServerId, successor: &ServerId) {
        let cameras: Vec<_> = self
            .cameras
            .values()
            .filter(|camera| camera.server == *original)
            .cloned()
            .collect();
        for mut camera in cameras {
            camera.server.clone_from(successor);
            self.save(Record::Camera(camera.clone()));
            self.cameras.insert(camera.id.clone(), camera);
        }
        // A recording server stands in for nobody.
        self.stand_ins.remove(successor);
        self.unpair(successor);
        if self.last_used.remove(successor).is_some() {
            self.delete("last_used", successor.as_str());
        }
        if self.dismissed.remove(successor).is_some() {
            self.delete("dismissed", successor.as_str());
        }
        let protection = self.protections.get(original).cloned().unwrap_or_default();
        self.save(Record::Protection(successor.clone(), protection.clone()));
        self.protections.insert(successor.clone(), protection);
    }

    /// How many failover servers its domain has, with the one that is about to be none any more.
    fn place_of(&self, server: &Server) -> super::gone::Vacancy {
        let there = self
            .servers()
            .filter(|each| each.mode == Mode::Failover && each.domain == server.domain);
        super::gone::Vacancy {
            domain: server.domain.clone(),
            had: u32::try_from(there.count()).unwrap_or(u32::MAX),
        }
    }
}

fn is_not(state: ServerState, wanted: &str) -> String {
    let state = serde_json::to_value(state).unwrap_or_default();
    let state = state.as_str().unwrap_or_default().replace('_', " ");
    format!("is {state}, not in {wanted} state")
}
