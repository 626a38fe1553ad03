//! `cameras`. A password goes in and never comes out again.

use serde::Deserialize;
use serde_json::Value;
use understudy_core::{
    camera::Camera,
    contract::{
        api::{CameraView, Problem},
        rpc::{OrchestratorReply as Reply, OrchestratorRequest as Request},
    },
    ids::CameraId,
};

use crate::{
    answer::{self, Outcome},
    backend::{Backend, unexpected},
    http::Call,
};

/// The body of `POST cameras`: one camera or a list of them.
enum Added {
    One(Box<Camera>),
    Many(Vec<Camera>),
}

impl<'de> Deserialize<'de> for Added {
    /// Decided by the first character, so that an error is about the camera and not about the choice.
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let added = if value.is_array() {
            serde_json::from_value(value).map(Self::Many)
        } else {
            serde_json::from_value(value).map(Self::One)
        };
        added.map_err(serde::de::Error::custom)
    }
}

pub(super) async fn list(backend: &Backend, call: &Call) -> Outcome {
    let query = call.query(&["server"])?;
    let server = query.first().map(|(_, value)| value.as_str());
    let mut cameras = ask(backend, Request::ListCameras).await?;
    cameras.retain(|view| server.is_none_or(|server| view.camera.server.as_str() == server));
    answer::json(&shown(&cameras)?)
}

pub(super) async fn get(backend: &Backend, call: &Call) -> Outcome {
    let id: CameraId = call.id("camera")?;
    let mut cameras = ask(backend, Request::ListCameras).await?;
    cameras.retain(|view| view.camera.id == id);
    first(&cameras, &id)
}

pub(super) async fn add(backend: &Backend, call: &Call) -> Outcome {
    match call.json()? {
        Added::Many(cameras) => answer::json(&shown(&ask(backend, Request::AddCameras(cameras)).await?)?),
        Added::One(camera) => {
            let id = camera.id.clone();
            let mut cameras = ask(backend, Request::AddCameras(vec![*camera])).await?;
            cameras.retain(|view| view.camera.id == id);
            first(&cameras, &id)
        }
    }
}

pub(super) async fn edit(backend: &Backend, call: &Call) -> Outcome {
    let camera: CameraId = call.id("camera")?;
    let request = Request::EditCamera {
        camera: camera.clone(),
        edit: call.json()?,
    };
    first(&ask(backend, request).await?, &camera)
}

pub(super) async fn remove(backend: &Backend, call: &Call) -> Outcome {
    match backend
        .orchestrator(Request::RemoveCamera(call.id("camera")?))
        .await?
    {
        Reply::Done => answer::done(),
        other => Err(unexpected(&other)),
    }
}

/// One camera, as the orchestrator shows it.
pub(super) async fn view(backend: &Backend, id: &CameraId) -> Result<CameraView, Problem> {
    let cameras = ask(backend, Request::ListCameras).await?;
    let view = cameras.into_iter().find(|view| view.camera.id == *id);
    view.ok_or_else(|| Problem::not_found("camera", id))
}

async fn ask(backend: &Backend, request: Request) -> Result<Vec<CameraView>, Problem> {
    match backend.orchestrator(request).await? {
        Reply::Cameras(cameras) => Ok(cameras),
        other => Err(unexpected(&other)),
    }
}

fn first(cameras: &[CameraView], id: &CameraId) -> Outcome {
    let mut shown = shown(cameras)?;
    if shown.is_empty() {
        return Err(Problem::not_found("camera", id));
    }
    answer::json(&shown.swap_remove(0))
}

/// The cameras as they may be seen.
fn shown(cameras: &[CameraView]) -> Result<Vec<Value>, Problem> {
    let redacted = |view| {
        let mut value = serde_json::to_value(view).map_err(|error| answer::internal(&error))?;
        if let Some(credentials) = value.get_mut("credentials").and_then(Value::as_object_mut) {
            credentials.remove("password");
        }
        Ok(value)
    };
    cameras.iter().map(redacted).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_never_comes_out() {
        let view: CameraView = serde_json::from_value(serde_json::json!({
            "id": "gate", "name": "Gate", "server": "recorder-1", "url": "rtsp://192.0.2.1/gate",
            "credentials": {"username": "viewer", "password": "hunter2"},
            "filmed_by": null, "status": null
        }))
        .expect("a camera as the orchestrator shows it");
        let text = serde_json::to_string(&shown(&[view]).expect("it can be shown")).expect("JSON");
        assert!(text.contains("viewer"));
        assert!(!text.contains("password") && !text.contains("hunter2"), "{text}");
        serde_json::from_str::<Vec<CameraView>>(&text).expect("what is shown can be read again");
    }
}
