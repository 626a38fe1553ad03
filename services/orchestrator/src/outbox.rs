//! The orchestrator's rows of the outbox, as the bus asks for them.

use diesel::sqlite::SqliteConnection;
use understudy_bus::{Message, OutboxSource};
use understudy_store::{Store, outbox};

/// Whose rows.
pub(crate) const SERVICE: &str = "orchestrator";

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables;

    #[tokio::test]
    async fn a_message_that_can_not_be_read_stops_no_other() {
        let store = Store::open(":memory:", tables::MIGRATIONS).expect("a database");
        let good = Message::assignment(&understudy_core::assignment::Assignment {
            server: understudy_core::ids::ServerId::new("recorder-1").expect("an id"),
            epoch: understudy_core::assignment::Epoch { term: 1, number: 1 },
            role: understudy_core::assignment::Role::Standby,
            erase: Default::default(),
            erase_up_to: Default::default(),
        });
        let good = serde_json::to_string(&good).expect("JSON");
        let rows = [good.clone(), "of another version".to_owned(), good];
        let push =
            move |c: &mut SqliteConnection| rows.iter().try_for_each(|row| outbox::push(c, SERVICE, row));
        store.run(push).await.expect("stored");
        let source = Outbox(store.clone());
        for _ in 0..2 {
            let pending = source.pending(0, 512).await.expect("the others can be read");
            let ids: Vec<i64> = pending.iter().map(|(id, _)| *id).collect();
            assert_eq!(ids, [1, 3]);
        }
        let kept = store.run(|c| outbox::unreadable(c, SERVICE)).await.expect("read");
        assert_eq!(
            (kept.len(), kept[0].0, kept[0].1.as_str()),
            (1, 2, "of another version")
        );
    }
}
