//! `cameras/{id}/snapshots`: pictures that are kept because somebody asks for them.
//!
//! The recording services have them: the one that films the camera now takes a picture, and those that may have
//! pictures of it are asked for theirs, so that during a failover nothing is missing.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use understudy_core::{
    contract::{
        api::{CameraView, Problem, SnapshotView, SnapshotsView, Unreached},
        rpc::{
            Answer, OrchestratorReply, OrchestratorRequest, RecorderReply as Reply,
            RecorderRequest as Request,
        },
    },
    ids::ServerId,
    time::Timestamp,
};

use super::{Asked, by, cameras};
use crate::{
    answer::{self, Outcome},
    backend::{Backend, unexpected},
    http::Call,
};

pub(super) async fn take(backend: &Backend, call: &Call) -> Outcome {
    let body: Asked = call.json_or_default()?;
    let view = cameras::view(backend, &call.id("camera")?).await?;
    let camera = &view.camera;
    let Some(films) = &view.filmed_by else {
        return Err(Problem::conflict(format!(
            "nobody films {}: it is switched off",
            camera.id
        )));
    };
    let request = Request::TakeSnapshot {
        camera: camera.id.clone(),
        by: by(body.by)?,
    };
    let mut taken = backend.recorder(films, &request).await;
    // While a failover begins or ends, the recording server may film it still or already.
    if taken.is_err() && *films != camera.server {
        taken = backend.recorder(&camera.server, &request).await.or(taken);
    }
    match taken? {
        Reply::Snapshot(view) => answer::json(&view),
        other => Err(unexpected(&other)),
    }
}

pub(super) async fn list(backend: &Backend, call: &Call) -> Outcome {
    let (from, to) = period(call)?;
    let view = cameras::view(backend, &call.id("camera")?).await?;
    let request = Request::ListSnapshots {
        camera: view.camera.id.clone(),
        from,
        to,
    };
    let mut shown = SnapshotsView::default();
    for (server, answer) in ask_holders(backend, &view, &request).await? {
        match answer {
            Ok(Reply::Snapshots(pictures)) => add(&mut shown.snapshots, pictures),
            Ok(other) => return Err(unexpected(&other)),
            Err(problem) => shown.unreached.push(Unreached {
                server,
                why: problem.detail,
            }),
        }
    }
    shown.snapshots.sort_by(|a, b| (b.at, &b.id).cmp(&(a.at, &a.id)));
    answer::json(&shown)
}

pub(super) async fn get(backend: &Backend, call: &Call) -> Outcome {
    let view = cameras::view(backend, &call.id("camera")?).await?;
    let snapshot: String = call.id("snapshot")?;
    let request = Request::GetSnapshot {
        camera: view.camera.id.clone(),
        snapshot: snapshot.clone(),
    };
    // Who could not say whether it has it is worth more than who said that it has it not.
    let mut refused = Problem::not_found("snapshot", &snapshot);
    for (_, answer) in ask_holders(backend, &view, &request).await? {
        match answer {
            Ok(Reply::Picture { jpeg }) => {
                let picture = BASE64.decode(jpeg).map_err(|error| answer::internal(&error))?;
                return answer::jpeg(picture);
            }
            Ok(other) => return Err(unexpected(&other)),
            Err(problem) if problem.status != 404 => refused = problem,
            Err(_) => {}
        }
    }
    Err(refused)
}

/// What all servers say that may have pictures of a camera, the one where they belong first.
async fn ask_holders(
    backend: &Backend,
    view: &CameraView,
    request: &Request,
) -> Result<Vec<(ServerId, Answer<Reply>)>, Problem> {
    let asked = holders(backend, view).await?.into_iter().map(|server| async {
        let answer = backend.recorder(&server, request).await;
        (server, answer)
    });
    Ok(futures::future::join_all(asked).await)
}

/// The recording server, and whoever stands or stood in for it and has not handed everything back.
async fn holders(backend: &Backend, view: &CameraView) -> Result<Vec<ServerId>, Problem> {
    let failovers = match backend.orchestrator(OrchestratorRequest::ListFailovers).await? {
        OrchestratorReply::Failovers(failovers) => failovers,
        other => return Err(unexpected(&other)),
    };
    let camera = &view.camera;
    let mut holders = vec![camera.server.clone()];
    let under_way = failovers
        .into_iter()
        .filter(|failover| failover.server == camera.server && !failover.phase.is_final())
        .flat_map(|failover| failover.stand_in.into_iter().chain(failover.unread));
    for server in view.filmed_by.clone().into_iter().chain(under_way) {
        if !holders.contains(&server) {
            holders.push(server);
        }
    }
    Ok(holders)
}

/// One that was handed back and is not erased yet is shown where it belongs.
fn add(shown: &mut Vec<SnapshotView>, pictures: Vec<SnapshotView>) {
    for picture in pictures {
        if shown.iter().all(|known| known.id != picture.id) {
            shown.push(picture);
        }
    }
}

fn period(call: &Call) -> Result<(Option<Timestamp>, Option<Timestamp>), Problem> {
    let (mut from, mut to) = (None, None);
    for (name, value) in call.query(&["from", "to"])? {
        let at = value.parse().map(Timestamp);
        let at = at.map_err(|_| {
            Problem::invalid(format!(
                "{name}={value:?} is no time: give milliseconds since 1970-01-01 UTC"
            ))
        })?;
        match name.as_str() {
            "from" => from = Some(at),
            _ => to = Some(at),
        }
    }
    Ok((from, to))
}
