//! E10: a key is never counted for two holders and never lost.

use std::time::Duration;

use proptest::prelude::*;
use understudy_core::{
    contract::{
        api::{LicenseKind, Phase},
        rpc::LicenseRequest,
    },
    fleet::Input,
    ids::{FailoverId, LicenseKeyId},
    license::{
        Change, Ledger, LicenseError,
        history::happenings,
        key::{InvalidKey, Payload, join, parse, to_be_signed},
        shortage::unlicensed,
    },
    time::Timestamp,
};

use crate::rig::{Rig, automatic, camera, server_id};

fn payload(id: &str, devices: u32) -> Payload {
    Payload {
        id: LicenseKeyId::new(id).expect("an id"),
        devices,
        label: "four cameras".to_owned(),
        issuer: "ab".repeat(32),
    }
}

fn failover(n: u32) -> FailoverId {
    FailoverId::new(format!("f{n}")).expect("an id")
}

fn ledger() -> Ledger {
    let mut ledger = Ledger::default();
    for (key, owner) in [("k1", "recorder-1"), ("k2", "recorder-1"), ("k3", "recorder-2")] {
        ledger.add(payload(key, 4), &server_id(owner)).expect("a new key");
    }
    ledger
}

fn devices(ledger: &Ledger, server: &str) -> u32 {
    ledger
        .view()
        .devices
        .get(&server_id(server))
        .copied()
        .unwrap_or(0)
}

#[test]
fn e10_keys_move_with_the_failover_and_come_back() {
    let mut ledger = ledger();
    let (from, to) = (server_id("recorder-1"), server_id("failover-1"));
    let (moved, changes) = ledger.transfer(&failover(1), &from, &to).expect("it can move");
    assert_eq!((moved, changes.len()), (8, 3), "two keys, and that it happened");
    assert_eq!(devices(&ledger, "failover-1"), 8);
    assert_eq!(
        ledger.transfer(&failover(1), &from, &to),
        Ok((8, vec![])),
        "again: nothing happens"
    );
    let (back, _) = ledger.give_back(&failover(1));
    assert_eq!((back, devices(&ledger, "recorder-1")), (8, 8));
    assert_eq!(
        ledger.give_back(&failover(1)),
        (8, vec![]),
        "again: nothing happens"
    );
    assert_eq!(
        ledger.transfer(&failover(1), &from, &to),
        Ok((0, vec![])),
        "too late"
    );
}

#[test]
fn e10_giving_back_first_makes_the_transfer_never_happen() {
    let mut ledger = ledger();
    ledger.give_back(&failover(1));
    let late = ledger.transfer(&failover(1), &server_id("recorder-1"), &server_id("failover-1"));
    assert_eq!(late, Ok((0, vec![])));
    assert_eq!(devices(&ledger, "recorder-1"), 8);
}

#[test]
fn e10_of_two_transfers_for_one_key_the_first_moves_it() {
    // Given two failovers of one recording server, as a restored host and its servers may have them,
    let mut ledger = ledger();
    let from = server_id("recorder-1");
    let first = ledger.transfer(&failover(1), &from, &server_id("failover-1"));
    let second = ledger.transfer(&failover(2), &from, &server_id("failover-2"));
    assert_eq!(
        (
            first.map(|(devices, _)| devices),
            second.map(|(devices, _)| devices)
        ),
        (Ok(8), Ok(0))
    );
    assert_eq!(
        (devices(&ledger, "failover-1"), devices(&ledger, "failover-2")),
        (8, 0)
    );
    // only the one that moved them gives them back.
    assert_eq!(ledger.give_back(&failover(2)).0, 0);
    assert_eq!(devices(&ledger, "failover-1"), 8);
    assert_eq!(ledger.give_back(&failover(1)).0, 8);
    assert_eq!(devices(&ledger, "recorder-1"), 8);
}

#[test]
fn e10_what_happens_to_a_key_is_told_once_with_from_to_and_failover() {
    let mut ledger = Ledger::default();
    let (from, to) = (server_id("recorder-1"), server_id("failover-1"));
    let mut told = Vec::new();
    let mut tell = |ledger: &mut Ledger, step: &mut dyn FnMut(&mut Ledger) -> Vec<Change>| {
        let before = ledger.clone();
        let changes = step(ledger);
        told.extend(happenings(&before, &changes, Timestamp(7)));
    };
    for _twice in 0..2 {
        tell(&mut ledger, &mut |ledger| {
            ledger.add(payload("k1", 4), &from).expect("it can be added")
        });
    }
    for _twice in 0..2 {
        tell(&mut ledger, &mut |ledger| {
            ledger.transfer(&failover(1), &from, &to).expect("it can move").1
        });
    }
    for _twice in 0..2 {
        tell(&mut ledger, &mut |ledger| ledger.give_back(&failover(1)).1);
    }
    let key = LicenseKeyId::new("k1").expect("an id");
    tell(&mut ledger, &mut |ledger| {
        ledger.remove(&key).expect("it is there")
    });
    let short: Vec<_> = told
        .iter()
        .map(|each| {
            (
                each.what,
                each.from.as_ref(),
                each.to.as_ref(),
                each.failover.as_ref(),
            )
        })
        .collect();
    let first = failover(1);
    assert_eq!(
        short,
        [
            (LicenseKind::Added, None, Some(&from), None),
            (LicenseKind::Transferred, Some(&from), Some(&to), Some(&first)),
            (LicenseKind::GivenBack, Some(&to), Some(&from), Some(&first)),
            (LicenseKind::Removed, Some(&from), None, None),
        ]
    );
    assert!(
        told.iter()
            .all(|each| each.at == Timestamp(7) && each.devices == 4)
    );
}

#[test]
fn e10_e12_cameras_without_a_licence_are_named_lowest_priority_first() {
    // Given two recording servers with five cameras each, and a key for one device of one of them,
    let mut ledger = Ledger::default();
    ledger
        .add(payload("k1", 1), &server_id("recorder-1"))
        .expect("a new key");
    ledger
        .transfer(&failover(1), &server_id("recorder-1"), &server_id("failover-1"))
        .expect("it can move");
    let mut cameras = Vec::new();
    for server in ["recorder-1", "recorder-2"] {
        for number in 1..=5 {
            let mut camera = camera(server, number);
            camera.priority = i32::try_from(number).expect("small");
            camera.enabled = number != 5;
            cameras.push(camera);
        }
    }
    // two of each need none, one that is switched off neither, and a key counts for its owner wherever it is.
    let short = unlicensed(&ledger.view().keys, &cameras);
    let of = |server: &str| short.get(&server_id(server)).cloned().unwrap_or_default();
    assert_eq!(of("recorder-1"), [camera("recorder-1", 1).id]);
    assert_eq!(
        of("recorder-2"),
        [camera("recorder-2", 1).id, camera("recorder-2", 2).id]
    );
}

#[test]
fn e10_no_camera_waits_for_a_ledger_that_is_away_for_ten_minutes() {
    // Given a licence service that does not answer,
    let mut rig = Rig::serving(automatic());
    let asked = |rig: &Rig| {
        rig.ledger
            .iter()
            .filter(|request| matches!(request, LicenseRequest::Transfer { .. }))
            .count()
    };
    let before = rig.role("failover-1");
    // when ten minutes pass, it is asked again and again, and the failover server films as it did;
    for _ in 0..60 {
        let failover = rig.newest().id;
        rig.step(Input::LicenseFailed {
            failover,
            why: "nobody answers".to_owned(),
        });
        rig.pass(Duration::from_secs(10));
        assert_eq!(
            (rig.phase(), rig.role("failover-1")),
            (Phase::Serving, before.clone())
        );
    }
    assert!(asked(&rig) >= 60, "{}", asked(&rig));
    let noted = rig
        .newest()
        .steps
        .into_iter()
        .filter(|step| step.what.contains("nobody answers"))
        .count();
    assert_eq!(noted, 1, "it says so once");
    assert!(!rig.newest().licenses_settled);
    // the host may die between the transfer and hearing of it, and hear of it twice:
    rig.restart();
    let failover = rig.newest().id;
    for _twice in 0..2 {
        rig.step(Input::LicensesMoved {
            failover: failover.clone(),
            given_back: false,
            devices: 8,
        });
    }
    assert!(rig.newest().licenses_settled);
    let told = rig
        .event_names()
        .into_iter()
        .filter(|name| *name == "license.transferred")
        .count();
    assert_eq!(told, 1);
    // and the failback waits for the ledger no more than the takeover did.
    rig.obeys("failover-1");
    rig.wake("recorder-1");
    rig.pass(Duration::from_millis(1500));
    rig.obeys("recorder-1");
    assert_eq!(rig.phase(), Phase::Restoring);
}

#[test]
fn e10_the_same_key_is_never_added_twice() {
    let mut ledger = ledger();
    assert_eq!(ledger.add(payload("k1", 4), &server_id("recorder-1")), Ok(vec![]));
    let elsewhere = ledger.add(payload("k1", 4), &server_id("recorder-2"));
    assert!(
        matches!(elsewhere, Err(LicenseError::InUse { .. })),
        "{elsewhere:?}"
    );
    let other = ledger.add(payload("k1", 9), &server_id("recorder-1"));
    assert!(matches!(other, Err(LicenseError::Different(_))), "{other:?}");
}

#[test]
fn a_key_is_taken_apart_as_it_was_joined() {
    let payload = payload("k1", 4);
    let signed = to_be_signed(&payload);
    let key = parse(&format!("  {}\n", join(&signed, &[7; 64]))).expect("a good key");
    assert_eq!(key.payload, payload);
    assert_eq!(key.signed, signed.as_bytes());
    assert_eq!(key.signature, [7; 64]);
}

#[test]
fn a_text_that_is_no_key_is_refused_with_the_reason() {
    assert_eq!(parse("nonsense"), Err(InvalidKey::Shape));
    assert_eq!(parse(&"a".repeat(10_000)), Err(InvalidKey::Shape));
    assert_eq!(parse("!.x"), Err(InvalidKey::Encoding("first part")));
    let signed = to_be_signed(&payload("k1", 4));
    assert_eq!(
        parse(&format!("{signed}.AAAA")),
        Err(InvalidKey::Encoding("signature"))
    );
    let none = join(&to_be_signed(&payload("k1", 0)), &[0; 64]);
    assert_eq!(parse(&none), Err(InvalidKey::NoDevices));
}

#[derive(Clone, Debug)]
enum Step {
    Transfer(u32, &'static str, &'static str),
    GiveBack(u32),
    Crash,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let server = prop_oneof![
        Just("recorder-1"),
        Just("recorder-2"),
        Just("failover-1"),
        Just("failover-2")
    ];
    let step = prop_oneof![
        (0u32..4, server.clone(), server).prop_map(|(n, from, to)| Step::Transfer(n, from, to)),
        (0u32..4).prop_map(Step::GiveBack),
        Just(Step::Crash),
    ];
    proptest::collection::vec(step, 0..30)
}

proptest! {
    /// Whatever is asked in whatever order, and whenever the service dies between storing and answering.
    #[test]
    fn e10_each_key_has_exactly_one_holder_whatever_is_asked(steps in steps()) {
        let mut ledger = ledger();
        let mut rows = std::collections::BTreeMap::new();
        let mut moves = std::collections::BTreeMap::new();
        let mut store = |changes: Vec<Change>| {
            for change in changes {
                match change {
                    Change::SaveKey(entry) => drop(rows.insert(entry.payload.id.clone(), entry)),
                    Change::DeleteKey(key) => drop(rows.remove(&key)),
                    Change::SaveMove(failover, what) => drop(moves.insert(failover, what)),
                }
            }
            Ledger::restore(rows.values().cloned(), moves.clone())
        };
        store(ledger.entries().cloned().map(Change::SaveKey).collect());
        for step in steps {
            match step {
                Step::Transfer(n, from, to) => {
                    let moved = ledger.transfer(&failover(n), &server_id(from), &server_id(to));
                    store(moved.map(|(_, changes)| changes).unwrap_or_default());
                }
                Step::GiveBack(n) => drop(store(ledger.give_back(&failover(n)).1)),
                Step::Crash => ledger = store(vec![]),
            }
            let total: u32 = ledger.view().devices.values().sum();
            prop_assert_eq!(total, 12);
            prop_assert_eq!(ledger.view().keys.len(), 3);
            prop_assert_eq!(&store(vec![]), &ledger, "what is stored is what is");
        }
        for n in 0..4 {
            ledger.give_back(&failover(n));
        }
        for key in ledger.view().keys {
            prop_assert_eq!(key.holder, key.owner);
        }
    }
}
