//! What flaps is damped, and what is lost on the way is no death: C1, C2, C4, C5.

use std::{collections::BTreeMap, time::Duration};

use understudy_core::{
    contract::{
        api::{Phase, ReasonKind},
        heartbeat::{Heartbeat, Observation, Package, PackageState, Paths, Storage},
    },
    ids::DomainId,
    policy::Policy,
    presence::{Path, Presence, Seen},
    time::{Moment, Monotonic, Timestamp},
    trigger::{LONGEST_HOLD, Trigger},
};

use crate::rig::{Rig, automatic, server_id};

const SECOND: Duration = Duration::from_secs(1);

fn at(millis: u64) -> Moment {
    Moment {
        monotonic: Monotonic(Duration::from_millis(millis)),
        wall: Timestamp(0),
    }
}

/// A small generator of our own (splitmix64): the same numbers in each run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % limit
    }
}

/// An agent, a line that loses and delays what it sends, the monitor, and the trigger behind it.
struct Line {
    dice: Dice,
    presence: Presence,
    trigger: Trigger,
    policy: Policy,
    paths: Vec<Path>,
    on_the_way: BTreeMap<(u64, u64), Path>,
    sent: u64,
    vanished: u64,
}

const INTERVAL_MS: u64 = 500;
const TICK_MS: u64 = 100;
const LOST_PERCENT: u64 = 30;
const JITTER_MS: u64 = 200;

impl Line {
    fn new(seed: u64, paths: &[Path]) -> Self {
        let mut presence = Presence::new();
        presence.broker(None, at(0));
        Self {
            dice: Dice(seed),
            presence,
            trigger: Trigger::new(true),
            policy: Policy {
                automatic: true,
                ..Policy::default()
            },
            paths: paths.to_vec(),
            on_the_way: BTreeMap::new(),
            sent: 0,
            vanished: 0,
        }
    }

    /// From `from` to `to`, in ticks; the first moment at which there was a reason for a failover.
    fn play(&mut self, from: u64, to: u64, alive: bool) -> Option<u64> {
        for now in (from..to).step_by(usize::try_from(TICK_MS).expect("small")) {
            if alive && now % INTERVAL_MS == 0 {
                self.send(now);
            }
            let later = self.on_the_way.split_off(&(now + 1, 0));
            let arrived = std::mem::replace(&mut self.on_the_way, later);
            for ((due, _), path) in arrived {
                let beat = beat(due);
                let seen = self.presence.beat(path, beat, at(now));
                self.observe(seen, now);
            }
            let seen = self.presence.tick(at(now));
            self.observe(seen, now);
            if self.trigger.cause(&self.policy, at(now)).is_some() {
                return Some(now);
            }
        }
        None
    }

    fn send(&mut self, now: u64) {
        for path in self.paths.clone() {
            self.sent += 1;
            if self.dice.below(100) >= LOST_PERCENT {
                let due = now + self.dice.below(JITTER_MS + 1);
                self.on_the_way.insert((due, self.sent), path);
            }
        }
    }

    fn observe(&mut self, seen: Vec<Seen>, now: u64) {
        for seen in seen {
            let heard = seen.observation.paths.broker || seen.observation.paths.direct;
            self.vanished += u64::from(!heard && !seen.transitions.is_empty());
            self.trigger.observe(seen.observation, at(now).monotonic);
        }
    }
}

fn beat(sequence: u64) -> Heartbeat {
    Heartbeat {
        server: server_id("recorder-1"),
        domain: DomainId::new("east").expect("an id"),
        sequence,
        sent_at: Timestamp(0),
        interval_ms: INTERVAL_MS,
        package: Package::default(),
        storage: Storage::default(),
        farewell: None,
        started: None,
    }
}

#[test]
fn c2_a_day_of_thirty_percent_lost_heartbeats_fails_nothing_over_and_a_death_after_it_is_seen() {
    const DAY_MS: u64 = 24 * 60 * 60 * 1000;
    for paths in [
        &[Path::Broker, Path::Direct][..],
        &[Path::Broker],
        &[Path::Direct],
    ] {
        let mut line = Line::new(7, paths);
        assert_eq!(line.play(0, DAY_MS, true), None, "{paths:?}");
        assert!(
            line.vanished > 100,
            "the line is bad: {} silences on {paths:?}",
            line.vanished
        );
        let patience = u64::try_from(line.policy.disconnection().as_millis()).expect("short");
        let seen = line.play(DAY_MS, DAY_MS + 3 * patience, false);
        let after = seen.expect("its death is seen") - DAY_MS;
        assert!(
            (patience / 2..=2 * patience).contains(&after),
            "{after} ms on {paths:?}"
        );
    }
}

/// recorder-1 dies, is taken over, and comes back; answers how long it is well before it is handed back to.
fn dies_and_returns(rig: &mut Rig) -> Duration {
    rig.silence("recorder-1");
    rig.pass(2 * SECOND);
    rig.obeys("failover-1");
    assert_eq!(rig.phase(), Phase::Serving);
    rig.wake("recorder-1");
    let back = rig.now;
    while rig.assignment("recorder-1").role.identity().is_none() {
        assert!(rig.now - back < 2 * LONGEST_HOLD, "it is kept waiting for ever");
        rig.pass(SECOND / 2);
    }
    let held = rig.now - back;
    for server in ["recorder-1", "failover-1", "recorder-1"] {
        rig.obeys(server);
    }
    let epoch = rig.assignment("recorder-1").epoch;
    rig.restoration(epoch, 10, true);
    rig.obeys("failover-1");
    assert_eq!(rig.phase(), Phase::Completed);
    held
}

#[test]
fn c5_a_server_that_flaps_is_handed_back_to_later_each_time_and_taken_over_at_once_each_time() {
    let mut rig = Rig::new(automatic(), &[("failover-1", 9)]);
    let mut held = Vec::new();
    for _ in 0..6 {
        held.push(dies_and_returns(&mut rig).as_secs());
        rig.pass(20 * SECOND);
    }
    assert!(held[0] <= 2, "{held:?}");
    assert!(held.windows(2).all(|pair| pair[0] <= pair[1]), "{held:?}");
    assert!((60..=302).contains(&held[5]), "{held:?}");

    // While it is held, the failover says what it waits for.
    rig.silence("recorder-1");
    rig.pass(2 * SECOND);
    rig.obeys("failover-1");
    rig.wake("recorder-1");
    rig.pass(3 * SECOND);
    let waits_for = rig.newest().waits_for;
    assert!(
        waits_for.contains("recorder-1 to stay well for 300 s: it failed 7 times"),
        "{waits_for}"
    );
    // A person need not wait for it.
    rig.ok(
        understudy_core::contract::rpc::OrchestratorRequest::StopFailover {
            server: server_id("recorder-1"),
            by: "anna".to_owned(),
        },
    );
    assert!(rig.assignment("recorder-1").role.identity().is_some());
}

#[test]
fn c5_a_server_that_was_well_for_an_hour_is_handed_back_to_at_once_again() {
    let mut rig = Rig::new(automatic(), &[("failover-1", 9)]);
    for _ in 0..3 {
        dies_and_returns(&mut rig);
    }
    rig.pass(understudy_core::trigger::FAULT_WINDOW);
    assert!(dies_and_returns(&mut rig) <= 2 * SECOND);
}

#[test]
fn c5_with_nobody_filming_a_server_that_flapped_is_not_held() {
    let mut rig = Rig::new(automatic(), &[("failover-1", 9)]);
    for _ in 0..4 {
        dies_and_returns(&mut rig);
    }
    // The failover server takes its assignment and finds no camera yet; the recording server is back.
    rig.silence("recorder-1");
    rig.pass(2 * SECOND);
    assert_eq!(rig.phase(), Phase::TakingOver);
    rig.wake("recorder-1");
    rig.pass(2 * SECOND);
    assert!(rig.assignment("recorder-1").role.identity().is_some());
}

#[test]
fn c4_a_recording_service_that_crashes_again_and_again_is_a_reason_though_each_crash_is_short() {
    let policy = Policy {
        on_package: true,
        ..automatic()
    };
    let seen = |state| Observation {
        server: server_id("recorder-1"),
        silent_ms: 0,
        paths: Paths {
            broker: true,
            direct: true,
        },
        package: Package {
            state,
            evidence: "exit status 9".to_owned(),
        },
        storage: Storage::default(),
        blind: false,
        farewell: None,
        started: None,
        evidence: Vec::new(),
    };
    let mut trigger = Trigger::new(true);
    let mut causes = Vec::new();
    for spell in 0..3 {
        let began = spell * 2_000;
        for (later, state) in [(0, PackageState::Crashed), (800, PackageState::Running)] {
            trigger.observe(seen(state), at(began + later).monotonic);
            causes.push(trigger.cause(&policy, at(began + later)));
        }
    }
    let kinds: Vec<_> = causes
        .iter()
        .map(|cause| cause.as_ref().map(|cause| cause.reason.kind))
        .collect();
    let none = [None; 4];
    assert_eq!(kinds[..4], none, "a restart or two are no reason");
    assert_eq!(kinds[4], Some(ReasonKind::Package));
    assert_eq!(kinds[5], None, "while it runs nobody takes over");
    let summary = &causes[4].as_ref().expect("a reason").reason.summary;
    assert!(summary.contains("3 times within a minute"), "{summary}");
}
