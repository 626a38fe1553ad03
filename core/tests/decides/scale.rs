//! A large fleet: nothing may grow with the square of its size.

use std::time::{Duration, Instant};

use understudy_core::{
    contract::{api::Phase, rpc::OrchestratorRequest as Request},
    fleet::Input,
    ids::FailoverId,
    policy::Pairing,
    server::Mode,
};

use crate::rig::{Rig, automatic, camera, server, server_id};

/// A tenth of all recording servers falls silent at once, and there is a failover server for each of them. Says how
/// long the decision takes.
#[expect(
    clippy::disallowed_methods,
    reason = "measures how long a decision takes; decides nothing by it"
)]
fn a_tenth_falls_silent(recorders: u32) -> Duration {
    let mut rig = Rig::empty();
    let lost = usize::try_from(recorders / 10).expect("a small number");
    let recorders: Vec<String> = (0..recorders).map(|n| format!("recorder-{n:03}")).collect();
    for n in 0..lost {
        rig.ok(Request::AddServer(server(
            &format!("failover-{n:03}"),
            Mode::Failover,
            30,
        )));
    }
    for id in &recorders {
        rig.ok(Request::AddServer(server(id, Mode::Recording, 30)));
        rig.ok(Request::AddCameras((0..22).map(|n| camera(id, n)).collect()));
        rig.ok(Request::SetPairing {
            server: server_id(id),
            pairing: Pairing::All,
        });
        rig.ok(Request::SetPolicy {
            server: server_id(id),
            policy: automatic(),
        });
    }
    rig.monitor_speaks();
    rig.now += Duration::from_millis(1100);
    for id in &recorders[..lost] {
        rig.silence(id);
    }
    rig.now += Duration::from_millis(900);
    rig.monitor_speaks();
    rig.forget();
    rig.now += Duration::from_millis(200);
    let begun = Instant::now();
    let fresh = FailoverId::new("many").expect("an id");
    rig.step(Input::Tick { fresh });
    let taken = begun.elapsed();
    let taking_over = rig
        .fleet
        .failovers()
        .filter(|each| each.phase == Phase::TakingOver);
    assert_eq!(taking_over.count(), lost);
    assert_eq!(
        rig.sent.len(),
        2 * lost,
        "each failover server and each recording server"
    );
    taken
}

/// 900 recording servers with 19,800 cameras, 90 simultaneous failovers, beside a fleet of a tenth of that in the same
/// run. Each failover looks at each candidate, so ten times the fleet is a hundred times the work; the cube of it
/// would be a thousand. `make bench` has the figures.
#[test]
fn many_failovers_in_a_large_fleet_are_decided_at_once() {
    let small = (0..3)
        .map(|_| a_tenth_falls_silent(90))
        .max()
        .expect("three of them");
    let large = a_tenth_falls_silent(900);
    println!("9 failovers of 90 servers: {small:?}; 90 of 900: {large:?}");
    assert!(large < 400 * small, "{large:?} against {small:?}");
}
