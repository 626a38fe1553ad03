//! The bus against a real RabbitMQ: one broker for each story.

#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use std::time::Duration;

use tokio::time::Instant;
use understudy_bus::{
    BrokerConfig, Bus, Incoming, Link, Message, PublishError, Queue, RequestError, Subscription,
    testing::Broker,
};
use understudy_core::{
    assignment::{Assignment, Epoch, Role},
    authority::Word,
    contract::{
        event::{Event, Fact},
        names,
    },
    ids::{DomainId, ServerId},
    time::Timestamp,
};
use understudy_runtime::{Process, TraceContext};

/// Generous: a loaded machine is slow, and a wrong answer comes at once.
const SOON: Duration = Duration::from_secs(30);

fn server(id: &str) -> ServerId {
    ServerId::new(id).unwrap()
}

fn assignment(id: &str, number: u64) -> Assignment {
    Assignment {
        server: server(id),
        epoch: Epoch { term: 1, number },
        role: Role::Standby,
        erase: Default::default(),
        erase_up_to: Default::default(),
    }
}

fn fact(id: &str) -> Fact {
    Fact {
        domain: DomainId::new("east").unwrap(),
        at: Timestamp(1_790_000_000_123),
        event: Event::ServerDisconnected { server: server(id) },
    }
}

async fn connected(broker: &BrokerConfig, name: &str, process: &Process) -> Bus {
    let bus = Bus::start(broker, name, process).unwrap();
    assert!(
        tokio::time::timeout(SOON, bus.connected())
            .await
            .expect("the broker is there")
    );
    bus
}

async fn next(subscription: &mut Subscription) -> Incoming {
    tokio::time::timeout(SOON, subscription.next())
        .await
        .expect("a message arrives")
        .expect("the process runs")
}

/// Waits until the queue of dead letters has one. RabbitMQ counts a quorum queue's messages every few seconds.
async fn until_one_is_dead(broker: &Broker) {
    let deadline = Instant::now() + SOON;
    loop {
        let queues = broker
            .control(&["list_queues", "name", "messages"])
            .await
            .unwrap();
        if queues
            .lines()
            .any(|line| line.split_whitespace().eq(["understudy.dead", "1"]))
        {
            return;
        }
        assert!(Instant::now() < deadline, "{queues}");
    }
}

/// Publishes until it goes through, as an outbox would.
async fn insist(bus: &Bus, message: Message) {
    let deadline = Instant::now() + SOON;
    while let Err(error) = bus.publish(message.clone()).await {
        assert!(Instant::now() < deadline, "{error}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_arrive_as_they_were_sent_and_a_returned_one_is_a_failure() {
    let broker = Broker::start().await.unwrap();
    let process = Process::for_test("bus");
    let sender = connected(&broker.config(), "orchestrator", &process).await;
    let receiver = connected(&broker.config(), "ingest/recorder-1", &process).await;

    // A fact reaches who listens for such facts, as a CloudEvent.
    let mut facts = receiver.subscribe(Queue::events(&["*.server.*"]));
    facts.consuming().await;
    let cause = TraceContext::root();
    let message = cause.scope(async { Message::fact(&fact("recorder-1")) }).await;
    sender.publish(message.clone()).await.unwrap();
    let heard = next(&mut facts).await;
    assert_eq!(
        heard.trace, message.trace,
        "a receiver knows which step it answers to"
    );
    assert_eq!(heard.trace.trace_id(), cause.trace_id());
    assert_eq!(heard.fact().unwrap(), fact("recorder-1"));
    assert_eq!(
        (heard.kind.as_str(), heard.subject.as_str()),
        ("server.disconnected", "recorder-1")
    );
    assert_eq!(
        (heard.routing_key.as_str(), heard.source.as_str()),
        ("east.server.disconnected", "/understudy/orchestrator")
    );
    assert_eq!(
        std::str::from_utf8(&heard.body).unwrap(),
        r#"{"server":"recorder-1"}"#
    );

    // An assignment that no queue takes is a failure, also among many that arrive.
    sender
        .declare_assignment_queue(&server("recorder-1"))
        .await
        .unwrap();
    let mixed = (0..200).map(|number| {
        let to = if number % 7 == 3 { "nobody" } else { "recorder-1" };
        let sender = sender.clone();
        async move {
            (
                to,
                sender.publish(Message::assignment(&assignment(to, number))).await,
            )
        }
    });
    for (to, result) in futures::future::join_all(mixed).await {
        let unroutable = matches!(result, Err(PublishError::Unroutable { .. }));
        assert_eq!(to == "nobody", unroutable, "{to}: {result:?}");
        assert!(unroutable || result.is_ok(), "{result:?}");
    }

    // They were kept for the server, and the next start hears what was not acknowledged.
    let expected: Vec<u64> = (0..200).filter(|number| number % 7 != 3).collect();
    let mut assignments = receiver.subscribe(Queue::assignments(&server("recorder-1")));
    let mut numbers = Vec::new();
    for _ in &expected {
        let heard = next(&mut assignments).await;
        let number = heard.json::<Assignment>().unwrap().epoch.number;
        assert!(!heard.redelivered);
        if number != 151 {
            heard.ack().await;
        }
        numbers.push(number);
    }
    numbers.sort_unstable();
    assert_eq!(numbers, expected);
    drop(assignments);
    let mut again = receiver.subscribe(Queue::assignments(&server("recorder-1")));
    let heard = next(&mut again).await;
    assert_eq!(heard.json::<Assignment>().unwrap().epoch.number, 151);
    assert!(heard.redelivered);

    // What can't be handled goes aside with its reason, and is not handed out again.
    heard.dead("no such role").await;
    until_one_is_dead(&broker).await;

    process.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_goes_on_after_the_broker_was_absent_killed_and_started_again() {
    // Given processes that start before their broker does.
    let mut broker = Broker::start().await.unwrap();
    broker.kill();
    let process = Process::for_test("bus");
    let sender = Bus::start(&broker.config(), "orchestrator", &process).unwrap();
    let receiver = Bus::start(&broker.config(), "ingest/recorder-1", &process).unwrap();
    let mut facts = receiver.subscribe(Queue::events(&["#"]));
    let mut assignments = receiver.subscribe(Queue::assignments(&server("recorder-1")));
    receiver.serve("echo", |text: String| async move { text }, &process);

    // Then they say what they wait for, without the password, and nothing is queued in secret.
    let refused = sender.publish(Message::fact(&fact("recorder-1"))).await;
    assert!(matches!(refused, Err(PublishError::Down(_))), "{refused:?}");
    let mut waiting = String::new();
    let deadline = Instant::now() + SOON;
    while waiting.is_empty() || waiting.contains("starting") {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(20)).await;
        waiting = format!("{:?}", process.waiting_for());
    }
    assert!(
        waiting.contains("broker") && waiting.contains("understudy@127.0.0.1"),
        "{waiting}"
    );
    let url = broker.url();
    let password = url.split([':', '@']).nth(2).unwrap();
    assert!(!waiting.contains(password), "{waiting}");

    for life in 0..3_u64 {
        // When the broker comes, or comes back after it was killed,
        broker.restart().await.unwrap();
        tokio::time::timeout(SOON, facts.consuming()).await.unwrap();
        insist(&sender, Message::assignment(&assignment("recorder-1", life))).await;
        insist(&sender, Message::fact(&fact("recorder-1"))).await;

        // then what is sent is heard, whatever was not acknowledged is heard again,
        assert_eq!(next(&mut facts).await.fact().unwrap(), fact("recorder-1"));
        loop {
            let heard = next(&mut assignments).await;
            let number = heard.json::<Assignment>().unwrap().epoch.number;
            assert!(number == life || heard.redelivered);
            // The last of the first life is left unacknowledged.
            if life > 0 {
                heard.ack().await;
            }
            if number == life {
                break;
            }
        }
        // and requests are answered.
        let answer = sender
            .request::<_, String>("echo", &"hello".to_owned(), SOON)
            .await;
        let answer = match answer {
            // Its queue may come back a moment later than ours.
            Err(RequestError::NobodyThere(_)) => loop {
                tokio::time::sleep(Duration::from_millis(50)).await;
                if let Ok(answer) = sender
                    .request::<_, String>("echo", &"hello".to_owned(), SOON)
                    .await
                {
                    break Ok(answer);
                }
            },
            other => other,
        };
        assert_eq!(answer.unwrap(), "hello");
        assert!(process.waiting_for().is_empty(), "{:?}", process.waiting_for());
        if life == 0 {
            // RabbitMQ 3.10 elects no leader of a quorum queue that was declared within the last half second
            // before it was killed, so the first end is an orderly one.
            broker.stop().await;
        } else {
            broker.kill();
        }
        let mut link = sender.link();
        let down = link.wait_for(|link| matches!(link, Link::Down { .. }));
        tokio::time::timeout(SOON, down)
            .await
            .expect("a killed broker is noticed")
            .unwrap();
    }

    // And a process ends in order while there is no broker.
    let before = Instant::now();
    process.finish().await;
    assert!(before.elapsed() < Duration::from_secs(5));
    assert!(facts.next().await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_answered_or_fails_with_the_reason_in_time() {
    let broker = Broker::start().await.unwrap();
    let asking = Process::for_test("asking");
    let serving = Process::for_test("serving");
    let asker = connected(&broker.config(), "console", &asking).await;
    let server = connected(&broker.config(), "orchestrator", &serving).await;
    let ask = async |text: &str, deadline| {
        asker
            .request::<_, usize>("length", &text.to_owned(), deadline)
            .await
    };

    // Nobody serves: known at once, not at the deadline.
    let before = Instant::now();
    assert_eq!(
        ask("ladder", SOON).await,
        Err(RequestError::NobodyThere("length".to_owned()))
    );
    assert!(before.elapsed() < SOON / 2);

    // Served, many at once, each with its own answer.
    let handler = |text: String| async move {
        if text == "slow" {
            tokio::time::sleep(Duration::from_secs(3600)).await;
        }
        text.len()
    };
    server.serve("length", handler, &serving);
    let deadline = Instant::now() + SOON;
    while ask("a", SOON).await.is_err() {
        assert!(Instant::now() < deadline, "the service comes up");
    }
    let texts: Vec<String> = (0..100).map(|length| "x".repeat(length)).collect();
    let answers = futures::future::join_all(texts.iter().map(|text| ask(text, SOON))).await;
    assert!(
        answers
            .iter()
            .enumerate()
            .all(|(length, answer)| *answer == Ok(length)),
        "{answers:?}"
    );

    // Too slow, not understood, or gone in the middle: each is told apart.
    let short = Duration::from_millis(200);
    assert_eq!(ask("slow", short).await, Err(RequestError::Deadline(short)));
    let wrong = asker.request::<_, usize>("length", &7, SOON).await;
    assert!(matches!(wrong, Err(RequestError::Malformed(_))), "{wrong:?}");
    let wrong = asker
        .request::<_, Vec<String>>("length", &"a".to_owned(), SOON)
        .await;
    assert!(matches!(wrong, Err(RequestError::Malformed(_))), "{wrong:?}");

    // The service ends: known at once again.
    tokio::time::timeout(Duration::from_secs(1), serving.finish())
        .await
        .ok();
    drop(server);
    let deadline = Instant::now() + SOON;
    while ask("a", short).await != Err(RequestError::NobodyThere("length".to_owned())) {
        assert!(Instant::now() < deadline, "its queue goes with it");
    }
    asking.finish().await;
}

/// What `understudy_bus_connected` shows.
fn shown(process: &Process) -> f64 {
    let families = process.registry().gather();
    let family = families
        .iter()
        .find(|family| family.name() == "understudy_bus_connected")
        .expect("it is shown");
    family.get_metric()[0].get_gauge().get_value()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_hangs_or_is_short_of_memory_is_told_apart() {
    let broker = Broker::start().await.unwrap();
    let process = Process::for_test("bus");
    let bus = connected(&broker.config(), "orchestrator", &process).await;
    let message = || Message::fact(&fact("recorder-1"));
    bus.publish(message()).await.unwrap();
    assert_eq!(shown(&process), 1.0);

    // Hangs: the confirm is waited for, but not for ever; then the connection is given up.
    broker.freeze();
    let result = bus.publish(message()).await;
    assert!(
        matches!(result, Err(PublishError::Deadline | PublishError::Down(_))),
        "{result:?}"
    );
    let mut link = bus.link();
    let down = link.wait_for(|link| matches!(link, Link::Down { .. }));
    tokio::time::timeout(Duration::from_secs(60), down)
        .await
        .expect("missed heartbeats are noticed")
        .unwrap();
    assert_eq!(shown(&process), 0.0);
    broker.thaw();
    assert!(tokio::time::timeout(SOON, bus.connected()).await.unwrap());
    insist(&bus, message()).await;

    // Short of memory: it says so to who publishes, and nobody waits for a confirm that can't come.
    broker
        .control(&["set_vm_memory_high_watermark", "absolute", "1MB"])
        .await
        .unwrap();
    let deadline = Instant::now() + SOON;
    let blocked = loop {
        match bus.publish(message()).await {
            Err(PublishError::Blocked(why)) => break why,
            _ => assert!(Instant::now() < deadline, "an alarm is noticed"),
        }
    };
    assert!(blocked.contains("memory"), "{blocked}");
    assert!(matches!(&*bus.link().borrow(), Link::Blocked { .. }));
    assert_eq!(shown(&process), 0.0, "no message gets through");
    assert!(process.waiting_for()["broker"].contains("takes no messages"));
    broker
        .control(&["set_vm_memory_high_watermark", "0.4"])
        .await
        .unwrap();
    assert!(tokio::time::timeout(SOON, bus.connected()).await.unwrap());
    assert_eq!(shown(&process), 1.0);
    insist(&bus, message()).await;
    process.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_assignment_queue_is_what_the_contract_says() {
    let broker = Broker::start().await.unwrap();
    let process = Process::for_test("bus");
    let bus = connected(&broker.config(), "orchestrator", &process).await;
    bus.declare_assignment_queue(&server("recorder-1")).await.unwrap();
    bus.declare_assignment_queue(&server("recorder-1")).await.unwrap();
    let queues = broker
        .control(&["list_queues", "name", "arguments"])
        .await
        .unwrap();
    let queue = queues
        .lines()
        .find(|line| line.starts_with("understudy.assignments.recorder-1"))
        .unwrap();
    for argument in [
        r#"{"x-queue-type","quorum"}"#,
        r#"{"x-overflow","reject-publish"}"#,
        r#"{"x-single-active-consumer",true}"#,
        r#"{"x-delivery-limit",20}"#,
        r#"{"x-dead-letter-exchange","understudy.dead"}"#,
        r#"{"x-dead-letter-strategy","at-least-once"}"#,
    ] {
        assert!(queue.contains(argument), "{argument} in {queue}");
    }

    // A message that its consumer never survives goes aside after twenty attempts.
    bus.publish(Message::assignment(&assignment("recorder-1", 1)))
        .await
        .unwrap();
    for attempt in 0..=20 {
        let mut starts = bus.subscribe(Queue::assignments(&server("recorder-1")));
        let heard = next(&mut starts).await;
        assert_eq!(heard.redelivered, attempt > 0);
    }
    until_one_is_dead(&broker).await;
    process.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_assignment_is_delivered_within_milliseconds() {
    let broker = Broker::start().await.unwrap();
    let process = Process::for_test("bus");
    let sender = connected(&broker.config(), "orchestrator", &process).await;
    let receiver = connected(&broker.config(), "ingest", &process).await;
    sender
        .declare_assignment_queue(&server("recorder-1"))
        .await
        .unwrap();
    let mut assignments = receiver.subscribe(Queue::assignments(&server("recorder-1")));
    assignments.consuming().await;
    let mut took = Vec::new();
    for number in 0..200 {
        let before = Instant::now();
        let publish = sender.publish(Message::assignment(&assignment("recorder-1", number)));
        let (published, heard) = tokio::join!(publish, next(&mut assignments));
        took.push(before.elapsed());
        published.unwrap();
        heard.ack().await;
    }
    took.sort();
    println!("median {:?}, 95 of 100 within {:?}", took[100], took[190]);
    // A few milliseconds on a machine at rest; polling anywhere, or Nagle's algorithm, would show as 40 or more.
    assert!(took[100] < Duration::from_millis(30), "median {:?}", took[100]);
    process.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_fence_reaches_every_queue_and_a_new_consumption_has_a_higher_number() {
    let broker = Broker::start().await.unwrap();
    let process = Process::for_test("bus");
    let sender = connected(&broker.config(), "orchestrator", &process).await;
    // Given two servers that the sender has never heard of: their queues are made by themselves.
    let first = connected(&broker.config(), "ingest", &process).await;
    let mut queues = Vec::new();
    for id in ["recorder-1", "recorder-2"] {
        let mut queue = first.subscribe(Queue::assignments(&server(id)));
        queue.consuming().await;
        queues.push(queue);
    }
    sender.publish(Message::fence()).await.unwrap();
    for queue in &mut queues {
        let heard = next(queue).await;
        assert_eq!(heard.kind, names::RIGHT_TYPE);
        let word: Word = heard.json().unwrap();
        assert_eq!(word, Word::Revoke);
        assert_eq!((heard.consumption, *queue.consumption().borrow()), (1, Some(1)));
    }

    // When the broker's connection is lost, what was not acknowledged comes again, by another consumption.
    broker.control(&["close_all_connections", "test"]).await.unwrap();
    for queue in &mut queues {
        let heard = next(queue).await;
        assert!(heard.redelivered);
        assert!(heard.consumption > 1, "{}", heard.consumption);
        heard.ack().await;
    }
    process.finish().await;
}
