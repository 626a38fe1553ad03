//! Maintenance: what is meant is no fault, until its end and never beyond.

use std::time::Duration;

use understudy_core::{
    contract::{
        api::{MaintenanceOrder, Phase, ServerView},
        event::Event,
        rpc::{OrchestratorReply as Reply, OrchestratorRequest as Request},
    },
    time::Timestamp,
};

use crate::rig::{Rig, automatic, server_id};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

fn maintain(server: &str, time: Duration) -> Request {
    Request::BeginMaintenance {
        server: server_id(server),
        order: MaintenanceOrder {
            until: None,
            for_ms: Some(u64::try_from(time.as_millis()).expect("short")),
            why: "a new disk".to_owned(),
        },
        by: "anna".to_owned(),
    }
}

fn end(server: &str) -> Request {
    Request::EndMaintenance {
        server: server_id(server),
        by: "anna".to_owned(),
    }
}

fn view(rig: &mut Rig, server: &str) -> ServerView {
    let Reply::Servers(views) = rig.ok(Request::ListServers) else {
        panic!("servers were asked for");
    };
    let mut views = views.into_iter();
    views
        .find(|view| view.server.id == server_id(server))
        .expect("it is enrolled")
}

#[test]
fn c2_a_server_in_maintenance_is_not_failed_over_and_what_counts_afterwards_counts_from_its_end() {
    let mut rig = Rig::new(automatic(), &[("failover-1", 9)]);
    rig.ok(maintain("recorder-1", 10 * MINUTE));
    let shown = view(&mut rig, "recorder-1").maintenance.expect("it is shown");
    assert_eq!(
        (shown.why.as_str(), shown.by.as_str()),
        ("a new disk", "anna"),
        "{shown:?}"
    );
    rig.silence("recorder-1");
    rig.pass(9 * MINUTE);
    assert_eq!(rig.fleet.failovers().count(), 0);
    // The host dies meanwhile: it remembers.
    rig.restart();
    rig.pass(30 * SECOND);
    assert_eq!(rig.fleet.failovers().count(), 0);
    rig.pass(30 * SECOND + SECOND / 2);
    assert_eq!(rig.fleet.failovers().count(), 0, "it counts from the end");
    assert!(view(&mut rig, "recorder-1").maintenance.is_none());
    assert!(!rig.records.keys().any(|key| key.kind == "maintenance"));
    rig.pass(SECOND);
    let failover = rig.newest();
    assert!(
        failover.reason.summary.contains("since its maintenance ended"),
        "{}",
        failover.reason.summary
    );
    assert!(
        (1_000..1_500).contains(&failover.detection_ms),
        "{}",
        failover.detection_ms
    );
    let ended = rig.events.iter().find_map(|event| match event {
        Event::ServerMaintenanceEnded { why, .. } => Some(why.as_str()),
        _ => None,
    });
    assert_eq!(ended, Some("its time is over"));
    let begun = rig.event_names();
    assert!(begun.contains(&"server.maintenance_begun"), "{begun:?}");
}

#[test]
fn c2_maintenance_that_a_person_ends_protects_from_then_on() {
    let mut rig = Rig::new(automatic(), &[("failover-1", 9)]);
    rig.ok(maintain("recorder-1", 10 * MINUTE));
    rig.silence("recorder-1");
    rig.pass(MINUTE);
    rig.ok(end("recorder-1"));
    rig.ok(end("recorder-1"));
    let ended = rig
        .event_names()
        .iter()
        .filter(|name| **name == "server.maintenance_ended")
        .count();
    assert_eq!(ended, 1, "asked again it changes nothing");
    rig.pass(SECOND / 2);
    assert_eq!(rig.fleet.failovers().count(), 0);
    rig.pass(SECOND);
    assert_eq!(rig.phase(), Phase::TakingOver);
}

#[test]
fn c2_maintenance_without_a_sensible_end_is_refused() {
    let mut rig = Rig::new(automatic(), &[("failover-1", 9)]);
    let order = |until, for_ms, why: &str| Request::BeginMaintenance {
        server: server_id("recorder-1"),
        order: MaintenanceOrder {
            until,
            for_ms,
            why: why.to_owned(),
        },
        by: "anna".to_owned(),
    };
    let now = rig.moment().wall;
    let week = 7 * 24 * 60 * 60 * 1000;
    for (wrong, says) in [
        (order(None, None, "a disk"), "how long"),
        (order(Some(now), Some(1), "a disk"), "how long"),
        (
            order(Some(Timestamp(now.as_millis() - 1)), None, "a disk"),
            "lies ahead",
        ),
        (order(Some(now), None, "a disk"), "lies ahead"),
        (order(None, Some(0), "a disk"), "lies ahead"),
        (order(None, Some(week + 1), "a disk"), "7 days"),
        (order(None, Some(u64::MAX), "a disk"), "7 days"),
        (order(Some(Timestamp(i64::MAX)), None, "a disk"), "7 days"),
        (order(None, Some(1000), "  "), "say why"),
        (order(None, Some(1000), "a\nb"), "say why"),
    ] {
        let problem = rig.refused(wrong);
        assert_eq!(problem.status, 400);
        assert!(problem.detail.contains(says), "{}", problem.detail);
    }
    assert_eq!(rig.refused(maintain("nobody", MINUTE)).status, 404);
    rig.ok(order(None, Some(week), "a disk"));
}

#[test]
fn a3_a_failover_server_in_maintenance_is_not_chosen_and_helps_when_it_is_over() {
    let mut rig = Rig::new(automatic(), &[("failover-1", 3), ("failover-2", 9)]);
    rig.ok(maintain("failover-1", 5 * MINUTE));
    rig.silence("recorder-1");
    rig.pass(2 * SECOND);
    let failover = rig.newest();
    assert_eq!(failover.stand_in, Some(server_id("failover-2")));
    let why = failover
        .selection
        .iter()
        .find(|each| !each.chosen)
        .expect("another");
    assert!(why.why.contains("is in maintenance: a new disk"), "{}", why.why);
    // A second recording server has to wait for it.
    rig.silence("recorder-2");
    rig.pass(MINUTE);
    assert_eq!(rig.newest().phase, Phase::Selecting);
    rig.pass(5 * MINUTE);
    assert_eq!(rig.newest().stand_in, Some(server_id("failover-1")));
}

#[test]
fn g1_a_server_in_maintenance_is_not_handed_back_to_by_itself_and_is_when_that_is_over() {
    let mut rig = Rig::serving(automatic());
    rig.ok(maintain("recorder-1", 5 * MINUTE));
    rig.wake("recorder-1");
    rig.pass(MINUTE);
    assert_eq!(rig.phase(), Phase::Serving);
    assert_eq!(rig.newest().waits_for, "recorder-1 to end its maintenance");
    rig.pass(5 * MINUTE);
    assert!(rig.assignment("recorder-1").role.identity().is_some());
}

#[test]
fn c2_a_failover_that_waits_for_a_free_server_ends_with_the_maintenance_of_its_own() {
    let mut rig = Rig::new(automatic(), &[("failover-1", 9)]);
    rig.silence("failover-1");
    rig.silence("recorder-1");
    rig.pass(3 * SECOND);
    assert_eq!(rig.phase(), Phase::Selecting);
    rig.ok(maintain("recorder-1", MINUTE));
    assert_eq!(rig.phase(), Phase::Aborted);
}

#[test]
fn c5_a_restart_during_maintenance_is_no_fault_of_the_server() {
    let mut rig = Rig::new(automatic(), &[("failover-1", 9)]);
    for _ in 0..5 {
        rig.ok(maintain("recorder-1", MINUTE));
        rig.silence("recorder-1");
        rig.pass(30 * SECOND);
        rig.wake("recorder-1");
        rig.pass(31 * SECOND);
    }
    assert_eq!(rig.fleet.failovers().count(), 0);
    rig.silence("recorder-1");
    rig.pass(2 * SECOND);
    rig.obeys("failover-1");
    rig.wake("recorder-1");
    rig.pass(2 * SECOND);
    assert!(
        rig.assignment("recorder-1").role.identity().is_some(),
        "its first fault: {}",
        rig.newest().waits_for
    );
}
