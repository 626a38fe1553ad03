//! A large fleet: nothing may grow with the square of its size.

use std::time::{Duration, Instant};

use understudy_core::{
    contract::{api::Phase, rpc::OrchestratorRequest as Request},
    policy::Pairing,
    server::Mode,
};

use crate::rig::{Rig, automatic, camera, server, server_id};

/// 1,000 servers, 20,000 cameras, 100 simultaneous failovers: the goal for a whole orchestrator is two
/// seconds; the decision alone is a small part of that, even on a busy machine.
#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "measures how long a decision takes; decides nothing by it"
)]
fn a_hundred_failovers_among_a_thousand_servers_are_decided_at_once() {
    let mut rig = Rig::empty();
    let stand_ins: Vec<String> = (0..110).map(|n| format!("failover-{n:03}")).collect();
    let recorders: Vec<String> = (0..890).map(|n| format!("recorder-{n:03}")).collect();
    for id in &stand_ins {
        rig.ok(Request::AddServer(server(id, Mode::Failover, 30)));
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
    for id in &recorders[..100] {
        rig.silence(id);
    }
    rig.now += Duration::from_millis(900);
    rig.monitor_speaks();
    rig.forget();
    rig.now += Duration::from_millis(200);
    let begun = Instant::now();
    let fresh = understudy_core::ids::FailoverId::new("many").expect("an id");
    rig.step(understudy_core::fleet::Input::Tick { fresh });
    let taken = begun.elapsed();
    let taking_over = rig
        .fleet
        .failovers()
        .filter(|each| each.phase == Phase::TakingOver);
    assert_eq!(taking_over.count(), 100);
    assert_eq!(
        rig.sent.len(),
        200,
        "each failover server and each recording server"
    );
    println!("100 failovers decided in {taken:?}");
    assert!(taken < Duration::from_secs(2), "{taken:?}");
}
