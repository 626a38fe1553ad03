//! The broker as far as the right to act depends on it: one queue per server, first in, first out; a single active
//! consumer; connections of which one end may be gone without the other knowing; what was delivered and not
//! acknowledged goes back to the front.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use understudy_core::{
    authority::{Word, granter::Ticket},
    ids::ServerId,
};

/// A connection on which a server consumes its queue, as the broker sees it.
#[derive(Clone, Debug)]
pub(crate) struct Consumer {
    pub(crate) id: u64,
    /// Sent to the server, and not arrived there yet.
    wire: VecDeque<Word>,
    /// Delivered, and not acknowledged yet.
    unacked: VecDeque<Word>,
    /// Sent by the server, and not arrived here yet.
    out: VecDeque<(Duration, Word)>,
}

#[derive(Clone, Debug, Default)]
struct Queue {
    words: VecDeque<Word>,
    /// The first is the active one.
    consumers: Vec<Consumer>,
}

/// What the host publishes: to one server's queue, or to all.
#[derive(Clone, Debug)]
pub(crate) struct Publication {
    pub(crate) to: Option<ServerId>,
    pub(crate) word: Word,
    pub(crate) ticket: Option<Ticket>,
    /// Which start of the host published it: nobody else cares for the confirm.
    pub(crate) host: u64,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Broker {
    queues: BTreeMap<ServerId, Queue>,
    /// What the host has sent, in order.
    from_host: VecDeque<(Duration, Publication)>,
    confirms: Vec<(Duration, Publication)>,
    consumers: u64,
}

impl Broker {
    /// A server consumes its queue, after all others that the broker takes for alive.
    pub(crate) fn consume(&mut self, server: &ServerId) -> u64 {
        self.consumers += 1;
        let queue = self.queues.entry(server.clone()).or_default();
        queue.consumers.push(Consumer {
            id: self.consumers,
            wire: VecDeque::new(),
            unacked: VecDeque::new(),
            out: VecDeque::new(),
        });
        self.consumers
    }

    /// The broker gives a connection up: what was not acknowledged goes back.
    pub(crate) fn close(&mut self, server: &ServerId, id: u64) {
        let Some(queue) = self.queues.get_mut(server) else {
            return;
        };
        let Some(index) = queue.consumers.iter().position(|each| each.id == id) else {
            return;
        };
        for word in queue.consumers.remove(index).unacked.into_iter().rev() {
            queue.words.push_front(word);
        }
    }

    pub(crate) fn knows(&self, server: &ServerId, id: u64) -> bool {
        let queue = self.queues.get(server);
        queue.is_some_and(|queue| queue.consumers.iter().any(|each| each.id == id))
    }

    /// The connections that the broker takes for alive.
    pub(crate) fn connections(&self) -> Vec<(ServerId, u64)> {
        let of = |(server, queue): (&ServerId, &Queue)| {
            let ids = queue.consumers.iter().map(|each| each.id);
            ids.map(|id| (server.clone(), id)).collect::<Vec<_>>()
        };
        self.queues.iter().flat_map(of).collect()
    }

    fn consumer(&mut self, server: &ServerId, id: u64) -> Option<&mut Consumer> {
        let queue = self.queues.get_mut(server)?;
        queue.consumers.iter_mut().find(|each| each.id == id)
    }

    /// A server publishes to its own queue; on a connection that the broker has closed this goes nowhere.
    pub(crate) fn publish(&mut self, server: &ServerId, id: u64, word: Word, arrives: Duration) {
        if let Some(consumer) = self.consumer(server, id) {
            let after = consumer.out.back().map_or(Duration::ZERO, |(at, _)| *at);
            consumer.out.push_back((arrives.max(after), word));
        }
    }

    /// A server acknowledges the oldest that it was delivered.
    pub(crate) fn acknowledge(&mut self, server: &ServerId, id: u64) {
        if let Some(consumer) = self.consumer(server, id) {
            consumer.unacked.pop_front();
        }
    }

    /// What has arrived at a server on a connection, in order, now that it can be reached.
    pub(crate) fn arrived(&mut self, server: &ServerId, id: u64) -> Vec<Word> {
        let consumer = self.consumer(server, id);
        consumer
            .map(|consumer| consumer.wire.drain(..).collect())
            .unwrap_or_default()
    }

    pub(crate) fn publish_from_host(&mut self, publication: Publication, arrives: Duration) {
        let after = self.from_host.back().map_or(Duration::ZERO, |(at, _)| *at);
        self.from_host.push_back((arrives.max(after), publication));
    }

    /// What was published gets into the queues, unless the broker takes nothing at the moment; what is in them goes
    /// to whoever is active. `reaches` says whose packets come through.
    pub(crate) fn turn(&mut self, now: Duration, takes: bool, reaches: impl Fn(&ServerId) -> bool) {
        while takes && self.from_host.front().is_some_and(|(at, _)| *at <= now) {
            let Some((_, publication)) = self.from_host.pop_front() else {
                break;
            };
            for (server, queue) in &mut self.queues {
                if publication.to.as_ref().is_none_or(|to| to == server) {
                    queue.words.push_back(publication.word.clone());
                }
            }
            // Where there is no such queue it is returned, which says as much.
            self.confirms
                .push((now + Duration::from_millis(200), publication));
        }
        for (server, queue) in &mut self.queues {
            for consumer in &mut queue.consumers {
                let reached = takes && reaches(server);
                while reached && consumer.out.front().is_some_and(|(at, _)| *at <= now) {
                    queue.words.extend(consumer.out.pop_front().map(|(_, word)| word));
                }
            }
            if let Some(active) = queue.consumers.first_mut() {
                active.unacked.extend(queue.words.iter().cloned());
                active.wire.extend(queue.words.drain(..));
            }
        }
    }

    /// The confirms that have come back to this start of the host.
    pub(crate) fn confirms(&mut self, now: Duration, host: u64) -> Vec<Ticket> {
        let (due, later) = std::mem::take(&mut self.confirms)
            .into_iter()
            .partition(|(at, _)| *at <= now);
        self.confirms = later;
        let due: Vec<(Duration, Publication)> = due;
        due.into_iter()
            .filter(|(_, publication)| publication.host == host)
            .filter_map(|(_, publication)| publication.ticket)
            .collect()
    }

    /// A node of the broker is gone: every connection with it, and perhaps what was queued.
    pub(crate) fn lose(&mut self, queues_survive: bool) {
        for queue in self.queues.values_mut() {
            for consumer in queue.consumers.drain(..).rev() {
                for word in consumer.unacked.into_iter().rev() {
                    queue.words.push_front(word);
                }
            }
        }
        self.from_host.clear();
        self.confirms.clear();
        if !queues_survive {
            self.queues.clear();
        }
    }
}
