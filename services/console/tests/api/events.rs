//! Facts from the bus, followed over HTTP.

use std::time::Duration;

use futures::StreamExt;
use reqwest::Method;
use understudy_bus::{Bus, Link, Message, private_broker::PrivateBroker};
use understudy_core::{
    contract::event::{Event, Fact},
    ids::{DomainId, ServerId},
    time::Timestamp,
};
use understudy_runtime::Process;

use crate::support::{Running, answer};

/// Far longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn fact(server: &str, recovered: bool) -> Fact {
    let server = ServerId::new(server).expect("an id");
    let event = if recovered {
        Event::ServerRecovered { server }
    } else {
        Event::ServerDisconnected { server }
    };
    Fact {
        domain: DomainId::new("east").expect("an id"),
        at: Timestamp(5),
        event,
    }
}

/// Publishes until the console has heard of it: its queue may not be there yet.
async fn heard(console: &Running, bus: &Bus, fact: &Fact) {
    let known = async || {
        let list = answer(
            console
                .request(Method::GET, "/events")
                .header("accept", "application/json"),
        )
        .await;
        list.body.as_array().map_or(0, Vec::len)
    };
    let waited = tokio::time::timeout(PATIENCE, async {
        while known().await == 0 {
            let _not_connected_yet = bus.publish(Message::fact(fact)).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    waited.await.expect("the console hears of it");
}

/// Reads the stream up to where it has `count` events.
async fn read(response: reqwest::Response, count: usize) -> String {
    let mut text = String::new();
    let mut parts = response.bytes_stream();
    let whole = tokio::time::timeout(PATIENCE, async {
        while text.matches("\ndata:").count() < count {
            let part = parts.next().await.expect("the stream goes on").expect("bytes");
            text.push_str(&String::from_utf8_lossy(&part));
        }
    });
    whole
        .await
        .unwrap_or_else(|_| panic!("{count} events don't come, but: {text}"));
    text
}

#[tokio::test]
async fn f1_events_are_followed_as_they_happen() {
    let broker = PrivateBroker::start().await.expect("RabbitMQ starts");
    let console = Running::start(&broker.config()).await;
    let process = Process::for_test("orchestrator");
    let bus = Bus::start(&broker.config(), "orchestrator", &process).expect("a bus");
    let mut link = bus.link();
    link.wait_for(|link| matches!(link, Link::Up))
        .await
        .expect("it connects");
    heard(&console, &bus, &fact("before", false)).await;

    // Given two readers, of which one wants recoveries only and nothing of before,
    let all = console
        .request(Method::GET, "/events")
        .send()
        .await
        .expect("a stream");
    assert_eq!(all.headers()["content-type"], "text/event-stream");
    let some = console.request(Method::GET, "/events?name=server.recovered&recent=false");
    let some = some.send().await.expect("a stream");

    // when more happens,
    bus.publish(Message::fact(&fact("lost", false)))
        .await
        .expect("published");
    bus.publish(Message::fact(&fact("found", true)))
        .await
        .expect("published");

    // then each hears what it wants.
    let some = read(some, 1).await;
    assert!(
        some.contains("event:server.recovered") && some.contains("\"found\""),
        "{some}"
    );
    assert!(!some.contains("lost") && !some.contains("before"), "{some}");
    let all = read(all, 3).await;
    let place = |word: &str| {
        all.find(word)
            .unwrap_or_else(|| panic!("{word} is missing: {all}"))
    };
    assert!(
        place("before") < place("lost") && place("lost") < place("found"),
        "{all}"
    );

    // And who was cut off goes on after the last that it had.
    let last = all
        .lines()
        .filter_map(|line| line.strip_prefix("id:"))
        .nth(all.matches("\nid:").count() - 2);
    let again = console
        .request(Method::GET, "/events")
        .header("last-event-id", last.expect("an id"));
    let again = read(again.send().await.expect("a stream"), 1).await;
    assert!(again.contains("found") && !again.contains("lost"), "{again}");

    // A shutdown ends the streams, so that the console can end.
    console.process.finish().await;
    process.finish().await;
}
