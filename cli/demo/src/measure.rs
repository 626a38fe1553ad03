//! The figures of one failover, from the simulator's account and the files on disk. Pure.
//!
//! Per camera, t is the moment at which the simulator sent the first numbered frame that is found in the
//! failover server's files.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use understudy_simulator::CameraSent;

use crate::{
    frames::Recorded,
    sent::{Account, first_sent},
};

/// What was seen from outside; times are microseconds of `CLOCK_REALTIME`.
#[derive(Debug)]
pub struct Seen<'a> {
    /// When the server's processes were killed; none by hand.
    pub killed_at_us: Option<i64>,
    /// When `failover.started` arrived; by hand, when the request was sent.
    pub decided_at_us: i64,
    /// When `failover.completed` arrived.
    pub completed_at_us: i64,
    /// What the cameras sent.
    pub sent: &'a Account,
    /// Frames in the failover server's files.
    pub stand_in: &'a Recorded,
    /// Frames in the recording server's archive after failback.
    pub archive: &'a Recorded,
    /// Frames a second.
    pub fps: f64,
    /// Length of a fragment of a recording, in seconds.
    pub fragment_seconds: f64,
    /// Time between key frames, in seconds.
    pub gop_seconds: f64,
}

/// The figures; see `design.md`, demo report.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// Decision − kill; 0 by hand.
    pub detection_seconds: f64,
    /// Latest t − decision.
    pub takeover_seconds: f64,
    /// Longest wait from a camera's first RTP packet to its first key frame.
    pub keyframe_wait_seconds: f64,
    /// `takeover_seconds` with each camera's own key-frame wait taken out.
    pub takeover_net_seconds: f64,
    /// Frames that the cameras numbered from the first recorded to the last recorded, over all cameras.
    pub frames_sent: u64,
    /// Of these, found in the archive.
    pub frames_recorded: u64,
    /// Of these, not found.
    pub frames_lost: u64,
    /// The most that one camera lost.
    pub frames_lost_worst_camera: u64,
    /// The most that one camera may lose: (detection + takeover + one fragment + one GOP) × rate.
    pub frames_lost_bound: u64,
    /// Between the sending times of neighbouring recorded frames.
    pub longest_gap_seconds: f64,
    /// What was promised and did not hold, in words; empty when all did.
    pub broken: Vec<String>,
}

impl Figures {
    /// With seconds rounded to milliseconds.
    #[must_use]
    pub fn rounded(self) -> Self {
        Self {
            detection_seconds: rounded(self.detection_seconds),
            takeover_seconds: rounded(self.takeover_seconds),
            keyframe_wait_seconds: rounded(self.keyframe_wait_seconds),
            takeover_net_seconds: rounded(self.takeover_net_seconds),
            longest_gap_seconds: rounded(self.longest_gap_seconds),
            ..self
        }
    }
}

/// Seconds, rounded to milliseconds.
#[must_use]
pub fn rounded(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}

/// A camera's way to the failover server.
struct Takeover {
    first_number: u64,
    sent_at_us: i64,
    key_frame_wait_us: i64,
}

/// Works the figures out.
#[must_use]
pub fn figures(seen: &Seen<'_>) -> Figures {
    let mut figures = Figures {
        detection_seconds: seen
            .killed_at_us
            .map_or(0.0, |killed| seconds(seen.decided_at_us - killed)),
        ..Figures::default()
    };
    let takeovers = takeovers(seen, &mut figures);
    let allowed =
        (figures.detection_seconds + figures.takeover_seconds + seen.fragment_seconds + seen.gop_seconds)
            * seen.fps;
    figures.frames_lost_bound = allowed.ceil() as u64;
    for (camera, account) in seen.sent {
        count(
            seen,
            camera,
            account,
            takeovers.get(camera.as_str()),
            &mut figures,
        );
    }
    figures
}

fn takeovers<'a>(seen: &'a Seen<'_>, figures: &mut Figures) -> BTreeMap<&'a str, Takeover> {
    let mut takeovers = BTreeMap::new();
    for (camera, account) in seen.sent {
        let found = seen
            .stand_in
            .get(camera)
            .and_then(|numbers| numbers.first())
            .and_then(|first| takeover(account, *first, seen.decided_at_us));
        let Some(found) = found else {
            figures
                .broken
                .push(format!("{camera}: no frame of it in the failover server's files"));
            continue;
        };
        let t = seconds(found.sent_at_us - seen.decided_at_us);
        let wait = seconds(found.key_frame_wait_us);
        figures.takeover_seconds = figures.takeover_seconds.max(t);
        figures.keyframe_wait_seconds = figures.keyframe_wait_seconds.max(wait);
        figures.takeover_net_seconds = figures.takeover_net_seconds.max(t - wait);
        takeovers.insert(camera.as_str(), found);
    }
    takeovers
}

/// The session that the failover server opened: the first one since the decision that was sent `first`.
fn takeover(account: &CameraSent, first: u64, decided_at_us: i64) -> Option<Takeover> {
    account
        .sessions
        .iter()
        .filter(|session| session.connected_at >= decided_at_us)
        .find_map(|session| {
            let (_, sent_at_us, _) = session.frames.iter().find(|(number, ..)| *number == first)?;
            let wait = session.first_key_frame_at? - session.first_rtp_at?;
            Some(Takeover {
                first_number: first,
                sent_at_us: *sent_at_us,
                key_frame_wait_us: wait,
            })
        })
}

fn count(
    seen: &Seen<'_>,
    camera: &str,
    account: &CameraSent,
    takeover: Option<&Takeover>,
    figures: &mut Figures,
) {
    let Some(recorded) = seen.archive.get(camera).filter(|numbers| !numbers.is_empty()) else {
        figures
            .broken
            .push(format!("{camera}: nothing of it in the archive"));
        return;
    };
    let first = *recorded.first().expect("it is not empty");
    let last = *recorded.last().expect("it is not empty");
    let sent = last - first + 1;
    let lost = sent - recorded.len() as u64;
    figures.frames_sent += sent;
    figures.frames_recorded += recorded.len() as u64;
    figures.frames_lost += lost;
    figures.frames_lost_worst_camera = figures.frames_lost_worst_camera.max(lost);
    if lost > figures.frames_lost_bound {
        figures.broken.push(format!(
            "{camera}: {lost} frames lost, {} allowed",
            figures.frames_lost_bound
        ));
    }
    let sent_at = first_sent(account);
    let failed_at = seen.killed_at_us.unwrap_or(seen.decided_at_us);
    if sent_at.get(&first).is_none_or(|at| *at >= failed_at) {
        figures
            .broken
            .push(format!("{camera}: nothing of before the fault is in the archive"));
    }
    // What is filmed after the account was taken is none of it.
    let last_sent = recorded.iter().rev().find_map(|number| sent_at.get(number));
    if last_sent.is_none_or(|at| *at <= seen.completed_at_us) {
        figures
            .broken
            .push(format!("{camera}: nothing was recorded after failback"));
    }
    let mut earlier = first;
    for &number in recorded.iter().skip(1) {
        let gap = sent_at
            .get(&earlier)
            .zip(sent_at.get(&number))
            .map_or(0, |(before, after)| after - before);
        figures.longest_gap_seconds = figures.longest_gap_seconds.max(seconds(gap));
        if number != earlier + 1 && takeover.is_none_or(|takeover| number != takeover.first_number) {
            figures.broken.push(format!(
                "{camera}: frames {} to {} are missing outside the takeover",
                earlier + 1,
                number - 1
            ));
        }
        earlier = number;
    }
}

#[allow(
    clippy::cast_precision_loss,
    reason = "a failover's microseconds are far below 2^52"
)]
fn seconds(microseconds: i64) -> f64 {
    microseconds as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;
    use understudy_simulator::SessionSent;

    /// A camera of 10 frames a second whose frame n is sent at n × 100 ms, with a key frame every tenth.
    fn session(connected_at: i64, numbers: std::ops::Range<u64>) -> SessionSent {
        let at = |number: u64| i64::try_from(number).expect("small") * 100_000;
        let key = numbers.clone().find(|number| number.is_multiple_of(10));
        SessionSent {
            session: "1".to_owned(),
            peer: ([127, 0, 0, 1], 1).into(),
            user_agent: String::new(),
            connected_at,
            first_rtp_at: Some(at(numbers.start)),
            first_key_frame_at: key.map(at),
            ended_at: None,
            frames: numbers
                .map(|number| (number, at(number), u8::from(number.is_multiple_of(10))))
                .collect(),
        }
    }

    fn recorded(numbers: impl IntoIterator<Item = u64>) -> Recorded {
        Recorded::from([("cam-001".to_owned(), numbers.into_iter().collect())])
    }

    fn seen<'a>(sent: &'a Account, stand_in: &'a Recorded, archive: &'a Recorded) -> Seen<'a> {
        Seen {
            killed_at_us: Some(5_000_000),
            decided_at_us: 6_000_000,
            completed_at_us: 11_000_000,
            sent,
            stand_in,
            archive,
            fps: 10.0,
            fragment_seconds: 0.25,
            gop_seconds: 1.0,
        }
    }

    fn two_sessions() -> Account {
        let sessions = vec![session(0, 0..50), session(6_100_000, 63..120)];
        let camera = CameraSent {
            camera: "cam-001".to_owned(),
            hash: 0,
            sessions,
        };
        Account::from([("cam-001".to_owned(), camera)])
    }

    #[test]
    fn f5_the_wait_for_a_key_frame_is_told_apart_from_the_takeover() {
        let (sent, stand_in) = (two_sessions(), recorded(70..120));
        let archive = recorded((0..48).chain(70..120));
        let figures = figures(&seen(&sent, &stand_in, &archive));
        assert_eq!(figures.broken, Vec::<String>::new());
        assert!((figures.detection_seconds - 1.0).abs() < 1e-9);
        assert!((figures.takeover_seconds - 1.0).abs() < 1e-9);
        assert!((figures.keyframe_wait_seconds - 0.7).abs() < 1e-9);
        assert!((figures.takeover_net_seconds - 0.3).abs() < 1e-9);
        assert_eq!(
            (figures.frames_sent, figures.frames_recorded, figures.frames_lost),
            (120, 98, 22)
        );
        assert!((figures.longest_gap_seconds - 2.3).abs() < 1e-9);
    }

    #[test]
    fn a_hole_outside_the_takeover_is_named() {
        let (sent, stand_in) = (two_sessions(), recorded(70..120));
        let archive = recorded((0..20).chain(21..48).chain(70..120));
        let figures = figures(&seen(&sent, &stand_in, &archive));
        assert_eq!(
            figures.broken,
            ["cam-001: frames 20 to 20 are missing outside the takeover"]
        );
    }

    #[test]
    fn a_server_that_films_no_more_after_failback_is_named() {
        let (sent, stand_in) = (two_sessions(), recorded(70..105));
        let archive = recorded((0..48).chain(70..105));
        let broken = figures(&seen(&sent, &stand_in, &archive)).broken;
        assert_eq!(broken, ["cam-001: nothing was recorded after failback"]);
        let archive = recorded(70..120);
        let broken = figures(&seen(&sent, &stand_in, &archive)).broken;
        assert_eq!(broken, ["cam-001: nothing of before the fault is in the archive"]);
    }

    #[test]
    fn more_loss_than_the_bound_is_named() {
        let (sent, stand_in) = (two_sessions(), recorded(70..120));
        let archive = recorded((0..30).chain(70..120));
        let figures = figures(&seen(&sent, &stand_in, &archive));
        assert_eq!(figures.broken, ["cam-001: 40 frames lost, 33 allowed"]);
    }

    #[test]
    fn a_camera_that_the_failover_server_never_filmed_is_named() {
        let (sent, stand_in) = (two_sessions(), Recorded::new());
        let archive = recorded((0..48).chain(112..120));
        let figures = figures(&seen(&sent, &stand_in, &archive));
        assert_eq!(
            figures.broken,
            [
                "cam-001: no frame of it in the failover server's files",
                "cam-001: 64 frames lost, 23 allowed",
                "cam-001: frames 48 to 111 are missing outside the takeover",
            ]
        );
    }
}
