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
    // Of those that are switched on, how many film and how many could stand in.
    let mut usable: BTreeMap<DomainId, (usize, usize)> = BTreeMap::new();
    for server in servers {
        let (recording, failover) = usable.entry(server.domain.clone()).or_default();
        match server.mode {
            Mode::Recording if server.enabled => *recording += 1,
            Mode::Failover if server.enabled => *failover += 1,
            _ => {}
        }
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
        let (recording, failover) = usable.get(&view.id).copied().unwrap_or_default();
        if recording > 0 && failover == 0 {
            let off = match view.failover_servers.is_empty() {
                true => "",
                false => " that is switched on",
            };
            view.gaps.push(format!(
                "domain {} has {recording} recording server(s) and no failover server{off}",
                view.id
            ));
        }
    }
    domains.into_values().collect()
}
