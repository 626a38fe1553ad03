//! The fleet as its API shows it: the same addresses that people and programs use.

use std::net::SocketAddr;

use reqwest::{Client, Method, Response};
use serde::{Serialize, de::DeserializeOwned};
use understudy_core::{
    camera::Camera,
    contract::api::{CameraEdit, CameraView, FailoverView, LicensesView, Problem, ServerView},
    policy::{Pairing, Policy},
    server::Server,
};

use understudy_runtime::Secret;

use crate::DemoError;

/// A client of `/api/v1`.
#[derive(Clone, Debug)]
pub struct Api {
    base: String,
    client: Client,
    token: Option<Secret>,
}

impl Api {
    /// The API of the console that listens at `address`.
    pub fn new(address: SocketAddr) -> Self {
        Self {
            base: format!("http://{address}/api/v1"),
            client: Client::new(),
            token: None,
        }
    }

    /// The same for a console that wants this token.
    #[must_use]
    pub fn with_token(self, token: &str) -> Self {
        Self {
            token: Some(Secret::new(token)),
            ..self
        }
    }

    /// Sends a request and reads the answer.
    ///
    /// # Errors
    /// [`DemoError::Api`] with the problem that the API names.
    pub async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T, DemoError> {
        let answer = self.send(method, path, body).await?;
        let text = answer
            .text()
            .await
            .map_err(|error| DemoError::Api(error.to_string()))?;
        let text = if text.is_empty() { "null" } else { &text };
        serde_json::from_str(text).map_err(|error| DemoError::Api(format!("{path}: {error}: {text}")))
    }

    /// Asks for what has to be confirmed, and confirms it: the warning, and the answer.
    ///
    /// # Errors
    /// As [`Api::call`], and if no confirmation was asked for.
    pub async fn confirm<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<(Problem, T), DemoError> {
        let answer = self.ask(method.clone(), path, body).await?;
        let text = answer.text().await.unwrap_or_default();
        let warned = serde_json::from_str::<Problem>(&text).ok();
        let Some(warned) = warned.filter(|problem| problem.confirmation.is_some()) else {
            return Err(DemoError::Api(format!(
                "{path}: asked for no confirmation: {text}"
            )));
        };
        let token = warned.confirmation.as_deref().unwrap_or_default();
        let path = format!("{path}?confirmation={token}");
        let answer = self.call(method, &path, body).await?;
        Ok((warned, answer))
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<Response, DemoError> {
        let mut request = self.client.request(method, format!("{}/{path}", self.base));
        if let Some(token) = &self.token {
            request = request.bearer_auth(token.expose());
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        request
            .send()
            .await
            .map_err(|error| DemoError::Api(format!("{path}: {error}")))
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<Response, DemoError> {
        let answer = self.ask(method, path, body).await?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let status = answer.status();
        let text = answer.text().await.unwrap_or_default();
        let said = serde_json::from_str::<Problem>(&text).map_or(text, |problem| problem.to_string());
        Err(DemoError::Api(format!("{path}: {status}: {said}")))
    }

    /// Reads a noun.
    ///
    /// # Errors
    /// As [`Api::call`].
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, DemoError> {
        self.call(Method::GET, path, None::<&()>).await
    }

    /// All servers.
    ///
    /// # Errors
    /// As [`Api::call`].
    pub async fn servers(&self) -> Result<Vec<ServerView>, DemoError> {
        self.get("servers").await
    }

    /// One server.
    ///
    /// # Errors
    /// As [`Api::call`].
    pub async fn server(&self, id: &str) -> Result<ServerView, DemoError> {
        self.get(&format!("servers/{id}")).await
    }

    /// All cameras.
    ///
    /// # Errors
    /// As [`Api::call`].
    pub async fn cameras(&self) -> Result<Vec<CameraView>, DemoError> {
        self.get("cameras").await
    }

    /// All failovers, newest first.
    ///
    /// # Errors
    /// As [`Api::call`].
    pub async fn failovers(&self) -> Result<Vec<FailoverView>, DemoError> {
        self.get("failovers").await
    }

    /// The licences.
    ///
    /// # Errors
    /// As [`Api::call`].
    pub async fn licenses(&self) -> Result<LicensesView, DemoError> {
        self.get("licenses").await
    }

    /// Enrols a server.
    ///
    /// # Errors
    /// As [`Api::call`].
    pub async fn add_server(&self, server: &Server) -> Result<(), DemoError> {
        self.call(Method::POST, "servers", Some(server))
            .await
            .map(|_: serde_json::Value| ())
    }

    /// Adds cameras.
    ///
    /// # Errors
    /// As [`Api::call`].
    pub async fn add_cameras(&self, cameras: &[Camera]) -> Result<(), DemoError> {
        self.call(Method::POST, "cameras", Some(&cameras))
            .await
            .map(|_: serde_json::Value| ())
    }

    /// Changes a camera.
    ///
    /// # Errors
    /// As [`Api::call`].
    pub async fn edit_camera(&self, camera: &str, edit: &CameraEdit) -> Result<CameraView, DemoError> {
        self.call(Method::PATCH, &format!("cameras/{camera}"), Some(edit))
            .await
    }

    /// Sets which failover servers may stand in.
    ///
    /// # Errors
    /// As [`Api::call`].
    pub async fn pair(&self, server: &str, pairing: &Pairing) -> Result<(), DemoError> {
        let path = format!("servers/{server}/pairings");
        self.call(Method::PUT, &path, Some(pairing))
            .await
            .map(|_: serde_json::Value| ())
    }

    /// Sets the failover settings.
    ///
    /// # Errors
    /// As [`Api::call`].
    pub async fn set_policy(&self, server: &str, policy: &Policy) -> Result<(), DemoError> {
        let path = format!("servers/{server}/failover-policy");
        self.call(Method::PUT, &path, Some(policy))
            .await
            .map(|_: serde_json::Value| ())
    }

    /// Adds a licence key to a server.
    ///
    /// # Errors
    /// As [`Api::call`].
    pub async fn add_license(&self, server: &str, key: &str) -> Result<(), DemoError> {
        let body = serde_json::json!({ "server": server, "key": key });
        self.call(Method::POST, "licenses", Some(&body))
            .await
            .map(|_: serde_json::Value| ())
    }

    /// Starts a failover by hand.
    ///
    /// # Errors
    /// As [`Api::call`].
    pub async fn start_failover(&self, server: &str) -> Result<FailoverView, DemoError> {
        let path = format!("servers/{server}/failover");
        self.call(Method::POST, &path, Some(&serde_json::json!({}))).await
    }

    /// Drains a server for maintenance, by a failover server that is named or chosen.
    ///
    /// # Errors
    /// As [`Api::call`].
    pub async fn drain(&self, server: &str, stand_in: Option<&str>) -> Result<FailoverView, DemoError> {
        let path = format!("servers/{server}/failover");
        let planned = serde_json::json!({ "mode": "planned", "stand_in": stand_in });
        self.call(Method::POST, &path, Some(&planned)).await
    }

    /// Ends a failover.
    ///
    /// # Errors
    /// As [`Api::call`].
    pub async fn stop_failover(&self, server: &str) -> Result<FailoverView, DemoError> {
        let path = format!("servers/{server}/failover/stop");
        self.call(Method::POST, &path, Some(&serde_json::json!({}))).await
    }
}
