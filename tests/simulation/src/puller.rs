//! A recording server's sync service: fetches what its assignment says, file by file.

use std::collections::BTreeSet;

use understudy_core::{
    assignment::{Restore, Role},
    contract::{
        heartbeat::{DamagedSegment, RestorationReport},
        segment::{Manifest, Segment},
    },
    ids::{FailoverId, ServerId},
    restoration,
    time::Timestamp,
};

use crate::{
    bug::Bug,
    network::Packet,
    node::{Node, Recording},
    visits::Fault,
    world::World,
};

impl World {
    /// One turn of a server's puller.
    pub(crate) fn pull(&mut self, id: &ServerId) {
        let node = &self.nodes[id];
        // It reads the assignment that its recording service has put on disk.
        let Some(assignment) = node.disk.assignment.clone().filter(|_| node.powered) else {
            return;
        };
        let Role::Films(films) = &assignment.role else {
            return;
        };
        let Some(restore) = &films.restore else { return };
        let Some(manifest) = self.manifest(restore, id) else {
            return;
        };
        let plan = restoration::plan(&manifest, &self.known(id));
        let mut damaged = Vec::new();
        let mut left = plan.fetch.len();
        for segment in &plan.fetch {
            if self.dies(Fault::FetchingDies, Some(id), 0.3) {
                return;
            }
            let source = self.nodes[&restore.source].disk.archive[&number(segment)].clone();
            if source.damaged {
                damaged.push(damage(segment));
                left -= 1;
            } else if !self.faulty || self.chance(self.arrives()) {
                // On disk and durable before it counts as fetched.
                let mut copy = source;
                copy.synced = copy.frames;
                self.tell(|| format!("{id} has fetched recording {} of {}", copy.number, restore.source));
                self.nodes
                    .get_mut(id)
                    .expect("it is there")
                    .disk
                    .archive
                    .insert(copy.number, copy);
                left -= 1;
            }
        }
        let fetched_all = left == 0 || self.bug == Some(Bug::ErasedUnverified);
        let old = self.nodes[id].old_version;
        let mut progress = restoration::plan(&manifest, &self.known(id)).progress();
        progress.bytes_per_second = 0;
        let report = RestorationReport {
            server: id.clone(),
            domain: self.nodes[id].domain.clone(),
            failover: restore.failover.clone(),
            epoch: assignment.epoch,
            progress,
            complete: fetched_all && manifest.complete && self.bug != Some(Bug::NeverComplete),
            damaged,
            source: (!old).then(|| restore.source.clone()),
            begun: manifest.begun.filter(|_| !old),
            waiting: String::new(),
        };
        if self.chance(0.3) && !self.is_late(&report) {
            self.send(id, Packet::Restoration(report));
        }
    }

    /// How likely a file arrives in a turn. Where servers are replaced, handing over takes long enough for something
    /// to happen meanwhile.
    fn arrives(&self) -> f64 {
        if self.replacing.is_some() { 0.15 } else { 0.6 }
    }

    fn manifest(&mut self, restore: &Restore, reader: &ServerId) -> Option<Manifest> {
        let source = self.nodes.get(&restore.source)?;
        let apart = self.apart.contains(&(reader.clone(), restore.source.clone()));
        let gives = source.process.is_some() && !source.cut_off && !source.disk_fault && !apart;
        let reads = &self.nodes[reader];
        let reachable = gives && !reads.cut_off && !reads.disk_fault && !reads.disk_full;
        if !reachable {
            return None;
        }
        Some(manifest(source, &restore.failover))
    }

    /// What it has, or had before its retention took it.
    fn known(&self, id: &ServerId) -> BTreeSet<(String, String)> {
        let disk = &self.nodes[id].disk;
        let known = disk.archive.values().chain(disk.expired.values());
        known
            .map(|recording| {
                let segment = segment(recording);
                (segment.path, segment.blake3)
            })
            .collect()
    }
}

/// What a server would say that it holds of a failover.
fn manifest(source: &Node, failover: &FailoverId) -> Manifest {
    let held: Vec<&Recording> = source
        .disk
        .archive
        .values()
        .filter(|recording| recording.is_of(failover, &source.id))
        .collect();
    Manifest {
        failover: failover.clone(),
        server: source.id.clone(),
        complete: held.iter().all(|recording| recording.closed) && source.films_for() != Some(failover),
        segments: held
            .into_iter()
            .filter(|recording| recording.closed)
            .map(segment)
            .collect(),
        begun: source.begun(failover),
    }
}

fn segment(recording: &Recording) -> Segment {
    let start = Timestamp(i64::try_from(recording.number).unwrap_or(i64::MAX));
    Segment {
        path: format!("{}/{}", recording.camera, recording.number),
        camera: recording.camera.clone(),
        recorded_by: recording.recorded_by.clone(),
        failover: recording.failover.clone(),
        start,
        end: start,
        bytes: u64::from(recording.frames),
        frames: u64::from(recording.frames),
        blake3: format!("{}-{}", recording.number, recording.frames),
    }
}

fn number(segment: &Segment) -> u64 {
    let name = segment.path.rsplit('/').next().unwrap_or_default();
    name.parse().expect("paths of the simulation end with a number")
}

fn damage(segment: &Segment) -> DamagedSegment {
    DamagedSegment {
        path: segment.path.clone(),
        camera: segment.camera.clone(),
        start: segment.start,
        end: segment.end,
        reason: "it can't be read".to_owned(),
    }
}
