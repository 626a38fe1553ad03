//! What people do while a failover goes on.

use understudy_core::{
    contract::rpc::{Answer, OrchestratorReply as Reply, OrchestratorRequest as Request},
    ids::ServerId,
};

use crate::{
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
    /// A person asks. Only what was done counts as a visit.
    pub(crate) fn person(&mut self, fault: Fault, about: &ServerId, request: Request) {
        if !self.lets_strike() {
            return;
        }
        let phases = self.phases_where(|failover| takes_part(failover, about));
        let words = format!("{request:?}");
        let answer = self.ask_about(about, request);
        self.count_if_done(fault, &phases, &answer);
        self.tell(|| match answer {
            Ok(_) => format!("a person asks: {words}"),
            Err(problem) => format!("a person asks in vain: {words}: {}", problem.detail),
        });
    }
}
