//! Who is told of what, when, and how often.

use std::{collections::BTreeMap, time::Duration};

use proptest::prelude::*;
use understudy_core::{
    contract::{
        api::{FailoverReason, ReasonKind},
        event::{Event, Fact},
        heartbeat::{CameraFault, Storage, StorageState},
    },
    ids::{CameraId, DomainId, FailoverId, ServerId},
    notice::{
        ALL, Effect, Input, Key, Notice, Now, Quiet, Rule, SEEN_KEPT, Settings, State, TOLD, TOLD_KEPT, Told,
        URGENT, matches, step,
    },
    time::{Monotonic, Timestamp},
};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const NOON: u16 = 12 * 60;

fn rule(name: &str, each: bool) -> Rule {
    Rule {
        name: name.to_owned(),
        events: TOLD.map(str::to_owned).to_vec(),
        domains: Vec::new(),
        servers: Vec::new(),
        quiet: None,
        urgent: URGENT.map(str::to_owned).to_vec(),
        each,
        gather: if each { Duration::ZERO } else { 5 * SECOND },
    }
}

fn settings(rules: Vec<Rule>) -> Settings {
    Settings {
        rules,
        repeat: 15 * MINUTE,
        give_up: 72 * HOUR,
        most_waiting: 100,
        first_pause: SECOND,
        longest_pause: 5 * MINUTE,
    }
}

fn server(id: &str) -> ServerId {
    ServerId::new(id).expect("an id")
}

fn failover(id: &str) -> FailoverId {
    FailoverId::new(id).expect("an id")
}

fn started(id: &str) -> Event {
    Event::FailoverStarted {
        failover: failover(id),
        server: server("recorder-1"),
        stand_in: server("failover-1"),
        reason: FailoverReason {
            kind: ReasonKind::Disconnection,
            summary: "not heard for 1 s".to_owned(),
            evidence: Vec::new(),
        },
        silent_ms: 1000,
        disabled: Vec::new(),
    }
}

fn serving(id: &str, lost: &[&str]) -> Event {
    Event::FailoverServing {
        failover: failover(id),
        server: server("recorder-1"),
        stand_in: server("failover-1"),
        filming: 4,
        lost: lost.iter().map(|id| CameraId::new(*id).expect("an id")).collect(),
    }
}

fn aborted(id: &str) -> Event {
    Event::FailoverAborted {
        failover: failover(id),
        server: server("recorder-1"),
        why: "a person ended it".to_owned(),
        dropped: Vec::new(),
    }
}

fn unprotected(id: &str) -> Event {
    Event::ServerUnprotected {
        server: server(id),
        why: "it has to wait".to_owned(),
    }
}

fn camera_lost(id: &str) -> Event {
    Event::CameraLost {
        camera: CameraId::new(id).expect("an id"),
        server: server("recorder-1"),
        fault: CameraFault::Unreachable,
        detail: "no route".to_owned(),
    }
}

fn storage(state: StorageState) -> Event {
    Event::ServerStorageDegraded {
        server: server("recorder-1"),
        storage: Storage {
            state,
            evidence: "seen".to_owned(),
            full: false,
        },
    }
}

/// A notifier with its disk, its clock, and receivers that do what the test says.
struct Desk {
    settings: Settings,
    state: State,
    notices: BTreeMap<u64, Notice>,
    told: BTreeMap<Key, Told>,
    seen: Vec<String>,
    now: Now,
    facts: u32,
    last: Option<(String, Event)>,
    /// Messages that were given to a receiver, and are under way.
    under_way: Vec<Notice>,
    given_up: Vec<(Notice, String)>,
}

impl Desk {
    fn new(settings: Settings) -> Self {
        Self {
            settings,
            state: State::default(),
            notices: BTreeMap::new(),
            told: BTreeMap::new(),
            seen: Vec::new(),
            now: Now {
                monotonic: Monotonic(HOUR),
                local_minutes: NOON,
            },
            facts: 0,
            last: None,
            under_way: Vec::new(),
            given_up: Vec::new(),
        }
    }

    fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Seen(id) => self.seen.push(id),
                Effect::Save(notice) => drop(self.notices.insert(notice.number, notice)),
                Effect::Remove(number) => assert!(self.notices.remove(&number).is_some(), "it was stored"),
                Effect::SaveTold(key, told) => drop(self.told.insert(key, told)),
                Effect::ForgetTold(key) => drop(self.told.remove(&key)),
                Effect::GiveUp(notice, why) => {
                    self.notices.remove(&notice.number);
                    self.given_up.push((notice, why));
                }
                Effect::Send(notice) => {
                    assert_eq!(
                        self.notices.get(&notice.number),
                        Some(&notice),
                        "first stored, then sent"
                    );
                    self.under_way.push(notice);
                }
            }
        }
    }

    fn input(&mut self, input: Input) {
        let effects = step(&mut self.state, &self.settings, input, self.now);
        self.carry_out(effects);
    }

    fn hear(&mut self, event: Event) {
        self.facts += 1;
        let id = format!("fact-{}", self.facts);
        self.last = Some((id.clone(), event.clone()));
        self.hear_as(&id, event);
    }

    fn hear_as(&mut self, id: &str, event: Event) {
        let fact = Fact {
            domain: DomainId::new("east").expect("an id"),
            at: Timestamp(i64::from(self.facts)),
            event,
        };
        self.input(Input::Fact(id.to_owned(), fact));
    }

    fn pass(&mut self, time: Duration) {
        self.now.monotonic.0 += time;
        self.input(Input::Tick);
    }

    /// Everything that is under way arrives, and what follows from it; returns the names of the events by message.
    fn arrive(&mut self) -> Vec<Vec<&'static str>> {
        let mut arrived = Vec::new();
        while !self.under_way.is_empty() {
            let notice = self.under_way.remove(0);
            arrived.push(notice.items.iter().map(|item| item.fact.event.name()).collect());
            self.input(Input::Sent(notice.number));
        }
        arrived
    }

    fn fail(&mut self, refused: bool) {
        let notice = self.under_way.remove(0);
        self.input(Input::Failed {
            number: notice.number,
            why: "nobody answers".to_owned(),
            refused,
            luck: 1000,
        });
    }

    fn restart(&mut self) {
        let (state, effects) = State::restore(
            &self.settings,
            self.notices.values().cloned().collect(),
            self.told.clone().into_iter().collect(),
            self.seen.clone(),
            self.now,
        );
        self.state = state;
        self.under_way.clear();
        self.carry_out(effects);
        self.input(Input::Tick);
    }
}

#[test]
fn k4_each_step_of_a_failover_is_a_message_to_programs_and_what_gathers_is_one_to_people() {
    let mut desk = Desk::new(settings(vec![rule("hook", true), rule("mail", false)]));
    desk.hear(started("f1"));
    desk.hear(serving("f1", &[]));
    assert_eq!(desk.arrive(), [["failover.started"], ["failover.serving"]]);
    desk.pass(6 * SECOND);
    assert_eq!(desk.arrive(), [["failover.started", "failover.serving"]]);
}

#[test]
fn k4_the_same_is_counted_and_not_told_again_until_its_time_is_over() {
    let mut desk = Desk::new(settings(vec![rule("hook", true)]));
    for _ in 0..40 {
        desk.hear(unprotected("recorder-1"));
        desk.arrive();
        desk.pass(SECOND);
    }
    assert_eq!(desk.told.len(), 1);
    let told = desk.told.values().next().expect("one").clone();
    assert_eq!(told.repeats, 39, "the first was told");

    desk.pass(15 * MINUTE);
    let summary = desk.under_way[0].clone();
    assert_eq!(
        summary.items[0].repeats, 38,
        "one is told, the others are its repetitions"
    );
    desk.arrive();
    // Nothing more happened: nothing more is told.
    desk.pass(HOUR);
    assert_eq!((desk.arrive().len(), desk.told.len()), (0, 0));
    desk.hear(unprotected("recorder-1"));
    assert_eq!(desk.arrive().len(), 1, "later it is news again");
}

#[test]
fn k4_while_a_receiver_is_away_one_failover_is_one_mail_whatever_it_goes_through() {
    let mut desk = Desk::new(settings(vec![rule("mail", false)]));
    desk.hear(started("f1"));
    desk.pass(6 * SECOND);
    desk.fail(false);
    desk.hear(serving("f1", &[]));
    // It flaps.
    for _ in 0..5 {
        desk.hear(started("f1"));
        desk.hear(serving("f1", &[]));
    }
    desk.hear(aborted("f1"));
    desk.pass(HOUR);
    assert_eq!(
        desk.arrive(),
        [["failover.started", "failover.serving", "failover.aborted"]],
        "in the order in which it ended"
    );
    assert!(desk.notices.is_empty());
}

#[test]
fn k4_a_receiver_that_is_away_is_tried_again_ever_later_and_in_order() {
    let mut desk = Desk::new(settings(vec![rule("hook", true)]));
    desk.hear(started("f1"));
    desk.hear(serving("f1", &[]));
    let mut pauses = Vec::new();
    for _ in 0..12 {
        assert_eq!(desk.under_way.len(), 1, "one at a time");
        assert_eq!(desk.under_way[0].items[0].fact.event.name(), "failover.started");
        desk.fail(false);
        let idle = desk.state.idle(&desk.settings, desk.now);
        assert!(idle <= 10 * SECOND && desk.under_way.is_empty());
        let mut pause = Duration::ZERO;
        while desk.under_way.is_empty() {
            desk.pass(SECOND / 2);
            pause += SECOND / 2;
        }
        pauses.push(pause);
    }
    assert_eq!(pauses[..4], [SECOND, 2 * SECOND, 4 * SECOND, 8 * SECOND]);
    assert_eq!(pauses[11], 5 * MINUTE, "and no longer than that");
    assert_eq!(desk.arrive(), [["failover.started"], ["failover.serving"]]);
}

#[test]
fn k4_a_message_that_is_refused_holds_up_no_other() {
    let mut desk = Desk::new(settings(vec![rule("hook", true)]));
    desk.hear(started("f1"));
    desk.hear(serving("f1", &[]));
    desk.fail(true);
    assert_eq!(desk.arrive(), [["failover.serving"]]);
    desk.pass(2 * SECOND);
    assert_eq!(
        desk.arrive(),
        [["failover.started"]],
        "it is tried again all the same"
    );
}

#[test]
fn k4_after_its_time_a_message_is_given_up_with_the_reason() {
    let mut desk = Desk::new(settings(vec![rule("hook", true)]));
    desk.hear(started("f1"));
    desk.fail(false);
    for _ in 0..1000 {
        desk.pass(6 * MINUTE);
        if desk.under_way.is_empty() {
            break;
        }
        desk.fail(false);
    }
    assert_eq!((desk.notices.len(), desk.given_up.len()), (0, 1));
    let (notice, why) = &desk.given_up[0];
    assert!(notice.waited_ms >= 72 * 3_600_000 && notice.waited_ms < 73 * 3_600_000);
    assert!(why.contains("nobody answers") && why.contains("attempt"), "{why}");
}

#[test]
fn k4_no_more_wait_than_are_kept_and_the_oldest_goes_loudly() {
    let mut desk = Desk::new(Settings {
        most_waiting: 3,
        ..settings(vec![rule("hook", true)])
    });
    for number in 0..10 {
        desk.hear(started(&format!("f{number}")));
    }
    assert_eq!((desk.notices.len(), desk.given_up.len()), (3, 7));
    assert_eq!(
        desk.under_way[0].items[0].id, "fact-1",
        "what is under way is not pulled back"
    );
    assert!(
        desk.given_up
            .iter()
            .all(|(_, why)| why.contains("wait for this receiver"))
    );
}

#[test]
fn k4_quiet_hours_let_through_what_is_urgent_and_tell_the_rest_afterwards() {
    let quiet = Quiet::parse("22:00-06:30");
    let mut desk = Desk::new(settings(vec![Rule {
        quiet,
        ..rule("mail", false)
    }]));
    desk.now.local_minutes = 23 * 60;
    desk.hear(started("f1"));
    desk.pass(HOUR);
    assert!(
        desk.under_way.is_empty(),
        "that one works is no reason to wake anybody"
    );
    assert_eq!(
        desk.state.idle(&desk.settings, desk.now),
        10 * SECOND,
        "and nobody spins"
    );
    // Another, of which not everything is filmed, is.
    desk.hear(serving("f2", &["cam-1"]));
    assert_eq!(desk.arrive(), [["failover.serving"]]);
    // What has waited is told with what is urgent, at once.
    desk.hear(aborted("f1"));
    assert_eq!(desk.arrive(), [["failover.started", "failover.aborted"]]);
    desk.hear(unprotected("recorder-1"));
    desk.pass(HOUR);
    assert_eq!(desk.arrive().len(), 0);
    desk.now.local_minutes = 6 * 60 + 30;
    desk.pass(SECOND);
    assert_eq!(desk.arrive(), [["server.unprotected"]]);
}

#[test]
fn k4_a_time_of_day_may_go_over_midnight() {
    let night = Quiet::parse("22:00-06:30").expect("a time");
    let noon = Quiet::parse("12:00-13:00").expect("a time");
    for (minute, by_night, at_noon) in [
        (22 * 60, true, false),
        (0, true, false),
        (6 * 60 + 29, true, false),
        (6 * 60 + 30, false, false),
        (12 * 60, false, true),
        (13 * 60, false, false),
        (21 * 60 + 59, false, false),
    ] {
        assert_eq!(
            (night.holds(minute), noon.holds(minute)),
            (by_night, at_noon),
            "{minute}"
        );
    }
    for wrong in [
        "",
        "22:00",
        "22-06",
        "24:00-06:00",
        "22:60-06:00",
        "+1:00-02:00",
        "07:00-07:00",
        "a:b-c:d",
    ] {
        assert_eq!(Quiet::parse(wrong), None, "{wrong:?}");
    }
}

#[test]
fn k4_receivers_are_told_of_their_events_domains_and_servers_only() {
    let of = |change: fn(&mut Rule)| {
        let mut rule = rule("hook", true);
        change(&mut rule);
        let mut desk = Desk::new(settings(vec![rule]));
        desk.hear(started("f1"));
        desk.hear(unprotected("recorder-9"));
        desk.hear(camera_lost("cam-1"));
        desk.arrive().concat()
    };
    assert_eq!(of(|_| {}), ["failover.started", "server.unprotected"]);
    assert_eq!(
        of(|rule| rule.events = vec!["failover.*".to_owned()]),
        ["failover.started"]
    );
    assert_eq!(of(|rule| rule.events = vec![ALL.to_owned()]).len(), 3);
    assert_eq!(
        of(|rule| rule.events = vec!["camera.lost".to_owned()]),
        ["camera.lost"]
    );
    assert_eq!(
        of(|rule| rule.servers = vec![server("recorder-9")]),
        ["server.unprotected"]
    );
    assert_eq!(
        of(|rule| rule.servers = vec![server("failover-1")]),
        ["failover.started"],
        "a failover server is told of what it stands in for"
    );
    let west = |rule: &mut Rule| rule.domains = vec![DomainId::new("west").expect("an id")];
    assert!(of(west).is_empty());
    for (pattern, name, covers) in [
        ("failover.*", "failover.started", true),
        ("failover*", "failover.started", false),
        ("fail.*", "failover.started", false),
        ("failover.started", "failover.started", true),
        ("started", "failover.started", false),
    ] {
        assert_eq!(matches(pattern, name), covers, "{pattern} {name}");
    }
    for name in TOLD.iter().chain(&URGENT) {
        assert!(Event::NAMES.contains(name), "{name}");
    }
}

#[test]
fn k4_a_volume_that_gets_worse_is_no_repetition() {
    let mut desk = Desk::new(settings(vec![rule("hook", true)]));
    desk.hear(storage(StorageState::Degraded));
    desk.hear(storage(StorageState::Degraded));
    desk.hear(storage(StorageState::Damaged));
    assert_eq!(desk.arrive().len(), 2);
}

#[test]
fn k4_one_taken_failover_server_is_one_message_about_all_that_it_leaves_unprotected() {
    let mut desk = Desk::new(settings(vec![rule("mail", false)]));
    for number in 0..120 {
        desk.hear(unprotected(&format!("recorder-{number}")));
    }
    desk.pass(6 * SECOND);
    let mail = desk.under_way[0].clone();
    assert_eq!(desk.arrive().len(), 1);
    assert_eq!(
        (mail.items.len(), mail.more),
        (50, 70),
        "and the message is bounded"
    );
}

#[test]
fn k4_a_fact_that_comes_again_after_a_crash_is_not_told_again() {
    let mut desk = Desk::new(settings(vec![rule("hook", true)]));
    desk.hear_as("fact-1", started("f1"));
    desk.arrive();
    desk.restart();
    desk.hear_as("fact-1", started("f1"));
    assert_eq!(desk.arrive().len(), 0);
    assert!(
        desk.told.values().all(|told| told.repeats == 0),
        "it is no repetition either"
    );
}

#[test]
fn k4_what_was_under_way_when_it_died_is_sent_again_under_the_same_id() {
    let mut desk = Desk::new(settings(vec![rule("hook", true)]));
    desk.hear(started("f1"));
    let before = desk.under_way[0].clone();
    desk.restart();
    assert_eq!(desk.under_way, [before]);
    // And a receiver that nobody configures any more has its messages given up.
    desk.settings.rules[0].name = "another".to_owned();
    desk.restart();
    assert_eq!(
        (desk.under_way.len(), desk.given_up.len(), desk.told.len()),
        (0, 1, 0)
    );
}

#[derive(Clone, Debug)]
enum Act {
    Hear(u8, u8),
    Again,
    Pass(u16),
    Arrive,
    Fail(bool),
    Restart,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => (0..6_u8, 0..4_u8).prop_map(|(kind, which)| Act::Hear(kind, which)),
        1 => Just(Act::Again),
        3 => (0..2_000_u16).prop_map(Act::Pass),
        4 => Just(Act::Arrive),
        3 => any::<bool>().prop_map(Act::Fail),
        1 => Just(Act::Restart),
    ]
}

fn event(kind: u8, which: u8) -> Event {
    let id = format!("f{which}");
    match kind {
        0 => started(&id),
        1 => serving(&id, &[]),
        2 => aborted(&id),
        3 => unprotected(&format!("recorder-{which}")),
        4 => storage(StorageState::Damaged),
        _ => camera_lost("cam-1"),
    }
}

proptest! {
    /// Whatever happens: nothing is lost in silence, what is kept is bounded, the disk is what is in memory, one
    /// message at a time is under way to a receiver, and in the end everybody has heard of everything.
    #[test]
    fn k4_every_fact_reaches_every_receiver_that_wants_it_or_is_given_up_loudly(
        acts in proptest::collection::vec(act(), 1..80),
    ) {
        let mut desk = Desk::new(Settings { most_waiting: 6, ..settings(vec![rule("hook", true), rule("mail", false)]) });
        let mut told: BTreeMap<(String, String), u32> = BTreeMap::new();
        let mut heard: BTreeMap<String, u32> = BTreeMap::new();
        let mut note = |notices: &[Notice]| {
            for notice in notices {
                for item in &notice.items {
                    *told.entry((notice.receiver.clone(), item.about.clone())).or_default() += 1 + item.repeats;
                }
            }
        };
        for act in acts {
            match act {
                Act::Hear(kind, which) => {
                    let event = event(kind, which);
                    if TOLD.contains(&event.name()) {
                        let fact = Fact { domain: DomainId::new("east").expect("an id"), at: Timestamp(0), event: event.clone() };
                        *heard.entry(understudy_core::notice::Cause::of(&fact).about).or_default() += 1;
                    }
                    desk.hear(event);
                }
                Act::Again => {
                    if let Some((id, event)) = desk.last.clone() {
                        desk.hear_as(&id, event);
                    }
                }
                Act::Pass(seconds) => desk.pass(Duration::from_secs(u64::from(seconds))),
                Act::Arrive => {
                    if !desk.under_way.is_empty() {
                        let notice = desk.under_way.remove(0);
                        note(std::slice::from_ref(&notice));
                        desk.input(Input::Sent(notice.number));
                    }
                }
                Act::Fail(refused) => if !desk.under_way.is_empty() { desk.fail(refused) },
                Act::Restart => desk.restart(),
            }
            for receiver in ["hook", "mail"] {
                prop_assert!(desk.under_way.iter().filter(|notice| notice.receiver == receiver).count() <= 1);
                prop_assert!(desk.notices.values().filter(|notice| notice.receiver == receiver).count() <= 6);
            }
            prop_assert!(desk.told.len() <= TOLD_KEPT && desk.state.waiting_for("hook", desk.now).0 <= 6);
            prop_assert!(desk.seen.len() <= SEEN_KEPT);
        }
        // In the end everybody is there.
        for _ in 0..40 {
            while !desk.under_way.is_empty() {
                let notice = desk.under_way.remove(0);
                note(std::slice::from_ref(&notice));
                desk.input(Input::Sent(notice.number));
            }
            desk.pass(10 * MINUTE);
        }
        prop_assert!(desk.notices.is_empty() && desk.told.is_empty());
        let given_up: Vec<Notice> = desk.given_up.iter().map(|(notice, _)| notice.clone()).collect();
        note(&given_up);
        for receiver in ["hook", "mail"] {
            for (about, count) in &heard {
                let said = told.get(&(receiver.to_owned(), about.clone())).copied().unwrap_or(0);
                prop_assert_eq!(said, *count, "{} to {}", about, receiver);
            }
        }
    }
}
