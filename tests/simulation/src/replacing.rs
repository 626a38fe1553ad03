//! A person has another server take a recording server's place for good; and the original may be anywhere then.

use rand::{Rng, seq::IteratorRandom};
use understudy_core::{contract::rpc::OrchestratorRequest as Request, fleet::Record, ids::ServerId};

use crate::{acting::Acting, operator::confirmed, visits::Fault, world::World};

impl World {
    /// At times a person replaces a server that is failed over.
    pub(crate) fn replace_for_good(&mut self) {
        let Some(mut rng) = self.replacing.take() else {
            return;
        };
        let failovers = self.host.fleet.iter().flat_map(|fleet| fleet.failovers());
        let running = failovers.filter(|failover| !failover.phase.is_final());
        // What was changed in devices is offered to whoever takes the place: seldom enough as it is.
        let chosen = running.choose(&mut rng).map(|failover| {
            let offers = failover.overlay.open_offers().next().is_some();
            (failover.server.clone(), if offers { 0.5 } else { 0.1 })
        });
        if let Some((server, _)) = chosen.filter(|(_, how_likely)| rng.gen_bool(*how_likely)) {
            let spare = rng
                .gen_bool(0.6)
                .then(|| {
                    self.scene
                        .recorders
                        .iter()
                        .filter(|id| **id != server)
                        .choose(&mut rng)
                })
                .flatten()
                .cloned();
            self.replace_by_hand(&server, spare);
        }
        self.replacing = Some(rng);
    }

    fn replace_by_hand(&mut self, server: &ServerId, successor: Option<ServerId>) {
        let request = Request::Replace {
            server: server.clone(),
            successor,
            by: "anna".to_owned(),
        };
        let answer = self.ask(request.clone());
        if let Some(confirmed) = confirmed(&request, &answer) {
            self.person(Fault::Replace, server, confirmed);
        }
    }

    /// Who takes part is who does by the host's disk: a person's word may die with the host, and a restored one knows
    /// nothing of it.
    pub(crate) fn follow_replacements(&mut self) {
        let done: Vec<(ServerId, ServerId)> = self
            .host
            .records
            .values()
            .filter_map(|record| match record {
                Record::Gone(gone) => {
                    let replaced = gone.replaced.as_ref()?;
                    Some((gone.server.clone(), replaced.successor.clone()))
                }
                _ => None,
            })
            .collect();
        let known = |pair: &(ServerId, ServerId)| done.contains(pair);
        while self
            .scene
            .replaced
            .iter()
            .any(|(original, successor, _)| !known(&(original.clone(), successor.clone())))
        {
            self.scene.undo_replacement();
        }
        for (original, successor) in &done {
            if !self.scene.is_gone(original) {
                self.scene.replace(original, successor);
                self.watch.takes_place(successor);
                // Nobody acts by what was granted before.
                self.fences = true;
            }
        }
        for node in self.nodes.values_mut() {
            node.is_stand_in = self.scene.stand_ins.contains(&node.id);
        }
    }

    /// A replacement begins with a fence, as a start of the host does: what was granted for the original ends before
    /// anything is granted for whoever took its place.
    pub(crate) fn fence_if_due(&mut self) {
        if std::mem::take(&mut self.fences) && self.host.fleet.is_some() {
            self.acting.iter_mut().for_each(Acting::host_starts);
        }
    }
}
