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
            .run(|c| outbox::pending(c, "orchestrator", 0, 9))
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
        .run(|c| outbox::pending(c, "orchestrator", 0, 4))
        .await
        .unwrap();
    let texts: Vec<_> = pending.iter().map(|(_, text)| text.as_str()).collect();
    assert_eq!(texts, ["0", "1", "2", "3"]);
    let ids: Vec<i64> = pending.iter().map(|(id, _)| *id).collect();
    store.run(move |c| outbox::sent(c, &ids)).await.unwrap();
    let pending = store
        .run(|c| outbox::pending(c, "orchestrator", 0, 99))
        .await
        .unwrap();
    assert_eq!(pending.first().unwrap().1, "4");
    assert_eq!(pending.len(), 6);
    assert_eq!(
        store
            .run(|c| outbox::pending(c, "license", 0, 99))
            .await
            .unwrap()
            .len(),
        10
    );
}

#[tokio::test]
async fn what_can_not_be_read_is_set_aside_and_kept() {
    let store = Store::open(":memory:", MIGRATIONS).unwrap();
    let (left, aside) = store
        .run(|c| {
            for text in ["first", "broken", "last"] {
                outbox::push(c, "orchestrator", text)?;
            }
            let broken = outbox::pending(c, "orchestrator", 0, 9)?[1].0;
            outbox::set_aside(c, broken, "no JSON")?;
            Ok((
                outbox::pending(c, "orchestrator", 0, 9)?,
                outbox::unreadable(c, "orchestrator")?,
            ))
        })
        .await
        .unwrap();
    let texts: Vec<_> = left.iter().map(|(_, text)| text.as_str()).collect();
    assert_eq!(texts, ["first", "last"]);
    assert_eq!(aside, [(2, "broken".to_owned(), "no JSON".to_owned())]);
    // And from a number on.
    let (after, last) = (left[0].0, left[1].clone());
    let rest = store
        .run(move |c| outbox::pending(c, "orchestrator", after, 9))
        .await;
    assert_eq!(rest.unwrap(), [last]);
}

#[tokio::test]
async fn nobody_else_on_the_machine_can_read_it() {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let folder = tempfile::tempdir().unwrap();
    let made = folder.path().join("made");
    let path = made.join("understudy.db");
    let store = Store::open(&path, MIGRATIONS).unwrap();
    insert(&store, "a password").await.unwrap();
    assert_eq!(mode(&made), 0o700);
    let mut files = 0;
    for entry in std::fs::read_dir(&made).unwrap() {
        let file = entry.unwrap().path();
        assert_eq!(mode(&file), 0o600, "{}", file.display());
        files += 1;
    }
    assert_eq!(files, 3, "database, WAL and its index");
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
