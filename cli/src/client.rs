//! The client of `/api/v1`: the only way in that commands have.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use reqwest::{Client, Method, RequestBuilder, Response};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use understudy_core::contract::{api::Problem, event::Fact};
use understudy_runtime::innermost;

use crate::{failure::Failure, output::Output};

/// Longer than the console itself waits for the services behind it.
const DEADLINE: Duration = Duration::from_secs(30);

/// Where the API is, and how its answers are printed.
#[derive(Clone, Debug, Args)]
pub(crate) struct Connection {
    /// The host's address
    #[arg(
        long,
        env = "UNDERSTUDY_URL",
        default_value = "http://127.0.0.1:8080",
        global = true
    )]
    #[arg(help_heading = "Connection")]
    pub(crate) url: String,
    /// A file with the API's token, where it needs one
    #[arg(long, env = "UNDERSTUDY_TOKEN_FILE", value_name = "FILE", global = true)]
    #[arg(help_heading = "Connection")]
    pub(crate) token_file: Option<PathBuf>,
    /// Print JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

impl Connection {
    /// Where to print.
    pub(crate) fn output(&self) -> Output {
        Output { json: self.json }
    }

    /// A client, not connected yet.
    pub(crate) fn client(&self) -> Result<Api, Failure> {
        let token = match &self.token_file {
            Some(file) => {
                let text = std::fs::read_to_string(file)
                    .map_err(Failure::while_doing(format!("can't read {}", file.display())))?;
                Some(text.trim().to_owned())
            }
            None => None,
        };
        if !self.url.starts_with("http://") {
            return Err(Failure::Usage(format!(
                "--url {}: it has to begin with http://",
                self.url
            )));
        }
        // The host is near: a proxy that is meant for the internet does not know it.
        let client = Client::builder()
            .no_proxy()
            .connect_timeout(Duration::from_secs(5))
            .build()
            .map_err(Failure::while_doing("can't make a client"))?;
        Ok(Api {
            base: format!("{}/api/v1", self.url.trim_end_matches('/')),
            client,
            token,
        })
    }
}

/// A client of the API.
#[derive(Clone)]
pub(crate) struct Api {
    base: String,
    client: Client,
    token: Option<String>,
}

impl Api {
    /// Reads a noun.
    pub(crate) async fn get(&self, path: &str) -> Result<Value, Failure> {
        self.read(self.request(Method::GET, path)).await
    }

    /// Reads a noun that this command has to understand itself.
    pub(crate) async fn get_as<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        understood(self.get(path).await?)
    }

    /// Reads what is no JSON.
    pub(crate) async fn bytes(&self, path: &str) -> Result<Vec<u8>, Failure> {
        let answer = self
            .checked(self.request(Method::GET, path).timeout(DEADLINE))
            .await?;
        let bytes = answer.bytes().await;
        let bytes = bytes.map_err(Failure::while_doing("the API's answer broke off"))?;
        Ok(bytes.to_vec())
    }

    /// Sends something.
    pub(crate) async fn send<B: Serialize + Sync + ?Sized>(
        &self,
        method: Method,
        path: &str,
        body: &B,
    ) -> Result<Value, Failure> {
        self.read(self.request(method, path).json(body)).await
    }

    /// Sends something, with the token of an answer that said what it would lose.
    pub(crate) async fn send_confirmed<B: Serialize + Sync + ?Sized>(
        &self,
        method: Method,
        path: &str,
        body: Option<&B>,
        token: Option<&str>,
    ) -> Result<Value, Failure> {
        let mut request = self.request(method, path);
        if let Some(token) = token {
            request = request.query(&[("confirmation", token)]);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        self.read(request).await
    }

    /// Removes something.
    pub(crate) async fn delete(&self, path: &str) -> Result<Value, Failure> {
        self.read(self.request(Method::DELETE, path)).await
    }

    /// Opens a stream, which has no deadline.
    pub(crate) async fn open(&self, path: &str, query: &[(&str, String)]) -> Result<Response, Failure> {
        self.checked(self.request(Method::GET, path).query(query)).await
    }

    /// The latest events, as a list.
    pub(crate) async fn list_events(&self, query: &[(&str, String)]) -> Result<Vec<Fact>, Failure> {
        let request = self
            .request(Method::GET, "events")
            .query(query)
            .header("accept", "application/json");
        understood(self.read(request).await?)
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.client.request(method, format!("{}/{path}", self.base));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    async fn read(&self, request: RequestBuilder) -> Result<Value, Failure> {
        let answer = self.checked(request.timeout(DEADLINE)).await?;
        let text = answer
            .bytes()
            .await
            .map_err(Failure::while_doing("the API's answer broke off"))?;
        if text.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&text).map_err(Failure::while_doing("the API's answer is no JSON"))
    }

    async fn checked(&self, request: RequestBuilder) -> Result<Response, Failure> {
        let answer = request.send().await.map_err(|error| self.unreached(&error))?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let status = answer.status();
        let text = answer.bytes().await.unwrap_or_default();
        Err(match serde_json::from_slice::<Problem>(&text) {
            Ok(problem) => Failure::Refused(problem),
            Err(_) => Failure::Failed(format!(
                "{} answered {status}: is that Understudy's API?",
                self.base
            )),
        })
    }

    fn unreached(&self, error: &reqwest::Error) -> Failure {
        let cause = innermost(error);
        let base = &self.base;
        Failure::Failed(if error.is_timeout() {
            format!("{base} did not answer in time")
        } else {
            format!(
                "{base} can't be reached: {cause}; is the console running there? --url or UNDERSTUDY_URL says where"
            )
        })
    }
}

/// A value of the API as this version knows it.
pub(crate) fn understood<T: DeserializeOwned>(value: Value) -> Result<T, Failure> {
    serde_json::from_value(value).map_err(Failure::while_doing(
        "the API's answer can't be read; is it of another version?",
    ))
}

/// The person at this machine, for the record of what was asked for.
pub(crate) fn who() -> String {
    ["SUDO_USER", "USER", "LOGNAME"]
        .into_iter()
        .find_map(|name| std::env::var(name).ok().filter(|user| !user.is_empty()))
        .unwrap_or_else(|| "somebody at the command line".into())
}
