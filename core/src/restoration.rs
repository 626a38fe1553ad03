//! The plan of a restoration: which of a failover's segments are to be fetched, and which need not be.
//!
//! Fetching, verifying and storing are done elsewhere; here is only what is to be done, as data.

use std::collections::BTreeSet;

use crate::contract::{
    heartbeat::{DamagedSegment, Progress},
    segment::{Manifest, Segment},
};

/// What is to be done with the segments of a manifest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// To be fetched, oldest first.
    pub fetch: Vec<Segment>,
    /// Here already, with the same hash, or handed over before and expired since.
    pub done: Vec<Segment>,
    /// Not to be fetched at all: the source says of them what can't be.
    pub refused: Vec<DamagedSegment>,
}

/// Compares a source's `manifest` with what this server knows (path and BLAKE3 of each segment that is on its disk, or
/// was handed over to it before its retention took it).
#[must_use]
pub fn plan(manifest: &Manifest, known: &BTreeSet<(String, String)>) -> Plan {
    let mut plan = Plan::default();
    let mut seen = BTreeSet::new();
    let mut segments: Vec<&Segment> = manifest.segments.iter().collect();
    segments.sort_by(|a, b| (a.start, &a.path).cmp(&(b.start, &b.path)));
    for segment in segments {
        if !seen.insert(segment.path.as_str()) {
            continue;
        }
        if let Err(reason) = check(segment, manifest) {
            plan.refused.push(damaged(segment, reason));
        } else if known.contains(&(segment.path.clone(), segment.blake3.clone())) {
            plan.done.push(segment.clone());
        } else {
            plan.fetch.push(segment.clone());
        }
    }
    plan
}

impl Plan {
    /// How far the restoration is when nothing of `fetch` has been fetched yet. What was refused counts as
    /// settled, since no trying again will bring it.
    #[must_use]
    pub fn progress(&self) -> Progress {
        let bytes = |segments: &[Segment]| segments.iter().map(|segment| segment.bytes).sum::<u64>();
        let recorded = |segments: &[Segment]| segments.iter().map(Segment::recorded_ms).sum::<u64>();
        let count = |length: usize| u64::try_from(length).unwrap_or(u64::MAX);
        let done = bytes(&self.done);
        let recorded_done = recorded(&self.done);
        let settled = self.done.len() + self.refused.len();
        Progress {
            segments_total: count(settled + self.fetch.len()),
            segments_done: count(settled),
            bytes_total: done + bytes(&self.fetch),
            bytes_done: done,
            bytes_per_second: 0,
            recorded_ms_total: recorded_done + recorded(&self.fetch),
            recorded_ms_done: recorded_done,
        }
    }

    /// Whether nothing is left to be fetched.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.fetch.is_empty()
    }
}

/// Whether what a server recorded for a failover may be erased: always, if it was dropped (`up_to` is none), and if it
/// arrived up to a beginning, only where the server has not begun to film for it again since. A host that was restored
/// from a backup may take an old word that everything arrived for a new one.
#[must_use]
pub fn may_erase(begun: Option<u64>, up_to: Option<u64>) -> bool {
    up_to.is_none_or(|up_to| begun.is_some_and(|begun| begun <= up_to))
}

/// Entries come over the network and name files: one that leads out of its camera's folder is refused.
fn check(segment: &Segment, manifest: &Manifest) -> Result<(), &'static str> {
    let parts: Vec<&str> = segment.path.split('/').collect();
    let safe =
        |part: &&str| !part.is_empty() && *part != "." && *part != ".." && !part.contains(['\\', '\0']);
    if parts.len() < 2 || !parts.iter().all(safe) || parts[0] != segment.camera.as_str() {
        Err("its path does not lie in its camera's folder")
    } else if segment.failover.as_ref() != Some(&manifest.failover) {
        Err("it was not recorded during this failover")
    } else if segment.recorded_by != manifest.server {
        Err("it was recorded by another server than the one that gives it out")
    } else {
        Ok(())
    }
}

fn damaged(segment: &Segment, reason: &str) -> DamagedSegment {
    DamagedSegment {
        path: segment.path.clone(),
        camera: segment.camera.clone(),
        start: segment.start,
        end: segment.end,
        reason: reason.to_owned(),
    }
}
