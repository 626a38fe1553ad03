//! One server's turn: its reconciler's effects, its cameras, its frames, its report.

use understudy_core::{
    camera::Camera,
    contract::heartbeat::{CameraFault, CameraStatus},
    ids::{CameraId, ServerId},
    policy::Range,
    reconcile,
};

use crate::{
    bug::Bug,
    checks::Violation,
    network::Packet,
    node::{Node, Recording},
    visits::Fault,
    world::World,
};

/// Frames after which a file is closed and the next is begun.
const FRAMES_PER_FILE: u32 = 12;

impl World {
    pub(crate) fn node_turn(&mut self, id: &ServerId) -> Result<(), Violation> {
        let moment = self.node_moment(id);
        let tick = self.outcome.ticks;
        let node = self.nodes.get_mut(id).expect("its id is one of them");
        let in_order = !node.mute && !node.is_frozen(tick);
        node.well_ticks = match node.powered && !node.cut_off && in_order {
            true => node.well_ticks + 1,
            false => 0,
        };
        let machine_frozen = node.machine_frozen && node.is_frozen(tick);
        if node.powered && !machine_frozen {
            let beat = node.beat(moment.wall, tick);
            self.send(id, Packet::Beat(beat));
        }
        if self.nodes[id].rests(tick) {
            return Ok(());
        }
        self.node_input(id, reconcile::Input::Tick)?;
        self.camera_turn(id)?;
        self.film(id);
        self.pull(id);
        self.report(id);
        Ok(())
    }

    pub(crate) fn node_input(&mut self, id: &ServerId, input: reconcile::Input) -> Result<(), Violation> {
        let moment = self.node_moment(id);
        if let reconcile::Input::Heard(assignment) = &input {
            self.actor_assigned(assignment);
        }
        let Some(process) = self.nodes.get_mut(id).and_then(|node| node.process.as_mut()) else {
            return Ok(());
        };
        let effects = process.reconciler.step(input, moment);
        process.todo.extend(effects);
        self.run_effects(id)
    }

    pub(crate) fn run_effects(&mut self, id: &ServerId) -> Result<(), Violation> {
        while let Some(effect) = self.nodes.get_mut(id).and_then(Node::next_effect) {
            if self.dies(Fault::ServiceDies, Some(id), 1.0) {
                self.crash_node(id, "between two effects");
                return Ok(());
            }
            self.carry_out(id, effect)?;
        }
        Ok(())
    }

    fn carry_out(&mut self, id: &ServerId, effect: reconcile::Effect) -> Result<(), Violation> {
        use reconcile::Effect;
        if !matches!(effect, Effect::Report | Effect::FetchBundle(_)) {
            self.tell(|| format!("{id} does {effect:?}"));
        }
        match effect {
            Effect::Persist(assignment) => {
                let bug = self.bug;
                let node = self.nodes.get_mut(id).expect("it is there");
                match node.process.as_mut() {
                    Some(process) if bug == Some(Bug::UnsyncedAssignment) => {
                        process.unsynced_assignment = Some(assignment);
                    }
                    _ => node.disk.persist(assignment),
                }
                Ok(())
            }
            Effect::FetchBundle(hash) => {
                self.send(id, Packet::AskBundle(id.clone(), hash));
                Ok(())
            }
            Effect::Film(film) => {
                self.check_film(id, &film)?;
                self.begin_filming(id, film);
                Ok(())
            }
            Effect::StopFilming => {
                self.stop_filming(id);
                Ok(())
            }
            Effect::CloseSegments(failover) => {
                self.sync(id);
                self.close(id, |recording| recording.failover.as_ref() == Some(&failover));
                self.node_input(id, reconcile::Input::Closed(failover))
            }
            Effect::Erase { failover, up_to } => {
                let bug = self.bug;
                let node = self.nodes.get_mut(id).expect("it is there");
                let Some(gone) = node.erase(&failover, up_to, bug) else {
                    self.outcome.spared += 1;
                    let up_to = up_to.unwrap_or_default();
                    return self.node_input(id, reconcile::Input::Spared { failover, up_to });
                };
                self.outcome.erased += gone.len();
                self.check_erase(id, &failover, &gone)?;
                self.watch.erased(&gone);
                self.node_input(id, reconcile::Input::Erased(failover))
            }
            Effect::Keep(failover) => {
                let node = self.nodes.get_mut(id).expect("it is there");
                let kept = node.keep(&failover);
                self.watch.keeps(kept);
                self.node_input(id, reconcile::Input::Kept(failover))
            }
            Effect::EraseAll(erasure) => {
                let node = self.nodes.get_mut(id).expect("it is there");
                if node.disk.erased.insert(erasure.clone()) {
                    let mut gone = std::mem::take(&mut node.disk.archive);
                    gone.append(&mut node.disk.aside);
                    node.disk.expired.clear();
                    self.outcome.erased += gone.len();
                    self.check_erase_all(id, &erasure, gone.into_values())?;
                }
                self.node_input(id, reconcile::Input::ErasedAll(erasure))
            }
            Effect::Conflict(epoch) => {
                self.tell(|| format!("{id} was told two things by epoch {epoch}"));
                Ok(())
            }
            Effect::Report => {
                if let Some(process) = self.process(id) {
                    process.report_due = true;
                }
                Ok(())
            }
        }
    }

    fn begin_filming(&mut self, id: &ServerId, film: reconcile::Film) {
        let Some(process) = self.process(id) else { return };
        let before = process.film.clone();
        let goes_on = |camera: &&Camera| {
            let before = before.iter().filter(|before| before.range == film.range);
            let mut cameras = before.flat_map(|before| &before.cameras);
            cameras.any(|before| before.films_like(camera))
        };
        let kept = film.cameras.iter().filter(goes_on);
        let wanted: Vec<_> = kept.map(|camera| camera.id.clone()).collect();
        process.filming.retain(|camera| wanted.contains(camera));
        // For something else each camera begins another file.
        let cuts = before
            .as_ref()
            .is_some_and(|before| before.failover != film.failover);
        let begins = cuts || before.is_none();
        let gone: Vec<u64> = process
            .open
            .iter()
            .filter(|(camera, _)| cuts || !wanted.contains(camera))
            .map(|(_, number)| *number)
            .collect();
        process.open.retain(|camera, _| !cuts && wanted.contains(camera));
        let failover = film.failover.clone();
        process.film = Some(film);
        if begins && let Some(node) = self.nodes.get_mut(id) {
            node.begins(failover.as_ref());
        }
        self.close(id, |recording| gone.contains(&recording.number));
    }

    fn stop_filming(&mut self, id: &ServerId) {
        self.sync(id);
        let Some(process) = self.process(id) else { return };
        process.film = None;
        process.filming.clear();
        process.open.clear();
        self.close(id, |recording| recording.failover.is_none());
    }

    /// Cameras come, and with faults they go.
    fn camera_turn(&mut self, id: &ServerId) -> Result<(), Violation> {
        let faulty = self.faulty;
        let Some(process) = self.process(id) else {
            return Ok(());
        };
        let Some(film) = process.film.clone() else {
            return Ok(());
        };
        for camera in film.cameras {
            let films = self
                .process(id)
                .is_some_and(|process| process.filming.contains(&camera.id));
            let reached = !self.nodes[id].no_cameras;
            if !reached && films || reached && !films && self.is_held_elsewhere(id, &camera) {
                let fault = match reached {
                    true => CameraFault::HeldElsewhere,
                    false => CameraFault::Unreachable,
                };
                self.lose_camera(id, &camera, fault)?;
                continue;
            }
            let lost = films && faulty && self.chance(0.01) && self.strikes(Fault::CameraLost, Some(id));
            let status = if lost {
                CameraStatus::Lost {
                    fault: CameraFault::Unreachable,
                    detail: "no answer".to_owned(),
                }
            } else if !films && reached && self.chance(0.6) {
                match film.range {
                    Range::Full => CameraStatus::Recording,
                    Range::LiveOnly => CameraStatus::LiveOnly,
                }
            } else {
                continue;
            };
            let Some(process) = self.process(id) else {
                return Ok(());
            };
            if status.films() {
                process.filming.insert(camera.id.clone());
            } else {
                process.filming.remove(&camera.id);
            }
            self.node_input(id, reconcile::Input::Camera(camera.id, status))?;
        }
        Ok(())
    }

    /// Whether a camera that allows one session is with another server.
    fn is_held_elsewhere(&mut self, id: &ServerId, camera: &Camera) -> bool {
        if camera.max_sessions != Some(1) {
            return false;
        }
        let films = |node: &&Node| {
            let process = node.process.as_ref();
            node.id != *id && process.is_some_and(|process| process.filming.contains(&camera.id))
        };
        let held = self.nodes.values().any(|node| films(&node));
        if held {
            self.visit(Fault::OneSession, Some(id));
        }
        held
    }

    fn lose_camera(&mut self, id: &ServerId, camera: &Camera, fault: CameraFault) -> Result<(), Violation> {
        if let Some(process) = self.process(id) {
            process.filming.remove(&camera.id);
        }
        let status = CameraStatus::Lost {
            fault,
            detail: "no session".to_owned(),
        };
        self.node_input(id, reconcile::Input::Camera(camera.id.clone(), status))
    }

    /// A frame of each camera that is filmed.
    fn film(&mut self, id: &ServerId) {
        let Some(film) = self.process(id).and_then(|process| process.film.clone()) else {
            return;
        };
        if film.range == Range::LiveOnly || self.nodes[id].disk_fault || self.nodes[id].disk_full {
            return;
        }
        let filming = self
            .process(id)
            .map(|process| process.filming.clone())
            .unwrap_or_default();
        for camera in filming {
            self.next_recording += 1;
            let fresh = self.next_recording;
            let damaged = film.failover.is_some()
                && self.faulty
                && self.chance(0.01)
                && self.begins_file(id, &camera)
                && self.strikes(Fault::DamagedFile, Some(id));
            let node = self.nodes.get_mut(id).expect("it is there");
            let Some(process) = node.process.as_mut() else {
                return;
            };
            let number = *process.open.entry(camera.clone()).or_insert(fresh);
            let recording = node.disk.archive.entry(number).or_insert_with(|| Recording {
                number,
                camera: camera.clone(),
                recorded_by: id.clone(),
                failover: film.failover.clone(),
                frames: 0,
                synced: 0,
                closed: false,
                damaged,
            });
            recording.frames += 1;
            if recording.frames >= FRAMES_PER_FILE {
                recording.synced = recording.frames;
                recording.closed = true;
                process.open.remove(&camera);
                let done = recording.clone();
                self.watch.synced(&done);
            }
        }
        if self.chance(0.3) {
            self.sync(id);
        }
    }

    /// Whether the next frame of a camera is the first of a file.
    fn begins_file(&self, id: &ServerId, camera: &CameraId) -> bool {
        let process = self.nodes[id].process.as_ref();
        process.is_some_and(|process| !process.open.contains_key(camera))
    }

    fn sync(&mut self, id: &ServerId) {
        let node = self.nodes.get_mut(id).expect("it is there");
        for (number, _) in node.sync() {
            self.watch.synced(&node.disk.archive[&number]);
        }
    }

    fn close(&mut self, id: &ServerId, which: impl Fn(&Recording) -> bool) {
        self.sync(id);
        let node = self.nodes.get_mut(id).expect("it is there");
        for recording in node
            .disk
            .archive
            .values_mut()
            .filter(|recording| which(recording))
        {
            recording.closed = true;
        }
    }

    fn report(&mut self, id: &ServerId) {
        let domain = self.nodes[id].domain.clone();
        let old_version = self.nodes[id].old_version;
        let Some(process) = self.process(id).filter(|process| process.todo.is_empty()) else {
            return;
        };
        if !std::mem::take(&mut process.report_due) {
            return;
        }
        process.sequence += 1;
        let (incarnation, sequence) = (process.incarnation.clone(), process.sequence);
        let mut report = process.reconciler.report(domain, incarnation, sequence, None);
        if old_version {
            report.bundles.clear();
            report.conflict = None;
            report.outlived = None;
            self.visit(Fault::OldVersion, Some(id));
        }
        self.watch.reported(&report);
        self.send(id, Packet::Report(report));
    }
}
