//! The outbox against a real RabbitMQ that goes and comes.

#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::sync::Notify;
use tokio::time::Instant;
use understudy_bus::{Bus, Message, OutboxSource, Queue, Subscription, outbox, testing::Broker};
use understudy_core::{
    assignment::{Assignment, Epoch, Role},
    contract::event::{Event, Fact},
    ids::{DomainId, ServerId},
    time::Timestamp,
};
use understudy_runtime::Process;

const SOON: Duration = Duration::from_secs(30);

/// Keeps its rows in memory: what is tried here is what becomes of them.
#[derive(Clone, Default)]
struct Rows(Arc<Mutex<BTreeMap<i64, Message>>>);

impl Rows {
    fn push(&self, message: Message) {
        let mut rows = self.0.lock().unwrap();
        let id = rows.last_key_value().map_or(1, |(id, _)| id + 1);
        rows.insert(id, message);
    }

    fn left(&self) -> Vec<String> {
        self.0
            .lock()
            .unwrap()
            .values()
            .map(|message| message.routing_key.clone())
            .collect()
    }
}

impl OutboxSource for Rows {
    async fn pending(&self, after: i64, limit: usize) -> Result<Vec<(i64, Message)>, outbox::SourceError> {
        let rows = self.0.lock().unwrap();
        // Through JSON, as a database keeps them.
        rows.range(after + 1..)
            .take(limit)
            .map(|(id, row)| Ok((*id, serde_json::from_str(&serde_json::to_string(row)?)?)))
            .collect()
    }

    async fn sent(&self, ids: &[i64]) -> Result<(), outbox::SourceError> {
        self.0.lock().unwrap().retain(|id, _| !ids.contains(id));
        Ok(())
    }
}

fn server(id: &str) -> ServerId {
    ServerId::new(id).unwrap()
}

fn assignment(id: &str, number: u64) -> Message {
    Message::assignment(&Assignment {
        server: server(id),
        epoch: Epoch { term: 1, number },
        role: Role::Standby,
        erase: Default::default(),
        erase_up_to: Default::default(),
    })
}

fn fact(number: u64) -> Message {
    Message::fact(&Fact {
        domain: DomainId::new("east").unwrap(),
        at: Timestamp(0),
        event: Event::ServerDisconnected {
            server: server(&format!("recorder-{number}")),
        },
    })
}

async fn hear(subscription: &mut Subscription, count: u64) -> Vec<u64> {
    let mut numbers = Vec::new();
    while (numbers.len() as u64) < count {
        let heard = tokio::time::timeout(SOON, subscription.next())
            .await
            .expect("it arrives")
            .unwrap();
        heard.ack().await;
        let number = match heard.json::<Assignment>() {
            Ok(assignment) => assignment.epoch.number,
            Err(_) => heard.subject.rsplit('-').next().unwrap().parse().unwrap(),
        };
        // Repetitions are the receiver's to recognise: by epoch, or by id.
        if numbers.last() != Some(&number) {
            numbers.push(number);
        }
    }
    numbers
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_stored_leaves_in_its_order_whatever_the_broker_does() {
    // Given an outbox of before a crash, and a server whose queue nobody has declared.
    let mut broker = Broker::start().await.unwrap();
    let process = Process::for_test("outbox");
    let bus = Bus::start(&broker.config(), "orchestrator", &process).unwrap();
    bus.connected().await;
    for id in ["recorder-1", "recorder-2"] {
        bus.declare_assignment_queue(&server(id)).await.unwrap();
    }
    let mut facts = bus.subscribe(Queue::events(&["#"]));
    facts.consuming().await;
    let rows = Rows::default();
    rows.push(assignment("stranger", 1));
    for number in 1..=100 {
        rows.push(assignment("recorder-1", number));
        rows.push(fact(number));
        rows.push(assignment("recorder-2", number));
    }
    // When the pump starts,
    let wake = Arc::new(Notify::new());
    outbox::pump(bus.clone(), rows.clone(), wake.clone(), &process);
    // then everything leaves in its order, but for what no queue takes, which holds up nobody else.
    let whole: Vec<u64> = (1..=100).collect();
    let mut first = bus.subscribe(Queue::assignments(&server("recorder-1")));
    let mut second = bus.subscribe(Queue::assignments(&server("recorder-2")));
    assert_eq!(hear(&mut first, 100).await, whole);
    assert_eq!(hear(&mut second, 100).await, whole);
    assert_eq!(hear(&mut facts, 100).await, whole);
    let deadline = Instant::now() + SOON;
    while rows.left() != ["stranger"] {
        assert!(Instant::now() < deadline, "{:?}", rows.left());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }

    // When the broker is killed in mid-stream and comes back,
    for number in 101..=300 {
        rows.push(assignment("recorder-1", number));
        wake.notify_one();
        if number == 150 {
            broker.kill();
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    broker.restart().await.unwrap();
    // then nothing is missing.
    let mut numbers = Vec::new();
    while numbers.last() != Some(&300) {
        numbers.extend(hear(&mut first, 1).await);
    }
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers, (101..=300).collect::<Vec<_>>());

    // And what no queue took leaves by itself once there is one.
    let deadline = Instant::now() + SOON;
    while bus.declare_assignment_queue(&server("stranger")).await.is_err() {
        assert!(Instant::now() < deadline);
    }
    let mut stranger = bus.subscribe(Queue::assignments(&server("stranger")));
    assert_eq!(hear(&mut stranger, 1).await, [1]);
    process.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_that_no_queue_takes_hold_up_nobody_else() {
    // Given an outbox whose first thousands of messages are for a server that has no queue,
    let broker = Broker::start().await.unwrap();
    let process = Process::for_test("outbox");
    let bus = Bus::start(&broker.config(), "orchestrator", &process).unwrap();
    bus.connected().await;
    bus.declare_assignment_queue(&server("recorder-1")).await.unwrap();
    let rows = Rows::default();
    for number in 1..=2000 {
        rows.push(assignment("stranger", number));
    }
    rows.push(assignment("recorder-1", 1));
    // when it is sent,
    outbox::pump(bus.clone(), rows.clone(), Arc::new(Notify::new()), &process);
    // then the one behind them arrives.
    let mut heard = bus.subscribe(Queue::assignments(&server("recorder-1")));
    assert_eq!(hear(&mut heard, 1).await, [1]);
    process.finish().await;
}
