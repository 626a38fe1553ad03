//! The table of what can be asked for: one line for each method of each path.
//!
//! It is data, so that a path that is not there (404) and a method that it does not have (405, with `Allow`)
//! are told apart, and so that a test can hold the OpenAPI document against it.

use std::collections::BTreeMap;

use warp::http::Method;

/// Where all paths begin.
pub(crate) const BASE: &str = "/api/v1";

/// One thing that can be asked for. Named as in the OpenAPI document (`operationId`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    ListDomains,
    ListServers,
    AddServer,
    GetServer,
    PutServer,
    EditServer,
    RemoveServer,
    EraseServer,
    BeginMaintenance,
    EndMaintenance,
    GetPairing,
    SetPairing,
    GetPolicy,
    SetPolicy,
    StartFailover,
    StopFailover,
    GetReplacement,
    ReplaceServer,
    ListFailovers,
    GetFailover,
    StopRestoration,
    AnswerOffers,
    ListCameras,
    AddCameras,
    GetCamera,
    EditCamera,
    RemoveCamera,
    TakeSnapshot,
    ListSnapshots,
    GetSnapshot,
    ListLicenses,
    ListLicenseHistory,
    AddLicense,
    RemoveLicense,
    ListDeadLetters,
    GetDeadLetter,
    ReplayDeadLetter,
    DropDeadLetter,
    FollowEvents,
    OpenApi,
}

/// A line of the table.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    pub(crate) method: Method,
    /// Below [`BASE`], parameters in braces, as in OpenAPI.
    pub(crate) path: &'static str,
    pub(crate) operation: Operation,
}

/// All lines.
pub(crate) fn table() -> Vec<Route> {
    use Operation as Op;
    let line = |method, path, operation| Route {
        method,
        path,
        operation,
    };
    vec![
        line(Method::GET, "/domains", Op::ListDomains),
        line(Method::GET, "/servers", Op::ListServers),
        line(Method::POST, "/servers", Op::AddServer),
        line(Method::GET, "/servers/{server}", Op::GetServer),
        line(Method::PUT, "/servers/{server}", Op::PutServer),
        line(Method::PATCH, "/servers/{server}", Op::EditServer),
        line(Method::DELETE, "/servers/{server}", Op::RemoveServer),
        line(Method::POST, "/servers/{server}/erase", Op::EraseServer),
        line(Method::PUT, "/servers/{server}/maintenance", Op::BeginMaintenance),
        line(
            Method::POST,
            "/servers/{server}/maintenance/end",
            Op::EndMaintenance,
        ),
        line(Method::GET, "/servers/{server}/pairings", Op::GetPairing),
        line(Method::PUT, "/servers/{server}/pairings", Op::SetPairing),
        line(Method::GET, "/servers/{server}/failover-policy", Op::GetPolicy),
        line(Method::PUT, "/servers/{server}/failover-policy", Op::SetPolicy),
        line(Method::POST, "/servers/{server}/failover", Op::StartFailover),
        line(Method::POST, "/servers/{server}/failover/stop", Op::StopFailover),
        line(Method::GET, "/servers/{server}/replacement", Op::GetReplacement),
        line(Method::POST, "/servers/{server}/replacement", Op::ReplaceServer),
        line(Method::GET, "/failovers", Op::ListFailovers),
        line(Method::GET, "/failovers/{failover}", Op::GetFailover),
        line(
            Method::POST,
            "/failovers/{failover}/restoration/stop",
            Op::StopRestoration,
        ),
        line(Method::POST, "/failovers/{failover}/overlay", Op::AnswerOffers),
        line(Method::GET, "/cameras", Op::ListCameras),
        line(Method::POST, "/cameras", Op::AddCameras),
        line(Method::GET, "/cameras/{camera}", Op::GetCamera),
        line(Method::PATCH, "/cameras/{camera}", Op::EditCamera),
        line(Method::DELETE, "/cameras/{camera}", Op::RemoveCamera),
        line(Method::POST, "/cameras/{camera}/snapshots", Op::TakeSnapshot),
        line(Method::GET, "/cameras/{camera}/snapshots", Op::ListSnapshots),
        line(
            Method::GET,
            "/cameras/{camera}/snapshots/{snapshot}",
            Op::GetSnapshot,
        ),
        line(Method::GET, "/licenses", Op::ListLicenses),
        line(Method::GET, "/license-history", Op::ListLicenseHistory),
        line(Method::POST, "/licenses", Op::AddLicense),
        line(Method::DELETE, "/licenses/{license}", Op::RemoveLicense),
        line(Method::GET, "/dead-letters", Op::ListDeadLetters),
        line(Method::GET, "/dead-letters/{letter}", Op::GetDeadLetter),
        line(Method::DELETE, "/dead-letters/{letter}", Op::DropDeadLetter),
        line(
            Method::POST,
            "/dead-letters/{letter}/replay",
            Op::ReplayDeadLetter,
        ),
        line(Method::GET, "/events", Op::FollowEvents),
        line(Method::GET, "/openapi.json", Op::OpenApi),
    ]
}

/// Finds the line for a request.
pub(crate) struct Router {
    paths: matchit::Router<Vec<(Method, Operation)>>,
}

/// What a request asks for.
pub(crate) enum Found {
    /// This, with the parameters from its path.
    Operation(Operation, Vec<(String, String)>),
    /// Something that the path can't do; it can do these.
    Methods(Vec<Method>),
    /// There is no such path.
    Nothing,
}

impl Router {
    /// The table, ready to be searched.
    pub(crate) fn new() -> Self {
        let mut lines: BTreeMap<&str, Vec<(Method, Operation)>> = BTreeMap::new();
        for route in table() {
            lines
                .entry(route.path)
                .or_default()
                .push((route.method, route.operation));
        }
        let mut paths = matchit::Router::new();
        for (path, methods) in lines {
            paths
                .insert(format!("{BASE}{path}"), methods)
                .expect("the table's paths don't conflict");
        }
        Self { paths }
    }

    /// What a request for `path` by `method` asks for. `HEAD` asks for the same as `GET`.
    pub(crate) fn find(&self, method: &Method, path: &str) -> Found {
        let Ok(found) = self.paths.at(path) else {
            return Found::Nothing;
        };
        let wanted = if method == Method::HEAD {
            &Method::GET
        } else {
            method
        };
        match found.value.iter().find(|(offered, _)| offered == wanted) {
            Some((_, operation)) => {
                let parameters = found
                    .params
                    .iter()
                    .map(|(key, value)| (key.to_owned(), value.to_owned()));
                Found::Operation(*operation, parameters.collect())
            }
            None => Found::Methods(found.value.iter().map(|(offered, _)| offered.clone()).collect()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_table_is_found() {
        let router = Router::new();
        for route in table() {
            let path = format!("{BASE}{}", route.path.replace(['{', '}'], ""));
            match router.find(&route.method, &path) {
                Found::Operation(operation, _) => assert_eq!(operation, route.operation, "{path}"),
                _ => panic!("{} {path} is not found", route.method),
            }
        }
    }

    #[test]
    fn a_path_without_the_method_names_those_that_it_has() {
        let router = Router::new();
        match router.find(&Method::DELETE, "/api/v1/servers") {
            Found::Methods(methods) => assert_eq!(methods, [Method::GET, Method::POST]),
            _ => panic!("servers as a whole can't be deleted"),
        }
        assert!(matches!(
            router.find(&Method::GET, "/api/v2/servers"),
            Found::Nothing
        ));
    }
}
