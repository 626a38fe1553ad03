//! The licence service as the orchestrator and the console meet it: over a real broker, with a real database.

#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use std::time::Duration;

use tokio::time::Instant;
use understudy_bus::{BrokerConfig, Bus, testing::Broker};
use understudy_core::{
    contract::{
        api::{LicenseKind, LicensesView},
        names,
        rpc::{Answer, LicenseReply, LicenseRequest},
    },
    ids::{FailoverId, LicenseKeyId, ServerId},
};
use understudy_license::{LicenseConfig, Licensing, generate_issuer, issue};
use understudy_runtime::{HostConfig, Process};

const PATIENCE: Duration = Duration::from_secs(60);

fn server(id: &str) -> ServerId {
    ServerId::new(id).unwrap()
}

fn failover(id: &str) -> FailoverId {
    FailoverId::new(id).unwrap()
}

fn transfer(id: &str) -> LicenseRequest {
    LicenseRequest::Transfer {
        failover: failover(id),
        from: server("recorder-1"),
        to: server("stand-in-1"),
    }
}

fn start(config: &LicenseConfig, host: &HostConfig, broker: &BrokerConfig) -> Process {
    let process = Process::for_test("license");
    let (config, host, broker, running) = (config.clone(), host.clone(), broker.clone(), process.clone());
    process.spawn("license", async move {
        understudy_license::run(config, host, broker, running)
            .await
            .expect("the ledger starts");
    });
    process
}

async fn ask(bus: &Bus, request: &LicenseRequest) -> Answer<LicenseReply> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match bus.request(names::LICENSE, request, Duration::from_secs(5)).await {
            Ok(answer) => return answer,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn ledger(bus: &Bus) -> LicensesView {
    match ask(bus, &LicenseRequest::List).await {
        Ok(LicenseReply::Licenses(view)) => view,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn e10_keys_move_once_come_back_once_and_are_never_lost_whatever_is_repeated_or_dies() {
    let broker = Broker::start().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let host = HostConfig {
        data: folder.path().join("data"),
        ..HostConfig::default()
    };
    let issuer_file = folder.path().join("issuer");
    let issuer = generate_issuer(&issuer_file).unwrap();
    let config = LicenseConfig {
        issuers: vec![issuer],
        ..LicenseConfig::default()
    };
    let process = Process::for_test("test");
    let bus = Bus::start(&broker.config(), "test", &process).unwrap();
    let mut service = start(&config, &host, &broker.config());

    // Given two keys of one recording server, each added twice.
    for (id, devices) in [("key-1", 40), ("key-2", 50)] {
        let key = issue(&issuer_file, &LicenseKeyId::new(id).unwrap(), devices, "hospital").unwrap();
        for _ in 0..2 {
            ask(
                &bus,
                &LicenseRequest::Add {
                    key: key.clone(),
                    server: server("recorder-1"),
                },
            )
            .await
            .unwrap();
        }
    }
    assert_eq!(ledger(&bus).await.devices[&server("recorder-1")], 90);

    // When each request comes several times, and the service dies between any two,
    for request in [
        transfer("f-1"),
        LicenseRequest::GiveBack {
            failover: failover("f-1"),
        },
    ] {
        for _ in 0..3 {
            assert_eq!(ask(&bus, &request).await, Ok(LicenseReply::Moved { devices: 90 }));
            let view = ledger(&bus).await;
            let holder = if matches!(request, LicenseRequest::Transfer { .. }) {
                "stand-in-1"
            } else {
                "recorder-1"
            };
            // then there are two keys, each with the one holder that it should have.
            assert_eq!(view.keys.len(), 2);
            assert!(
                view.keys.iter().all(|key| key.holder == server(holder)),
                "{view:?}"
            );
            assert!(
                view.keys.iter().all(|key| key.owner == server("recorder-1")),
                "{view:?}"
            );
            service.finish().await;
            service = start(&config, &host, &broker.config());
        }
    }

    // Each key's way is told once, newest first, whatever was repeated and whoever died.
    let Ok(LicenseReply::History(history)) = ask(&bus, &LicenseRequest::History).await else {
        panic!("a history")
    };
    let kinds: Vec<_> = history.iter().map(|each| each.what).collect();
    assert_eq!(
        kinds[..4],
        [
            LicenseKind::GivenBack,
            LicenseKind::GivenBack,
            LicenseKind::Transferred,
            LicenseKind::Transferred
        ]
    );
    assert_eq!(kinds[4..], [LicenseKind::Added, LicenseKind::Added]);
    let moved = &history[2];
    assert_eq!(
        (moved.from.clone(), moved.to.clone(), moved.failover.clone()),
        (
            Some(server("recorder-1")),
            Some(server("stand-in-1")),
            Some(failover("f-1"))
        )
    );

    // A transfer that arrives after its failover has ended moves nothing.
    let _late = ask(&bus, &transfer("f-1")).await;
    assert_eq!(ledger(&bus).await.devices[&server("recorder-1")], 90);

    // A key that nobody known signed, or that was changed, does not count, and the answer says why.
    let stranger_file = folder.path().join("stranger");
    generate_issuer(&stranger_file).unwrap();
    let foreign = issue(&stranger_file, &LicenseKeyId::new("key-3").unwrap(), 1, "").unwrap();
    let refused = ask(
        &bus,
        &LicenseRequest::Add {
            key: foreign,
            server: server("recorder-1"),
        },
    )
    .await;
    let problem = refused.unwrap_err();
    assert!(
        problem.status == 400 && problem.detail.contains("[license] issuers"),
        "{problem:?}"
    );

    service.finish().await;
    process.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_licensing_off_nothing_is_needed_and_nothing_is_moved() {
    let broker = Broker::start().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let host = HostConfig {
        data: folder.path().to_owned(),
        ..HostConfig::default()
    };
    let config = LicenseConfig {
        licensing: Licensing::Off,
        ..LicenseConfig::default()
    };
    let process = Process::for_test("test");
    let bus = Bus::start(&broker.config(), "test", &process).unwrap();
    let service = start(&config, &host, &broker.config());
    assert_eq!(
        ask(&bus, &transfer("f-1")).await,
        Ok(LicenseReply::Moved { devices: 0 })
    );
    let refused = ask(
        &bus,
        &LicenseRequest::Add {
            key: "x".to_owned(),
            server: server("recorder-1"),
        },
    )
    .await;
    assert!(refused.unwrap_err().detail.contains("licensing"));
    assert!(ledger(&bus).await.keys.is_empty());
    service.finish().await;
    process.finish().await;
}

#[tokio::test]
async fn what_is_wrong_at_the_start_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let host = |data: &std::path::Path| HostConfig {
        data: data.to_owned(),
        ..HostConfig::default()
    };
    let run = |config, host| {
        understudy_license::run(config, host, BrokerConfig::default(), Process::for_test("test"))
    };
    let config = LicenseConfig {
        issuers: vec!["nonsense".to_owned()],
        ..LicenseConfig::default()
    };
    let error = run(config, host(folder.path())).await.unwrap_err().to_string();
    assert!(error.contains("issuers") && error.contains("nonsense"), "{error}");
    let error = run(LicenseConfig::default(), host("/proc/understudy".as_ref()))
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("can't write into /proc/understudy"), "{error}");
}
