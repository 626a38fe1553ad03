//! Servers in maintenance: no failover of them begins by itself, and none of them is chosen to stand in.

use super::{Fleet, Record};
use crate::{
    contract::{
        api::{MaintenanceOrder, Problem},
        event::Event,
        rpc::{Answer, OrchestratorReply as Reply},
    },
    ids::ServerId,
    maintenance::{Maintenance, Ongoing},
    server::Mode,
    time::Moment,
};

impl Fleet {
    /// A person begins a server's maintenance, or gives one that goes on another end.
    pub(super) fn begin_maintenance(
        &mut self,
        server: &ServerId,
        order: MaintenanceOrder,
        by: String,
        now: Moment,
    ) -> Answer<Reply> {
        let member = self.members.get(server);
        let member = member.ok_or_else(|| Problem::not_found("server", server))?;
        if !matches!(member.server.mode, Mode::Recording | Mode::Failover) {
            return Err(Problem::invalid(format!(
                "{server} is neither a recording nor a failover server: maintenance means nothing for it"
            )));
        }
        let order = Maintenance::order(order, by, now)?;
        self.save(Record::Maintenance(server.clone(), order.clone()));
        let event = Event::ServerMaintenanceBegun {
            server: server.clone(),
            until: order.until,
            why: order.why.clone(),
            by: order.by.clone(),
        };
        let mut ongoing = Ongoing::new(order);
        ongoing.is_over(now);
        self.maintenance.insert(server.clone(), ongoing);
        self.emit(server, event, now);
        Ok(self.shown(server, now))
    }

    /// A person ends it early. Where none goes on, nothing is to be done.
    pub(super) fn end_maintenance(&mut self, server: &ServerId, by: &str, now: Moment) -> Answer<Reply> {
        if !self.members.contains_key(server) {
            return Err(Problem::not_found("server", server));
        }
        if self.maintenance.contains_key(server) {
            self.maintenance_is_over(server, format!("ended by {by}"), now);
        }
        Ok(self.shown(server, now))
    }

    /// Ends those whose time is over.
    pub(super) fn end_due_maintenance(&mut self, now: Moment) {
        let ongoing = self.maintenance.iter_mut();
        let over: Vec<ServerId> = ongoing
            .filter_map(|(server, ongoing)| ongoing.is_over(now).then(|| server.clone()))
            .collect();
        for server in over {
            self.maintenance_is_over(&server, "its time is over".to_owned(), now);
        }
    }

    fn maintenance_is_over(&mut self, server: &ServerId, why: String, now: Moment) {
        self.maintenance.remove(server);
        self.delete("maintenance", server.as_str());
        if let Some(member) = self.members.get_mut(server) {
            member.trigger.excuse(now.monotonic);
        }
        let event = Event::ServerMaintenanceEnded {
            server: server.clone(),
            why,
        };
        self.emit(server, event, now);
    }

    /// The maintenance of a server, while it lasts.
    pub(super) fn maintenance_of(&self, server: &ServerId) -> Option<&Maintenance> {
        self.maintenance.get(server).map(|ongoing| &ongoing.order)
    }

    fn shown(&self, server: &ServerId, now: Moment) -> Reply {
        let view = self.server_view(server, now);
        view.map_or(Reply::Done, |view| Reply::Server(Box::new(view)))
    }
}
