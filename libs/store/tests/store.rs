//! The database as services use it: several processes on one file, all or nothing, clear refusals.

#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use diesel::{prelude::*, sql_types::BigInt};
use diesel_migrations::{EmbeddedMigrations, embed_migrations};
use understudy_store::{Store, StoreError, outbox};

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("tests/migrations");

#[derive(QueryableByName)]
struct Count {
    #[diesel(sql_type = BigInt)]
    count: i64,
}

async fn count(store: &Store) -> i64 {
    let counted =
        store.run(|c| diesel::sql_query("SELECT count(*) AS count FROM nouns").get_result::<Count>(c));
    counted.await.unwrap().count
}

async fn insert(store: &Store, name: &str) -> Result<(), StoreError> {
    let statement = format!("INSERT INTO nouns (name) VALUES ('{name}')");
    store
        .run(move |c| diesel::sql_query(statement).execute(c).map(drop))
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn several_services_open_one_file_at_once_and_wait_for_each_other() {
    let folder = tempfile::tempdir().unwrap();
    // The folder is made; all of them migrate at the same moment.
    let path = folder.path().join("made/understudy.db");
    let opening = (0..4).map(|_| {
        let path = path.clone();
        tokio::task::spawn_blocking(move || Store::open(path, MIGRATIONS).unwrap())
    });
    let mut stores = Vec::new();
    for store in opening.collect::<Vec<_>>() {
        stores.push(store.await.unwrap());
    }
    let writing = stores.iter().cloned().enumerate().map(|(writer, store)| {
        tokio::spawn(async move {
            for number in 0..25 {
                insert(&store, &format!("{writer}-{number}")).await.unwrap();
            }
        })
    });
    for writer in writing.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    assert_eq!(count(&stores[0]).await, 100);
    drop(stores);
    assert_eq!(count(&Store::open(&path, MIGRATIONS).unwrap()).await, 100);
}

#[tokio::test]
async fn a_change_and_its_messages_are_stored_together_or_not_at_all() {
    let store = Store::open(":memory:", MIGRATIONS).unwrap();
    let failed = store
        .run(|c| {
            diesel::sql_query("INSERT INTO nouns (name) VALUES ('a')").execute(c)?;
            outbox::push(c, "orchestrator", "{}")?;
            diesel::sql_query("INSERT INTO nouns (name) VALUES ('a')").execute(c)
        })
        .await;
    assert!(matches!(failed, Err(StoreError::Query(_))), "{failed:?}");
    assert_eq!(count(&store).await, 0);
    assert!(
        store
            .run(|c| outbox::pending(c, "orchestrator", 9))
            .await
            .unwrap()
            .is_empty()
    );
    insert(&store, "a").await.unwrap();
    assert_eq!(count(&store).await, 1);
}

#[tokio::test]
async fn an_outbox_keeps_order_and_services_apart() {
    let store = Store::open(":memory:", MIGRATIONS).unwrap();
    store
        .run(|c| {
            for number in 0..10 {
                outbox::push(c, "orchestrator", &format!("{number}"))?;
                outbox::push(c, "license", "other")?;
            }
            Ok(())
        })
        .await
        .unwrap();
    let pending = store
        .run(|c| outbox::pending(c, "orchestrator", 4))
        .await
        .unwrap();
    let texts: Vec<_> = pending.iter().map(|(_, text)| text.as_str()).collect();
    assert_eq!(texts, ["0", "1", "2", "3"]);
    let ids: Vec<i64> = pending.iter().map(|(id, _)| *id).collect();
    store.run(move |c| outbox::sent(c, &ids)).await.unwrap();
    let pending = store
        .run(|c| outbox::pending(c, "orchestrator", 99))
        .await
        .unwrap();
    assert_eq!(pending.first().unwrap().1, "4");
    assert_eq!(pending.len(), 6);
    assert_eq!(
        store
            .run(|c| outbox::pending(c, "license", 99))
            .await
            .unwrap()
            .len(),
        10
    );
}

#[test]
fn a_folder_that_cannot_be_written_into_is_named_with_the_way_out() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "in the way").unwrap();
    let error = Store::open(file.join("understudy.db"), MIGRATIONS).unwrap_err();
    assert!(matches!(error, StoreError::Folder { .. }));
    let text = error.to_string();
    assert!(text.contains("/file") && text.contains("host.data"), "{text}");
    // Not even root can write here.
    let text = Store::open("/proc/understudy/understudy.db", MIGRATIONS)
        .unwrap_err()
        .to_string();
    assert!(text.contains("can't write into /proc/understudy"), "{text}");
}

#[test]
fn a_file_that_is_no_database_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("understudy.db");
    std::fs::write(
        &path,
        "not a database, but long enough to be looked at ".repeat(40),
    )
    .unwrap();
    assert!(Store::open(&path, MIGRATIONS).is_err());
}
