//! Which failover server stands in, and which cameras it has no room for.
//!
//! Deterministic: the same candidates give the same choice, in whatever order they come. Who is a candidate
//! and whether it is free is for the caller to say; nothing here knows the fleet.

use std::cmp::Reverse;

use crate::{
    assignment::Epoch,
    camera::Camera,
    contract::api::Considered,
    ids::{CameraId, DomainId, ServerId},
};

/// A failover server that the recording server is paired with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Which.
    pub server: ServerId,
    /// The domain it is in.
    pub domain: DomainId,
    /// The most cameras that it can run.
    pub max_cameras: u32,
    /// The epoch at which it was last chosen; none if it never was.
    pub last_used: Option<Epoch>,
    /// Why it can't be chosen now, in words; none if it can.
    pub unavailable: Option<String>,
}

/// A choice, with what spoke for and against each candidate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// The failover server; none if none is available.
    pub chosen: Option<ServerId>,
    /// Each candidate: the best first, then those that are not available, by id.
    pub considered: Vec<Considered>,
}

impl Selection {
    /// What a failover waits for when nothing was chosen, in words.
    #[must_use]
    pub fn waits_for(&self) -> String {
        if self.considered.is_empty() {
            return "a failover server to be paired with it: there is none".to_owned();
        }
        let reasons: Vec<String> = self
            .considered
            .iter()
            .map(|candidate| format!("{} {}", candidate.server, candidate.why))
            .collect();
        format!("a free failover server: {}", reasons.join("; "))
    }
}

/// Chooses among `candidates` for a recording server of `domain` that runs `cameras` cameras: the smallest
/// that fits, or the largest if none does; then one of the same domain, then the least recently used, then
/// the first by id.
#[must_use]
pub fn select(cameras: u32, domain: &DomainId, candidates: &[Candidate]) -> Selection {
    let (mut free, mut busy): (Vec<&Candidate>, Vec<&Candidate>) = candidates
        .iter()
        .partition(|candidate| candidate.unavailable.is_none());
    free.sort_by_key(|candidate| rank(cameras, domain, candidate));
    busy.sort_by_key(|candidate| &candidate.server);
    let chosen = free.first().map(|best| best.server.clone());
    let considered = free
        .iter()
        .enumerate()
        .map(|(place, candidate)| Considered {
            server: candidate.server.clone(),
            chosen: place == 0,
            why: explain(cameras, domain, candidate, free[0]),
        })
        .chain(busy.iter().map(|candidate| Considered {
            server: candidate.server.clone(),
            chosen: false,
            why: candidate.unavailable.clone().unwrap_or_default(),
        }))
        .collect();
    Selection { chosen, considered }
}

/// Smaller is better: fits before does not fit, then closest, then the ties of requirement A5.
type Rank<'a> = (bool, i64, bool, Option<Epoch>, &'a ServerId);

fn rank<'a>(cameras: u32, domain: &DomainId, candidate: &'a Candidate) -> Rank<'a> {
    let size = i64::from(candidate.max_cameras);
    let fits = candidate.max_cameras >= cameras;
    let closeness = if fits { size } else { -size };
    (
        !fits,
        closeness,
        candidate.domain != *domain,
        candidate.last_used,
        &candidate.server,
    )
}

fn explain(cameras: u32, domain: &DomainId, candidate: &Candidate, best: &Candidate) -> String {
    let max = candidate.max_cameras;
    let room = if max >= cameras {
        format!("runs up to {max} cameras, {cameras} are needed")
    } else {
        format!("has room for {max} of {cameras} cameras")
    };
    if candidate.server == best.server {
        return format!("{room}: the closest match");
    }
    let lost = match (rank(cameras, domain, candidate), rank(cameras, domain, best)) {
        (mine, winner) if (mine.0, mine.1) != (winner.0, winner.1) => "matches closer",
        (mine, winner) if mine.2 != winner.2 => "is in the same domain",
        (mine, winner) if mine.3 != winner.3 => "was used less recently",
        _ => "comes first by id",
    };
    format!("{room}; {} {lost}", best.server)
}

/// The cameras that a server with room for `max` has no room for: the lowest priority first, and of equal
/// ones the last by id first. Cameras that are switched off need no room.
#[must_use]
pub fn surplus(cameras: &[Camera], max: u32) -> Vec<CameraId> {
    let mut wanted: Vec<&Camera> = cameras.iter().filter(|camera| camera.enabled).collect();
    wanted.sort_by_key(|camera| (camera.priority, Reverse(&camera.id)));
    let too_many = wanted
        .len()
        .saturating_sub(usize::try_from(max).unwrap_or(usize::MAX));
    wanted[..too_many]
        .iter()
        .map(|camera| camera.id.clone())
        .collect()
}
