//! What the accounts of `infra/rabbitmq/accounts` may do and what they may not, asked of a real RabbitMQ.

use std::time::Duration;

use futures::StreamExt;
use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties, ErrorKind, ExchangeKind,
    options::{
        BasicConsumeOptions, BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, ExchangeBindOptions,
        ExchangeDeclareOptions, ExchangeDeleteOptions, QueueBindOptions, QueueDeclareOptions,
        QueueDeleteOptions, QueuePurgeOptions,
    },
    types::FieldTable,
};
use understudy_bus::{Bus, Message, private_broker::PrivateBroker};
use understudy_contract::accounts::Accounts;
use understudy_core::{
    contract::event::{Event, Fact},
    ids::{DomainId, ServerId},
    time::Timestamp,
};
use understudy_runtime::Process;

const PATIENCE: Duration = Duration::from_secs(30);

fn empty() -> FieldTable {
    FieldTable::default()
}

async fn connect(url: &str) -> Connection {
    Connection::connect(url, ConnectionProperties::default())
        .await
        .expect("the account may connect")
}

/// What was tried is refused for lack of rights.
async fn refused(
    connection: &Connection,
    what: &str,
    attempt: impl AsyncFnOnce(Channel) -> lapin::Result<()>,
) {
    let channel = connection.create_channel().await.expect("a channel");
    let outcome = tokio::time::timeout(PATIENCE, attempt(channel)).await;
    let error = outcome.expect("an answer").expect_err(what);
    match error.kind() {
        // 403: no right to it; 405: it is another connection's alone.
        ErrorKind::ProtocolError(said) => assert!([403, 405].contains(&said.get_id()), "{what}: {said}"),
        other => panic!("{what}: {other:?}"),
    }
}

async fn publish(channel: Channel, exchange: &str, key: &str) -> lapin::Result<()> {
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    let options = BasicPublishOptions::default();
    let sent = channel.basic_publish(
        exchange.into(),
        key.into(),
        options,
        b"{}",
        BasicProperties::default(),
    );
    sent.await?.await.map(drop)
}

async fn own_queue(channel: &Channel) -> String {
    let own = QueueDeclareOptions {
        exclusive: true,
        ..QueueDeclareOptions::default()
    };
    let queue = channel
        .queue_declare("".into(), own, empty())
        .await
        .expect("its own queue");
    queue.name().to_string()
}

async fn bind(channel: &Channel, queue: &str, exchange: &str, key: &str) -> lapin::Result<()> {
    let options = QueueBindOptions::default();
    channel
        .queue_bind(queue.into(), exchange.into(), key.into(), options, empty())
        .await
}

fn fact() -> Fact {
    Fact {
        domain: DomainId::new("east").expect("an id"),
        at: Timestamp(5),
        event: Event::ServerRecovered {
            server: ServerId::new("recorder-1").expect("an id"),
        },
    }
}

async fn publishes_nothing_and_hears_nothing_else(wall: &Connection, queue: &str) {
    for (exchange, key) in [
        ("understudy.events", "east.server.recovered"),
        ("understudy.assignments", "recorder-1"),
        ("understudy.heartbeats", "east.heartbeat.recorder-1"),
        ("understudy.rpc", "orchestrator"),
        ("understudy.dead", "any"),
        ("", "understudy.assignments.recorder-1"),
    ] {
        refused(wall, &format!("publishing to {exchange:?}"), async |channel| {
            publish(channel, exchange, key).await
        })
        .await;
    }
    for exchange in [
        "understudy.assignments",
        "understudy.heartbeats",
        "understudy.rpc",
        "understudy.dead",
    ] {
        refused(wall, &format!("listening to {exchange}"), async |channel| {
            bind(&channel, queue, exchange, "#").await
        })
        .await;
    }
}

async fn takes_nothing_and_removes_nothing(wall: &Connection) {
    for foreign in ["understudy.assignments.recorder-1", "understudy.dead"] {
        refused(wall, &format!("consuming {foreign}"), async |channel| {
            let options = BasicConsumeOptions::default();
            channel
                .basic_consume(foreign.into(), "".into(), options, empty())
                .await
                .map(drop)
        })
        .await;
        refused(wall, &format!("reading {foreign}"), async |channel| {
            channel
                .basic_get(foreign.into(), BasicGetOptions::default())
                .await
                .map(drop)
        })
        .await;
        refused(wall, &format!("emptying {foreign}"), async |channel| {
            channel
                .queue_purge(foreign.into(), QueuePurgeOptions::default())
                .await
                .map(drop)
        })
        .await;
        refused(wall, &format!("removing {foreign}"), async |channel| {
            channel
                .queue_delete(foreign.into(), QueueDeleteOptions::default())
                .await
                .map(drop)
        })
        .await;
    }
}

async fn makes_nothing(wall: &Connection) {
    refused(wall, "a queue of a name of its choice", async |channel| {
        let options = QueueDeclareOptions::default();
        channel
            .queue_declare("understudy.assignments.recorder-9".into(), options, empty())
            .await
            .map(drop)
    })
    .await;
    for exchange in ["mine", "amq.gen-mine", "understudy.mine"] {
        refused(
            wall,
            &format!("making the exchange {exchange}"),
            async |channel| {
                let options = ExchangeDeclareOptions::default();
                channel
                    .exchange_declare(exchange.into(), ExchangeKind::Topic, options, empty())
                    .await
            },
        )
        .await;
    }
    refused(wall, "removing the exchange", async |channel| {
        channel
            .exchange_delete("understudy.events".into(), ExchangeDeleteOptions::default())
            .await
    })
    .await;
    refused(wall, "tying exchanges together", async |channel| {
        let options = ExchangeBindOptions::default();
        let (to, from) = ("understudy.assignments".into(), "understudy.events".into());
        channel
            .exchange_bind(to, from, "#".into(), options, empty())
            .await
    })
    .await;
}

#[tokio::test]
async fn an_account_for_events_reads_them_and_does_nothing_else() {
    let broker = PrivateBroker::start().await.expect("RabbitMQ starts");
    let folder = tempfile::tempdir().expect("a folder");
    let names = ["orchestrator", "events.wall", "events.other"];
    // A password that somebody chose has to survive in an address.
    let passwords = Accounts::passwords(folder.path());
    std::fs::create_dir(&passwords).expect("a folder");
    std::fs::write(passwords.join("events.other"), "p@ss/w:r d%ü\n").expect("a password");
    let accounts = Accounts::make(&broker, folder.path(), &names)
        .await
        .expect("accounts");
    let wall = connect(&accounts.url("events.wall").expect("a URL")).await;
    let other = connect(&accounts.url("events.other").expect("a URL")).await;
    let process = Process::for_test("orchestrator");
    let config = understudy_bus::BrokerConfig {
        url: accounts.url("orchestrator").expect("a URL"),
        ..understudy_bus::BrokerConfig::default()
    };
    let bus = Bus::start(&config, "orchestrator", &process).expect("a bus");
    assert!(
        tokio::time::timeout(PATIENCE, bus.connected())
            .await
            .expect("it connects")
    );
    let server = ServerId::new("recorder-1").expect("an id");
    bus.declare_assignment_queue(&server)
        .await
        .expect("the orchestrator may");

    // It hears what the orchestrator tells, in a queue of its own.
    let channel = wall.create_channel().await.expect("a channel");
    let queue = own_queue(&channel).await;
    bind(&channel, &queue, "understudy.events", "east.#")
        .await
        .expect("it may bind");
    let options = BasicConsumeOptions::default();
    let consuming = channel.basic_consume(queue.as_str().into(), "".into(), options, empty());
    let mut consumer = consuming.await.expect("it may consume");
    bus.publish(Message::fact(&fact()))
        .await
        .expect("the orchestrator may");
    let heard = tokio::time::timeout(PATIENCE, consumer.next())
        .await
        .expect("in time");
    assert_eq!(
        heard.expect("one").expect("one").routing_key.as_str(),
        "east.server.recovered"
    );

    // And that is all.
    publishes_nothing_and_hears_nothing_else(&wall, &queue).await;
    takes_nothing_and_removes_nothing(&wall).await;
    makes_nothing(&wall).await;
    refused(&other, "reading another program's queue", async |channel| {
        let options = BasicGetOptions::default();
        channel.basic_get(queue.as_str().into(), options).await.map(drop)
    })
    .await;
    let right = accounts.url("events.wall").expect("a URL");
    let wrong = right.replace("events.wall:", "events.wall:x");
    assert!(
        Connection::connect(&wrong, ConnectionProperties::default())
            .await
            .is_err(),
        "a wrong password"
    );

    // A queue of a foreign program is bounded, whatever it forgot.
    let options = QueueDeclareOptions::default();
    let unbounded = other.create_channel().await.expect("a channel");
    unbounded
        .queue_declare("".into(), options, empty())
        .await
        .expect("its own queue");
    let policies = broker
        .control(&["list_queues", "name", "policy"])
        .await
        .expect("queues");
    for line in policies.lines().filter(|line| line.starts_with("amq.gen-")) {
        assert!(line.ends_with("understudy-others"), "{policies}");
    }
    process.finish().await;
}

/// Its own queue can't be made to hear what is for others.
async fn hears_nothing_for_others(server: &Connection) {
    for (exchange, key) in [
        ("understudy.rpc", "orchestrator"),
        ("understudy.assignments", "recorder-2"),
        ("understudy.heartbeats", "#"),
    ] {
        let asked = "understudy.rpc.agent.recorder-1";
        let channel = server.create_channel().await.expect("a channel");
        channel
            .queue_declare(asked.into(), QueueDeclareOptions::default(), empty())
            .await
            .expect("its own queue");
        refused(server, exchange, async |channel| {
            bind(&channel, asked, exchange, key).await
        })
        .await;
    }
}

#[tokio::test]
async fn an_account_of_a_server_is_that_servers_only() {
    let broker = PrivateBroker::start().await.expect("RabbitMQ starts");
    let folder = tempfile::tempdir().expect("a folder");
    let account = "server.east.recorder-1";
    let accounts = Accounts::make(&broker, folder.path(), &[account])
        .await
        .expect("accounts");
    let admin = connect(&broker.url()).await;
    let channel = admin.create_channel().await.expect("a channel");
    for queue in [
        "understudy.assignments.recorder-1",
        "understudy.assignments.recorder-2",
        "understudy.rpc.orchestrator",
    ] {
        let durable = QueueDeclareOptions {
            durable: true,
            ..QueueDeclareOptions::default()
        };
        channel
            .queue_declare(queue.into(), durable, empty())
            .await
            .expect("a queue");
    }
    let server = connect(&accounts.url(account).expect("a URL")).await;

    let channel = server.create_channel().await.expect("a channel");
    let own = "understudy.assignments.recorder-1";
    channel
        .basic_get(own.into(), BasicGetOptions::default())
        .await
        .expect("its own queue");
    for key in [
        "east.heartbeat.recorder-1",
        "east.report.recorder-1",
        "east.claim.recorder-1",
    ] {
        let channel = server.create_channel().await.expect("a channel");
        publish(channel, "understudy.heartbeats", key)
            .await
            .expect("its own word");
    }

    for key in [
        "east.heartbeat.recorder-2",
        "west.heartbeat.recorder-1",
        "east.observation.recorder-1",
    ] {
        refused(&server, key, async |channel| {
            publish(channel, "understudy.heartbeats", key).await
        })
        .await;
    }
    for (exchange, key) in [
        ("understudy.events", "east.failover.started"),
        ("understudy.rpc", "orchestrator"),
        ("understudy.dead", "x"),
    ] {
        refused(&server, exchange, async |channel| {
            publish(channel, exchange, key).await
        })
        .await;
    }
    for queue in [
        "understudy.assignments.recorder-2",
        "understudy.rpc.orchestrator",
        "understudy.dead",
    ] {
        refused(&server, queue, async |channel| {
            channel
                .basic_get(queue.into(), BasicGetOptions::default())
                .await
                .map(drop)
        })
        .await;
        refused(&server, queue, async |channel| {
            channel
                .queue_delete(queue.into(), QueueDeleteOptions::default())
                .await
                .map(drop)
        })
        .await;
    }
    hears_nothing_for_others(&server).await;
    refused(&server, "removing the exchange", async |channel| {
        channel
            .exchange_delete("understudy.assignments".into(), ExchangeDeleteOptions::default())
            .await
    })
    .await;
}
