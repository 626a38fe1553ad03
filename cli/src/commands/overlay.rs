//! `understudy failover offers`: what was changed in devices during a failover, and is to be kept or not.

use clap::{Args, ValueEnum};
use reqwest::Method;
use serde_json::json;
use understudy_core::{
    contract::api::{ChangeKind, FailoverView, OfferState, TemporaryChange},
    ids::CameraId,
};

use super::failover::resolve;
use crate::{
    client::{Api, who},
    failure::Failure,
    output::{Output, word},
};

#[derive(Debug, Args)]
pub(crate) struct OffersArgs {
    /// The failover's id, or a recording server's for its newest
    which: String,
    /// Keep what was changed, or let it go; without it, what is offered is shown
    answer: Option<AnswerArg>,
    /// For which cameras; all that are open without any
    #[arg(requires = "answer")]
    cameras: Vec<CameraId>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum AnswerArg {
    /// It becomes one of the recording server's own settings
    Apply,
    /// The recording server stays as it was before the failover
    Drop,
}

pub(crate) async fn offers(api: &Api, output: Output, arguments: OffersArgs) -> Result<(), Failure> {
    let id = resolve(api, &arguments.which).await?;
    let answer = match arguments.answer {
        None => {
            return output.answer(
                api.get(&format!("failovers/{id}")).await?,
                |view: FailoverView| shown(&view),
            );
        }
        Some(AnswerArg::Apply) => "apply",
        Some(AnswerArg::Drop) => "drop",
    };
    let body = json!({ "answer": answer, "cameras": arguments.cameras, "by": who() });
    let answered = api
        .send(Method::POST, &format!("failovers/{id}/overlay"), &body)
        .await?;
    output.answer(answered, |view: FailoverView| shown(&view))
}

fn shown(view: &FailoverView) -> String {
    let offered: Vec<String> = view
        .overlay
        .iter()
        .filter(|change| change.offer.is_some())
        .map(line)
        .collect();
    if offered.is_empty() {
        return format!("no device was changed during {}", view.id);
    }
    let mut text = offered.join("\n");
    if is_open(view) {
        text.push_str(&format!(
            "\nanswer with: understudy failover offers {} apply|drop [CAMERA]...",
            view.id
        ));
    }
    text
}

fn is_open(view: &FailoverView) -> bool {
    let mut offers = view.overlay.iter().filter_map(|change| change.offer.as_ref());
    offers.any(|offer| offer.state == OfferState::Open)
}

/// What was changed during a failover, for its details.
pub(super) fn lines(view: &FailoverView) -> Vec<String> {
    if view.overlay.is_empty() {
        return Vec::new();
    }
    let head = match view.phase.is_final() {
        true => "changed meanwhile, and dropped at the end",
        false => "changed until the end",
    };
    let mut lines = vec![head.to_owned()];
    lines.extend(view.overlay.iter().map(|change| format!("  {}", line(change))));
    if is_open(view) {
        lines.push(format!(
            "  to keep what was changed in a device: understudy failover offers {} apply",
            view.id
        ));
    }
    lines
}

fn line(change: &TemporaryChange) -> String {
    let what = change.camera.as_ref().map_or("the server", CameraId::as_str);
    let mut line = match change.change {
        ChangeKind::Added => format!("{what}: added"),
        ChangeKind::Removed => format!("{what}: removed"),
        ChangeKind::Edited => {
            let fields: Vec<String> = change.fields.iter().map(word).collect();
            format!(
                "{what}: {}",
                if fields.is_empty() {
                    "as before".to_owned()
                } else {
                    fields.join(", ")
                }
            )
        }
    };
    if let Some(offer) = &change.offer {
        let state = match offer.state {
            OfferState::Open => "to be kept?",
            OfferState::Applied => "kept",
            OfferState::Dropped => "not kept",
        };
        let url = offer.url.as_ref().map(|url| format!("address {url}"));
        let user = offer
            .username
            .as_ref()
            .map(|user| format!("credentials of {user:?}"));
        let device: Vec<String> = url.into_iter().chain(user).collect();
        line.push_str(&format!(" (in the device: {}; {state})", device.join(", ")));
    }
    line
}
