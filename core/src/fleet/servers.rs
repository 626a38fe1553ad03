//! Changes to an enrolled server: its name, where it is reached, how much it can run, and whether it takes part.

use super::{Fleet, Record};
use crate::{
    contract::{
        api::{Problem, ServerEdit},
        rpc::{Answer, OrchestratorReply as Reply},
    },
    ids::{FailoverId, ServerId},
    server::{Mode, Server},
    time::Moment,
};

impl Fleet {
    pub(super) fn edit_server(
        &mut self,
        id: &ServerId,
        edit: ServerEdit,
        fresh: &FailoverId,
        now: Moment,
    ) -> Answer<Reply> {
        let known = self.members.get(id).map(|member| member.server.clone());
        let known = known.ok_or_else(|| Problem::not_found("server", id))?;
        let asks_for_name = edit.name.is_some();
        let mut server = Server {
            name: edit.name.unwrap_or_else(|| known.name.clone()),
            max_cameras: edit.max_cameras.unwrap_or(known.max_cameras),
            sync_address: edit.sync_address.unwrap_or_else(|| known.sync_address.clone()),
            enabled: edit.enabled.unwrap_or(known.enabled),
            mode: edit.mode.unwrap_or(known.mode),
            ..known.clone()
        };
        super::edits::check_server(&server)?;
        if server.mode != known.mode {
            self.leave_mode(&known, server.mode, fresh, now)?;
        } else if known.enabled && !server.enabled {
            self.switch_off(&known, now)?;
        }
        // The name is a part of the settings, which a failover restores in the end (G6).
        let (named, own) = (server.name.clone(), known.name.clone());
        let asks_for_name = asks_for_name && self.name_now(id).as_ref() != Some(&named);
        if asks_for_name
            && self.in_overlay(id, |overlay| {
                overlay.name = Some(named).filter(|name| *name != own)
            })
        {
            server.name.clone_from(&known.name);
        }
        if server != known {
            let renamed = server.name != known.name;
            self.save(Record::Server(server.clone()));
            if let Some(member) = self.members.get_mut(id) {
                member.server = server;
            }
            self.touched.insert(id.clone());
            self.enter_mode(id, known.mode, now);
            if renamed {
                self.settings_changed([id.clone()].into(), now);
            }
        }
        let view = self.server_view(id, now);
        Ok(view.map_or(Reply::Done, |view| Reply::Server(Box::new(view))))
    }

    /// A server that is switched off takes no part: it films nothing, and is neither protected nor a stand-in.
    fn switch_off(&mut self, server: &Server, now: Moment) -> Result<(), Problem> {
        if self.failover_with(&server.id).is_some() {
            return self.interrupt_failover_of(&server.id, now);
        }
        let cameras = self
            .cameras_of(&server.id)
            .filter(|camera| camera.enabled)
            .count();
        if server.mode == Mode::Recording && cameras > 0 {
            let lose = format!(
                "{} films {cameras} camera(s): switched off it films none of them, and is not protected",
                server.id
            );
            self.confirmed(&(&server.id, cameras), lose)?;
        }
        Ok(())
    }
}
