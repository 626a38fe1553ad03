//! Cameras that allow few sessions: known beforehand, or noticed when a failover server is refused.

use std::{collections::BTreeSet, time::Duration};

use understudy_core::{
    assignment::Role,
    camera::Camera,
    contract::{
        api::{CameraEdit, Phase, StartMode},
        event::Event,
        heartbeat::{CameraFault, CameraStatus},
        rpc::{OrchestratorReply as Reply, OrchestratorRequest as Request},
    },
    fleet::Input,
    ids::CameraId,
    policy::Policy,
};

use crate::rig::{Rig, automatic, camera, server_id};

fn id(number: u32) -> CameraId {
    camera("recorder-1", number).id
}

fn start(mode: StartMode) -> Request {
    Request::StartFailover {
        server: server_id("recorder-1"),
        stand_in: None,
        by: "anna".to_owned(),
        mode,
    }
}

fn stop() -> Request {
    Request::StopFailover {
        server: server_id("recorder-1"),
        by: "anna".to_owned(),
    }
}

fn allow(number: u32, most: u32) -> Request {
    Request::EditCamera {
        camera: id(number),
        edit: CameraEdit {
            max_sessions: Some(most),
            ..CameraEdit::default()
        },
    }
}

/// A fleet in which failover-1 takes over from recorder-1, which films on.
fn taking_over(mode: StartMode) -> Rig {
    let mut rig = Rig::new(Policy::default(), &[("failover-1", 9)]);
    rig.ok(start(mode));
    rig
}

/// A server does as it is told, but for these cameras.
fn obeys_but(rig: &mut Rig, server: &str, faults: &[(u32, CameraFault)]) {
    let mut report = rig.obedient(server);
    for (number, fault) in faults {
        let (fault, detail) = (*fault, "RTSP 453".to_owned());
        report
            .cameras
            .insert(id(*number), CameraStatus::Lost { fault, detail });
    }
    rig.step(Input::Reported(report));
}

fn left_by(rig: &Rig, server: &str) -> BTreeSet<CameraId> {
    match rig.role(server) {
        Role::Films(films) => films.disabled,
        other => panic!("{server} is to be {other:?}"),
    }
}

fn told(rig: &Rig, words: &str) -> usize {
    let steps = rig.newest().steps;
    steps.iter().filter(|step| step.what.contains(words)).count()
}

fn shown(rig: &mut Rig, number: u32) -> (Camera, Option<CameraStatus>) {
    let Reply::Cameras(views) = rig.ok(Request::ListCameras) else {
        panic!("cameras were asked for");
    };
    let view = views.into_iter().find(|view| view.camera.id == id(number));
    let view = view.expect("it is there");
    (view.camera, view.status)
}

fn detail(rig: &mut Rig, number: u32) -> String {
    match shown(rig, number).1 {
        Some(CameraStatus::Lost { detail, .. }) => detail,
        other => panic!("it is not lost: {other:?}"),
    }
}

#[test]
fn k8_j8_a_camera_that_refuses_the_failover_server_is_let_go_of_though_nobody_said_so() {
    use CameraFault::{HeldElsewhere, Unreachable};
    // Given a planned switch, when the failover server is refused one camera and can't reach another,
    let mut rig = taking_over(StartMode::Planned);
    obeys_but(&mut rig, "failover-1", &[(1, HeldElsewhere), (2, Unreachable)]);
    // then the recording server lets go of the one and films the others, for as long as it takes,
    assert_eq!(left_by(&rig, "recorder-1"), [id(1)].into());
    let words = "failover-1 is refused recorder-1-cam-1, held by recorder-1";
    assert_eq!(told(&rig, words), 1, "{:?}", rig.newest().steps);
    assert_eq!(
        told(&rig, "understudy camera edit recorder-1-cam-1 --max-sessions 1"),
        1
    );
    rig.pass(Duration::from_secs(600));
    rig.obeys("recorder-1");
    obeys_but(&mut rig, "failover-1", &[(2, Unreachable)]);
    rig.pass(Duration::from_secs(600));
    assert_eq!(
        (rig.phase(), rig.newest().waits_for.as_str()),
        (
            Phase::TakingOver,
            "failover-1 to film 1 camera(s) that recorder-1 films"
        )
    );
    assert_eq!(left_by(&rig, "recorder-1"), [id(1)].into());
    assert!(rig.newest().first_frames.contains_key(&id(1)));
    assert_eq!(told(&rig, "is refused"), 1, "it is said once");
    // also after a restart of the host,
    rig.restart();
    assert_eq!(left_by(&rig, "recorder-1"), [id(1)].into());
    // until the failover server films the rest.
    rig.monitor_speaks();
    rig.obeys("recorder-1");
    rig.obeys("failover-1");
    assert_eq!(
        (rig.phase(), rig.role("recorder-1")),
        (Phase::Serving, Role::Standby)
    );
}

#[test]
fn k8_j8_while_the_original_lets_go_of_one_the_others_are_waited_for() {
    use CameraFault::{HeldElsewhere, Unreachable};
    let mut rig = taking_over(StartMode::Planned);
    obeys_but(&mut rig, "failover-1", &[(1, HeldElsewhere), (2, Unreachable)]);
    // Its new assignment is on its way: what it said by the one before still counts.
    obeys_but(&mut rig, "failover-1", &[(1, HeldElsewhere), (2, Unreachable)]);
    assert_eq!(rig.phase(), Phase::TakingOver);
}

#[test]
fn k8_who_holds_a_camera_is_named_when_the_failover_server_serves() {
    // By hand nothing is waited for; the one that is held so far is named.
    let mut rig = taking_over(StartMode::Manual);
    obeys_but(&mut rig, "failover-1", &[(1, CameraFault::HeldElsewhere)]);
    assert_eq!(rig.phase(), Phase::Serving);
    assert_eq!(told(&rig, "failover-1 is refused recorder-1-cam-1"), 1);
    let words = "films 2 camera(s), 1 can't be filmed; held by recorder-1: recorder-1-cam-1";
    assert_eq!(told(&rig, words), 1, "{:?}", rig.newest().steps);

    // One that is cut off can't be told to let go, and may film on.
    let mut rig = Rig::new(automatic(), &[("failover-1", 9)]);
    rig.silence("recorder-1");
    rig.pass(Duration::from_secs(2));
    obeys_but(&mut rig, "failover-1", &[(1, CameraFault::HeldElsewhere)]);
    assert_eq!((rig.phase(), told(&rig, "is refused")), (Phase::Serving, 0));
    let words = "held by recorder-1, which is not heard: recorder-1-cam-1";
    assert_eq!(told(&rig, words), 1, "{:?}", rig.newest().steps);

    // Some other program has it.
    let mut rig = taking_over(StartMode::Planned);
    obeys_but(&mut rig, "recorder-1", &[(1, CameraFault::HeldElsewhere)]);
    obeys_but(&mut rig, "failover-1", &[(1, CameraFault::HeldElsewhere)]);
    assert_eq!((rig.phase(), told(&rig, "is refused")), (Phase::Serving, 0));
    assert_eq!(
        told(&rig, "1 can't be filmed; held elsewhere: recorder-1-cam-1"),
        1
    );
}

#[test]
fn k8_j8_on_the_way_back_it_is_said_which_cameras_the_failover_server_held() {
    let mut rig = taking_over(StartMode::Planned);
    rig.obeys("failover-1");
    rig.obeys("recorder-1");
    rig.ok(stop());
    obeys_but(&mut rig, "recorder-1", &[(1, CameraFault::HeldElsewhere)]);
    assert_eq!(rig.phase(), Phase::Restoring);
    let words = "failover-1 held recorder-1-cam-1 until now";
    assert_eq!(told(&rig, words), 1, "{:?}", rig.newest().steps);
}

#[test]
fn k8_when_nobody_can_go_on_with_it_the_original_films_also_what_it_let_go_of_when_asked() {
    use CameraFault::{HeldElsewhere, Unreachable};
    let mut rig = taking_over(StartMode::Planned);
    obeys_but(&mut rig, "failover-1", &[(1, HeldElsewhere), (2, Unreachable)]);
    rig.obeys("recorder-1");
    rig.silence("failover-1");
    rig.pass(Duration::from_secs(60));
    assert_eq!(left_by(&rig, "recorder-1"), BTreeSet::new());
    // Once it can, and is refused again, the same.
    rig.obeys("recorder-1");
    rig.wake("failover-1");
    obeys_but(&mut rig, "failover-1", &[(1, HeldElsewhere), (2, Unreachable)]);
    assert_eq!(left_by(&rig, "recorder-1"), [id(1)].into());
}

#[test]
fn k8_a_camera_that_is_refused_says_who_holds_it_and_what_to_do() {
    use CameraFault::{HeldElsewhere, Unreachable};
    let mut rig = taking_over(StartMode::Planned);
    obeys_but(&mut rig, "failover-1", &[(1, HeldElsewhere), (2, Unreachable)]);
    let words = "held by recorder-1: this camera allows no session beside that, \
                 understudy camera edit recorder-1-cam-1 --max-sessions 1 says so; RTSP 453";
    assert_eq!(detail(&mut rig, 1), words);
    assert_eq!(detail(&mut rig, 2), "RTSP 453", "that is another matter");
    let lost = rig.events.iter().find_map(|event| match event {
        Event::CameraLost { camera, detail, .. } if *camera == id(1) => Some(detail.clone()),
        _ => None,
    });
    assert_eq!(lost.as_deref(), Some(words));
    rig.ok(allow(1, 1));
    assert_eq!(
        detail(&mut rig, 1),
        "held by recorder-1: this camera allows 1 session; RTSP 453"
    );
    rig.ok(allow(1, 2));
    assert_eq!(
        detail(&mut rig, 1),
        "held by recorder-1: this camera allows 2 sessions, and others have the rest; RTSP 453"
    );
    // Once the recording server has let go, nobody is known to hold it.
    rig.obeys("recorder-1");
    assert_eq!(detail(&mut rig, 1), "RTSP 453");
}

#[test]
fn k8_how_many_sessions_a_camera_allows_is_edited_kept_and_forgotten() {
    let mut rig = Rig::new(Policy::default(), &[("failover-1", 9)]);
    let before = shown(&mut rig, 1).0;
    rig.ok(allow(1, 1));
    rig.restart();
    let known = shown(&mut rig, 1).0;
    assert_eq!(known.max_sessions, Some(1));
    assert!(known.films_like(&before), "nothing is connected anew for it");
    // It counts from the next failover on.
    rig.everybody_obeys();
    rig.pass(Duration::from_secs(1));
    rig.ok(start(StartMode::Planned));
    assert_eq!(left_by(&rig, "recorder-1"), [id(1)].into());
    // 0: not known any more.
    rig.ok(allow(1, 0));
    assert_eq!(shown(&mut rig, 1).0, before);
}

#[test]
fn k8_what_is_learned_of_a_camera_during_a_failover_outlives_it() {
    let mut rig = Rig::serving(automatic());
    // When somebody does what the failover says, and renames the camera in the same breath,
    let edit = CameraEdit {
        name: Some("Gate".to_owned()),
        max_sessions: Some(1),
        ..CameraEdit::default()
    };
    rig.ok(Request::EditCamera { camera: id(1), edit });
    let now = shown(&mut rig, 1).0;
    assert_eq!((now.name.as_str(), now.max_sessions), ("Gate", Some(1)));
    rig.restart();
    rig.obeys("failover-1");
    rig.wake("recorder-1");
    rig.pass(Duration::from_millis(1500));
    rig.obeys("recorder-1");
    rig.obeys("failover-1");
    rig.obeys("recorder-1");
    let epoch = rig.assignment("recorder-1").epoch;
    rig.restoration(epoch, 10, true);
    rig.obeys("failover-1");
    // then at the end the name is that of before, as with every change, and the camera is known for what it is.
    assert_eq!(rig.phase(), Phase::Completed);
    let after = shown(&mut rig, 1).0;
    assert_eq!((after.name.as_str(), after.max_sessions), ("camera 1", Some(1)));
    // A camera that is there for the failover only goes with all that is known of it.
    let mut rig = Rig::serving(automatic());
    rig.ok(Request::AddCameras(vec![camera("recorder-1", 9)]));
    rig.ok(allow(9, 1));
    assert_eq!(shown(&mut rig, 9).0.max_sessions, Some(1));
    assert_eq!(rig.fleet.camera(&id(9)), None);
}
