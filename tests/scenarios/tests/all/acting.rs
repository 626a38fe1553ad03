//! Who may open a door, of two servers that film for one identity: asked of the servers themselves, again and again.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use nix::sys::signal::Signal;
use tokio::time::Instant;
use understudy_core::{
    authority::{LEASE, OUTLAST},
    contract::api::{Phase, ReasonKind},
    policy::Policy,
};
use understudy_demo::rig::{Plan, eventually};
use understudy_scenarios::{Fleet, PATIENCE, plan};

/// What two servers said of themselves, one after the other, in turns.
struct Watch {
    said: Arc<Mutex<Vec<Said>>>,
    asking: tokio::task::JoinHandle<()>,
}

#[derive(Clone, Copy, Debug)]
struct Said {
    at: Instant,
    /// Which of the two.
    whose: usize,
    /// None without an answer.
    acts: Option<bool>,
    /// How many cameras it records.
    records: u32,
}

impl Watch {
    /// Begins to ask the recording services at these addresses.
    fn begin(servers: [SocketAddr; 2]) -> Self {
        let said: Arc<Mutex<Vec<Said>>> = Arc::default();
        let log = Arc::clone(&said);
        let asking = tokio::spawn(async move {
            let client = reqwest::Client::builder()
                .timeout(Duration::from_millis(500))
                .build()
                .expect("a client");
            loop {
                for (whose, address) in servers.into_iter().enumerate() {
                    let answer = client.get(format!("http://{address}/metrics")).send().await;
                    let text = match answer {
                        Ok(answer) => answer.text().await.unwrap_or_default(),
                        Err(_) => String::new(),
                    };
                    let value = |name: &str, label: &str| {
                        let line = text
                            .lines()
                            .find(|line| line.starts_with(name) && line.contains(label))?;
                        line.rsplit(' ').next()?.parse::<u32>().ok()
                    };
                    let said = Said {
                        at: Instant::now(),
                        whose,
                        acts: value("understudy_right_to_act{", "").map(|acts| acts == 1),
                        records: value("understudy_cameras{", "state=\"recording\"").unwrap_or_default(),
                    };
                    log.lock().expect("no panic").push(said);
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        Self { said, asking }
    }

    fn all(&self) -> Vec<Said> {
        self.said.lock().expect("no panic").clone()
    }

    /// What the second said last.
    fn of_stand_in(&self) -> Option<Said> {
        let all = self.said.lock().expect("no panic");
        all.iter().rfind(|said| said.whose == 1).copied()
    }

    /// What each said last.
    fn last(&self) -> [Option<bool>; 2] {
        let all = self.all();
        [0, 1].map(|whose| all.iter().rfind(|said| said.whose == whose)?.acts)
    }

    async fn until(&self, what: &str, acts: [Option<bool>; 2]) -> anyhow::Result<Instant> {
        let seen = eventually(what, PATIENCE, async || match self.last() {
            last if last == acts => Ok(Instant::now()),
            other => Err(format!("{other:?}")),
        });
        Ok(seen.await?)
    }

    /// Neither ever said that it may act between two times at which the other said so.
    fn never_two(&self) {
        let all = self.all();
        for turn in all.windows(3) {
            assert!(
                turn.iter().any(|said| said.acts != Some(true)),
                "both may act: {turn:?}"
            );
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.asking.abort();
    }
}

#[tokio::test]
async fn c4_of_a_server_that_hangs_and_its_stand_in_at_most_one_may_act() -> anyhow::Result<()> {
    let policy = Policy {
        on_package: true,
        stop_automatically: true,
        ..plan().policy
    };
    let mut fleet = Fleet::filming(Plan { policy, ..plan() }).await?;
    let services = ["recorder-1", "failover-1"].map(|server| fleet.rig.server(server).ingest.health());
    let watch = Watch::begin(services);
    watch
        .until("recorder-1 to be granted the right", [Some(true), Some(false)])
        .await?;
    fleet
        .server("recorder-1", "to be shown as the one that acts", |view| {
            let right = view.right_to_act.as_ref();
            right.is_some_and(|right| right.held && right.since.is_some())
        })
        .await?;
    let idle = fleet.rig.api.server("failover-1").await?.right_to_act;
    assert!(
        idle.as_ref()
            .is_some_and(|right| !right.held && right.why.contains("no identity")),
        "{idle:?}"
    );

    // A broker that stands still ends the right within the lease; it comes back by itself, and nobody failed over.
    let frozen = Instant::now();
    fleet.rig.broker.freeze();
    let lost = watch
        .until("the right to end", [Some(false), Some(false)])
        .await?;
    let took = lost - frozen;
    assert!(took < LEASE + Duration::from_secs(1), "{took:?}");
    fleet.rig.broker.thaw();
    watch
        .until("the right to come back", [Some(true), Some(false)])
        .await?;
    assert_eq!(fleet.rig.api.failovers().await?, []);

    // When the recording service hangs, the failover server films at once, with the evidence,
    let hung = Instant::now();
    fleet.rig.server("recorder-1").ingest.signal(Signal::SIGSTOP);
    let failover = fleet.phase("recorder-1", Phase::Serving).await?;
    assert_eq!(failover.reason.kind, ReasonKind::Package);
    let summary = &failover.reason.summary;
    assert!(
        summary.contains("not answering") && summary.contains("has not answered within"),
        "c4: {summary}"
    );
    assert!(!failover.reason.evidence.is_empty(), "c7");
    fleet.films("failover-1", 4).await?;
    // and acts only once the other can't any more, whatever that one believes.
    watch
        .until("failover-1 to be granted the right", [None, Some(true)])
        .await?;
    let all = watch.all();
    let of_stand_in = || all.iter().filter(|said| said.whose == 1);
    let acts = of_stand_in()
        .find(|said| said.acts == Some(true))
        .expect("it does");
    let films = of_stand_in().find(|said| said.records == 4).expect("it does");
    assert!(films.at < acts.at, "it films at {films:?} and acts at {acts:?}");
    assert!(acts.at - hung > OUTLAST, "{:?}", acts.at - hung);
    let view = fleet.rig.api.server("recorder-1").await?.right_to_act;
    assert!(
        view.is_some_and(|right| !right.held),
        "an old word is not believed"
    );

    // The one that hung has no right when it goes on; it is handed back to, and given it again.
    let goes_on = Instant::now();
    fleet.rig.server("recorder-1").ingest.signal(Signal::SIGCONT);
    fleet.phase("recorder-1", Phase::Completed).await?;
    watch
        .until(
            "recorder-1 to be granted the right again",
            [Some(true), Some(false)],
        )
        .await?;
    let all = watch.all();
    let first = all
        .iter()
        .find(|said| said.whose == 0 && said.at > goes_on && said.acts.is_some());
    assert_eq!(first.expect("it answers").acts, Some(false), "{first:?}");
    holder_and_orchestrator_die(&mut fleet, &watch).await?;
    orchestrator_dies_while_handing_back(&mut fleet, &watch).await?;
    watch.never_two();
    fleet.rig.stop().await;
    Ok(())
}

/// The holder is killed, and then the orchestrator, before it could grant anybody anything: the failover server films,
/// and nobody acts until the orchestrator is back and the lease is over.
async fn holder_and_orchestrator_die(fleet: &mut Fleet, watch: &Watch) -> anyhow::Result<()> {
    // What it filmed last time would be taken for the new failover.
    let idle = "failover-1 to film nothing any more";
    eventually(idle, PATIENCE, async || match watch.of_stand_in() {
        Some(said) if said.records == 0 => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await?;
    let killed = Instant::now();
    fleet.rig.server("recorder-1").ingest.kill();
    eventually("failover-1 to film", PATIENCE, async || {
        match watch.of_stand_in() {
            Some(said) if said.at > killed && said.records == 4 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await?;
    fleet.rig.host.orchestrator.kill();
    tokio::time::sleep(OUTLAST + LEASE).await;
    let acted = |said: &Said| said.at > killed + Duration::from_millis(500) && said.acts == Some(true);
    let all = watch.all();
    assert!(
        !all.iter().any(acted),
        "{:?}",
        all.iter().find(|said| acted(said))
    );
    let last = watch.of_stand_in();
    assert_eq!(last.map(|said| said.records), Some(4), "it films: {last:?}");

    let started = Instant::now();
    fleet.rig.host.orchestrator.start()?;
    watch
        .until("failover-1 to be granted the right", [None, Some(true)])
        .await?;
    let all = watch.all();
    let granted = all.iter().find(|said| acted(said)).expect("it is granted it");
    assert!(granted.at > started && granted.whose == 1, "{granted:?}");
    fleet.phase("recorder-1", Phase::Serving).await.map(drop)
}

/// The orchestrator is killed while the right goes back: it ends up with the recording server, and nobody else has it.
async fn orchestrator_dies_while_handing_back(fleet: &mut Fleet, watch: &Watch) -> anyhow::Result<()> {
    fleet.rig.server("recorder-1").ingest.start()?;
    fleet.is_back("recorder-1").await?;
    fleet.rig.api.stop_failover("recorder-1").await?;
    fleet
        .failover("recorder-1", "to be handed back", |view| {
            matches!(view.phase, Phase::Restoring | Phase::Completed)
        })
        .await?;
    fleet.rig.host.orchestrator.kill();
    fleet.rig.host.orchestrator.start()?;
    fleet.phase("recorder-1", Phase::Completed).await?;
    watch
        .until(
            "recorder-1 to have the right in the end",
            [Some(true), Some(false)],
        )
        .await
        .map(drop)
}
