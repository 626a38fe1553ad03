//! A recording service and its queue: takeover, hand-back, erasing, and messages that must do no harm.

mod common;

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use common::{
    Host, PATIENCE, Rig, all_record, bundle, cameras, epoch, eventually, failover, films, holds, quick,
    server,
};
use tokio::time::Instant;
use understudy_bus::{Message, Queue, private_broker::PrivateBroker};
use understudy_core::{
    assignment::Role,
    authority::{Claim, Word},
    contract::{
        heartbeat::{CameraStatus, ServerReport},
        names::{ORCHESTRATOR, recorder},
        rpc::{Answer, OrchestratorReply, OrchestratorRequest, RecorderReply, RecorderRequest},
    },
    policy::Range,
};
use understudy_ingest::IngestConfig;
use understudy_media::archive::Filter;

#[tokio::test(flavor = "multi_thread")]
async fn c6_g4_a_stand_in_takes_over_hands_back_and_erases() {
    let broker = PrivateBroker::start().await.expect("a broker");
    let simulator = cameras(4).await;
    let rig = Rig::new("spare-1");
    let settings = bundle("recorder-1", &simulator);
    let mut host = Host::start(&broker).await;
    let running = rig.start(broker.config());

    // Given: the settings are staged, and the failover server stands by.
    host.stage(&rig.config.id, &rig.key.seal(&settings)).await;
    host.assign(&rig.assignment(1, Role::Standby)).await;
    let report = host
        .until("standby", |report| {
            report.epoch == Some(epoch(1)) && holds(report, &settings.hash())
        })
        .await;
    assert_eq!(
        (report.identity, report.max_cameras, report.cameras.len()),
        (None, Some(8), 0)
    );

    // When it is assigned the recording server's identity, it films all of its cameras.
    host.assign(&rig.assignment(2, films(&settings, Some("f-1"))))
        .await;
    let connected = Instant::now();
    eventually("all cameras are connected to", || async {
        simulator.overview().iter().all(|camera| camera.sessions == 1)
    })
    .await;
    println!("connected within {:?}", connected.elapsed());
    let report = host.until("all record", |report| all_record(report, 4)).await;
    assert_eq!(report.epoch, Some(epoch(2)));
    assert_eq!(report.identity.as_ref(), Some(&settings.identity));
    assert_eq!(report.settings.as_ref(), Some(&settings.hash()));
    assert_eq!(report.open, [failover("f-1")].into());

    // When it hands back, everything is closed and indexed before it says so.
    tokio::time::sleep(Duration::from_millis(500)).await;
    host.assign(&rig.assignment(
        3,
        Role::HandsBack {
            failover: failover("f-1"),
        },
    ))
    .await;
    let report = host
        .until("closed", |report| report.closed.contains(&failover("f-1")))
        .await;
    assert!(
        report.open.is_empty() && report.cameras.is_empty() && report.identity.is_none(),
        "{report:?}"
    );
    let filter = Filter {
        failover: Some(failover("f-1")),
        ..Filter::default()
    };
    let segments = rig.segments(filter.clone()).await;
    for camera in &settings.cameras {
        assert!(
            segments.iter().any(|segment| segment.camera == camera.id),
            "{} has none",
            camera.id
        );
    }
    eventually("no camera is held", || async {
        simulator.overview().iter().all(|camera| camera.sessions == 0)
    })
    .await;

    // Only the word that names the failover erases it.
    let mut standby = rig.assignment(4, Role::Standby);
    host.assign(&standby).await;
    host.until("standby", |report| report.epoch == Some(epoch(4)))
        .await;
    assert_eq!(rig.segments(filter.clone()).await.len(), segments.len());
    standby.epoch = epoch(5);
    standby.erase = [failover("f-1")].into();
    host.assign(&standby).await;
    let report = host
        .until("erased", |report| !report.closed.contains(&failover("f-1")))
        .await;
    assert_eq!(report.epoch, Some(epoch(5)));
    assert!(rig.segments(filter).await.is_empty());
    running.stop().await;
    simulator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn g2_a_segment_that_can_t_be_closed_is_not_said_to_be_closed_until_it_is() {
    let broker = PrivateBroker::start().await.expect("a broker");
    let simulator = cameras(1).await;
    let rig = Rig::new("spare-1");
    let settings = bundle("recorder-1", &simulator);
    let mut host = Host::start(&broker).await;
    rig.left_behind(&rig.assignment(1, films(&settings, Some("f-1"))), &settings);
    let config = IngestConfig {
        segment_seconds: 60,
        ..quick()
    };
    let running = rig.start_with(config, broker.config());
    host.until("all record", |report| all_record(report, 1)).await;

    // Given: the file that is being written is out of reach, as on a disk that fails for a while.
    let camera = rig.data().join("archive").join(settings.cameras[0].id.as_str());
    let away = rig.data().join("away");
    std::fs::rename(&camera, &away).expect("renamed");
    let back = Role::HandsBack {
        failover: failover("f-1"),
    };
    host.assign(&rig.assignment(2, back)).await;
    let held = |report: &ServerReport| report.epoch == Some(epoch(2)) && report.cameras.is_empty();
    host.until("filming has ended", held).await;
    for _ in 0..3 {
        let report = host.next_report().await;
        assert!(report.closed.is_empty(), "{report:?}");
        assert_eq!(report.open, [failover("f-1")].into());
    }

    // When it is there again, it is repaired, and only then all is closed.
    std::fs::rename(&away, &camera).expect("renamed");
    host.until("closed", |report| report.closed.contains(&failover("f-1")))
        .await;
    let segments = rig.segments(Filter::default()).await;
    assert_eq!(segments.len(), 1, "{segments:?}");
    assert_eq!(segments[0].failover, Some(failover("f-1")));
    assert!(segments[0].frames > 0);
    running.stop().await;
    simulator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn old_repeated_contrary_and_senseless_messages_do_no_harm() {
    let broker = PrivateBroker::start().await.expect("a broker");
    let simulator = cameras(1).await;
    let rig = Rig::new("recorder-1");
    let settings = bundle("recorder-1", &simulator);
    let mut host = Host::start(&broker).await;
    let running = rig.start(broker.config());
    host.stage(&rig.config.id, &rig.key.seal(&settings)).await;
    let newest = rig.assignment(5, films(&settings, None));
    host.assign(&newest).await;
    let before = host.until("films", |report| all_record(report, 1)).await;

    // Older, the same again, for another server, garbage, and settings sealed with a key of somebody else.
    host.assign(&rig.assignment(4, Role::Standby)).await;
    host.assign(&newest).await;
    let mut astray = rig.assignment(6, Role::Standby);
    astray.server = server("recorder-2");
    let mut strayed = Message::assignment(&astray);
    strayed.routing_key = "recorder-1".to_owned();
    host.bus.publish(strayed).await.expect("published");
    let mut garbage = Message::assignment(&rig.assignment(7, Role::Standby));
    garbage.body = "{".into();
    host.bus.publish(garbage).await.expect("published");
    let stranger = Rig::new("recorder-1");
    host.stage(&rig.config.id, &stranger.key.seal(&settings)).await;
    // The same epoch with other contents: refused, and said.
    host.assign(&rig.assignment(5, Role::Standby)).await;
    let report = host
        .until("conflict", |report| report.conflict == Some(epoch(5)))
        .await;
    assert_eq!(report.epoch, Some(epoch(5)));
    assert!(all_record(&report, 1), "{report:?}");
    assert_eq!(report.incarnation, before.incarnation);

    eventually("three dead letters, and nothing left to read", || async {
        let queues = broker
            .control(&["list_queues", "name", "messages"])
            .await
            .expect("queues");
        let waiting = |name: &str| {
            let line = queues
                .lines()
                .find(|line| line.split_whitespace().next() == Some(name));
            line.and_then(|line| line.split_whitespace().nth(1))
                .map(str::to_owned)
        };
        waiting("understudy.dead").as_deref() == Some("3")
            && waiting("understudy.assignments.recorder-1").as_deref() == Some("0")
    })
    .await;

    // A newer one still gets through.
    host.assign(&rig.assignment(8, Role::Standby)).await;
    host.until("standby", |report| {
        report.epoch == Some(epoch(8)) && report.cameras.is_empty()
    })
    .await;
    running.stop().await;
    simulator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn e1_filming_goes_on_without_the_broker_and_settings_are_fetched_when_missing() {
    let mut broker = PrivateBroker::start().await.expect("a broker");
    let simulator = cameras(1).await;
    let rig = Rig::new("recorder-1");
    let settings = bundle("recorder-1", &simulator);
    let mut host = Host::start(&broker).await;
    let sealed = rig.key.seal(&settings);
    host.bus.serve(
        ORCHESTRATOR,
        move |request: OrchestratorRequest| {
            let sealed = sealed.clone();
            async move {
                let OrchestratorRequest::GetBundle(hash) = request else {
                    panic!("{request:?}")
                };
                assert_eq!(hash, sealed.hash);
                Answer::Ok(OrchestratorReply::Bundle(sealed))
            }
        },
        &host.process,
    );

    // Given an assignment whose settings were never staged: it asks for them.
    let running = rig.start(broker.config());
    host.assign(&rig.assignment(1, films(&settings, None))).await;
    let report = host.until("films", |report| all_record(report, 1)).await;
    assert!(holds(&report, &settings.hash()));
    assert!(
        rig.data()
            .join(format!("bundles/{}.json", settings.hash()))
            .exists()
    );

    // When the broker vanishes, segments go on being closed.
    broker.kill();
    let before = rig.segments(Filter::default()).await.len();
    eventually("two more segments", || async {
        rig.segments(Filter::default()).await.len() >= before + 2
    })
    .await;
    assert!(running.process.waiting_for().contains_key("broker"));

    // When it is back, so are the reports, with nothing lost of what it is.
    broker.restart().await.expect("a broker");
    let report = host.until("reported again", |report| all_record(report, 1)).await;
    assert_eq!(report.epoch, Some(epoch(1)));
    let camera = report.cameras.values().next();
    assert_eq!(camera, Some(&CameraStatus::Recording));
    running.stop().await;
    simulator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_assignment_that_the_disk_refuses_is_neither_acted_on_nor_reported() {
    let broker = PrivateBroker::start().await.expect("a broker");
    let simulator = cameras(1).await;
    let rig = Rig::new("recorder-1");
    let settings = bundle("recorder-1", &simulator);
    let mut host = Host::start(&broker).await;
    let running = rig.start(broker.config());
    host.stage(&rig.config.id, &rig.key.seal(&settings)).await;
    host.assign(&rig.assignment(1, films(&settings, None))).await;
    host.until("films", |report| all_record(report, 1)).await;

    // When nothing can be written where the assignment goes, the camera films on, and nobody is told otherwise.
    let obstacle = rig.data().join("assignment.json.new");
    std::fs::create_dir(&obstacle).expect("made");
    host.assign(&rig.assignment(2, Role::Standby)).await;
    eventually("says so", || async {
        running
            .process
            .waiting_for()
            .get("assignment")
            .is_some_and(|why| why.contains("disk"))
    })
    .await;
    assert_eq!(simulator.overview()[0].sessions, 1);

    // When it can, the server goes on by itself; it never claimed the epoch before.
    std::fs::remove_dir(&obstacle).expect("removed");
    host.until("standby", |report| {
        let reached = report.epoch == Some(epoch(2));
        assert!(!reached || rig.persisted().contains("standby"), "{report:?}");
        reached && report.cameras.is_empty()
    })
    .await;
    running.stop().await;
    simulator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn e2_e3_a_word_of_a_later_version_ends_the_right_and_the_assignment_behind_it_is_taken() {
    let broker = PrivateBroker::start().await.expect("a broker");
    let simulator = cameras(1).await;
    let rig = Rig::new("recorder-1");
    let settings = bundle("recorder-1", &simulator);
    let mut host = Host::start(&broker).await;
    let mut claims = host.bus.subscribe(Queue::heartbeats(&["east.claim.recorder-1"]));
    claims.consuming().await;
    let running = rig.start(broker.config());
    host.stage(&rig.config.id, &rig.key.seal(&settings)).await;
    host.assign(&rig.assignment(1, films(&settings, None))).await;

    // Given: it claims the right for what it was assigned, and is granted it.
    let wanted = Some((rig.config.id.clone(), epoch(1)));
    let claim = loop {
        let incoming = tokio::time::timeout(common::PATIENCE, claims.next())
            .await
            .expect("in time");
        let claim: Claim = incoming.expect("not ended").json().expect("a claim");
        if claim.wants == wanted {
            break claim;
        }
    };
    let may_act = |report: &ServerReport| report.right_to_act.as_ref().is_some_and(|right| right.held);
    let grant = Word::Grant { claim, alone_ms: 0 };
    host.bus
        .publish(Message::word(&rig.config.id, &grant))
        .await
        .expect("published");
    host.until("granted", may_act).await;

    // When something comes that it can't read, it may have been told to stop: it acts no more, and claims anew.
    let mut unknown = Message::word(&rig.config.id, &Word::Revoke);
    unknown.body = r#"{"word":"lend","to":"recorder-2"}"#.into();
    host.bus.publish(unknown).await.expect("published");
    let report = host.until("over", |report| !may_act(report)).await;
    let why = report.right_to_act.map(|right| right.why);
    assert_eq!(why.as_deref(), Some("the host has not granted it"));

    // It lies among the dead letters, and what comes behind it is taken as ever.
    host.assign(&rig.assignment(2, Role::Standby)).await;
    host.until("standby", |report| report.epoch == Some(epoch(2)))
        .await;
    // The broker counts every few seconds.
    eventually("a dead letter", || async {
        let queues = broker
            .control(&["list_queues", "name", "messages"])
            .await
            .expect("queues");
        let mut lines = queues
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>());
        lines.any(|line| line == ["understudy.dead", "1"])
    })
    .await;
    running.stop().await;
    simulator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn d2_g2_a_picture_that_is_asked_for_is_all_that_a_live_only_failover_keeps() {
    let broker = PrivateBroker::start().await.expect("a broker");
    let simulator = cameras(2).await;
    let rig = Rig::new("spare-1");
    let settings = bundle("recorder-1", &simulator);
    let mut host = Host::start(&broker).await;
    let running = rig.start(broker.config());
    host.stage(&rig.config.id, &rig.key.seal(&settings)).await;
    let camera = settings.cameras[0].id.clone();
    let bus = host.bus.clone();
    let ask = async |request: RecorderRequest| {
        let name = recorder(&server("spare-1"));
        let answer = bus
            .request::<_, Answer<RecorderReply>>(&name, &request, PATIENCE)
            .await;
        answer.expect("it answers")
    };
    let take = || RecorderRequest::TakeSnapshot {
        camera: camera.clone(),
        by: "anna".to_owned(),
    };
    let list = || RecorderRequest::ListSnapshots {
        camera: camera.clone(),
        from: None,
        to: None,
    };

    // Who films nothing says so.
    host.assign(&rig.assignment(1, Role::Standby)).await;
    host.until("standby", |report| report.epoch == Some(epoch(1)))
        .await;
    let refused = ask(take()).await.expect_err("nothing is filmed");
    assert_eq!(refused.status, 409);
    assert!(refused.detail.contains("does not film it"), "{refused:?}");

    // Given a failover that records nothing, when two pictures are asked for,
    let Role::Films(mut live) = films(&settings, Some("f-1")) else {
        panic!("it films")
    };
    live.range = Range::LiveOnly;
    host.assign(&rig.assignment(2, Role::Films(live))).await;
    host.until("all are live", |report| {
        report.cameras.len() == 2
            && report
                .cameras
                .values()
                .all(|status| *status == CameraStatus::LiveOnly)
    })
    .await;
    for _ in 0..2 {
        let RecorderReply::Snapshot(taken) = ask(take()).await.expect("a picture") else {
            panic!("a picture")
        };
        assert_eq!(taken.failover, Some(failover("f-1")));
        assert_eq!(
            (&taken.taken_by, &taken.held_by),
            (&server("spare-1"), &server("spare-1"))
        );
    }
    // then these are there, newest first, and nothing else is;
    let RecorderReply::Snapshots(kept) = ask(list()).await.expect("a list") else {
        panic!("a list")
    };
    assert_eq!(kept.len(), 2);
    assert!(kept[0].id > kept[1].id, "{kept:?}");
    assert_eq!(rig.segments(Filter::default()).await.len(), 2);
    let get = |snapshot: &str| RecorderRequest::GetSnapshot {
        camera: camera.clone(),
        snapshot: snapshot.to_owned(),
    };
    let RecorderReply::Picture { jpeg } = ask(get(&kept[0].id)).await.expect("the picture") else {
        panic!("the picture")
    };
    let jpeg = BASE64.decode(jpeg).expect("base64");
    assert_eq!(jpeg.len() as u64, kept[0].bytes);
    assert!(jpeg.starts_with(&[0xff, 0xd8]), "it is a JPEG");
    for nothing in ["2026-11-23T00-00-00.000-spare-1", "../index", ""] {
        let missing = ask(get(nothing)).await.expect_err("there is none");
        assert_eq!(missing.status, 404, "{missing:?}");
    }
    // they are handed back as recordings are, and erased with them.
    let hands_back = Role::HandsBack {
        failover: failover("f-1"),
    };
    host.assign(&rig.assignment(3, hands_back)).await;
    host.until("closed", |report| report.closed.contains(&failover("f-1")))
        .await;
    let mut standby = rig.assignment(4, Role::Standby);
    standby.erase = [failover("f-1")].into();
    host.assign(&standby).await;
    host.until("erased", |report| {
        report.epoch == Some(epoch(4)) && !report.closed.contains(&failover("f-1"))
    })
    .await;
    assert_eq!(ask(list()).await, Ok(RecorderReply::Snapshots(Vec::new())));
    running.stop().await;
    simulator.stop().await;
}
