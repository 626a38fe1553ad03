//! Messages that were given up go to the dead letters, stored with the giving up.

use bytes::Bytes;
use diesel::sqlite::SqliteConnection;
use understudy_bus::{Message, OutboxSource, Persistence};
use understudy_core::{contract::names, notice::Notice};
use understudy_runtime::{TraceContext, clock};
use understudy_store::{Store, outbox};

/// Whose rows.
pub(crate) const SERVICE: &str = "notifier";
/// CloudEvents type of a message that was given up.
const NOTICE_TYPE: &str = "understudy.notice";

/// A message that was given up, for the dead letters: it and the reason are in the body.
pub(crate) fn dead_letter(notice: &Notice, why: &str) -> Message {
    let body = serde_json::json!({ "why": why, "notice": notice });
    Message {
        exchange: names::DEAD.to_owned(),
        routing_key: names::NOTIFIER_QUEUE.to_owned(),
        kind: NOTICE_TYPE.to_owned(),
        id: notice.id.clone(),
        time: clock::wall(),
        subject: notice.receiver.clone(),
        body: Bytes::from(body.to_string()),
        persistence: Persistence::Durable,
        mandatory: true,
        trace: TraceContext::root(),
    }
}

/// What was stored to be published.
pub(crate) struct Outbox(pub(crate) Store);

impl OutboxSource for Outbox {
    async fn pending(
        &self,
        after: i64,
        limit: usize,
    ) -> Result<Vec<(i64, Message)>, Box<dyn std::error::Error + Send + Sync>> {
        let read = move |connection: &mut SqliteConnection| {
            outbox::readable(connection, SERVICE, after, limit, |row| serde_json::from_str(row))
        };
        Ok(self.0.run(read).await?)
    }

    async fn sent(&self, ids: &[i64]) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let ids = ids.to_vec();
        Ok(self
            .0
            .run(move |connection| outbox::sent(connection, &ids))
            .await?)
    }
}
