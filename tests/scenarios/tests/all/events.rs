//! Other programs follow a whole failover, harm nobody, and each service has an account with the least rights.

use std::{
    collections::BTreeSet,
    ops::RangeBounds,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties,
    options::{
        BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, QueueBindOptions, QueueDeclareOptions,
    },
    types::{AMQPValue, FieldTable},
};
use tokio::process::{Child, Command};
use understudy_contract::accounts::Accounts;
use understudy_core::{contract::api::Phase, policy::Policy};
use understudy_demo::rig::{Plan, Rig, eventually};
use understudy_runtime::testing::left_out;
use understudy_scenarios::{Fleet, PATIENCE, command_line::told, executable, folder, plan};

/// A policy under which a server that is back gets everything back unasked, and those who look for one that is missed
/// have answered before it is failed over.
fn by_itself() -> Policy {
    Policy {
        stop_automatically: true,
        disconnection_ms: 2000,
        ..plan().policy
    }
}

/// A program outside, and what it says.
struct Follower {
    child: Child,
    said: PathBuf,
    noted: PathBuf,
}

impl Follower {
    /// Starts it, and waits until it follows.
    async fn start(mut command: Command, url: &str, folder: &Path, name: &str) -> anyhow::Result<Self> {
        let (said, noted) = (
            folder.join(format!("{name}.out")),
            folder.join(format!("{name}.err")),
        );
        let child = command
            .env("AMQP_URL", url)
            .args(["--until", "failover.completed", "*.failover.*"])
            .stdin(Stdio::null())
            .stdout(std::fs::File::create(&said)?)
            .stderr(std::fs::File::create(&noted)?)
            .kill_on_drop(true)
            .spawn()?;
        let follower = Self { child, said, noted };
        follower.notes("following").await?;
        Ok(follower)
    }

    /// Waits until it has noted this.
    async fn notes(&self, what: &str) -> anyhow::Result<()> {
        Ok(eventually(
            &format!("{what:?}"),
            PATIENCE,
            async || match std::fs::read_to_string(&self.noted) {
                Ok(text) if text.contains(what) => Ok(()),
                other => Err(format!("{other:?}")),
            },
        )
        .await?)
    }

    /// Waits until it ends by itself, and gives what it said, line by line.
    async fn story(mut self) -> anyhow::Result<Vec<String>> {
        let ended = tokio::time::timeout(PATIENCE, self.child.wait()).await;
        let text = std::fs::read_to_string(&self.said)?;
        anyhow::ensure!(
            matches!(ended, Ok(Ok(status)) if status.success()),
            "{ended:?}: {text}"
        );
        Ok(text.lines().map(str::to_owned).collect())
    }
}

/// `understudy events --follow`, with what it is to choose; its lines go into the file.
fn follows(rig: &Rig, said: &Path, arguments: &[&str]) -> anyhow::Result<Child> {
    Ok(Command::new(executable())
        .args(["events", "--follow"])
        .args(arguments)
        .env("UNDERSTUDY_URL", format!("http://{}", rig.api_address))
        .stdin(Stdio::null())
        .stdout(std::fs::File::create(said)?)
        .kill_on_drop(true)
        .spawn()?)
}

/// Waits until this stands in the file, and gives its lines.
async fn lines_with(file: &Path, what: &str) -> anyhow::Result<Vec<String>> {
    let wanted = format!("{what:?} in {}", file.display());
    let text = eventually(&wanted, PATIENCE, async || match std::fs::read_to_string(file) {
        Ok(text) if text.contains(what) => Ok(text),
        other => Err(format!("{other:?}")),
    });
    Ok(text.await?.lines().map(str::to_owned).collect())
}

/// The line of this step, and the place that it has in the story.
fn step<'a>(story: &'a [String], what: &str) -> anyhow::Result<(usize, &'a str)> {
    let found = story.iter().enumerate().find(|(_, line)| line.contains(what));
    let (place, line) = found.ok_or_else(|| anyhow::anyhow!("{what:?} is missing in {story:#?}"))?;
    Ok((place, line.as_str()))
}

fn in_order(story: &[String]) -> anyhow::Result<()> {
    let mut last = 0;
    for what in ["STARTED", "SERVING", "RESTORING", "COMPLETED"] {
        let (place, line) = step(story, what)?;
        anyhow::ensure!(place >= last, "{what} comes too early: {story:#?}");
        anyhow::ensure!(line.contains("recorder-1 → failover-1"), "{line}");
        last = place;
    }
    Ok(())
}

/// The example in Python, or why it can't be run.
fn in_python() -> Result<Command, &'static str> {
    let project = Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .expect("the project");
    let python = project.join("target/tools/python/bin/python");
    let with_pika = std::process::Command::new(&python)
        .args(["-c", "import pika"])
        .output();
    if !with_pika.is_ok_and(|run| run.status.success()) {
        return Err("the example consumer in Python: scripts/tools could not install pika (PyPI)");
    }
    let mut command = Command::new(python);
    command.arg(project.join("docs/events/examples/follow.py"));
    Ok(command)
}

/// The example in Rust.
fn in_rust() -> Command {
    Command::new(executable().with_file_name("understudy-follow-example"))
}

/// The account of each process, by its name in the rig.
fn accounts() -> Vec<(&'static str, &'static str)> {
    vec![
        ("orchestrator", "orchestrator"),
        ("monitor", "monitor"),
        ("license", "license"),
        ("notifier", "notifier"),
        ("console", "console"),
        // Two servers' services each on its own, as units and chart have it; the third's on one together.
        ("agent@recorder-1", "agent.demo.recorder-1"),
        ("ingest@recorder-1", "ingest.demo.recorder-1"),
        ("sync@recorder-1", "sync.demo.recorder-1"),
        ("agent@failover-1", "agent.demo.failover-1"),
        ("ingest@failover-1", "ingest.demo.failover-1"),
        ("sync@failover-1", "sync.demo.failover-1"),
        ("agent@failover-2", "server.demo.failover-2"),
        ("ingest@failover-2", "server.demo.failover-2"),
        ("sync@failover-2", "server.demo.failover-2"),
    ]
}

async fn give_accounts(rig: &mut Rig, folder: &Path) -> anyhow::Result<Accounts> {
    let processes = accounts();
    let names: BTreeSet<&str> = processes.iter().map(|(_, account)| *account).collect();
    let names: Vec<&str> = names
        .into_iter()
        .chain(["events.python", "events.rust"])
        .collect();
    let made = Accounts::make(&rig.broker, folder, &names).await?;
    let host = rig.host.processes().into_iter();
    let servers = rig.servers.iter_mut();
    let servers = servers.flat_map(|server| [&mut server.agent, &mut server.ingest, &mut server.sync]);
    for process in host.chain(servers) {
        let account = processes.iter().find(|(name, _)| *name == process.name());
        let (_, account) = account.ok_or_else(|| anyhow::anyhow!("{} has no account", process.name()))?;
        process.set_environment("UNDERSTUDY_BROKER__URL", &made.url(account)?);
    }
    Ok(made)
}

/// Each process is connected by its own account.
async fn each_by_its_account(fleet: &Fleet) -> anyhow::Result<()> {
    let users = fleet.rig.broker.control(&["list_connections", "user"]).await?;
    let users: BTreeSet<&str> = users
        .lines()
        .map(str::trim)
        .filter(|user| *user != "user")
        .collect();
    for (process, account) in accounts() {
        assert!(
            users.contains(account),
            "{process} is not connected as {account}: {users:?}"
        );
    }
    Ok(())
}

/// On the command line it is told too, of the server that is `watched`; who follows another server hears none of it.
async fn told_to_people(fleet: &Fleet, watched: &Path, other: &Path) -> anyhow::Result<()> {
    // That server's failover, and nothing else that happened;
    let lines = lines_with(watched, "failover.completed").await?;
    for name in [
        "failover.started",
        "failover.serving",
        "failover.restoring",
        "failover.completed",
    ] {
        let told = lines.iter().filter(|line| line.contains(name)).count();
        assert_eq!(told, 1, "{name}: {lines:#?}");
    }
    for line in &lines {
        let chosen = line.contains(" failover.") && line.contains("recorder-1");
        assert!(chosen, "{line}: {lines:#?}");
    }
    // and whoever follows another server hears none of it, until something of that one happens.
    let meant = [
        "server",
        "maintenance",
        "failover-2",
        "--for",
        "30m",
        "--why",
        "dust",
    ];
    told(fleet, &meant).await?;
    let lines = lines_with(other, "server.maintenance_begun").await?;
    for line in &lines {
        assert!(
            line.contains("failover-2") && !line.contains("recorder-1"),
            "{lines:#?}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn a1_programs_outside_follow_a_failover_of_services_that_have_the_least_rights() -> anyhow::Result<()>
{
    // Given a fleet in which each process has an account of its own, and two programs that may only read events,
    let folder = folder()?;
    let mut rig = Rig::describe(Plan {
        folder: folder.path().to_owned(),
        policy: by_itself(),
        ..plan()
    })
    .await?;
    let place = folder.path().join("accounts");
    std::fs::create_dir(&place)?;
    let made = give_accounts(&mut rig, &place).await?;
    let mut fleet = Fleet::filming_as(rig, folder).await?;
    let rust = Follower::start(in_rust(), &made.url("events.rust")?, &place, "rust").await?;
    let python = match in_python() {
        Ok(command) => Some(Follower::start(command, &made.url("events.python")?, &place, "python").await?),
        Err(why) => {
            left_out(why);
            None
        }
    };
    // and two people who follow on the command line, each what one server takes part in,
    let (watched, other) = (place.join("watched.out"), place.join("other.out"));
    let mut follows_it = follows(&fleet.rig, &watched, &["--server", "recorder-1", "failover.*"])?;
    let mut follows_another = follows(&fleet.rig, &other, &["--server", "failover-2"])?;
    each_by_its_account(&fleet).await?;

    // when a server fails and comes back,
    fleet.rig.server("recorder-1").kill();
    let served = fleet.phase("recorder-1", Phase::Serving).await?;
    let evidence = &served.reason.evidence;
    assert!(
        evidence.iter().any(|line| line.observer == "failover-1"),
        "c7: the monitor's request reaches the agents: {evidence:?}"
    );
    let picture: serde_json::Value = fleet
        .rig
        .api
        .call(reqwest::Method::POST, "cameras/cam-001/snapshots", None::<&()>)
        .await?;
    assert_eq!(
        picture["taken_by"], "failover-1",
        "d2: and so does the console's: {picture}"
    );
    fleet.rig.server("recorder-1").start()?;
    fleet.whole_again(&["recorder-1"], 4).await?;

    // then each tells the whole story: who, why, how long.
    in_order(&rust.story().await?)?;
    if let Some(python) = python {
        let story = python.story().await?;
        in_order(&story)?;
        let (_, started) = step(&story, "STARTED")?;
        assert!(
            started.contains("because") && started.contains("silent for"),
            "{started}"
        );
        let (_, serving) = step(&story, "SERVING")?;
        assert!(
            serving.contains("4 cameras film") && serving.contains("after "),
            "{serving}"
        );
        let (_, completed) = step(&story, "COMPLETED")?;
        assert!(
            completed.contains("handed back in") && completed.contains("it lasted"),
            "{completed}"
        );
    }
    told_to_people(&fleet, &watched, &other).await?;
    for follower in [&mut follows_it, &mut follows_another] {
        assert!(
            follower.try_wait()?.is_none(),
            "it goes on until it is interrupted"
        );
        follower.kill().await?;
    }
    // And every event was as the description says.
    let heard = fleet.events.heard();
    for name in [
        "failover.started",
        "failover.serving",
        "failover.restoring",
        "failover.completed",
        "license.transferred",
        "server.disconnected",
        "server.recovered",
    ] {
        assert!(heard.events.contains_key(name), "{name} was not heard: {heard:?}");
    }
    fleet.rig.stop().await;
    Ok(())
}

/// A queue for events in a connection that acknowledges nothing.
async fn stuck(channel: &Channel, arguments: FieldTable) -> anyhow::Result<(String, lapin::Consumer)> {
    channel.basic_qos(10, BasicQosOptions::default()).await?;
    let own = QueueDeclareOptions {
        exclusive: true,
        ..QueueDeclareOptions::default()
    };
    let queue = channel.queue_declare("".into(), own, arguments).await?;
    let queue = queue.name().to_string();
    let options = QueueBindOptions::default();
    let exchange = "understudy.events".into();
    channel
        .queue_bind(
            queue.as_str().into(),
            exchange,
            "#".into(),
            options,
            FieldTable::default(),
        )
        .await?;
    let options = BasicConsumeOptions::default();
    let consumer = channel
        .basic_consume(queue.as_str().into(), "".into(), options, FieldTable::default())
        .await?;
    Ok((queue, consumer))
}

/// How many messages wait in a queue.
async fn waiting(channel: &Channel, queue: &str) -> anyhow::Result<u32> {
    let passive = QueueDeclareOptions {
        passive: true,
        ..QueueDeclareOptions::default()
    };
    let found = channel
        .queue_declare(queue.into(), passive, FieldTable::default())
        .await?;
    Ok(found.message_count())
}

/// So many messages wait where nobody bounds them.
const MILLION: u32 = 1_000_000;
/// Of these a consumer has so many at once.
const UNACKNOWLEDGED: u32 = 10;

async fn flood(channel: &Channel, queue: &str, messages: u32) -> anyhow::Result<()> {
    let body = vec![b'x'; 100];
    for _ in 0..messages {
        let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
        let sent = channel.basic_publish("".into(), queue.into(), options, &body, properties);
        // Nobody waits for confirms: it is to be fast.
        let _unconfirmed = sent.await?;
    }
    Ok(())
}

/// Waits until so many messages are in a queue.
async fn holds(
    channel: &Channel,
    queue: &str,
    messages: impl RangeBounds<u32> + std::fmt::Debug,
) -> anyhow::Result<()> {
    let what = format!("{messages:?} messages in {queue}");
    eventually(&what, PATIENCE, async || match waiting(channel, queue).await {
        Ok(many) if messages.contains(&many) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await?;
    Ok(())
}

#[tokio::test]
async fn a_consumer_that_never_acknowledges_and_a_queue_of_a_million_harm_no_failover() -> anyhow::Result<()>
{
    // Given two programs that take events and acknowledge none: one bounds its queue, the other has forgotten to,
    let policy = by_itself();
    let mut fleet = Fleet::filming(Plan { policy, ..plan() }).await?;
    let place = tempfile::tempdir()?;
    Accounts::make(&fleet.rig.broker, place.path(), &["events.stuck"]).await?;
    let connection = Connection::connect(&fleet.rig.broker.url(), ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    let mut arguments = FieldTable::default();
    arguments.insert("x-max-length".into(), AMQPValue::LongLongInt(5));
    arguments.insert("x-overflow".into(), AMQPValue::LongString("drop-head".into()));
    let (bounded, _first) = stuck(&channel, arguments).await?;
    let forgetful = connection.create_channel().await?;
    let (unbounded, _second) = stuck(&forgetful, FieldTable::default()).await?;
    // of which the second is flooded, on a broker whose operator has not imported the policy for foreign queues,
    fleet
        .rig
        .broker
        .control(&["clear_policy", "understudy-others"])
        .await?;
    let flooding = connection.create_channel().await?;
    flood(&flooding, &unbounded, MILLION).await?;
    holds(&channel, &unbounded, MILLION - UNACKNOWLEDGED..).await?;

    // when a server fails, and is flooded further meanwhile,
    fleet.rig.server("recorder-1").kill();
    let further = tokio::spawn({
        let unbounded = unbounded.clone();
        async move { flood(&flooding, &unbounded, 20_000).await.map(|()| flooding) }
    });
    let served = fleet.phase("recorder-1", Phase::Serving).await?;
    let further = further.await??;
    fleet.rig.server("recorder-1").start()?;
    fleet.whole_again(&["recorder-1"], 4).await?;

    // then the failover took no longer for it, the bounded queue is within its bound, and events are heard by others.
    let took = Duration::from_millis(served.takeover_ms.unwrap_or(u64::MAX));
    assert!(took < Duration::from_secs(10), "{took:?}");
    let heard = fleet.events.heard();
    let events: u64 = heard.events.values().sum();
    assert!(
        events >= 8 && heard.events.contains_key("failover.completed"),
        "{heard:?}"
    );
    assert!(waiting(&channel, &bounded).await? <= 5);
    holds(&channel, &unbounded, MILLION + 20_000 - UNACKNOWLEDGED..).await?;

    // With the policy the forgotten queue is within its bound, too, and stays there.
    let definitions = place.path().join("definitions.json");
    let import = ["import_definitions", &definitions.display().to_string()];
    fleet.rig.broker.control(&import).await?;
    holds(&channel, &unbounded, 90_000..=100_000).await?;
    flood(&further, &unbounded, 20_000).await?;
    holds(&channel, &unbounded, 90_000..=100_000).await?;
    fleet.rig.stop().await;
    Ok(())
}
