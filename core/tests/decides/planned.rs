//! The planned switch: a recording server is drained and gets everything back, without a frame lost.

use std::time::Duration;

use understudy_core::{
    assignment::Role,
    camera::Camera,
    contract::{
        api::{Phase, StartMode},
        heartbeat::{CameraFault, CameraStatus, ServerReport},
        rpc::OrchestratorRequest as Request,
    },
    fleet::Input,
    policy::{Failback, Policy, Range},
};

use crate::rig::{Rig, camera, server_id};

const SECOND: Duration = Duration::from_secs(1);

fn planned() -> Request {
    Request::StartFailover {
        server: server_id("recorder-1"),
        stand_in: None,
        by: "anna".to_owned(),
        mode: StartMode::Planned,
    }
}

fn stop() -> Request {
    Request::StopFailover {
        server: server_id("recorder-1"),
        by: "anna".to_owned(),
    }
}

/// A fleet in which recorder-1 is being drained to failover-1.
fn draining() -> Rig {
    let mut rig = Rig::new(Policy::default(), &[("failover-1", 3), ("failover-2", 9)]);
    rig.ok(planned());
    assert_eq!(rig.phase(), Phase::TakingOver);
    rig
}

fn lose_one(report: &mut ServerReport, fault: CameraFault) {
    let first = report.cameras.keys().next().expect("it films").clone();
    let detail = "no answer".to_owned();
    report.cameras.insert(first, CameraStatus::Lost { fault, detail });
}

fn films_for(rig: &Rig, server: &str) -> usize {
    match rig.role(server) {
        Role::Films(films) => 3 - films.disabled.len(),
        _ => 0,
    }
}

#[test]
fn j8_the_original_films_until_the_stand_in_films_all_that_it_does() {
    let mut rig = draining();
    assert_eq!(
        (films_for(&rig, "recorder-1"), films_for(&rig, "failover-1")),
        (3, 3)
    );

    let mut report = rig.obedient("failover-1");
    lose_one(&mut report, CameraFault::Unreachable);
    rig.step(Input::Reported(report));
    rig.pass(600 * SECOND);
    assert_eq!(
        (rig.phase(), films_for(&rig, "recorder-1")),
        (Phase::TakingOver, 3),
        "for as long as it takes"
    );
    assert_eq!(
        rig.newest().waits_for,
        "failover-1 to film 1 camera(s) that recorder-1 films"
    );

    rig.obeys("failover-1");
    assert_eq!(rig.phase(), Phase::Serving);
    assert_eq!(rig.role("recorder-1"), Role::Standby);
}

#[test]
fn j8_a_camera_that_the_original_has_lost_too_does_not_hold_it_up() {
    let mut rig = draining();
    for server in ["recorder-1", "failover-1"] {
        let mut report = rig.obedient(server);
        for status in report.cameras.values_mut().take(1) {
            let detail = "no answer".to_owned();
            let fault = CameraFault::Unreachable;
            *status = CameraStatus::Lost { fault, detail };
        }
        rig.step(Input::Reported(report));
    }
    assert_eq!(rig.phase(), Phase::Serving);
}

#[test]
fn j8_the_stand_in_films_until_the_original_films_all_that_it_does() {
    let mut rig = draining();
    rig.obeys("failover-1");
    rig.obeys("recorder-1");
    rig.ok(stop());
    let mut report = rig.obedient("recorder-1");
    lose_one(&mut report, CameraFault::Unreachable);
    rig.step(Input::Reported(report));
    rig.pass(600 * SECOND);
    assert_eq!(
        (rig.phase(), films_for(&rig, "failover-1")),
        (Phase::Serving, 3),
        "no patience runs out"
    );

    // A person may end it all the same, once it was said what that loses.
    let warned = rig.refused(stop());
    assert!(warned.detail.contains("1 camera(s)"), "{}", warned.detail);
    assert_eq!(rig.phase(), Phase::Serving);
    rig.ok(Request::Confirmed {
        confirmation: warned.confirmation.expect("a token"),
        request: Box::new(stop()),
    });
    assert_eq!(rig.phase(), Phase::Restoring);
}

#[test]
fn j8_everything_is_recorded_and_handed_back_whatever_the_policy_says() {
    let policy = Policy {
        range: Range::LiveOnly,
        failback: Failback::Remove,
        ..Policy::default()
    };
    let mut rig = Rig::new(policy, &[("failover-1", 3)]);
    rig.ok(planned());
    let Role::Films(films) = rig.role("failover-1") else {
        panic!("it stands in");
    };
    assert_eq!(films.range, Range::Full);
    rig.obeys("failover-1");
    rig.ok(stop());
    rig.obeys("recorder-1");
    assert_eq!(rig.phase(), Phase::Restoring);
    assert!(
        matches!(rig.role("failover-1"), Role::HandsBack { .. }),
        "not erased"
    );
}

#[test]
fn j8_k8_only_a_camera_that_allows_one_session_is_let_go_of_first() {
    let mut rig = Rig::new(Policy::default(), &[("failover-1", 9)]);
    let one = Camera {
        max_sessions: Some(1),
        ..camera("recorder-1", 4)
    };
    rig.ok(Request::AddCameras(vec![one.clone()]));
    rig.everybody_obeys();
    rig.ok(planned());

    let Role::Films(films) = rig.role("recorder-1") else {
        panic!("it films on");
    };
    assert_eq!(films.disabled, [one.id.clone()].into());
    let steps = rig.newest().steps;
    assert!(
        steps
            .iter()
            .any(|step| step.what.contains("lets go of recorder-1-cam-4")),
        "the gap is stated: {steps:?}"
    );
    // The failover server finds it held for a moment more: nothing waits for that.
    let mut report = rig.obedient("failover-1");
    let detail = "a session is open".to_owned();
    let fault = CameraFault::HeldElsewhere;
    report
        .cameras
        .insert(one.id, CameraStatus::Lost { fault, detail });
    rig.step(Input::Reported(report));
    assert_eq!(rig.phase(), Phase::Serving);
}

#[test]
fn j8_when_nobody_can_go_on_with_it_the_original_films_everything() {
    let mut rig = Rig::new(Policy::default(), &[("failover-1", 9)]);
    let one = Camera {
        max_sessions: Some(1),
        ..camera("recorder-1", 4)
    };
    rig.ok(Request::AddCameras(vec![one]));
    rig.everybody_obeys();
    rig.ok(planned());
    rig.silence("failover-1");
    rig.pass(60 * SECOND);
    let Role::Films(films) = rig.role("recorder-1") else {
        panic!("it films on");
    };
    assert!(films.disabled.is_empty(), "the one that it let go of too");
    rig.restart();
    assert_eq!(rig.role("recorder-1"), Role::Films(films));
}

#[test]
fn j8_an_original_that_dies_in_the_middle_is_failed_over_like_any_other() {
    let mut rig = draining();
    rig.silence("recorder-1");
    rig.pass(SECOND);
    let mut report = rig.obedient("failover-1");
    lose_one(&mut report, CameraFault::Unreachable);
    rig.step(Input::Reported(report));
    assert_eq!(rig.phase(), Phase::Serving, "nobody is left to wait for");
    rig.wake("recorder-1");
    rig.obeys("recorder-1");
    rig.ok(stop());
    rig.obeys("recorder-1");
    assert_eq!(rig.phase(), Phase::Restoring);
}

#[test]
fn j8_a_stand_in_that_dies_in_the_middle_is_replaced() {
    let mut rig = draining();
    rig.silence("failover-1");
    rig.pass(60 * SECOND);
    assert_eq!(films_for(&rig, "recorder-1"), 3, "it never stopped");
    assert_eq!(films_for(&rig, "failover-2"), 3);
    rig.obeys("failover-2");
    assert_eq!(rig.phase(), Phase::Serving);
}

#[test]
fn j8_what_can_not_be_promised_is_refused_or_has_to_be_confirmed() {
    let mut rig = Rig::new(Policy::default(), &[("failover-1", 2)]);
    let warned = rig.refused(planned());
    assert!(
        warned.detail.contains("has no room for 1 camera(s)"),
        "{}",
        warned.detail
    );
    rig.silence("failover-1");
    rig.pass(60 * SECOND);
    let nobody = rig.refused(planned());
    assert!(
        nobody.detail.contains("failover-1 is not heard"),
        "{}",
        nobody.detail
    );
    rig.wake("failover-1");
    rig.silence("recorder-1");
    rig.pass(60 * SECOND);
    let ill = rig.refused(planned());
    assert!(ill.detail.contains("recorder-1 is not well"), "{}", ill.detail);
    rig.wake("recorder-1");
    rig.pass(SECOND);
    rig.confirm(planned());
    assert_eq!(rig.phase(), Phase::TakingOver);
}
