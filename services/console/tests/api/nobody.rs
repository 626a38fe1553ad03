//! Who is away is named, and nothing hangs.

use reqwest::Method;
use serde_json::json;
use understudy_bus::private_broker::PrivateBroker;

use crate::support::{Running, answer, nowhere};

#[tokio::test]
async fn without_a_broker_it_says_so() {
    let console = Running::start(&nowhere()).await;
    let refused = console.get("/servers").await;
    refused.is_problem(503, "unavailable", "the message broker is not reached");
    assert_eq!(refused.header("retry-after"), "2");
    let key = json!({"key": "x", "server": "recorder-1"});
    let refused = answer(console.request(Method::POST, "/licenses").json(&key)).await;
    refused.is_problem(503, "unavailable", "the licence service can't be asked");
}

#[tokio::test]
async fn without_an_orchestrator_it_says_so() {
    let broker = PrivateBroker::start().await.expect("RabbitMQ starts");
    let console = Running::start(&broker.config()).await;
    // Until it is connected it says that it is not.
    let refused = loop {
        let refused = console.get("/failovers").await;
        if !refused.body.to_string().contains("broker") {
            break refused;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    };
    refused.is_problem(503, "unavailable", "the orchestrator is not running");
    console.process.finish().await;
}
