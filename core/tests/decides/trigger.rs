//! C2–C5: what is a reason, and when it has cleared.

use std::time::Duration;

use understudy_core::{
    contract::{
        api::ReasonKind,
        heartbeat::{Observation, Package, PackageState, Paths, Storage, StorageState},
    },
    policy::Policy,
    time::{Moment, Monotonic, Timestamp},
    trigger::Trigger,
};

use crate::rig::{automatic, server_id};

fn at(millis: u64) -> Moment {
    Moment {
        monotonic: Monotonic(Duration::from_millis(millis)),
        wall: Timestamp(0),
    }
}

fn seen(silent_ms: u64, package: PackageState, storage: StorageState) -> Observation {
    Observation {
        server: server_id("recorder-1"),
        silent_ms,
        paths: Paths {
            broker: silent_ms == 0,
            direct: false,
        },
        package: Package {
            state: package,
            evidence: "exit status 9".to_owned(),
        },
        storage: Storage {
            state: storage,
            ..Storage::default()
        },
        blind: false,
        farewell: None,
        started: None,
        evidence: Vec::new(),
    }
}

fn well() -> Observation {
    seen(0, PackageState::Running, StorageState::Normal)
}

fn policy() -> Policy {
    Policy {
        on_package: true,
        on_storage: true,
        ..automatic()
    }
}

#[test]
fn c2_silence_goes_on_while_the_monitor_is_not_speaking() {
    let mut trigger = Trigger::new(true);
    trigger.observe(
        seen(600, PackageState::Running, StorageState::Normal),
        at(0).monotonic,
    );
    assert!(trigger.cause(&policy(), at(399)).is_none());
    let cause = trigger.cause(&policy(), at(400)).expect("600 + 400 ms");
    assert_eq!(cause.lasts, Duration::from_secs(1));
    assert!(
        trigger.cause(&policy(), at(3000)).is_none(),
        "the monitor itself is silent"
    );
}

#[test]
fn c4_a_restart_of_the_recording_service_is_no_reason() {
    let mut trigger = Trigger::new(true);
    let crashed = || seen(0, PackageState::Crashed, StorageState::Normal);
    trigger.observe(crashed(), at(0).monotonic);
    trigger.observe(crashed(), at(1000).monotonic);
    assert!(trigger.cause(&policy(), at(1000)).is_none());
    trigger.observe(
        seen(0, PackageState::Starting, StorageState::Normal),
        at(1050).monotonic,
    );
    assert!(trigger.cause(&policy(), at(1900)).is_none(), "it is starting");
    trigger.observe(crashed(), at(2000).monotonic);
    trigger.observe(crashed(), at(3000).monotonic);
    let cause = trigger.cause(&policy(), at(3100)).expect("more than a second");
    assert_eq!(cause.reason.kind, ReasonKind::Package);
    assert!(
        cause.reason.summary.contains("exit status 9"),
        "{}",
        cause.reason.summary
    );
}

#[test]
fn f5_a_fault_lasts_since_the_server_was_last_seen_without_it() {
    let policy = || Policy {
        full_is_damage: true,
        ..policy()
    };
    let lasts = |after: Observation, now: Moment| {
        let mut trigger = Trigger::new(true);
        trigger.observe(well(), at(1000).monotonic);
        trigger.observe(after.clone(), at(1400).monotonic);
        trigger.observe(after, now.monotonic);
        trigger.cause(&policy(), now).expect("it is a reason").lasts
    };
    let crashed = seen(0, PackageState::Crashed, StorageState::Normal);
    assert_eq!(lasts(crashed, at(2500)), Duration::from_millis(1500));
    let damaged = seen(0, PackageState::Running, StorageState::Damaged);
    assert_eq!(lasts(damaged, at(1500)), Duration::from_millis(500));
    let mut full = well();
    full.storage.full = true;
    assert_eq!(lasts(full, at(1700)), Duration::from_millis(700));

    // Of one that was not heard meanwhile, the last word said nothing of then.
    let mut trigger = Trigger::new(true);
    trigger.observe(well(), at(1000).monotonic);
    trigger.observe(
        seen(300, PackageState::Running, StorageState::Normal),
        at(1300).monotonic,
    );
    trigger.observe(
        seen(0, PackageState::Running, StorageState::Damaged),
        at(1500).monotonic,
    );
    let cause = trigger.cause(&policy(), at(1500)).expect("it is a reason");
    assert_eq!(cause.lasts, Duration::from_millis(500));
}

#[test]
fn c1_each_trigger_is_switched_on_its_own() {
    let mut trigger = Trigger::new(true);
    trigger.observe(
        seen(0, PackageState::Running, StorageState::Damaged),
        at(0).monotonic,
    );
    assert!(trigger.cause(&automatic(), at(100)).is_none());
    let cause = trigger.cause(&policy(), at(100)).expect("storage is switched on");
    assert_eq!(cause.reason.kind, ReasonKind::Storage);
}

#[test]
fn c5_a_reason_has_cleared_when_the_server_stays_well() {
    let mut trigger = Trigger::new(true);
    let cleared =
        |trigger: &Trigger, millis| trigger.has_cleared(ReasonKind::Disconnection, &policy(), at(millis));
    trigger.observe(
        seen(5000, PackageState::Running, StorageState::Normal),
        at(0).monotonic,
    );
    trigger.observe(well(), at(1000).monotonic);
    assert!(!cleared(&trigger, 1900), "not for long enough");
    assert!(cleared(&trigger, 2000));
    trigger.observe(
        seen(0, PackageState::Starting, StorageState::Normal),
        at(2100).monotonic,
    );
    trigger.observe(well(), at(2200).monotonic);
    assert!(!cleared(&trigger, 3000), "its recording service has just started");
    assert!(cleared(&trigger, 3200));
}

#[test]
fn c3_a_volume_that_stays_full_is_a_reason_where_the_policy_says_so_until_it_has_room() {
    let full = || {
        let mut full = well();
        full.storage.full = true;
        full.storage.evidence = "full for more than 30 s".to_owned();
        full
    };
    let counts = Policy {
        full_is_damage: true,
        ..policy()
    };
    let mut trigger = Trigger::new(true);
    trigger.observe(full(), at(0).monotonic);
    // By itself it is none, nor where volumes are no reason at all.
    assert!(trigger.cause(&policy(), at(100)).is_none());
    let without_storage = Policy {
        on_storage: false,
        ..counts.clone()
    };
    assert!(trigger.cause(&without_storage, at(100)).is_none());
    let cause = trigger.cause(&counts, at(100)).expect("it counts as damaged");
    assert_eq!(cause.reason.kind, ReasonKind::Storage);
    let words = &cause.reason.summary;
    assert!(
        words.contains("full although retention should have made room: full for more than 30 s"),
        "{words}"
    );
    assert_eq!(
        trigger.unfit(at(100).monotonic),
        None,
        "it takes what it is given"
    );

    // It has cleared when there has been room for a while; for a policy that does not mind, it never was.
    let cleared = |trigger: &Trigger, policy: &Policy, millis| {
        trigger.has_cleared(ReasonKind::Storage, policy, at(millis))
    };
    trigger.observe(full(), at(2000).monotonic);
    assert!(!cleared(&trigger, &counts, 2000) && cleared(&trigger, &policy(), 2000));
    trigger.observe(well(), at(3000).monotonic);
    assert!(!cleared(&trigger, &counts, 3900), "not for long enough");
    assert!(cleared(&trigger, &counts, 4000));
}
