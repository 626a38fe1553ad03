//! Which servers are alive, and when the host can't tell.

use std::time::Duration;

use understudy_core::{
    contract::{
        heartbeat::{Ending, Farewell, Heartbeat, Observation, Package, Started, Storage},
        rpc::Looked,
    },
    ids::DomainId,
    presence::{Path, Presence, Seen, Transition},
    time::{Moment, Monotonic, Timestamp},
};

use crate::rig::server_id;

struct Table {
    presence: Presence,
    now: Duration,
}

fn beat_of(server: &str) -> Heartbeat {
    Heartbeat {
        server: server_id(server),
        domain: DomainId::new("east").expect("an id"),
        sequence: 0,
        sent_at: Timestamp(0),
        interval_ms: 250,
        package: Package::default(),
        storage: Storage::default(),
        farewell: None,
        started: None,
    }
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
        self.presence.beat(path, beat_of(server), self.moment())
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

fn last_of(seen: &[Seen], server: &str) -> Observation {
    let of_it = seen
        .iter()
        .rfind(|seen| seen.observation.server == server_id(server));
    of_it.expect("it is spoken of each second").observation.clone()
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
fn c2_a_late_direct_beat_without_the_broker_is_blindness_until_it_comes_and_never_silence() {
    // Given a host that hears its one server directly only, its broker being away.
    let mut table = Table::new();
    table.pass(2000, &BOTH);
    let moment = table.moment();
    let away = Some("connection refused".to_owned());
    table.presence.broker(away, moment);
    let direct = [(Path::Direct, "a")];
    let before = table.pass(2000, &direct);
    assert!(before.iter().all(|seen| !seen.observation.blind), "{before:?}");

    // When its next beats come late: there is no moment of silence that is not also blindness, or a policy of
    // half a second would fail it over; and none of blindness before the silence.
    let late = table.pass(1000, &[]);
    assert!(transitions(&late, "a").contains(&Transition::Blinded), "{late:?}");
    for Seen { observation, .. } in &late {
        assert_eq!(observation.silent_ms > 0, observation.blind, "{observation:?}");
    }

    // Then the first of them ends both at once, and nothing of it stays.
    let moment = table.moment();
    let seen = table.beat(Path::Direct, "a");
    assert!(!last_of(&seen, "a").blind && last_of(&seen, "a").silent_ms == 0);
    table.presence.tick(moment);
    assert!(!table.presence.blindness().is_any());
    table.presence.broker(None, moment);
    table.pass(2000, &BOTH);
    let dead = table.pass(1000, &[(Path::Direct, "b")]);
    let last = last_of(&dead, "a");
    assert!(!last.blind && last.silent_ms > 500, "{last:?}");
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
    assert!(last_of(&seen, "b").blind && last_of(&seen, "c").blind);
    let seen = table.pass(1000, &all);
    assert!(
        seen.iter()
            .all(|seen| !seen.observation.blind || seen.observation.silent_ms > 0)
    );
    assert!(["a", "b", "c"].iter().all(|server| !last_of(&seen, server).blind));
}

#[test]
fn a_domain_of_which_one_is_dead_already_may_still_be_cut_off() {
    let mut table = Table::new();
    table.pass(
        2000,
        &[(Path::Broker, "a"), (Path::Broker, "b"), (Path::Broker, "c")],
    );
    table.pass(60_000, &[(Path::Broker, "b"), (Path::Broker, "c")]);
    let seen = table.pass(2000, &[]);
    assert!(last_of(&seen, "b").blind && last_of(&seen, "c").blind);
}

#[test]
fn silence_from_before_the_host_saw_again_does_not_count_and_each_is_given_time_to_connect() {
    let mut table = Table::new();
    let all = [(Path::Broker, "a"), (Path::Broker, "b")];
    table.pass(2000, &all);
    table.pass(60_000, &[]);
    // a is back at once, b takes as long as its pause between two tries and its connecting last.
    let seen = table.pass(9000, &[(Path::Broker, "a")]);
    assert!(
        seen.iter()
            .filter(|seen| seen.observation.server == server_id("b"))
            .all(|seen| seen.observation.blind)
    );
    let seen = table.pass(1000, &all);
    assert_eq!(
        (last_of(&seen, "b").silent_ms, last_of(&seen, "b").blind),
        (0, false)
    );
    // Whoever was heard since is missed as fast as ever.
    let seen = table.pass(1000, &[(Path::Broker, "a")]);
    assert!(!last_of(&seen, "b").blind);
    assert!(last_of(&seen, "b").silent_ms >= 600);
}

#[test]
fn one_that_does_not_come_back_with_the_others_is_missed_from_the_moment_of_seeing_again() {
    let mut table = Table::new();
    table.pass(2000, &[(Path::Broker, "a"), (Path::Broker, "b")]);
    table.pass(60_000, &[]);
    let seen = table.pass(20_000, &[(Path::Broker, "a")]);
    let first = seen
        .iter()
        .find(|seen| seen.observation.server == server_id("b") && !seen.observation.blind)
        .expect("the host can tell in the end");
    assert!(
        (14_000..=16_000).contains(&first.observation.silent_ms),
        "{}",
        first.observation.silent_ms
    );
}

#[test]
fn k3_a_monitor_that_starts_while_a_domain_is_cut_off_is_blind_until_it_hears_one() {
    let mut table = Table::new();
    let domain = DomainId::new("east").expect("an id");
    let moment = table.moment();
    let enrolled = ["a", "b"].map(|id| (server_id(id), domain.clone()));
    table.presence.watch(enrolled, moment);
    let seen = table.pass(30_000, &[]);
    assert!(seen.iter().all(|seen| seen.observation.blind));

    let seen = table.pass(14_000, &[(Path::Broker, "a")]);
    assert!(!last_of(&seen, "a").blind);
    assert!(last_of(&seen, "b").blind, "it is given time to connect");
    let seen = table.pass(3000, &[(Path::Broker, "a")]);
    assert!(!last_of(&seen, "b").blind, "it is dead, and the others show it");
    assert!(last_of(&seen, "b").silent_ms >= 14_000);
}

#[test]
fn a_lone_server_of_a_domain_is_missed_even_if_another_one_was_never_heard() {
    let mut table = Table::new();
    let domain = DomainId::new("east").expect("an id");
    let moment = table.moment();
    table.presence.watch([(server_id("a"), domain.clone())], moment);
    let seen = table.pass(3000, &[]);
    assert!(last_of(&seen, "a").blind, "it is given time to connect");
    let seen = table.pass(15_000, &[]);
    assert!(!last_of(&seen, "a").blind, "there is no other to go by");
    table.pass(20_000, &BOTH);
    let moment = table.moment();
    table.presence.watch(
        [(server_id("a"), domain.clone()), (server_id("new"), domain)],
        moment,
    );
    table.pass(20_000, &BOTH);
    let seen = table.pass(3000, &[]);
    assert!(!last_of(&seen, "a").blind);
}

#[test]
fn a_server_that_the_broker_alone_leads_to_is_not_missed_while_the_broker_is_down() {
    let mut table = Table::new();
    let all = [(Path::Broker, "a"), (Path::Direct, "a"), (Path::Broker, "b")];
    table.pass(2000, &all);
    let moment = table.moment();
    table
        .presence
        .broker(Some("connection refused".to_owned()), moment);
    let seen = table.pass(10_000, &[(Path::Direct, "a")]);
    assert!(seen.iter().all(|seen| seen.observation.server == server_id("a")
        || seen.observation.blind
        || seen.observation.silent_ms == 0));
    assert!(!last_of(&seen, "a").blind);
    let moment = table.moment();
    table.presence.broker(None, moment);
    let seen = table.pass(8000, &BOTH);
    assert!(last_of(&seen, "b").blind, "it is given time to connect");
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

#[test]
fn k3_a_site_that_boots_in_any_order_with_the_broker_last_misses_nobody() {
    let mut table = Table::new();
    let domain = DomainId::new("east").expect("an id");
    let moment = table.moment();
    let enrolled = ["a", "b", "c"].map(|id| (server_id(id), domain.clone()));
    table.presence.watch(enrolled, moment);
    table
        .presence
        .broker(Some("connection refused".to_owned()), moment);
    let mut seen = table.pass(10_000, &[]);
    // One agent is up and reaches the monitor, the others take their time, and one has no such way.
    seen.extend(table.pass(120_000, &[(Path::Direct, "a")]));
    seen.extend(table.pass(30_000, &[(Path::Direct, "a"), (Path::Direct, "b")]));
    let moment = table.moment();
    table.presence.broker(None, moment);
    seen.extend(table.pass(8000, &[(Path::Broker, "a"), (Path::Broker, "b")]));
    seen.extend(table.pass(
        8000,
        &[(Path::Broker, "a"), (Path::Broker, "b"), (Path::Broker, "c")],
    ));
    let missed = |seen: &&Seen| seen.observation.silent_ms > 0 && !seen.observation.blind;
    assert_eq!(seen.iter().find(missed), None);
}

#[test]
fn k3_a_monitor_that_starts_while_servers_connect_again_gives_each_its_time() {
    let mut table = Table::new();
    let domain = DomainId::new("east").expect("an id");
    let moment = table.moment();
    let enrolled = ["a", "b"].map(|id| (server_id(id), domain.clone()));
    table.presence.watch(enrolled, moment);
    // a is heard before anything could have been concluded.
    table.beat(Path::Broker, "a");
    let seen = table.pass(9000, &[(Path::Broker, "a")]);
    assert!(last_of(&seen, "b").blind && !last_of(&seen, "a").blind);
    // And a is missed if it dies meanwhile, whatever becomes of b.
    let seen = table.pass(3000, &[]);
    assert!(!last_of(&seen, "a").blind);
}

#[test]
fn a_monitor_that_stood_still_itself_misses_nobody_for_it() {
    let mut table = Table::new();
    table.pass(
        2_000,
        &[(Path::Broker, "recorder-1"), (Path::Broker, "recorder-2")],
    );
    // Its process is frozen for a minute, and one of two servers is not heard at once when it goes on.
    table.now += Duration::from_secs(60);
    let seen = table.pass(10_000, &[(Path::Broker, "recorder-2")]);
    let blind = |seen: &&Seen| seen.observation.server == server_id("recorder-1") && !seen.observation.blind;
    let missed = seen
        .iter()
        .filter(blind)
        .find(|seen| seen.observation.silent_ms > 0);
    assert_eq!(missed, None, "nothing follows from its silence yet");
    // Later its silence is its own.
    let seen = table.pass(10_000, &[(Path::Broker, "recorder-2")]);
    assert!(
        seen.iter()
            .filter(blind)
            .any(|seen| seen.observation.silent_ms > 1_000)
    );
}

#[test]
fn c7_what_a_server_said_when_it_went_is_evidence_and_delays_nothing() {
    let mut table = Table::new();
    table.pass(2000, &BOTH);
    let mut last = beat_of("a");
    last.sequence = 9;
    last.farewell = Some(Farewell::Rebooting);
    let moment = table.moment();
    table.presence.beat(Path::Direct, last, moment);
    // One of before comes late: it takes nothing back.
    let mut late = beat_of("a");
    late.sequence = 8;
    table.presence.beat(Path::Broker, late, moment);
    let seen = last_of(&table.pass(2000, &[]), "a");
    assert_eq!(seen.farewell, Some(Farewell::Rebooting));
    assert!(seen.silent_ms > 1_500, "{seen:?}");
    let mut lines = seen.evidence.iter();
    assert!(
        lines.any(|line| line.seen.contains("going down to reboot")),
        "{seen:?}"
    );

    // It is back after its power was cut meanwhile, counting from one.
    let mut first = beat_of("a");
    first.sequence = 1;
    first.started = Some(Started {
        boot: "b".to_owned(),
        before: Some(Ending::CutOff),
    });
    let moment = table.moment();
    let seen = last_of(&table.presence.beat(Path::Direct, first, moment), "a");
    assert_eq!(seen.farewell, None);
    let mut lines = seen.evidence.iter();
    assert!(
        lines.any(|line| line.seen.contains("cut off without a word")),
        "{seen:?}"
    );
}

fn looked(answers: bool, seen: &str) -> Looked {
    Looked {
        answers,
        seen: seen.to_owned(),
    }
}

#[test]
fn c7_what_others_saw_who_looked_for_it_is_evidence_at_once_and_changes_nothing_else() {
    let mut table = Table::new();
    table.pass(2000, &BOTH);
    let moment = table.moment();
    assert!(table.presence.missed(moment).is_empty());
    assert_eq!(
        table
            .presence
            .looked(&server_id("a"), None, looked(true, "there"), moment),
        [],
        "it is heard again: nobody asks any more"
    );
    let before = last_of(&table.pass(1000, &[(Path::Broker, "b")]), "a");
    let moment = table.moment();
    assert_eq!(table.presence.missed(moment), [server_id("a")].into());
    let mut look = |server: &str, by: Option<&str>, seen: &str| {
        let by = by.map(server_id);
        table
            .presence
            .looked(&server_id(server), by.as_ref(), looked(false, seen), moment)
    };
    look("a", None, "no answer");
    let seen = last_of(&look("a", Some("b"), "refused"), "a");
    assert!(seen.silent_ms >= before.silent_ms, "it counts on");
    let lines: Vec<_> = seen.evidence.iter().rev().take(2).collect();
    assert_eq!(
        (lines[1].observer.as_str(), lines[1].seen.as_str()),
        ("monitor", "no answer")
    );
    assert_eq!(
        (lines[0].observer.as_str(), lines[0].seen.as_str()),
        ("b", "refused")
    );
    assert_eq!(look("a", Some("b"), "refused"), [], "the same again is no news");
    assert_eq!(look("nobody", None, "no answer"), []);
}

#[test]
fn a8_c7_failover_servers_of_different_domains_are_asked_first_and_only_those_that_are_heard() {
    let mut table = Table::new();
    let moment = table.moment();
    let enrolled = [
        ("a", "east"),
        ("b", "east"),
        ("c", "east"),
        ("d", "west"),
        ("e", "south"),
        ("f", "north"),
    ];
    let domain = |name: &str| DomainId::new(name).expect("an id");
    table
        .presence
        .watch(enrolled.map(|(id, at)| (server_id(id), domain(at))), moment);
    for (id, at) in enrolled.iter().filter(|(id, _)| *id != "f") {
        let mut beat = beat_of(id);
        beat.domain = domain(at);
        table.presence.beat(Path::Broker, beat, moment);
    }
    let paired = ["a", "b", "c", "d", "e", "f"].map(server_id);
    let asked = table.presence.witnesses(&server_id("a"), &paired, moment);
    assert_eq!(
        asked,
        [server_id("b"), server_id("e"), server_id("d")],
        "one of each domain that is heard"
    );
    let asked = table.presence.witnesses(&server_id("a"), &paired[..3], moment);
    assert_eq!(asked, [server_id("b"), server_id("c")]);
}

/// East vanishes at once; the host is in `home`, and `witness`, of another domain, is heard and looks each second
/// for a only. What is said last of a and of b.
fn east_vanishes(home: &str, witness_in: &str, looks: impl Fn(u64) -> bool) -> [Observation; 2] {
    let domain = |name: &str| DomainId::new(name).expect("an id");
    let mut table = Table::new();
    table.presence = Presence::at(Some(domain(home)));
    table.presence.broker(None, table.moment());
    table.pass(2000, &[(Path::Broker, "a"), (Path::Broker, "b")]);
    let mut last = ["a", "b"].map(|server| last_of(&table.pass(1000, &[]), server));
    for second in 0..30 {
        for _ in 0..4 {
            let mut beat = beat_of("witness");
            beat.domain = domain(witness_in);
            table.presence.beat(Path::Broker, beat, table.moment());
            let seen = table.pass(250, &[]);
            for said in &mut last {
                let newer = seen.iter().rfind(|seen| seen.observation.server == said.server);
                *said = newer.map_or_else(|| said.clone(), |seen| seen.observation.clone());
            }
        }
        let moment = table.moment();
        for (server, by, answers) in [
            ("a", None, false),
            ("a", Some(server_id("witness")), looks(second)),
            ("b", None, false),
        ] {
            let looked = looked(answers, "what was seen");
            table
                .presence
                .looked(&server_id(server), by.as_ref(), looked, moment);
        }
    }
    last
}

#[test]
fn c2_the_first_that_is_missed_of_a_domain_that_is_cut_off_is_not_missed_before_the_others() {
    let mut table = Table::new();
    table.pass(2000, &[(Path::Broker, "a"), (Path::Broker, "b")]);
    // b's last word comes later than a's, by more than an interval: a's next was late already when both were cut off.
    table.pass(350, &[(Path::Broker, "b")]);
    table.beat(Path::Broker, "b");
    let seen = table.pass(5000, &[]);
    let unheard = |seen: &&Seen| !seen.observation.paths.broker && !seen.observation.paths.direct;
    let silent: Vec<_> = seen.iter().filter(unheard).collect();
    assert!(silent.len() > 2, "{seen:?}");
    assert!(silent.iter().all(|seen| seen.observation.blind), "{silent:?}");

    // Of one that goes alone nothing is held back.
    let mut table = Table::new();
    table.pass(2000, &[(Path::Broker, "a"), (Path::Broker, "b")]);
    let seen = table.pass(1500, &[(Path::Broker, "b")]);
    let first = seen.iter().find(unheard).expect("a is missed");
    assert!(!first.observation.blind, "{first:?}");
}

#[test]
fn c2_a8_a_third_domain_that_gives_up_the_first_before_the_others_are_missed_ends_no_wait() {
    let domain = |name: &str| DomainId::new(name).expect("an id");
    let mut table = Table::new();
    table.presence = Presence::at(Some(domain("north")));
    table.presence.broker(None, table.moment());
    table.pass(2000, &[(Path::Broker, "a"), (Path::Broker, "b")]);
    // b's last word comes half a second after a's; a is looked for as soon as it is missed.
    table.pass(500, &[(Path::Broker, "b")]);
    let mut blind = Vec::new();
    for _ in 0..80 {
        let mut beat = beat_of("witness");
        beat.domain = domain("west");
        table.presence.beat(Path::Broker, beat, table.moment());
        let moment = table.moment();
        if table.presence.missed(moment).contains(&server_id("a")) {
            let by = Some(server_id("witness"));
            let looked = looked(false, "nobody there");
            table
                .presence
                .looked(&server_id("a"), by.as_ref(), looked, moment);
        }
        let seen = table.pass(250, &[]);
        let of_a = seen
            .iter()
            .rfind(|seen| seen.observation.server == server_id("a"));
        blind.extend(of_a.map(|seen| (table.moment().monotonic, seen.observation.blind)));
    }
    let (began, _) = blind.iter().find(|(_, blind)| *blind).expect("blind for it");
    let (ended, _) = blind.iter().rfind(|(_, blind)| *blind).expect("blind for it");
    let wait = ended.since(*began);
    assert!((13..=16).contains(&wait.as_secs()), "{wait:?}");
    assert!(!blind.last().expect("observed").1, "it is over");
}

#[test]
fn c2_a8_a_domain_that_vanished_at_once_is_missed_where_a_third_one_can_not_reach_it_either() {
    // A failover server of a third domain gives a up as well, for as long as the host gives it time to come back.
    let [a, b] = east_vanishes("north", "west", |_| false);
    assert!(!a.blind && a.silent_ms > 5_000, "{a:?}");
    assert!(b.blind, "nobody has given it up");
    // What a failover server beside the host sees, the host sees too: nothing.
    let [a, _] = east_vanishes("west", "west", |_| false);
    assert!(a.blind);
    // It reaches it: the host is cut off.
    let [a, _] = east_vanishes("north", "west", |_| true);
    assert!(a.blind);
    // The line between those two is bad as well, and carries something now and then.
    let [a, _] = east_vanishes("north", "west", |second| second % 10 == 0);
    assert!(a.blind);
}
