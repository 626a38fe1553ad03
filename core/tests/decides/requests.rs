//! What people ask for, and what is refused with a reason.

use std::time::Duration;

use understudy_core::{
    assignment::Role,
    camera::{Camera, Credentials, Transport},
    contract::{
        api::{CameraEdit, CameraField, Phase, Problem, ServerEdit, StartMode},
        rpc::{OrchestratorReply as Reply, OrchestratorRequest as Request},
    },
    coverage,
    failover::Holding,
    fleet::Input,
    policy::{Failback, Pairing, Policy},
    server::Mode,
};

use crate::rig::{Rig, automatic, camera, server, server_id};

fn start(server: &str, stand_in: Option<&str>) -> Request {
    Request::StartFailover {
        server: server_id(server),
        stand_in: stand_in.map(server_id),
        by: "anna".to_owned(),
        mode: StartMode::Manual,
    }
}

#[test]
fn c6_a_person_may_choose_the_failover_server() {
    let mut rig = Rig::new(Policy::default(), &[("failover-1", 3), ("failover-2", 9)]);
    rig.ok(start("recorder-1", Some("failover-2")));
    assert!(matches!(rig.role("failover-2"), Role::Films(_)));
    let busy = rig.refused(start("recorder-2", Some("failover-2")));
    assert_eq!(busy.status, 409);
    assert!(busy.detail.contains("serves recorder-1"), "{}", busy.detail);
    let twice = rig.refused(start("recorder-1", None));
    assert_eq!(twice.status, 409);
    rig.silence("failover-1");
    rig.monitor_speaks();
    let gone = rig.refused(start("recorder-2", Some("failover-1")));
    assert!(gone.detail.contains("is not heard"), "{}", gone.detail);
}

#[test]
fn c6_a_person_may_let_the_system_choose_and_end_it() {
    let mut rig = Rig::new(Policy::default(), &[("failover-1", 3), ("failover-2", 9)]);
    rig.ok(start("recorder-1", None));
    assert_eq!(rig.newest().detection_ms, 0);
    rig.obeys("failover-1");
    assert_eq!(rig.phase(), Phase::Serving);
    rig.pass(Duration::from_secs(20));
    assert_eq!(rig.phase(), Phase::Serving, "a manual one ends by hand only");
    rig.ok(Request::StopFailover {
        server: server_id("recorder-1"),
        by: "anna".to_owned(),
    });
    rig.obeys("recorder-1");
    assert_eq!(rig.phase(), Phase::Restoring);
}

/// Everything that interrupts a failover of recorder-1, for which failover-1 serves.
fn interrupting() -> Vec<Request> {
    let recorder = server_id("recorder-1");
    let off = ServerEdit {
        enabled: Some(false),
        ..ServerEdit::default()
    };
    vec![
        Request::RemoveServer(recorder.clone()),
        Request::RemoveServer(server_id("failover-1")),
        Request::EditServer {
            server: recorder.clone(),
            edit: off.clone(),
        },
        Request::EditServer {
            server: server_id("failover-1"),
            edit: off,
        },
        Request::SetPairing {
            server: recorder.clone(),
            pairing: Pairing::default(),
        },
        Request::SetPolicy {
            server: recorder,
            policy: Policy::default(),
        },
    ]
}

fn confirmed(request: &Request, problem: &Problem) -> Request {
    Request::Confirmed {
        confirmation: problem.confirmation.clone().expect("a token"),
        request: Box::new(request.clone()),
    }
}

#[test]
fn g7_what_would_interrupt_a_failover_is_done_only_when_confirmed() {
    for request in interrupting() {
        // Given a failover that serves, and its recording server not heard,
        let mut rig = Rig::serving(automatic());
        // when somebody asks for what would interrupt it, nothing happens but a warning that says what it costs;
        let before = rig.assignment("failover-1");
        let warned = rig.refused(request.clone());
        assert_eq!(
            (warned.status, warned.kind.as_str()),
            (409, "urn:understudy:problem:to-be-confirmed"),
            "{request:?}"
        );
        for part in ["failover-1 recorded", "is not heard", "stop the failover"] {
            assert!(warned.detail.contains(part), "{request:?}: {}", warned.detail);
        }
        assert_eq!(
            (rig.phase(), rig.assignment("failover-1")),
            (Phase::Serving, before)
        );
        // asked again with the token it is done, and the failover server's data of it is erased.
        rig.ok(confirmed(&request, &warned));
        let failover = rig.fleet.failovers().next().expect("it was there").clone();
        assert_eq!(failover.phase, Phase::Aborted, "{request:?}");
        assert!(failover.given_up.contains("failover-1"), "{}", failover.given_up);
        let last = rig.last_assignment("failover-1");
        assert_eq!(last.role, Role::Standby, "{request:?}");
        assert!(last.erase.contains(&failover.id), "{request:?}: {last:?}");
        assert!(rig.event_names().contains(&"failover.aborted"));
    }
}

#[test]
fn g7_a_confirmation_is_good_for_what_was_shown_and_nothing_else() {
    let mut rig = Rig::serving(automatic());
    let requests = interrupting();
    let warned = rig.refused(requests[0].clone());
    // Not for another request,
    let other = rig.refused(confirmed(&requests[5], &warned));
    assert_ne!(other.confirmation, warned.confirmation);
    // nor once the failover has gone on.
    rig.wake("recorder-1");
    rig.pass(Duration::from_millis(1500));
    rig.obeys("recorder-1");
    assert_eq!(rig.phase(), Phase::Restoring);
    let later = rig.refused(confirmed(&requests[0], &warned));
    assert!(later.detail.contains("not the one"), "{}", later.detail);
    // It survives a restart of the host, since nothing is remembered for it.
    rig.restart();
    rig.ok(confirmed(&requests[0], &later));
}

#[test]
fn g7_an_interrupted_failover_begins_anew_while_its_reason_holds() {
    let mut rig = Rig::serving(automatic());
    let shorter = Request::SetPolicy {
        server: server_id("recorder-1"),
        policy: Policy {
            disconnection_ms: 2000,
            ..automatic()
        },
    };
    let warned = rig.refused(shorter.clone());
    rig.ok(confirmed(&shorter, &warned));
    rig.pass(Duration::from_secs(3));
    let phases: Vec<Phase> = rig.fleet.failovers().map(|failover| failover.phase).collect();
    assert_eq!(phases.len(), 2, "{phases:?}");
    assert!(
        phases.contains(&Phase::TakingOver),
        "{phases:?}: failover-2 is free"
    );
    rig.obeys("failover-1");
    rig.obeys("failover-2");
    assert!(
        rig.fleet
            .failovers()
            .any(|failover| failover.phase == Phase::Serving)
    );
    let settled = rig
        .fleet
        .failovers()
        .find(|failover| failover.phase == Phase::Aborted);
    assert!(settled.is_some_and(|failover| failover.holders[0].holding == Holding::Done));
}

#[test]
fn b5_a_server_is_edited_and_switched_off_and_on() {
    let mut rig = Rig::new(automatic(), &[("failover-1", 3)]);
    let edit = |server: &str, edit: ServerEdit| Request::EditServer {
        server: server_id(server),
        edit,
    };
    let Reply::Server(view) = rig.ok(edit(
        "recorder-1",
        ServerEdit {
            name: Some("Gate".to_owned()),
            max_cameras: Some(40),
            ..ServerEdit::default()
        },
    )) else {
        panic!("a server")
    };
    assert!(view.label.starts_with("Gate ("), "{}", view.label);
    assert!(view.label.ends_with("/40)"), "{}", view.label);
    let wrong = rig.refused(edit(
        "recorder-1",
        ServerEdit {
            max_cameras: Some(0),
            ..ServerEdit::default()
        },
    ));
    assert_eq!(wrong.status, 400);
    // A failover server without a part in a failover is switched off at once, and is not chosen.
    let enabled = |on: bool| ServerEdit {
        enabled: Some(on),
        ..ServerEdit::default()
    };
    rig.ok(edit("failover-1", enabled(false)));
    rig.silence("recorder-1");
    rig.pass(Duration::from_secs(3));
    assert_eq!(rig.phase(), Phase::Selecting);
    assert!(
        rig.newest().waits_for.contains("switched off"),
        "{}",
        rig.newest().waits_for
    );
    rig.ok(edit("failover-1", enabled(true)));
    assert_eq!(rig.phase(), Phase::TakingOver);
    // A recording server that films is switched off only when that is confirmed.
    let off = edit("recorder-2", enabled(false));
    let warned = rig.refused(off.clone());
    assert!(warned.detail.contains("films none"), "{}", warned.detail);
    rig.ok(confirmed(&off, &warned));
    assert_eq!(rig.role("recorder-2"), Role::Standby);
    rig.ok(edit("recorder-2", enabled(true)));
    assert!(matches!(rig.role("recorder-2"), Role::Films(_)));
}

#[test]
fn a3_a_failover_that_waits_is_helped_by_pairing_a_free_server() {
    let mut rig = Rig::new(automatic(), &[("failover-1", 3), ("failover-2", 9)]);
    let recorder = server_id("recorder-1");
    let only = |id: &str| Request::SetPairing {
        server: server_id("recorder-1"),
        pairing: Pairing::Servers([server_id(id)].into()),
    };
    rig.ok(only("failover-1"));
    rig.silence("failover-1");
    rig.silence("recorder-1");
    rig.pass(Duration::from_secs(3));
    assert_eq!(rig.phase(), Phase::Selecting);
    rig.ok(Request::SetPolicy {
        server: recorder,
        policy: Policy {
            failback: Failback::Remove,
            ..automatic()
        },
    });
    rig.ok(only("failover-2"));
    assert_eq!(rig.phase(), Phase::TakingOver);
    assert!(matches!(rig.role("failover-2"), Role::Films(_)));
    rig.refused(only("failover-1"));
    let failover = rig.fleet.failovers().next().expect("it began");
    assert_eq!(
        failover.failback,
        Failback::Remove,
        "nothing was done by the old policy yet"
    );
}

#[test]
fn an_edit_without_a_password_keeps_the_known_one() {
    let mut rig = Rig::new(automatic(), &[("failover-1", 3)]);
    let credentials = |username: &str, password: &str| Credentials {
        username: username.to_owned(),
        password: password.to_owned(),
    };
    let mut locked = camera("recorder-1", 4);
    locked.credentials = Some(credentials("admin", "hunter2"));
    let id = locked.id.clone();
    rig.ok(Request::AddCameras(vec![locked]));
    let edit = |credentials: Credentials| Request::EditCamera {
        camera: camera("recorder-1", 4).id,
        edit: CameraEdit {
            credentials: Some(credentials),
            ..CameraEdit::default()
        },
    };
    let known = |rig: &Rig| rig.fleet.camera(&id).expect("it is there").credentials.clone();
    // As it is shown: without its password.
    rig.ok(edit(credentials("admin", "")));
    assert!(known(&rig) == Some(credentials("admin", "hunter2")));
    rig.ok(edit(credentials("operator", "")));
    assert!(known(&rig) == Some(credentials("operator", "hunter2")));
    rig.ok(edit(credentials("operator", "new")));
    assert!(known(&rig) == Some(credentials("operator", "new")));
    rig.ok(edit(credentials("", "")));
    assert!(known(&rig).is_none(), "it asks for none any more");
    let problem = rig.refused(edit(credentials("operator", "")));
    assert!(problem.detail.contains("password"), "{}", problem.detail);
    let mut half = camera("recorder-1", 5);
    half.credentials = Some(credentials("admin", ""));
    let problem = rig.refused(Request::AddCameras(vec![half]));
    assert_eq!(problem.status, 400);
    assert!(problem.detail.contains("no password"), "{}", problem.detail);
}

#[test]
fn a7_a_host_is_never_protected_by_a_failover_server_and_says_so() {
    let mut rig = Rig::new(automatic(), &[("failover-1", 3)]);
    rig.ok(Request::AddServer(server("host", Mode::Host, 0)));
    let host = server_id("host");
    let asked = [
        Request::SetPairing {
            server: host.clone(),
            pairing: Pairing::All,
        },
        Request::SetPolicy {
            server: host.clone(),
            policy: automatic(),
        },
        start("host", None),
    ];
    for request in asked {
        assert!(rig.refused(request).detail.contains("second host"));
    }
}

#[test]
fn bad_input_is_refused_with_a_reason() {
    let mut rig = Rig::new(automatic(), &[("failover-1", 3)]);
    let mut secret = camera("recorder-1", 8);
    secret.url = "rtsp://admin:hunter2@camera.test/1".to_owned();
    let problem = rig.refused(Request::AddCameras(vec![secret]));
    assert!(problem.detail.contains("credentials") && !problem.detail.contains("hunter2"));
    let mut web = camera("recorder-1", 8);
    web.url = "http://camera.test/1".to_owned();
    assert_eq!(rig.refused(Request::AddCameras(vec![web])).status, 400);
    let on_stand_in = camera("failover-1", 1);
    assert_eq!(rig.refused(Request::AddCameras(vec![on_stand_in])).status, 400);
    let twice = vec![camera("recorder-1", 8), camera("recorder-1", 8)];
    assert!(rig.refused(Request::AddCameras(twice)).detail.contains("twice"));
    let lost = camera("nobody", 1);
    assert_eq!(rig.refused(Request::AddCameras(vec![lost])).status, 404);
    let other = server("failover-1", Mode::Failover, 99);
    assert_eq!(rig.refused(Request::AddServer(other)).status, 409);
    rig.ok(Request::AddServer(server("failover-1", Mode::Failover, 3)));
    let no_room = server("failover-9", Mode::Failover, 0);
    assert_eq!(rig.refused(Request::AddServer(no_room)).status, 400);
    let pairing = |ids: &[&str]| Request::SetPairing {
        server: server_id("recorder-1"),
        pairing: Pairing::Servers(ids.iter().map(|id| server_id(id)).collect()),
    };
    assert_eq!(rig.refused(pairing(&["recorder-2"])).status, 400);
    assert_eq!(rig.refused(pairing(&["nobody"])).status, 404);
    let policy = |disconnection_ms| Request::SetPolicy {
        server: server_id("recorder-1"),
        policy: Policy {
            disconnection_ms,
            ..automatic()
        },
    };
    assert_eq!(rig.refused(policy(999)).status, 400);
    assert_eq!(rig.refused(policy(3_600_001)).status, 400);
    assert!(rig.sent.is_empty(), "nothing of it had an effect");
}

#[test]
fn a6_all_servers_means_those_added_later_too() {
    let mut rig = Rig::new(automatic(), &[("failover-1", 3)]);
    rig.ok(Request::AddServer(server("failover-2", Mode::Failover, 9)));
    let to_new = rig.staged.iter().filter(|(to, _)| *to == server_id("failover-2"));
    assert_eq!(
        to_new.count(),
        2,
        "it gets the settings of both before anything breaks"
    );
}

#[test]
fn settings_are_staged_when_they_change_and_to_whoever_lacks_them() {
    let mut rig = Rig::new(automatic(), &[("failover-1", 3)]);
    rig.pass(Duration::from_secs(6));
    rig.forget();
    rig.ok(Request::AddCameras(vec![camera("recorder-1", 7)]));
    let receivers: Vec<String> = rig.staged.iter().map(|(to, _)| to.to_string()).collect();
    assert_eq!(receivers, ["failover-1", "recorder-1"]);
    assert!(matches!(rig.role("recorder-1"), Role::Films(films) if films.settings == rig.staged[0].1.hash()));
    rig.pass(Duration::from_secs(6));
    rig.forget();
    rig.obeys("failover-1");
    assert_eq!(rig.staged.len(), 2, "it said that it has none");
}

#[test]
fn b5_a_server_shows_its_cameras_and_its_maximum_and_no_password_is_shown() {
    let mut rig = Rig::new(automatic(), &[("failover-1", 3)]);
    let mut locked = camera("recorder-1", 4);
    locked.credentials = Some(Credentials {
        username: "admin".to_owned(),
        password: "hunter2".to_owned(),
    });
    rig.ok(Request::AddCameras(vec![locked]));
    let Reply::Servers(servers) = rig.ok(Request::ListServers) else {
        panic!("servers")
    };
    let recorder = servers
        .iter()
        .find(|view| view.server.id == server_id("recorder-1"));
    let recorder = recorder.expect("it is enrolled");
    assert_eq!(recorder.label, "recorder-1 (4/10)");
    assert!(recorder.protected);
    assert!(
        recorder
            .warnings
            .iter()
            .any(|each| each.contains("1 would be disabled"))
    );
    let Reply::Cameras(cameras) = rig.ok(Request::ListCameras) else {
        panic!("cameras")
    };
    let shown = serde_json::to_string(&cameras).expect("JSON");
    assert!(shown.contains("admin") && !shown.contains("hunter2"));
}

#[test]
fn a8_a_domain_without_a_failover_server_is_shown_as_a_gap() {
    let mut rig = Rig::new(automatic(), &[("failover-1", 3)]);
    let mut far = server("recorder-9", Mode::Recording, 5);
    far.domain = understudy_core::ids::DomainId::new("west").expect("an id");
    rig.ok(Request::AddServer(far));
    let Reply::Domains(domains) = rig.ok(Request::ListDomains) else {
        panic!("domains")
    };
    let gaps: Vec<usize> = domains.iter().map(|domain| domain.gaps.len()).collect();
    assert_eq!(gaps, [0, 1]);

    // One that is switched off stands in for nobody.
    let mut off = server("failover-1", Mode::Failover, 5);
    off.enabled = false;
    let gaps = coverage::domains([&off, &server("recorder-1", Mode::Recording, 5)]);
    assert!(
        gaps[0].gaps[0].contains("no failover server that is switched on"),
        "{gaps:?}"
    );
    let mut unused = server("recorder-1", Mode::Recording, 5);
    unused.enabled = false;
    assert_eq!(coverage::domains([&unused])[0].gaps, Vec::<String>::new());
}

#[test]
fn a8_pairing_with_all_servers_warns_of_those_of_other_domains_and_names_a_few() {
    let mut rig = Rig::new(automatic(), &[("failover-1", 3)]);
    let warnings = |rig: &mut Rig| {
        let Reply::Servers(servers) = rig.ok(Request::ListServers) else {
            panic!("servers")
        };
        let view = servers
            .into_iter()
            .find(|view| view.server.id == server_id("recorder-1"));
        let mut warnings = view.expect("it is enrolled").warnings;
        warnings.retain(|warning| warning.contains("domain"));
        warnings
    };
    assert_eq!(warnings(&mut rig), [""; 0], "all of them are of its own");
    for number in 1..=5 {
        let mut far = server(&format!("far-{number}"), Mode::Failover, 5);
        far.domain = understudy_core::ids::DomainId::new("west").expect("an id");
        rig.ok(Request::AddServer(far));
        let said = warnings(&mut rig);
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(
            said[0].contains("far-1 (west)") && said[0].contains("out of their reach"),
            "{said:?}"
        );
        assert!(!said[0].contains("failover-1"), "{said:?}");
        assert_eq!(said[0].contains("and 2 more"), number == 5, "{said:?}");
    }
    // Whoever chooses is told of each that was chosen, and of no other.
    rig.ok(Request::SetPairing {
        server: server_id("recorder-1"),
        pairing: Pairing::Servers([server_id("far-2"), server_id("failover-1")].into()),
    });
    let said = warnings(&mut rig);
    assert!(
        said.len() == 1 && said[0].starts_with("far-2 is in another domain"),
        "{said:?}"
    );
}

#[test]
fn a_person_who_ends_a_failover_while_its_reason_holds_is_obeyed() {
    let mut rig = Rig::new(automatic(), &[("failover-1", 3)]);
    rig.silence("failover-1");
    rig.silence("recorder-1");
    rig.pass(Duration::from_secs(3));
    rig.ok(Request::StopFailover {
        server: server_id("recorder-1"),
        by: "anna".to_owned(),
    });
    assert_eq!(rig.phase(), Phase::Aborted);
    rig.pass(Duration::from_secs(10));
    assert_eq!(
        rig.fleet.failovers().count(),
        1,
        "it does not begin again at once"
    );
    rig.wake("recorder-1");
    rig.pass(Duration::from_secs(3));
    rig.silence("recorder-1");
    rig.pass(Duration::from_secs(3));
    assert_eq!(rig.fleet.failovers().count(), 2, "a new fault is a new reason");
}

#[test]
fn e1_settings_from_before_there_was_udp_keep_their_hash() {
    let before = r#"{"id":"recorder-1-cam-1","name":"camera 1","server":"recorder-1","url":"rtsp://camera-1.test/stream","credentials":null,"recording":"continuous","retention":{"max_age_seconds":null,"max_bytes":null},"priority":0,"max_sessions":null,"enabled":true}"#;
    let tcp = camera("recorder-1", 1);
    assert_eq!(serde_json::to_string(&tcp).expect("JSON"), before);
    let read: Camera = serde_json::from_str(before).expect("a camera");
    assert_eq!(read, tcp);
    let udp = Camera {
        transport: Transport::Udp,
        ..tcp.clone()
    };
    assert!(!udp.films_like(&tcp), "its session has to begin anew");
    assert_eq!(udp.differing_fields(&tcp), [CameraField::Transport].into());
    let sent = serde_json::to_string(&udp).expect("JSON");
    assert_eq!(serde_json::from_str::<Camera>(&sent).expect("a camera"), udp);
}

#[test]
fn d2_a_camera_is_watched_at_the_server_that_films_it() {
    let mut rig = Rig::new(Policy::default(), &[("failover-1", 9)]);
    rig.everybody_obeys();
    let relays = |rig: &mut Rig| {
        let Reply::Cameras(cameras) = rig.ok(Request::ListCameras) else {
            panic!("cameras")
        };
        let of_one = cameras
            .into_iter()
            .filter(|view| view.camera.server == server_id("recorder-1"));
        of_one.map(|view| view.relay).collect::<Vec<_>>()
    };
    let watched_at = |rig: &mut Rig, server: &str| {
        let mut report = rig.obedient(server);
        report.relay = Some(format!("rtsp://{server}:8555"));
        rig.step(Input::Reported(report));
    };
    assert!(relays(&mut rig).iter().all(Option::is_none), "none says where");
    watched_at(&mut rig, "recorder-1");
    assert_eq!(
        relays(&mut rig)[0].as_deref(),
        Some("rtsp://recorder-1:8555/recorder-1-cam-1")
    );
    rig.ok(start("recorder-1", Some("failover-1")));
    assert_eq!(relays(&mut rig)[0], None, "the failover server does not film yet");
    watched_at(&mut rig, "failover-1");
    assert_eq!(
        relays(&mut rig)[0].as_deref(),
        Some("rtsp://failover-1:8555/recorder-1-cam-1")
    );
}
