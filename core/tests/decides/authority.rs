//! The right to act: each rule alone, and then every order of events in a small world.

use std::{
    collections::{BTreeSet, HashSet, VecDeque},
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

use understudy_core::{
    assignment::{Assignment, Epoch, Films, Role},
    authority::{
        Claim, LEASE, OUTLAST, SKEW, Word,
        action::{self, Actions, Cause, Promise, Stage},
        granter::{self, Granter, Ticket},
        right::{self, Right},
    },
    ids::{Incarnation, ServerId},
    policy::Range,
    settings::BundleHash,
    time::{Moment, Monotonic, Timestamp},
};

fn id(text: &str) -> ServerId {
    ServerId::new(text).expect("this is an id")
}

fn start(text: &str) -> Incarnation {
    Incarnation::new(text).expect("this is an id")
}

fn at(millis: u64) -> Moment {
    Moment {
        monotonic: Monotonic(Duration::from_millis(1_000_000 + millis)),
        wall: Timestamp(0),
    }
}

fn assignment(server: &str, number: u64, bears: bool) -> Assignment {
    let films = Films {
        identity: id("recorder"),
        settings: BundleHash("0".to_owned()),
        range: Range::Full,
        disabled: BTreeSet::new(),
        failover: None,
        restore: None,
        keep: BTreeSet::new(),
    };
    Assignment {
        server: id(server),
        epoch: Epoch { term: 0, number },
        role: if bears { Role::Films(films) } else { Role::Standby },
        erase: BTreeSet::new(),
        erase_up_to: Default::default(),
    }
}

/// The words and claims among effects.
fn echo(effects: &[right::Effect]) -> Option<Word> {
    effects.iter().find_map(|effect| match effect {
        right::Effect::Echo(word) => Some(word.clone()),
        right::Effect::Claim(_) => None,
    })
}

/// A server that bears the identity, was granted the right, and got an echo back that it sent at 0 s.
fn acting() -> Right {
    let mut right = Right::new(id("recorder"), start("first"));
    right.step(right::Input::Assigned(&assignment("recorder", 1, true)), at(0));
    let effects = right.step(right::Input::Listening, at(0));
    let echo = echo(&effects).expect("it sends an echo");
    let grant = Word::Grant {
        claim: right.claim(),
        alone_ms: 60_000,
    };
    right.step(right::Input::Heard(grant), at(10));
    assert!(!right.may_act(at(10)), "a grant alone gives no right");
    right.step(right::Input::Heard(echo), at(1_000));
    right
}

#[test]
fn an_echo_counts_from_its_sending() {
    let right = acting();
    assert!(right.may_act(at(2_999)));
    assert!(
        !right.may_act(at(3_000)),
        "it came back at 1 s, but was sent at 0 s"
    );
}

#[test]
fn whatever_may_end_the_right_ends_it_at_once() {
    let other = assignment("recorder", 2, true);
    let old = assignment("recorder", 0, false);
    let ends = [
        right::Input::Deaf,
        right::Input::Listening,
        right::Input::Heard(Word::Revoke),
        right::Input::Garbled,
        right::Input::Assigned(&other),
        right::Input::Assigned(&old),
    ];
    for input in ends {
        let mut right = acting();
        let before = right.claim();
        right.step(input.clone(), at(1_500));
        assert!(!right.may_act(at(1_500)), "{input:?}");
        // A grant that answers the claim of before is void.
        let late = Word::Grant {
            claim: before,
            alone_ms: 0,
        };
        right.step(right::Input::Heard(late), at(1_600));
        assert_eq!(right.alone_since(), None, "{input:?}");
    }
    let mut right = acting();
    right.step(
        right::Input::Assigned(&assignment("recorder", 1, true)),
        at(1_500),
    );
    assert!(right.may_act(at(1_500)), "the same assignment again is no news");
}

#[test]
fn an_assignment_from_the_disk_lets_a_server_claim_and_not_act() {
    let mut right = Right::new(id("recorder"), start("first"));
    let effects = right.step(right::Input::Assigned(&assignment("recorder", 1, true)), at(0));
    assert!(matches!(&effects[..], [right::Effect::Claim(claim)] if claim.wants.is_some()));
    assert!(!right.may_act(at(0)));
}

/// A host that has granted the right to the recording server, at 10 s.
fn granted() -> (Granter, Claim) {
    let mut granter = Granter::new();
    let claim = Right::new(id("recorder"), start("first")).claim();
    let claim = Claim {
        wants: Some((id("recorder"), Epoch { term: 0, number: 1 })),
        ..claim
    };
    let holder = Some((id("recorder"), Epoch { term: 0, number: 1 }));
    let identity = id("recorder");
    assert_eq!(
        granter.step(granter::Input::Holder { identity, holder }, at(0)),
        vec![granter::Effect::Fence],
        "a start begins with a fence"
    );
    assert_eq!(
        granter.step(granter::Input::Claimed(claim.clone()), at(100)),
        vec![]
    );
    granter.step(granter::Input::Confirmed(Ticket::Fence), at(200));
    assert_eq!(
        granter.step(granter::Input::Tick, at(3_900)),
        vec![],
        "the fence is not over"
    );
    let effects = granter.step(granter::Input::Tick, at(10_000));
    assert!(
        matches!(&effects[..], [granter::Effect::Grant(..)]),
        "{effects:?}"
    );
    (granter, claim)
}

fn moved_to_stand_in(granter: &mut Granter, now: u64) -> (Claim, Vec<granter::Effect>) {
    let epoch = Epoch { term: 0, number: 2 };
    let claim = Claim {
        server: id("stand-in"),
        incarnation: start("other"),
        number: 1,
        wants: Some((id("recorder"), epoch)),
    };
    let identity = id("recorder");
    let holder = Some((id("stand-in"), epoch));
    let mut effects = granter.step(granter::Input::Holder { identity, holder }, at(now));
    effects.extend(granter.step(granter::Input::Claimed(claim.clone()), at(now)));
    (claim, effects)
}

#[test]
fn another_server_is_granted_the_right_only_when_it_is_over() {
    // By its old holder's own word.
    let (mut granter, old) = granted();
    let (_, effects) = moved_to_stand_in(&mut granter, 10_000);
    let ticket = Ticket::Revocation(old.clone());
    assert_eq!(
        effects,
        vec![granter::Effect::Revoke(id("recorder"), ticket.clone())]
    );
    let void = Claim {
        number: old.number + 1,
        wants: None,
        ..old.clone()
    };
    let effects = granter.step(granter::Input::Claimed(void.clone()), at(10_100));
    assert!(matches!(&effects[..], [granter::Effect::Grant(to, _)] if *to == id("stand-in")));

    // Without a word: a lease and more after the broker's confirm.
    let (mut granter, _) = granted();
    moved_to_stand_in(&mut granter, 10_000);
    assert_eq!(
        granter.step(granter::Input::Tick, at(10_900)),
        vec![],
        "nothing is confirmed"
    );
    granter.step(granter::Input::Confirmed(ticket), at(11_000));
    assert_eq!(granter.step(granter::Input::Tick, at(14_700)), vec![]);
    let effects = granter.step(granter::Input::Tick, at(14_750));
    assert!(matches!(&effects[..], [granter::Effect::Grant(to, _)] if *to == id("stand-in")));

    // Another start of the old holder proves nothing about the one that held it.
    let (mut granter, _) = granted();
    moved_to_stand_in(&mut granter, 10_000);
    let restarted = Claim {
        incarnation: start("second"),
        ..void
    };
    assert_eq!(
        granter.step(granter::Input::Claimed(restarted), at(10_100)),
        vec![]
    );
}

#[test]
fn clocks_that_run_ten_per_cent_wrong_are_allowed_for() {
    assert!(OUTLAST.as_secs_f64() * 0.9 > LEASE.as_secs_f64() * 1.1);
}

fn cause(promise: Promise) -> Cause {
    Cause {
        key: "door-1/opened/12".to_owned(),
        promise,
    }
}

#[test]
fn what_must_not_happen_twice_waits_for_the_right_and_is_stored_before_it_is_done() {
    let (mut actions, _) = Actions::restore([]);
    let nobody = Right::new(id("recorder"), start("first"));
    let door = cause(Promise::NeverTwice);
    let seen = action::Input::Seen(door.clone(), at(500).monotonic);
    assert_eq!(actions.step(seen.clone(), &nobody, at(500)), vec![], "it waits");
    let right = acting();
    let effects = actions.step(action::Input::Tick, &right, at(1_000));
    assert_eq!(
        effects,
        vec![action::Effect::Store(door.clone(), Stage::Intended)]
    );
    let late = actions
        .clone()
        .step(action::Input::Stored(door.clone()), &right, at(9_000));
    assert!(
        matches!(&late[..], [action::Effect::GiveUp(..), ..]),
        "storing took too long: {late:?}"
    );
    let effects = actions.step(action::Input::Stored(door.clone()), &right, at(1_100));
    assert_eq!(effects, vec![action::Effect::Perform(door.clone())]);
    actions.step(action::Input::Done(door), &right, at(1_200));
    assert_eq!(
        actions.step(seen, &right, at(1_300)),
        vec![],
        "the device says it again"
    );
}

#[test]
fn what_another_server_may_have_done_is_not_made_up_for() {
    let mut right = Right::new(id("stand-in"), start("first"));
    right.step(right::Input::Assigned(&assignment("stand-in", 1, true)), at(0));
    right.step(right::Input::Listening, at(0));
    let grant = Word::Grant {
        claim: right.claim(),
        alone_ms: 0,
    };
    right.step(right::Input::Heard(grant), at(1_000));
    assert_eq!(right.alone_since(), Some(Monotonic(at(1_000).monotonic.0 + SKEW)));
    let (mut actions, _) = Actions::restore([]);
    let seen = action::Input::Seen(cause(Promise::NeverTwice), at(900).monotonic);
    let effects = actions.step(seen, &right, at(1_100));
    assert!(
        matches!(&effects[..], [action::Effect::GiveUp(..), ..]),
        "{effects:?}"
    );
}

#[test]
fn after_a_restart_a_notification_is_sent_again_and_a_door_is_left_alone() {
    let (door, mail) = (cause(Promise::NeverTwice), cause(Promise::NeverMissed));
    let stored = [(door.clone(), Stage::Intended), (mail.clone(), Stage::Intended)];
    let (_, effects) = Actions::restore(stored);
    assert!(effects.contains(&action::Effect::Perform(mail)));
    assert!(!effects.contains(&action::Effect::Perform(door)));
}

/// Two servers, their queues, and the host; time goes by second by second. The recording server's clock runs 10 %
/// slow and the host's 10 % fast.
#[derive(Clone, Hash)]
struct World {
    seconds: u64,
    rights: [Right; 2],
    queues: [VecDeque<Word>; 2],
    granter: Granter,
    /// Sent by the host, not in a queue yet; the publications keep their order.
    published: VecDeque<(Vec<usize>, Word, Option<Ticket>)>,
    claims: BTreeSet<Claim>,
    told: BTreeSet<Claim>,
    moves: u8,
    faults: u8,
}

const SERVERS: [&str; 2] = ["recorder", "stand-in"];
const PER_MILLE: [u64; 3] = [900, 1_000, 1_100];
const MOVES: u8 = 1;
const LAST_SECOND: u64 = 9;

impl World {
    /// The recording server has the right, and an echo of the third second.
    fn new() -> Self {
        let mut granter = Granter::new();
        let mut right = Right::new(id("recorder"), start("first"));
        right.step(right::Input::Assigned(&assignment("recorder", 1, true)), at(0));
        right.step(right::Input::Listening, at(0));
        let epoch = Epoch { term: 0, number: 1 };
        let holder = Some((id("recorder"), epoch));
        let identity = id("recorder");
        granter.step(granter::Input::Holder { identity, holder }, at(0));
        granter.step(granter::Input::Confirmed(Ticket::Fence), at(0));
        let effects = granter.step(granter::Input::Claimed(right.claim()), at(5_500));
        let [granter::Effect::Grant(_, grant)] = &effects[..] else {
            panic!("it is granted: {effects:?}");
        };
        let effects = right.step(right::Input::Heard(grant.clone()), at(4_500));
        right.step(right::Input::Heard(echo(&effects).expect("it is due")), at(4_500));
        assert!(right.may_act(at(4_500)));
        Self {
            seconds: 5,
            rights: [right, Right::new(id("stand-in"), start("first"))],
            queues: Default::default(),
            granter,
            published: VecDeque::new(),
            claims: BTreeSet::new(),
            told: BTreeSet::new(),
            moves: 0,
            faults: 0,
        }
    }

    fn now(&self, whose: usize) -> Moment {
        at(self.seconds * PER_MILLE[whose])
    }

    fn right(&mut self, server: usize, input: right::Input<'_>) {
        let now = self.now(server);
        for effect in self.rights[server].step(input, now) {
            match effect {
                right::Effect::Claim(claim) => {
                    // Said again it says nothing new.
                    if !self.told.contains(&claim) {
                        self.claims.insert(claim);
                    }
                }
                // The sooner it is in the queue, the more lies before a revocation.
                right::Effect::Echo(word) => self.queues[server].push_back(word),
            }
        }
        if server == 1 {
            self.hurry();
        }
    }

    fn tell_host(&mut self, claim: Claim) {
        self.claims.remove(&claim);
        self.told.insert(claim.clone());
        self.host(granter::Input::Claimed(claim));
    }

    /// Whatever is late at the stand-in only keeps it from acting: nothing is.
    fn hurry(&mut self) {
        while let Some(claim) = self.claims.iter().find(|claim| claim.server == id(SERVERS[1])) {
            self.tell_host(claim.clone());
        }
        while let Some(word) = self.queues[1].pop_front() {
            self.right(1, right::Input::Heard(word));
        }
    }

    fn host(&mut self, input: granter::Input) {
        let now = self.now(2);
        for effect in self.granter.step(input, now) {
            let index = |server: &ServerId| usize::from(server.as_str() == SERVERS[1]);
            self.published.push_back(match effect {
                granter::Effect::Fence => (vec![0, 1], Word::Revoke, Some(Ticket::Fence)),
                granter::Effect::Revoke(to, ticket) => (vec![index(&to)], Word::Revoke, Some(ticket)),
                granter::Effect::Grant(to, word) => (vec![index(&to)], word, None),
            });
        }
    }

    /// The identity goes to the stand-in, or back.
    fn move_identity(&mut self) {
        self.moves += 1;
        let number = u64::from(self.moves) + 1;
        let holder = usize::from(self.moves % 2 == 1);
        let server = (id(SERVERS[holder]), Epoch { term: 0, number });
        self.host(granter::Input::Holder {
            identity: id("recorder"),
            holder: Some(server),
        });
        // Assignments come as they like: the new holder's comes, the old one's may not.
        self.right(
            holder,
            right::Input::Assigned(&assignment(SERVERS[holder], number, true)),
        );
        if self.rights[holder].alone_since().is_none() {
            self.right(holder, right::Input::Listening);
        }
    }

    fn restart_host(&mut self) {
        self.granter = Granter::new();
        // What it was told, it has forgotten; the servers say it again.
        self.claims.append(&mut self.told);
        let number = u64::from(self.moves) + 1;
        let server = SERVERS[usize::from(self.moves % 2 == 1)];
        self.host(granter::Input::Holder {
            identity: id("recorder"),
            holder: Some((id(server), Epoch { term: 0, number })),
        });
    }

    fn restart_server(&mut self, server: usize) {
        let assigned = self.rights[server].claim().wants.map(|(_, epoch)| epoch.number);
        self.rights[server] = Right::new(id(SERVERS[server]), start("again"));
        if let Some(number) = assigned {
            self.right(
                server,
                right::Input::Assigned(&assignment(SERVERS[server], number, true)),
            );
            self.right(server, right::Input::Listening);
        }
    }

    /// Each world that can come next.
    fn next(&self) -> Vec<Self> {
        let mut worlds = Vec::new();
        let mut then = |possible: bool, go: &dyn Fn(&mut Self)| {
            if possible {
                let mut world = self.clone();
                go(&mut world);
                worlds.push(world);
            }
        };
        then(self.seconds < LAST_SECOND, &|world| {
            world.seconds += 1;
            world.right(0, right::Input::Tick);
            world.right(1, right::Input::Tick);
            world.host(granter::Input::Tick);
        });
        then(self.moves < MOVES, &Self::move_identity);
        then(!self.queues[0].is_empty(), &|world| {
            let word = world.queues[0].pop_front().expect("it has one");
            world.right(0, right::Input::Heard(word));
        });
        then(self.faults < 1, &|world| {
            world.faults += 1;
            world.restart_server(0);
        });
        // Its connection breaks, or its queue is lost and made anew: what it had sent is gone.
        then(self.faults < 1, &|world| {
            world.faults += 1;
            world.queues[0].clear();
            world.right(0, right::Input::Deaf);
            world.right(0, right::Input::Listening);
        });
        then(!self.published.is_empty(), &|world| {
            let (to, word, ticket) = world.published.pop_front().expect("it has one");
            to.into_iter()
                .for_each(|server| world.queues[server].push_back(word.clone()));
            world.hurry();
            // The sooner it is confirmed, the sooner somebody else is granted the right.
            ticket
                .into_iter()
                .for_each(|ticket| world.host(granter::Input::Confirmed(ticket)));
        });
        then(self.faults < 1 && !self.published.is_empty(), &|world| {
            // Its confirm is lost: it comes again, after whatever came next.
            world.faults += 1;
            let first = world.published[0].clone();
            world.published.push_back(first);
        });
        then(self.faults < 1, &|world| {
            world.faults += 1;
            world.restart_host();
        });
        for claim in &self.claims {
            then(true, &|world| world.tell_host(claim.clone()));
        }
        worlds
    }

    fn both_act(&self) -> bool {
        (0..2).all(|server| self.rights[server].may_act(self.now(server)))
    }
}

/// Searches every world there can be; answers how many there are, whether the stand-in ever had the right, and
/// whether both ever had it.
fn search(next: impl Fn(&World) -> Vec<World>) -> (usize, bool, bool) {
    let mut seen = HashSet::new();
    let mut left = vec![World::new()];
    let (mut handed_over, mut both) = (false, false);
    while let Some(world) = left.pop() {
        handed_over |= world.rights[1].may_act(world.now(1));
        both |= world.both_act();
        for next in next(&world) {
            let mut hasher = DefaultHasher::new();
            next.hash(&mut hasher);
            if seen.insert(hasher.finish()) {
                left.push(next);
            }
        }
    }
    (seen.len(), handed_over, both)
}

#[test]
fn in_no_order_of_events_may_both_servers_act() {
    let (worlds, handed_over, both) = search(World::next);
    println!("{worlds} worlds");
    assert!(!both);
    assert!(handed_over, "the right must go over in some of {worlds} worlds");
}
