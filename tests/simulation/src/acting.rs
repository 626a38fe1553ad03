//! Who may act: the core's authority on every server and on the host, around the broker's queues; and what is done
//! about events that every server sees that films.

use std::collections::{BTreeMap, VecDeque};

use rand::{Rng, rngs::StdRng};
use understudy_core::{
    assignment::Assignment,
    authority::{
        Claim, Word,
        action::{self, Actions, Cause, Promise, Stage},
        granter::{self, Granter},
        right::{self, Right},
    },
    ids::{Incarnation, ServerId},
    time::{Moment, Monotonic, Timestamp},
};

use crate::{
    broker::{Broker, Publication},
    bug::Bug,
    checks::{Violation, broken},
    network::Packet,
    visits::Fault,
    world::{TICK, World},
};

/// Longest time between the arrivals of one event at two servers.
const SPREAD_TICKS: u32 = 5;

/// What one machine knows of its actions; survives its processes.
type Store = BTreeMap<Cause, Stage>;

/// The part of a recording service that acts.
#[derive(Debug)]
pub(crate) struct Actor {
    /// The server that it is, or that it is a copy of.
    pub(crate) server: ServerId,
    /// A copy of a server's disk on another machine, with a clock of its own.
    pub(crate) copy: Option<Copy>,
    right: Right,
    actions: Actions,
    /// The connection on which it takes itself to consume.
    consumer: Option<u64>,
    /// What has arrived, and was not read yet.
    socket: VecDeque<Word>,
    events: VecDeque<Cause>,
    /// When it had read everything that had arrived.
    read_all: Monotonic,
}

/// A cloned server.
#[derive(Debug)]
pub(crate) struct Copy {
    store: Store,
    rate: f64,
    until: u64,
}

/// Everything that acts, and what was done.
#[derive(Debug)]
pub(crate) struct Acting {
    pub(crate) rng: StdRng,
    pub(crate) broker: Broker,
    pub(crate) broker_back: u64,
    pub(crate) blocked_until: u64,
    pub(crate) actors: BTreeMap<Incarnation, Actor>,
    stores: BTreeMap<ServerId, Store>,
    granter: Option<Granter>,
    host_starts: u64,
    events: u64,
    /// Events on their way to whoever filmed the camera.
    coming: Vec<(u64, Incarnation, Cause)>,
    /// Events that a device sends once more to a server that has done what they ask for.
    again: Vec<(u64, ServerId, Cause)>,
    done: BTreeMap<Cause, u32>,
    pub(crate) copies: u32,
}

impl Acting {
    pub(crate) fn new(rng: StdRng) -> Self {
        Self {
            rng,
            broker: Broker::default(),
            broker_back: 0,
            blocked_until: 0,
            actors: BTreeMap::new(),
            stores: BTreeMap::new(),
            granter: None,
            host_starts: 0,
            events: 0,
            coming: Vec::new(),
            again: Vec::new(),
            done: BTreeMap::new(),
            copies: 0,
        }
    }

    /// The host starts: what it granted before, it does not know any more.
    pub(crate) fn host_starts(&mut self) {
        self.granter = Some(Granter::new());
        self.host_starts += 1;
    }

    pub(crate) fn host_dies(&mut self) {
        self.granter = None;
    }

    /// How often something was done.
    pub(crate) fn acts(&self) -> usize {
        self.done.len()
    }
}

impl World {
    fn with_acting<T>(
        &mut self,
        run: impl FnOnce(&mut Self, &mut Acting) -> Result<T, Violation>,
    ) -> Result<Option<T>, Violation> {
        let Some(mut acting) = self.acting.take() else {
            return Ok(None);
        };
        let result = run(self, &mut acting);
        self.acting = Some(acting);
        result.map(Some)
    }

    /// A server's process starts: it may do nothing yet.
    pub(crate) fn actor_starts(&mut self, id: &ServerId) -> Result<(), Violation> {
        self.with_acting(|world, acting| {
            acting
                .actors
                .retain(|_, actor| actor.server != *id || actor.copy.is_some());
            let Some(process) = world.nodes[id].process.as_ref() else {
                return Ok(());
            };
            let incarnation = process.incarnation.clone();
            let store = acting.stores.entry(id.clone()).or_default().clone();
            let assignment = world.nodes[id].disk.assignment.clone();
            world.begin_acting(acting, id, incarnation, store, assignment, None)
        })?;
        Ok(())
    }

    /// A server is copied, disk and all, and the copy starts.
    pub(crate) fn clone_server(&mut self, id: &ServerId) -> Result<(), Violation> {
        self.with_acting(|world, acting| {
            acting.copies += 1;
            let incarnation =
                Incarnation::new(format!("{id}-copy-{}", acting.copies)).expect("this is an id");
            let store = acting.stores.entry(id.clone()).or_default().clone();
            let copy = Copy {
                store: store.clone(),
                rate: acting.rng.gen_range(0.9..1.1),
                until: world.outcome.ticks + acting.rng.gen_range(20..120),
            };
            let assignment = world.nodes[id].disk.assignment.clone();
            world.begin_acting(acting, id, incarnation, store, assignment, Some(copy))
        })?;
        Ok(())
    }

    fn begin_acting(
        &mut self,
        acting: &mut Acting,
        id: &ServerId,
        incarnation: Incarnation,
        store: Store,
        assignment: Option<Assignment>,
        copy: Option<Copy>,
    ) -> Result<(), Violation> {
        let (actions, effects) = Actions::restore(store);
        let mut actor = Actor {
            server: id.clone(),
            right: Right::new(id.clone(), incarnation.clone()),
            actions,
            consumer: None,
            socket: VecDeque::new(),
            events: VecDeque::new(),
            read_all: Monotonic::default(),
            copy,
        };
        let now = self.actor_moment(&actor);
        actor.read_all = now.monotonic;
        acting.actors.insert(incarnation.clone(), actor);
        self.act(acting, &incarnation, effects)?;
        if let Some(assignment) = assignment {
            self.right_input(acting, &incarnation, right::Input::Assigned(&assignment));
        }
        Ok(())
    }

    fn actor_moment(&self, actor: &Actor) -> Moment {
        match &actor.copy {
            None => self.node_moment(&actor.server),
            Some(copy) => Moment {
                monotonic: Monotonic(self.now.mul_f64(copy.rate)),
                wall: Timestamp(0),
            },
        }
    }

    /// An assignment reached a server's process, or a copy of it.
    pub(crate) fn actor_assigned(&mut self, assignment: &Assignment) {
        let result = self.with_acting(|world, acting| {
            let is_own = |actor: &Actor| actor.server == assignment.server;
            let heard: Vec<Incarnation> = acting
                .actors
                .iter()
                .filter(|(_, actor)| is_own(actor) && !world.is_held_up(actor))
                .map(|(incarnation, _)| incarnation.clone())
                .collect();
            for incarnation in heard {
                // Of two that share a queue one hears it.
                let is_copy = acting.actors[&incarnation].copy.is_some();
                if !is_copy || acting.rng.gen_bool(0.5) {
                    world.right_input(acting, &incarnation, right::Input::Assigned(assignment));
                }
            }
            Ok(())
        });
        debug_assert!(result.is_ok(), "hearing breaks nothing");
    }

    fn right_input(&mut self, acting: &mut Acting, incarnation: &Incarnation, input: right::Input<'_>) {
        let Some(actor) = acting.actors.get_mut(incarnation) else {
            return;
        };
        let now = self.actor_moment(actor);
        let deaf = self.bug == Some(Bug::DeafToRevocation)
            && matches!(
                input,
                right::Input::Heard(Word::Revoke) | right::Input::Assigned(_)
            )
            && actor.right.may_act(now);
        if deaf {
            return;
        }
        for effect in actor.right.step(input, now) {
            match effect {
                right::Effect::Claim(claim) => {
                    let server = claim.server.clone();
                    self.send(&server, Packet::Claim(claim));
                }
                right::Effect::Echo(word) => {
                    if let Some(id) = actor.consumer {
                        let delay = TICK * acting.rng.gen_range(0..4);
                        acting.broker.publish(&actor.server, id, word, self.now + delay);
                    }
                }
            }
        }
    }

    /// The host hears a claim.
    pub(crate) fn host_claimed(&mut self, claim: Claim) {
        let result = self.with_acting(|world, acting| {
            world.granter_input(acting, granter::Input::Claimed(claim));
            Ok(())
        });
        debug_assert!(result.is_ok(), "hearing breaks nothing");
    }

    fn granter_input(&mut self, acting: &mut Acting, input: granter::Input) {
        let now = self.moment();
        let Some(granter) = acting.granter.as_mut() else {
            return;
        };
        for effect in granter.step(input, now) {
            let (to, word, ticket) = match effect {
                granter::Effect::Fence => (None, Word::Revoke, Some(granter::Ticket::Fence)),
                granter::Effect::Revoke(server, ticket) => (Some(server), Word::Revoke, Some(ticket)),
                granter::Effect::Grant(server, word) => (Some(server), word, None),
            };
            let host = acting.host_starts;
            let publication = Publication {
                to,
                word,
                ticket,
                host,
            };
            let arrives = self.now + TICK * acting.rng.gen_range(0..5);
            if acting.rng.gen_bool(0.05) {
                // The confirm was lost: the outbox sends it again, whatever came after it.
                let again = arrives + TICK * acting.rng.gen_range(5..40);
                acting.broker.publish_from_host(publication.clone(), again);
            }
            acting.broker.publish_from_host(publication, arrives);
        }
    }

    /// A tick of everything that acts.
    pub(crate) fn acting_turn(&mut self) -> Result<(), Violation> {
        self.with_acting(|world, acting| {
            world.host_grants(acting);
            world.connections(acting);
            world.raise_event(acting);
            let takes =
                world.outcome.ticks >= acting.blocked_until && world.outcome.ticks >= acting.broker_back;
            let nodes = &world.nodes;
            let reaches = |server: &ServerId| nodes.get(server).is_some_and(|node| node.reaches_broker());
            acting.broker.turn(world.now, takes, reaches);
            let all: Vec<Incarnation> = acting.actors.keys().cloned().collect();
            for incarnation in all {
                world.actor_turn(acting, &incarnation)?;
            }
            world.check_right(acting)
        })?;
        Ok(())
    }

    fn host_grants(&mut self, acting: &mut Acting) {
        if self.host.is_frozen(self.outcome.ticks) {
            return;
        }
        for ticket in acting.broker.confirms(self.now, acting.host_starts) {
            self.granter_input(acting, granter::Input::Confirmed(ticket));
        }
        for identity in self.scene.recorders.clone() {
            let Some(fleet) = self.host.fleet.as_ref() else {
                return;
            };
            let holder = fleet.holder(&identity);
            self.granter_input(acting, granter::Input::Holder { identity, holder });
        }
        self.granter_input(acting, granter::Input::Tick);
    }

    fn is_held_up(&self, actor: &Actor) -> bool {
        let frozen = |id: &ServerId| self.nodes[id].is_frozen(self.outcome.ticks);
        actor.copy.is_none() && frozen(&actor.server)
    }

    /// Either end of a connection may find out that the other is gone, and be wrong.
    fn connections(&mut self, acting: &mut Acting) {
        let ticks = self.outcome.ticks;
        let up = ticks >= acting.broker_back;
        acting.actors.retain(|incarnation, actor| match &actor.copy {
            Some(copy) => copy.until > ticks && self.faulty,
            None => {
                let process = self.nodes[&actor.server].process.as_ref();
                process.is_some_and(|process| process.incarnation == *incarnation)
            }
        });
        for (server, id) in acting.broker.connections() {
            let reached = self.nodes[&server].reaches_broker();
            let held = acting.actors.values().any(|actor| actor.consumer == Some(id));
            let gives_up = match (held, reached) {
                (true, true) => self.faulty && acting.rng.gen_bool(0.002),
                _ => acting.rng.gen_bool(0.1),
            };
            if gives_up {
                acting.broker.close(&server, id);
            }
        }
        for incarnation in acting.actors.keys().cloned().collect::<Vec<_>>() {
            let actor = &acting.actors[&incarnation];
            if self.is_held_up(actor) {
                continue;
            }
            let server = actor.server.clone();
            let reached = up && self.nodes[&server].reaches_broker();
            let input = match actor.consumer {
                Some(id) => {
                    let known = reached && acting.broker.knows(&server, id);
                    let gives_up =
                        !known && acting.rng.gen_bool(0.2) || self.faulty && acting.rng.gen_bool(0.002);
                    gives_up.then_some((None, right::Input::Deaf))
                }
                None => (reached && acting.rng.gen_bool(0.4))
                    .then(|| (Some(acting.broker.consume(&server)), right::Input::Listening)),
            };
            if let Some((consumer, input)) = input {
                let actor = acting.actors.get_mut(&incarnation).expect("it was there");
                actor.consumer = consumer;
                actor.socket.clear();
                self.right_input(acting, &incarnation, input);
            }
        }
    }

    /// Something happens at a device: everybody sees it who films it, each in its own time, perhaps twice.
    fn raise_event(&mut self, acting: &mut Acting) {
        if !acting.rng.gen_bool(0.05) {
            return;
        }
        let recorders = &self.scene.recorders;
        let identity = recorders[acting.rng.gen_range(0..recorders.len())].clone();
        acting.events += 1;
        let cause = Cause {
            key: format!("{identity}-event-{}", acting.events),
            promise: match acting.rng.gen_bool(0.7) {
                true => Promise::NeverTwice,
                false => Promise::NeverMissed,
            },
        };
        let ticks = self.outcome.ticks;
        for (incarnation, actor) in &acting.actors {
            let wants = actor.right.claim().wants;
            if wants.is_none_or(|(wanted, _)| wanted != identity) {
                continue;
            }
            let at = ticks + u64::from(acting.rng.gen_range(0..SPREAD_TICKS));
            acting.coming.push((at, incarnation.clone(), cause.clone()));
            if acting.rng.gen_bool(0.2) {
                let again = at + acting.rng.gen_range(1..30);
                acting.coming.push((again, incarnation.clone(), cause.clone()));
            }
        }
    }

    fn actor_turn(&mut self, acting: &mut Acting, incarnation: &Incarnation) -> Result<(), Violation> {
        let ticks = self.outcome.ticks;
        let (due, later) = std::mem::take(&mut acting.coming)
            .into_iter()
            .partition(|(at, whose, _)| *at <= ticks && whose == incarnation);
        acting.coming = later;
        let due: Vec<(u64, Incarnation, Cause)> = due;
        let Some(actor) = acting.actors.get_mut(incarnation) else {
            return Ok(());
        };
        actor.events.extend(due.into_iter().map(|(_, _, cause)| cause));
        let server = actor.server.clone();
        if actor.copy.is_none() {
            let again = acting
                .again
                .extract_if(.., |(at, whose, _)| *at <= ticks && *whose == server);
            actor.events.extend(again.map(|(_, _, cause)| cause));
        }
        let reached = ticks >= acting.broker_back && self.nodes[&server].reaches_broker();
        if let Some(id) = actor.consumer.filter(|_| reached) {
            actor.socket.extend(acting.broker.arrived(&server, id));
        }
        if self.is_held_up(&acting.actors[incarnation]) {
            return Ok(());
        }
        self.read_socket(acting, incarnation, reached);
        self.right_input(acting, incarnation, right::Input::Tick);
        let now = self.actor_moment(&acting.actors[incarnation]);
        let Some(actor) = acting.actors.get_mut(incarnation) else {
            return Ok(());
        };
        // What is read now may have waited since everything was read last.
        let since = std::mem::replace(&mut actor.read_all, now.monotonic);
        for cause in std::mem::take(&mut actor.events) {
            self.action_input(acting, incarnation, action::Input::Seen(cause, since))?;
        }
        self.action_input(acting, incarnation, action::Input::Tick)
    }

    fn read_socket(&mut self, acting: &mut Acting, incarnation: &Incarnation, reached: bool) {
        while let Some(actor) = acting.actors.get_mut(incarnation) {
            let Some(word) = actor.socket.pop_front() else {
                break;
            };
            let (server, consumer) = (actor.server.clone(), actor.consumer);
            self.right_input(acting, incarnation, right::Input::Heard(word));
            if let Some(id) = consumer.filter(|_| reached && acting.rng.gen_bool(0.9)) {
                acting.broker.acknowledge(&server, id);
            }
        }
    }

    fn action_input(
        &mut self,
        acting: &mut Acting,
        incarnation: &Incarnation,
        input: action::Input,
    ) -> Result<(), Violation> {
        let Some(actor) = acting.actors.get_mut(incarnation) else {
            return Ok(());
        };
        let now = self.actor_moment(actor);
        let effects = actor.actions.step(input, &actor.right, now);
        self.act(acting, incarnation, effects)
    }

    fn act(
        &mut self,
        acting: &mut Acting,
        incarnation: &Incarnation,
        effects: Vec<action::Effect>,
    ) -> Result<(), Violation> {
        for effect in effects {
            let Some(actor) = acting.actors.get_mut(incarnation) else {
                return Ok(());
            };
            let server = actor.server.clone();
            if actor.copy.is_none() && self.dies(Fault::ServiceDies, Some(&server), 1.0) {
                self.crash_node(&server, "between two steps of an action");
                acting.actors.remove(incarnation);
                return Ok(());
            }
            let store = match &mut actor.copy {
                Some(copy) => &mut copy.store,
                None => acting.stores.entry(server.clone()).or_default(),
            };
            let next = match effect {
                action::Effect::Store(cause, stage) => {
                    if self.bug != Some(Bug::ForgetIntent) {
                        store.insert(cause.clone(), stage);
                    }
                    (stage == Stage::Intended).then_some(action::Input::Stored(cause))
                }
                action::Effect::Perform(cause) => {
                    self.tell(|| format!("{server} ({incarnation}) does what {cause:?} asks for"));
                    let times = acting.done.entry(cause.clone()).or_default();
                    *times += 1;
                    if *times > 1 && cause.promise == Promise::NeverTwice {
                        return broken(10, format!("{server} ({incarnation}) does it again: {cause:?}"));
                    }
                    if actor.copy.is_none() && acting.rng.gen_bool(0.3) {
                        let at = self.outcome.ticks + acting.rng.gen_range(1..60);
                        acting.again.push((at, server.clone(), cause.clone()));
                    }
                    Some(action::Input::Done(cause))
                }
                action::Effect::Forget(cause) => {
                    store.remove(&cause);
                    None
                }
                action::Effect::GiveUp(cause, why) => {
                    self.tell(|| format!("{server} ({incarnation}) gives {cause:?} up: {why}"));
                    None
                }
            };
            if let Some(next) = next {
                self.action_input(acting, incarnation, next)?;
            }
        }
        Ok(())
    }

    /// Invariant 1: of the servers that bear an identity at most one has the right to act.
    fn check_right(&mut self, acting: &Acting) -> Result<(), Violation> {
        let mut holders: BTreeMap<ServerId, &Incarnation> = BTreeMap::new();
        for (incarnation, actor) in &acting.actors {
            let now = self.actor_moment(actor);
            let Some((identity, _)) = actor.right.claim().wants.filter(|_| actor.right.may_act(now)) else {
                continue;
            };
            self.outcome.rights += 1;
            if let Some(other) = holders.insert(identity.clone(), incarnation) {
                return broken(
                    1,
                    format!("{other} and {incarnation} may both act for {identity}"),
                );
            }
        }
        Ok(())
    }

    /// At rest each identity has somebody who may act, and what must not be missed was done.
    pub(crate) fn acting_unrest(&self) -> Option<String> {
        let acting = self.acting.as_ref()?;
        let may_act = |id: &&ServerId| {
            let mut actors = acting.actors.values().filter(|actor| actor.server == **id);
            actors.any(|actor| actor.right.may_act(self.actor_moment(actor)))
        };
        if let Some(id) = self.scene.recorders.iter().find(|id| !may_act(id)) {
            return Some(format!(
                "{id} may not act: {:?} {:?}",
                acting.granter, acting.actors
            ));
        }
        let missed = acting
            .stores
            .values()
            .flat_map(BTreeMap::keys)
            .find(|cause| cause.promise == Promise::NeverMissed && !acting.done.contains_key(*cause));
        missed.map(|cause| format!("{cause:?} was intended and never done"))
    }
}
