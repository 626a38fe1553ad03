//! Modes are switched through the host, and a server that becomes a failover server is erased: once, when confirmed.

use std::time::Duration;

use understudy_core::{
    assignment::{Assignment, Epoch, Role},
    contract::{
        api::{Phase, Problem, ServerEdit, ServerState, ServerView},
        rpc::{OrchestratorReply as Reply, OrchestratorRequest as Request},
    },
    ids::{ErasureId, FailoverId},
    reconcile::{Effect, Input, Persisted, Reconciler},
    server::Mode,
    time::Moment,
};

use crate::rig::{Rig, automatic, camera, server, server_id};

fn switch(id: &str, mode: Mode) -> Request {
    Request::EditServer {
        server: server_id(id),
        edit: ServerEdit {
            mode: Some(mode),
            ..ServerEdit::default()
        },
    }
}

fn confirm(rig: &mut Rig, request: Request) -> Problem {
    let warned = rig.refused(request.clone());
    rig.ok(Request::Confirmed {
        confirmation: warned.confirmation.clone().expect("a token"),
        request: Box::new(request),
    });
    warned
}

fn view(rig: &mut Rig, id: &str) -> ServerView {
    let Reply::Servers(views) = rig.ok(Request::ListServers) else {
        panic!("servers")
    };
    views
        .into_iter()
        .find(|view| view.server.id == server_id(id))
        .expect("it is there")
}

#[test]
fn b3_b6_a_recording_server_becomes_a_failover_server_and_is_erased_once() {
    // Given two recording servers at work,
    let mut rig = Rig::new(automatic(), &[("failover-1", 3)]);
    // when one is to be a failover server, nothing happens but a warning that names what goes;
    let before = rig.assignment("recorder-2");
    let warned = confirm(&mut rig, switch("recorder-2", Mode::Failover));
    for part in ["all of its data is erased", "3 camera(s)"] {
        assert!(warned.detail.contains(part), "{}", warned.detail);
    }
    assert!(matches!(before.role, Role::Films(_)));
    // confirmed, it is ordered to erase everything, and its cameras are gone.
    let Role::Erases { erasure } = rig.role("recorder-2") else {
        panic!("{:?}", rig.role("recorder-2"))
    };
    assert!(rig.fleet.camera(&camera("recorder-2", 1).id).is_none());
    assert_eq!(view(&mut rig, "recorder-2").state, ServerState::Changing);
    // Until it says that it did, it stands in for nobody; the order survives the host, and stays the same one.
    rig.restart();
    rig.silence("failover-1");
    rig.silence("recorder-1");
    rig.pass(Duration::from_secs(3));
    assert_eq!(rig.phase(), Phase::Selecting);
    assert!(
        rig.newest().waits_for.contains("erase its data"),
        "{}",
        rig.newest().waits_for
    );
    assert_eq!(rig.role("recorder-2"), Role::Erases { erasure });
    // Then it is a failover server like any other.
    rig.obeys("recorder-2");
    assert_eq!(rig.newest().stand_in, Some(server_id("recorder-2")));
    assert!(matches!(rig.role("recorder-2"), Role::Films(_)));
    rig.restart();
    assert!(
        matches!(rig.role("recorder-2"), Role::Films(_)),
        "it is not erased again"
    );
}

#[test]
fn b6_an_inactive_server_films_nothing_and_comes_back_with_its_cameras() {
    let mut rig = Rig::new(automatic(), &[("failover-1", 3)]);
    let warned = confirm(&mut rig, switch("recorder-2", Mode::Inactive));
    assert!(warned.detail.contains("films 3 camera(s)"), "{}", warned.detail);
    assert_eq!(rig.role("recorder-2"), Role::Standby);
    rig.obeys("recorder-2");
    // Nobody stands in for it.
    rig.silence("recorder-2");
    rig.pass(Duration::from_secs(5));
    assert_eq!(rig.fleet.failovers().count(), 0);
    rig.wake("recorder-2");
    rig.ok(switch("recorder-2", Mode::Recording));
    rig.obeys("recorder-2");
    assert_eq!(
        (
            view(&mut rig, "recorder-2").filming,
            view(&mut rig, "recorder-2").state
        ),
        (3, ServerState::Normal)
    );
    // A failover server that is not active is not chosen, and needs no word to be taken out.
    assert!(view(&mut rig, "recorder-2").protected);
    rig.ok(switch("failover-1", Mode::Inactive));
    assert!(!view(&mut rig, "recorder-2").protected);
    rig.silence("recorder-2");
    rig.pass(Duration::from_secs(3));
    assert_eq!(rig.role("failover-1"), Role::Standby);
}

#[test]
fn b3_an_order_to_erase_is_called_off_by_another_mode() {
    let mut rig = Rig::new(automatic(), &[("failover-1", 3)]);
    confirm(&mut rig, switch("recorder-2", Mode::Failover));
    rig.ok(switch("recorder-2", Mode::Recording));
    assert!(matches!(rig.role("recorder-2"), Role::Films(_)));
    rig.restart();
    assert!(matches!(rig.role("recorder-2"), Role::Films(_)));
}

#[test]
fn g7_b6_switching_a_mode_during_a_failover_interrupts_it_once_confirmed() {
    for (id, mode) in [
        ("recorder-1", Mode::Inactive),
        ("recorder-1", Mode::Failover),
        ("failover-1", Mode::Inactive),
        ("failover-1", Mode::Recording),
    ] {
        let mut rig = Rig::serving(automatic());
        let warned = confirm(&mut rig, switch(id, mode));
        assert!(
            warned.detail.contains("would be interrupted"),
            "{id} {mode:?}: {}",
            warned.detail
        );
        let first = rig.fleet.failovers().next().expect("it was there");
        assert_eq!(first.phase, Phase::Aborted, "{id} {mode:?}");
        assert_eq!(view(&mut rig, id).server.mode, mode);
    }
}

#[test]
fn a7_b6_no_server_becomes_a_host_and_a_host_nothing_else() {
    let mut rig = Rig::new(automatic(), &[("failover-1", 3)]);
    rig.ok(Request::AddServer(server("host-1", Mode::Host, 1)));
    for request in [switch("recorder-1", Mode::Host), switch("host-1", Mode::Failover)] {
        assert_eq!(rig.refused(request).status, 400);
    }
}

#[test]
fn b3_a_failover_server_is_erased_by_hand_and_a_recording_server_is_not() {
    let mut rig = Rig::new(automatic(), &[("failover-1", 3)]);
    let refused = rig.refused(Request::EraseServer(server_id("recorder-1")));
    assert_eq!((refused.status, refused.confirmation), (409, None));
    confirm(&mut rig, Request::EraseServer(server_id("failover-1")));
    let Role::Erases { erasure } = rig.role("failover-1") else {
        panic!("it erases")
    };
    rig.obeys("failover-1");
    assert_eq!(rig.role("failover-1"), Role::Standby);
    // The next order is another one.
    confirm(&mut rig, Request::EraseServer(server_id("failover-1")));
    assert_ne!(rig.role("failover-1"), Role::Erases { erasure });
}

#[test]
fn b3_a_server_carries_an_order_out_once_and_only_what_it_is_assigned() {
    let erases = |number, order: &str| Assignment {
        server: server_id("failover-1"),
        epoch: Epoch { term: 0, number },
        role: Role::Erases {
            erasure: ErasureId::new(order).expect("an id"),
        },
        ..rig_assignment()
    };
    let orders = |effects: &[Effect]| {
        effects
            .iter()
            .filter(|effect| matches!(effect, Effect::EraseAll(_)))
            .count()
    };
    let held = [FailoverId::new("f1").expect("an id")].into();
    let (mut server, _) = Reconciler::start(
        server_id("failover-1"),
        Persisted::default(),
        [],
        held,
        Moment::default(),
    );
    let now = Moment::default();
    assert_eq!(orders(&server.step(Input::Heard(erases(5, "e1")), now)), 1);
    for again in [erases(5, "e1"), erases(6, "e1")] {
        assert_eq!(
            orders(&server.step(Input::Heard(again), now)),
            0,
            "the same order"
        );
    }
    assert_eq!(orders(&server.step(Input::Tick, now)), 0);
    let report = |server: &Reconciler| server.report(rig_domain(), rig_incarnation(), 1, None);
    assert_eq!((report(&server).erased, report(&server).closed.len()), (None, 1));
    server.step(Input::ErasedAll(ErasureId::new("e1").expect("an id")), now);
    assert!(report(&server).erased.is_some() && report(&server).closed.is_empty());
    // An older assignment, and one for another server, order nothing.
    assert_eq!(orders(&server.step(Input::Heard(erases(4, "e2")), now)), 0);
    let other = Assignment {
        server: server_id("failover-2"),
        ..erases(9, "e2")
    };
    assert_eq!(orders(&server.step(Input::Heard(other), now)), 0);
    assert_eq!(orders(&server.step(Input::Heard(erases(7, "e2")), now)), 1);
}

fn rig_assignment() -> Assignment {
    Rig::new(automatic(), &[("failover-1", 3)]).assignment("failover-1")
}

fn rig_domain() -> understudy_core::ids::DomainId {
    understudy_core::ids::DomainId::new("east").expect("an id")
}

fn rig_incarnation() -> understudy_core::ids::Incarnation {
    understudy_core::ids::Incarnation::new("one").expect("an id")
}
