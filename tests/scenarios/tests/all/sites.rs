//! Whole sites, as the white paper draws them: a LAN (I1), and three domains with routes between them (I2). The
//! second host of each comes with the fleet of hosts.

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use tokio::time::sleep;
use understudy_core::{
    contract::api::{DomainView, FailoverView, Phase, ServerState},
    ids::{CameraId, ServerId},
    policy::{Pairing, Policy},
    server::Mode,
};
use understudy_demo::{
    process::Process,
    rig::{Plan, RELAY_TOKEN, Rig, ServerPlan, camera_name},
};
use understudy_runtime::testing::left_out;
use understudy_scenarios::{
    Fleet, folder, gaps,
    network::{Network, Quality},
    plan,
};

use crate::relay::{play_from, program, refused_from, watched_at};

fn pairing(servers: &[&str]) -> anyhow::Result<Pairing> {
    let ids: Result<BTreeSet<ServerId>, _> = servers.iter().map(|id| ServerId::new(*id)).collect();
    Ok(Pairing::Servers(ids?))
}

fn ends_by_itself() -> Policy {
    Policy {
        stop_automatically: true,
        ..plan().policy
    }
}

fn stand_in(failover: &FailoverView) -> &str {
    failover.stand_in.as_ref().map_or("nobody", ServerId::as_str)
}

/// Three recording servers with two cameras each, two failover servers; 1→A, 3→B, 2→{A, B}.
async fn lan() -> anyhow::Result<Fleet> {
    let fleet = Fleet::start(Plan {
        cameras: 6,
        enroll_cameras: false,
        policy: ends_by_itself(),
        servers: vec![
            ServerPlan::recording("recorder-1", "North gate", 10),
            ServerPlan::recording("recorder-2", "Vault", 10),
            ServerPlan::recording("recorder-3", "South gate", 10),
            ServerPlan::failover("failover-a", "Stand-in A", 10),
            ServerPlan::failover("failover-b", "Stand-in B", 10),
        ],
        ..plan()
    })
    .await?;
    let api = &fleet.rig.api;
    let paired: [(&str, &[&str]); 3] = [
        ("recorder-1", &["failover-a"]),
        ("recorder-2", &["failover-a", "failover-b"]),
        ("recorder-3", &["failover-b"]),
    ];
    for (index, (server, with)) in paired.into_iter().enumerate() {
        api.pair(server, &pairing(with)?).await?;
        api.add_cameras(&fleet.rig.cameras(server, index * 2..index * 2 + 2)?)
            .await?;
    }
    for (server, _) in paired {
        fleet.films(server, 2).await?;
        fleet
            .server(server, "to be protected", |view| view.protected)
            .await?;
    }
    Ok(fleet)
}

/// Waits until `server` is told that nobody could stand in for it.
async fn unprotected(fleet: &Fleet, server: &str) -> anyhow::Result<()> {
    fleet
        .server(server, "to be told that it is unprotected", |view| {
            !view.protected
                && view
                    .warnings
                    .iter()
                    .any(|warning| warning.contains("unprotected"))
        })
        .await
        .map(drop)
}

/// Starts `server` again, and hands back to it by a person's word where it has failed too often to be trusted at once.
async fn comes_back(fleet: &mut Fleet, server: &str) -> anyhow::Result<()> {
    fleet.rig.server(server).start()?;
    let held = |view: &FailoverView| view.waits_for.contains("stay well");
    let failover = fleet
        .failover(server, "to be handed back, or held", |view| {
            held(view) || matches!(view.phase, Phase::Restoring | Phase::Completed)
        })
        .await?;
    if held(&failover) {
        fleet.rig.api.stop_failover(server).await?;
    }
    Ok(())
}

#[tokio::test]
async fn i1_a1_a2_a3_a5_three_recording_and_two_failover_servers_die_in_every_way() -> anyhow::Result<()> {
    let mut fleet = lan().await?;

    // The more important one dies alone, twice: either may stand in, and the turn goes round.
    let mut stood_in = Vec::new();
    for _ in 0..2 {
        fleet.rig.server("recorder-2").kill();
        let failover = fleet.phase("recorder-2", Phase::Serving).await?;
        assert_eq!(failover.selection.len(), 2, "{:?}", failover.selection);
        stood_in.push(stand_in(&failover).to_owned());
        let (told, fine) = match stand_in(&failover) {
            "failover-a" => ("recorder-1", "recorder-3"),
            _ => ("recorder-3", "recorder-1"),
        };
        unprotected(&fleet, told).await?;
        fleet
            .server(fine, "to be protected all the same", |view| view.protected)
            .await?;
        comes_back(&mut fleet, "recorder-2").await?;
        fleet.whole_again(&["recorder-2"], 2).await?;
    }
    assert_eq!(
        stood_in,
        ["failover-a", "failover-b"],
        "a5: by id first, then the least recently used"
    );

    // One with a stand-in of its own dies first: the important one gets the other.
    for (first, second, theirs, left) in [
        ("recorder-1", "failover-a", "failover-b", "recorder-3"),
        ("recorder-3", "failover-b", "failover-a", "recorder-1"),
    ] {
        fleet.rig.server(first).kill();
        let failover = fleet.phase(first, Phase::Serving).await?;
        assert_eq!(stand_in(&failover), second);
        fleet.rig.server("recorder-2").kill();
        let failover = fleet.phase("recorder-2", Phase::Serving).await?;
        assert_eq!(stand_in(&failover), theirs);
        fleet.films(second, 2).await?;
        fleet.films(theirs, 2).await?;
        unprotected(&fleet, left).await?;
        comes_back(&mut fleet, first).await?;
        comes_back(&mut fleet, "recorder-2").await?;
        fleet.whole_again(&[first, "recorder-2"], 2).await?;
    }

    // Both failover servers are taken when the important one dies: it waits, and gets the first that is free.
    fleet.rig.server("recorder-1").kill();
    fleet.rig.server("recorder-3").kill();
    fleet.phase("recorder-1", Phase::Serving).await?;
    fleet.phase("recorder-3", Phase::Serving).await?;
    unprotected(&fleet, "recorder-2").await?;
    fleet.rig.server("recorder-1").start()?;
    fleet
        .server("recorder-1", "to be heard", |view| view.reached == view.assigned)
        .await?;
    fleet.rig.server("recorder-2").kill();
    let failover = fleet.phase("recorder-2", Phase::Serving).await?;
    assert_eq!(stand_in(&failover), "failover-a");
    fleet.phase("recorder-1", Phase::Completed).await?;
    comes_back(&mut fleet, "recorder-2").await?;
    comes_back(&mut fleet, "recorder-3").await?;
    fleet
        .whole_again(&["recorder-1", "recorder-2", "recorder-3"], 2)
        .await?;
    let all = fleet.rig.api.failovers().await?;
    assert!(all.iter().all(|view| view.phase == Phase::Completed), "{all:?}");
    fleet.rig.stop().await;
    Ok(())
}

/// The three domains, and the namespace of each.
const HARBOUR: usize = 0;
const INLAND: usize = 1;
const SUMMIT: usize = 2;
/// Silence for longer than this is a disconnection: with room for servers that are started while others film.
const DISCONNECTION: Duration = Duration::from_secs(2);

/// Three domains: the host and a failover server in the harbour, two recording servers and a failover server inland,
/// one of each on the summit.
struct Domains {
    fleet: Fleet,
    network: Network,
    /// Cameras, next to their recording servers.
    _cameras: Vec<Process>,
}

impl Domains {
    async fn start(network: Network) -> anyhow::Result<Self> {
        let folder = folder()?;
        let servers = vec![
            ServerPlan::failover("failover-harbour", "Harbour", 10).in_domain("harbour"),
            ServerPlan::recording("recorder-1", "Dam", 10)
                .in_domain("inland")
                .at(network.place(INLAND)),
            ServerPlan::recording("recorder-2", "Mill", 10)
                .in_domain("inland")
                .at(network.place(INLAND)),
            ServerPlan::failover("failover-inland", "Inland", 10)
                .in_domain("inland")
                .at(network.place(INLAND)),
            ServerPlan::recording("recorder-3", "Pass", 10)
                .in_domain("summit")
                .at(network.place(SUMMIT)),
            ServerPlan::failover("failover-summit", "Summit", 10)
                .in_domain("summit")
                .at(network.place(SUMMIT)),
        ];
        // The harbour's server is beside the host, and others reach it at the host's address.
        let mut servers = servers;
        servers[0] = servers[0].clone().at(network.place(HARBOUR));
        let mut rig = Rig::describe(Plan {
            folder: folder.path().to_owned(),
            host_address: Some(network.host()),
            enroll_cameras: false,
            policy: Policy {
                disconnection_ms: u64::try_from(DISCONNECTION.as_millis())?,
                ..ends_by_itself()
            },
            servers,
            ..plan()
        })
        .await?;
        rig.launch().await?;
        let mut cameras = Vec::new();
        let mut addresses = Vec::new();
        for (name, place) in [
            ("cameras-inland", network.place(INLAND)),
            ("cameras-summit", network.place(SUMMIT)),
        ] {
            let (mut process, address) = rig.cameras_at(name, 4, &place)?;
            process.start()?;
            process.healthy().await?;
            cameras.push(process);
            addresses.push(address);
        }
        let domains = Self {
            fleet: Fleet::of(rig, folder)?,
            network,
            _cameras: cameras,
        };
        domains.enroll(&addresses).await?;
        Ok(domains)
    }

    /// Everything but the summit's failover server.
    async fn enroll(&self, addresses: &[std::net::SocketAddr]) -> anyhow::Result<()> {
        let rig = &self.fleet.rig;
        rig.answers().await?;
        for server in rig
            .servers
            .iter()
            .filter(|server| server.plan.id != "failover-summit")
        {
            rig.api.add_server(&rig.enrolled(server)?).await?;
            if server.plan.mode == Mode::Recording {
                rig.api.pair(&server.plan.id, &Pairing::All).await?;
                rig.api.set_policy(&server.plan.id, &rig.plan.policy).await?;
            }
        }
        for (server, address, from) in [
            ("recorder-1", addresses[0], 0),
            ("recorder-2", addresses[0], 2),
            ("recorder-3", addresses[1], 0),
        ] {
            let mut cameras = rig.cameras(server, from..from + 2)?;
            for (index, camera) in cameras.iter_mut().enumerate() {
                camera.id = CameraId::new(format!("{server}-{index}"))?;
                camera.url = format!("rtsp://{address}/{}", camera_name(from + index));
            }
            rig.api.add_cameras(&cameras).await?;
            self.fleet.films(server, 2).await?;
        }
        Ok(())
    }

    async fn gaps(&self) -> anyhow::Result<Vec<String>> {
        let domains: Vec<DomainView> = self.fleet.rig.api.get("domains").await?;
        Ok(domains.into_iter().flat_map(|domain| domain.gaps).collect())
    }

    /// Cuts lines for three times the disconnection, with what happens meanwhile, and makes them good again.
    async fn cut(&self, lines: &[(usize, usize)]) {
        for (one, other) in lines {
            self.network.line(*one, *other, Quality::Cut);
        }
        sleep(DISCONNECTION * 3).await;
    }

    async fn mend(&self, lines: &[(usize, usize)]) -> anyhow::Result<()> {
        for (one, other) in lines {
            self.network.line(*one, *other, Quality::Good);
        }
        for server in &self.fleet.rig.plan.servers {
            self.fleet
                .server(&server.id, "to be heard again", |view| {
                    matches!(view.state, ServerState::Normal | ServerState::Standby)
                })
                .await?;
        }
        Ok(())
    }
}

#[tokio::test]
async fn i2_a1_a5_a6_a8_c2_d1_three_domains_fail_over_by_themselves_and_not_because_the_host_is_cut_off()
-> anyhow::Result<()> {
    let network = match Network::of(2) {
        Ok(network) => network,
        Err(why) => {
            left_out(why);
            return Ok(());
        }
    };
    let mut site = Domains::start(network).await?;

    // A domain without a failover server is a gap, until one comes, for which "all servers" stands too.
    let gaps_before = site.gaps().await?;
    assert!(
        gaps_before.len() == 1 && gaps_before[0].contains("summit"),
        "a8: {gaps_before:?}"
    );
    let late = site
        .fleet
        .rig
        .enrolled(site.fleet.rig.servers.last().expect("the summit's"))?;
    site.fleet.rig.api.add_server(&late).await?;
    site.fleet
        .server("recorder-3", "to be paired with the newcomer", |view| {
            let warned = view.warnings.iter().any(|warning| {
                warning.contains("\"all servers\" stands for failover servers of other domains too")
                    && warning.contains("failover-harbour")
            });
            view.protected && view.paired_with.len() == 3 && warned
        })
        .await?;
    assert_eq!(site.gaps().await?, Vec::<String>::new(), "a8");
    let chosen = pairing(&["failover-harbour", "failover-inland"])?;
    site.fleet.rig.api.pair("recorder-2", &chosen).await?;
    site.fleet
        .server("recorder-2", "to be warned of the other domain", |view| {
            view.warnings
                .iter()
                .any(|warning| warning.contains("failover-harbour is in another domain"))
        })
        .await?;
    site.fleet.stands_by("failover-summit").await?;

    one_inland_then_both(&mut site).await?;
    the_host_is_cut_off(&mut site).await?;

    // A real death on the summit, with everybody else well.
    site.fleet.rig.server("recorder-3").kill();
    let failover = site.fleet.phase("recorder-3", Phase::Serving).await?;
    assert_eq!(stand_in(&failover), "failover-summit", "{:?}", failover.selection);
    site.fleet.rig.server("recorder-3").start()?;
    site.fleet.whole_again(&["recorder-3"], 2).await?;
    the_summit_goes_dark(&mut site).await?;
    site.fleet.rig.stop().await;
    Ok(())
}

/// Live view from another machine, in another domain: with the token, and not without.
async fn watched_from_the_summit(site: &Domains, camera: &str, server: &str) -> anyhow::Result<()> {
    let address = watched_at(&site.fleet, camera, server).await?;
    let with = |token: &str| address.replacen("rtsp://", &format!("rtsp://viewer:{token}@"), 1);
    let there = site.network.namespaces[SUMMIT].enter();
    assert!(!there.is_empty(), "the viewer is on another machine");
    for stranger in [address.clone(), with("guessed-and-therefore-wrong-of-course")] {
        let refused = refused_from(&there, &stranger).await?;
        assert!(refused.contains("401"), "{stranger}: {refused}");
    }
    play_from(&there, &with(RELAY_TOKEN)).await
}

/// Beats for a server from another machine without the fleet's token, until what it gives back is dropped. It would
/// keep a dead server alive.
async fn forged_beats(site: &Domains, server: &str) -> anyhow::Result<tokio::process::Child> {
    let there = site.network.namespaces[SUMMIT].enter();
    let monitor = SocketAddr::new(site.network.host(), site.fleet.rig.host.heartbeats.port());
    let beat = format!(
        "curl --silent --noproxy '*' --max-time 2 --output /dev/null --write-out '%{{http_code}}' http://{monitor}/v1/heartbeats \
         --data '{{\"server\":\"{server}\",\"domain\":\"inland\",\"sequence\":'$((n += 1))',\"sent_at\":0,\
         \"interval_ms\":500}}'"
    );
    for guessed in [
        "",
        " --header 'Authorization: Bearer guessed-and-therefore-wrong-of-course'",
    ] {
        let once = program(&there, "sh")
            .args(["-c", &format!("n=1000000; {beat}{guessed}")])
            .output()
            .await?;
        assert_eq!(
            String::from_utf8_lossy(&once.stdout),
            "401",
            "{guessed}: {once:?}"
        );
    }
    let forger = program(&there, "sh")
        .args(["-c", &format!("n=2000000; while :; do {beat}; sleep 0.2; done")])
        .stdout(std::process::Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    // Those of the fleet are heard there all the same.
    let metrics = format!("http://{}/metrics", site.fleet.rig.host.monitor.health());
    let client = reqwest::Client::builder().no_proxy().build()?;
    let metrics = client.get(metrics).send().await?.text().await?;
    let heard =
        |line: &str| line.starts_with("understudy_heartbeats_total{") && line.contains("path=\"direct\"");
    assert!(
        metrics.lines().any(|line| heard(line) && !line.ends_with(" 0")),
        "{metrics}"
    );
    Ok(forger)
}

/// The same domain first, and another when that is taken.
async fn one_inland_then_both(site: &mut Domains) -> anyhow::Result<()> {
    watched_from_the_summit(site, "recorder-2-0", "recorder-2").await?;
    let forger = forged_beats(site, "recorder-1").await?;
    let fleet = &mut site.fleet;
    fleet.rig.server("recorder-1").kill();
    let failover = fleet.phase("recorder-1", Phase::Serving).await?;
    assert_eq!(stand_in(&failover), "failover-inland", "{:?}", failover.selection);
    drop(forger);
    let why = failover
        .selection
        .iter()
        .find(|each| each.server.as_str() == "failover-harbour");
    assert!(
        why.is_some_and(|each| each.why.contains("is in the same domain")),
        "a8: {:?}",
        failover.selection
    );
    fleet.rig.server("recorder-2").kill();
    let failover = fleet.phase("recorder-2", Phase::Serving).await?;
    assert_eq!(
        stand_in(&failover),
        "failover-harbour",
        "{:?}",
        failover.selection
    );
    fleet.films("failover-harbour", 2).await?;
    watched_from_the_summit(site, "recorder-2-0", "failover-harbour").await?;
    let fleet = &mut site.fleet;
    fleet.rig.server("recorder-1").start()?;
    fleet.rig.server("recorder-2").start()?;
    // The recordings of the second cross the domains.
    fleet.whole_again(&["recorder-1", "recorder-2"], 2).await?;
    for (camera, numbers) in fleet.recorded("recorder-2")? {
        assert!(gaps(&numbers).len() <= 1, "{camera}: {:?}", gaps(&numbers));
    }
    Ok(())
}

/// Everybody on the summit dies at once: for the host that is no different from a line that is cut, so it takes itself
/// for blind there, until a failover server inland, which looks over a line of its own, has found nobody either.
async fn the_summit_goes_dark(site: &mut Domains) -> anyhow::Result<()> {
    for server in ["recorder-3", "failover-summit"] {
        site.fleet.rig.server(server).kill();
    }
    let failover = site.fleet.phase("recorder-3", Phase::Serving).await?;
    assert!(
        ["failover-harbour", "failover-inland"].contains(&stand_in(&failover)),
        "{:?}",
        failover.selection
    );
    assert!(
        failover.detection_ms >= 15_000,
        "as after any other blindness: {} ms",
        failover.detection_ms
    );
    let evidence = &failover.reason.evidence;
    assert!(
        evidence.iter().any(|line| line.observer == "failover-inland"),
        "c7: {evidence:?}"
    );
    for server in ["recorder-3", "failover-summit"] {
        site.fleet.rig.server(server).start()?;
    }
    site.fleet.whole_again(&["recorder-3"], 2).await
}

/// Routes are cut: nobody is dead but the one who is.
async fn the_host_is_cut_off(site: &mut Domains) -> anyhow::Result<()> {
    let before = site.fleet.rig.api.failovers().await?.len();
    // Between two domains, neither of them the host's.
    site.cut(&[(INLAND, SUMMIT)]).await;
    site.mend(&[(INLAND, SUMMIT)]).await?;
    // The host from everybody.
    let everybody = [(HARBOUR, INLAND), (HARBOUR, SUMMIT)];
    site.cut(&everybody).await;
    site.mend(&everybody).await?;
    assert_eq!(site.fleet.rig.api.failovers().await?.len(), before, "nobody died");

    // The host from the summit, while inland somebody really dies.
    site.cut(&[(HARBOUR, SUMMIT)]).await;
    site.fleet.rig.server("recorder-1").kill();
    let failover = site.fleet.phase("recorder-1", Phase::Serving).await?;
    assert_eq!(stand_in(&failover), "failover-inland", "{:?}", failover.selection);
    site.fleet.rig.server("recorder-1").start()?;
    site.fleet.phase("recorder-1", Phase::Completed).await?;
    site.mend(&[(HARBOUR, SUMMIT)]).await?;
    let of_the_summit = site.fleet.rig.api.failovers().await?;
    let of_the_summit: Vec<_> = of_the_summit
        .iter()
        .filter(|view| view.server.as_str() == "recorder-3")
        .collect();
    assert!(of_the_summit.is_empty(), "{of_the_summit:?}");
    // It filmed through it all.
    for (camera, numbers) in site.fleet.recorded("recorder-3")? {
        assert_eq!(gaps(&numbers), [], "{camera}");
    }
    Ok(())
}
