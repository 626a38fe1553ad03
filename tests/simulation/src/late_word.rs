//! The word that everything has arrived is late: its failover begins again, and the host is restored from a backup
//! that takes the word for a new one. Each of these faults is common, and all of them in this order are not.

use rand::{Rng, rngs::StdRng, seq::IteratorRandom};
use understudy_core::{
    contract::{
        api::{Phase, StartMode},
        heartbeat::RestorationReport,
        rpc::OrchestratorRequest as Request,
    },
    failover::Failover,
};

use crate::{host::Backup, network::Packet, visits::Fault, world::World};

/// What a schedule of this kind remembers.
#[derive(Debug)]
pub(crate) struct LateWord {
    rng: StdRng,
    /// The word that is on its way, and the host's database of when it was said.
    word: Option<(RestorationReport, Backup)>,
}

impl LateWord {
    pub(crate) fn new(rng: StdRng) -> Self {
        Self { rng, word: None }
    }
}

impl World {
    /// A recording server says how far it has fetched: answers whether that is late on its way.
    pub(crate) fn is_late(&mut self, report: &RestorationReport) -> bool {
        let restores = self.failover_of_word(report).map(|failover| failover.phase) == Some(Phase::Restoring);
        let faulty = self.faulty;
        let Some(late) = &mut self.late_word else {
            return false;
        };
        if let Some((word, _)) = &late.word {
            // Whatever is said after it does not overtake it.
            return faulty && word.failover == report.failover;
        }
        if !faulty || !report.complete || !restores || late.rng.gen_bool(0.3) {
            return false;
        }
        late.word = Some((report.clone(), self.host.back_up(&self.ledger)));
        self.tell(|| format!("late on its way: {report:?}"));
        true
    }

    /// A failover whose recordings have all arrived begins again before anybody hears of it; and once it has, the host
    /// is restored, and hears.
    pub(crate) fn go_on_with_late_word(&mut self) {
        if self.host.fleet.is_none() {
            return;
        }
        let Some(mut late) = self.late_word.take() else {
            return;
        };
        late.word = match late.word.take() {
            Some((word, backup)) => self.stays_late(word, backup, &mut late.rng),
            None => {
                self.end_soon(&mut late.rng);
                None
            }
        };
        self.late_word = Some(late);
    }

    /// Few failovers would come to their recordings' arrival before the faults stop.
    fn end_soon(&mut self, rng: &mut StdRng) {
        let failovers = self.host.fleet.iter().flat_map(|fleet| fleet.failovers());
        let serving = failovers
            .filter(|failover| failover.phase == Phase::Serving)
            .choose(rng);
        let server = serving.map(|failover| failover.server.clone());
        if let Some(server) = server.filter(|_| rng.gen_bool(0.1)) {
            let request = Request::StopFailover {
                server: server.clone(),
                by: "anna".to_owned(),
            };
            self.person(Fault::Stop, &server, request);
        }
    }

    /// Answers the word and the backup again as long as they have not met.
    fn stays_late(
        &mut self,
        word: RestorationReport,
        backup: Backup,
        rng: &mut StdRng,
    ) -> Option<(RestorationReport, Backup)> {
        match self.failover_of_word(&word)?.phase {
            Phase::Restoring => {
                if rng.gen_bool(0.5) {
                    self.begin_again(&word);
                }
            }
            Phase::TakingOver | Phase::Serving => {
                // It takes some frames to have anything that did not arrive.
                if self.films_again(&word) && rng.gen_bool(0.2) {
                    self.hear_late(word, backup);
                    return None;
                }
            }
            _ => return None,
        }
        Some((word, backup))
    }

    fn failover_of_word(&self, word: &RestorationReport) -> Option<&Failover> {
        let mut failovers = self.host.fleet.as_ref()?.failovers();
        failovers.find(|failover| failover.id == word.failover)
    }

    fn begin_again(&mut self, word: &RestorationReport) {
        let request = Request::StartFailover {
            server: word.server.clone(),
            stand_in: None,
            by: "anna".to_owned(),
            mode: StartMode::Manual,
        };
        self.person(Fault::Start, &word.server, request);
    }

    /// Whether the server that the word speaks of has begun again since.
    fn films_again(&self, word: &RestorationReport) -> bool {
        let source = word.source.as_ref().and_then(|source| self.nodes.get(source));
        source.is_some_and(|source| {
            let begun = source.disk.begun.get(&word.failover).copied();
            source.films_for() == Some(&word.failover) && begun > word.begun
        })
    }

    fn hear_late(&mut self, word: RestorationReport, backup: Backup) {
        if !self.strikes(Fault::Restored, None) {
            return;
        }
        self.tell(|| format!("{}, and then heard: {word:?}", Fault::Restored.words()));
        self.host.backup = Some(backup);
        self.restore_backup();
        self.network.deliver_now(Packet::Restoration(word), self.now);
    }
}
