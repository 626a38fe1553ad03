//! A planned restart or upgrade of a server fails nothing over.

use std::time::Duration;

use reqwest::Method;
use understudy_core::contract::api::{Phase, ServerState, ServerView};
use understudy_scenarios::{Fleet, plan};

#[tokio::test]
async fn c2_a_server_that_is_worked_on_is_not_failed_over_until_its_maintenance_ends() -> anyhow::Result<()> {
    let mut fleet = Fleet::filming(plan()).await?;
    let order = serde_json::json!({ "for_ms": 600_000, "why": "a new disk", "by": "anna" });
    let path = "servers/recorder-1/maintenance";
    let _: ServerView = fleet.rig.api.call(Method::PUT, path, Some(&order)).await?;

    fleet.rig.server("recorder-1").kill();
    fleet
        .server("recorder-1", "to be seen as gone", |view| {
            view.state == ServerState::Disconnected && view.maintenance.is_some()
        })
        .await?;
    // Three times the disconnection duration: without maintenance a failover would have come by now.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(fleet.rig.api.failovers().await?, []);

    let by = serde_json::json!({ "by": "anna" });
    let end = format!("{path}/end");
    let _: ServerView = fleet.rig.api.call(Method::POST, &end, Some(&by)).await?;
    let failover = fleet.phase("recorder-1", Phase::Serving).await?;
    assert!(
        failover.reason.summary.contains("since its maintenance ended"),
        "{}",
        failover.reason.summary
    );
    fleet.rig.stop().await;
    Ok(())
}
