//! What people and programs ask of the orchestrator.

use super::{Effect, Fleet, Member, confirm::Asking, triggers::ByHand};
use crate::{
    contract::{
        api::{OfferState, Problem, StartMode},
        rpc::{Answer, OrchestratorReply as Reply, OrchestratorRequest as Request},
    },
    failover::planned,
    ids::{CameraId, FailoverId, ServerId},
    server::Mode,
    time::Moment,
};

impl Fleet {
    /// Answers a request. A failover may begin, and needs an id that was never used.
    ///
    /// # Errors
    /// The [`Problem`] says what is wrong with the request, or why it is not possible now, and what to do.
    /// `GetBundle` is refused: the caller answers it with [`Fleet::bundle`], encrypted.
    pub fn answer(
        &mut self,
        request: Request,
        fresh: FailoverId,
        now: Moment,
    ) -> (Answer<Reply>, Vec<Effect>) {
        let (request, confirmation) = match request {
            Request::Confirmed {
                confirmation,
                request,
            } => (*request, Some(confirmation)),
            request => (request, None),
        };
        self.asking = Asking::of(&request, confirmation);
        let answer = match request {
            // Whoever only looks changes nothing, so that there is nothing to be carried out.
            Request::ListDomains
            | Request::ListServers
            | Request::ListCameras
            | Request::ListFailovers
            | Request::GetProtection(_)
            | Request::GetReplacement(_)
            | Request::GetFailover(_) => return (self.show(&request, now), Vec::new()),
            Request::AddServer(server) => self.add_server(server, now),
            Request::EditServer { server, edit } => self.edit_server(&server, edit, &fresh, now),
            Request::BeginMaintenance { server, order, by } => {
                self.begin_maintenance(&server, order, by, now)
            }
            Request::EndMaintenance { server, by } => self.end_maintenance(&server, &by, now),
            Request::EraseServer(server) => self.erase_server(&server, &fresh, now),
            Request::RemoveServer(server) => self.remove_server(&server, now),
            Request::SetPairing { server, pairing } => self.set_pairing(&server, pairing, now),
            Request::SetPolicy { server, policy } => self.set_policy(&server, policy, now),
            Request::AddCameras(cameras) => self.add_cameras(cameras, now),
            Request::EditCamera { camera, edit } => self.edit_camera(&camera, edit, now),
            Request::RemoveCamera(camera) => self.remove_camera(&camera, now),
            Request::StartFailover {
                server,
                stand_in,
                by,
                mode,
            } => {
                let by_hand = ByHand {
                    by: Some(by),
                    wanted: stand_in,
                    mode,
                };
                self.start_failover(&server, by_hand, fresh, now)
            }
            Request::Replace {
                server,
                successor,
                by,
            } => self.replace_server(&server, successor.as_ref(), &by, now),
            Request::StopFailover { server, by } => self.stop_failover(&server, &by, now),
            Request::StopRestoration { failover, by } => self.stop_restoration(&failover, &by, now),
            Request::AnswerOffers {
                failover,
                cameras,
                apply,
                by,
            } => {
                let answer = if apply {
                    OfferState::Applied
                } else {
                    OfferState::Dropped
                };
                self.answer_offers(&failover, &cameras, answer, &by, now)
            }
            Request::Confirmed { .. } => Err(Problem::invalid("a request is confirmed once")),
            Request::GetBundle(hash) => Err(Problem::not_found("bundle", hash)),
        };
        self.proceed(now);
        let effects = std::mem::take(&mut self.out);
        (self.as_it_is_now(answer, now), effects)
    }

    fn show(&self, request: &Request, now: Moment) -> Answer<Reply> {
        Ok(match request {
            Request::ListDomains => Reply::Domains(self.domain_views()),
            Request::ListServers => Reply::Servers(self.server_views(now)),
            Request::ListCameras => Reply::Cameras(self.camera_views()),
            Request::ListFailovers => Reply::Failovers(self.failover_views()),
            Request::GetProtection(server) => {
                self.recording_server(server)?;
                Reply::Protection(self.protections.get(server).cloned().unwrap_or_default())
            }
            Request::GetReplacement(server) => self.replacement_of(server, now)?,
            Request::GetFailover(id) => {
                let failover = self.failovers.get(id);
                let failover = failover.ok_or_else(|| Problem::not_found("failover", id))?;
                Reply::Failover(Box::new(failover.view()))
            }
            _ => Reply::Done,
        })
    }

    /// An answer speaks of what came of the request, not of what was before.
    fn as_it_is_now(&self, answer: Answer<Reply>, now: Moment) -> Answer<Reply> {
        answer.map(|reply| match reply {
            Reply::Failover(view) => match self.failovers.get(&view.id) {
                Some(failover) => Reply::Failover(Box::new(failover.view())),
                None => Reply::Failover(view),
            },
            Reply::Server(view) => match self.server_view(&view.server.id, now) {
                Some(view) => Reply::Server(Box::new(view)),
                None => Reply::Server(view),
            },
            other => other,
        })
    }

    fn start_failover(
        &mut self,
        server: &ServerId,
        by_hand: ByHand,
        fresh: FailoverId,
        now: Moment,
    ) -> Answer<Reply> {
        let member = self.recording_server(server)?;
        if !member.enabled {
            return Err(Problem::conflict(format!("{server} is switched off")));
        }
        if self.paired_with(server).is_empty() {
            return Err(Problem::conflict(format!(
                "{server} is paired with no failover server: pair it first"
            )));
        }
        let by = by_hand.by.clone().unwrap_or_default();
        let cause = Self::asked_for(&by, now);
        if let Some(mut failover) = self.failover_of(server).cloned() {
            if by_hand.mode == StartMode::Planned {
                return Err(planned::refuse(format!(
                    "failover {} of {server} is not over yet",
                    failover.id
                )));
            }
            if let Some(wanted) = by_hand.wanted
                && failover.last_stand_in() != Some(&wanted)
            {
                return Err(Problem::conflict(format!(
                    "failover {} of {server} is not over yet: another failover server can't be chosen for it",
                    failover.id
                )));
            }
            failover.start_again(cause, &by, now)?;
            let id = failover.id.clone();
            self.keep(failover);
            return Ok(Reply::Failover(Box::new(self.failovers[&id].view())));
        }
        if let Some(wanted) = &by_hand.wanted {
            self.check_chosen(server, wanted, now)?;
        }
        if by_hand.mode == StartMode::Planned {
            self.check_planned(server, by_hand.wanted.as_ref(), now)?;
        }
        self.begin(server, cause, by_hand, fresh.clone(), now);
        let begun = self.failovers.get(&fresh);
        let begun = begun.ok_or_else(|| Problem::unavailable("the failover could not begin"))?;
        Ok(Reply::Failover(Box::new(begun.view())))
    }

    fn check_chosen(&self, server: &ServerId, wanted: &ServerId, now: Moment) -> Result<(), Problem> {
        if !self.members.contains_key(wanted) {
            return Err(Problem::not_found("server", wanted));
        }
        let candidates = self.candidates(server, None, now);
        let Some(candidate) = candidates.iter().find(|each| each.server == *wanted) else {
            return Err(Problem::conflict(format!(
                "{server} is not paired with {wanted}: pair them first, so that it has the settings"
            )));
        };
        match &candidate.unavailable {
            Some(why) => Err(Problem::conflict(format!(
                "{wanted} can't take over now: it {why}"
            ))),
            None => Ok(()),
        }
    }

    /// A planned switch begins only if it can keep its promise; a person may confirm that some cameras are left out.
    fn check_planned(
        &self,
        server: &ServerId,
        wanted: Option<&ServerId>,
        now: Moment,
    ) -> Result<(), Problem> {
        let heard = |member: &Member| member.trigger.is_heard(now.monotonic);
        if !self.members.get(server).is_some_and(heard) || self.reason_of(server, now).is_some() {
            let why = format!("{server} is not well, so that it may not film until it is relieved");
            return Err(planned::refuse(why));
        }
        let mut candidates = self.candidates(server, None, now);
        candidates.retain(|each| wanted.is_none_or(|wanted| each.server == *wanted));
        let selection = self.select_among(server, &candidates);
        let Some(chosen) = &selection.chosen else {
            return Err(planned::refuse(format!(
                "it would wait for {}",
                selection.waits_for()
            )));
        };
        let surplus = self.surplus_on(server, chosen);
        if surplus.is_empty() {
            return Ok(());
        }
        let names: Vec<&str> = surplus.iter().map(CameraId::as_str).collect();
        let lose = format!(
            "{chosen} has no room for {} camera(s), which nobody would film: {}",
            surplus.len(),
            names.join(", ")
        );
        self.confirmed(&(chosen, &surplus), lose)
    }

    fn stop_failover(&mut self, server: &ServerId, by: &str, now: Moment) -> Answer<Reply> {
        self.recording_server(server)?;
        let Some(mut failover) = self.failover_of(server).cloned() else {
            return Err(Problem::conflict(format!("{server} is not failed over")));
        };
        failover.stop(by, now);
        if failover.return_is_stuck(now) {
            let lose = format!(
                "{server} has not filmed everything yet that the failover server films: the planned switch waits for {}. \
                 Ended now, that is no longer filmed",
                failover.waits_for
            );
            self.confirmed(&(&failover.id, &failover.waits_for), lose)?;
            failover.insist(by, now);
        }
        let id = failover.id.clone();
        if self.failovers.get(&id) != Some(&failover) {
            self.dismiss(server, now);
            self.keep(failover);
        }
        Ok(Reply::Failover(Box::new(self.failovers[&id].view())))
    }

    fn stop_restoration(&mut self, id: &FailoverId, by: &str, now: Moment) -> Answer<Reply> {
        let failover = self.failovers.get(id);
        let mut failover = failover
            .cloned()
            .ok_or_else(|| Problem::not_found("failover", id))?;
        let lost = failover.what_stopping_loses(now)?;
        if !lost.is_empty() {
            // Not what is done already: that changes from one second to the next.
            let situation = (&failover.id, failover.phase, &failover.holders);
            self.confirmed(&situation, lost)?;
        }
        failover.stop_restoration(by, now)?;
        self.keep(failover);
        Ok(Reply::Failover(Box::new(self.failovers[id].view())))
    }

    /// The recording server of that id.
    pub(super) fn recording_server(&self, server: &ServerId) -> Result<&crate::server::Server, Problem> {
        let member = self.members.get(server);
        let member = member.ok_or_else(|| Problem::not_found("server", server))?;
        match member.server.mode {
            Mode::Recording => Ok(&member.server),
            Mode::Host => Err(Problem::invalid(format!(
                "{server} is a host: a host is protected by a second host, never by a failover server"
            ))),
            Mode::Failover | Mode::Inactive => {
                Err(Problem::invalid(format!("{server} is no recording server")))
            }
        }
    }
}
