//! The second fault: what fails while something is being handed back, and what a person starts over.

use std::time::Duration;

use understudy_core::{
    assignment::Role,
    contract::{
        api::{Phase, StartMode},
        heartbeat::{PackageState, Progress, RestorationReport},
        rpc::OrchestratorRequest as Request,
    },
    fleet::Input,
    ids::FailoverId,
    restoration::may_erase,
    server::Mode,
};

use crate::rig::{Rig, automatic, server, server_id};

const SECOND: Duration = Duration::from_secs(1);
/// After a second fault a server has to stay well for longer.
const WELL_AGAIN: Duration = Duration::from_secs(8);

fn source(rig: &Rig) -> Option<String> {
    match rig.role("recorder-1") {
        Role::Films(films) => films.restore.map(|restore| restore.source.to_string()),
        _ => None,
    }
}

#[test]
fn g2_a_source_that_dies_keeps_nobody_elses_recordings_waiting() {
    // Given a failback from failover-1, which dies in the middle of it; then the recording server fails again.
    let mut rig = Rig::restoring();
    assert_eq!(source(&rig).as_deref(), Some("failover-1"));
    rig.silence("failover-1");
    rig.pass(2 * SECOND);
    rig.silence("recorder-1");
    rig.pass(2 * SECOND);
    rig.obeys("failover-2");
    assert_eq!(rig.newest().stand_in, Some(server_id("failover-2")));
    // When it is back, and the first failover server is not.
    rig.wake("recorder-1");
    rig.pass(WELL_AGAIN);
    rig.obeys("recorder-1");
    rig.obeys("failover-2");
    rig.pass(SECOND);
    // Then what the second one has is fetched at once, and the first one's when it comes back.
    assert_eq!(source(&rig).as_deref(), Some("failover-2"));
    rig.restoration(rig.assignment("recorder-1").epoch, 10, true);
    assert_eq!(rig.phase(), Phase::Restoring);
    rig.wake("failover-1");
    rig.obeys("failover-1");
    assert_eq!(source(&rig).as_deref(), Some("failover-1"));
    rig.restoration(rig.assignment("recorder-1").epoch, 10, true);
    assert_eq!(rig.phase(), Phase::Completed);
}

#[test]
fn g2_a_source_that_dies_while_it_is_fetched_from_is_left_for_one_that_lives() {
    // Given recordings on two failover servers, of which the first is being fetched from.
    let mut rig = Rig::restoring();
    rig.silence("failover-1");
    rig.pass(2 * SECOND);
    rig.silence("recorder-1");
    rig.pass(2 * SECOND);
    rig.obeys("failover-2");
    rig.wake("failover-1");
    rig.obeys("failover-1");
    rig.wake("recorder-1");
    rig.pass(WELL_AGAIN);
    rig.obeys("recorder-1");
    rig.obeys("failover-2");
    let first = source(&rig).expect("one of them is fetched from");
    let other = match first.as_str() {
        "failover-1" => "failover-2",
        _ => "failover-1",
    };
    rig.obeys("recorder-1");
    rig.restoration(rig.assignment("recorder-1").epoch, 4, false);
    // When it dies, the other one is fetched from; when it is back, the rest of it is.
    rig.silence(&first);
    rig.pass(2 * SECOND);
    assert_eq!(source(&rig).as_deref(), Some(other));
    rig.obeys("recorder-1");
    rig.restoration(rig.assignment("recorder-1").epoch, 10, true);
    rig.wake(&first);
    rig.obeys(&first);
    rig.pass(SECOND);
    assert_eq!(source(&rig).as_deref(), Some(first.as_str()));
    rig.restoration(rig.assignment("recorder-1").epoch, 10, true);
    assert_eq!(rig.phase(), Phase::Completed);
    assert_eq!(rig.newest().progress.segments_done, 20);
}

#[test]
fn c6_started_again_by_hand_the_original_films_until_the_other_does() {
    let mut rig = Rig::restoring();
    rig.ok(Request::StartFailover {
        server: server_id("recorder-1"),
        stand_in: None,
        by: "anna".to_owned(),
        mode: StartMode::Manual,
    });
    assert_eq!(rig.phase(), Phase::TakingOver);
    assert!(matches!(rig.role("recorder-1"), Role::Films(_)), "it films on");
    rig.obeys("failover-1");
    assert_eq!(rig.phase(), Phase::Serving);
    assert_eq!(rig.role("recorder-1"), Role::Standby);
}

#[test]
fn c2_a_silence_that_was_dismissed_is_over_when_the_server_is_heard_whatever_else_it_has() {
    // Given a server that a person took back although it was silent.
    let mut rig = Rig::serving(automatic());
    rig.ok(Request::StopFailover {
        server: server_id("recorder-1"),
        by: "anna".to_owned(),
    });
    // When it is heard for a while, with a recording service that has crashed,
    rig.wake("recorder-1");
    for _ in 0..30 {
        let mut sick = rig.observation(&server_id("recorder-1"));
        sick.package.state = PackageState::Crashed;
        rig.observe(sick);
        rig.now += Duration::from_millis(100);
    }
    rig.obeys("recorder-1");
    rig.obeys("failover-1");
    rig.restoration(rig.assignment("recorder-1").epoch, 10, true);
    rig.obeys("failover-1");
    let before = rig.fleet.failovers().count();
    // and falls silent again, then that is a silence of its own.
    rig.silence("recorder-1");
    rig.pass(3 * SECOND);
    assert!(
        rig.fleet.failovers().count() > before || rig.phase() == Phase::TakingOver,
        "{:?}",
        rig.newest()
    );
}

#[test]
fn g4_what_a_failover_server_spared_is_fetched_even_after_the_end() {
    // Given a host that was told of everything's arrival up to a beginning: its failover server filmed on since, for a
    // host of which this one is a backup.
    let mut rig = Rig::restoring();
    let epoch = rig.assignment("recorder-1").epoch;
    let arrived = |source: &str, begun| RestorationReport {
        source: Some(server_id(source)),
        begun: Some(begun),
        ..Rig::restoring().restoration_report(epoch, 10, true)
    };
    rig.step(Input::Restoration(arrived("failover-2", 9)));
    assert_eq!(rig.phase(), Phase::Restoring, "that was said of another source");
    rig.step(Input::Restoration(arrived("failover-1", 1)));
    assert_eq!(rig.phase(), Phase::Completed);
    let (id, once) = (rig.newest().id, rig.newest().progress);
    assert!(once.bytes_done > 0);
    let told = rig.assignment("failover-1");
    assert_eq!(told.erase_up_to.get(&id), Some(&1));
    // When it says that it has more,
    let spares = |rig: &mut Rig| {
        let mut report = rig.obedient("failover-1");
        report.closed.insert(id.clone());
        report.spared.insert(id.clone());
        rig.step(Input::Reported(report));
    };
    spares(&mut rig);
    // then that is fetched, and erased only up to there; what had arrived is in the list, and counted once.
    assert_eq!(rig.phase(), Phase::Restoring);
    assert_eq!(rig.newest().progress.bytes_done, 0);
    assert!(matches!(rig.role("failover-1"), Role::HandsBack { .. }));
    rig.obeys("failover-1");
    rig.obeys("recorder-1");
    assert_eq!(source(&rig).as_deref(), Some("failover-1"));
    let epoch = rig.assignment("recorder-1").epoch;
    rig.step(Input::Restoration(RestorationReport {
        epoch,
        ..arrived("failover-1", 2)
    }));
    assert_eq!(rig.phase(), Phase::Completed);
    assert_eq!(rig.assignment("failover-1").erase_up_to.get(&id), Some(&2));
    assert_eq!(rig.newest().progress, once, "all of it, and nothing twice");
}

/// A failover that is over, by the word that everything had arrived up to a beginning.
fn over() -> (Rig, FailoverId) {
    let mut rig = Rig::restoring();
    let epoch = rig.assignment("recorder-1").epoch;
    let arrived = RestorationReport {
        source: Some(server_id("failover-1")),
        begun: Some(1),
        ..rig.restoration_report(epoch, 10, true)
    };
    rig.step(Input::Restoration(arrived));
    assert_eq!(rig.phase(), Phase::Completed);
    let id = rig.newest().id;
    (rig, id)
}

/// The failover server says that it has more of a failover than had arrived.
fn spares(rig: &mut Rig, id: &FailoverId) {
    let mut report = rig.obedient("failover-1");
    report.closed.insert(id.clone());
    report.spared.insert(id.clone());
    rig.step(Input::Reported(report));
}

/// For as long as that lasts, it says what it waits for, and nothing is given up.
fn waits_for_its_server(rig: &mut Rig, id: &FailoverId) {
    rig.pass(60 * SECOND);
    let view = rig.fleet.failovers().find(|failover| failover.id == *id);
    let view = view.expect("it is kept").view();
    let waits = "recorder-1 to be a recording server of the fleet again: recordings of it were not fetched";
    assert_eq!((view.phase, view.waits_for.as_str()), (Phase::Completed, waits));
    assert_eq!(rig.assignment("failover-1").erase_up_to.get(id), Some(&1));
}

#[test]
fn g4_what_was_spared_waits_for_a_recording_server_that_was_removed_and_is_fetched_when_it_is_one_again() {
    let (mut rig, id) = over();
    rig.ok(Request::RemoveServer(server_id("recorder-1")));
    spares(&mut rig, &id);
    waits_for_its_server(&mut rig, &id);
    rig.ok(Request::AddServer(server("recorder-1", Mode::Recording, 4)));
    spares(&mut rig, &id);
    assert_eq!(rig.phase(), Phase::Restoring);
    assert_eq!(rig.newest().waits_for, "recorder-1 to be heard");
}

#[test]
fn g4_what_was_spared_waits_for_a_recording_server_that_was_replaced() {
    let (mut rig, id) = over();
    rig.ok(Request::StartFailover {
        server: server_id("recorder-1"),
        stand_in: None,
        by: "anna".to_owned(),
        mode: StartMode::Manual,
    });
    rig.obeys("failover-2");
    rig.confirm(Request::Replace {
        server: server_id("recorder-1"),
        successor: None,
        by: "anna".to_owned(),
    });
    rig.obeys("failover-2");
    spares(&mut rig, &id);
    waits_for_its_server(&mut rig, &id);
}

#[test]
fn g5_what_a_person_drops_goes_whatever_there_is() {
    let mut rig = Rig::restoring();
    rig.confirm(Request::StopRestoration {
        failover: rig.newest().id,
        by: "anna".to_owned(),
    });
    let told = rig.assignment("failover-1");
    assert!(!told.erase.is_empty() && told.erase_up_to.is_empty(), "{told:?}");
}

#[test]
fn g4_what_a_failover_server_records_after_an_empty_list_had_arrived_is_not_erased() {
    let arrives = |source: Option<&str>, listed| {
        let mut rig = Rig::restoring();
        let epoch = rig.assignment("recorder-1").epoch;
        let report = rig.restoration_report(epoch, listed, true);
        let progress = Progress {
            segments_total: listed,
            ..report.progress
        };
        rig.step(Input::Restoration(RestorationReport {
            progress,
            source: source.map(server_id),
            begun: None,
            ..report
        }));
        assert_eq!(rig.phase(), Phase::Completed);
        let id = rig.newest().id;
        rig.assignment("failover-1").erase_up_to.get(&id).copied()
    };
    // Given a failover server that had not filmed at all: up to then everything arrived, and nothing beyond.
    assert_eq!(arrives(Some("failover-1"), 0), Some(0));
    assert!(!may_erase(Some(1), Some(0)), "it has begun since");
    // Whoever names no beginning and has something, or hears of none, is of a version of before.
    assert_eq!(arrives(Some("failover-1"), 10), None);
    assert_eq!(arrives(None, 0), None);
}
