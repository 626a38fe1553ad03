//! An agent and the monitor, with a real broker between them: what is heard, on which path, and what silence
//! looks like.

use std::{net::SocketAddr, path::Path, time::Duration};

use tokio::{net::TcpListener, time::Instant};
use understudy_bus::{BrokerConfig, Bus, Message, Queue, Subscription, private_broker::PrivateBroker};
use understudy_core::{
    contract::heartbeat::{Ending, Farewell, Heartbeat, Observation, PackageState, StorageState},
    ids::{DomainId, ServerId},
    time::Timestamp,
};
use understudy_health::{
    agent::{self, AgentConfig},
    monitor::{self, MonitorConfig},
};
use understudy_runtime::{FleetConfig, Process, Secret, ServerConfig};

const PATIENCE: Duration = Duration::from_secs(30);

async fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    listener.local_addr().expect("bound")
}

fn start_monitor(listen: SocketAddr, broker: BrokerConfig) -> Process {
    start_monitor_of(FleetConfig::default(), listen, broker)
}

fn start_monitor_of(fleet: FleetConfig, listen: SocketAddr, broker: BrokerConfig) -> Process {
    let process = Process::for_test("monitor");
    let running = process.clone();
    tokio::spawn(async move {
        monitor::run(MonitorConfig { listen }, fleet, broker, running)
            .await
            .expect("the monitor starts");
    });
    process
}

fn start_agent(config: AgentConfig, data: &Path, broker: BrokerConfig) -> Process {
    start_agent_of(FleetConfig::default(), config, data, broker)
}

fn start_agent_of(fleet: FleetConfig, config: AgentConfig, data: &Path, broker: BrokerConfig) -> Process {
    let server = ServerConfig {
        id: ServerId::new("recorder-1").expect("an id"),
        domain: DomainId::new("east").expect("an id"),
        data: data.to_owned(),
        ..ServerConfig::default()
    };
    let process = Process::for_test("agent");
    let running = process.clone();
    tokio::spawn(async move {
        agent::run(config, fleet, server, broker, running)
            .await
            .expect("the agent starts");
    });
    process
}

/// Asks it to end: it says goodbye, and then it is as silent as one that was killed.
fn kill(process: &Process) {
    process.shutdown().cancel();
}

fn config(monitor: SocketAddr) -> AgentConfig {
    AgentConfig {
        interval_ms: 200,
        monitor_url: format!("http://{monitor}"),
        ingest_url: String::new(),
        volume_interval_ms: 50,
        ..AgentConfig::default()
    }
}

async fn listen(broker: &PrivateBroker) -> (Process, Bus, Subscription) {
    let process = Process::for_test("listener");
    let bus = Bus::start(&broker.config(), "listener", &process).expect("a bus");
    let mut observations = bus.subscribe(Queue::heartbeats(&["east.observation.recorder-1"]));
    observations.consuming().await;
    (process, bus, observations)
}

async fn until(
    observations: &mut Subscription,
    what: &str,
    is: impl Fn(&Observation) -> bool,
) -> Observation {
    let give_up = Instant::now() + PATIENCE;
    let mut last = None;
    while Instant::now() < give_up {
        let Ok(Some(incoming)) = tokio::time::timeout(PATIENCE, observations.next()).await else {
            break;
        };
        let observation: Observation = incoming.json().expect("an observation");
        if is(&observation) {
            return observation;
        }
        last = Some(observation);
    }
    panic!("never {what}; the last was {last:?}");
}

fn metric(process: &Process, name: &str) -> Option<f64> {
    let families = process.registry().gather();
    let family = families.iter().find(|family| family.name() == name)?;
    let metric = family.get_metric().first()?;
    Some(metric.get_gauge().get_value() + metric.get_counter().get_value())
}

/// How many beats the monitor has taken on one path.
fn beats(process: &Process, path: &str) -> f64 {
    let families = process.registry().gather();
    let family = families
        .iter()
        .find(|family| family.name() == "understudy_heartbeats_total");
    let metrics = family.map_or(&[][..], |family| family.get_metric());
    let on_path = metrics
        .iter()
        .find(|metric| metric.get_label().iter().any(|label| label.value() == path));
    on_path.map_or(0.0, |metric| metric.get_counter().get_value())
}

async fn eventually(what: &str, is: impl Fn() -> bool) {
    let give_up = Instant::now() + PATIENCE;
    while !is() {
        assert!(Instant::now() < give_up, "never {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn c2_a_killed_agent_is_missed_within_a_second_and_garbage_hides_nothing() {
    let broker = PrivateBroker::start().await.expect("a broker");
    let data = tempfile::tempdir().expect("a folder");
    let address = free_address().await;
    let monitor = start_monitor(address, broker.config());
    let (_listener, bus, mut observations) = listen(&broker).await;

    // Given: it is heard on both paths.
    let agent = start_agent(config(address), data.path(), broker.config());
    let seen = until(&mut observations, "heard on both paths", |seen| {
        seen.paths.broker && seen.paths.direct
    })
    .await;
    assert_eq!((seen.silent_ms, seen.blind), (0, false));
    assert_eq!(seen.package.state, PackageState::Running);
    assert_eq!(seen.storage.state, StorageState::Normal);

    // When somebody sends what is no heartbeat, it is refused, counted, and hides nothing.
    let mut garbage = Message::heartbeat(&beat("recorder-2"));
    garbage.body = "{\"server\":7}".into();
    bus.publish(garbage).await.expect("published");
    eventually("refused", || {
        metric(&monitor, "understudy_heartbeats_refused_total") == Some(1.0)
    })
    .await;
    until(&mut observations, "still heard", |seen| {
        seen.paths.broker && seen.paths.direct
    })
    .await;

    // When it is killed: what the monitor says, and the time since then, pass one second in time.
    kill(&agent);
    let killed = Instant::now();
    let (mut silent, mut heard_at) = (0, killed);
    while silent + u64::try_from(heard_at.elapsed().as_millis()).expect("small") < 1_000 || silent == 0 {
        if let Ok(Some(incoming)) = tokio::time::timeout(Duration::from_millis(10), observations.next()).await
        {
            let seen: Observation = incoming.json().expect("an observation");
            assert!(!seen.blind, "{seen:?}");
            (silent, heard_at) = (seen.silent_ms, Instant::now());
        }
        assert!(
            killed.elapsed() < Duration::from_secs(3),
            "not missed: {silent} ms"
        );
    }
    assert!(
        killed.elapsed() < Duration::from_millis(1_400),
        "missed after {:?}",
        killed.elapsed()
    );
    let seen = until(&mut observations, "evidence", |seen| seen.silent_ms > 1_000).await;
    assert!(
        seen.evidence
            .iter()
            .any(|line| line.seen.contains("no heartbeat")),
        "{seen:?}"
    );
    assert!(metric(&monitor, "understudy_heartbeat_age_seconds").expect("shown") > 0.5);

    // When it is back, the silence ends.
    let _agent = start_agent(config(address), data.path(), broker.config());
    until(&mut observations, "heard again", |seen| {
        seen.silent_ms == 0 && seen.paths.broker
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c2_a_broker_that_vanishes_is_no_silence() {
    let mut broker = PrivateBroker::start().await.expect("a broker");
    let data = tempfile::tempdir().expect("a folder");
    let address = free_address().await;
    let monitor = start_monitor(address, broker.config());
    let _agent = start_agent(config(address), data.path(), broker.config());
    let (_listener, _bus, mut observations) = listen(&broker).await;
    until(&mut observations, "heard on both paths", |seen| {
        seen.paths.broker && seen.paths.direct
    })
    .await;

    // When the broker is gone, it is heard directly as before, and so the host is not blind. (A beat that a busy
    // machine delays blinds it until it comes, as it must: core/tests/decides/presence.rs.)
    broker.kill();
    eventually("the monitor knows", || {
        monitor.waiting_for().contains_key("broker")
    })
    .await;
    let more = async |count| {
        let direct = beats(&monitor, "direct") + count;
        eventually("heard directly", || beats(&monitor, "direct") >= direct).await;
    };
    // What the broker had handed over before is through by then.
    more(5.0).await;
    let by_broker = beats(&monitor, "broker");
    more(10.0).await;
    assert_eq!(
        beats(&monitor, "broker"),
        by_broker,
        "nothing by a broker that is gone"
    );
    eventually("the host sees", || {
        metric(&monitor, "understudy_host_blind") == Some(0.0)
    })
    .await;
    assert!(
        monitor.waiting_for().contains_key("broker"),
        "all of it without one"
    );

    // Back, no silence is spoken of that would start a failover.
    broker.restart().await.expect("a broker");
    until(&mut observations, "heard on both paths", |seen| {
        assert!(seen.silent_ms == 0 || seen.blind, "{seen:?}");
        seen.paths.broker && seen.paths.direct
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c2_a_broker_alarm_silences_everybody_and_is_nobodys_silence() {
    let broker = PrivateBroker::start().await.expect("a broker");
    let data = tempfile::tempdir().expect("a folder");
    let address = free_address().await;
    let monitor = start_monitor(address, broker.config());
    // The broker is its only path, as it is for a server that reaches nothing else.
    let only_broker = AgentConfig {
        monitor_url: String::new(),
        ..config(address)
    };
    let _agent = start_agent(only_broker, data.path(), broker.config());
    let (_listener, _bus, mut observations) = listen(&broker).await;
    until(&mut observations, "heard", |seen| seen.paths.broker).await;

    // When the broker is short of memory, it takes nothing from anybody (connection.blocked).
    let watermark = |value: &'static [&'static str]| {
        let mut arguments = vec!["set_vm_memory_high_watermark"];
        arguments.extend(value);
        arguments
    };
    broker
        .control(&watermark(&["absolute", "1MB"]))
        .await
        .expect("it is told");
    eventually("the monitor knows", || {
        let waiting = monitor.waiting_for();
        waiting
            .get("broker")
            .is_some_and(|why| why.contains("takes no messages"))
    })
    .await;
    eventually("the host is blind", || {
        metric(&monitor, "understudy_host_blind") == Some(1.0)
    })
    .await;

    // When the alarm is over, the silence of meanwhile counts for nothing.
    broker.control(&watermark(&["0.4"])).await.expect("it is told");
    until(&mut observations, "heard again", |seen| {
        assert!(seen.silent_ms < 1_000 || seen.blind, "{seen:?}");
        seen.paths.broker
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c3_c4_what_the_agent_sees_is_seen_at_the_host() {
    let broker = PrivateBroker::start().await.expect("a broker");
    let data = tempfile::tempdir().expect("a folder");
    let archive = data.path().join("archive");
    std::fs::create_dir(&archive).expect("made");
    let address = free_address().await;
    let _monitor = start_monitor(address, broker.config());
    let (_listener, _bus, mut observations) = listen(&broker).await;

    // Given a recording service that answers.
    let recorder = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let ingest_url = format!("http://{}", recorder.local_addr().expect("bound"));
    let service = tokio::spawn(answer_healthz(recorder));
    let config = AgentConfig {
        ingest_url,
        package_interval_ms: 50,
        package_patience_ms: 200,
        ..config(address)
    };
    let _agent = start_agent(config, data.path(), broker.config());
    until(&mut observations, "running", |seen| {
        seen.paths.broker
            && seen.package.state == PackageState::Running
            && seen.storage.state == StorageState::Normal
    })
    .await;

    // When it is gone, and the recordings' folder too.
    service.abort();
    let seen = until(&mut observations, "crashed", |seen| {
        seen.package.state == PackageState::Crashed
    })
    .await;
    assert!(seen.package.evidence.contains("refused"), "{seen:?}");
    assert_eq!(seen.silent_ms, 0, "the agent outlives the recording service");
    std::fs::rename(&archive, data.path().join("elsewhere")).expect("moved away");
    let seen = until(&mut observations, "damaged", |seen| {
        seen.storage.state == StorageState::Damaged
    })
    .await;
    assert!(seen.storage.evidence.contains("archive"), "{seen:?}");
    assert!(
        seen.evidence
            .iter()
            .any(|line| line.seen.contains("recording volume")),
        "{seen:?}"
    );
}

async fn answer_healthz(listener: TcpListener) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    loop {
        let (mut stream, _) = listener.accept().await.expect("accepted");
        let mut request = [0; 1024];
        let _ = stream.read(&mut request).await;
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\nconnection: close\r\n\r\nok\n";
        let _ = stream.write_all(answer).await;
    }
}

fn beat(server: &str) -> Heartbeat {
    Heartbeat {
        server: ServerId::new(server).expect("an id"),
        domain: DomainId::new("east").expect("an id"),
        sequence: 1,
        sent_at: Timestamp(0),
        interval_ms: 500,
        package: understudy_core::contract::heartbeat::Package::default(),
        storage: understudy_core::contract::heartbeat::Storage::default(),
        farewell: None,
        started: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn c7_a_stopped_agent_says_so_and_its_next_run_knows_how_it_ended() {
    let broker = PrivateBroker::start().await.expect("a broker");
    let data = tempfile::tempdir().expect("a folder");
    let address = free_address().await;
    let _monitor = start_monitor(address, broker.config());
    let (_listener, _bus, mut observations) = listen(&broker).await;

    // By the broker alone, the farewell has to get through before the connection ends.
    let only_broker = AgentConfig {
        monitor_url: String::new(),
        ..config(address)
    };
    for config in [only_broker, config(address)] {
        let agent = start_agent(config, data.path(), broker.config());
        let seen = until(&mut observations, "heard, with its start", |seen| {
            seen.silent_ms == 0 && seen.started.is_some()
        })
        .await;
        let before = seen.started.expect("it says so").before;
        assert!(
            before.is_none() || before == Some(Ending::Clean),
            "{before:?}: the first run, or one after a clean end"
        );
        agent.finish().await;
        let seen = until(&mut observations, "silent, with a farewell", |seen| {
            seen.silent_ms > 0 && !seen.blind && seen.farewell.is_some()
        })
        .await;
        assert_eq!(seen.farewell, Some(Farewell::Stopped), "{seen:?}");
        let said = |seen: &Observation| {
            let mut lines = seen.evidence.iter();
            lines.any(|line| line.seen.contains("said that its agent is being stopped"))
        };
        assert!(said(&seen), "{seen:?}");
        eventually("it has noted its end", || {
            let run = std::fs::read_to_string(data.path().join("agent-run.json"));
            run.is_ok_and(|run| run.contains("\"clean\":true"))
        })
        .await;
    }
}

#[test]
fn a_beat_at_rest_is_small() {
    let body = serde_json::to_vec(&beat("recorder-1")).expect("JSON");
    assert!(body.len() <= 200, "{} bytes", body.len());
}

#[tokio::test]
async fn a_taken_port_is_a_clear_error() {
    let taken = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let config = MonitorConfig {
        listen: taken.local_addr().expect("bound"),
    };
    let error = monitor::run(
        config,
        FleetConfig::default(),
        BrokerConfig::default(),
        Process::for_test("monitor"),
    )
    .await;
    let error = error.expect_err("the port is taken").to_string();
    assert!(
        error.contains("monitor.listen") && error.contains("taken"),
        "{error}"
    );
}

#[tokio::test]
async fn an_impossible_interval_is_a_clear_error() {
    let config = AgentConfig {
        interval_ms: 1,
        ..AgentConfig::default()
    };
    let run = agent::run(
        config,
        FleetConfig::default(),
        ServerConfig::default(),
        BrokerConfig::default(),
        Process::for_test("agent"),
    );
    let error = run.await.expect_err("too often").to_string();
    assert!(error.contains("agent.interval_ms = 1"), "{error}");
}

fn fleet(token: &str) -> FleetConfig {
    FleetConfig {
        token: Some(Secret::new(token)),
        token_file: None,
    }
}

#[tokio::test]
async fn beyond_this_machine_no_monitor_starts_without_the_fleets_token() {
    for listen in ["0.0.0.0:0", "192.0.2.1:7601"] {
        let config = MonitorConfig {
            listen: listen.parse().expect("an address"),
        };
        let process = Process::for_test("monitor");
        let run = monitor::run(config, FleetConfig::default(), BrokerConfig::default(), process);
        let error = run.await.expect_err("anybody could beat").to_string();
        assert!(
            error.contains(&format!("monitor.listen = {listen}")) && error.contains("fleet.token_file"),
            "{error}"
        );
    }
    let process = Process::for_test("agent");
    let run = agent::run(
        AgentConfig::default(),
        fleet("short"),
        ServerConfig::default(),
        BrokerConfig::default(),
        process,
    );
    let error = run.await.expect_err("it can be guessed").to_string();
    assert!(
        error.contains("fleet.token") && !error.contains("short\""),
        "{error}"
    );
}

#[tokio::test]
async fn an_agent_with_another_token_is_heard_by_broker_only_and_with_the_fleets_on_both_paths() {
    let mut broker = PrivateBroker::start().await.expect("a broker");
    let folder = tempfile::tempdir().expect("a folder");
    let ours = fleet("0123456789abcdef0123456789abcdef");
    let address = free_address().await;
    let monitor = start_monitor_of(ours.clone(), address, broker.config());
    for other in [FleetConfig::default(), fleet("fedcba9876543210fedcba9876543210")] {
        let before = beats(&monitor, "broker");
        let agent = start_agent_of(other, config(address), folder.path(), broker.config());
        eventually("by broker", || beats(&monitor, "broker") >= before + 5.0).await;
        assert_eq!(beats(&monitor, "direct"), 0.0);
        agent.shutdown().cancel();
        agent.finish().await;
    }
    let agent = start_agent_of(ours, config(address), folder.path(), broker.config());
    eventually("on both paths", || beats(&monitor, "direct") >= 2.0).await;
    agent.shutdown().cancel();
    agent.finish().await;
    monitor.shutdown().cancel();
    monitor.finish().await;
    broker.stop().await;
}
