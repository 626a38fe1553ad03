//! A5: which failover server stands in; E12: which cameras it has no room for.

use proptest::prelude::*;
use understudy_core::{
    assignment::Epoch,
    ids::DomainId,
    selection::{Candidate, select, surplus},
};

use crate::rig::{camera, server_id};

fn domain(name: &str) -> DomainId {
    DomainId::new(name).expect("an id")
}

fn candidate(id: &str, max_cameras: u32) -> Candidate {
    Candidate {
        server: server_id(id),
        domain: domain("east"),
        max_cameras,
        last_used: None,
        unavailable: None,
    }
}

fn chosen(cameras: u32, candidates: &[Candidate]) -> Option<String> {
    select(cameras, &domain("east"), candidates)
        .chosen
        .map(|server| server.to_string())
}

#[test]
fn a5_picks_the_closest_match() {
    let candidates = [
        candidate("small", 10),
        candidate("right", 30),
        candidate("large", 90),
    ];
    assert_eq!(chosen(25, &candidates).as_deref(), Some("right"));
    assert_eq!(chosen(30, &candidates).as_deref(), Some("right"));
    assert_eq!(chosen(31, &candidates).as_deref(), Some("large"));
    assert_eq!(
        chosen(100, &candidates).as_deref(),
        Some("large"),
        "none fits: the largest"
    );
}

#[test]
fn a5_ties_go_to_the_same_domain_then_the_least_recently_used_then_by_id() {
    let used = |candidate: Candidate, number| Candidate {
        last_used: Some(Epoch { term: 0, number }),
        ..candidate
    };
    let elsewhere = Candidate {
        domain: domain("west"),
        ..candidate("a", 10)
    };
    assert_eq!(
        chosen(5, &[elsewhere.clone(), used(candidate("b", 10), 9)]).as_deref(),
        Some("b")
    );
    let recently = [used(candidate("b", 10), 9), used(candidate("c", 10), 3)];
    assert_eq!(chosen(5, &recently).as_deref(), Some("c"));
    let never = [
        used(candidate("b", 10), 9),
        candidate("z", 10),
        candidate("y", 10),
    ];
    assert_eq!(chosen(5, &never).as_deref(), Some("y"));
}

#[test]
fn a3_says_of_each_candidate_why() {
    let busy = Candidate {
        unavailable: Some("serves recorder-2".to_owned()),
        ..candidate("busy", 10)
    };
    let selection = select(
        5,
        &domain("east"),
        &[busy, candidate("a", 90), candidate("b", 10)],
    );
    let words: Vec<String> = selection
        .considered
        .iter()
        .map(|each| format!("{} {} {}", each.server, each.chosen, each.why))
        .collect();
    assert_eq!(
        words,
        [
            "b true runs up to 10 cameras, 5 are needed: the closest match",
            "a false runs up to 90 cameras, 5 are needed; b matches closer",
            "busy false serves recorder-2",
        ]
    );
    let none = select(5, &domain("east"), &[]);
    assert!(none.waits_for().contains("there is none"));
}

#[test]
fn e12_disables_the_lowest_priority_first() {
    let mut cameras: Vec<_> = (1..=4).map(|n| camera("recorder-1", n)).collect();
    cameras[0].priority = 5;
    cameras[3].enabled = false;
    let names = |max| -> Vec<String> {
        let ids = surplus(&cameras, max);
        ids.iter().map(ToString::to_string).collect()
    };
    assert_eq!(
        names(3),
        Vec::<String>::new(),
        "one that is switched off needs no room"
    );
    assert_eq!(
        names(1),
        ["recorder-1-cam-3", "recorder-1-cam-2"],
        "the last by id first"
    );
    assert_eq!(
        names(0),
        ["recorder-1-cam-3", "recorder-1-cam-2", "recorder-1-cam-1"]
    );
}

fn candidates() -> impl Strategy<Value = Vec<Candidate>> {
    let one = (0u32..6, 1u32..8, any::<bool>(), 0u64..4, any::<bool>());
    proptest::collection::vec(one, 0..6).prop_map(|all| {
        let mut seen = std::collections::BTreeSet::new();
        all.into_iter()
            .filter(|(id, ..)| seen.insert(*id))
            .map(|(id, max, near, used, free)| Candidate {
                domain: domain(if near { "east" } else { "west" }),
                last_used: (used > 0).then_some(Epoch {
                    term: 0,
                    number: used,
                }),
                unavailable: (!free).then(|| "is busy".to_owned()),
                ..candidate(&format!("s{id}"), max)
            })
            .collect()
    })
}

proptest! {
    #[test]
    fn a5_the_choice_is_available_and_nobody_matches_closer(all in candidates(), cameras in 0u32..9) {
        let selection = select(cameras, &domain("east"), &all);
        let free: Vec<&Candidate> = all.iter().filter(|each| each.unavailable.is_none()).collect();
        prop_assert_eq!(selection.chosen.is_some(), !free.is_empty());
        prop_assert_eq!(selection.considered.len(), all.len());
        if let Some(chosen) = free.iter().find(|each| Some(&each.server) == selection.chosen.as_ref()) {
            for other in &free {
                let better = other.max_cameras >= cameras
                    && (chosen.max_cameras < cameras || other.max_cameras < chosen.max_cameras);
                let larger = chosen.max_cameras < cameras && other.max_cameras > chosen.max_cameras;
                prop_assert!(!better && !larger, "{:?} is better than {:?}", other, chosen);
            }
        }
    }

    #[test]
    fn a5_the_order_of_the_candidates_does_not_matter(all in candidates(), cameras in 0u32..9, by in 0usize..6) {
        let mut turned = all.clone();
        if !turned.is_empty() {
            let by = by % turned.len();
            turned.rotate_left(by);
        }
        prop_assert_eq!(select(cameras, &domain("east"), &all), select(cameras, &domain("east"), &turned));
    }
}
