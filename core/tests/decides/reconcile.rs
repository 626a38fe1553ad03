//! A server's way to its assignment.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use proptest::prelude::*;
use understudy_core::{
    assignment::{Assignment, Epoch, Films, Role},
    contract::heartbeat::{CameraStatus, ServerReport},
    ids::{DomainId, FailoverId, Incarnation, ServerId},
    policy::Range,
    reconcile::{Effect, Input, Persisted, Reconciler},
    settings::Bundle,
    time::{Moment, Monotonic},
};

use crate::rig::{camera, server_id};

fn at(millis: u64) -> Moment {
    Moment {
        monotonic: Monotonic(Duration::from_millis(millis)),
        ..Moment::default()
    }
}

fn failover(n: u32) -> FailoverId {
    FailoverId::new(format!("f{n}")).expect("an id")
}

fn me() -> ServerId {
    server_id("failover-1")
}

fn bundle(identity: &str) -> Bundle {
    Bundle {
        identity: server_id(identity),
        name: identity.to_owned(),
        cameras: (1..=2).map(|n| camera(identity, n)).collect(),
    }
}

fn assignment(number: u64, role: Role) -> Assignment {
    Assignment {
        server: me(),
        epoch: Epoch { term: 0, number },
        role,
        erase: BTreeSet::new(),
        erase_up_to: Default::default(),
    }
}

fn films(identity: &str, n: u32) -> Role {
    Role::Films(Films {
        identity: server_id(identity),
        settings: bundle(identity).hash(),
        range: Range::Full,
        disabled: BTreeSet::new(),
        failover: Some(failover(n)),
        restore: None,
        keep: BTreeSet::new(),
    })
}

fn started(persisted: Option<Assignment>, held: &[u32]) -> (Reconciler, Vec<Effect>) {
    let held = held.iter().map(|n| failover(*n)).collect();
    let persisted = Persisted {
        assignment: persisted,
        outlived: None,
    };
    Reconciler::start(me(), persisted, [bundle("recorder-1")], held, at(0))
}

fn report(reconciler: &Reconciler) -> ServerReport {
    let domain = DomainId::new("east").expect("an id");
    reconciler.report(domain, Incarnation::new("one").expect("an id"), 1, None)
}

fn names(effects: &[Effect]) -> Vec<String> {
    let name = |effect: &Effect| {
        let words = format!("{effect:?}");
        words.split(['(', ' ']).next().unwrap_or_default().to_owned()
    };
    effects.iter().map(name).collect()
}

#[test]
fn an_assignment_is_on_disk_before_anything_is_done_about_it() {
    let (mut server, _) = started(None, &[]);
    let effects = server.step(Input::Heard(assignment(2, films("recorder-1", 1))), at(1));
    assert_eq!(names(&effects), ["Persist", "Film", "Report"]);
    assert_eq!(report(&server).open, BTreeSet::from([failover(1)]));
}

#[test]
fn a_restarted_server_films_before_it_hears_anything() {
    let (server, effects) = started(Some(assignment(2, films("recorder-1", 1))), &[1]);
    assert_eq!(names(&effects), ["Film"]);
    assert_eq!(report(&server).identity, Some(server_id("recorder-1")));
    assert_eq!(report(&server).closed, BTreeSet::new(), "it adds to what it has");
}

#[test]
fn older_and_repeated_assignments_change_nothing() {
    let (mut server, _) = started(None, &[]);
    let newest = assignment(5, films("recorder-1", 1));
    server.step(Input::Heard(newest.clone()), at(1));
    let repeated = server.step(Input::Heard(newest.clone()), at(2));
    assert_eq!(names(&repeated), ["Report"], "the host may have missed it");
    let older = server.step(Input::Heard(assignment(4, Role::Standby)), at(3));
    assert_eq!(names(&older), ["Report"]);
    let other = Assignment {
        server: server_id("somebody-else"),
        ..assignment(9, Role::Standby)
    };
    assert!(server.step(Input::Heard(other), at(4)).is_empty());
    assert_eq!(server.assignment(), Some(&newest));
}

#[test]
fn the_same_epoch_with_other_contents_is_refused_and_raised() {
    let (mut server, _) = started(None, &[]);
    server.step(Input::Heard(assignment(5, films("recorder-1", 1))), at(1));
    let effects = server.step(Input::Heard(assignment(5, Role::Standby)), at(2));
    assert_eq!(names(&effects), ["Conflict", "Report"]);
    assert_eq!(report(&server).conflict, Some(Epoch { term: 0, number: 5 }));
    assert!(server.filming().is_some());
    server.step(Input::Heard(assignment(6, Role::Standby)), at(3));
    assert_eq!(report(&server).conflict, None);
}

#[test]
fn a_missing_bundle_is_fetched_and_asked_for_again() {
    let (mut server, _) = started(None, &[]);
    server.step(Input::Heard(assignment(1, films("recorder-1", 1))), at(0));
    let effects = server.step(Input::Heard(assignment(2, films("recorder-2", 2))), at(0));
    assert_eq!(
        names(&effects),
        ["Persist", "StopFilming", "CloseSegments", "FetchBundle", "Report"],
        "another identity: it stops first"
    );
    server.step(Input::Closed(failover(1)), at(10));
    assert!(!names(&server.step(Input::Tick, at(1900))).contains(&"FetchBundle".to_owned()));
    assert!(names(&server.step(Input::Tick, at(2000))).contains(&"FetchBundle".to_owned()));
    let effects = server.step(Input::BundleStored(bundle("recorder-2")), at(2100));
    assert_eq!(names(&effects), ["Film", "Report"]);
}

#[test]
fn new_settings_of_the_same_identity_are_waited_for_while_it_films_on() {
    let (mut server, _) = started(None, &[]);
    server.step(Input::Heard(assignment(1, films("recorder-1", 1))), at(0));
    let camera_one = camera("recorder-1", 1).id;
    server.step(Input::Camera(camera_one.clone(), CameraStatus::Recording), at(1));
    let mut changed = bundle("recorder-1");
    changed.cameras.push(camera("recorder-1", 3));
    let Role::Films(mut role) = films("recorder-1", 1) else {
        unreachable!()
    };
    role.settings = changed.hash();
    let effects = server.step(Input::Heard(assignment(2, Role::Films(role))), at(2));
    assert_eq!(names(&effects), ["Persist", "FetchBundle", "Report"]);
    assert!(server.filming().is_some());
    server.step(Input::BundleStored(changed), at(3));
    let statuses = report(&server).cameras;
    assert_eq!(
        statuses[&camera_one],
        CameraStatus::Recording,
        "it is not begun again"
    );
    assert_eq!(statuses.len(), 3);
}

#[test]
fn recordings_are_closed_when_it_hands_back_and_erased_only_when_named() {
    let (mut server, _) = started(None, &[7]);
    server.step(Input::Heard(assignment(1, films("recorder-1", 1))), at(0));
    let hands_back = Role::HandsBack {
        failover: failover(1),
    };
    let effects = server.step(Input::Heard(assignment(2, hands_back)), at(1));
    assert_eq!(
        names(&effects),
        ["Persist", "StopFilming", "CloseSegments", "Report"]
    );
    assert_eq!(
        report(&server).open,
        BTreeSet::from([failover(1)]),
        "not closed yet"
    );
    let named = Assignment {
        erase: BTreeSet::from([failover(1)]),
        ..assignment(3, Role::Standby)
    };
    let effects = server.step(Input::Heard(named), at(2));
    assert_eq!(names(&effects), ["Persist", "Report"], "not before it is closed");
    let effects = server.step(Input::Closed(failover(1)), at(3));
    assert_eq!(names(&effects), ["Erase", "Report"]);
    assert!(
        !names(&server.step(Input::Tick, at(4))).contains(&"Erase".to_owned()),
        "once"
    );
    server.step(Input::Erased(failover(1)), at(5));
    assert_eq!(
        report(&server).closed,
        BTreeSet::from([failover(7)]),
        "nobody named that one"
    );
}

#[test]
fn one_that_lost_its_assignment_takes_none_of_long_ago() {
    // Given a server whose assignment can't be read any more, and was newer than 7.
    let persisted = Persisted {
        assignment: None,
        outlived: Some(Epoch { term: 0, number: 7 }),
    };
    let held = [failover(2)].into();
    let (mut server, _) = Reconciler::start(me(), persisted, [bundle("recorder-1")], held, at(0));
    assert_eq!(report(&server).outlived, Some(Epoch { term: 0, number: 7 }));
    // When it hears something older, then it films for nobody, and says again how it is.
    let effects = server.step(Input::Heard(assignment(6, films("recorder-1", 1))), at(1));
    assert_eq!(effects, [Effect::Report]);
    assert_eq!(server.assignment(), None);
    // What is newer it takes.
    server.step(Input::Heard(assignment(8, films("recorder-1", 2))), at(2));
    assert!(server.filming().is_some());
    assert_eq!(report(&server).outlived, None);
}

#[test]
fn an_erasing_that_was_interrupted_is_done_at_the_next_start() {
    let named = Assignment {
        erase: BTreeSet::from([failover(1)]),
        ..assignment(3, Role::Standby)
    };
    let (_, effects) = started(Some(named.clone()), &[1]);
    assert_eq!(names(&effects), ["Erase"]);
    let films_on = Assignment {
        role: films("recorder-1", 1),
        ..named
    };
    let (_, effects) = started(Some(films_on), &[1]);
    assert_eq!(names(&effects), ["Film"], "never while it films for it");
}

#[test]
fn old_bundles_are_forgotten_but_not_the_one_that_is_assigned() {
    let (mut server, _) = started(None, &[]);
    server.step(Input::Heard(assignment(1, films("recorder-1", 1))), at(0));
    for n in 3..9 {
        let mut newer = bundle("recorder-1");
        newer.cameras.push(camera("recorder-1", n));
        server.step(Input::BundleStored(newer), at(1));
    }
    assert_eq!(server.forget_old_bundles().len(), 3);
    assert!(server.bundles().contains(&bundle("recorder-1").hash()));
    assert!(server.forget_old_bundles().is_empty());
}

#[derive(Clone, Debug)]
enum Step {
    Hear(u32, u64, u8),
    Crash,
    CrashBeforePersisting(u32, u64, u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let heard = (0u32..2, 0u64..6, 0u8..3);
    let step = prop_oneof![
        4 => heard.clone().prop_map(|(term, number, role)| Step::Hear(term, number, role)),
        1 => Just(Step::Crash),
        1 => heard.prop_map(|(term, number, role)| Step::CrashBeforePersisting(term, number, role)),
    ];
    proptest::collection::vec(step, 0..40)
}

fn heard(term: u32, number: u64, role: u8) -> Assignment {
    let role = match role {
        0 => Role::Standby,
        1 => films("recorder-1", 1),
        _ => Role::HandsBack {
            failover: failover(1),
        },
    };
    Assignment {
        epoch: Epoch { term, number },
        ..assignment(0, role)
    }
}

proptest! {
    /// Invariant 5, whatever comes in whatever order, and whenever it dies.
    #[test]
    fn epochs_never_go_back(steps in steps()) {
        let mut disk: Option<Assignment> = None;
        let (mut server, _) = started(None, &[]);
        let mut reached = Epoch::default();
        let mut contents: BTreeMap<Epoch, Assignment> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Hear(term, number, role) => {
                    for effect in server.step(Input::Heard(heard(term, number, role)), at(0)) {
                        match effect {
                            Effect::Persist(assignment) => disk = Some(assignment),
                            Effect::Film(_) => prop_assert!(disk.is_some()),
                            _ => {}
                        }
                    }
                }
                Step::CrashBeforePersisting(term, number, role) => {
                    server.step(Input::Heard(heard(term, number, role)), at(0));
                    server = started(disk.clone(), &[]).0;
                }
                Step::Crash => server = started(disk.clone(), &[]).0,
            }
            if let Some(current) = server.assignment() {
                prop_assert!(current.epoch >= reached);
                reached = current.epoch;
                let first = contents.entry(current.epoch).or_insert_with(|| current.clone());
                prop_assert_eq!(&*first, current, "one epoch, one content");
            }
        }
    }
}

fn films_as(identity: &str, n: Option<u32>, cameras_of: &str, keep: &[u32]) -> (Role, Bundle) {
    let bundle = Bundle {
        identity: server_id(identity),
        ..bundle(cameras_of)
    };
    let Role::Films(films) = films("recorder-1", 1) else {
        unreachable!("it films")
    };
    let films = Films {
        identity: server_id(identity),
        settings: bundle.hash(),
        failover: n.map(failover),
        keep: keep.iter().map(|n| failover(*n)).collect(),
        ..films
    };
    (Role::Films(films), bundle)
}

#[test]
fn h1_h3_a_failover_server_that_takes_the_place_films_on_and_makes_what_it_has_its_own() {
    // Given a failover server that films,
    let (mut reconciler, _) = started(Some(assignment(5, films("recorder-1", 1))), &[]);
    let camera = bundle("recorder-1").cameras[0].id.clone();
    reconciler.step(Input::Camera(camera.clone(), CameraStatus::Recording), at(10));
    // when it becomes the recording server, and its new settings are not here yet,
    let (role, settings) = films_as("failover-1", None, "recorder-1", &[1]);
    let effects = reconciler.step(Input::Heard(assignment(6, role)), at(20));
    // then it films on by the old ones, and bears neither identity;
    assert!(!effects.contains(&Effect::StopFilming), "{effects:?}");
    assert_eq!(report(&reconciler).identity, None);
    assert!(report(&reconciler).open.contains(&failover(1)));
    // once they are, no camera begins anew, and what it recorded is closed and kept.
    let effects = reconciler.step(Input::BundleStored(settings), at(30));
    assert!(!effects.contains(&Effect::StopFilming), "{effects:?}");
    assert!(
        matches!(&effects[0], Effect::Film(film) if film.failover.is_none()),
        "{effects:?}"
    );
    assert_eq!(effects[1], Effect::CloseSegments(failover(1)));
    let now = report(&reconciler);
    assert_eq!(now.identity, Some(me()));
    assert_eq!(now.cameras.get(&camera), Some(&CameraStatus::Recording));
    assert!(now.open.contains(&failover(1)));
    let effects = reconciler.step(Input::Closed(failover(1)), at(40));
    assert!(effects.contains(&Effect::Keep(failover(1))), "{effects:?}");
    assert!(report(&reconciler).closed.contains(&failover(1)));
    assert_eq!(reconciler.step(Input::Tick, at(50)), [], "once");
    reconciler.step(Input::Kept(failover(1)), at(60));
    let now = report(&reconciler);
    assert!(now.open.is_empty() && now.closed.is_empty());
}

#[test]
fn h1_h3_what_it_has_is_kept_after_a_restart_too() {
    let (role, settings) = films_as("failover-1", None, "recorder-1", &[1]);
    let persisted = Persisted {
        assignment: Some(assignment(6, role)),
        outlived: None,
    };
    let held = [failover(1), failover(2)].into();
    let (_, effects) = Reconciler::start(me(), persisted, [settings], held, at(0));
    assert!(effects.contains(&Effect::Keep(failover(1))));
    assert!(
        !effects.contains(&Effect::Keep(failover(2))),
        "nobody spoke of that"
    );
}

#[test]
fn h1_a_failover_server_films_on_for_the_server_that_takes_the_place() {
    let (mut reconciler, _) = started(Some(assignment(5, films("recorder-1", 1))), &[]);
    let (role, settings) = films_as("recorder-9", Some(1), "recorder-1", &[]);
    reconciler.step(Input::BundleStored(settings), at(10));
    let effects = reconciler.step(Input::Heard(assignment(6, role)), at(20));
    let stops = |effect: &Effect| matches!(effect, Effect::StopFilming | Effect::CloseSegments(_));
    assert!(!effects.iter().any(stops), "{effects:?}");
    assert_eq!(report(&reconciler).identity, Some(server_id("recorder-9")));
}

#[test]
fn what_was_filmed_after_it_was_said_to_have_arrived_is_spared_and_shown_until_told_otherwise() {
    // Given recordings that are to be erased up to a beginning,
    let (mut server, _) = started(None, &[1]);
    let up_to = |number: u64, bound: Option<u64>| Assignment {
        erase: [failover(1)].into(),
        erase_up_to: bound.map(|bound| (failover(1), bound)).into_iter().collect(),
        ..assignment(number, Role::Standby)
    };
    let effects = server.step(Input::Heard(up_to(1, Some(3))), at(0));
    assert!(effects.contains(&Effect::Erase {
        failover: failover(1),
        up_to: Some(3)
    }));
    // when there are newer ones, they stay, and it says so, once and for all.
    let spared = Input::Spared {
        failover: failover(1),
        up_to: 3,
    };
    assert_eq!(names(&server.step(spared, at(1))), ["Report"]);
    assert_eq!(report(&server).spared, BTreeSet::from([failover(1)]));
    assert_eq!(report(&server).closed, BTreeSet::from([failover(1)]));
    assert!(!names(&server.step(Input::Tick, at(2))).contains(&"Erase".to_owned()));
    // Once they have arrived, too, or a person drops them, it is asked again.
    for (number, bound) in [(2, Some(4)), (3, None)] {
        let effects = server.step(Input::Heard(up_to(number, bound)), at(3));
        assert!(effects.contains(&Effect::Erase {
            failover: failover(1),
            up_to: bound
        }));
        assert_eq!(report(&server).spared, BTreeSet::new());
        server.step(
            Input::Spared {
                failover: failover(1),
                up_to: 4,
            },
            at(4),
        );
    }
    server.step(Input::Tick, at(5));
    server.step(Input::Erased(failover(1)), at(6));
    assert_eq!(report(&server).closed, BTreeSet::new());
}
