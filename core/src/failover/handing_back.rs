//! Failback: the recording server films first, then the failover server stops, then its recordings go back.

use std::time::Duration;

use super::{Around, Failover, Holder, Holding, Mark, Side, sessions::is_held_elsewhere};
use crate::{
    assignment::Epoch,
    contract::{
        api::Phase,
        event::Event,
        heartbeat::{CameraStatus, Progress, RestorationReport},
    },
    ids::{CameraId, ServerId},
    policy::Failback,
    time::Moment,
};

/// For how long the failover server films on when the recording server is back but can't film cameras that
/// the failover server does film. After that it hands back all the same: a camera may never come back.
pub const RETURN_PATIENCE: Duration = Duration::from_secs(30);
/// Damaged segments that are remembered by name.
const MOST_DAMAGED: usize = 1000;

impl Failover {
    /// Whether the recording server films again what can be filmed.
    pub(super) fn original_is_ready(&mut self, around: &Around<'_>, now: Moment) -> bool {
        let Some(missing) = self.missing_at_return(around) else {
            self.incomplete_since = Mark(None);
            return false;
        };
        if missing.is_empty() {
            return true;
        }
        // A planned switch loses nothing: it waits until a person says otherwise.
        let since = *self.incomplete_since.0.get_or_insert(now.monotonic);
        !self.planned && now.monotonic.since(since) >= RETURN_PATIENCE
    }

    /// Cameras that the failover server films and the recording server can't, though no session stands in its
    /// way; none at all as long as the recording server is not heard or has not settled: what it said before it
    /// fell silent is no word on now.
    fn missing_at_return(&self, around: &Around<'_>) -> Option<Vec<CameraId>> {
        let report = around
            .original
            .reached
            .filter(|_| around.original.heard)
            .filter(|report| report.identity.as_ref() == Some(&self.server))?;
        if !around
            .cameras
            .iter()
            .all(|camera| report.cameras.get(camera).is_some_and(CameraStatus::is_settled))
        {
            return None;
        }
        let lost = |camera: &&CameraId| match report.cameras.get(*camera) {
            Some(CameraStatus::Lost { fault, .. }) => !is_held_elsewhere(*fault),
            _ => false,
        };
        Some(
            around
                .cameras
                .iter()
                .filter(lost)
                .filter(|camera| self.stand_in_films(camera, around))
                .cloned()
                .collect(),
        )
    }

    /// Whether the failover server is known to film a camera.
    pub(super) fn stand_in_films(&self, camera: &CameraId, around: &Around<'_>) -> bool {
        self.holders
            .iter()
            .zip(&around.holders)
            .filter(|(holder, side)| holder.holding == Holding::Films && side.failed.is_none())
            .filter_map(|(_, side)| side.reached?.cameras.get(camera))
            .any(CameraStatus::films)
    }

    /// What the end waits for before anything is handed back, in words.
    pub(super) fn what_return_waits_for(&self, around: &Around<'_>) -> String {
        let server = &self.server;
        match self.missing_at_return(around) {
            Some(missing) if !missing.is_empty() && self.planned => format!(
                "{server} to film {} camera(s) that the failover server films",
                missing.len()
            ),
            Some(missing) if !missing.is_empty() => format!(
                "{server} to film {} camera(s) that the failover server films, for {} s at most",
                missing.len(),
                RETURN_PATIENCE.as_secs()
            ),
            _ if !around.original.heard => format!("{server} to be heard"),
            _ if around.original.reached.is_none() => format!("{server} to take its assignment"),
            _ => format!("{server} to film again"),
        }
    }

    /// `serving → restoring`: the recording server films, so the failover server stops.
    pub(super) fn begin_handing_back(&mut self, around: &Around<'_>, now: Moment) -> Vec<Event> {
        let stand_in = self
            .last_stand_in()
            .cloned()
            .unwrap_or_else(|| self.server.clone());
        let left = self.missing_at_return(around).unwrap_or_default();
        let without = match left.len() {
            0 => String::new(),
            n => format!(", without {n} camera(s) that it can't film"),
        };
        let taken_back = self.words_of_taken_back(around);
        self.incomplete_since = Mark(None);
        self.overlap = false;
        self.waits_for.clear();
        self.progress = Progress::default();
        match self.failback {
            Failback::Keep => {
                for holder in self
                    .holders
                    .iter_mut()
                    .filter(|each| each.holding == Holding::Films)
                {
                    holder.holding = Holding::Owes;
                }
                let what = format!(
                    "{} films again{without}; {stand_in} hands back{taken_back}",
                    self.server
                );
                self.note(self.handing_back(), what, now);
            }
            Failback::Remove => {
                self.drop_recordings();
                let what = format!(
                    "{} films again{without}; recordings are removed{taken_back}",
                    self.server
                );
                self.note(self.handing_back(), what, now);
            }
        }
        self.give_licenses_back();
        vec![Event::FailoverRestoring {
            failover: self.id.clone(),
            server: self.server.clone(),
            stand_in,
        }]
    }

    /// Goes from source to source until nothing is owed.
    pub(super) fn hand_back(&mut self, around: &Around<'_>, now: Moment) -> Vec<Event> {
        let mut owing = self
            .holders
            .iter()
            .zip(&around.holders)
            .filter(|(holder, _)| holder.holding == Holding::Owes)
            .map(|(holder, side)| (holder.server.clone(), *side))
            .peekable();
        if owing.peek().is_none() {
            return self.complete(now);
        }
        if self.source.is_some() && !self.should_change_source(around) {
            let waits_for = self.what_fetching_waits_for(around);
            self.wait(waits_for);
            return Vec::new();
        }
        let owing: Vec<(ServerId, Side<'_>)> = owing.collect();
        let ready = owing
            .iter()
            .find(|(_, side)| side.heard && self.has_closed(*side));
        if let Some((source, _)) = ready {
            // Only now may it be fetched: whatever is called complete from here on, is.
            let what = format!("{source} has closed its recordings: they are fetched");
            self.source = Some(source.clone());
            self.progress = Progress::default();
            self.waits_for.clear();
            self.note(self.phase, what, now);
            return Vec::new();
        }
        let waits_for = owing
            .iter()
            .map(|(server, side)| match side.heard {
                true => format!("{server} to close its recordings"),
                false => format!("{server} to come back with its recordings"),
            })
            .collect::<Vec<_>>()
            .join(" and for ");
        self.wait(waits_for);
        Vec::new()
    }

    /// Whether the source is gone while another one could be fetched from: what that one has must not wait for a
    /// machine that may never come back. What was fetched of the first stays fetched.
    fn should_change_source(&self, around: &Around<'_>) -> bool {
        let owing = || {
            self.holders
                .iter()
                .zip(&around.holders)
                .filter(|(holder, _)| holder.holding == Holding::Owes)
        };
        let gone = |(holder, side): (&Holder, &Side<'_>)| {
            Some(&holder.server) == self.source.as_ref() && !side.heard
        };
        owing().any(gone) && owing().any(|(_, side)| side.heard && self.has_closed(*side))
    }

    /// Whether nothing will be added to what a failover server has recorded.
    fn has_closed(&self, side: Side<'_>) -> bool {
        side.reached
            .is_some_and(|report| report.identity.is_none() && !report.open.contains(&self.id))
    }

    fn what_fetching_waits_for(&self, around: &Around<'_>) -> String {
        let source = self.source.as_ref();
        let source_gone = self
            .holders
            .iter()
            .zip(&around.holders)
            .find(|(holder, side)| Some(&holder.server) == source && !side.heard);
        match source_gone {
            _ if !around.original.heard => format!("{} to be heard", self.server),
            Some((holder, _)) => format!("{} to come back with its recordings", holder.server),
            None => self.fetching_waits.clone(),
        }
    }

    fn complete(&mut self, now: Moment) -> Vec<Event> {
        let stand_in = self
            .last_stand_in()
            .cloned()
            .unwrap_or_else(|| self.server.clone());
        self.waits_for.clear();
        self.source = None;
        self.ended_at = Some(now.wall);
        let what = match self.damaged_count {
            _ if !self.given_up.is_empty() => {
                format!("it was stopped before everything was back: {}", self.given_up)
            }
            _ if self.failback == Failback::Remove => "the recordings are removed".to_owned(),
            0 if self.replaced.is_some() => {
                format!("everything is on {}, for good", self.server)
            }
            0 => "everything is back; the copies are erased".to_owned(),
            n => format!("everything that can be had is back, {n} segment(s) could not be"),
        };
        self.note(
            Phase::Completed,
            format!("{what}{}", self.words_of_dropped()),
            now,
        );
        vec![Event::FailoverCompleted {
            failover: self.id.clone(),
            server: self.server.clone(),
            stand_in,
            progress: self.total_progress(),
            damaged: self.damaged.clone(),
            damaged_count: self.damaged_count,
            given_up: self.given_up.clone(),
            dropped: self.dropped(),
        }]
    }

    /// The recording server says how far it has fetched. `assigned` is the epoch of its newest assignment: an
    /// older report speaks of what was asked before, and proves nothing.
    pub fn restoration(&mut self, report: &RestorationReport, assigned: Epoch, now: Moment) -> Vec<Event> {
        let speaks_of_this = report.server == self.server && report.failover == self.id;
        let Some(source) = self.source.clone() else {
            return Vec::new();
        };
        // A restored host gives epochs out once more: what was said of another source by one of them is no word on this.
        let of_another = report.source.as_ref().is_some_and(|said| *said != source);
        if !speaks_of_this || of_another || report.epoch < assigned || !self.phase.hands_back() {
            return Vec::new();
        }
        let moved = self.progress != report.progress;
        self.progress = report.progress;
        self.fetching_waits.clone_from(&report.waiting);
        for segment in &report.damaged {
            let known = self.damaged.iter().any(|known| known.path == segment.path);
            if !known && self.damaged.len() < MOST_DAMAGED {
                self.damaged.push(segment.clone());
            }
        }
        let count = |length: usize| u64::try_from(length).unwrap_or(u64::MAX);
        // A report names all of its source; a source that is asked again may name fewer.
        let named = self.damaged_before + count(report.damaged.len());
        self.damaged_count = named.max(count(self.damaged.len()));
        let event = moved.then(|| Event::FailoverProgress {
            failover: self.id.clone(),
            server: self.server.clone(),
            progress: self.total_progress(),
        });
        if report.complete {
            self.delivered = self.total_progress();
            if let Some(holder) = self.holders.iter_mut().find(|holder| holder.server == source) {
                holder.delivered = self.progress;
            }
            self.damaged_before = self.damaged_count;
            self.progress = Progress::default();
            self.source = None;
            self.fetching_waits.clear();
            self.set_holding(&source, Holding::Erases);
            for holder in self.holders.iter_mut().filter(|holder| holder.server == source) {
                holder.arrived_up_to = arrived_up_to(report);
            }
            self.note(
                self.phase,
                format!("{} has all that {source} had", self.server),
                now,
            );
        }
        event.into_iter().collect()
    }

    /// Whether a failover server has not erased its copies, since it has recorded more than was fetched; and whether
    /// that can be fetched. That everything had arrived was said before this host was restored from a backup.
    pub(super) fn owes_again(&mut self, around: &Around<'_>) -> bool {
        if self.sparing(around).is_empty() {
            return false;
        }
        match &around.reopens {
            Err(waits_for) if self.phase.is_final() => {
                let waits_for = waits_for.clone();
                self.wait(waits_for);
                false
            }
            _ => true,
        }
    }

    fn sparing(&self, around: &Around<'_>) -> Vec<ServerId> {
        let spared = |side: &Side<'_>| {
            side.reached
                .is_some_and(|report| report.spared.contains(&self.id))
        };
        self.holders
            .iter()
            .zip(&around.holders)
            .filter(|(holder, _)| holder.holding == Holding::Erases && holder.arrived_up_to.is_some())
            .filter(|(_, side)| spared(side))
            .map(|(holder, _)| holder.server.clone())
            .collect()
    }

    /// What it has recorded since is owed like the rest, even if the failover was over.
    pub(super) fn fetch_again(&mut self, around: &Around<'_>, now: Moment) -> Vec<Event> {
        let sparing = self.sparing(around);
        for holder in self
            .holders
            .iter_mut()
            .filter(|holder| sparing.contains(&holder.server))
        {
            holder.holding = Holding::Owes;
            holder.arrived_up_to = None;
        }
        for server in &sparing {
            self.lists_again(server);
        }
        let names: Vec<&str> = sparing.iter().map(ServerId::as_str).collect();
        let what = format!(
            "{} has more recordings than had arrived when this host's backup was made: they are fetched, too",
            names.join(" and ")
        );
        let Some(stand_in) = sparing.last().filter(|_| self.phase.is_final()) else {
            self.note(self.phase, what, now);
            return Vec::new();
        };
        let phase = self.handing_back();
        if let Ok(settings) = &around.reopens {
            self.settings = settings.clone();
        }
        self.ended_at = None;
        self.waits_for.clear();
        self.note(phase, what, now);
        vec![Event::FailoverRestoring {
            failover: self.id.clone(),
            server: self.server.clone(),
            stand_in: stand_in.clone(),
        }]
    }

    /// What arrived from `server` will be in its next list once more: it is not to be counted twice.
    pub(super) fn lists_again(&mut self, server: &ServerId) {
        let Some(holder) = self.holders.iter_mut().find(|holder| holder.server == *server) else {
            return;
        };
        let again = std::mem::take(&mut holder.delivered);
        let all = self.delivered;
        self.delivered = Progress {
            segments_total: all.segments_total.saturating_sub(again.segments_total),
            segments_done: all.segments_done.saturating_sub(again.segments_done),
            bytes_total: all.bytes_total.saturating_sub(again.bytes_total),
            bytes_done: all.bytes_done.saturating_sub(again.bytes_done),
            bytes_per_second: 0,
            recorded_ms_total: all.recorded_ms_total.saturating_sub(again.recorded_ms_total),
            recorded_ms_done: all.recorded_ms_done.saturating_sub(again.recorded_ms_done),
        };
    }

    /// What was fetched from all sources so far.
    #[must_use]
    pub fn total_progress(&self) -> Progress {
        Progress {
            segments_total: self.delivered.segments_total + self.progress.segments_total,
            segments_done: self.delivered.segments_done + self.progress.segments_done,
            bytes_total: self.delivered.bytes_total + self.progress.bytes_total,
            bytes_done: self.delivered.bytes_done + self.progress.bytes_done,
            bytes_per_second: self.progress.bytes_per_second,
            recorded_ms_total: self.delivered.recorded_ms_total + self.progress.recorded_ms_total,
            recorded_ms_done: self.delivered.recorded_ms_done + self.progress.recorded_ms_done,
        }
    }

    /// Notes which failover servers have erased their copies, or made them their own.
    pub(super) fn settle(&mut self, around: &Around<'_>) {
        let id = self.id.clone();
        for (holder, side) in self.holders.iter_mut().zip(&around.holders) {
            let empty = side
                .reached
                .is_some_and(|report| !report.open.contains(&id) && !report.closed.contains(&id));
            if matches!(holder.holding, Holding::Erases | Holding::Keeps) && empty {
                holder.holding = Holding::Done;
            }
        }
    }
}

/// Up to which of its source's beginnings everything arrived, as far as both servers' versions name them. A source that
/// names none and lists nothing has not begun yet, so that whatever it has later did not arrive.
fn arrived_up_to(report: &RestorationReport) -> Option<u64> {
    let names_beginnings = report.source.is_some();
    let lists_nothing = report.progress.segments_total == 0;
    report
        .begun
        .or_else(|| (names_beginnings && lists_nothing).then_some(0))
}
