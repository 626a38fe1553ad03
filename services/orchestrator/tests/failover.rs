//! The orchestrator with a real broker and a real database: how soon it acts, and what it does when the
//! broker, the database, the licence ledger or it itself fails.

#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

mod common;

use std::{
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use common::{CAMERAS, Host, ORIGINAL, PATIENCE, Player, STAND_IN, ask, bus, config_in, enrol, fact};
use common::{films_for_original, next, observation, protected, server};
use diesel::{
    Connection as _, RunQueryDsl as _, connection::SimpleConnection as _, sqlite::SqliteConnection,
};
use tokio::time::Instant;
use understudy_bus::{BrokerConfig, Message, Queue, testing::Broker};
use understudy_core::{
    contract::{
        api::{Phase, StartMode},
        event::Event,
        names,
        rpc::{Answer, LicenseReply, LicenseRequest, OrchestratorReply, OrchestratorRequest},
    },
    ids::LicenseKeyId,
    policy::Policy,
};
use understudy_license::LicenseConfig;
use understudy_runtime::{Process, TraceContext};

const FOLDER: &str = "ORCHESTRATOR_TEST_FOLDER";
const BROKER: &str = "ORCHESTRATOR_TEST_BROKER";

fn automatic() -> Policy {
    Policy {
        automatic: true,
        disconnection_ms: 1000,
        ..Policy::default()
    }
}

fn start() -> OrchestratorRequest {
    OrchestratorRequest::StartFailover {
        server: server(ORIGINAL),
        stand_in: None,
        by: "anna".to_owned(),
        mode: StartMode::Manual,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn c2_c6_a_decision_is_on_the_bus_at_once_by_hand_and_by_itself() {
    // Given a fleet in order.
    let broker = Broker::start().await.unwrap();
    let host = Host::new();
    let orchestrator = host.orchestrator(&broker.config());
    let process = Process::for_test("test");
    let bus = bus(&broker, "test", &process).await;
    enrol(&bus, automatic()).await;
    Player::new(ORIGINAL).play(bus.clone(), &process);
    let standby = Process::for_test("standby");
    Player::new(STAND_IN).play(common::bus(&broker, "stand-in", &standby).await, &standby);
    protected(&bus).await;
    // The failover server only listens from here on.
    standby.finish().await;
    let mut facts = bus.subscribe(Queue::events(&["east.failover.*"]));
    facts.consuming().await;
    let mut queue = bus.subscribe(Queue::assignments(&server(STAND_IN)));
    queue.consuming().await;
    bus.publish(observation(STAND_IN, 0)).await.unwrap();

    // When a person starts a failover,
    let asked = Instant::now();
    let assigned = async {
        loop {
            let heard = next(&mut queue).await;
            heard.ack().await;
            if films_for_original(&heard) {
                return (asked.elapsed(), heard.trace.trace_id());
            }
        }
    };
    let told = async {
        let heard = fact(&mut facts, "failover.started").await;
        assert_eq!(heard.fact().unwrap().domain, common::domain());
        (asked.elapsed(), heard.trace.trace_id())
    };
    let cause = TraceContext::root();
    let asking = cause.scope(ask(&bus, start()));
    let (answer, (assigned, assigned_in), (told, told_in)) = tokio::join!(asking, assigned, told);
    // then the failover server hears it, and everybody, within a moment.
    let Ok(OrchestratorReply::Failover(view)) = answer else {
        panic!("{answer:?}")
    };
    assert_eq!(view.stand_in, Some(server(STAND_IN)));
    println!("by hand: assigned after {assigned:?}, told after {told:?}");
    assert!(assigned < Duration::from_millis(500), "{assigned:?}");
    assert!(told < Duration::from_millis(500), "{told:?}");
    // What follows from the request, through the decision and the outbox, is one trace.
    assert_eq!((assigned_in, told_in), (cause.trace_id(), cause.trace_id()));
    orchestrator.finish().await;
    process.finish().await;

    // The same when the monitor says that a server has been silent for long enough.
    let host = Host::new();
    let broker = Broker::start().await.unwrap();
    let orchestrator = host.orchestrator(&broker.config());
    let process = Process::for_test("test");
    let bus = common::bus(&broker, "test", &process).await;
    enrol(&bus, automatic()).await;
    Player::new(STAND_IN).play(bus.clone(), &process);
    bus.publish(observation(ORIGINAL, 0)).await.unwrap();
    protected(&bus).await;
    let mut facts = bus.subscribe(Queue::events(&["east.failover.*"]));
    facts.consuming().await;
    let seen = Instant::now();
    bus.publish(observation(ORIGINAL, 1001)).await.unwrap();
    let heard = fact(&mut facts, "failover.started").await;
    let took = seen.elapsed();
    println!("by itself: told after {took:?}");
    assert!(took < Duration::from_millis(500), "{took:?}");
    let Event::FailoverStarted { silent_ms, .. } = heard.fact().unwrap().event else {
        panic!("{heard:?}")
    };
    assert!((1000..1500).contains(&silent_ms), "{silent_ms}");
    let heard = fact(&mut facts, "failover.serving").await;
    let Event::FailoverServing { filming, .. } = heard.fact().unwrap().event else {
        panic!("{heard:?}")
    };
    assert_eq!(filming as usize, CAMERAS);
    orchestrator.finish().await;
    process.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "not a test: the process that the next one kills"]
async fn runs_an_orchestrator() {
    let (Ok(folder), Ok(url)) = (std::env::var(FOLDER), std::env::var(BROKER)) else {
        return;
    };
    let (config, host) = config_in(Path::new(&folder));
    let broker = BrokerConfig { url, url_file: None };
    understudy_orchestrator::run(config, host, broker, Process::for_test("orchestrator"))
        .await
        .unwrap();
}

struct Killed(std::process::Child);

impl Killed {
    fn start(host: &Host, broker: &Broker) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "runs_an_orchestrator", "--ignored"])
            .env(FOLDER, host.folder.path())
            .env(BROKER, broker.url())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn();
        Self(child.unwrap())
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// The messages that the orchestrator has stored and not sent.
fn stored(host: &Host) -> Vec<Message> {
    #[derive(diesel::QueryableByName)]
    struct Row {
        #[diesel(sql_type = diesel::sql_types::Text)]
        message: String,
    }
    let path = host.config().1.database();
    let mut connection = SqliteConnection::establish(path.to_str().unwrap()).unwrap();
    connection.batch_execute("PRAGMA busy_timeout = 10000").unwrap();
    let rows = diesel::sql_query("SELECT message FROM outbox ORDER BY id")
        .load::<Row>(&mut connection)
        .unwrap();
    rows.iter()
        .map(|row| serde_json::from_str(&row.message).unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_orchestrator_killed_between_storing_and_sending_sends_at_its_next_start() {
    // Given a failover server whose queue is gone, so that what is stored for it can't be sent yet.
    let broker = Broker::start().await.unwrap();
    let host = Host::new();
    let orchestrator = Killed::start(&host, &broker);
    let process = Process::for_test("test");
    let bus = bus(&broker, "test", &process).await;
    enrol(&bus, Policy::default()).await;
    bus.publish(observation(STAND_IN, 0)).await.unwrap();
    protected(&bus).await;
    broker
        .control(&["delete_queue", &names::assignment_queue(&server(STAND_IN))])
        .await
        .unwrap();
    bus.publish(observation(STAND_IN, 0)).await.unwrap();
    ask(&bus, start()).await.unwrap();
    let kept = stored(&host)
        .into_iter()
        .rfind(|message| message.kind == names::ASSIGNMENT_TYPE && message.routing_key == STAND_IN);
    let kept = kept.expect("the assignment is stored");

    // When the orchestrator is killed, and started again,
    drop(orchestrator);
    let mut queue = bus.subscribe(Queue::assignments(&server(STAND_IN)));
    queue.consuming().await;
    let orchestrator = Killed::start(&host, &broker);

    // then what it had decided goes out: that very message.
    loop {
        let heard = next(&mut queue).await;
        heard.ack().await;
        if heard.id == kept.id {
            assert!(films_for_original(&heard));
            break;
        }
    }
    // And it still knows of the failover.
    let Ok(OrchestratorReply::Failovers(failovers)) = ask(&bus, OrchestratorRequest::ListFailovers).await
    else {
        panic!("it answers");
    };
    assert_eq!(failovers.len(), 1);
    assert_eq!(failovers[0].phase, Phase::TakingOver);
    drop(orchestrator);
    process.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_waits_for_broker_and_database_and_says_so() {
    // Given an orchestrator that is started before its broker.
    let mut broker = Broker::start().await.unwrap();
    broker.stop().await;
    let host = Host::new();
    let orchestrator = host.orchestrator(&broker.config());
    let waits_for = async |what: &'static str, why: &str| {
        let deadline = Instant::now() + PATIENCE;
        while !orchestrator
            .waiting_for()
            .get(what)
            .is_some_and(|waits| waits.contains(why))
        {
            assert!(Instant::now() < deadline, "{:?}", orchestrator.waiting_for());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    waits_for("broker", "127.0.0.1").await;

    // When the broker comes, it works; when the broker vanishes in the middle, it waits and says so;
    broker.restart().await.unwrap();
    let process = Process::for_test("test");
    let bus = bus(&broker, "test", &process).await;
    enrol(&bus, Policy::default()).await;
    assert!(
        orchestrator.waiting_for().is_empty(),
        "{:?}",
        orchestrator.waiting_for()
    );
    broker.stop().await;
    waits_for("broker", "127.0.0.1").await;

    // when it comes back, the orchestrator goes on by itself.
    broker.restart().await.unwrap();
    assert!(bus.connected().await);
    Player::new(STAND_IN).play(bus.clone(), &process);
    protected(&bus).await;
    assert!(
        orchestrator.waiting_for().is_empty(),
        "{:?}",
        orchestrator.waiting_for()
    );

    // When somebody holds the database, it waits, says so, and nothing is lost.
    let mut connection = SqliteConnection::establish(host.config().1.database().to_str().unwrap()).unwrap();
    connection
        .batch_execute("PRAGMA busy_timeout = 10000; BEGIN IMMEDIATE")
        .unwrap();
    let mut facts = bus.subscribe(Queue::events(&["*.failover.started"]));
    facts.consuming().await;
    let asking = tokio::spawn({
        let bus = bus.clone();
        async move { ask(&bus, start()).await }
    });
    waits_for("database", "locked").await;
    connection.batch_execute("COMMIT").unwrap();
    fact(&mut facts, "failover.started").await;
    let answer = asking.await.unwrap();
    // Asked twice because the first answer took too long, the second time there is one already.
    assert!(
        answer.is_ok() || answer.as_ref().is_err_and(|problem| problem.status == 409),
        "{answer:?}"
    );
    assert!(
        orchestrator.waiting_for().is_empty(),
        "{:?}",
        orchestrator.waiting_for()
    );
    orchestrator.finish().await;
    process.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn e10_filming_never_waits_for_licences_and_the_transfer_follows() {
    // Given a fleet whose keys belong to the recording server, and no licence service.
    let broker = Broker::start().await.unwrap();
    let host = Host::new();
    let issuer_file = host.folder.path().join("issuer");
    let issuer = understudy_license::generate_issuer(&issuer_file).unwrap();
    let id = LicenseKeyId::new("key-1").unwrap();
    let key = understudy_license::issue(&issuer_file, &id, 88, "hospital").unwrap();
    let ledger = |broker: BrokerConfig| {
        let process = Process::for_test("license");
        let config = LicenseConfig {
            issuers: vec![issuer.clone()],
            ..LicenseConfig::default()
        };
        let (data, running) = (host.config().1, process.clone());
        process.spawn("license", async move {
            understudy_license::run(config, data, broker, running)
                .await
                .expect("the ledger starts");
        });
        process
    };
    let orchestrator = host.orchestrator(&broker.config());
    let process = Process::for_test("test");
    let bus = bus(&broker, "test", &process).await;
    enrol(&bus, Policy::default()).await;
    let first = ledger(broker.config());
    let deadline = Instant::now() + PATIENCE;
    let asked = async |request: LicenseRequest| -> Answer<LicenseReply> {
        loop {
            match bus
                .request(names::LICENSE, &request, Duration::from_secs(5))
                .await
            {
                Ok(answer) => return answer,
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    asked(LicenseRequest::Add {
        key,
        server: server(ORIGINAL),
    })
    .await
    .unwrap();
    first.finish().await;
    for id in [ORIGINAL, STAND_IN] {
        Player::new(id).play(bus.clone(), &process);
    }
    protected(&bus).await;
    let mut facts = bus.subscribe(Queue::events(&["#"]));
    facts.consuming().await;

    // When a failover is started, then the failover server serves, although no key can be moved.
    ask(&bus, start()).await.unwrap();
    fact(&mut facts, "failover.serving").await;

    // When the licence service is there again, then the transfer follows by itself.
    let second = ledger(broker.config());
    let heard = fact(&mut facts, "license.transferred").await;
    let Event::LicenseTransferred {
        from, to, devices, ..
    } = heard.fact().unwrap().event
    else {
        panic!("{heard:?}");
    };
    assert_eq!((from, to, devices), (server(ORIGINAL), server(STAND_IN), 88));
    let Ok(LicenseReply::Licenses(view)) = asked(LicenseRequest::List).await else {
        panic!("it answers")
    };
    assert_eq!(view.devices.get(&server(STAND_IN)), Some(&88));
    assert_eq!(view.keys.len(), 1);
    assert_eq!(
        (&view.keys[0].holder, &view.keys[0].owner),
        (&server(STAND_IN), &server(ORIGINAL))
    );
    second.finish().await;
    orchestrator.finish().await;
    process.finish().await;
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_into_and_a_missing_key_are_named() {
    let host = Host::new();
    let (config, mut data) = host.config();
    data.data = "/proc/understudy".into();
    let ran =
        understudy_orchestrator::run(config, data, BrokerConfig::default(), Process::for_test("test")).await;
    let error = ran.unwrap_err().to_string();
    assert!(
        error.contains("can't write into /proc/understudy") && error.contains("host.data"),
        "{error}"
    );

    let (mut config, data) = host.config();
    config.fleet_key_file = "/no/fleet.key".into();
    let ran =
        understudy_orchestrator::run(config, data, BrokerConfig::default(), Process::for_test("test")).await;
    let error = ran.unwrap_err().to_string();
    assert!(
        error.contains("fleet_key_file") && error.contains("/no/fleet.key"),
        "{error}"
    );
}
