//! The invariants of the design, checked after each step and once everything is at rest.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use understudy_core::{
    assignment::{Assignment, Epoch},
    contract::{
        api::{Phase, ReasonKind},
        event::Event,
        heartbeat::ServerReport,
    },
    failover::{Failover, Holding},
    fleet::{Effect, Record, RecordKey},
    ids::{ErasureId, FailoverId, ServerId},
    policy::Failback,
    reconcile::Film,
    settings::{Bundle, BundleHash},
};

use crate::{node::Recording, scene::server_id, world::World};

/// An invariant was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Its number in the design; 0 for what is said there of a blind host, which has none.
    pub invariant: u8,
    /// How.
    pub how: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invariant {} is broken: {}", self.invariant, self.how)
    }
}

pub(crate) fn broken<T>(invariant: u8, how: String) -> Result<T, Violation> {
    Err(Violation { invariant, how })
}

/// What the checks remember; none of the machines sees it.
#[derive(Debug)]
pub(crate) struct Watch {
    keys: usize,
    given: BTreeMap<Epoch, Assignment>,
    reached: BTreeMap<ServerId, Epoch>,
    /// Recordings with frames that no crash may take away.
    made: BTreeMap<u64, Recording>,
    /// Failovers whose recordings may go undelivered: by policy, or by a person's word.
    dropped: BTreeSet<FailoverId>,
    maybe_dropped: BTreeSet<FailoverId>,
    /// Which failover servers had a part in which failovers.
    parts: BTreeSet<(FailoverId, ServerId)>,
    /// Of these, the ones that a restored database knows nothing of.
    forgotten: BTreeSet<(FailoverId, ServerId)>,
    /// The settings of before each failover.
    before: BTreeMap<FailoverId, BundleHash>,
    completed: BTreeSet<FailoverId>,
    /// Recordings that a server made its own when it took a recording server's place.
    kept: BTreeSet<u64>,
    /// Servers that ever took a recording server's place.
    successors: BTreeSet<ServerId>,
    /// Servers that nothing is wrong with but that their whole domain is cut off, or was a moment ago.
    pub(crate) cut_off: BTreeSet<ServerId>,
    /// Orders to erase everything that a person has confirmed.
    erasures: BTreeSet<(ServerId, ErasureId)>,
    noticed: Option<Violation>,
}

impl Watch {
    pub(crate) fn new(keys: usize) -> Self {
        Self {
            keys,
            given: BTreeMap::new(),
            reached: BTreeMap::new(),
            made: BTreeMap::new(),
            dropped: BTreeSet::new(),
            maybe_dropped: BTreeSet::new(),
            parts: BTreeSet::new(),
            forgotten: BTreeSet::new(),
            before: BTreeMap::new(),
            completed: BTreeSet::new(),
            kept: BTreeSet::new(),
            successors: BTreeSet::new(),
            cut_off: BTreeSet::new(),
            erasures: BTreeSet::new(),
            noticed: None,
        }
    }

    pub(crate) fn failovers(&self) -> usize {
        self.before.len()
    }

    /// Something was broken where it can't be said at once; the next check says it.
    pub(crate) fn remember(&mut self, violation: Violation) {
        self.noticed.get_or_insert(violation);
    }

    pub(crate) fn synced(&mut self, recording: &Recording) {
        self.made.insert(recording.number, recording.clone());
    }

    pub(crate) fn maybe_drop(&mut self, failover: &FailoverId) {
        self.maybe_dropped.insert(failover.clone());
    }

    /// A person gave the recordings of a failover up.
    pub(crate) fn drops(&mut self, failover: FailoverId) {
        self.dropped.insert(failover);
    }

    /// Recordings are a server's own from now on.
    pub(crate) fn keeps(&mut self, kept: Vec<u64>) {
        self.kept.extend(kept);
    }

    /// A server took a recording server's place for good.
    pub(crate) fn takes_place(&mut self, successor: &ServerId) {
        self.successors.insert(successor.clone());
    }

    /// Whether it is a recording of somebody who took a recording server's place: his own, or made his own. A
    /// restored host may know nothing of that, and have him for a failover server again.
    fn is_successors_own(&self, recording: &Recording) -> bool {
        let own = recording.failover.is_none() && self.successors.contains(&recording.recorded_by);
        own || self.kept.contains(&recording.number)
    }

    /// Whether it was handed over to a server that had taken a recording server's place: no failover server fetches
    /// anything. It may be the only one that has it, and a restored host knows as little of that.
    fn arrived_at_successor(&self, server: &ServerId, recording: &Recording) -> bool {
        recording.recorded_by != *server && self.successors.contains(server)
    }

    /// A server has lost its assignment, and knows it.
    pub(crate) fn forgets(&mut self, server: &ServerId) {
        self.reached.remove(server);
    }

    /// The host knows nothing of what it gave out after a backup, until somebody reports it; and of failovers that
    /// began after it, never: nobody can hand back what was recorded for them.
    pub(crate) fn restored(&mut self, newest: Epoch, records: &BTreeMap<RecordKey, Record>) {
        self.given.retain(|epoch, _| *epoch <= newest);
        let known: BTreeSet<(FailoverId, ServerId)> = parts(records).collect();
        self.forgotten.extend(self.parts.difference(&known).cloned());
        // What people changed for good after it is gone with the rest.
        for failover in failovers(records) {
            self.before
                .insert(failover.id.clone(), settings_of(records, &failover.server));
        }
    }

    /// Who films again for a failover, and did not by the backup, that host knows nothing of either. Where one of the
    /// two servers is of a version that names no beginnings, what was recorded since may be erased with what was recorded
    /// before. The operator's guide says so.
    pub(crate) fn began_again(
        &mut self,
        filming: BTreeSet<(FailoverId, ServerId)>,
        records: &BTreeMap<RecordKey, Record>,
    ) {
        let known = filming_parts(records);
        self.forgotten.extend(filming.difference(&known).cloned());
    }

    /// Retention took it to make room.
    pub(crate) fn made_room(&mut self, gone: &Recording) {
        self.made.remove(&gone.number);
    }

    /// What was erased and may be.
    pub(crate) fn erased(&mut self, gone: &[Recording]) {
        for recording in gone
            .iter()
            .filter(|recording| self.is_forgotten(recording))
            .cloned()
            .collect::<Vec<_>>()
        {
            self.made.remove(&recording.number);
        }
    }

    /// A server was removed, by a person who was told: what it holds is nobody's business any more.
    pub(crate) fn removed(&mut self, server: &ServerId) {
        let parts = self.parts.iter().filter(|(_, each)| each == server);
        self.forgotten.extend(parts.cloned());
    }

    fn is_forgotten(&self, recording: &Recording) -> bool {
        let part = |failover: &FailoverId| (failover.clone(), recording.recorded_by.clone());
        let forgotten = |failover: &FailoverId| self.forgotten.contains(&part(failover));
        recording.failover.as_ref().is_some_and(forgotten)
    }

    /// Invariant 5, at the host: an epoch is given out once.
    pub(crate) fn given(&mut self, assignment: &Assignment) -> Result<(), Violation> {
        match self.given.get(&assignment.epoch) {
            Some(before) if before != assignment => broken(
                5,
                format!(
                    "epoch {} was given out twice: {before:?} and {assignment:?}",
                    assignment.epoch
                ),
            ),
            _ => {
                self.given.insert(assignment.epoch, assignment.clone());
                Ok(())
            }
        }
    }

    /// What a server says that it has reached, it must never fall behind again.
    pub(crate) fn reported(&mut self, report: &ServerReport) {
        if let Some(epoch) = report.epoch {
            let reached = self.reached.entry(report.server.clone()).or_default();
            *reached = (*reached).max(epoch);
        }
    }

    pub(crate) fn note_failovers(&mut self, records: &BTreeMap<RecordKey, Record>) {
        let ordered = records.values().filter_map(|record| match record {
            Record::Erasing(server, erasure) => Some((server.clone(), erasure.clone())),
            _ => None,
        });
        self.erasures.extend(ordered);
        self.parts.extend(parts(records));
        for failover in failovers(records) {
            self.before
                .entry(failover.id.clone())
                .or_insert_with(|| settings_of(records, &failover.server));
            let by_policy = failover.failback == Failback::Remove;
            let by_a_person = self.maybe_dropped.contains(&failover.id);
            if by_policy || by_a_person {
                self.dropped.insert(failover.id.clone());
            }
        }
    }

    /// A person set a recording server's own settings during a failover, for good.
    pub(crate) fn sets_for_good(&mut self, failover: FailoverId, settings: BundleHash) {
        self.before.insert(failover, settings);
    }

    fn is_dropped(&self, recording: &Recording) -> bool {
        let dropped = |failover: &FailoverId| self.dropped.contains(failover);
        recording.failover.as_ref().is_some_and(dropped)
    }
}

pub(crate) fn failovers(records: &BTreeMap<RecordKey, Record>) -> impl Iterator<Item = &Failover> {
    records.values().filter_map(|record| match record {
        Record::Failover(failover) => Some(&**failover),
        _ => None,
    })
}

/// Which failover servers film for which failovers.
pub(crate) fn filming_parts(records: &BTreeMap<RecordKey, Record>) -> BTreeSet<(FailoverId, ServerId)> {
    let films = failovers(records).filter_map(|failover| {
        let holder = failover.stand_in()?;
        Some((failover.id.clone(), holder.server.clone()))
    });
    films.collect()
}

/// Which failover servers have a part in which failovers.
fn parts(records: &BTreeMap<RecordKey, Record>) -> impl Iterator<Item = (FailoverId, ServerId)> {
    failovers(records).flat_map(|failover| {
        let holders = failover.holders.iter();
        holders.map(|holder| (failover.id.clone(), holder.server.clone()))
    })
}

/// The same whoever the recording server is: another one may take its place, with its settings.
fn settings_of(records: &BTreeMap<RecordKey, Record>, server: &ServerId) -> BundleHash {
    let mut bundle = bundle(records, server);
    bundle.identity = server_id("whoever");
    for camera in &mut bundle.cameras {
        camera.server.clone_from(&bundle.identity);
    }
    bundle.hash()
}

/// The settings of a recording server as the host's disk has them.
fn settings(records: &BTreeMap<RecordKey, Record>, server: &ServerId) -> BundleHash {
    bundle(records, server).hash()
}

fn bundle(records: &BTreeMap<RecordKey, Record>, server: &ServerId) -> Bundle {
    let name = records.values().find_map(|record| match record {
        Record::Server(known) if known.id == *server => Some(known.name.clone()),
        _ => None,
    });
    let cameras = records.values().filter_map(|record| match record {
        Record::Camera(camera) if camera.server == *server => Some(camera.clone()),
        _ => None,
    });
    Bundle {
        identity: server.clone(),
        name: name.unwrap_or_default(),
        cameras: cameras.collect(),
    }
}

impl World {
    /// After each step.
    pub(crate) fn check_step(&mut self) -> Result<(), Violation> {
        if let Some(violation) = self.watch.noticed.take() {
            return Err(violation);
        }
        self.check_licences()?;
        self.check_epochs()?;
        self.check_holders()?;
        self.check_waiting()?;
        self.check_recordings()
    }

    /// Invariant 2: each key has exactly one holder, and none is lost.
    fn check_licences(&self) -> Result<(), Violation> {
        let rows = &self.ledger.rows;
        let distinct: BTreeSet<_> = rows.iter().map(|row| &row.payload.id).collect();
        if rows.len() != distinct.len() || distinct.len() != self.watch.keys {
            return broken(2, format!("{} keys in these rows: {rows:?}", self.watch.keys));
        }
        Ok(())
    }

    /// Invariant 5, at the servers: what was reached once stays reached, whatever dies.
    fn check_epochs(&self) -> Result<(), Violation> {
        for (id, reached) in &self.watch.reached {
            let on_disk = self.nodes[id].disk.assignment.as_ref().map(|each| each.epoch);
            if on_disk.is_none_or(|epoch| epoch < *reached) {
                return broken(
                    5,
                    format!("{id} said that it had reached {reached}, and has {on_disk:?} on disk"),
                );
            }
        }
        Ok(())
    }

    /// Invariants 1 and 7, at the host: a failover server has a part in one failover at most.
    fn check_holders(&self) -> Result<(), Violation> {
        let mut busy: BTreeMap<&ServerId, &FailoverId> = BTreeMap::new();
        for failover in failovers(&self.host.records) {
            let films = failover
                .holders
                .iter()
                .filter(|holder| holder.holding == Holding::Films);
            if films.count() > 1 {
                return broken(1, format!("two servers bear one identity: {failover:?}"));
            }
            for holder in &failover.holders {
                if holder.holding == Holding::Done {
                    continue;
                }
                if let Some(other) = busy.insert(&holder.server, &failover.id) {
                    let server = &holder.server;
                    return broken(
                        7,
                        format!("{server} has a part in {other} and in {}", failover.id),
                    );
                }
            }
        }
        Ok(())
    }

    /// Invariant 6, while faults go on: whoever waits says what for.
    fn check_waiting(&self) -> Result<(), Violation> {
        for failover in failovers(&self.host.records) {
            if failover.phase == Phase::Selecting && failover.waits_for.is_empty() {
                return broken(6, format!("{} waits and does not say what for", failover.id));
            }
        }
        Ok(())
    }

    /// Invariant 9: what was durable is still somewhere, unless it was dropped on purpose.
    fn check_recordings(&self) -> Result<(), Violation> {
        for recording in self.watch.made.values() {
            let whole = |held: &Recording| held.synced >= recording.synced;
            let found = self
                .nodes
                .values()
                .flat_map(|node| [&node.disk.archive, &node.disk.aside])
                .filter_map(|files| files.get(&recording.number))
                .any(whole);
            if !found && !self.watch.is_dropped(recording) {
                return broken(9, format!("durable frames are nowhere any more: {recording:?}"));
            }
        }
        Ok(())
    }

    /// Invariants 1 and 7, at the failover server: it begins for nobody while it holds another's recordings.
    pub(crate) fn check_film(&self, id: &ServerId, film: &Film) -> Result<(), Violation> {
        let other = self.nodes[id].disk.archive.values().find(|recording| {
            film.failover.is_some()
                && recording.recorded_by == *id
                && recording.failover.is_some()
                && recording.failover != film.failover
                && !self.watch.is_forgotten(recording)
        });
        match other {
            Some(recording) => broken(7, format!("{id} begins {film:?} and still holds {recording:?}")),
            None => Ok(()),
        }
    }

    /// Invariant 3: what is gone is on the receiver's disk, or was dropped on purpose.
    pub(crate) fn check_erase(
        &self,
        id: &ServerId,
        failover: &FailoverId,
        gone: &[Recording],
    ) -> Result<(), Violation> {
        let node = &self.nodes[id];
        if node.films_for() == Some(failover) {
            return broken(3, format!("{id} erases {failover} while it films for it"));
        }
        let excused =
            |recording: &&Recording| self.watch.is_dropped(recording) || self.watch.is_forgotten(recording);
        for recording in gone.iter().filter(|recording| !excused(recording)) {
            let others = self.nodes.values().filter(|other| other.id != *id);
            let arrived = others
                .flat_map(|other| [&other.disk.archive, &other.disk.expired])
                .filter_map(|files| files.get(&recording.number))
                .any(|copy| copy.synced == recording.frames);
            if !arrived {
                return broken(3, format!("{id} erases what arrived nowhere: {recording:?}"));
            }
        }
        Ok(())
    }

    /// The settings of a recording server as the host's disk has them.
    pub(crate) fn settings_of(&self, server: &ServerId) -> BundleHash {
        settings_of(&self.host.records, server)
    }

    /// Invariant 3: everything is erased only where a person has confirmed it, and not while it films.
    pub(crate) fn check_erase_all(
        &mut self,
        id: &ServerId,
        erasure: &ErasureId,
        gone: impl Iterator<Item = Recording>,
    ) -> Result<(), Violation> {
        let ordered = self.watch.erasures.contains(&(id.clone(), erasure.clone()));
        let films = self.nodes[id]
            .process
            .as_ref()
            .is_some_and(|process| process.film.is_some());
        for recording in gone {
            if !ordered || films {
                return broken(
                    3,
                    format!("{id} erases everything by {erasure}, {recording:?} too"),
                );
            }
            self.watch.made.remove(&recording.number);
        }
        Ok(())
    }

    /// No failover of a server in maintenance begins by itself, and none at all of or with one that is switched off. What the effects do is done in their order.
    pub(crate) fn check_begun(&self, effects: &[Effect]) -> Result<(), Violation> {
        let mut ended = BTreeSet::new();
        let mut off = self.switched_off();
        for effect in effects {
            match effect {
                Effect::Delete(key) => drop(ended.insert(key.clone())),
                Effect::Save(record) => {
                    if let Record::Server(server) = record.as_ref() {
                        off.retain(|id| *id != server.id);
                        off.extend((!server.enabled).then(|| server.id.clone()));
                    }
                    let Record::Failover(failover) = record.as_ref() else {
                        continue;
                    };
                    self.check_switched_off(failover, &off)?;
                    let maintenance = RecordKey {
                        kind: "maintenance".to_owned(),
                        id: failover.server.to_string(),
                    };
                    let in_maintenance =
                        self.host.records.contains_key(&maintenance) && !ended.contains(&maintenance);
                    let begins = !self.host.records.contains_key(&record.key());
                    if begins && in_maintenance && failover.reason.kind != ReasonKind::Manual {
                        let how = format!("{} is in maintenance, and failed over", failover.server);
                        return broken(0, how);
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Neither does a server that is switched off fail over, nor is it chosen to stand in.
    fn check_switched_off(&self, failover: &Failover, off: &[ServerId]) -> Result<(), Violation> {
        let before = failovers(&self.host.records).find(|before| before.id == failover.id);
        let stood_in = before.and_then(Failover::stand_in).map(|holder| &holder.server);
        let chosen = failover.stand_in().map(|holder| &holder.server);
        let chosen = chosen.filter(|chosen| stood_in != Some(chosen));
        let begins = before.is_none().then_some(&failover.server);
        match chosen.into_iter().chain(begins).find(|id| off.contains(id)) {
            Some(id) => broken(0, format!("{id} is switched off, and takes part: {failover:?}")),
            None => Ok(()),
        }
    }

    /// What is told.
    pub(crate) fn check_event(&mut self, event: &Event) -> Result<(), Violation> {
        if let Event::FailoverStarted { server, reason, .. } = event
            && reason.kind == ReasonKind::Disconnection
            && self.watch.cut_off.contains(server)
        {
            return broken(
                0,
                format!("{server} is failed over, and only the line to its domain is cut"),
            );
        }
        Ok(())
    }

    /// Invariant 4: with the end of a failover, as the host stores it, its recording server has the settings of before.
    /// Once told, people may have changed them again.
    pub(crate) fn check_completed(&mut self) -> Result<(), Violation> {
        let over: Vec<(FailoverId, ServerId)> = failovers(&self.host.records)
            .filter(|failover| failover.phase == Phase::Completed)
            .filter(|failover| !self.watch.completed.contains(&failover.id))
            .map(|failover| (failover.id.clone(), failover.server.clone()))
            .collect();
        for (failover, server) in over {
            self.outcome.completed += 1;
            let after = settings_of(&self.host.records, &server);
            if let Some(before) = self.watch.before.get(&failover)
                && *before != after
            {
                return broken(
                    4,
                    format!("{server} had {before:?} before {failover} and has {after} now"),
                );
            }
            self.watch.completed.insert(failover);
        }
        Ok(())
    }

    /// Invariants 6 and 8: whether everything is where it would be without any fault.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.unrest().is_none() && self.other_settings().is_none()
    }

    /// Invariant 4, at rest: a recording server that does not run the host's settings.
    fn other_settings(&self) -> Option<String> {
        self.scene.recorders.iter().find_map(|id| {
            let wanted = settings(&self.host.records, id);
            let reconciler = self.nodes[id].process.as_ref().map(|process| &process.reconciler);
            let films = reconciler.and_then(|reconciler| reconciler.assignment());
            let has = films.is_some_and(|assignment| match &assignment.role {
                understudy_core::assignment::Role::Films(films) => films.settings == wanted,
                _ => false,
            });
            (!has).then(|| format!("{id} does not run the host's settings {wanted}: {films:?}"))
        })
    }

    /// What is not at rest yet.
    fn unrest(&self) -> Option<String> {
        let fleet = self.host.fleet.as_ref()?;
        if let Some(failover) = fleet.failovers().find(|failover| !failover.is_settled()) {
            return Some(format!("a failover is not over: {failover:?}"));
        }
        let at_work = |id: &&ServerId| {
            let process = self.nodes[*id].process.as_ref();
            process
                .and_then(|process| process.film.as_ref())
                .is_some_and(|film| film.identity == **id && film.failover.is_none())
        };
        if let Some(id) = self.scene.recorders.iter().find(|id| !at_work(id)) {
            return Some(format!("{id} does not film"));
        }
        let stands_by = |id: &&ServerId| {
            let process = self.nodes[*id].process.as_ref();
            process.is_some_and(|process| process.film.is_none())
        };
        if let Some(id) = self.scene.stand_ins.iter().find(|id| !stands_by(id)) {
            return Some(format!("{id} films for nobody"));
        }
        if let Some(why) = self.acting_unrest() {
            return Some(why);
        }
        if let Some(why) = self.has_not_stood_down() {
            return Some(why);
        }
        let late = self.nodes.values().find(|node| {
            let assigned = fleet.assignment(&node.id).map(|each| each.epoch);
            let has = node.disk.assignment.as_ref().map(|each| each.epoch);
            !self.scene.is_gone(&node.id) && has != assigned
        });
        late.map(|node| format!("{} has not its newest assignment", node.id))
    }

    /// Who was replaced films nothing any more, and knows why.
    fn has_not_stood_down(&self) -> Option<String> {
        let fleet = self.host.fleet.as_ref()?;
        fleet.gone().find_map(|gone| {
            let node = self.nodes.get(&gone.server)?;
            let films = node
                .process
                .as_ref()
                .is_some_and(|process| process.film.is_some());
            let has = node.disk.assignment.as_ref().map(|each| each.epoch);
            let told = has.is_some_and(|epoch| epoch >= gone.assignment.epoch);
            (films || !told).then(|| format!("{} was replaced, and has not stood down", gone.server))
        })
    }

    pub(crate) fn restless(&self) -> Violation {
        let (invariant, how) = match self.unrest() {
            Some(how) => (6, how),
            None => (4, self.other_settings().unwrap_or_default()),
        };
        Violation { invariant, how }
    }

    /// Invariant 8, at rest: nothing is left over.
    pub(crate) fn check_rest(&self) -> Result<(), Violation> {
        for id in &self.scene.stand_ins {
            let mut left = self.nodes[id].disk.archive.values();
            let forgotten = |recording: &Recording| {
                self.watch.is_forgotten(recording)
                    || self.watch.is_successors_own(recording)
                    || self.watch.arrived_at_successor(id, recording)
            };
            if let Some(left) = left.find(|recording| !forgotten(recording)) {
                return broken(8, format!("{id} stands by and still holds {left:?}"));
            }
        }
        for row in &self.ledger.rows {
            if row.holder != row.owner {
                return broken(8, format!("all is over, and a key is not back: {row:?}"));
            }
            if self.scene.is_gone(&row.owner) {
                return broken(2, format!("a key belongs to a server that was replaced: {row:?}"));
            }
        }
        for recording in self.watch.made.values() {
            let excused = self.watch.is_dropped(recording) || self.watch.is_forgotten(recording);
            if excused || self.watch.is_successors_own(recording) {
                continue;
            }
            let home = self.nodes.values().any(|node| {
                let number = &recording.number;
                let aside = node.disk.aside.contains_key(number);
                // Who was replaced keeps what is on its own disk.
                let is_home = self.scene.recorders.contains(&node.id)
                    || self.scene.is_gone(&node.id)
                    || self.watch.arrived_at_successor(&node.id, recording);
                aside || is_home && node.disk.archive.contains_key(number)
            });
            if !home {
                return broken(9, format!("never handed back: {recording:?}"));
            }
        }
        Ok(())
    }
}
