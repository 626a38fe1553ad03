//! `events`: server-sent events (WHATWG HTML, section 9.2), or the latest ones as a list.

use std::{convert::Infallible, sync::Arc};

use futures::{Stream, StreamExt, stream};
use tokio_stream::wrappers::{BroadcastStream, errors::BroadcastStreamRecvError as Lagged};
use understudy_core::{contract::api::Problem, time::Timestamp};
use warp::{Reply, sse};

use crate::{
    answer::{self, Outcome},
    feed::{Entry, Filter},
    http::{Api, Call},
};

/// The most values of one kind that a reader chooses by.
const CHOSEN_MAX: usize = 64;

/// Follows the events; with `Accept: application/json` lists the latest and ends.
///
/// `name=failover.*`, `domain=east` and `server=recorder-1` choose (more than once: any of them), and so does
/// `since=2026-11-28T08:00:00Z`; `recent=false` leaves out those that happened before. A reader that comes back names
/// the last that it had in `Last-Event-ID`.
pub(super) fn follow(api: &Arc<Api>, call: &Call) -> Outcome {
    let query = call.query(&["name", "domain", "server", "since", "recent"])?;
    let filter = filter(&query)?;
    let (mut recent, coming) = api.feed.read(call.header("last-event-id"));
    recent.retain(|entry| filter.wants(&entry.fact));
    if query
        .iter()
        .any(|(key, value)| key == "recent" && value == "false")
    {
        recent.clear();
    }
    if call
        .header("accept")
        .is_some_and(|accepted| accepted.contains("application/json"))
    {
        let facts: Vec<_> = recent.iter().map(|entry| &entry.fact).collect();
        return answer::json(&facts);
    }
    let shutdown = api.shutdown.clone().cancelled_owned();
    let before = stream::iter(recent.into_iter().map(|entry| to_event(&entry)));
    let events = before
        .chain(live(BroadcastStream::new(coming), filter))
        .map(Ok::<_, Infallible>);
    let events = Box::pin(events.take_until(Box::pin(shutdown)));
    Ok(sse::reply(sse::keep_alive().stream(events)).into_response())
}

fn filter(query: &[(String, String)]) -> Result<Filter, Problem> {
    let all = |name: &str| {
        let values = query.iter().filter(|(key, _)| key == name);
        let values: Vec<String> = values.map(|(_, value)| value.clone()).collect();
        if values.len() > CHOSEN_MAX {
            return Err(Problem::invalid(format!(
                "{name} can be given {CHOSEN_MAX} times at most"
            )));
        }
        Ok(values)
    };
    let since = |text: &String| {
        let at: Result<jiff::Timestamp, _> = text.parse();
        at.map(|at| Timestamp(at.as_millisecond())).map_err(|_| {
            Problem::invalid(format!(
                "since={text:?}: a time such as 2026-11-28T08:00:00Z is possible"
            ))
        })
    };
    Ok(Filter {
        names: all("name")?,
        domains: all("domain")?,
        servers: all("server")?,
        since: all("since")?.last().map(since).transpose()?,
    })
}

/// Those that are wanted, up to where the reader fell behind.
fn live(coming: BroadcastStream<Arc<Entry>>, filter: Filter) -> impl Stream<Item = sse::Event> {
    coming
        .filter_map(move |next| {
            let chosen = match next {
                Ok(entry) => filter.wants(&entry.fact).then(|| (to_event(&entry), true)),
                Err(Lagged::Lagged(count)) => Some((farewell(count), false)),
            };
            std::future::ready(chosen)
        })
        .scan(true, |goes_on, (event, last)| {
            // The farewell is passed on, and then the end.
            let passed = goes_on.then_some(event);
            *goes_on = last;
            std::future::ready(passed)
        })
}

fn farewell(count: u64) -> sse::Event {
    sse::Event::default().comment(format!(
        "you fell {count} events behind: connect again, with Last-Event-ID"
    ))
}

fn to_event(entry: &Entry) -> sse::Event {
    let event = sse::Event::default()
        .id(entry.id.clone())
        .event(entry.fact.event.name());
    // A fact has only strings, numbers and lists, so it can always be written.
    event
        .json_data(&entry.fact)
        .unwrap_or_else(|_| sse::Event::default().comment("unreadable"))
}

#[cfg(test)]
mod tests {
    use understudy_core::{
        contract::event::{Event, Fact},
        ids::{DomainId, ServerId},
    };

    use super::*;
    use crate::feed::Feed;

    #[tokio::test]
    async fn a_reader_that_falls_behind_is_told_so_and_let_go() {
        let feed = Feed::new(0);
        let (_, coming) = feed.read(None);
        for number in 0..2_000 {
            let server = ServerId::new("recorder-1").expect("an id");
            let domain = DomainId::new("east").expect("an id");
            let fact = Fact {
                domain,
                at: Timestamp(number),
                event: Event::ServerRecovered { server },
            };
            feed.add(Entry {
                id: number.to_string(),
                fact,
            });
        }
        let told: Vec<String> = live(BroadcastStream::new(coming), Filter::default())
            .map(|event| event.to_string())
            .collect()
            .await;
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].starts_with(":you fell 976 events behind"), "{told:?}");
    }
}
