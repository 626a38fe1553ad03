//! The orchestrator's rows of the outbox, as the bus asks for them.

use understudy_bus::{Message, OutboxSource};
use understudy_store::{Store, outbox};

/// Whose rows.
pub(crate) const SERVICE: &str = "orchestrator";

/// What was stored to be published.
pub(crate) struct Outbox(pub(crate) Store);

impl OutboxSource for Outbox {
    async fn pending(
        &self,
        limit: usize,
    ) -> Result<Vec<(i64, Message)>, Box<dyn std::error::Error + Send + Sync>> {
        let rows = self
            .0
            .run(move |connection| outbox::pending(connection, SERVICE, limit))
            .await?;
        rows.into_iter()
            .map(|(id, json)| Ok((id, serde_json::from_str(&json)?)))
            .collect()
    }

    async fn sent(&self, ids: &[i64]) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let ids = ids.to_vec();
        Ok(self
            .0
            .run(move |connection| outbox::sent(connection, &ids))
            .await?)
    }
}
