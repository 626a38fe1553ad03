//! The right to act: asked for, kept fresh, and asked about right before each action.
//!
//! A shell around [`understudy_core::authority::right`], which decides. Nothing of it is on disk. It is told of each
//! message at the moment at which that is read from the queue, before anything else is done about it; an action asks
//! [`Acting::may_act`] right before it acts, and never relies on an earlier answer.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use prometheus::{
    IntGauge,
    core::{Collector, Desc},
    proto::MetricFamily,
};
use tokio::{
    sync::{mpsc, watch},
    time::MissedTickBehavior,
};
use understudy_bus::{Bus, Message, PublishError};
use understudy_core::{
    authority::{
        LEASE,
        right::{Effect, Input, Right},
    },
    contract::heartbeat::RightToAct,
    ids::{DomainId, Incarnation, ServerId},
    time::{Moment, Timestamp},
};
use understudy_runtime::{Process, ServerConfig, clock};

/// How often time is told to it: a right that ends by itself is reported as soon.
const TICK: Duration = Duration::from_millis(100);
/// Words that wait for the broker: a claim and an echo. What finds no room is made anew within a lease.
const WAITING: usize = 2;

/// This server's right to act. Clones share it.
#[derive(Clone)]
pub(crate) struct Acting(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    effects: mpsc::Sender<Effect>,
    shown: watch::Sender<RightToAct>,
}

struct State {
    right: Right,
    /// On which consumption of the queue it listens.
    consumption: Option<u64>,
    /// Since when it has the right without a break, as far as anybody looked.
    since: Option<Timestamp>,
}

impl State {
    /// How it is, at this moment.
    fn show(&mut self, now: Moment) -> RightToAct {
        match self.right.why_not(now) {
            None => RightToAct {
                held: true,
                since: Some(*self.since.get_or_insert(now.wall)),
                why: String::new(),
            },
            Some(why) => {
                self.since = None;
                RightToAct {
                    held: false,
                    since: None,
                    why: why.to_owned(),
                }
            }
        }
    }
}

impl Acting {
    /// A server that has just started and may do nothing; with what it has to say.
    pub(crate) fn new(server: ServerId, incarnation: Incarnation) -> (Self, mpsc::Receiver<Effect>) {
        let (effects, said) = mpsc::channel(WAITING);
        let mut state = State {
            right: Right::new(server, incarnation),
            consumption: None,
            since: None,
        };
        let (shown, _) = watch::channel(state.show(clock::now()));
        let shared = Shared {
            state: Mutex::new(state),
            effects,
            shown,
        };
        (Self(Arc::new(shared)), said)
    }

    /// Whether this server may open a door or switch an output now. To be asked right before, since an action under
    /// way can't be called back.
    pub(crate) fn may_act(&self) -> bool {
        self.lock().right.may_act(clock::now())
    }

    /// The same as it is reported, with the reason.
    pub(crate) fn shown(&self) -> RightToAct {
        self.lock().show(clock::now())
    }

    /// Rings when that has changed.
    pub(crate) fn changes(&self) -> watch::Receiver<RightToAct> {
        self.0.shown.subscribe()
    }

    /// Something happened.
    pub(crate) fn step(&self, input: Input<'_>) {
        let mut state = self.lock();
        self.step_in(&mut state, input);
    }

    /// A message is about to be read that came on this consumption of the queue.
    pub(crate) fn hears_on(&self, consumption: u64) {
        let mut state = self.lock();
        if state.consumption < Some(consumption) {
            state.consumption = Some(consumption);
            self.step_in(&mut state, Input::Listening);
        }
    }

    /// The queue is consumed, on this consumption, or not any more.
    fn consumes(&self, consumption: Option<u64>) {
        let mut state = self.lock();
        match consumption {
            // A message of it may have been read already, or even of the next.
            Some(_) if state.consumption >= consumption => {}
            Some(_) => {
                state.consumption = consumption;
                self.step_in(&mut state, Input::Listening);
            }
            None => self.step_in(&mut state, Input::Deaf),
        }
    }

    fn step_in(&self, state: &mut State, input: Input<'_>) {
        let now = clock::now();
        // A right that has lapsed meanwhile is a new one afterwards.
        state.show(now);
        for effect in state.right.step(input, now) {
            // Without room it is lost, as it may be anywhere on its way.
            drop(self.0.effects.try_send(effect));
        }
        let shown = state.show(now);
        self.0.shown.send_if_modified(|known| {
            let changed = *known != shown;
            if known.held != shown.held {
                tracing::info!(right.held = shown.held, right.why = shown.why, "right to act");
            }
            *known = shown;
            changed
        });
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Whatever panicked, what is claimed and granted stays whole, or is too little.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to keep it, by what comes in on the queue's consumption, and to say what it has to say.
    pub(crate) fn start(
        self,
        said: mpsc::Receiver<Effect>,
        consumption: watch::Receiver<Option<u64>>,
        bus: Bus,
        server: &ServerConfig,
        process: &Process,
    ) {
        process.spawn("right to act", self.keep(consumption, process.clone()));
        let said = say(
            said,
            bus,
            server.id.clone(),
            server.domain.clone(),
            process.clone(),
        );
        process.spawn("claims and echoes", said);
    }

    /// Tells it the time, and whether its queue is consumed, until shutdown.
    async fn keep(self, mut consumption: watch::Receiver<Option<u64>>, process: Process) {
        let shutdown = process.shutdown();
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                changed = consumption.changed() => {
                    if changed.is_err() {
                        return self.step(Input::Deaf);
                    }
                    let consumption = *consumption.borrow_and_update();
                    self.consumes(consumption);
                }
                _ = ticks.tick() => self.step(Input::Tick),
            }
        }
    }
}

/// Says what it has to say, until shutdown. What does not get through in time is let go: it is said anew.
async fn say(
    mut effects: mpsc::Receiver<Effect>,
    bus: Bus,
    server: ServerId,
    domain: DomainId,
    process: Process,
) {
    let shutdown = process.shutdown();
    loop {
        let effect = tokio::select! {
            () = shutdown.cancelled() => return,
            effect = effects.recv() => effect,
        };
        let message = match effect {
            Some(Effect::Claim(claim)) => Message::claim(&domain, &claim),
            Some(Effect::Echo(word)) => Message::word(&server, &word),
            None => return,
        };
        let kind = message.kind.clone();
        let said = tokio::time::timeout(LEASE, bus.publish(message)).await;
        if let Err(error) = said.unwrap_or(Err(PublishError::Deadline)) {
            tracing::debug!(kind, %error, "not said; it is said anew");
        }
    }
}

/// `understudy_right_to_act`: asked at the moment at which it is read, never an earlier answer.
pub(crate) struct RightGauge {
    gauge: IntGauge,
    acting: Acting,
}

impl RightGauge {
    pub(crate) fn new(gauge: IntGauge, acting: Acting) -> Self {
        Self { gauge, acting }
    }
}

impl Collector for RightGauge {
    fn desc(&self) -> Vec<&Desc> {
        self.gauge.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.gauge.set(i64::from(self.acting.may_act()));
        self.gauge.collect()
    }
}

#[cfg(test)]
mod tests {
    use understudy_core::{
        assignment::{Assignment, Epoch, Films, Role},
        authority::Word,
        policy::Range,
    };

    use super::*;

    fn server() -> ServerId {
        ServerId::new("recorder-1").expect("an id")
    }

    fn assignment(number: u64) -> Assignment {
        let films = Films {
            identity: server(),
            settings: serde_json::from_value(serde_json::json!("0".repeat(64))).expect("a hash"),
            range: Range::Full,
            disabled: Default::default(),
            failover: None,
            restore: None,
            keep: Default::default(),
        };
        Assignment {
            server: server(),
            epoch: Epoch { term: 1, number },
            role: Role::Films(films),
            erase: Default::default(),
            erase_up_to: Default::default(),
        }
    }

    /// What is said since it was last asked, with the echo given back through the queue.
    fn say_and_hear(acting: &Acting, said: &mut mpsc::Receiver<Effect>) {
        while let Ok(effect) = said.try_recv() {
            match effect {
                Effect::Claim(claim) => acting.step(Input::Heard(Word::Grant { claim, alone_ms: 0 })),
                Effect::Echo(word) => acting.step(Input::Heard(word)),
            }
        }
    }

    #[tokio::test]
    async fn e2_e3_a_message_of_a_newer_connection_ends_the_right_before_it_is_read() {
        let incarnation = Incarnation::new("one").expect("an id");
        let (acting, mut said) = Acting::new(server(), incarnation);
        acting.step(Input::Assigned(&assignment(1)));
        while said.try_recv().is_ok() {}
        assert!(!acting.may_act());
        assert!(acting.shown().why.contains("broker"), "{:?}", acting.shown());

        // Given: it listens, is granted the right, and its echo came back.
        acting.consumes(Some(1));
        say_and_hear(&acting, &mut said);
        assert!(acting.may_act(), "{:?}", acting.shown());
        assert!(acting.shown().since.is_some());
        // What is said of the connection that it knows changes nothing, nor what comes late of it.
        acting.hears_on(1);
        acting.consumes(Some(1));
        acting.step(Input::Assigned(&assignment(1)));
        assert!(acting.may_act());

        // When a message comes on a newer connection, the right is over before it is read, whoever is told first.
        acting.hears_on(2);
        assert!(!acting.may_act());
        say_and_hear(&acting, &mut said);
        assert!(acting.may_act());
        acting.consumes(Some(2));
        assert!(acting.may_act(), "that was known");

        // The same with another assignment, and with the end of the connection.
        acting.step(Input::Assigned(&assignment(2)));
        assert!(!acting.may_act());
        say_and_hear(&acting, &mut said);
        assert!(acting.may_act());
        acting.consumes(None);
        assert!(!acting.may_act());
    }
}
