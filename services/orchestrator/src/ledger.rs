//! Asks the licence ledger, beside everything else: its answers come back to the fleet as inputs. A request
//! that fails is asked for again by the fleet, so that nothing needs to be kept here.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use understudy_bus::Bus;
use understudy_core::{
    contract::{
        names,
        rpc::{Answer, LicenseReply, LicenseRequest},
    },
    fleet::Input,
    ids::FailoverId,
};
use understudy_runtime::{TraceContext, Tracer, trace::Kind};

use crate::job::Job;

/// After this time the ledger counts as away.
const DEADLINE: Duration = Duration::from_secs(2);
/// Requests that wait; the fleet repeats what finds no place.
pub(crate) const WAITING: usize = 64;

/// Asks, one request after another, until the shutdown.
pub(crate) async fn ask(
    bus: Bus,
    mut requests: mpsc::Receiver<(TraceContext, LicenseRequest)>,
    jobs: mpsc::Sender<Job>,
    tracer: Tracer,
    shutdown: CancellationToken,
) {
    loop {
        let request = tokio::select! {
            request = requests.recv() => request,
            () = shutdown.cancelled() => None,
        };
        let Some((trace, request)) = request else { return };
        let Some((failover, given_back)) = about(&request) else {
            continue;
        };
        let name = if given_back {
            "license return"
        } else {
            "license transfer"
        };
        let asking = tracer.open(name, trace);
        let answer = asking
            .scope(bus.request::<LicenseRequest, Answer<LicenseReply>>(names::LICENSE, &request, DEADLINE))
            .await
            .map_err(|error| error.to_string())
            .and_then(|answer| answer.map_err(|problem| problem.to_string()));
        let failed = answer.as_ref().err().cloned();
        asking.end(|span| {
            span.of(Kind::Client)
                .with("failover", failover.as_str())
                .failed(failed)
        });
        let input = match answer {
            Ok(LicenseReply::Moved { devices }) => Input::LicensesMoved {
                failover,
                given_back,
                devices,
            },
            Ok(LicenseReply::Licenses(_) | LicenseReply::History(_)) => Input::LicenseFailed {
                failover,
                why: "the ledger answered something else".to_owned(),
            },
            Err(why) => Input::LicenseFailed { failover, why },
        };
        if jobs.send(Job::input(trace, input)).await.is_err() {
            return;
        }
    }
}

/// The failover of a request, and whether it gives back.
pub(crate) fn about(request: &LicenseRequest) -> Option<(FailoverId, bool)> {
    match request {
        LicenseRequest::Transfer { failover, .. } | LicenseRequest::Replace { failover, .. } => {
            Some((failover.clone(), false))
        }
        LicenseRequest::GiveBack { failover } => Some((failover.clone(), true)),
        LicenseRequest::List
        | LicenseRequest::History
        | LicenseRequest::Add { .. }
        | LicenseRequest::Remove(_) => None,
    }
}
