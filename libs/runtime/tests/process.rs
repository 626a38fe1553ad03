//! A process as those outside see it: ready or not, measured, ended in order.

#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use understudy_runtime::{Process, RuntimeConfig, StartError};

async fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn a_process_says_whether_it_lives_what_it_waits_for_and_how_it_does() {
    let process = Process::start("test", &RuntimeConfig::default()).await.unwrap();
    let address = process.address();
    assert!(get(address, "/healthz").await.starts_with("HTTP/1.1 200"));
    assert!(get(address, "/healthz").await.contains(r#"{"alive":true}"#));
    process.remark("nothing", || None);
    process.remark("volume_errors", || Some(3.into()));
    let alive = get(address, "/healthz").await;
    assert!(alive.contains(r#"{"alive":true,"volume_errors":3}"#), "{alive}");
    assert!(get(address, "/readyz").await.contains(r#"{"ready":true}"#));

    let broker = process.condition("broker");
    broker.not_ready("connection refused");
    let answer = get(address, "/readyz").await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(
        answer.contains(r#""waiting_for":{"broker":"connection refused"}"#),
        "{answer}"
    );
    broker.ready();
    assert!(get(address, "/readyz").await.starts_with("HTTP/1.1 200"));

    let metrics = get(address, "/metrics").await;
    assert!(metrics.contains("process_resident_memory_bytes"), "{metrics}");
    assert!(get(address, "/elsewhere").await.starts_with("HTTP/1.1 404"));

    // A second process can't have the same port, and is told what to do.
    let config = RuntimeConfig {
        listen: address,
        ..RuntimeConfig::default()
    };
    let error = Process::start("second", &config).await.unwrap_err();
    assert!(matches!(error, StartError::PortTaken(taken) if taken == address));
    let text = error.to_string();
    assert!(
        text.contains(&address.port().to_string()) && text.contains("runtime.listen"),
        "{text}"
    );

    // Once it has ended nobody answers any more.
    process.finish().await;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while tokio::net::TcpStream::connect(address).await.is_ok() {
        assert!(tokio::time::Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_level_that_makes_no_sense_is_refused() {
    let config = RuntimeConfig {
        level: "info,=loud".to_owned(),
        ..RuntimeConfig::default()
    };
    let error = Process::start("test", &config).await.unwrap_err();
    assert!(error.to_string().contains("runtime.level"), "{error}");
}

#[tokio::test]
async fn tasks_end_in_order_at_the_shutdown() {
    let process = Process::for_test("test");
    let tidied = Arc::new(AtomicBool::new(false));
    let (shutdown, done) = (process.shutdown(), Arc::clone(&tidied));
    process.spawn("tidy", async move {
        shutdown.cancelled().await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        done.store(true, Ordering::SeqCst);
    });
    process.finish().await;
    assert!(tidied.load(Ordering::SeqCst), "it was awaited");
}

#[tokio::test]
async fn a_task_that_panics_ends_the_process() {
    let process = Process::for_test("test");
    process.spawn("broken", async { panic!("as a test") });
    tokio::time::timeout(Duration::from_secs(10), process.shutdown().cancelled())
        .await
        .unwrap();
    process.finish().await;
}
