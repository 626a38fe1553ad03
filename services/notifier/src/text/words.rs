//! One event in words: a headline, what is known besides, and what to do about it.

use understudy_core::{
    contract::{
        event::Event,
        heartbeat::{Progress, StorageState},
    },
    ids::{CameraId, ServerId},
    words::{length, size},
};

use super::{Names, Severity};

/// The most ids in one line.
const NAMED: usize = 20;

/// One event in words.
pub(crate) struct Words {
    pub(crate) severity: Severity,
    /// Whether everything before it in the same story is over with it.
    pub(crate) is_end: bool,
    /// Without a full stop.
    pub(crate) headline: String,
    pub(crate) details: Vec<String>,
    pub(crate) todo: Option<String>,
}

impl Words {
    pub(crate) fn of(event: &Event, names: &Names) -> Self {
        failover(event, names)
            .or_else(|| ended(event, names))
            .unwrap_or_else(|| other(event, names))
    }

    fn new(severity: Severity, headline: impl Into<String>) -> Self {
        Self {
            severity,
            is_end: false,
            headline: headline.into(),
            details: Vec::new(),
            todo: None,
        }
    }

    fn detail(mut self, line: impl Into<String>) -> Self {
        self.details.push(line.into());
        self
    }

    fn todo(self, what: impl Into<String>) -> Self {
        Self {
            todo: Some(what.into()),
            ..self
        }
    }

    fn end(self) -> Self {
        Self { is_end: true, ..self }
    }
}

/// `North gate (recorder-1)`.
fn name(server: &ServerId, names: &Names) -> String {
    match names.get(server) {
        Some(name) if name != server.as_str() => format!("{name} ({server})"),
        _ => server.to_string(),
    }
}

/// `3 cameras (cam-1, cam-2, cam-3)`.
fn cameras<'a>(which: impl ExactSizeIterator<Item = &'a CameraId>) -> String {
    let count = which.len();
    let named: Vec<&str> = which.take(NAMED).map(CameraId::as_str).collect();
    let rest = if count > named.len() { ", …" } else { "" };
    let noun = if count == 1 { "camera" } else { "cameras" };
    format!("{count} {noun} ({}{rest})", named.join(", "))
}

fn failover(event: &Event, names: &Names) -> Option<Words> {
    let words = match event {
        Event::FailoverStarted {
            failover,
            server,
            stand_in,
            reason,
            silent_ms,
            disabled,
        } => {
            let (server, stand_in) = (name(server, names), name(stand_in, names));
            let mut words = Words::new(
                Severity::Warning,
                format!("{server} failed, and {stand_in} takes over"),
            )
            .detail(format!("Why: {}", reason.summary))
            .todo(format!(
                "see to {server}; when it is well again, end the failover (`understudy failover show {failover}`)."
            ));
            if *silent_ms > 0 {
                words = words.detail(format!(
                    "Nothing was heard of it for {:.1} s.",
                    *silent_ms as f64 / 1000.0
                ));
            }
            if !disabled.is_empty() {
                words = words.detail(format!(
                    "There is no room for {}: they are not filmed.",
                    cameras(disabled.iter())
                ));
            }
            words
        }
        Event::FailoverWaiting {
            server,
            reason,
            waits_for,
            ..
        } => Words::new(
            Severity::Critical,
            format!(
                "{} failed, and nobody can take over: its cameras are not filmed",
                name(server, names)
            ),
        )
        .detail(format!("Why: {}", reason.summary))
        .detail(format!("It waits for {waits_for}."))
        .todo("free or start a failover server, or bring the server back."),
        Event::FailoverServing {
            server,
            stand_in,
            filming,
            lost,
            ..
        } => {
            let headline = format!("{} films for {}", name(stand_in, names), name(server, names));
            let filmed = format!("{filming} camera(s) are filmed.");
            if lost.is_empty() {
                Words::new(Severity::Warning, headline).detail(filmed)
            } else {
                Words::new(
                    Severity::Critical,
                    format!("{headline}, but for {} camera(s)", lost.len()),
                )
                .detail(filmed)
                .detail(format!("Lost: {}.", cameras(lost.iter())))
                .todo("see why those cameras are not reached: `understudy camera list`.")
            }
        }
        Event::FailoverRestoring { server, stand_in, .. } => Words::new(
            Severity::Notice,
            format!(
                "{} films again, and fetches from {} what was recorded meanwhile",
                name(server, names),
                name(stand_in, names)
            ),
        ),
        _ => return None,
    };
    Some(words)
}

fn ended(event: &Event, names: &Names) -> Option<Words> {
    let words = match event {
        Event::FailoverCompleted {
            server,
            stand_in,
            progress,
            damaged,
            damaged_count,
            given_up,
            dropped,
            ..
        } => {
            let lost = (*damaged_count).max(damaged.len() as u64);
            let headline = format!(
                "{} is back, and {} stands by",
                name(server, names),
                name(stand_in, names)
            );
            let mut words = if lost == 0 && given_up.is_empty() {
                Words::new(Severity::Notice, headline)
            } else {
                Words::new(Severity::Warning, format!("{headline}; not everything came back"))
            };
            words = words.detail(handed_back(progress));
            if lost > 0 {
                words = words.detail(format!("{lost} segment(s) could not be handed back."));
            }
            if !given_up.is_empty() {
                words = words.detail(format!("Given up: {given_up}."));
            }
            if !dropped.is_empty() {
                words = words.detail(format!(
                    "{} change(s) of settings made meanwhile ended with it: `understudy failover offers`.",
                    dropped.len()
                ));
            }
            words.end()
        }
        Event::FailoverAborted { server, why, .. } => Words::new(
            Severity::Critical,
            format!("the failover of {} was aborted", name(server, names)),
        )
        .detail(format!("Why: {why}"))
        .todo("see whether its cameras are filmed: `understudy server list`.")
        .end(),
        Event::ServerReplaced {
            server,
            successor,
            server_name,
            by,
            ..
        } => Words::new(
            Severity::Notice,
            format!("{successor} has taken the place of {server} for good, as {server_name}"),
        )
        .detail(format!("Asked for by {by}."))
        .end(),
        _ => return None,
    };
    Some(words)
}

fn handed_back(progress: &Progress) -> String {
    format!(
        "Handed back: {} of {} segment(s), {}, {} of recordings.",
        progress.segments_done,
        progress.segments_total,
        size(progress.bytes_done),
        length(progress.recorded_ms_done)
    )
}

fn other(event: &Event, names: &Names) -> Words {
    let named = |server: &ServerId| name(server, names);
    match event {
        Event::ServerDisconnected { server } => Words::new(
            Severity::Warning,
            format!("nothing is heard of {}", named(server)),
        ),
        Event::ServerRecovered { server } => {
            Words::new(Severity::Notice, format!("{} is heard again", named(server)))
        }
        Event::ServerStorageDegraded { server, storage } => {
            let (severity, how) = match storage.state {
                StorageState::Damaged => (Severity::Critical, "is damaged"),
                StorageState::Degraded => (Severity::Warning, "has lost its redundancy"),
                StorageState::Normal => (Severity::Warning, "is not as it should be"),
            };
            Words::new(
                severity,
                format!("the recording volume of {} {how}", named(server)),
            )
            .detail(format!("Seen: {}", storage.evidence))
            .todo("see to the volume; the runbook is docs/runbooks/storage-degraded.md.")
        }
        Event::ServerUnprotected { server, why } => Words::new(
            Severity::Warning,
            format!("{} is not protected: no failover server is free", named(server)),
        )
        .detail(format!("If it failed, {why}."))
        .todo("free or add a failover server: `understudy coverage`."),
        Event::ServerProtected { server } => {
            Words::new(Severity::Notice, format!("{} is protected again", named(server)))
        }
        Event::ServerReturned { server, replaced_by } => {
            let words = Words::new(
                Severity::Warning,
                format!("{server}, which is none of the fleet any more, came back"),
            );
            match replaced_by {
                Some(by) => words.detail(format!("{} took its place.", named(by))),
                None => words,
            }
            .todo("switch it off, or enrol it again.")
        }
        Event::ServerConflict { server, epoch } => Words::new(
            Severity::Critical,
            format!("{} was told two things by one epoch", named(server)),
        )
        .detail(format!("Epoch {}.{}.", epoch.term, epoch.number))
        .todo("see whether a second host, or one from a backup, is running."),
        Event::ServerMaintenanceBegun { server, why, by, .. } => {
            Words::new(Severity::Notice, format!("{} is in maintenance", named(server)))
                .detail(format!("{by}: {why}"))
        }
        Event::ServerMaintenanceEnded { server, why } => Words::new(
            Severity::Notice,
            format!("the maintenance of {} is over", named(server)),
        )
        .detail(why.clone()),
        Event::LicenseTransferred {
            from, to, devices, ..
        } => Words::new(
            Severity::Notice,
            format!(
                "licences for {devices} device(s) moved from {} to {}",
                named(from),
                named(to)
            ),
        ),
        Event::LicenseShort {
            server,
            missing,
            cameras: which,
        } => Words::new(
            Severity::Warning,
            format!(
                "{missing} camera(s) of {} have no licence; they are filmed all the same",
                named(server)
            ),
        )
        .detail(format!("Lowest priority first: {}.", cameras(which.iter())))
        .todo("add a licence key: `understudy license add`."),
        Event::LicenseEnough { server } => Words::new(
            Severity::Notice,
            format!("the licences of {} are enough again", named(server)),
        ),
        Event::CameraLost {
            camera,
            server,
            detail,
            ..
        } => Words::new(
            Severity::Warning,
            format!("camera {camera} is not filmed by {}", named(server)),
        )
        .detail(format!("Seen: {detail}")),
        Event::CameraRecovered { camera, server } => Words::new(
            Severity::Notice,
            format!("camera {camera} is filmed again by {}", named(server)),
        ),
        // Those of failovers are above; a receiver may ask for their progress.
        event => Words::new(Severity::Notice, format!("{} {}", event.name(), event.subject())),
    }
}
