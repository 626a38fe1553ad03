//! One failover after another, from the fault to standby.

use std::time::Duration;

use understudy_core::{
    assignment::{Epoch, Role},
    contract::{
        api::{Phase, ReasonKind, ServerState, StartMode},
        event::Event,
        heartbeat::{CameraFault, CameraStatus, Ending, Farewell, PackageState, Started, StorageState},
        rpc::{LicenseRequest, OrchestratorReply as Reply, OrchestratorRequest as Request},
    },
    fleet::Input,
    ids::FailoverId,
    policy::{Failback, Policy},
};

use crate::rig::{Rig, automatic, server_id};

const SECOND: Duration = Duration::from_secs(1);

fn films_for_failover(role: &Role) -> bool {
    matches!(role, Role::Films(films) if films.failover.is_some())
}

#[test]
fn c2_a_server_that_is_not_heard_for_its_duration_is_failed_over() {
    let mut rig = Rig::new(automatic(), &[("failover-1", 3), ("failover-2", 9)]);
    rig.silence("recorder-1");
    rig.pass(Duration::from_millis(900));
    assert!(rig.sent.is_empty(), "too early");
    rig.pass(Duration::from_millis(300));
    let Role::Films(films) = rig.role("failover-1") else {
        panic!("the closest match takes over: {:?}", rig.role("failover-1"));
    };
    assert_eq!(films.identity, server_id("recorder-1"));
    assert_eq!(rig.role("recorder-1"), Role::Standby);
    assert_eq!(rig.role("failover-2"), Role::Standby);
    let failover = rig.newest();
    assert_eq!(failover.reason.kind, ReasonKind::Disconnection);
    assert!(!failover.reason.evidence.is_empty(), "C7");
    assert!(
        (1000..1300).contains(&failover.detection_ms),
        "{}",
        failover.detection_ms
    );
    assert!(matches!(rig.ledger[0], LicenseRequest::Transfer { .. }));
}

#[test]
fn c2_a_server_that_was_never_heard_is_not_missed() {
    let mut rig = Rig::empty();
    let ready = Rig::new(automatic(), &[("failover-1", 3)]);
    rig.records = ready.records.clone();
    rig.records
        .retain(|key, _| key.kind != "heard" || key.id != "recorder-1");
    rig.restart();
    rig.silence("recorder-1");
    rig.pass(10 * SECOND);
    assert_eq!(rig.fleet.failovers().count(), 0);
}

#[test]
fn c1_nothing_starts_by_itself_when_it_is_switched_off() {
    let mut rig = Rig::new(Policy::default(), &[("failover-1", 3)]);
    rig.silence("recorder-1");
    rig.pass(20 * SECOND);
    assert_eq!(rig.fleet.failovers().count(), 0);
}

#[test]
fn a_blind_host_and_a_silent_monitor_fail_nothing_over() {
    let mut rig = Rig::new(automatic(), &[("failover-1", 3)]);
    rig.silence("recorder-1");
    for _ in 0..50 {
        rig.now += Duration::from_millis(100);
        let mut blind = rig.observation(&server_id("recorder-1"));
        blind.blind = true;
        rig.observe(blind);
    }
    // And then the monitor says nothing more at all.
    for _ in 0..100 {
        rig.now += Duration::from_millis(100);
        let fresh = FailoverId::new("never").expect("an id");
        rig.step(Input::Tick { fresh });
    }
    assert_eq!(rig.fleet.failovers().count(), 0);
}

#[test]
fn c3_c4_storage_and_package_are_reasons_when_they_are_switched_on() {
    let policy = Policy {
        on_disconnection: false,
        on_storage: true,
        on_package: true,
        ..automatic()
    };
    let mut rig = Rig::new(policy, &[("failover-1", 3), ("failover-2", 3)]);
    let mut sick = rig.observation(&server_id("recorder-1"));
    sick.storage.state = StorageState::Degraded;
    rig.observe(sick);
    assert_eq!(rig.newest().reason.kind, ReasonKind::Storage);
    assert!(
        matches!(rig.role("recorder-1"), Role::Films(_)),
        "it films until the other does"
    );
    rig.obeys("failover-1");
    assert_eq!(rig.role("recorder-1"), Role::Standby);

    for _ in 0..13 {
        let mut sick = rig.observation(&server_id("recorder-2"));
        sick.package.state = PackageState::Crashed;
        rig.observe(sick);
        rig.now += Duration::from_millis(100);
    }
    assert_eq!(rig.newest().reason.kind, ReasonKind::Package);
}

#[test]
fn e12_the_surplus_is_disabled_and_named() {
    let mut rig = Rig::new(automatic(), &[("failover-1", 2)]);
    rig.silence("recorder-1");
    rig.pass(2 * SECOND);
    let Role::Films(films) = rig.role("failover-1") else {
        panic!("it takes over")
    };
    let names: Vec<String> = films.disabled.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["recorder-1-cam-3"]);
    let started = rig.events.iter().find_map(|event| match event {
        Event::FailoverStarted { disabled, .. } => Some(disabled.len()),
        _ => None,
    });
    assert_eq!(started, Some(1));
    rig.obeys("failover-1");
    assert_eq!(rig.phase(), Phase::Serving, "a disabled camera is not waited for");
}

#[test]
fn a_camera_that_can_not_be_filmed_has_a_reason_and_does_not_hold_up_the_rest() {
    let mut rig = Rig::new(automatic(), &[("failover-1", 3)]);
    rig.silence("recorder-1");
    rig.pass(2 * SECOND);
    let mut report = rig.obedient("failover-1");
    let third = report.cameras.keys().last().expect("three").clone();
    report.cameras.insert(third.clone(), CameraStatus::Connecting);
    rig.step(Input::Reported(report.clone()));
    assert_eq!(rig.phase(), Phase::TakingOver);
    report.sequence += 1;
    let lost = CameraStatus::Lost {
        fault: CameraFault::Unauthorized,
        detail: "401".to_owned(),
    };
    report.cameras.insert(third, lost);
    rig.step(Input::Reported(report));
    assert_eq!(rig.phase(), Phase::Serving);
    assert!(rig.event_names().contains(&"camera.lost"));
}

#[test]
fn a3_a_failover_waits_for_a_free_server_and_starts_when_there_is_one() {
    let mut rig = Rig::new(automatic(), &[("failover-1", 3)]);
    rig.silence("recorder-1");
    rig.pass(2 * SECOND);
    rig.obeys("failover-1");
    rig.silence("recorder-2");
    rig.pass(2 * SECOND);
    let waiting = rig.newest();
    assert_eq!(waiting.phase, Phase::Selecting);
    assert!(
        waiting.waits_for.contains("failover-1 serves recorder-1"),
        "{}",
        waiting.waits_for
    );
    assert_eq!(
        rig.event_names()
            .iter()
            .filter(|name| **name == "failover.waiting")
            .count(),
        1
    );

    // The first one ends, and nothing of it is left.
    rig.wake("recorder-1");
    rig.pass(2 * SECOND);
    rig.obeys("recorder-1");
    rig.obeys("failover-1");
    rig.obeys("recorder-1");
    let epoch = rig.assignment("recorder-1").epoch;
    let first = rig
        .fleet
        .failovers()
        .find(|each| each.server == server_id("recorder-1"));
    let first = first.expect("it began").id.clone();
    rig.step(Input::Restoration(
        understudy_core::contract::heartbeat::RestorationReport {
            server: server_id("recorder-1"),
            domain: understudy_core::ids::DomainId::new("east").expect("an id"),
            failover: first,
            epoch,
            progress: Default::default(),
            complete: true,
            damaged: Vec::new(),
            source: None,
            begun: None,
            waiting: String::new(),
        },
    ));
    assert_eq!(
        rig.newest().phase,
        Phase::Selecting,
        "its copies are not erased yet"
    );
    rig.obeys("failover-1");
    rig.pass(SECOND);
    assert_eq!(rig.newest().phase, Phase::TakingOver);
}

#[test]
fn a_failover_that_waits_is_called_off_when_its_reason_clears() {
    let mut rig = Rig::new(automatic(), &[("failover-1", 3)]);
    rig.silence("failover-1");
    rig.silence("recorder-1");
    rig.pass(3 * SECOND);
    assert_eq!(rig.phase(), Phase::Selecting);
    rig.wake("recorder-1");
    rig.pass(3 * SECOND);
    assert_eq!(rig.phase(), Phase::Aborted);
    assert!(matches!(rig.role("recorder-1"), Role::Films(_)));
}

#[test]
fn g1_c5_the_original_films_first_then_the_stand_in_stops_and_then_it_is_fetched() {
    let mut rig = Rig::serving(automatic());
    rig.forget();
    rig.wake("recorder-1");
    rig.pass(Duration::from_millis(1500));
    assert!(matches!(rig.role("recorder-1"), Role::Films(_)));
    assert!(
        films_for_failover(&rig.role("failover-1")),
        "it films on meanwhile"
    );
    assert!(rig.newest().reason_cleared, "F4");
    rig.obeys("recorder-1");
    assert!(matches!(rig.role("failover-1"), Role::HandsBack { .. }));
    assert!(rig.event_names().contains(&"failover.restoring"));
    let Role::Films(films) = rig.role("recorder-1") else {
        panic!("it films")
    };
    assert_eq!(
        films.restore, None,
        "nothing is complete before the source has closed"
    );
    rig.obeys("failover-1");
    let Role::Films(films) = rig.role("recorder-1") else {
        panic!("it films")
    };
    let restore = films.restore.expect("now it fetches");
    assert_eq!(restore.address, "http://failover-1.test:9000");

    let epoch = rig.assignment("recorder-1").epoch;
    let older = Epoch {
        number: epoch.number - 1,
        ..epoch
    };
    rig.restoration(older, 10, true);
    assert_eq!(
        rig.phase(),
        Phase::Restoring,
        "that spoke of what was asked before"
    );
    rig.restoration(epoch, 4, false);
    assert_eq!(rig.newest().progress.bytes_done, 400);
    rig.restoration(epoch, 10, true);
    assert_eq!(rig.phase(), Phase::Completed);
    let stand_in = rig.assignment("failover-1");
    assert_eq!(stand_in.role, Role::Standby);
    assert!(stand_in.erase.contains(&rig.newest().id));
    let Role::Films(films) = rig.role("recorder-1") else {
        panic!("it films")
    };
    assert_eq!(films.restore, None);
}

#[test]
fn g4_a_stand_in_is_free_only_when_it_says_that_it_has_erased() {
    let mut rig = Rig::restoring();
    let epoch = rig.assignment("recorder-1").epoch;
    rig.restoration(epoch, 10, true);
    let mut report = rig.obedient("failover-1");
    report.closed.insert(rig.newest().id);
    rig.step(Input::Reported(report));
    let view = |rig: &mut Rig| match rig.ok(Request::ListServers) {
        Reply::Servers(views) => views
            .into_iter()
            .find(|view| view.server.id == server_id("failover-1")),
        _ => None,
    };
    assert_eq!(
        view(&mut rig).map(|view| view.state),
        Some(ServerState::Restoring)
    );
    rig.obeys("failover-1");
    assert_eq!(view(&mut rig).map(|view| view.state), Some(ServerState::Standby));
}

#[test]
fn g2_what_could_not_be_handed_back_is_counted_beyond_the_names_that_are_kept() {
    let mut rig = Rig::restoring();
    let epoch = rig.assignment("recorder-1").epoch;
    let damaged = (0..1500).map(|number| understudy_core::contract::heartbeat::DamagedSegment {
        path: format!("cam/{number}.mp4"),
        camera: understudy_core::ids::CameraId::new("cam").expect("an id"),
        start: understudy_core::time::Timestamp(0),
        end: understudy_core::time::Timestamp(60_000),
        reason: "its disk".to_owned(),
    });
    let damaged: Vec<_> = damaged.collect();
    // Said again and again, as reports are.
    for complete in [false, false, true] {
        rig.restoration_without(epoch, 10, complete, damaged.clone());
    }
    rig.obeys("failover-1");
    let failover = rig.newest();
    assert_eq!(failover.phase, Phase::Completed);
    assert_eq!((failover.damaged.len(), failover.damaged_count), (1000, 1500));
    let last = failover.steps.last().expect("steps");
    assert!(last.what.contains("1500 segment(s)"), "{last:?}");
}

#[test]
fn g2_remove_hands_nothing_back_and_erases() {
    let mut rig = Rig::serving(Policy {
        failback: Failback::Remove,
        ..automatic()
    });
    rig.wake("recorder-1");
    rig.pass(2 * SECOND);
    rig.obeys("recorder-1");
    assert_eq!(rig.phase(), Phase::Completed);
    let stand_in = rig.assignment("failover-1");
    assert_eq!((stand_in.role, stand_in.erase.len()), (Role::Standby, 1));
}

#[test]
fn g5_stopping_the_restoration_says_what_is_lost_and_erases() {
    let mut rig = Rig::restoring();
    let epoch = rig.assignment("recorder-1").epoch;
    rig.restoration(epoch, 4, false);
    let failover = rig.newest().id;
    let stop = Request::StopRestoration {
        failover,
        by: "anna".to_owned(),
    };
    // Asked once, it says what it would lose, and goes on. What arrives meanwhile makes the word no worse.
    let warned = rig.refused(stop.clone());
    assert!(
        warned.detail.contains("600 B in 6 segment(s)"),
        "{}",
        warned.detail
    );
    assert_eq!(rig.phase(), Phase::Restoring);
    rig.restoration(epoch, 5, false);
    rig.ok(Request::Confirmed {
        confirmation: warned.confirmation.expect("a token"),
        request: Box::new(stop),
    });
    assert_eq!(rig.phase(), Phase::Completed);
    let steps = rig.newest().steps;
    assert!(
        steps
            .iter()
            .any(|step| step.what.contains("is lost (500 B in 5 segment(s))")),
        "{steps:?}"
    );
    assert_eq!(rig.assignment("failover-1").erase.len(), 1);
}

#[test]
fn g5_what_nobody_has_a_list_of_is_not_called_nothing() {
    let mut rig = Rig::restoring();
    let failover = rig.newest();
    assert_eq!(failover.unread, [server_id("failover-1")]);
    assert_eq!(failover.progress.segments_total, 0);
    rig.confirm(Request::StopRestoration {
        failover: failover.id,
        by: "anna".to_owned(),
    });
    let steps = rig.newest().steps;
    let said = "everything that failover-1 recorded is lost; how much is unknown";
    assert!(steps.iter().any(|step| step.what.contains(said)), "{steps:?}");
    assert!(rig.newest().unread.is_empty(), "nothing is owed any more");
}

#[test]
fn g5_of_what_is_listed_the_rest_is_known() {
    let mut rig = Rig::restoring();
    let epoch = rig.assignment("recorder-1").epoch;
    rig.restoration(epoch, 0, false);
    assert!(rig.newest().unread.is_empty());
}

#[test]
fn g3_the_same_recording_server_failing_again_gets_the_same_stand_in() {
    let mut rig = Rig::restoring();
    rig.silence("recorder-1");
    rig.pass(2 * SECOND);
    let failover = rig.newest();
    assert_eq!(rig.fleet.failovers().count(), 1, "the same failover");
    assert_eq!(failover.phase, Phase::TakingOver);
    assert_eq!(failover.stand_in, Some(server_id("failover-1")));
    assert!(rig.assignment("failover-1").erase.is_empty());
    rig.obeys("failover-1");
    rig.wake("recorder-1");
    rig.pass(2 * SECOND);
    assert_eq!(
        rig.phase(),
        Phase::Serving,
        "its second fault: it has to stay well for longer"
    );
    rig.pass(6 * SECOND);
    rig.obeys("recorder-1");
    rig.obeys("failover-1");
    let epoch = rig.assignment("recorder-1").epoch;
    rig.restoration(epoch, 10, true);
    assert_eq!(rig.phase(), Phase::Completed);
}

#[test]
fn a_server_that_comes_back_in_the_middle_of_a_takeover_stands_by() {
    let mut rig = Rig::new(automatic(), &[("failover-1", 3)]);
    rig.silence("recorder-1");
    rig.pass(Duration::from_millis(1300));
    assert_eq!(rig.phase(), Phase::TakingOver);
    let mut report = rig.obedient("failover-1");
    let last = report.cameras.keys().last().expect("three").clone();
    report.cameras.insert(last, CameraStatus::Connecting);
    rig.step(Input::Reported(report));
    rig.wake("recorder-1");
    rig.pass(3 * SECOND);
    assert_eq!(rig.phase(), Phase::TakingOver, "the takeover goes on");
    assert_eq!(rig.role("recorder-1"), Role::Standby);
    rig.obeys("failover-1");
    rig.obeys("recorder-1");
    assert!(rig.newest().reason_cleared, "and ends by itself once it serves");
}

#[test]
fn c5_a_takeover_in_which_nobody_films_yet_ends_when_the_original_is_well() {
    let mut rig = Rig::new(automatic(), &[("failover-1", 3)]);
    rig.silence("recorder-1");
    rig.pass(Duration::from_millis(1300));
    assert_eq!(rig.phase(), Phase::TakingOver);
    rig.wake("recorder-1");
    rig.pass(2 * SECOND);
    assert!(matches!(rig.role("recorder-1"), Role::Films(_)));
    rig.obeys("recorder-1");
    assert_eq!(rig.phase(), Phase::Restoring);
    assert!(matches!(rig.role("failover-1"), Role::HandsBack { .. }));
}

#[test]
fn a5_a_stand_in_that_the_broker_does_not_reach_is_not_chosen() {
    let mut rig = Rig::new(automatic(), &[("failover-1", 3), ("failover-2", 9)]);
    rig.off_broker("failover-1", true);
    rig.silence("recorder-1");
    rig.pass(2 * SECOND);
    assert!(
        films_for_failover(&rig.role("failover-2")),
        "the closest match would never hear of it"
    );
    let why = rig.newest().selection;
    assert!(
        why.iter().any(|each| each.why.contains("not through the broker")),
        "{why:?}"
    );

    // Whoever serves already goes on: it films, whatever became of its line to the broker.
    rig.obeys("failover-2");
    rig.off_broker("failover-2", true);
    rig.off_broker("failover-1", false);
    rig.pass(20 * SECOND);
    assert_eq!(rig.newest().stand_in, Some(server_id("failover-2")));
    assert_eq!(rig.phase(), Phase::Serving);
}

#[test]
fn a_stand_in_that_does_not_take_its_assignment_is_replaced_by_one_that_is_free() {
    let mut rig = Rig::new(automatic(), &[("failover-1", 3), ("failover-2", 9)]);
    rig.silence("recorder-1");
    rig.pass(Duration::from_millis(1300));
    assert!(films_for_failover(&rig.role("failover-1")));
    rig.pass(4 * SECOND);
    assert!(films_for_failover(&rig.role("failover-1")), "it has five seconds");
    rig.pass(2 * SECOND);
    assert!(films_for_failover(&rig.role("failover-2")));
    assert!(
        matches!(rig.role("failover-1"), Role::HandsBack { .. }),
        "what it may have recorded is owed"
    );
    let steps = rig.newest().steps;
    assert!(
        steps
            .iter()
            .any(|step| step.what.contains("does not take its assignment")),
        "{steps:?}"
    );
    // Both are slow: each is given more time than the one before.
    rig.pass(6 * SECOND);
    assert!(films_for_failover(&rig.role("failover-2")));
    rig.pass(5 * SECOND);
    assert!(films_for_failover(&rig.role("failover-1")));
    rig.obeys("failover-1");
    assert_eq!(rig.phase(), Phase::Serving);
    rig.pass(30 * SECOND);
    assert_eq!(rig.newest().stand_in, Some(server_id("failover-1")));
}

#[test]
fn a_host_that_has_just_started_waits_for_the_next_report_before_it_replaces_anybody() {
    let mut rig = Rig::new(automatic(), &[("failover-1", 3), ("failover-2", 9)]);
    rig.silence("recorder-1");
    rig.pass(Duration::from_millis(1300));
    rig.restart();
    rig.pass(11 * SECOND);
    assert!(films_for_failover(&rig.role("failover-1")));
    rig.obeys("failover-1");
    assert_eq!(rig.phase(), Phase::Serving);
}

#[test]
fn with_nobody_to_stand_in_the_original_films_if_it_can() {
    let policy = Policy {
        stop_automatically: false,
        ..automatic()
    };
    let mut rig = Rig::serving(policy);
    rig.wake("recorder-1");
    rig.pass(2 * SECOND);
    assert_eq!(
        rig.role("recorder-1"),
        Role::Standby,
        "C5 is switched off, and failover-1 films"
    );
    rig.silence("failover-1");
    rig.silence("failover-2");
    rig.pass(2 * SECOND);
    assert!(
        matches!(rig.role("recorder-1"), Role::Films(_)),
        "nobody else does"
    );
    assert!(
        rig.newest()
            .waits_for
            .contains("failover-1, which is not heard any more")
    );
    rig.wake("failover-1");
    rig.obeys("failover-1");
    rig.pass(SECOND);
    assert_eq!(rig.role("recorder-1"), Role::Standby);
    assert_eq!(rig.phase(), Phase::Serving);
}

#[test]
fn a_failover_that_waits_does_not_choose_once_its_server_is_heard_again() {
    let mut rig = Rig::new(automatic(), &[("failover-1", 3)]);
    rig.silence("failover-1");
    rig.silence("recorder-1");
    rig.pass(3 * SECOND);
    assert_eq!(rig.phase(), Phase::Selecting);
    rig.wake("recorder-1");
    rig.wake("failover-1");
    rig.pass(Duration::from_millis(500));
    assert_eq!(rig.phase(), Phase::Selecting);
    assert!(
        rig.newest()
            .waits_for
            .contains("recorder-1, which is heard again"),
        "{}",
        rig.newest().waits_for
    );
    assert_eq!(rig.role("failover-1"), Role::Standby);
    // Not for long: now there is somebody to take over.
    rig.silence("recorder-1");
    rig.pass(2 * SECOND);
    assert_eq!(rig.phase(), Phase::TakingOver);
}

#[test]
fn a_stale_word_of_a_dead_original_hands_nothing_back() {
    let mut rig = Rig::serving(Policy {
        stop_automatically: false,
        ..automatic()
    });
    rig.wake("recorder-1");
    rig.pass(2 * SECOND);
    rig.ok(Request::StopFailover {
        server: server_id("recorder-1"),
        by: "anna".to_owned(),
    });
    // It says that it can't film one camera that the other films: a while is waited for that.
    let mut report = rig.obedient("recorder-1");
    let first = report.cameras.keys().next().expect("three").clone();
    let lost = CameraStatus::Lost {
        fault: CameraFault::Unreachable,
        detail: "no answer".to_owned(),
    };
    report.cameras.insert(first, lost);
    rig.step(Input::Reported(report));
    rig.pass(2 * SECOND);
    rig.silence("recorder-1");
    rig.pass(60 * SECOND);
    assert_eq!(rig.phase(), Phase::Serving, "nobody would film");
    assert!(films_for_failover(&rig.role("failover-1")));
    assert_eq!(rig.newest().waits_for, "recorder-1 to be heard");
    rig.wake("recorder-1");
    rig.pass(2 * SECOND);
    assert_eq!(rig.phase(), Phase::Serving, "the while begins anew");
    rig.obeys("recorder-1");
    assert_eq!(rig.phase(), Phase::Restoring);
}

#[test]
fn g5_what_was_given_up_is_named_at_the_end_too() {
    let mut rig = Rig::restoring();
    let epoch = rig.assignment("recorder-1").epoch;
    rig.restoration(epoch, 4, false);
    let failover = rig.newest().id;
    rig.confirm(Request::StopRestoration {
        failover,
        by: "anna".to_owned(),
    });
    let told = rig.events.iter().find_map(|event| match event {
        Event::FailoverCompleted { given_up, .. } => Some(given_up.clone()),
        _ => None,
    });
    let told = told.expect("it is over");
    assert!(told.contains("600 B") && told.contains("6 min"), "{told}");
    let last = rig.newest().steps.pop().expect("steps");
    assert!(last.what.contains(&told), "{last:?}");
}

#[test]
fn a_takeover_can_be_stopped_before_it_serves() {
    let mut rig = Rig::new(automatic(), &[("failover-1", 3)]);
    rig.ok(Request::StartFailover {
        server: server_id("recorder-1"),
        stand_in: None,
        by: "anna".to_owned(),
        mode: StartMode::Manual,
    });
    assert!(matches!(rig.role("recorder-1"), Role::Films(_)), "no gap by hand");
    rig.ok(Request::StopFailover {
        server: server_id("recorder-1"),
        by: "anna".to_owned(),
    });
    rig.obeys("recorder-1");
    assert_eq!(rig.phase(), Phase::Restoring);
    assert!(matches!(rig.role("failover-1"), Role::HandsBack { .. }));
}

#[test]
fn a_stand_in_that_dies_is_replaced_and_its_recordings_are_fetched_later() {
    let mut rig = Rig::serving(automatic());
    rig.silence("failover-1");
    rig.pass(2 * SECOND);
    assert!(films_for_failover(&rig.role("failover-2")));
    assert!(matches!(rig.role("failover-1"), Role::HandsBack { .. }));
    rig.obeys("failover-2");
    rig.wake("recorder-1");
    rig.pass(2 * SECOND);
    rig.obeys("recorder-1");
    rig.obeys("failover-2");
    let epoch = rig.assignment("recorder-1").epoch;
    rig.restoration(epoch, 10, true);
    assert_eq!(
        rig.phase(),
        Phase::Restoring,
        "the first one still has recordings"
    );
    rig.pass(SECOND);
    assert_eq!(
        rig.newest().waits_for,
        "failover-1 to come back with its recordings"
    );
    rig.wake("failover-1");
    rig.obeys("failover-1");
    let Role::Films(films) = rig.role("recorder-1") else {
        panic!("it films")
    };
    assert_eq!(
        films.restore.map(|restore| restore.source),
        Some(server_id("failover-1"))
    );
    let epoch = rig.assignment("recorder-1").epoch;
    rig.restoration(epoch, 10, true);
    assert_eq!(rig.phase(), Phase::Completed);
    assert_eq!(rig.newest().progress.segments_done, 20);
}

#[test]
fn the_licences_are_asked_for_until_the_ledger_answers_and_nobody_waits() {
    let mut rig = Rig::serving(automatic());
    rig.forget();
    rig.pass(5 * SECOND);
    assert!(
        (2..=3).contains(&rig.ledger.len()),
        "every two seconds: {}",
        rig.ledger.len()
    );
    let failover = rig.newest().id;
    let answer = |given_back| Input::LicensesMoved {
        failover: failover.clone(),
        given_back,
        devices: 8,
    };
    rig.step(answer(false));
    assert!(rig.newest().licenses_settled);
    assert!(rig.event_names().contains(&"license.transferred"));
    rig.wake("recorder-1");
    rig.pass(2 * SECOND);
    rig.obeys("recorder-1");
    assert!(matches!(rig.ledger.last(), Some(LicenseRequest::GiveBack { .. })));
    rig.step(answer(true));
    assert!(rig.newest().licenses_settled);
}

#[test]
fn a_ledger_that_is_down_is_told_of_once_and_asked_again() {
    let mut rig = Rig::serving(automatic());
    let failover = rig.newest().id;
    rig.forget();
    for _ in 0..3 {
        rig.step(Input::LicenseFailed {
            failover: failover.clone(),
            why: "nobody is there".to_owned(),
        });
        rig.pass(3 * SECOND);
    }
    assert!(rig.ledger.len() >= 3);
    let told = rig.newest().steps;
    assert_eq!(
        told.iter()
            .filter(|step| step.what.contains("nobody is there"))
            .count(),
        1
    );
    assert_eq!(rig.phase(), Phase::Serving);
}

#[test]
fn a_chosen_stand_in_that_dies_is_replaced_by_any_other() {
    let mut rig = Rig::new(Policy::default(), &[("failover-1", 3), ("failover-2", 9)]);
    rig.ok(Request::StartFailover {
        server: server_id("recorder-1"),
        stand_in: Some(server_id("failover-2")),
        by: "anna".to_owned(),
        mode: StartMode::Manual,
    });
    rig.obeys("failover-2");
    rig.silence("failover-2");
    rig.pass(11 * SECOND);
    assert!(films_for_failover(&rig.role("failover-1")));
}

#[test]
fn a_recording_server_may_be_removed_while_the_copies_are_erased() {
    let mut rig = Rig::restoring();
    let epoch = rig.assignment("recorder-1").epoch;
    rig.restoration(epoch, 10, true);
    rig.ok(Request::RemoveServer(server_id("recorder-1")));
    rig.obeys("failover-1");
    let Reply::Servers(views) = rig.ok(Request::ListServers) else {
        panic!("servers")
    };
    let stand_in = views
        .iter()
        .find(|view| view.server.id == server_id("failover-1"));
    assert_eq!(stand_in.map(|view| view.state), Some(ServerState::Standby));
}

#[test]
fn whoever_only_looks_changes_nothing() {
    let mut rig = Rig::new(automatic(), &[("failover-1", 3)]);
    rig.silence("recorder-1");
    rig.now += Duration::from_secs(2);
    let moment = rig.moment();
    let fresh = FailoverId::new("unused").expect("an id");
    let (_, effects) = rig.fleet.answer(Request::ListServers, fresh, moment);
    assert!(effects.is_empty());
}

#[test]
fn k9_a_restored_host_knows_an_epoch_of_before_although_it_has_counted_past_it() {
    let mut rig = Rig::new(automatic(), &[("failover-1", 10)]);
    rig.everybody_obeys();
    let own = rig.assignment("recorder-1").epoch;
    // The fleet's counter is ahead of this server's own assignment.
    rig.ok(Request::AddServer(crate::rig::server(
        "recorder-9",
        understudy_core::server::Mode::Recording,
        10,
    )));
    let mut report = rig.obedient("recorder-1");
    report.sequence += 1_000;
    report.epoch = Some(own.next());
    assert!(report.epoch <= Some(rig.fleet.epoch()));
    rig.sent.clear();
    rig.step(Input::Reported(report));
    assert!(!rig.sent.is_empty());
    assert!(
        rig.sent.iter().all(|each| each.epoch.term == own.term + 1),
        "{:?}",
        rig.sent
    );
}

#[test]
fn k9_a_server_that_runs_other_settings_than_its_epoch_gives_hears_it_again() {
    let mut rig = Rig::new(automatic(), &[("failover-1", 10)]);
    rig.everybody_obeys();
    rig.pass(Duration::from_secs(5));
    let mut report = rig.obedient("recorder-1");
    report.sequence += 1_000;
    report.settings = Some(understudy_core::settings::BundleHash("of before".to_owned()));
    rig.sent.clear();
    rig.step(Input::Reported(report));
    assert_eq!(rig.sent, vec![rig.assignment("recorder-1")]);
}

#[test]
fn an_epoch_above_its_own_begins_a_new_term_for_everybody() {
    let mut rig = Rig::new(automatic(), &[("failover-1", 3)]);
    let mut report = rig.obedient("recorder-2");
    report.epoch = Some(Epoch { term: 3, number: 7 });
    rig.step(Input::Reported(report));
    assert_eq!(rig.sent.len(), 3, "every server hears of it");
    assert!(rig.sent.iter().all(|each| each.epoch.term == 4));
}

#[test]
fn a_server_heard_with_an_older_epoch_is_told_again_but_not_too_often() {
    let mut rig = Rig::new(automatic(), &[("failover-1", 3)]);
    for _ in 0..30 {
        let mut report = rig.obedient("recorder-1");
        report.epoch = None;
        rig.step(Input::Reported(report));
        rig.now += Duration::from_millis(100);
    }
    assert_eq!(rig.sent.len(), 2);
}

#[test]
fn a_late_report_of_an_earlier_start_does_not_hide_the_living() {
    let mut rig = Rig::serving(automatic());
    let start = |name: &str| understudy_core::ids::Incarnation::new(name).expect("an id");
    let mut late = rig.obedient("recorder-1");
    late.incarnation = start("dead");
    rig.wake("recorder-1");
    rig.pass(2 * SECOND);
    let mut living = rig.obedient("recorder-1");
    living.incarnation = start("living");
    living.cameras.clear();
    rig.step(Input::Reported(living.clone()));
    rig.step(Input::Reported(late));
    let all = rig.obedient("recorder-1");
    living.cameras = all.cameras;
    living.sequence = all.sequence;
    rig.step(Input::Reported(living));
    assert_eq!(rig.phase(), Phase::Restoring);
}

/// Invariant 8, at every step of one failover.
#[test]
fn a_host_that_dies_anywhere_goes_on_where_it_was() {
    let play = |dies_at: usize| {
        let mut rig = Rig::new(automatic(), &[("failover-1", 3)]);
        let mut step = 0;
        let mut next = |rig: &mut Rig| {
            step += 1;
            if step == dies_at {
                rig.restart();
                rig.monitor_speaks();
            }
        };
        rig.silence("recorder-1");
        rig.pass(2 * SECOND);
        next(&mut rig);
        rig.obeys("failover-1");
        next(&mut rig);
        rig.wake("recorder-1");
        rig.pass(3 * SECOND);
        next(&mut rig);
        rig.everybody_obeys();
        next(&mut rig);
        rig.everybody_obeys();
        next(&mut rig);
        rig.everybody_obeys();
        next(&mut rig);
        rig.everybody_obeys();
        let epoch = rig.assignment("recorder-1").epoch;
        rig.restoration(epoch, 10, true);
        next(&mut rig);
        rig.everybody_obeys();
        (rig.phase(), rig.role("recorder-1"), rig.role("failover-1"))
    };
    let undisturbed = play(0);
    assert_eq!(undisturbed.0, Phase::Completed);
    for dies_at in 1..=7 {
        assert_eq!(play(dies_at), undisturbed, "dies at {dies_at}");
    }
}

#[test]
fn c7_a_reboot_is_told_from_a_power_cut_in_the_reason_and_afterwards() {
    for (farewell, says) in [
        (None, "it went without a word"),
        (
            Some(Farewell::Rebooting),
            "it said that it is going down to reboot",
        ),
    ] {
        let mut rig = Rig::new(automatic(), &[("failover-1", 9)]);
        rig.silence("recorder-1");
        for _ in 0..25 {
            rig.now += Duration::from_millis(100);
            let mut seen = rig.observation(&server_id("recorder-1"));
            seen.farewell = farewell;
            rig.observe(seen);
        }
        let failover = rig.newest();
        assert!(
            failover.detection_ms < 1_300,
            "a farewell neither delays nor hurries: {} ms",
            failover.detection_ms
        );
        assert!(
            failover.reason.summary.contains(says),
            "{}",
            failover.reason.summary
        );
        rig.wake("recorder-1");
        let mut back = rig.observation(&server_id("recorder-1"));
        back.started = Some(Started {
            boot: "b".to_owned(),
            before: Some(Ending::CutOff),
        });
        rig.observe(back.clone());
        rig.observe(back);
        let steps = rig.newest().steps;
        let told = steps
            .iter()
            .filter(|step| step.what.contains("cut off without a word"))
            .count();
        assert_eq!(told, 1, "{steps:?}");
    }
}

#[test]
fn f5_what_a_server_said_of_its_cameras_holds_until_it_is_missed() {
    let mut rig = Rig::new(Policy::default(), &[]);
    let id = server_id("recorder-1");
    rig.pass(Duration::from_secs(1));
    let missed = |rig: &Rig| {
        rig.fleet
            .is_missed(&server_id("recorder-1"), rig.moment().monotonic)
    };
    assert!(!missed(&rig));

    // Its recording service ends, its agent is heard.
    let mut sick = rig.observation(&id);
    sick.package.state = PackageState::Crashed;
    rig.observe(sick);
    assert!(missed(&rig));
    rig.monitor_speaks();
    assert!(!missed(&rig), "it is back");

    // It falls silent, long before anybody would take over.
    rig.silence("recorder-1");
    rig.pass(Duration::from_millis(1100));
    assert!(missed(&rig));

    // The host is blind: nothing is known, and its last word stands.
    let mut blind = rig.observation(&id);
    blind.blind = true;
    rig.observe(blind);
    assert!(!missed(&rig));
    assert!(!rig.fleet.is_missed(&server_id("nobody"), rig.moment().monotonic));
}
