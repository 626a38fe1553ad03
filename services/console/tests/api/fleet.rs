//! The nouns against the services that own them: a real orchestrator and a real licence ledger.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use understudy_bus::private_broker::PrivateBroker;
use understudy_core::ids::LicenseKeyId;
use understudy_license::LicenseConfig;
use understudy_orchestrator::OrchestratorConfig;
use understudy_runtime::{HostConfig, Process, seal::FleetKey};

use crate::support::{Answer, Running, answer};

/// A host in this process. Ends with the test.
struct Host {
    console: Running,
    others: Vec<Process>,
    folder: TempDir,
    _broker: PrivateBroker,
}

impl Host {
    async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let key = folder.path().join("fleet.key");
        FleetKey::generate_to(&key).expect("a key");
        let issuer =
            understudy_license::generate_issuer(&folder.path().join("issuer.key")).expect("an issuer");
        let broker = PrivateBroker::start().await.expect("RabbitMQ starts");
        let host = HostConfig {
            data: folder.path().join("data"),
            ..HostConfig::default()
        };

        let orchestrator = Process::for_test("orchestrator");
        let config = OrchestratorConfig { fleet_key_file: key };
        let running =
            understudy_orchestrator::run(config, host.clone(), broker.config(), orchestrator.clone());
        orchestrator.spawn(
            "service",
            async move { running.await.expect("the orchestrator runs") },
        );
        let license = Process::for_test("license");
        let config = LicenseConfig {
            issuers: vec![issuer],
            ..LicenseConfig::default()
        };
        let running = understudy_license::run(config, host, broker.config(), license.clone());
        license.spawn("service", async move { running.await.expect("the ledger runs") });

        let console = Running::start(&broker.config()).await;
        let host = Self {
            console,
            others: vec![orchestrator, license],
            folder,
            _broker: broker,
        };
        host.answers("/servers").await;
        host.answers("/licenses").await;
        host
    }

    /// Waits until whoever owns the noun is there.
    async fn answers(&self, path: &str) {
        let there = tokio::time::timeout(Duration::from_secs(60), async {
            while self.console.get(path).await.status == 503 {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        there.await.unwrap_or_else(|_| panic!("{path} does not answer"));
    }

    async fn send(&self, method: Method, path: &str, body: &Value) -> Answer {
        answer(self.console.request(method, path).json(body)).await
    }

    /// What is done: its answer's body.
    async fn done(&self, method: Method, path: &str, body: &Value) -> Value {
        let answer = self.send(method, path, body).await;
        assert!(answer.status < 300, "{path}: {answer:?}");
        answer.body
    }

    async fn add_server(&self, id: &str, mode: &str) {
        let server = json!({
            "id": id, "name": id.to_uppercase(), "domain": "east", "mode": mode, "max_cameras": 10,
            "sync_address": "http://192.0.2.1:7400"
        });
        let view = self.done(Method::POST, "/servers", &server).await;
        assert_eq!(view["id"], id);
        // The same again is no error.
        self.done(Method::PUT, &format!("/servers/{id}"), &server).await;
    }

    async fn finish(self) {
        self.console.process.finish().await;
        for process in self.others {
            process.finish().await;
        }
    }
}

#[tokio::test]
async fn a1_a2_b5_a_fleet_is_set_up_through_the_api() {
    let host = Host::start().await;
    host.add_server("recorder-1", "recording").await;
    host.add_server("standby-1", "failover").await;

    let pairing = json!({"kind": "servers", "servers": ["standby-1"]});
    assert_eq!(
        host.done(Method::PUT, "/servers/recorder-1/pairings", &pairing)
            .await,
        pairing
    );
    let mut policy = host.console.get("/servers/recorder-1/failover-policy").await.body;
    policy["automatic"] = json!(true);
    assert_eq!(
        host.done(Method::PUT, "/servers/recorder-1/failover-policy", &policy)
            .await,
        policy
    );
    policy["disconnection_ms"] = json!(10);
    let refused = host
        .send(Method::PUT, "/servers/recorder-1/failover-policy", &policy)
        .await;
    refused.is_problem(400, "invalid", "1 s and 60 min");

    let server = host.console.get("/servers/recorder-1").await.body;
    assert_eq!(
        (&server["label"], &server["paired_with"]),
        (&json!("RECORDER-1 (0/10)"), &json!(["standby-1"]))
    );
    assert_eq!(host.console.get("/domains").await.body[0]["id"], "east");
    assert_eq!(host.console.get("/failovers?active=true").await.body, json!([]));
    host.console
        .get("/failovers/none")
        .await
        .is_problem(404, "not-found", "none");

    let order = json!({"for_ms": 60_000, "why": "a new disk", "by": "anna"});
    let path = "/servers/standby-1/maintenance";
    let view = host.done(Method::PUT, path, &order).await;
    assert_eq!(view["maintenance"]["why"], "a new disk", "{view}");
    let endless = json!({"for_ms": 700_000_000, "why": "a new disk"});
    host.send(Method::PUT, path, &endless)
        .await
        .is_problem(400, "invalid", "7 days");
    let unprotected = host.console.get("/servers/recorder-1").await.body;
    assert_eq!(unprotected["protected"], json!(false), "{unprotected}");
    let view = host.done(Method::POST, &format!("{path}/end"), &json!({})).await;
    assert_eq!(view["maintenance"], Value::Null, "{view}");

    let removed = answer(host.console.request(Method::DELETE, "/servers/standby-1")).await;
    assert_eq!((removed.status, removed.body), (204, Value::Null));
    host.console
        .get("/servers/standby-1")
        .await
        .is_problem(404, "not-found", "standby-1");
    host.finish().await;
}

#[tokio::test]
async fn e1_e10_cameras_and_licences_are_kept_and_passwords_never_shown() {
    let host = Host::start().await;
    host.add_server("recorder-1", "recording").await;
    let key_id = LicenseKeyId::new("key-1").expect("an id");
    let issuer = host.folder.path().join("issuer.key");
    let key = understudy_license::issue(&issuer, &key_id, 8, "eight").expect("a key");
    let added = host
        .done(
            Method::POST,
            "/licenses",
            &json!({"server": "recorder-1", "key": key}),
        )
        .await;
    assert_eq!(added["devices"], json!({"recorder-1": 8}));
    let forged = host
        .send(
            Method::POST,
            "/licenses",
            &json!({"server": "recorder-1", "key": "a.b"}),
        )
        .await;
    assert_eq!(forged.status, 400, "{forged:?}");

    let camera = |id: &str| {
        json!({
            "id": id, "name": id, "server": "recorder-1", "url": "rtsp://192.0.2.9/stream",
            "credentials": {"username": "viewer", "password": "hunter2"}
        })
    };
    let one = host.done(Method::POST, "/cameras", &camera("gate")).await;
    assert_eq!(
        (&one["id"], &one["credentials"]),
        (&json!("gate"), &json!({"username": "viewer"}))
    );
    host.done(Method::POST, "/cameras", &json!([camera("door"), camera("yard")]))
        .await;
    let edited = host
        .done(Method::PATCH, "/cameras/yard", &json!({"priority": 7}))
        .await;
    assert_eq!(edited["priority"], 7);
    let list = host.console.get("/cameras?server=recorder-1").await.body;
    assert_eq!(list.as_array().map(Vec::len), Some(3), "{list}");
    assert!(
        !list.to_string().contains("hunter2") && !list.to_string().contains("password"),
        "{list}"
    );
    assert_eq!(
        answer(host.console.request(Method::DELETE, "/cameras/yard"))
            .await
            .status,
        204
    );
    host.console
        .get("/cameras/yard")
        .await
        .is_problem(404, "not-found", "yard");
    host.finish().await;
}
