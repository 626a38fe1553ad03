//! A running console, and what it answers.

use std::net::SocketAddr;

use reqwest::{Client, Method, RequestBuilder, header};
use serde_json::Value;
use understudy_bus::BrokerConfig;
use understudy_console::{Console, ConsoleConfig};
use understudy_runtime::Process;

/// A console in this process. Ends with the test.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) client: Client,
    pub(crate) process: Process,
}

/// What was answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: header::HeaderMap,
    pub(crate) body: Value,
}

impl Running {
    pub(crate) async fn start(broker: &BrokerConfig) -> Self {
        Self::configured(ConsoleConfig::default(), broker).await
    }

    pub(crate) async fn configured(config: ConsoleConfig, broker: &BrokerConfig) -> Self {
        let process = Process::for_test("console");
        let config = ConsoleConfig {
            listen: ([127, 0, 0, 1], 0).into(),
            ..config
        };
        let console = Console::bind(config, broker, &process)
            .await
            .expect("a free port");
        let address = console.address();
        process.spawn("api", console.serve());
        let client = Client::builder().no_proxy().build().expect("a client");
        Self {
            address,
            client,
            process,
        }
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client
            .request(method, format!("http://{}/api/v1{path}", self.address))
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        answer(self.request(Method::GET, path)).await
    }
}

pub(crate) async fn answer(request: RequestBuilder) -> Answer {
    let response = request.send().await.expect("the console answers");
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let text = response.text().await.expect("a whole answer");
    let body = if text.is_empty() {
        Value::Null
    } else {
        serde_json::from_str(&text).expect("JSON")
    };
    Answer {
        status,
        headers,
        body,
    }
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }

    /// It is a problem document (RFC 9457) of this kind, which says this.
    pub(crate) fn is_problem(&self, status: u16, kind: &str, says: &str) {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.header("content-type"), "application/problem+json");
        assert_eq!(self.body["status"], status);
        assert_eq!(self.body["type"], format!("urn:understudy:problem:{kind}"));
        let detail = self.body["detail"].as_str().unwrap_or_default();
        assert!(detail.contains(says), "{says:?} is missing in {detail:?}");
    }
}

/// A broker's address at which nothing is.
pub(crate) fn nowhere() -> BrokerConfig {
    BrokerConfig {
        url: "amqp://guest:guest@127.0.0.1:1/%2f".into(),
        ..BrokerConfig::default()
    }
}
