//! What people do while a failover goes on: what would interrupt it they are asked to confirm, and some of them do.
//!
//! Whoever confirms gives up the recordings of the failover that he was told of, and nothing else.

use rand::{
    Rng,
    rngs::StdRng,
    seq::{IteratorRandom, SliceRandom},
};
use understudy_core::{
    contract::{
        api::{Phase, ServerEdit},
        rpc::{Answer, OrchestratorReply as Reply, OrchestratorRequest as Request},
    },
    failover::Holding,
    fleet::Record,
    ids::{FailoverId, ServerId},
};

use crate::{
    checks::failovers,
    scene,
    visits::Fault,
    world::{World, takes_part},
};

/// The same request as a person confirms it, if that is what the answer asks for.
pub(crate) fn confirmed(request: &Request, answer: &Answer<Reply>) -> Option<Request> {
    let confirmation = answer.as_ref().err()?.confirmation.clone()?;
    let request = match request {
        Request::Confirmed { request, .. } => request.clone(),
        request => Box::new(request.clone()),
    };
    Some(Request::Confirmed {
        confirmation,
        request,
    })
}

impl World {
    /// A person asks, and confirms it or thinks better of it. Only what was done counts as a visit.
    pub(crate) fn person(&mut self, fault: Fault, about: &ServerId, request: Request) {
        if !self.lets_strike() {
            return;
        }
        let phases = self.phases_where(|failover| takes_part(failover, about));
        let words = format!("{request:?}");
        let mut answer = self.ask_about(about, request.clone());
        if let Some(confirmed) = confirmed(&request, &answer).filter(|_| self.insists()) {
            self.tell(|| format!("a person confirms: {words}"));
            answer = self.insist(about, confirmed);
        }
        self.count_if_done(fault, &phases, &answer);
        self.tell(|| match answer {
            Ok(_) => format!("a person asks: {words}"),
            Err(problem) => format!("a person asks in vain: {words}: {}", problem.detail),
        });
    }

    fn insists(&mut self) -> bool {
        let operator = self.operator.as_mut();
        operator.is_some_and(|rng| rng.gen_bool(0.5))
    }

    /// A person has confirmed what was asked for, and knows which failover that interrupts.
    fn insist(&mut self, about: &ServerId, confirmed: Request) -> Answer<Reply> {
        let interrupted = self.would_interrupt(about);
        let answer = self.ask_about(about, confirmed);
        // The host may have died over it, before it was stored.
        let is_aborted = |id: &FailoverId| {
            failovers(&self.host.records).any(|each| each.id == *id && each.phase == Phase::Aborted)
        };
        if let Some(failover) = interrupted.filter(is_aborted) {
            self.watch.drops(failover);
        }
        answer
    }

    /// The failover that is interrupted by what is done to a server: its own, or the one that it films for or has
    /// recordings of.
    fn would_interrupt(&self, server: &ServerId) -> Option<FailoverId> {
        let mut own = failovers(&self.host.records);
        let own = own.find(|each| each.server == *server && !each.phase.is_final());
        let mut served = failovers(&self.host.records);
        let served =
            || served.find(|each| matches!(each.holding(server), Some(Holding::Films | Holding::Owes)));
        own.or_else(served).map(|failover| failover.id.clone())
    }

    /// In some schedules people do at any time what interrupts a failover; and take it back some time later.
    pub(crate) fn operate(&mut self) {
        let Some(mut rng) = self.operator.take() else {
            return;
        };
        let back_on = self.switched_off().into_iter().filter(|_| rng.gen_bool(0.1));
        let back_on: Vec<ServerId> = back_on.collect();
        let enrols = rng.gen_bool(0.1) && self.nodes.keys().any(|id| self.is_missing(id));
        let acts = rng.gen_bool(0.05).then(|| self.choose_action(&mut rng)).flatten();
        self.operator = Some(rng);
        for server in back_on {
            self.switch_on(server);
        }
        if enrols {
            self.enrol_all();
        }
        if let Some((fault, server, request)) = acts {
            self.person(fault, &server, request);
            if fault == Fault::Remove && !self.host.knows(&server) {
                self.watch.removed(&server);
            }
        }
    }

    /// What a person does to a server, most likely to one that takes part in a failover.
    fn choose_action(&self, rng: &mut StdRng) -> Option<(Fault, ServerId, Request)> {
        let unsettled = failovers(&self.host.records).filter(|failover| !failover.is_settled());
        let failover = unsettled.choose(rng).filter(|_| rng.gen_bool(0.8));
        let concerned = |id: &&ServerId| failover.is_none_or(|failover| takes_part(failover, id));
        let server = self.nodes.keys().filter(concerned).choose(rng)?.clone();
        let faults = [Fault::SwitchOff, Fault::Remove, Fault::SetPolicy, Fault::Pair];
        let fault = *faults.choose(rng)?;
        let request = match fault {
            Fault::SwitchOff if self.switched_off().contains(&server) => return None,
            Fault::SwitchOff => switched(server.clone(), false),
            Fault::Remove => Request::RemoveServer(server.clone()),
            Fault::SetPolicy => Request::SetPolicy {
                server: server.clone(),
                policy: scene::policy(rng),
            },
            _ => Request::SetPairing {
                server: server.clone(),
                pairing: scene::pairing(&self.scene.stand_ins, rng),
            },
        };
        Some((fault, server, request))
    }

    /// Whether a server was removed, and nobody took its place.
    fn is_missing(&self, id: &ServerId) -> bool {
        !self.host.knows(id) && !self.scene.is_gone(id)
    }

    /// Servers that people have switched off.
    pub(crate) fn switched_off(&self) -> Vec<ServerId> {
        let off = self.host.records.values().filter_map(|record| match record {
            Record::Server(server) if !server.enabled => Some(server.id.clone()),
            _ => None,
        });
        off.collect()
    }

    fn switch_on(&mut self, server: ServerId) {
        let answer = self.ask(switched(server.clone(), true));
        if answer.is_ok() {
            self.tell(|| format!("a person switches {server} on again"));
        }
    }

    /// Whatever people switched off is on again.
    pub(crate) fn switch_all_on(&mut self) {
        for server in self.switched_off() {
            self.switch_on(server);
        }
    }
}

fn switched(server: ServerId, enabled: bool) -> Request {
    Request::EditServer {
        server,
        edit: ServerEdit {
            enabled: Some(enabled),
            ..ServerEdit::default()
        },
    }
}
