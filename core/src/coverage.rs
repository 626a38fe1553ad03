//! Where the fleet's protection has gaps that can be seen before anything fails.
//!
//! Only what follows from how servers are enrolled and paired; who is up at the moment is not asked here.

use std::collections::BTreeMap;

use crate::{
    contract::api::DomainView,
    ids::DomainId,
    server::{Mode, Server},
};

/// Each domain with its servers and what is missing in it (A8).
#[must_use]
pub fn domains<'a>(servers: impl IntoIterator<Item = &'a Server>) -> Vec<DomainView> {
    let mut domains: BTreeMap<DomainId, DomainView> = BTreeMap::new();
    for server in servers {
        let view = domains
            .entry(server.domain.clone())
            .or_insert_with(|| DomainView {
                id: server.domain.clone(),
                recording_servers: Vec::new(),
                failover_servers: Vec::new(),
                gaps: Vec::new(),
            });
        match server.mode {
            Mode::Recording => view.recording_servers.push(server.id.clone()),
            Mode::Failover => view.failover_servers.push(server.id.clone()),
            Mode::Host | Mode::Inactive => {}
        }
    }
    for view in domains.values_mut() {
        if !view.recording_servers.is_empty() && view.failover_servers.is_empty() {
            view.gaps.push(format!(
                "domain {} has {} recording server(s) and no failover server",
                view.id,
                view.recording_servers.len()
            ));
        }
    }
    domains.into_values().collect()
}
