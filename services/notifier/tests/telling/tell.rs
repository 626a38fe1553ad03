//! Webhooks, syslog, trials, and what is refused at start.

use understudy_bus::testing::Broker;
use understudy_core::{
    contract::{
        event::Event,
        heartbeat::{Storage, StorageState},
        names,
    },
    ids::ServerId,
};
use understudy_notifier::{NotifierConfig, NotifierError, ReceiverConfig, try_each};
use understudy_runtime::Secret;

use crate::{
    desk::{Teller, config, figure, host, listens, receiver, start, started},
    receivers::{self, Hook, Syslogd, eventually},
};

#[tokio::test]
async fn k4_a_webhook_that_is_away_hears_of_everything_once_it_is_there_and_of_nothing_twice() {
    let (folder, broker) = (tempfile::tempdir().unwrap(), Broker::start().await.unwrap());
    let address = Hook::free();
    let mut told = receiver("control-room", &format!("http://{address}/hook"));
    told.secret = Some(Secret::new("s3cret"));
    told.token = Some(Secret::new("t0ken"));
    let config = config(vec![told]);
    let host = host(folder.path());
    let mut process = start(&config, &host, &broker);
    listens(&broker).await;
    let teller = Teller::new(&broker).await;

    // Nobody listens there: it is kept, also over a restart,
    let first = teller.tell(started("f1")).await;
    eventually("attempts", async || {
        let failed = [("receiver", "control-room"), ("outcome", "failed")];
        (figure(&process, "understudy_notices_total", &failed) >= 3.0).then_some(())
    })
    .await;
    let waiting = [("receiver", "control-room")];
    assert_eq!(figure(&process, "understudy_notices_waiting", &waiting), 1.0);
    assert!(figure(&process, "understudy_notices_oldest_waiting_seconds", &waiting) > 0.0);
    process.finish().await;
    // and what happens while it does not run waits at the broker, the same as another's repetition of it.
    let second = teller.tell(started("f2")).await;
    teller.bus.publish(second.clone()).await.unwrap();
    teller.tell(started("f1")).await;
    process = start(&config, &host, &broker);
    eventually("all to be heard", async || {
        (figure(&process, "understudy_notices_waiting", &waiting) >= 2.0).then_some(())
    })
    .await;

    // A server that answers 503 at first, then takes it.
    let hook = Hook::listen(address, vec![503, 503]).await;
    let posts = eventually("both posts", async || hook.taken(2)).await;
    eventually("nothing to wait", async || {
        (figure(&process, "understudy_notices_waiting", &waiting) == 0.0).then_some(())
    })
    .await;
    assert_eq!(hook.taken(3), None, "each once: {posts:?}");
    let ids: Vec<&str> = posts
        .iter()
        .map(|post| post.body["facts"][0]["id"].as_str().unwrap())
        .collect();
    assert_eq!(ids, [&first.id, &second.id], "in order");
    assert_eq!(
        posts[0].body["facts"][0]["repeats"], 1,
        "f1 was told again while it waited"
    );
    assert_eq!(
        posts[1].body["facts"][0]["repeats"], 0,
        "the same message again is no repetition"
    );
    let post = &posts[0];
    assert_eq!(post.key, post.body["id"].as_str().unwrap());
    assert_eq!(post.body["event"], "failover.started");
    assert_eq!(post.body["facts"][0]["data"]["server"], "recorder-1");
    assert_eq!(post.authorization, "Bearer t0ken");
    assert_eq!(post.signature, receivers::signature("s3cret", &post.raw));
    // Refused attempts had the same key.
    assert!(hook.refused().iter().all(|key| *key == post.key));
    process.finish().await;
    teller.done().await;
}

#[tokio::test]
async fn k4_what_is_given_up_lies_among_the_dead_letters_and_a_redirect_is_not_followed() {
    let (folder, broker) = (tempfile::tempdir().unwrap(), Broker::start().await.unwrap());
    let (address, elsewhere) = (Hook::free(), Hook::free());
    let trap = Hook::listen(elsewhere, Vec::new()).await;
    let hook = Hook::redirect(address, &format!("http://{elsewhere}/hook")).await;
    let config = NotifierConfig {
        give_up_hours: 0,
        ..config(vec![receiver("hook", &format!("http://{address}/hook"))])
    };
    let process = start(&config, &host(folder.path()), &broker);
    listens(&broker).await;
    let teller = Teller::new(&broker).await;
    teller.tell(started("f1")).await;
    let given_up = [("receiver", "hook"), ("outcome", "given_up")];
    eventually("it to be given up", async || {
        (figure(&process, "understudy_notices_total", &given_up) == 1.0).then_some(())
    })
    .await;
    eventually("the dead letter", async || {
        let listed = broker
            .control(&["-q", "list_queues", "name", "messages"])
            .await
            .unwrap();
        listed
            .lines()
            .any(|line| line.starts_with(names::DEAD_QUEUE) && line.ends_with('1'))
            .then_some(())
    })
    .await;
    assert_eq!(trap.taken(1), None, "redirects are not followed");
    assert_eq!(hook.refused().len(), 1);
    process.finish().await;
    teller.done().await;
}

#[tokio::test]
async fn k4_syslog_by_each_way_has_one_line_as_rfc_5424_says() {
    let (folder, broker) = (tempfile::tempdir().unwrap(), Broker::start().await.unwrap());
    let syslogd = Syslogd::listen(folder.path()).await;
    let config = config(vec![
        receiver("udp", &format!("syslog+udp://{}", syslogd.udp)),
        receiver("tcp", &format!("syslog+tcp://{}", syslogd.tcp)),
        receiver("unix", &format!("syslog+unix:{}", syslogd.unix.display())),
    ]);
    let process = start(&config, &host(folder.path()), &broker);
    listens(&broker).await;
    let teller = Teller::new(&broker).await;
    teller
        .tell(Event::ServerStorageDegraded {
            server: ServerId::new("recorder-1").unwrap(),
            storage: Storage {
                state: StorageState::Damaged,
                evidence: "I/O error".to_owned(),
                full: false,
            },
        })
        .await;
    for way in ["udp", "tcp", "unix"] {
        let line = eventually(way, async || syslogd.heard(way)).await;
        // Facility daemon (3), severity critical (2).
        assert!(
            line.starts_with("<26>1 2026-07-01T00:00:00.000Z "),
            "{way}: {line}"
        );
        let words: Vec<&str> = line.splitn(8, ' ').collect();
        assert_eq!(words[3], "understudy", "{way}: {line}");
        assert_eq!(
            (words[5], words[6]),
            ("server.storage_degraded", "-"),
            "{way}: {line}"
        );
        assert!(
            words[7].starts_with("Understudy: the recording volume of recorder-1 is damaged"),
            "{way}: {line}"
        );
        assert!(!line.contains('\n'), "{way}: one line");
    }
    process.finish().await;
    teller.done().await;
}

#[tokio::test]
async fn k4_a_trial_says_of_each_receiver_what_became_of_it() {
    let address = Hook::free();
    let hook = Hook::listen(address, Vec::new()).await;
    let away = Hook::free();
    let tried = try_each(&config(vec![
        receiver("here", &format!("http://{address}/secret-path")),
        receiver("away", &format!("http://{away}/secret-path")),
    ]))
    .await
    .unwrap();
    let [gone, here] = &tried[..] else {
        panic!("{tried:?}")
    };
    assert_eq!((here.receiver.as_str(), &here.failure), ("here", &None));
    assert!(gone.failure.as_ref().unwrap().contains("refused"), "{gone:?}");
    assert!(
        !format!("{tried:?}").contains("secret-path"),
        "addresses may be secrets"
    );
    let post = eventually("the trial", async || hook.taken(1)).await.remove(0);
    assert!(post.body["subject"].as_str().unwrap().contains("trial"));
}

#[tokio::test]
async fn k4_what_can_not_work_with_mails_is_refused_by_the_name_of_its_key() {
    let with = |change: fn(&mut NotifierConfig)| {
        let mut config = config(vec![receiver("anna", "mailto:anna@example.org")]);
        "mail.example.org".clone_into(&mut config.smtp_host);
        "understudy@example.org".clone_into(&mut config.mail_from);
        change(&mut config);
        config
    };
    let login = |change: fn(&mut NotifierConfig)| {
        let mut config = with(change);
        config.smtp_user = Some("anna".to_owned());
        config
    };
    let folder = tempfile::tempdir().unwrap();
    let empty = folder.path().join("empty");
    std::fs::write(&empty, "\n").unwrap();
    let mut empty_file = login(|_| {});
    empty_file.smtp_password_file = Some(empty);
    refused(vec![
        (
            with(|config| config.smtp_host.clear()),
            &["notifier.smtp_host", "set it"],
        ),
        (
            with(|config| config.mail_from.clear()),
            &["notifier.mail_from", "sender"],
        ),
        (
            login(|_| {}),
            &[
                "notifier.smtp_password",
                "set smtp_password or smtp_password_file",
            ],
        ),
        (
            login(|config| config.smtp_password_file = Some("/no/such/file".into())),
            &["notifier.smtp_password", "/no/such/file"],
        ),
        (empty_file, &["notifier.smtp_password", "empty"]),
        (
            login(|config| {
                config.smtp_password = Some(Secret::new("hunter2"));
                config.smtp_security = understudy_notifier::SmtpSecurity::Plain;
            }),
            &["notifier.smtp_security", "in clear"],
        ),
        (
            with(|config| config.smtp_password = Some(Secret::new("hunter2"))),
            &["notifier.smtp_user"],
        ),
        (
            with(|config| config.time_zone = "Europe/Berln".to_owned()),
            &["time_zone", "IANA"],
        ),
        (
            with(|config| config.ca_file = Some("/no/such.pem".into())),
            &["ca_file", "/no/such.pem"],
        ),
        (with(|config| config.first_pause_ms = 0), &["first_pause_ms"]),
    ])
    .await;
}

#[tokio::test]
async fn k4_a_receiver_that_can_not_work_is_refused_by_the_name_of_its_key() {
    let one = |change: fn(&mut ReceiverConfig)| {
        let mut receiver = receiver("hook", "https://example.org/hook");
        change(&mut receiver);
        config(vec![receiver])
    };
    let to = |to: &str| config(vec![receiver("hook", to)]);
    let two = vec![
        receiver("hook", "https://example.org"),
        receiver("hook", "https://example.org"),
    ];
    refused(vec![
        (config(Vec::new()), &["[[notifier.receivers]]"]),
        (config(two), &["receivers.hook.name", "two"]),
        (one(|hook| hook.to = None), &["receivers.hook.to", "to_file"]),
        (to("ftp://hunter2/x"), &["receivers.hook.to", "mailto:"]),
        (to("https://"), &["receivers.hook.to", "URL"]),
        (to("syslog+udp://"), &["receivers.hook.to", "syslog+udp"]),
        (
            one(|hook| hook.quiet = Some("22-06".to_owned())),
            &["receivers.hook.quiet", "22:00-06:30"],
        ),
        (
            one(|hook| hook.events = Some(vec!["failover.startet".to_owned()])),
            &["receivers.hook.events", "failover.started"],
        ),
        (one(|hook| hook.name = "a b".to_owned()), &["receivers[0].name"]),
        (
            one(|hook| hook.secret_file = Some("/no/such/secret".into())),
            &["receivers.hook.secret", "/no/such/secret"],
        ),
    ])
    .await;
}

/// Each is refused with these words, and without a secret.
async fn refused(cases: Vec<(NotifierConfig, &[&str])>) {
    for (config, words) in cases {
        let Err(NotifierError::Configuration(said)) = try_each(&config).await else {
            panic!("{words:?} was taken");
        };
        for word in words {
            assert!(said.contains(word), "{word:?} is missing in: {said}");
        }
        assert!(!said.contains("hunter2"), "{said}");
    }
}
