//! Dead letters are looked at without being lost, replayed to where they belong, and dropped when confirmed.

use std::time::Duration;

use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties,
    options::{BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable},
};
use reqwest::Method;
use serde_json::{Value, json};
use understudy_bus::private_broker::PrivateBroker;

use crate::support::{Running, answer};

const PATIENCE: Duration = Duration::from_secs(60);

/// What a service puts aside: the message with the reason and where it came from.
async fn put_aside(channel: &Channel, queue: &str, exchange: &str, kind: &str, body: &[u8]) {
    let mut headers = FieldTable::default();
    for (name, value) in [
        ("cloudEvents:type", kind),
        ("understudy-reason", "it is garbage"),
        ("understudy-exchange", exchange),
        ("understudy-routing-key", "recorder-1"),
    ] {
        headers.insert(name.into(), AMQPValue::LongString(value.into()));
    }
    let properties = BasicProperties::default().with_headers(headers);
    publish(channel, "understudy.dead", queue, properties, body).await;
}

async fn publish(channel: &Channel, exchange: &str, key: &str, properties: BasicProperties, body: &[u8]) {
    let options = BasicPublishOptions::default();
    let sent = channel.basic_publish(exchange.into(), key.into(), options, body, properties);
    sent.await.expect("sent").await.expect("confirmed");
}

async fn listed(console: &Running, total: u64) -> Vec<Value> {
    let waited = tokio::time::timeout(PATIENCE, async {
        loop {
            let list = console.get("/dead-letters").await;
            if list.body["total"] == total {
                return list.body["letters"].as_array().expect("a list").clone();
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    waited
        .await
        .unwrap_or_else(|_| panic!("there are not {total} dead letters"))
}

fn path(letter: &Value) -> String {
    format!("/dead-letters/{}", letter["id"].as_str().expect("an id"))
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "one letter's whole story")]
async fn dead_letters_are_looked_at_replayed_and_dropped() {
    let broker = PrivateBroker::start().await.expect("RabbitMQ starts");
    let console = Running::start(&broker.config()).await;
    listed(&console, 0).await;
    let url = broker.url();
    let connection = Connection::connect(&url, ConnectionProperties::default())
        .await
        .expect("a connection");
    let channel = connection.create_channel().await.expect("a channel");
    channel
        .confirm_select(ConfirmSelectOptions::default())
        .await
        .expect("confirms");

    // Given what a service put aside, twice the same, what the broker put aside, and what says nothing of itself,
    let queue = "understudy.assignments.recorder-1";
    for body in ["one", "two", "two"] {
        put_aside(
            &channel,
            queue,
            "understudy.assignments",
            "understudy.bundle",
            body.as_bytes(),
        )
        .await;
    }
    put_aside(
        &channel,
        queue,
        "understudy.assignments",
        "understudy.right",
        b"{}",
    )
    .await;
    let mut arguments = FieldTable::default();
    arguments.insert(
        "x-dead-letter-exchange".into(),
        AMQPValue::LongString("understudy.dead".into()),
    );
    arguments.insert("x-message-ttl".into(), AMQPValue::LongLongInt(0));
    let options = QueueDeclareOptions::default();
    channel
        .queue_declare("short".into(), options, arguments)
        .await
        .expect("a queue");
    publish(&channel, "", "short", BasicProperties::default(), b"late").await;
    listed(&console, 5).await;
    publish(
        &channel,
        "understudy.dead",
        "nobody",
        BasicProperties::default(),
        &[0xff, 0],
    )
    .await;

    // when they are looked at again and again, each stays and has the same id;
    let letters = listed(&console, 6).await;
    assert_eq!(listed(&console, 6).await, letters, "looking changes nothing");
    let reasons: Vec<_> = letters
        .iter()
        .map(|letter| letter["reason"].as_str().unwrap_or_default())
        .collect();
    assert_eq!(
        reasons,
        [
            "it is garbage",
            "it is garbage",
            "it is garbage",
            "it is garbage",
            "nobody took it in time",
            "nobody said why"
        ]
    );
    assert_eq!(letters[1]["id"], letters[2]["id"], "equal in everything");
    let shown = console.get(&path(&letters[0])).await;
    assert_eq!(shown.body["body"], "one");
    assert_eq!(shown.body["headers"]["cloudEvents:type"], "understudy.bundle");
    let limited = console.get("/dead-letters?limit=2").await;
    assert_eq!(
        (
            &limited.body["total"],
            limited.body["letters"].as_array().map(Vec::len)
        ),
        (&json!(6), Some(2))
    );
    console
        .get("/dead-letters?limit=0")
        .await
        .is_problem(400, "invalid", "1 to 1000");
    console
        .get("/dead-letters/0")
        .await
        .is_problem(404, "not-found", "no dead letter 0");

    // one whose queue is gone, one about the right to act and one of unknown origin are not replayed and stay;
    let replay = async |letter: &Value| {
        answer(console.request(Method::POST, &format!("{}/replay", path(letter)))).await
    };
    replay(&letters[0])
        .await
        .is_problem(409, "conflict", "nobody takes it any more");
    replay(&letters[3])
        .await
        .is_problem(409, "conflict", "right to act");
    replay(&letters[5])
        .await
        .is_problem(409, "conflict", "where it came from");
    listed(&console, 6).await;

    // one whose queue is there arrives in it as it was, and is a dead letter no more;
    channel
        .queue_declare(queue.into(), options, FieldTable::default())
        .await
        .expect("a queue");
    assert_eq!(replay(&letters[1]).await.status, 200);
    listed(&console, 5).await;
    let got = channel
        .basic_get(queue.into(), BasicGetOptions::default())
        .await
        .expect("an answer");
    let got = got.expect("it arrived").delivery;
    assert_eq!(got.data, b"two");
    let headers = got.properties.headers().clone().unwrap_or_default();
    assert!(headers.inner().contains_key("cloudEvents:type"));
    assert!(!headers.inner().contains_key("understudy-reason"), "{headers:?}");

    // and one is dropped only when what is lost was confirmed.
    let refused = answer(console.request(Method::DELETE, &path(&letters[2]))).await;
    refused.is_problem(409, "to-be-confirmed", "would be lost for good");
    listed(&console, 5).await;
    let token = refused.body["confirmation"].as_str().expect("a token");
    let confirmed = format!("{}?confirmation={token}", path(&letters[2]));
    assert_eq!(
        answer(console.request(Method::DELETE, &confirmed)).await.status,
        200
    );
    let left = listed(&console, 4).await;
    assert!(left.iter().all(|letter| letter["id"] != letters[2]["id"]));
    console.process.finish().await;
}
