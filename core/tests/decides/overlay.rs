//! Changes of settings during a failover: for the failover server only, until the end.

use std::time::Duration;

use understudy_core::{
    assignment::Role,
    camera::{Camera, Credentials},
    contract::{
        api::{
            CameraEdit, CameraField, CameraView, ChangeKind, OfferState, Phase, ServerEdit, TemporaryChange,
        },
        event::Event,
        rpc::{OrchestratorReply as Reply, OrchestratorRequest as Request},
    },
    ids::{CameraId, FailoverId},
    settings::Bundle,
};

use crate::rig::{Rig, automatic, camera, server_id};

fn id(number: u32) -> CameraId {
    camera("recorder-1", number).id
}

fn edit(number: u32, edit: CameraEdit) -> Request {
    Request::EditCamera {
        camera: id(number),
        edit,
    }
}

fn rename(number: u32, name: &str) -> Request {
    edit(
        number,
        CameraEdit {
            name: Some(name.to_owned()),
            ..CameraEdit::default()
        },
    )
}

fn new_password(number: u32) -> Request {
    edit(
        number,
        CameraEdit {
            credentials: Some(Credentials {
                username: "admin".to_owned(),
                password: "new-secret".to_owned(),
            }),
            ..CameraEdit::default()
        },
    )
}

fn answer(failover: &FailoverId, apply: bool) -> Request {
    Request::AnswerOffers {
        failover: failover.clone(),
        cameras: Vec::new(),
        apply,
        by: "anna".to_owned(),
    }
}

/// The settings that a server is to film by.
fn films(rig: &Rig, server: &str) -> Bundle {
    match rig.role(server) {
        Role::Films(films) => rig.fleet.bundle(&films.settings).expect("it is in use"),
        other => panic!("{server} is to be {other:?}"),
    }
}

fn views(rig: &mut Rig) -> Vec<CameraView> {
    match rig.ok(Request::ListCameras) {
        Reply::Cameras(views) => views
            .into_iter()
            .filter(|view| view.camera.server == server_id("recorder-1"))
            .collect(),
        other => panic!("{other:?}"),
    }
}

fn shown(rig: &mut Rig, camera: &CameraId) -> Option<Camera> {
    views(rig)
        .into_iter()
        .find(|view| view.camera.id == *camera)
        .map(|view| view.camera)
}

/// The recording server is back and has everything; the copies are erased.
fn end(rig: &mut Rig) {
    rig.wake("recorder-1");
    rig.pass(Duration::from_millis(1500));
    rig.obeys("recorder-1");
    hand_back(rig);
}

fn hand_back(rig: &mut Rig) {
    let server = rig.newest().stand_in.expect("somebody stood in").to_string();
    rig.obeys(&server);
    rig.obeys("recorder-1");
    let epoch = rig.assignment("recorder-1").epoch;
    rig.restoration(epoch, 10, true);
    rig.obeys(&server);
    assert_eq!(rig.phase(), Phase::Completed);
}

fn dropped(rig: &Rig) -> Vec<TemporaryChange> {
    let told = rig.events.iter().find_map(|event| match event {
        Event::FailoverCompleted { dropped, .. } => Some(dropped.clone()),
        _ => None,
    });
    told.expect("it was told")
}

#[test]
fn e13_g6_changes_hold_for_the_failover_server_until_the_end_and_are_named_then() {
    // Given a failover that serves,
    let mut rig = Rig::serving(automatic());
    let before = films(&rig, "failover-1");
    // when a camera is renamed, one added and one removed,
    rig.ok(rename(1, "Gate"));
    rig.ok(Request::AddCameras(vec![camera("recorder-1", 9)]));
    rig.ok(Request::RemoveCamera(id(2)));
    // then the failover server films by that, staged before its assignment,
    let now = films(&rig, "failover-1");
    let names: Vec<&str> = now.cameras.iter().map(|camera| camera.name.as_str()).collect();
    assert_eq!(names, ["Gate", "camera 3", "camera 9"]);
    assert!(
        rig.staged
            .iter()
            .any(|(to, bundle)| *to == server_id("failover-1") && *bundle == now)
    );
    assert!(
        !rig.staged.iter().any(|(to, _)| *to == server_id("recorder-1")),
        "for the failover server only"
    );
    // and people see it so,
    assert_eq!(shown(&mut rig, &id(1)).expect("it is there").name, "Gate");
    assert_eq!(shown(&mut rig, &id(2)), None);
    let added = views(&mut rig)
        .into_iter()
        .find(|view| view.camera.id == id(9))
        .expect("it is there");
    assert!(added.temporary);
    assert_eq!(added.filmed_by, Some(server_id("failover-1")));
    // also after a restart of the host.
    rig.restart();
    assert_eq!(films(&rig, "failover-1"), now);
    // When the recording server is back, it films by the settings of before, byte for byte,
    rig.obeys("failover-1");
    rig.wake("recorder-1");
    rig.pass(Duration::from_millis(1500));
    assert_eq!(films(&rig, "recorder-1").canonical(), before.canonical());
    rig.obeys("recorder-1");
    hand_back(&mut rig);
    assert_eq!(films(&rig, "recorder-1").canonical(), before.canonical());
    assert_eq!(shown(&mut rig, &id(1)).expect("it is there").name, "camera 1");
    assert!(shown(&mut rig, &id(2)).is_some());
    assert_eq!(shown(&mut rig, &id(9)), None);
    // and what was dropped is told, and stays to be seen.
    let told = dropped(&rig);
    let kinds: Vec<_> = told
        .iter()
        .map(|each| (each.camera.clone(), each.change))
        .collect();
    assert_eq!(
        kinds,
        [
            (Some(id(1)), ChangeKind::Edited),
            (Some(id(2)), ChangeKind::Removed),
            (Some(id(9)), ChangeKind::Added)
        ]
    );
    assert_eq!(rig.newest().overlay, told);
    assert!(
        rig.newest()
            .steps
            .last()
            .is_some_and(|step| step.what.contains("3 change(s)"))
    );
}

#[test]
fn e13_what_changed_a_device_is_offered_at_the_end_and_applied() {
    let mut rig = Rig::serving(automatic());
    rig.ok(new_password(1));
    rig.ok(rename(1, "Gate"));
    rig.obeys("failover-1");
    end(&mut rig);
    // The offer is named at the end, without the password, and stays until it is answered.
    let told = dropped(&rig);
    let offer = told[0].offer.clone().expect("an offer");
    assert_eq!(
        (offer.state, offer.username.as_deref()),
        (OfferState::Open, Some("admin"))
    );
    assert!(!serde_json::to_string(&told).expect("JSON").contains("new-secret"));
    rig.restart();
    rig.pass(Duration::from_secs(3600));
    let failover = rig.newest().id;
    rig.ok(answer(&failover, true));
    let first = films(&rig, "recorder-1").cameras.remove(0);
    let password = first.credentials.expect("some").password;
    assert_eq!(
        (password.as_str(), first.name.as_str()),
        ("new-secret", "camera 1")
    );
    // It is answered once.
    assert_eq!(
        rig.newest().overlay[0].offer.as_ref().map(|each| each.state),
        Some(OfferState::Applied)
    );
    assert_eq!(rig.refused(answer(&failover, false)).status, 409);
}

#[test]
fn e13_an_offer_that_is_dropped_changes_nothing() {
    let mut rig = Rig::serving(automatic());
    let before = films(&rig, "failover-1");
    rig.ok(new_password(1));
    rig.obeys("failover-1");
    end(&mut rig);
    let failover = rig.newest().id;
    let unknown = Request::AnswerOffers {
        failover: failover.clone(),
        cameras: vec![id(3)],
        apply: true,
        by: "anna".to_owned(),
    };
    let refused = rig.refused(unknown);
    assert!(
        refused.detail.contains("open are: recorder-1-cam-1"),
        "{}",
        refused.detail
    );
    rig.ok(answer(&failover, false));
    assert_eq!(films(&rig, "recorder-1"), before);
    assert_eq!(rig.refused(answer(&failover, true)).status, 409);
}

#[test]
fn e13_an_offer_may_be_applied_before_the_end_so_that_no_frame_waits_for_it() {
    let mut rig = Rig::serving(automatic());
    rig.ok(new_password(1));
    let failover = rig.newest().id;
    rig.ok(answer(&failover, true));
    rig.obeys("failover-1");
    rig.wake("recorder-1");
    rig.pass(Duration::from_millis(1500));
    let first = films(&rig, "recorder-1").cameras.remove(0);
    assert!(first.credentials.is_some(), "it can sign in when it returns");
    rig.obeys("recorder-1");
    hand_back(&mut rig);
    assert_eq!(dropped(&rig), [], "nothing was dropped");
}

#[test]
fn e13_an_address_that_was_tried_out_is_no_offer_if_the_person_says_so() {
    let mut rig = Rig::serving(automatic());
    let elsewhere = |in_device| {
        edit(
            1,
            CameraEdit {
                url: Some("rtsp://elsewhere.test/".to_owned()),
                in_device,
                ..CameraEdit::default()
            },
        )
    };
    rig.ok(elsewhere(Some(false)));
    assert_eq!(rig.newest().overlay[0].offer, None);
    let wrong = CameraEdit {
        priority: Some(3),
        in_device: Some(true),
        ..CameraEdit::default()
    };
    assert_eq!(rig.refused(edit(1, wrong)).status, 400);
    // Set back to what it was, it is no change at all.
    let back = CameraEdit {
        url: Some(camera("recorder-1", 1).url),
        ..CameraEdit::default()
    };
    rig.ok(edit(1, back));
    assert_eq!(rig.newest().overlay, []);
}

#[test]
fn e13_another_failover_server_takes_the_changes_over() {
    let mut rig = Rig::serving(automatic());
    rig.ok(rename(1, "Gate"));
    rig.obeys("failover-1");
    let now = films(&rig, "failover-1");
    rig.silence("failover-1");
    rig.pass(Duration::from_secs(3));
    assert_eq!(rig.newest().stand_in, Some(server_id("failover-2")));
    assert_eq!(films(&rig, "failover-2"), now);
    assert!(
        rig.staged
            .iter()
            .any(|(to, bundle)| *to == server_id("failover-2") && *bundle == now)
    );
}

#[test]
fn e13_a_recording_server_that_fails_again_is_stood_in_for_by_the_changes_again() {
    let mut rig = Rig::serving(automatic());
    rig.ok(rename(1, "Gate"));
    rig.ok(rename(2, "Yard"));
    rig.obeys("failover-1");
    rig.wake("recorder-1");
    rig.pass(Duration::from_millis(1500));
    rig.obeys("recorder-1");
    rig.obeys("failover-1");
    assert_eq!(rig.phase(), Phase::Restoring);
    // It films by itself again: what is changed now is changed for good.
    rig.ok(rename(2, "Dock"));
    assert_eq!(films(&rig, "recorder-1").cameras[1].name, "Dock");
    assert_eq!(shown(&mut rig, &id(1)).expect("it is there").name, "camera 1");
    rig.silence("recorder-1");
    rig.pass(Duration::from_secs(3));
    let again = films(&rig, "failover-1");
    let names: Vec<&str> = again.cameras.iter().map(|camera| camera.name.as_str()).collect();
    assert_eq!(names, ["Gate", "Dock", "camera 3"]);
    rig.obeys("failover-1");
    // After its second fault it has to stay well for longer.
    rig.wake("recorder-1");
    rig.pass(Duration::from_secs(6));
    end(&mut rig);
    let names: Vec<String> = films(&rig, "recorder-1")
        .cameras
        .into_iter()
        .map(|camera| camera.name)
        .collect();
    assert_eq!(names, ["camera 1", "Dock", "camera 3"]);
}

#[test]
fn e13_what_is_changed_before_somebody_takes_over_is_the_recording_servers_own() {
    let mut rig = Rig::new(automatic(), &[("failover-1", 3)]);
    rig.silence("failover-1");
    rig.silence("recorder-1");
    rig.pass(Duration::from_secs(3));
    assert_eq!(rig.phase(), Phase::Selecting);
    rig.ok(rename(1, "Gate"));
    rig.wake("failover-1");
    rig.pass(Duration::from_secs(1));
    rig.obeys("failover-1");
    assert_eq!(films(&rig, "failover-1").cameras[0].name, "Gate");
    end(&mut rig);
    assert_eq!(films(&rig, "recorder-1").cameras[0].name, "Gate");
}

#[test]
fn e13_an_interrupted_failover_says_what_of_it_was_dropped() {
    let mut rig = Rig::serving(automatic());
    rig.ok(new_password(1));
    let remove = Request::RemoveServer(server_id("failover-1"));
    rig.confirm(remove);
    let told = rig.events.iter().find_map(|event| match event {
        Event::FailoverAborted {
            dropped, failover, ..
        } => Some((dropped.clone(), failover.clone())),
        _ => None,
    });
    let (told, failover) = told.expect("it was told");
    assert_eq!(told[0].fields, [CameraField::Credentials].into());
    rig.ok(answer(&failover, true));
    assert!(
        rig.fleet
            .camera(&id(1))
            .expect("it is there")
            .credentials
            .is_some()
    );
}

#[test]
fn e12_a_camera_too_many_during_a_failover_is_disabled_by_priority() {
    // failover-1 has room for three.
    let mut rig = Rig::serving(automatic());
    let mut important = camera("recorder-1", 9);
    important.priority = 5;
    rig.ok(Request::AddCameras(vec![important]));
    assert_eq!(rig.newest().disabled, [id(3)]);
    let Role::Films(role) = rig.role("failover-1") else {
        panic!("it serves")
    };
    assert_eq!(role.disabled, [id(3)].into());
    rig.ok(Request::RemoveCamera(id(9)));
    assert_eq!(rig.newest().disabled, [] as [CameraId; 0]);
    assert_eq!(rig.newest().overlay, []);
}

#[test]
fn e11_e13_a_new_name_is_borne_until_the_end() {
    let mut rig = Rig::serving(automatic());
    let rename = Request::EditServer {
        server: server_id("recorder-1"),
        edit: ServerEdit {
            name: Some("Harbour".to_owned()),
            sync_address: Some("http://recorder-1.test:9001".to_owned()),
            ..ServerEdit::default()
        },
    };
    let Reply::Server(view) = rig.ok(rename) else {
        panic!("a server")
    };
    assert_eq!(view.server.name, "Harbour");
    assert_eq!(films(&rig, "failover-1").name, "Harbour");
    rig.obeys("failover-1");
    end(&mut rig);
    let Reply::Servers(views) = rig.ok(Request::ListServers) else {
        panic!("servers")
    };
    let view = views
        .into_iter()
        .find(|view| view.server.id == server_id("recorder-1"));
    let server = view.expect("it is there").server;
    // Where the machine is reached is no setting of its identity.
    assert_eq!(
        (server.name.as_str(), server.sync_address.as_str()),
        ("recorder-1", "http://recorder-1.test:9001")
    );
}

#[test]
fn e13_an_id_belongs_to_one_camera_whatever_goes_on() {
    let mut rig = Rig::serving(automatic());
    rig.ok(Request::RemoveCamera(id(2)));
    let mut moved = camera("recorder-1", 2);
    moved.server = server_id("recorder-2");
    assert_eq!(
        rig.refused(Request::AddCameras(vec![moved])).status,
        409,
        "it comes back at the end"
    );
    rig.ok(Request::AddCameras(vec![camera("recorder-1", 9)]));
    let mut same = camera("recorder-1", 9);
    same.server = server_id("recorder-2");
    assert_eq!(rig.refused(Request::AddCameras(vec![same])).status, 409);
    // The same again is no error.
    rig.ok(Request::AddCameras(vec![camera("recorder-1", 9)]));
}
