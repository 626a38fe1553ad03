//! The transitions up to `serving`, and back to it when the recording server fails again.

use std::time::Duration;

use super::{Around, Ending, Failover, Holding, Mark, Side, begin::films_on};
use crate::{
    contract::{
        api::{Considered, Phase},
        event::Event,
        heartbeat::CameraStatus,
    },
    ids::{CameraId, ServerId},
    selection::Selection,
    time::Moment,
    trigger::Cause,
};

/// A server says at the latest by then, after a start of the host, what it has reached: it reports every 10 s.
const REPORTS_COME: Duration = Duration::from_secs(15);

impl Failover {
    /// Makes the next transition that is due, one at most. The caller turns the new state into assignments,
    /// and calls again until nothing changes.
    pub fn advance(&mut self, around: &Around<'_>, now: Moment) -> Vec<Event> {
        if self.owes_again(around) {
            return self.fetch_again(around, now);
        }
        match self.phase {
            Phase::Selecting => self.seek(around, now),
            Phase::TakingOver | Phase::Serving => self.serve(around, now),
            Phase::Restoring | Phase::Replacing => match self.failed_again(around) {
                true => self.take_over_again(around, now),
                false => {
                    self.reason_cleared = true;
                    self.hand_back(around, now)
                }
            },
            Phase::Completed | Phase::Aborted => {
                self.settle(around);
                Vec::new()
            }
        }
    }

    fn seek(&mut self, around: &Around<'_>, now: Moment) -> Vec<Event> {
        let why = match &self.ending {
            Some(Ending { by: Some(by) }) => format!("{by} ended it before a failover server was free"),
            _ if self.is_automatic() && around.original.maintenance => format!(
                "the maintenance of {} began before a failover server was free",
                self.server
            ),
            _ if self.is_automatic() && around.cleared => {
                self.reason_cleared = true;
                "the reason cleared before a failover server was free".to_owned()
            }
            _ if self.is_automatic() && around.cause.is_none() && around.original.heard => {
                let waits_for = format!("{}, which is heard again, to stay well", self.server);
                return self.say_waiting(waits_for, now);
            }
            _ => return self.choose(around, now),
        };
        self.note(Phase::Aborted, why.clone(), now);
        self.waits_for.clear();
        self.ended_at = Some(now.wall);
        vec![Event::FailoverAborted {
            failover: self.id.clone(),
            server: self.server.clone(),
            why,
            dropped: self.dropped(),
        }]
    }

    /// Gives the identity to whoever is free, or says that it waits.
    fn choose(&mut self, around: &Around<'_>, now: Moment) -> Vec<Event> {
        let selection = (around.select)(self, None);
        match selection.chosen.clone() {
            Some(chosen) => {
                let disabled = (around.surplus)(&chosen);
                vec![self.give_to(chosen, disabled, selection, now)]
            }
            None => {
                let waits_for = selection.waits_for();
                self.selection = selection.considered;
                self.say_waiting(waits_for, now)
            }
        }
    }

    fn say_waiting(&mut self, waits_for: String, now: Moment) -> Vec<Event> {
        if self.waits_for == waits_for {
            return Vec::new();
        }
        self.note(self.phase, format!("waits for {waits_for}"), now);
        self.wait(waits_for.clone());
        vec![Event::FailoverWaiting {
            failover: self.id.clone(),
            server: self.server.clone(),
            reason: self.reason.clone(),
            waits_for,
        }]
    }

    fn serve(&mut self, around: &Around<'_>, now: Moment) -> Vec<Event> {
        if self.ending.is_some() {
            if self.should_go_on(around) {
                self.ending = None;
                self.reason_cleared = false;
                self.incomplete_since = Mark(None);
                self.note(self.phase, "the recording server failed again: it goes on", now);
                return Vec::new();
            }
            if self.original_is_ready(around, now) {
                return self.begin_handing_back(around, now);
            }
        }
        let Some((index, stand_in)) = self.find_stand_in(around) else {
            return Vec::new();
        };
        if let Some(why) = stand_in.failed {
            return self.replace_stand_in(index, why, around, now);
        }
        if self.release_refused(index, stand_in, around, now) {
            return Vec::new();
        }
        self.note_first_frames(stand_in, now);
        if self.phase == Phase::TakingOver
            && let Some(event) = self.arrive(index, stand_in, around, now)
        {
            return vec![event];
        }
        if self.phase == Phase::TakingOver && self.is_overdue(stand_in, around, now) {
            return self.pass_over(index, around, now);
        }
        // With nobody filming, a recording server that is well again must not be kept waiting.
        let nobody_films = !films_anything(stand_in);
        let may_end = nobody_films || (self.phase == Phase::Serving && around.unsettled.is_none());
        if may_end && self.may_end_by_itself(around) {
            self.end_by_itself(now);
            return Vec::new();
        }
        if self.phase == Phase::Serving && self.overlap && films_anything(stand_in) {
            self.overlap = false;
            self.released.clear();
        }
        self.say_what_serving_waits_for(index, stand_in, around);
        Vec::new()
    }

    /// Writes down which cameras are heard to film for the first time since the takeover began.
    fn note_first_frames(&mut self, stand_in: Side<'_>, now: Moment) {
        let borne = stand_in
            .reached
            .filter(|report| report.identity.as_ref() == Some(&self.server));
        for (camera, status) in borne.into_iter().flat_map(|report| &report.cameras) {
            if status.films() && !self.first_frames.contains_key(camera) {
                self.first_frames.insert(camera.clone(), now.wall);
            }
        }
    }

    fn find_stand_in<'a>(&self, around: &Around<'a>) -> Option<(usize, Side<'a>)> {
        let index = self
            .holders
            .iter()
            .position(|holder| holder.holding == Holding::Films)?;
        Some((index, *around.holders.get(index)?))
    }

    fn say_what_serving_waits_for(&mut self, index: usize, stand_in: Side<'_>, around: &Around<'_>) {
        let server = &self.holders[index].server;
        let waits_for = if self.ending.is_some() {
            self.what_return_waits_for(around)
        } else if self.phase == Phase::Serving {
            // One that failed again and again is not handed back to at once.
            let unsettled = around
                .unsettled
                .as_ref()
                .filter(|_| self.may_end_by_itself(around));
            unsettled.map_or_else(String::new, |unsettled| format!("{} to {unsettled}", self.server))
        } else if let Some(report) = stand_in.reached {
            match self.missing_at_switch(index, report, around).len() {
                0 => format!("{server} to connect the cameras"),
                n => format!("{server} to film {n} camera(s) that {} films", self.server),
            }
        } else {
            format!("{server} to take its assignment")
        };
        self.wait(waits_for);
    }

    /// The end had come by itself, and the recording server has failed again.
    fn should_go_on(&self, around: &Around<'_>) -> bool {
        let by_itself = matches!(self.ending, Some(Ending { by: None }));
        by_itself && around.cause.is_some()
    }

    fn may_end_by_itself(&self, around: &Around<'_>) -> bool {
        self.ending.is_none() && self.is_automatic() && around.stop_automatically && around.cleared
    }

    fn end_by_itself(&mut self, now: Moment) {
        self.ending = Some(Ending { by: None });
        self.reason_cleared = true;
        self.note(self.phase, "the reason has cleared: it ends by itself", now);
    }

    /// `taking_over → serving`: each camera films or has a reason why not.
    fn arrive(
        &mut self,
        index: usize,
        stand_in: Side<'_>,
        around: &Around<'_>,
        now: Moment,
    ) -> Option<Event> {
        let report = stand_in.reached?;
        if report.identity.as_ref() != Some(&self.server) {
            return None;
        }
        let holder = &self.holders[index];
        let expected: Vec<&CameraId> = around
            .stand_in_cameras
            .iter()
            .filter(|camera| !holder.disabled.contains(camera))
            .collect();
        let status = |camera: &CameraId| report.cameras.get(camera);
        if !expected
            .iter()
            .all(|camera| status(camera).is_some_and(|status| status.is_settled()))
        {
            return None;
        }
        if !self.missing_at_switch(index, report, around).is_empty() {
            return None;
        }
        let films = |camera: &CameraId| status(camera).is_some_and(|status| status.films());
        let (filming, lost): (Vec<&CameraId>, Vec<&CameraId>) =
            expected.into_iter().partition(|camera| films(camera));
        let stand_in = holder.server.clone();
        let event = Event::FailoverServing {
            failover: self.id.clone(),
            server: self.server.clone(),
            stand_in: stand_in.clone(),
            filming: u32::try_from(filming.len()).unwrap_or(u32::MAX),
            lost: lost.iter().map(|camera| (*camera).clone()).collect(),
        };
        let what = match lost.len() {
            0 => format!("{stand_in} films {} camera(s)", filming.len()),
            n => format!(
                "{stand_in} films {} camera(s), {n} can't be filmed{}",
                filming.len(),
                self.words_of_held(&lost, report, around)
            ),
        };
        self.takeover_ms = self.decided.0.map(|decided| {
            let taken = now.monotonic.since(decided);
            u64::try_from(taken.as_millis()).unwrap_or(u64::MAX)
        });
        self.overlap = false;
        self.released.clear();
        self.waits_for.clear();
        self.note(Phase::Serving, what, now);
        Some(event)
    }

    /// The failover server is gone: another one takes over. What it recorded stays owed.
    fn replace_stand_in(&mut self, index: usize, why: &str, around: &Around<'_>, now: Moment) -> Vec<Event> {
        let gone = self.holders[index].server.clone();
        // With nobody filming, a recording server that is well again must not be kept waiting.
        if self.may_end_by_itself(around) {
            self.end_by_itself(now);
            return Vec::new();
        }
        let selection = (around.select)(self, Some(&gone));
        let Some(chosen) = selection.chosen.clone() else {
            if self.ending.is_some() {
                let waits_for = self.what_return_waits_for(around);
                self.wait(waits_for);
                return Vec::new();
            }
            self.let_original_film(&gone, around, now);
            let waits_for = format!("{gone}, which {why}, or {}", selection.waits_for());
            return self.say_waiting(waits_for, now);
        };
        self.note(self.phase, format!("{gone} {why}: another one takes over"), now);
        self.holders[index].holding = Holding::Owes;
        let disabled = (around.surplus)(&chosen);
        vec![self.give_to(chosen, disabled, selection, now)]
    }

    /// Whether the failover server has left its assignment untaken for too long. Who was replaced for that may
    /// be as slow as whoever came next: each time there is twice as much patience.
    fn is_overdue(&mut self, stand_in: Side<'_>, around: &Around<'_>, now: Moment) -> bool {
        if stand_in.reached.is_some() {
            self.untaken_since = Mark(None);
            return false;
        }
        let since = *self.untaken_since.0.get_or_insert(now.monotonic);
        // A host that has just started may not have heard the report that was made before.
        let patience = match self.decided.0 {
            Some(_) => around.patience * 2u32.pow(self.passed_over.min(5)),
            None => around.patience.max(REPORTS_COME),
        };
        now.monotonic.since(since) >= patience
    }

    /// The failover server does not take its assignment: another one takes over, if one is free. What it may
    /// have recorded all the same stays owed.
    fn pass_over(&mut self, index: usize, around: &Around<'_>, now: Moment) -> Vec<Event> {
        let why = "does not take its assignment";
        let replaced = self.replace_stand_in(index, why, around, now);
        if self.untaken_since.0.is_none() {
            self.passed_over += 1;
        }
        replaced
    }

    /// Nobody can stand in, and the recording server could film: better it than nobody.
    fn let_original_film(&mut self, gone: &ServerId, around: &Around<'_>, now: Moment) {
        let films_all = self.overlap && self.released.is_empty();
        if films_all || !around.original.heard || around.cause.is_some() {
            return;
        }
        self.overlap = true;
        self.released.clear();
        let what = format!(
            "{} films until {gone} or another failover server does",
            self.server
        );
        self.note(self.phase, what, now);
    }

    fn failed_again(&self, around: &Around<'_>) -> bool {
        self.again
            || (around.cause.is_some() && self.holders.iter().any(|each| each.holding == Holding::Owes))
    }

    /// `restoring → taking_over`: the same failover, the same failover server if it can; what was not fetched
    /// yet stays where it is.
    fn take_over_again(&mut self, around: &Around<'_>, now: Moment) -> Vec<Event> {
        if !self.again
            && let Some(cause) = around.cause.clone()
            && self.reason_cleared
        {
            self.renew_reason(cause, now);
        }
        let selection = match self.same_stand_in(around) {
            Some(server) => Selection {
                considered: vec![Considered {
                    server: server.clone(),
                    chosen: true,
                    why: "stood in before, and has the recordings".to_owned(),
                }],
                chosen: Some(server),
            },
            None => (around.select)(self, None),
        };
        let Some(chosen) = selection.chosen.clone() else {
            let waits_for = selection.waits_for();
            return self.say_waiting(waits_for, now);
        };
        for holder in &mut self.holders {
            if holder.holding == Holding::Films {
                holder.holding = Holding::Owes;
            }
        }
        self.again = false;
        self.ending = None;
        self.released.clear();
        self.overlap = films_on(self.reason.kind) && around.original.heard;
        let disabled = (around.surplus)(&chosen);
        let event = self.give_to(chosen, disabled, selection, now);
        if self.overlap {
            self.release(around.one_session.clone(), now);
        }
        vec![event]
    }

    fn same_stand_in(&self, around: &Around<'_>) -> Option<ServerId> {
        self.holders
            .iter()
            .zip(&around.holders)
            .rev()
            .find(|(holder, side)| {
                let can = side.connected && side.failed.is_none() && !side.maintenance;
                holder.holding == Holding::Owes && can
            })
            .map(|(holder, _)| holder.server.clone())
    }

    pub(super) fn renew_reason(&mut self, cause: Cause, now: Moment) {
        self.detection_ms = u64::try_from(cause.lasts.as_millis()).unwrap_or(u64::MAX);
        self.reason = cause.reason;
        self.reason_cleared = false;
        self.note(self.phase, format!("failed again: {}", self.reason.summary), now);
    }
}

/// Whether a failover server is known to film at least one camera.
fn films_anything(stand_in: Side<'_>) -> bool {
    stand_in
        .reached
        .is_some_and(|report| report.cameras.values().any(CameraStatus::films))
}
