//! What nobody could handle is listed, replayed and dropped from the command line.

use lapin::{BasicProperties, Connection, ConnectionProperties, options::BasicPublishOptions};
use understudy_core::contract::api::DeadLettersView;
use understudy_demo::rig::{Plan, Rig, eventually};
use understudy_scenarios::{
    Fleet, PATIENCE,
    command_line::{command, told},
    plan,
};

async fn letters(rig: &Rig, total: u64) -> anyhow::Result<DeadLettersView> {
    Ok(eventually(&format!("{total} dead letters"), PATIENCE, async || {
        let letters: DeadLettersView = rig
            .api
            .get("dead-letters")
            .await
            .map_err(|error| error.to_string())?;
        if letters.total == total {
            Ok(letters)
        } else {
            Err(format!("{letters:?}"))
        }
    })
    .await?)
}

#[tokio::test]
async fn what_nobody_could_handle_is_listed_replayed_and_dropped() -> anyhow::Result<()> {
    // Given a recording server that was sent garbage,
    let fleet = Fleet::filming(Plan { cameras: 1, ..plan() }).await?;
    let rig = &fleet.rig;
    assert!(
        told(&fleet, &["dead-letters", "list"])
            .await?
            .contains("there is no dead letter")
    );
    let connection = Connection::connect(&rig.broker.url(), ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    let options = BasicPublishOptions::default();
    let garbage = "\u{1b}[2Jgarbage".as_bytes();
    let (exchange, key) = ("understudy.assignments".into(), "recorder-1".into());
    let sent = channel.basic_publish(exchange, key, options, garbage, BasicProperties::default());
    let _confirmed = sent.await?.await?;

    // then it is put aside with the reason, and looking at it loses nothing.
    let dead = letters(rig, 1).await?.letters.remove(0);
    assert_eq!(dead.queue, "understudy.assignments.recorder-1");
    let listed = told(&fleet, &["dead-letters", "list"]).await?;
    assert!(
        listed.contains(&dead.id) && listed.contains(&dead.queue),
        "{listed}"
    );
    let shown = told(&fleet, &["dead-letters", "show", &dead.id]).await?;
    assert!(
        shown.contains("garbage") && shown.contains(&dead.reason),
        "{shown}"
    );
    assert!(
        !shown.contains('\u{1b}'),
        "it does not write over a terminal: {shown:?}"
    );
    letters(rig, 1).await?;

    // When it is replayed, the recording server gets it again, and refuses it again.
    let replayed = told(&fleet, &["dead-letters", "replay", &dead.id]).await?;
    assert!(
        replayed.contains("understudy.assignments.recorder-1"),
        "{replayed}"
    );
    let again = letters(rig, 1).await?.letters.remove(0);
    assert_eq!(again.reason, dead.reason, "by the same server");

    // To drop it takes a yes; then it is gone.
    let unsure = command(&fleet, &["dead-letters", "drop", &again.id]).await?;
    let complaint = String::from_utf8_lossy(&unsure.stderr).into_owned();
    assert_eq!(unsure.status.code(), Some(2), "{complaint}");
    assert!(complaint.contains("would be lost for good"), "{complaint}");
    letters(rig, 1).await?;
    told(&fleet, &["dead-letters", "drop", &again.id, "--yes"]).await?;
    letters(rig, 0).await?;
    let gone = command(&fleet, &["dead-letters", "show", &again.id]).await?;
    assert_eq!(gone.status.code(), Some(1));
    let wrong = command(&fleet, &["dead-letters", "show", "../servers"]).await?;
    assert_eq!(wrong.status.code(), Some(2));

    // And the server films as before.
    fleet.films("recorder-1", 1).await?;
    fleet.rig.stop().await;
    Ok(())
}
