//! What is asked wrongly is answered by a problem that says what is wrong. None of it needs another service.

use reqwest::Method;
use serde_json::json;
use understudy_console::ConsoleConfig;

use crate::support::{Running, answer, nowhere};

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let console = Running::start(&nowhere()).await;
    console
        .get("/nothing")
        .await
        .is_problem(404, "not-found", "/api/v1/nothing");
    console
        .get("/servers/No Such Id")
        .await
        .is_problem(404, "not-found", "there is no server");
    let outside = console.client.get(format!("http://{}/", console.address));
    answer(outside)
        .await
        .is_problem(404, "not-found", "there is no address /");
}

#[tokio::test]
async fn a_wrong_method_is_told_the_right_ones() {
    let console = Running::start(&nowhere()).await;
    let refused = answer(console.request(Method::DELETE, "/servers")).await;
    refused.is_problem(405, "wrong-method", "GET, POST");
    assert_eq!(refused.header("allow"), "GET, POST");
}

#[tokio::test]
async fn a_body_has_to_be_json_that_fits() {
    let console = Running::start(&nowhere()).await;
    let post = || console.request(Method::POST, "/servers");
    let json = "application/json";
    answer(post().header("content-type", json).body("{"))
        .await
        .is_problem(400, "invalid", "EOF");
    answer(post().json(&json!({"id": "Recorder 1"})))
        .await
        .is_problem(400, "invalid", "can't be an id");
    answer(post().json(&json!({"id": "a", "nmae": ""})))
        .await
        .is_problem(400, "invalid", "`nmae`");
    answer(post().body("id=a"))
        .await
        .is_problem(415, "not-json", "Content-Type: application/json");
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_before_it_is_read() {
    let config = ConsoleConfig {
        body_max_bytes: 64,
        ..ConsoleConfig::default()
    };
    let console = Running::configured(config, &nowhere()).await;
    let large = json!(["x".repeat(64)]);
    let refused = answer(console.request(Method::POST, "/cameras").json(&large)).await;
    refused.is_problem(413, "too-large", "at most 64 bytes");
}

#[tokio::test]
async fn a_parameter_that_means_nothing_is_refused() {
    let console = Running::start(&nowhere()).await;
    console
        .get("/servers?mode=recording")
        .await
        .is_problem(400, "invalid", "\"mode\" means nothing here");
    console
        .get("/failovers?activ=true")
        .await
        .is_problem(400, "invalid", "there are server, active");
    console
        .get("/failovers?active=yes")
        .await
        .is_problem(400, "invalid", "true or false");
}

#[tokio::test]
async fn a_page_in_the_browser_of_this_machine_gets_nothing() {
    let console = Running::start(&nowhere()).await;
    let get = || console.request(Method::GET, "/openapi.json");
    assert_eq!(answer(get()).await.status, 200);
    answer(get().header("host", "rebound.example"))
        .await
        .is_problem(403, "refused", "[console] hosts");
    answer(get().header("origin", "https://elsewhere.example"))
        .await
        .is_problem(403, "refused", "elsewhere");
}

#[tokio::test]
async fn where_there_is_a_token_nobody_gets_in_without_it() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("token");
    let token = "b".repeat(64);
    std::fs::write(&file, &token).expect("a file");
    let config = ConsoleConfig {
        token_file: Some(file),
        ..ConsoleConfig::default()
    };
    let console = Running::configured(config, &nowhere()).await;
    let refused = console.get("/openapi.json").await;
    refused.is_problem(401, "sign-in", "Bearer");
    assert!(refused.header("www-authenticate").starts_with("Bearer"));
    let let_in = answer(console.request(Method::GET, "/openapi.json").bearer_auth(token)).await;
    assert_eq!(
        (let_in.status, let_in.body["openapi"].as_str()),
        (200, Some("3.1.0"))
    );
}
