//! H: another server takes a failed recording server's place for good.

use std::{collections::BTreeSet, time::Duration};

use understudy_core::{
    assignment::{Epoch, Films, Role},
    contract::{
        api::{FailoverView, LicenseKind, Phase, Problem, ReplacementView, ServerState},
        event::Event,
        heartbeat::ServerReport,
        rpc::{LicenseRequest, OrchestratorReply as Reply, OrchestratorRequest as Request},
    },
    fleet::Input,
    ids::{FailoverId, LicenseKeyId},
    license::{Ledger, history::happenings, key::Payload},
    policy::{Failback, Pairing, Policy},
    server::Mode,
    time::Timestamp,
};

use crate::rig::{Rig, automatic, camera, server, server_id};

const SECOND: Duration = Duration::from_secs(1);

fn replace(successor: Option<&str>) -> Request {
    Request::Replace {
        server: server_id("recorder-1"),
        successor: successor.map(server_id),
        by: "anna".to_owned(),
    }
}

fn confirm(rig: &mut Rig, request: Request) -> FailoverView {
    match rig.confirm(request).1 {
        Reply::Failover(view) => *view,
        other => panic!("no failover: {other:?}"),
    }
}

fn offered(rig: &mut Rig) -> ReplacementView {
    match rig.ok(Request::GetReplacement(server_id("recorder-1"))) {
        Reply::Replacement(view) => view,
        other => panic!("no candidates: {other:?}"),
    }
}

/// A failover of recorder-1 that serves, and a recording server without cameras.
fn serving(policy: Policy) -> Rig {
    let mut rig = Rig::serving(policy);
    rig.ok(Request::AddServer(server("spare-1", Mode::Recording, 3)));
    rig.obeys("spare-1");
    rig.monitor_speaks();
    rig.forget();
    rig
}

fn films(rig: &Rig, id: &str) -> Films {
    match rig.role(id) {
        Role::Films(films) => films,
        other => panic!("{id} does not film: {other:?}"),
    }
}

/// What a server would report that has taken its assignment and still has recordings of the failover.
fn still_has(rig: &mut Rig, id: &str) -> ServerReport {
    let failover = rig.newest().id;
    let mut report = rig.obedient(id);
    report.closed.insert(failover);
    report
}

#[test]
fn h1_its_failover_server_and_servers_in_normal_state_with_room_and_no_cameras_are_offered() {
    let mut rig = serving(automatic());
    rig.ok(Request::AddServer(server("spare-2", Mode::Recording, 2)));
    rig.obeys("spare-2");
    rig.ok(Request::AddServer(server("spare-3", Mode::Recording, 9)));
    rig.monitor_speaks();
    let view = offered(&mut rig);
    let told: Vec<(&str, bool, &str)> = view
        .candidates
        .iter()
        .map(|each| (each.server.as_str(), each.offered, each.why.as_str()))
        .collect();
    assert_eq!(
        told,
        [
            (
                "failover-1",
                true,
                "films its cameras already, and has the recordings"
            ),
            ("recorder-2", false, "has 3 camera(s) of its own"),
            (
                "spare-1",
                true,
                "is in normal state, has room and no cameras of its own"
            ),
            ("spare-2", false, "has room for 2 camera(s), not for 3"),
            ("spare-3", false, "is changing, not in normal state"),
        ]
    );
    assert_eq!(
        (view.failover, view.refused.as_str()),
        (Some(rig.newest().id), "")
    );
    let problem = rig.refused(replace(Some("recorder-2")));
    assert!(problem.detail.contains("camera(s) of its own"), "{problem}");
    let problem = rig.refused(replace(Some("failover-2")));
    assert!(problem.detail.contains("neither"), "{problem}");
}

#[test]
fn h1_a_server_that_is_not_failed_over_is_not_replaced() {
    let mut rig = Rig::new(Policy::default(), &[("failover-1", 3)]);
    let problem = rig.refused(replace(Some("failover-1")));
    assert_eq!(problem.status, 409);
    assert!(problem.detail.contains("start a failover first"), "{problem}");
    let view = offered(&mut rig);
    assert!(view.refused.contains("start a failover first"), "{view:?}");
    // Nor is one that films again.
    let mut rig = Rig::restoring();
    let problem = rig.refused(replace(None));
    assert!(problem.detail.contains("hands back to it"), "{problem}");
}

#[test]
fn h1_a_failover_server_without_room_for_all_cameras_is_not_offered() {
    let mut rig = Rig::new(automatic(), &[("failover-1", 2)]);
    rig.silence("recorder-1");
    rig.pass(2 * SECOND);
    rig.obeys("failover-1");
    let view = offered(&mut rig);
    assert!(!view.candidates[0].offered, "{view:?}");
    assert!(view.candidates[0].why.contains("room for 2"), "{view:?}");
}

#[test]
fn h1_h2_it_is_done_only_when_a_person_has_confirmed_it() {
    let mut rig = serving(automatic());
    let Problem {
        detail, confirmation, ..
    } = rig.refused(replace(None));
    assert!(detail.contains("deleted") && confirmation.is_some(), "{detail}");
    assert!(rig.fleet.assignment(&server_id("recorder-1")).is_some());
    let view = confirm(&mut rig, replace(None));
    assert_eq!(view.server, server_id("failover-1"));
    // The same again is no error; by another server it is.
    assert!(rig.ask(replace(None)).is_ok());
    assert!(rig.ask(replace(Some("failover-1"))).is_ok());
    let problem = rig.refused(replace(Some("spare-1")));
    assert!(problem.detail.contains("already"), "{problem}");
}

#[test]
fn h1_h2_h3_the_failover_server_becomes_the_recording_server_and_keeps_what_it_recorded() {
    // Given a failover that serves,
    let mut rig = serving(automatic());
    let filmed = films(&rig, "failover-1");
    // when its failover server takes the place for good,
    let view = confirm(&mut rig, replace(Some("failover-1")));
    // then it is the recording server, by the original's name and with its settings, and films on,
    assert_eq!(view.phase, Phase::Completed, "nothing has to be moved");
    assert!(
        view.steps.iter().any(|step| step.phase == Phase::Replacing),
        "{view:?}"
    );
    assert_eq!(view.replaces, Some(server_id("recorder-1")));
    let now = films(&rig, "failover-1");
    assert_eq!((now.identity.as_str(), &now.failover), ("failover-1", &None));
    assert_eq!(now.keep, [view.id.clone()].into());
    assert!(rig.assignment("failover-1").erase.is_empty());
    let bundle = rig.fleet.bundle(&now.settings).expect("in use");
    assert_eq!((bundle.name.as_str(), bundle.cameras.len()), ("recorder-1", 3));
    assert!(
        rig.fleet.bundle(&filmed.settings).is_none(),
        "the original's are gone"
    );
    let new = rig
        .fleet
        .servers()
        .find(|each| each.id == server_id("failover-1"));
    let new = new.expect("it is there");
    assert_eq!((new.mode, new.name.as_str()), (Mode::Recording, "recorder-1"));
    // the settings are there before the assignment that needs them,
    assert!(
        rig.staged
            .iter()
            .any(|(to, staged)| *to == server_id("failover-1") && *staged == bundle)
    );
    // pairing and policy are the original's, and it stands in for nobody,
    let Reply::Protection(protection) = rig.ok(Request::GetProtection(server_id("failover-1"))) else {
        panic!("no protection")
    };
    assert_eq!(
        (protection.pairing, protection.policy),
        (Pairing::All, automatic())
    );
    // the original is gone, and was told to stand down,
    assert!(rig.fleet.servers().all(|each| each.id != server_id("recorder-1")));
    assert_eq!(rig.last_assignment("recorder-1").role, Role::Standby);
    assert!(rig.event_names().contains(&"server.replaced"));
    // and the failover is settled once the recordings are its own and the ledger has answered.
    let report = still_has(&mut rig, "failover-1");
    rig.step(Input::Reported(report));
    assert!(!rig.fleet.failovers().all(|each| each.is_settled()));
    rig.obeys("failover-1");
    settle_licenses(&mut rig);
    assert!(
        rig.fleet.failovers().all(|each| each.is_settled()),
        "{:?}",
        rig.newest()
    );
}

/// The ledger answers whatever it is asked.
fn settle_licenses(rig: &mut Rig) {
    for _ in 0..4 {
        rig.pass(3 * SECOND);
        let requests = std::mem::take(&mut rig.ledger);
        requests.iter().for_each(|request| answer(rig, request));
    }
}

fn answer(rig: &mut Rig, request: &LicenseRequest) {
    let (failover, given_back) = match request {
        LicenseRequest::Transfer { failover, .. } | LicenseRequest::Replace { failover, .. } => {
            (failover, false)
        }
        LicenseRequest::GiveBack { failover } => (failover, true),
        _ => return,
    };
    rig.step(Input::LicensesMoved {
        failover: failover.clone(),
        given_back,
        devices: 4,
    });
}

#[test]
fn h3_the_failover_server_erases_what_it_recorded_if_the_failback_setting_says_so() {
    let policy = Policy {
        failback: Failback::Remove,
        ..automatic()
    };
    let mut rig = serving(policy);
    let problem = rig.refused(replace(None));
    assert!(problem.detail.contains("erased"), "{problem}");
    let view = confirm(&mut rig, replace(None));
    assert!(films(&rig, "failover-1").keep.is_empty());
    assert_eq!(rig.assignment("failover-1").erase, [view.id].into());
}

#[test]
fn h1_h2_h3_another_recording_server_films_first_and_then_gets_the_recordings() {
    // Given a failover that serves,
    let mut rig = serving(automatic());
    let before = films(&rig, "failover-1");
    // when another recording server takes the place,
    let view = confirm(&mut rig, replace(Some("spare-1")));
    // then both film for it: the failover server goes on until the new server films all,
    assert_eq!((view.phase, view.server.as_str()), (Phase::Serving, "spare-1"));
    let now = films(&rig, "failover-1");
    assert_eq!(
        (now.identity.as_str(), &now.failover),
        ("spare-1", &before.failover)
    );
    assert_eq!(films(&rig, "spare-1").identity.as_str(), "spare-1");
    for id in ["spare-1", "failover-1"] {
        let staged = rig.staged.iter().find(|(to, _)| *to == server_id(id));
        let (_, bundle) = staged.expect("settings before the assignment");
        assert_eq!(
            (bundle.name.as_str(), bundle.cameras.len()),
            ("recorder-1", 3),
            "{id}"
        );
    }
    let name = rig.fleet.servers().find(|each| each.id == server_id("spare-1"));
    assert_eq!(name.expect("it is there").name, "recorder-1");
    rig.obeys("failover-1");
    assert_eq!(rig.phase(), Phase::Serving);
    // then it stops, and its recordings go to the new server
    rig.obeys("spare-1");
    assert_eq!(rig.phase(), Phase::Replacing);
    assert!(matches!(rig.role("failover-1"), Role::HandsBack { .. }));
    rig.obeys("failover-1");
    let restore = films(&rig, "spare-1").restore.expect("something to fetch");
    assert_eq!(restore.source, server_id("failover-1"));
    let epoch = rig.assignment("spare-1").epoch;
    rig.restoration(epoch, 10, true);
    // and the failover server is on standby for others again.
    assert_eq!(rig.phase(), Phase::Completed);
    assert_eq!(rig.assignment("failover-1").erase, [view.id].into());
    rig.obeys("failover-1");
    rig.obeys("spare-1");
    assert_eq!(rig.role("failover-1"), Role::Standby);
    let names = rig.event_names();
    for name in ["server.replaced", "failover.restoring", "failover.completed"] {
        assert!(names.contains(&name), "{names:?}");
    }
}

#[test]
fn h1_a_server_for_which_no_failover_server_is_free_can_be_replaced_by_a_recording_server() {
    let mut rig = Rig::new(automatic(), &[("failover-1", 3)]);
    rig.silence("failover-1");
    rig.silence("recorder-1");
    rig.pass(2 * SECOND);
    assert_eq!(rig.phase(), Phase::Selecting);
    rig.ok(Request::AddServer(server("spare-1", Mode::Recording, 3)));
    rig.obeys("spare-1");
    rig.monitor_speaks();
    let problem = rig.refused(replace(None));
    assert!(problem.detail.contains("which recording server"), "{problem}");
    confirm(&mut rig, replace(Some("spare-1")));
    assert_eq!(films(&rig, "spare-1").failover, None);
    rig.obeys("spare-1");
    assert_eq!(rig.phase(), Phase::Completed);
}

#[test]
fn h1_a_new_server_that_fails_while_it_fetches_is_failed_over_itself() {
    let mut rig = serving(automatic());
    confirm(&mut rig, replace(Some("spare-1")));
    rig.obeys("failover-1");
    rig.obeys("spare-1");
    rig.obeys("failover-1");
    assert_eq!(rig.phase(), Phase::Replacing);
    rig.silence("spare-1");
    rig.pass(2 * SECOND);
    assert_eq!(rig.phase(), Phase::TakingOver);
    let films = films(&rig, "failover-1");
    assert_eq!(films.identity.as_str(), "spare-1");
}

#[test]
fn h3_what_an_earlier_failover_server_recorded_is_fetched_by_the_one_that_takes_the_place() {
    let mut rig = Rig::serving(automatic());
    rig.silence("failover-1");
    rig.pass(2 * SECOND);
    rig.obeys("failover-2");
    let view = confirm(&mut rig, replace(None));
    assert_eq!(
        (view.phase, view.server.as_str()),
        (Phase::Replacing, "failover-2")
    );
    rig.pass(SECOND);
    assert_eq!(
        rig.newest().waits_for,
        "failover-1 to come back with its recordings"
    );
    rig.wake("failover-1");
    rig.obeys("failover-1");
    let now = films(&rig, "failover-2");
    assert_eq!(now.keep, [view.id].into());
    assert_eq!(now.restore.expect("something").source, server_id("failover-1"));
    let epoch = rig.assignment("failover-2").epoch;
    rig.restoration(epoch, 10, true);
    assert_eq!(rig.phase(), Phase::Completed);
}

/// What recorder-1 says that has slept since before its failover.
fn of_before(rig: &mut Rig) -> ServerReport {
    let mut report = rig.obedient("recorder-1");
    report.identity = Some(server_id("recorder-1"));
    report.settings = Some(films(rig, "failover-1").settings);
    report.epoch = Some(Epoch { term: 0, number: 1 });
    report
}

#[test]
fn h2_a_replaced_server_that_comes_back_a_month_later_is_told_to_stand_down() {
    // Given a replaced server that never heard of it, and a host that was restarted since,
    let mut rig = serving(automatic());
    let mut old = of_before(&mut rig);
    confirm(&mut rig, replace(None));
    let told = rig.last_assignment("recorder-1");
    rig.restart();
    rig.pass(SECOND);
    rig.forget();
    // when it comes back and films as before,
    rig.step(Input::Reported(old.clone()));
    // then it is told to stand down, people are told, and nothing else has changed,
    assert_eq!(rig.last_assignment("recorder-1"), told);
    let returned = Event::ServerReturned {
        server: server_id("recorder-1"),
        replaced_by: Some(server_id("failover-1")),
    };
    assert_eq!(rig.events, [returned]);
    assert!(rig.fleet.servers().all(|each| each.id != server_id("recorder-1")));
    let Reply::Servers(servers) = rig.ok(Request::ListServers) else {
        panic!("no servers")
    };
    let warned = servers.iter().filter(|view| {
        let words = view.warnings.join(" ");
        words.contains("recorder-1, whose place it took, came back")
    });
    assert_eq!(warned.count(), 1);
    // again if that was lost, though not each time that it is heard,
    old.sequence += 1;
    rig.step(Input::Reported(old.clone()));
    assert_eq!((rig.sent.len(), rig.events.len()), (1, 1));
    rig.now += 3 * SECOND;
    rig.step(Input::Reported(old.clone()));
    assert_eq!((rig.sent.len(), rig.events.len()), (2, 1));
    // and no more once it has.
    old.identity = None;
    old.settings = None;
    old.epoch = Some(told.epoch);
    rig.now += 3 * SECOND;
    rig.step(Input::Reported(old));
    assert_eq!(rig.sent.len(), 2);
}

#[test]
fn h2_one_that_knows_newer_epochs_than_the_host_is_told_by_a_higher_one() {
    let mut rig = serving(automatic());
    let mut old = of_before(&mut rig);
    confirm(&mut rig, replace(None));
    rig.now += 3 * SECOND;
    old.epoch = Some(Epoch { term: 4, number: 900 });
    rig.forget();
    rig.step(Input::Reported(old));
    let told = rig.last_assignment("recorder-1");
    assert_eq!((told.role, told.epoch.term), (Role::Standby, 5));
    assert_eq!(
        rig.assignment("failover-1").epoch.term,
        5,
        "and all others with it"
    );
}

#[test]
fn h2_a_server_that_nobody_ever_removed_is_left_alone() {
    let mut rig = serving(automatic());
    let mut stranger = rig.obedient("spare-1");
    stranger.server = server_id("stranger-1");
    rig.forget();
    rig.step(Input::Reported(stranger));
    assert_eq!((rig.sent.len(), rig.events.len()), (0, 0));
    // Nor is one told off that was removed and is added again.
    rig.ok(Request::RemoveServer(server_id("spare-1")));
    rig.ok(Request::AddServer(server("spare-1", Mode::Recording, 3)));
    rig.forget();
    rig.obeys("spare-1");
    assert!(!rig.event_names().contains(&"server.returned"));
    assert_eq!(films(&rig, "spare-1").identity.as_str(), "spare-1");
}

#[test]
fn h1_a8_the_place_of_the_failover_server_is_a_gap_until_somebody_fills_it() {
    let mut rig = serving(automatic());
    let gaps = |rig: &mut Rig| match rig.ok(Request::ListDomains) {
        Reply::Domains(domains) => domains
            .into_iter()
            .flat_map(|domain| domain.gaps)
            .collect::<Vec<_>>(),
        other => panic!("no domains: {other:?}"),
    };
    assert!(gaps(&mut rig).is_empty());
    confirm(&mut rig, replace(None));
    rig.restart();
    let told = gaps(&mut rig);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(
        told[0].contains("failover-1") && told[0].contains("recorder-1"),
        "{told:?}"
    );
    rig.ok(Request::AddServer(server("failover-3", Mode::Failover, 3)));
    assert!(gaps(&mut rig).is_empty());
}

#[test]
fn h1_a_host_that_dies_after_each_step_ends_the_same() {
    for successor in ["failover-1", "spare-1"] {
        let mut rig = serving(automatic());
        confirm(&mut rig, replace(Some(successor)));
        for _ in 0..6 {
            rig.restart();
            rig.monitor_speaks();
            for id in ["failover-1", "spare-1"] {
                rig.obeys(id);
                rig.restart();
                rig.monitor_speaks();
            }
            if films(&rig, successor).restore.is_some() {
                let epoch = rig.assignment(successor).epoch;
                rig.restoration(epoch, 10, true);
            }
        }
        settle_licenses(&mut rig);
        rig.obeys("failover-1");
        assert_eq!(
            rig.phase(),
            Phase::Completed,
            "by {successor}: {:?}",
            rig.newest()
        );
        assert!(rig.fleet.failovers().all(|each| each.is_settled()));
        assert_eq!(films(&rig, successor).identity.as_str(), successor);
    }
}

#[test]
fn h2_e13_changes_made_during_the_failover_end_with_it() {
    let mut rig = serving(automatic());
    rig.ok(Request::RemoveCamera(camera("recorder-1", 3).id));
    rig.ok(Request::AddCameras(vec![camera("recorder-1", 7)]));
    // While the failover server films, they hold, though the recording server is another one now,
    confirm(&mut rig, replace(Some("spare-1")));
    let cameras = |rig: &Rig, id: &str| {
        let bundle = rig.fleet.bundle(&films(rig, id).settings).expect("in use");
        bundle
            .cameras
            .iter()
            .map(|each| each.id.to_string())
            .collect::<BTreeSet<_>>()
    };
    let ids = |numbers: [u32; 3]| numbers.map(|n| camera("recorder-1", n).id.to_string()).into();
    assert_eq!(cameras(&rig, "failover-1"), ids([1, 2, 7]));
    // and the new server has the settings of before.
    assert_eq!(cameras(&rig, "spare-1"), ids([1, 2, 3]));
}

#[test]
fn e10_h2_the_licences_belong_to_the_new_server_for_good() {
    let payload = |id: &str| Payload {
        id: LicenseKeyId::new(id).expect("an id"),
        devices: 4,
        label: String::new(),
        issuer: String::new(),
    };
    let failover = |n: &str| FailoverId::new(n).expect("an id");
    let (old, new, stand_in) = (
        server_id("recorder-1"),
        server_id("spare-1"),
        server_id("failover-1"),
    );
    let ledger = || {
        let mut ledger = Ledger::default();
        ledger.add(payload("k1"), &old).expect("new");
        ledger.add(payload("k2"), &server_id("recorder-2")).expect("new");
        ledger
    };
    let holders = |ledger: &Ledger| -> Vec<(String, String)> {
        let entries = ledger.entries();
        entries
            .map(|entry| (entry.holder.to_string(), entry.owner.to_string()))
            .collect()
    };
    let other = ("recorder-2".to_owned(), "recorder-2".to_owned());
    let pair = |holder: &str, owner: &str| (holder.to_owned(), owner.to_owned());
    // By another recording server: the failover server holds them until it stops.
    let mut l = ledger();
    l.transfer(&failover("f1"), &old, &stand_in).expect("moves");
    let before = l.clone();
    let (devices, changes) = l.replace(&failover("f1-2"), &old, &new).expect("replaced");
    assert_eq!(devices, 4);
    let told = happenings(&before, &changes, Timestamp(1));
    assert_eq!((told.len(), told[0].what), (1, LicenseKind::Replaced));
    assert_eq!(holders(&l), [pair("failover-1", "spare-1"), other.clone()]);
    assert_eq!(
        l.replace(&failover("f1-2"), &old, &new),
        Ok((4, vec![])),
        "again: nothing happens"
    );
    l.give_back(&failover("f1"));
    assert_eq!(holders(&l), [pair("spare-1", "spare-1"), other.clone()]);
    // By the failover server itself, whether or not they have moved yet.
    for moved in [true, false] {
        let mut l = ledger();
        if moved {
            l.transfer(&failover("f1"), &old, &stand_in).expect("moves");
        }
        l.replace(&failover("f1-2"), &old, &stand_in).expect("replaced");
        assert_eq!(holders(&l), [pair("failover-1", "failover-1"), other.clone()]);
        assert_eq!(l.give_back(&failover("f1")).0, 0, "nothing comes back to nobody");
        assert_eq!(holders(&l), [pair("failover-1", "failover-1"), other.clone()]);
    }
}

#[test]
fn e10_h2_a_transfer_that_was_never_answered_is_asked_for_as_before_and_then_the_keys_are_replaced() {
    let mut rig = serving(automatic());
    confirm(&mut rig, replace(Some("spare-1")));
    rig.pass(3 * SECOND);
    let asked = rig.ledger.last().expect("asked").clone();
    let LicenseRequest::Transfer { from, to, .. } = &asked else {
        panic!("the first is open: {asked:?}")
    };
    assert_eq!((from.as_str(), to.as_str()), ("recorder-1", "failover-1"));
    answer(&mut rig, &asked);
    let asked = rig.ledger.last().expect("asked").clone();
    let LicenseRequest::Replace { from, to, .. } = &asked else {
        panic!("then they are replaced: {asked:?}")
    };
    assert_eq!((from.as_str(), to.as_str()), ("recorder-1", "spare-1"));
}

#[test]
fn h1_a_new_recording_server_is_in_normal_state_and_protected() {
    let mut rig = serving(automatic());
    confirm(&mut rig, replace(None));
    rig.everybody_obeys();
    rig.pass(2 * SECOND);
    let Reply::Servers(servers) = rig.ok(Request::ListServers) else {
        panic!("no servers")
    };
    let new = servers
        .iter()
        .find(|each| each.server.id == server_id("failover-1"));
    let new = new.expect("it is there");
    assert_eq!(
        (new.state, new.label.as_str()),
        (ServerState::Normal, "recorder-1 (3/3)")
    );
    assert!(
        new.protected && new.paired_with == [server_id("failover-2")],
        "{new:?}"
    );
    // It fails over like any other.
    rig.silence("failover-1");
    rig.pass(2 * SECOND);
    assert_eq!(films(&rig, "failover-2").identity.as_str(), "failover-1");
}
