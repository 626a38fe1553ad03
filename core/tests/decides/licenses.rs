//! E10: a key is never counted for two holders and never lost.

use proptest::prelude::*;
use understudy_core::{
    ids::{FailoverId, LicenseKeyId},
    license::{
        Change, Ledger, LicenseError,
        key::{InvalidKey, Payload, join, parse, to_be_signed},
    },
};

use crate::rig::server_id;

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
