//! How far a restoration is, and how fast it goes.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;
use understudy_core::{
    contract::{
        heartbeat::{DamagedSegment, Progress},
        segment::Segment,
    },
    restoration::Plan,
};

/// The rate is that of the last seconds.
const WINDOW: Duration = Duration::from_secs(5);

/// What was done and what is left of one restoration.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    progress: Progress,
    /// By path. What is in here is not fetched again.
    damaged: BTreeMap<String, DamagedSegment>,
    /// Bytes that came over the network, counted by those who receive them.
    received: Arc<AtomicU64>,
    /// Readings of it, oldest first.
    readings: VecDeque<(Instant, u64)>,
}

impl Tally {
    /// Begins anew from a plan, and takes out of it what is known to be damaged.
    pub(crate) fn begin(&mut self, plan: &mut Plan) {
        plan.fetch
            .retain(|segment| !self.damaged.contains_key(&segment.path));
        // What was refused by the plan is settled in its own count already.
        let known = plan
            .refused
            .iter()
            .map(|segment| (segment.path.clone(), segment.clone()));
        self.damaged.extend(known);
        let settled = (self.damaged.len() - plan.refused.len()) as u64;
        self.progress = plan.progress();
        self.progress.segments_total += settled;
        self.progress.segments_done += settled;
    }

    /// A segment is on disk and indexed here.
    pub(crate) fn landed(&mut self, segment: &Segment) {
        self.progress.segments_done += 1;
        self.progress.bytes_done += segment.bytes;
        self.progress.recorded_ms_done += segment.recorded_ms();
    }

    /// A segment can't be had.
    pub(crate) fn is_damaged(&mut self, segment: &Segment, reason: String) {
        self.progress.segments_done += 1;
        let progress = &mut self.progress;
        progress.bytes_total = progress.bytes_total.saturating_sub(segment.bytes);
        progress.recorded_ms_total = progress.recorded_ms_total.saturating_sub(segment.recorded_ms());
        let damaged = DamagedSegment {
            path: segment.path.clone(),
            camera: segment.camera.clone(),
            start: segment.start,
            end: segment.end,
            reason,
        };
        self.damaged.insert(segment.path.clone(), damaged);
    }

    /// Where received bytes are counted.
    pub(crate) fn received(&self) -> Arc<AtomicU64> {
        self.received.clone()
    }

    pub(crate) fn damaged(&self) -> Vec<DamagedSegment> {
        self.damaged.values().cloned().collect()
    }

    /// How far it is at `now`.
    pub(crate) fn progress(&mut self, now: Instant) -> Progress {
        let bytes = self.received.load(Ordering::Relaxed);
        self.readings.push_back((now, bytes));
        while self.readings.len() > 2 && now - self.readings[1].0 >= WINDOW {
            self.readings.pop_front();
        }
        let (since, before) = self.readings[0];
        let micros = u64::try_from((now - since).as_micros())
            .unwrap_or(u64::MAX)
            .max(1);
        let rate = u128::from(bytes - before) * 1_000_000 / u128::from(micros);
        Progress {
            bytes_per_second: u64::try_from(rate).unwrap_or(u64::MAX),
            ..self.progress
        }
    }
}

#[cfg(test)]
mod tests {
    use understudy_core::{
        ids::{CameraId, FailoverId, ServerId},
        time::Timestamp,
    };

    use super::*;

    fn segment(path: &str) -> Segment {
        Segment {
            path: path.to_owned(),
            camera: CameraId::new("cam-001").expect("an id"),
            recorded_by: ServerId::new("standby-a").expect("an id"),
            failover: Some(FailoverId::new("f").expect("an id")),
            start: Timestamp(0),
            end: Timestamp(60_000),
            bytes: 100,
            frames: 900,
            blake3: String::new(),
        }
    }

    #[test]
    fn f4_progress_counts_what_landed_and_what_can_not_be_had() {
        let mut tally = Tally::default();
        let segments = ["a", "b", "c"].map(segment);
        let mut plan = Plan {
            fetch: segments.to_vec(),
            ..Plan::default()
        };
        tally.begin(&mut plan);
        tally.landed(&segments[0]);
        tally.is_damaged(&segments[1], "lost".to_owned());
        let progress = tally.progress(Instant::now());
        assert_eq!((progress.segments_done, progress.segments_total), (2, 3));
        assert_eq!((progress.bytes_done, progress.bytes_total), (100, 200));
        assert_eq!(
            (progress.recorded_ms_done, progress.recorded_ms_total),
            (60_000, 120_000)
        );

        // Planned again, the damaged one is not fetched again and stays settled.
        let mut again = Plan {
            fetch: segments[1..].to_vec(),
            done: segments[..1].to_vec(),
            ..Plan::default()
        };
        tally.begin(&mut again);
        assert_eq!(again.fetch, segments[2..]);
        let progress = tally.progress(Instant::now());
        assert_eq!((progress.segments_done, progress.segments_total), (2, 3));
        assert_eq!((progress.bytes_done, progress.bytes_total), (100, 200));
        assert_eq!(
            (progress.recorded_ms_done, progress.recorded_ms_total),
            (60_000, 120_000)
        );
    }

    #[test]
    fn f4_the_rate_is_that_of_the_last_seconds() {
        let mut tally = Tally::default();
        let start = Instant::now();
        let second = |count: u64| start + Duration::from_secs(count);
        for count in 0..20 {
            let rate = tally.progress(second(count)).bytes_per_second;
            if count > 6 {
                assert_eq!(rate, 1000);
            }
            tally.received().fetch_add(1000, Ordering::Relaxed);
        }
        tally.progress(second(100));
        tally.progress(second(106));
        assert_eq!(
            tally.progress(second(107)).bytes_per_second,
            0,
            "nothing came since"
        );
    }
}
