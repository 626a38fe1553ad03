//! How a failover begins, and how people end it.

use std::collections::BTreeSet;

use super::{Ending, Failover, Holder, Holding, Mark};
use crate::{
    contract::{
        api::{Phase, Problem, ReasonKind},
        event::Event,
        heartbeat::Progress,
    },
    ids::{CameraId, FailoverId, ServerId},
    policy::{Failback, Policy, Range},
    selection::Selection,
    settings::BundleHash,
    time::Moment,
    trigger::Cause,
    words::{length, size},
};

/// What a failover begins with.
pub struct Beginning {
    /// An id that was never used.
    pub id: FailoverId,
    /// The recording server.
    pub server: ServerId,
    /// Why.
    pub cause: Cause,
    /// Who started it by hand.
    pub by: Option<String>,
    /// The failover server that this person chose.
    pub wanted: Option<ServerId>,
    /// The settings of now.
    pub settings: BundleHash,
    /// What the failover server does.
    pub range: Range,
    /// What becomes of the recordings.
    pub failback: Failback,
    /// Whether the recording server may film on until the failover server does.
    pub overlap: bool,
    /// Whether it is a planned switch.
    pub planned: bool,
    /// Cameras that allow one session: where the recording server films on, it lets go of them.
    pub one_session: BTreeSet<CameraId>,
}

/// Whether a recording server with such a fault may film on until the failover server does.
pub(crate) fn films_on(kind: ReasonKind) -> bool {
    matches!(kind, ReasonKind::Manual | ReasonKind::Storage)
}

impl Failover {
    /// Decides on a failover; a failover server is sought next.
    #[must_use]
    pub fn begin(beginning: Beginning, now: Moment) -> Self {
        let Cause { reason, lasts } = beginning.cause;
        let mut failover = Self {
            id: beginning.id,
            server: beginning.server,
            phase: Phase::Selecting,
            reason,
            reason_cleared: false,
            started_by: beginning.by,
            wanted: beginning.wanted,
            settings: beginning.settings,
            overlay: Default::default(),
            range: beginning.range,
            failback: beginning.failback,
            holders: Vec::new(),
            overlap: beginning.overlap,
            planned: beginning.planned,
            released: BTreeSet::new(),
            again: false,
            ending: None,
            source: None,
            progress: Progress::default(),
            delivered: Progress::default(),
            fetching_waits: String::new(),
            damaged: Vec::new(),
            damaged_count: 0,
            damaged_before: 0,
            selection: Vec::new(),
            waits_for: String::new(),
            steps: Vec::new(),
            started_at: now.wall,
            ended_at: None,
            detection_ms: u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX),
            takeover_ms: None,
            first_frames: Default::default(),
            moves: Vec::new(),
            licenses_wait: String::new(),
            given_up: String::new(),
            replaced: None,
            decided: Mark(Some(now.monotonic)),
            untaken_since: Mark(None),
            passed_over: 0,
            incomplete_since: Mark(None),
        };
        let what = format!("decided: {}", failover.reason.summary);
        failover.note(Phase::Selecting, what, now);
        if failover.planned {
            failover.keep_everything();
        }
        if beginning.overlap {
            failover.release(beginning.one_session, now);
        }
        failover
    }

    /// Gives the identity to the failover server that `selection` chose.
    pub(super) fn give_to(
        &mut self,
        server: ServerId,
        disabled: Vec<CameraId>,
        selection: Selection,
        now: Moment,
    ) -> Event {
        self.selection = selection.considered;
        // What it has not erased yet is in its next list, too.
        let erases = |holder: &Holder| holder.server == server && holder.holding == Holding::Erases;
        if self.holders.iter().any(erases) {
            self.lists_again(&server);
        }
        self.holders.retain(|holder| holder.server != server);
        self.holders.push(Holder {
            server: server.clone(),
            holding: Holding::Films,
            disabled: disabled.clone(),
            arrived_up_to: None,
            delivered: Progress::default(),
        });
        self.move_licenses(&server);
        self.source = None;
        // Whoever chose, chose once: if this one dies too, anyone who is free may follow.
        self.wanted = None;
        self.takeover_ms = None;
        self.first_frames.clear();
        self.waits_for.clear();
        self.decided = Mark(Some(now.monotonic));
        self.untaken_since = Mark(None);
        let surplus = match disabled.len() {
            0 => String::new(),
            n => format!("; it has no room for {n} camera(s)"),
        };
        self.note(Phase::TakingOver, format!("{server} takes over{surplus}"), now);
        Event::FailoverStarted {
            failover: self.id.clone(),
            server: self.server.clone(),
            stand_in: server,
            reason: self.reason.clone(),
            silent_ms: self.silent_ms(),
            disabled,
        }
    }

    /// For how long nothing had been heard of the server, in milliseconds.
    fn silent_ms(&self) -> u64 {
        match self.reason.kind {
            ReasonKind::Disconnection => self.detection_ms,
            ReasonKind::Manual | ReasonKind::Storage | ReasonKind::Package => 0,
        }
    }

    /// A person ends it (G1). Asked again it changes nothing.
    pub fn stop(&mut self, by: &str, now: Moment) {
        if self.phase.hands_back() && self.again {
            self.again = false;
            self.reason_cleared = true;
            self.note(self.phase, format!("{by} calls the new takeover off"), now);
        }
        let ended_by_hand = self.ending.as_ref().is_some_and(|ending| ending.by.is_some());
        let running = matches!(self.phase, Phase::Selecting | Phase::TakingOver | Phase::Serving);
        if ended_by_hand || !running {
            return;
        }
        self.ending = Some(Ending {
            by: Some(by.to_owned()),
        });
        self.reason_cleared = true;
        self.note(self.phase, format!("{by} ends it"), now);
    }

    /// A person ends the synchronisation (G5): what was not transferred completely is removed.
    ///
    /// # Errors
    /// If nothing is being synchronised.
    pub fn stop_restoration(&mut self, by: &str, now: Moment) -> Result<(), Problem> {
        self.given_up = self.what_stopping_loses(now)?;
        let lost = match self.given_up.as_str() {
            "" => "nothing is lost",
            lost => lost,
        };
        self.note(self.phase, format!("{by} stops the synchronisation: {lost}"), now);
        self.drop_recordings();
        Ok(())
    }

    /// What the end of the synchronisation loses, in words; empty if it is nothing.
    ///
    /// # Errors
    /// If nothing is being synchronised.
    pub fn what_stopping_loses(&self, now: Moment) -> Result<String, Problem> {
        if self.phase.hands_back() {
            return Ok(self.what_would_be_lost(now));
        }
        Err(Problem::conflict(format!(
            "failover {} is not synchronising recordings: there is nothing to stop",
            self.id
        )))
    }

    /// What was recorded on failover servers and is not handed back, in words; empty if it is nothing.
    #[must_use]
    pub fn what_would_be_lost(&self, now: Moment) -> String {
        let total = self.total_progress();
        let segments = total.segments_total.saturating_sub(total.segments_done);
        let listed = (segments > 0).then(|| {
            format!(
                "{} of recordings, summed over cameras, is lost ({} in {segments} segment(s))",
                length(total.recorded_ms_total.saturating_sub(total.recorded_ms_done)),
                size(total.bytes_total.saturating_sub(total.bytes_done)),
            )
        });
        let unread: Vec<String> = self.unread().iter().map(ToString::to_string).collect();
        let unread = (!unread.is_empty() && self.range == Range::Full).then(|| {
            let whose = unread.join(" and ");
            let minutes = now.wall.as_millis().saturating_sub(self.started_at.as_millis()) / 60_000;
            format!(
                "everything that {whose} recorded is lost; how much is unknown: {minutes} min of each camera at most"
            )
        });
        let lost: Vec<String> = listed.into_iter().chain(unread).collect();
        lost.join(", and ")
    }

    /// A person changes what it rests on, and has confirmed that it is interrupted (G7): the copies are erased.
    pub(crate) fn interrupt(&mut self, now: Moment) -> Event {
        self.given_up = self.what_would_be_lost(now);
        let why = match self.given_up.as_str() {
            "" => "a person interrupted it; nothing was lost".to_owned(),
            lost => format!("a person interrupted it: {lost}"),
        };
        self.drop_recordings();
        self.give_licenses_back();
        self.again = false;
        self.overlap = false;
        self.waits_for.clear();
        self.ended_at = Some(now.wall);
        self.note(Phase::Aborted, format!("{why}{}", self.words_of_dropped()), now);
        Event::FailoverAborted {
            failover: self.id.clone(),
            server: self.server.clone(),
            why,
            dropped: self.dropped(),
        }
    }

    /// Failover servers that have recordings of this failover of which nobody has read a list yet: the progress
    /// says nothing of them.
    pub(super) fn unread(&self) -> Vec<ServerId> {
        let read =
            |server: &ServerId| self.source.as_ref() == Some(server) && self.progress.segments_total > 0;
        let has = |holding: Holding| matches!(holding, Holding::Owes | Holding::Films);
        self.holders
            .iter()
            .filter(|holder| has(holder.holding) && !read(&holder.server))
            .map(|holder| holder.server.clone())
            .collect()
    }

    /// The copies on the failover servers are to be erased, delivered or not.
    pub(super) fn drop_recordings(&mut self) {
        for holder in &mut self.holders {
            holder.arrived_up_to = None;
            if matches!(holder.holding, Holding::Owes | Holding::Films) {
                holder.holding = Holding::Erases;
            }
        }
        self.source = None;
    }

    /// The policy is set while a failover server is still sought: nothing has been done by the old one yet.
    pub(crate) fn take_policy(&mut self, policy: &Policy) {
        if self.planned {
            return;
        }
        self.range = policy.range;
        self.failback = policy.failback;
    }

    /// A person starts it again while it is being handed back.
    ///
    /// # Errors
    /// If it is somewhere else.
    pub fn start_again(&mut self, cause: Cause, by: &str, now: Moment) -> Result<(), Problem> {
        if !self.phase.hands_back() {
            return Err(Problem::conflict(format!(
                "{} is failed over already (failover {})",
                self.server, self.id
            )));
        }
        self.started_by = Some(by.to_owned());
        self.again = true;
        self.renew_reason(cause, now);
        Ok(())
    }
}
