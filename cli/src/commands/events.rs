//! `understudy events`.

use clap::Args;
use futures::{Stream, TryStreamExt};
use tokio_util::{
    codec::{FramedRead, LinesCodec},
    io::StreamReader,
};
use understudy_core::{
    contract::event::Fact,
    ids::{DomainId, ServerId},
};

use crate::{
    client::{Api, Connection},
    failure::Failure,
    output::{Output, time},
};

/// The longest line of a stream: an event with the ids of thousands of cameras.
const LINE_MAX: usize = 1024 * 1024;

#[derive(Debug, Args)]
pub(crate) struct EventsArgs {
    /// Only these, e.g. failover.started or 'failover.*'
    names: Vec<String>,
    /// The same
    #[arg(long, value_name = "NAME")]
    name: Vec<String>,
    /// Only of this domain; may be given several times
    #[arg(long)]
    domain: Vec<DomainId>,
    /// Only those in which this server takes part; may be given several times
    #[arg(long)]
    server: Vec<ServerId>,
    /// Not from before: a time such as 2026-11-28T08:00:00Z, or how long ago, such as 10m
    #[arg(long, value_parser = since)]
    since: Option<jiff::Timestamp>,
    /// Go on with what happens from now on, until interrupted
    #[arg(long, short)]
    follow: bool,
}

pub(crate) async fn run(connection: &Connection, arguments: EventsArgs) -> Result<(), Failure> {
    let (api, output) = (connection.client()?, connection.output());
    let query = query(&arguments);
    if arguments.follow {
        return follow(&api, output, &query).await;
    }
    let facts = api.list_events(&query).await?;
    if facts.is_empty() {
        return output.done("nothing happened since the console was started");
    }
    facts.iter().try_for_each(|fact| tell(output, fact))
}

fn query(arguments: &EventsArgs) -> Vec<(&'static str, String)> {
    let names = arguments.names.iter().chain(&arguments.name);
    let names = names.map(|name| ("name", name.clone()));
    let domains = arguments
        .domain
        .iter()
        .map(|domain| ("domain", domain.to_string()));
    let servers = arguments
        .server
        .iter()
        .map(|server| ("server", server.to_string()));
    let since = arguments.since.iter().map(|since| ("since", since.to_string()));
    names.chain(domains).chain(servers).chain(since).collect()
}

/// A time, or how long ago it was.
fn since(text: &str) -> Result<jiff::Timestamp, String> {
    if let Ok(at) = text.parse() {
        return Ok(at);
    }
    let ago = super::policy::duration(text)
        .map_err(|_| "a time such as 2026-11-28T08:00:00Z, or how long ago, such as 10m".to_owned())?;
    jiff::Timestamp::now()
        .checked_sub(ago)
        .map_err(|error| error.to_string())
}

async fn follow(api: &Api, output: Output, query: &[(&str, String)]) -> Result<(), Failure> {
    let answer = api.open("events", query).await?;
    let bytes = answer.bytes_stream().map_err(std::io::Error::other);
    let mut facts = std::pin::pin!(facts(StreamReader::new(bytes)));
    while let Some(fact) = facts.try_next().await? {
        tell(output, &fact)?;
    }
    Err(Failure::Failed("the console ended the stream".into()))
}

/// The facts of a stream of server-sent events: what stands after `data:`, up to the empty line (WHATWG HTML,
/// section 9.2.6). Comments keep the connection alive, names and ids are in the data too.
fn facts(stream: impl tokio::io::AsyncRead) -> impl Stream<Item = Result<Fact, Failure>> {
    let lines = FramedRead::new(stream, LinesCodec::new_with_max_length(LINE_MAX));
    lines
        .map_err(Failure::while_doing("the stream of events broke off"))
        .try_filter_map(|line| std::future::ready(Ok(line.strip_prefix("data:").map(str::to_owned))))
        .and_then(|data| {
            let fact = serde_json::from_str(&data);
            std::future::ready(fact.map_err(Failure::while_doing(
                "an event can't be read; is it of another version?",
            )))
        })
}

fn tell(output: Output, fact: &Fact) -> Result<(), Failure> {
    output.item(fact, |fact| {
        format!(
            "{}  {:<12}{:<26}{}",
            time(fact.at),
            fact.domain,
            fact.event.name(),
            about(fact)
        )
    })
}

/// What it is about: servers say more to a person than a failover's id, which is there as well.
fn about(fact: &Fact) -> String {
    let subject = fact.event.subject();
    let json = serde_json::to_value(&fact.event).unwrap_or_default();
    let field = |name: &str| json["data"][name].as_str().filter(|text| *text != subject);
    let stand_in = field("stand_in").map(|stand_in| format!(" → {stand_in}"));
    match field("server") {
        Some(server) => format!("{server}{}  {subject}", stand_in.unwrap_or_default()),
        None => subject.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;

    use super::*;

    #[test]
    fn an_event_of_a_failover_names_its_servers() {
        let fact = |name: &str, data: serde_json::Value| -> Fact {
            let json = serde_json::json!({ "domain": "east", "at": 5, "name": name, "data": data });
            serde_json::from_value(json).expect("a fact")
        };
        let restoring = fact(
            "failover.restoring",
            serde_json::json!({ "failover": "f", "server": "recorder-1", "stand_in": "standby-1" }),
        );
        assert_eq!(about(&restoring), "recorder-1 → standby-1  f");
        let recovered = fact("server.recovered", serde_json::json!({ "server": "recorder-1" }));
        assert_eq!(about(&recovered), "recorder-1");
    }

    #[test]
    fn since_is_a_time_or_how_long_ago() {
        let at = since("2026-11-28T08:00:00Z").expect("a time");
        assert_eq!(at.as_second(), 1_795_852_800);
        assert!(since("10m").expect("a duration") < jiff::Timestamp::now());
        assert!(since("yesterday").expect_err("neither").contains("10m"));
    }

    #[tokio::test]
    async fn a_stream_is_read_over_comments_and_split_where_it_may_be() {
        let text = ":\n\nevent:server.recovered\ndata:{\"domain\":\"east\",\"at\":5,\"name\":\"server.recovered\",\
                    \"data\":{\"server\":\"recorder-1\"}}\nid:7\n\n:you fell 3 events behind\n\n";
        let parts = text
            .as_bytes()
            .chunks(11)
            .map(|part| Ok::<_, std::io::Error>(bytes::Bytes::from(part.to_vec())));
        let read: Vec<_> = facts(StreamReader::new(futures::stream::iter(parts)))
            .collect()
            .await;
        assert_eq!(read.len(), 1);
        let fact = read[0].as_ref().expect("a fact");
        assert_eq!(
            (fact.event.name(), fact.event.subject()),
            ("server.recovered", "recorder-1")
        );
    }
}
