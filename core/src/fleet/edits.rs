//! Changes to servers, pairings, policies and cameras: checked first, then kept and sent where they belong.
//!
//! While a failover server stands in, changes of the recording server's settings hold for that server and until the
//! failover's end ([`super::overlay`]). What would interrupt the failover has to be confirmed ([`super::confirm`]).

use std::collections::BTreeSet;

use super::{Effect, Fleet, Member, Record, RecordKey, overlay::in_device};
use crate::{
    camera::{Camera, Credentials},
    contract::{
        api::{CameraEdit, Problem},
        rpc::{Answer, OrchestratorReply as Reply},
    },
    failover::{Holding, overlay::Overlay},
    ids::{CameraId, ServerId},
    policy::{Pairing, Policy},
    server::{Mode, Server},
    time::Moment,
};

impl Fleet {
    pub(super) fn add_server(&mut self, server: Server, now: Moment) -> Answer<Reply> {
        check_server(&server)?;
        if let Some(known) = self.members.get(&server.id) {
            if known.server != server {
                return Err(Problem::conflict(format!(
                    "there is a server {} already, with other data: edit it, or choose another id",
                    server.id
                )));
            }
        } else {
            self.enrol(server.clone(), now);
        }
        let view = self.server_view(&server.id, now);
        Ok(view.map_or(Reply::Done, |view| Reply::Server(Box::new(view))))
    }

    fn enrol(&mut self, server: Server, now: Moment) {
        let id = server.id.clone();
        self.take_back(&id);
        self.save(Record::Server(server.clone()));
        let mode = server.mode;
        if mode == Mode::Failover {
            self.stand_ins.insert(id.clone());
        }
        self.members.insert(id.clone(), Member::new(server, false));
        self.touched.insert(id.clone());
        self.renew_settings_of(std::slice::from_ref(&id));
        match mode {
            Mode::Recording => self.stage_settings_of(&id, now),
            // Whoever is paired with all failover servers is paired with this one too.
            Mode::Failover => self.stage_for_those_paired_with_all(now),
            Mode::Host | Mode::Inactive => {}
        }
    }

    pub(super) fn stage_for_those_paired_with_all(&mut self, now: Moment) {
        let everybody: Vec<ServerId> = self
            .protections
            .iter()
            .filter(|(_, protection)| protection.pairing == Pairing::All)
            .map(|(server, _)| server.clone())
            .collect();
        for server in everybody {
            self.stage_settings_of(&server, now);
        }
    }

    pub(super) fn remove_server(&mut self, id: &ServerId, now: Moment) -> Answer<Reply> {
        if !self.members.contains_key(id) {
            return Err(Problem::not_found("server", id));
        }
        self.interrupt_failover_of(id, now)?;
        let owned: Vec<CameraId> = self.cameras_of(id).map(|camera| camera.id.clone()).collect();
        for camera in &owned {
            self.cameras.remove(camera);
            self.delete("camera", camera.as_str());
        }
        self.part_with(id, None, now);
        Ok(Reply::Done)
    }

    /// A removed failover server's copies are nobody's business any more.
    pub(super) fn forget_holder(&mut self, id: &ServerId) {
        let erasing: Vec<_> = self
            .unsettled_failovers()
            .filter(|failover| matches!(failover.holding(id), Some(Holding::Erases | Holding::Keeps)))
            .cloned()
            .collect();
        for mut failover in erasing {
            for holder in failover.holders.iter_mut().filter(|holder| holder.server == *id) {
                holder.holding = Holding::Done;
            }
            self.keep(failover);
        }
    }

    pub(super) fn unpair(&mut self, id: &ServerId) {
        let mut changed = Vec::new();
        for (server, protection) in &mut self.protections {
            if let Pairing::Servers(servers) = &mut protection.pairing
                && servers.remove(id)
            {
                changed.push(Record::Protection(server.clone(), protection.clone()));
            }
        }
        for record in changed {
            self.save(record);
        }
    }

    pub(super) fn delete(&mut self, kind: &str, id: &str) {
        self.out.push(Effect::Delete(RecordKey::new(kind, id)));
    }

    pub(super) fn set_pairing(&mut self, server: &ServerId, pairing: Pairing, now: Moment) -> Answer<Reply> {
        self.recording_server(server)?;
        if let Pairing::Servers(chosen) = &pairing {
            for id in chosen {
                let member = self.members.get(id);
                let member = member.ok_or_else(|| Problem::not_found("server", id))?;
                if member.server.mode != Mode::Failover {
                    return Err(Problem::invalid(format!("{id} is no failover server")));
                }
            }
        }
        let mut protection = self.protections.get(server).cloned().unwrap_or_default();
        if protection.pairing != pairing {
            if self.is_busy(server).is_some() {
                self.interrupt_failover_of(server, now)?;
            }
            protection.pairing = pairing;
            self.protections.insert(server.clone(), protection.clone());
            self.save(Record::Protection(server.clone(), protection.clone()));
            self.stage_settings_of(server, now);
        }
        Ok(Reply::Protection(protection))
    }

    pub(super) fn set_policy(&mut self, server: &ServerId, policy: Policy, now: Moment) -> Answer<Reply> {
        self.recording_server(server)?;
        policy
            .validate()
            .map_err(|error| Problem::invalid(error.to_string()))?;
        let mut protection = self.protections.get(server).cloned().unwrap_or_default();
        if protection.policy != policy {
            if self.is_busy(server).is_some() {
                self.interrupt_failover_of(server, now)?;
            }
            if let Some(mut waiting) = self.failover_of(server).cloned() {
                waiting.take_policy(&policy);
                self.keep(waiting);
            }
            protection.policy = policy;
            self.protections.insert(server.clone(), protection.clone());
            self.save(Record::Protection(server.clone(), protection.clone()));
        }
        Ok(Reply::Protection(protection))
    }

    pub(super) fn add_cameras(&mut self, cameras: Vec<Camera>, now: Moment) -> Answer<Reply> {
        let mut ids = BTreeSet::new();
        for camera in &cameras {
            if !ids.insert(&camera.id) {
                return Err(Problem::invalid(format!("camera {} is named twice", camera.id)));
            }
            self.check_camera(camera)?;
            check_password(&camera.id, camera.credentials.as_ref())?;
            if self.is_taken(camera) {
                return Err(Problem::conflict(format!(
                    "there is a camera {} already, with other settings: edit it, or choose another id",
                    camera.id
                )));
            }
        }
        let ids: Vec<CameraId> = cameras.iter().map(|camera| camera.id.clone()).collect();
        let new: Vec<Camera> = cameras
            .into_iter()
            .filter(|camera| self.camera_now(&camera.id).is_none())
            .collect();
        let mut changed = BTreeSet::new();
        for camera in new {
            let server = camera.server.clone();
            let added = camera.clone();
            if !self.in_overlay(&server, |overlay| overlay.add(added)) {
                self.supersede_in_overlay(&server, &camera.id, None);
                self.save(Record::Camera(camera.clone()));
                self.cameras.insert(camera.id.clone(), camera);
                changed.insert(server);
            }
        }
        self.settings_changed(changed, now);
        Ok(Reply::Cameras(
            ids.iter().filter_map(|id| self.camera_view(id)).collect(),
        ))
    }

    pub(super) fn edit_camera(&mut self, id: &CameraId, edit: CameraEdit, now: Moment) -> Answer<Reply> {
        let known = self
            .camera_now(id)
            .ok_or_else(|| Problem::not_found("camera", id))?;
        let edit_as_asked = edit.clone();
        let mut camera = known.clone();
        camera.name = edit.name.unwrap_or(camera.name);
        camera.url = edit.url.unwrap_or(camera.url);
        camera.credentials = edit_credentials(id, camera.credentials, edit.credentials)?;
        camera.recording = edit.recording.unwrap_or(camera.recording);
        camera.transport = edit.transport.unwrap_or(camera.transport);
        camera.retention = edit.retention.unwrap_or(camera.retention);
        camera.priority = edit.priority.unwrap_or(camera.priority);
        camera.max_sessions = match edit.max_sessions {
            Some(most) => (most > 0).then_some(most),
            None => camera.max_sessions,
        };
        camera.enabled = edit.enabled.unwrap_or(camera.enabled);
        self.check_camera(&camera)?;
        let in_device = in_device(&known, &camera, &edit_as_asked)?;
        if known != camera {
            let server = camera.server.clone();
            let for_good = self.set_sessions(&camera);
            let own = self.cameras.get(id).cloned();
            let edited = camera.clone();
            let change = |overlay: &mut Overlay| overlay.edit(own.as_ref(), edited, &in_device);
            if !self.in_overlay(&server, change) {
                self.supersede_in_overlay(&server, id, Some(&known.differing_fields(&camera)));
                self.save(Record::Camera(camera.clone()));
                self.cameras.insert(id.clone(), camera);
                self.settings_changed([server].into(), now);
            } else if for_good {
                self.settings_changed([server].into(), now);
            }
        }
        Ok(Reply::Cameras(self.camera_view(id).into_iter().collect()))
    }

    pub(super) fn remove_camera(&mut self, id: &CameraId, now: Moment) -> Answer<Reply> {
        let server = match self.camera_now(id) {
            Some(camera) => camera.server,
            None => return Err(Problem::not_found("camera", id)),
        };
        let own = self.cameras.contains_key(id);
        if !self.in_overlay(&server, |overlay| overlay.remove(id, own)) {
            self.cameras.remove(id);
            self.delete("camera", id.as_str());
            self.settings_changed([server].into(), now);
        }
        Ok(Reply::Done)
    }

    pub(super) fn settings_changed(&mut self, servers: BTreeSet<ServerId>, now: Moment) {
        let servers: Vec<ServerId> = servers.into_iter().collect();
        self.renew_settings_of(&servers);
        for server in &servers {
            self.restore_to_new_settings(server);
            self.stage_settings_of(server, now);
        }
        self.touched.extend(servers);
    }

    fn check_camera(&self, camera: &Camera) -> Result<(), Problem> {
        self.recording_server(&camera.server)?;
        let wrong = |what: &str| Err(Problem::invalid(format!("camera {}: {what}", camera.id)));
        if camera.name.trim().is_empty() {
            return wrong("its name is empty");
        }
        let Some(rest) = ["rtsp://", "rtsps://"]
            .iter()
            .find_map(|scheme| camera.url.strip_prefix(scheme))
        else {
            return wrong("its address has to begin with rtsp:// or rtsps://");
        };
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        if authority.contains('@') {
            return wrong("its address must not contain a user name or password: give them as credentials");
        }
        if authority.is_empty() || camera.url.contains(char::is_whitespace) {
            return wrong("its address names no host, or has a space in it");
        }
        if camera.max_sessions == Some(0) {
            return wrong("a camera that allows no session can't be filmed");
        }
        Ok(())
    }

    pub(super) fn cameras_of(&self, server: &ServerId) -> impl Iterator<Item = &Camera> {
        self.settings
            .get(server)
            .into_iter()
            .flat_map(|settings| &settings.bundle.cameras)
    }
}

/// A password is never shown, so that whoever sends back what is shown sends none: the known one stays.
/// Neither user nor password means that the camera asks for none.
fn edit_credentials(
    id: &CameraId,
    known: Option<Credentials>,
    edit: Option<Credentials>,
) -> Result<Option<Credentials>, Problem> {
    let Some(mut credentials) = edit else {
        return Ok(known);
    };
    if credentials.username.is_empty() && credentials.password.is_empty() {
        return Ok(None);
    }
    if credentials.password.is_empty()
        && let Some(known) = known
    {
        credentials.password = known.password;
    }
    check_password(id, Some(&credentials))?;
    Ok(Some(credentials))
}

fn check_password(id: &CameraId, credentials: Option<&Credentials>) -> Result<(), Problem> {
    match credentials {
        Some(credentials) if credentials.password.is_empty() && !credentials.username.is_empty() => {
            Err(Problem::invalid(format!(
                "camera {id}: its credentials name a user, but no password: give both, or leave the credentials out"
            )))
        }
        _ => Ok(()),
    }
}

pub(super) fn check_server(server: &Server) -> Result<(), Problem> {
    let wrong = |what: &str| Err(Problem::invalid(format!("server {}: {what}", server.id)));
    let films = matches!(server.mode, Mode::Recording | Mode::Failover);
    if server.name.trim().is_empty() {
        return wrong("its name is empty");
    }
    if films && server.max_cameras == 0 {
        return wrong("a server that can run no camera is of no use: give its maximum of cameras");
    }
    let http = ["http://", "https://"]
        .iter()
        .any(|scheme| server.sync_address.starts_with(scheme));
    if films && !http {
        return wrong("the address of its sync service has to begin with http:// or https://");
    }
    Ok(())
}
