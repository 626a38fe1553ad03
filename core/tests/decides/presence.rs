//! Which servers are alive, and when the host can't tell.

use std::time::Duration;

use understudy_core::{
    contract::heartbeat::{Heartbeat, Package, Storage},
    ids::DomainId,
    presence::{Path, Presence, Seen, Transition},
    time::{Moment, Monotonic, Timestamp},
};

use crate::rig::server_id;

struct Table {
    presence: Presence,
    now: Duration,
}

impl Table {
    fn new() -> Self {
        let mut table = Self {
            presence: Presence::new(),
            now: Duration::ZERO,
        };
        table.presence.broker(None, table.moment());
        table
    }

    fn moment(&self) -> Moment {
        Moment {
            monotonic: Monotonic(self.now),
            wall: Timestamp(0),
        }
    }

    fn beat(&mut self, path: Path, server: &str) -> Vec<Seen> {
        let beat = Heartbeat {
            server: server_id(server),
            domain: DomainId::new("east").expect("an id"),
            sequence: 0,
            sent_at: Timestamp(0),
            interval_ms: 250,
            package: Package::default(),
            storage: Storage::default(),
        };
        self.presence.beat(path, beat, self.moment())
    }

    /// Time passes while these servers beat on these paths.
    fn pass(&mut self, millis: u64, beating: &[(Path, &str)]) -> Vec<Seen> {
        let mut seen = Vec::new();
        for _ in 0..millis / 50 {
            self.now += Duration::from_millis(50);
            if self.now.as_millis().is_multiple_of(250) {
                for (path, server) in beating {
                    seen.extend(self.beat(*path, server));
                }
            }
            seen.extend(self.presence.tick(self.moment()));
        }
        seen
    }
}

fn transitions(seen: &[Seen], server: &str) -> Vec<Transition> {
    seen.iter()
        .filter(|seen| seen.observation.server == server_id(server))
        .flat_map(|seen| seen.transitions.clone())
        .collect()
}

const BOTH: [(Path, &str); 2] = [(Path::Broker, "a"), (Path::Direct, "a")];

#[test]
fn silence_is_seen_at_once_and_measured_from_the_last_beat() {
    let mut table = Table::new();
    table.pass(
        2000,
        &[(Path::Broker, "a"), (Path::Broker, "b"), (Path::Broker, "c")],
    );
    let seen = table.pass(1000, &[(Path::Broker, "b"), (Path::Broker, "c")]);
    assert_eq!(transitions(&seen, "a"), [Transition::Vanished]);
    let first = seen
        .iter()
        .find(|seen| !seen.transitions.is_empty())
        .expect("it vanished");
    assert!(
        (500..=800).contains(&first.observation.silent_ms),
        "{}",
        first.observation.silent_ms
    );
    assert!(!first.observation.blind);
    assert!(!first.observation.evidence.is_empty());
}

#[test]
fn any_path_alive_is_no_disconnection() {
    let mut table = Table::new();
    table.pass(2000, &BOTH);
    let seen = table.pass(3000, &[(Path::Direct, "a")]);
    assert_eq!(transitions(&seen, "a"), [Transition::BusDegraded]);
    assert!(seen.iter().all(|seen| seen.observation.silent_ms == 0));
}

#[test]
fn a_host_without_its_broker_and_any_direct_beat_is_blind() {
    let mut table = Table::new();
    table.pass(2000, &BOTH);
    let moment = table.moment();
    table
        .presence
        .broker(Some("connection refused".to_owned()), moment);
    let seen = table.pass(2000, &[(Path::Direct, "a")]);
    assert!(
        seen.iter().all(|seen| !seen.observation.blind),
        "it hears it directly"
    );
    let seen = table.pass(2000, &[]);
    assert!(seen.last().expect("spoken of each second").observation.blind);
    assert!(transitions(&seen, "a").contains(&Transition::Blinded));
}

#[test]
fn all_servers_of_a_domain_gone_at_once_means_that_the_host_is_cut_off() {
    let mut table = Table::new();
    let all = [(Path::Broker, "a"), (Path::Broker, "b"), (Path::Broker, "c")];
    table.pass(2000, &all);
    let seen = table.pass(2000, &[]);
    assert!(seen.last().expect("spoken of each second").observation.blind);

    // One is heard first when the line is back: the others' beats are on their way.
    let seen = table.pass(1000, &[(Path::Broker, "a")]);
    assert!(seen.iter().all(|seen| seen.observation.blind));
    let seen = table.pass(5000, &all);
    assert!(!seen.last().expect("spoken of each second").observation.blind);
}

#[test]
fn c2_one_server_that_is_heard_shows_that_the_silence_of_the_others_is_their_own() {
    let mut table = Table::new();
    let all = [(Path::Broker, "a"), (Path::Broker, "b"), (Path::Broker, "c")];
    table.pass(2000, &all);
    let seen = table.pass(4000, &[(Path::Broker, "c")]);
    assert!(seen.iter().all(|seen| !seen.observation.blind));
}

#[test]
fn servers_that_went_one_after_the_other_died_of_their_own() {
    let mut table = Table::new();
    table.pass(2000, &BOTH);
    table.pass(4000, &[(Path::Broker, "b"), (Path::Direct, "b")]);
    let seen = table.pass(4000, &[]);
    assert!(seen.iter().all(|seen| !seen.observation.blind));
}

#[test]
fn each_server_is_spoken_of_every_second() {
    let mut table = Table::new();
    table.pass(1000, &BOTH);
    let seen = table.pass(5000, &BOTH);
    assert_eq!(seen.len(), 5);
}

#[test]
fn a_removed_server_is_forgotten_and_a_new_one_is_silent_from_now() {
    let mut table = Table::new();
    table.pass(2000, &BOTH);
    let domain = DomainId::new("east").expect("an id");
    let moment = table.moment();
    table.presence.watch([(server_id("b"), domain)], moment);
    let seen = table.pass(2000, &[]);
    assert!(seen.iter().all(|seen| seen.observation.server == server_id("b")));
    let last = &seen.last().expect("spoken of each second").observation;
    assert!((1000..=2000).contains(&last.silent_ms), "{}", last.silent_ms);
}
