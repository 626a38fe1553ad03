//! What cameras do when they are told to misbehave, and how the server takes clients that do.

mod common;

use std::time::Duration;

use common::{Bare, PATIENCE, Watcher, change, consecutive, until};
use tokio::{io::AsyncReadExt, time::timeout};
use understudy_simulator::{CameraSent, Simulator, SimulatorConfig};

const TCP: &str = "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n";

async fn two_cameras() -> Simulator {
    let config = SimulatorConfig {
        cameras: 2,
        ..SimulatorConfig::default()
    };
    Simulator::start(config).await.expect("the simulator starts")
}

fn refusal(result: Result<Watcher, retina::Error>) -> String {
    result.err().expect("it does not play").to_string()
}

#[tokio::test]
async fn a_mute_camera_connects_and_sends_nothing_while_its_frames_go_on() {
    let simulator = two_cameras().await;
    let mut watcher = Watcher::play(&simulator, "cam-001").await.expect("it plays");
    let mut other = Watcher::play(&simulator, "cam-002").await.expect("it plays");
    watcher.numbers(3).await;
    simulator
        .change("cam-001", &change(r#"{"mute":true}"#))
        .expect("it has this camera");
    let before = simulator.sent("cam-001", 0).expect("it has this camera").sessions[0]
        .frames
        .len();

    assert!(
        consecutive(&other.numbers(20).await),
        "the other one does not notice"
    );
    let after = simulator.sent("cam-001", 0).expect("it has this camera").sessions[0]
        .frames
        .len();
    assert_eq!(before, after);

    simulator
        .change("cam-001", &change(r#"{"mute":false}"#))
        .expect("it has this camera");
    let first = simulator.sent("cam-001", 0).expect("it has this camera").sessions[0].frames[0].0;
    let resumed = *watcher.numbers(before + 1).await.last().expect("frames came");
    assert!(resumed > first + 15, "{resumed}: the numbers went on meanwhile");
}

#[tokio::test]
async fn a_stalled_camera_goes_on_by_itself() {
    let simulator = two_cameras().await;
    let mut watcher = Watcher::play(&simulator, "cam-001").await.expect("it plays");
    let mut numbers = watcher.numbers(3).await;
    simulator
        .change("cam-001", &change(r#"{"stall":1}"#))
        .expect("it has this camera");
    numbers.extend(watcher.numbers(10).await);
    let gap = numbers
        .windows(2)
        .map(|pair| pair[1] - pair[0])
        .max()
        .expect("frames came");
    assert!((14..=18).contains(&gap), "{numbers:?}");
}

#[tokio::test]
async fn dropped_connections_end_and_new_ones_are_taken() {
    let simulator = two_cameras().await;
    let mut watcher = Watcher::play(&simulator, "cam-001").await.expect("it plays");
    watcher.numbers(3).await;
    simulator
        .change("cam-001", &change(r#"{"drop":true}"#))
        .expect("it has this camera");
    while watcher.next().await.is_some() {}

    simulator
        .change("cam-001", &change(r#"{"drop":0.5}"#))
        .expect("it has this camera");
    for _ in 0..2 {
        let mut watcher = Watcher::play(&simulator, "cam-001").await.expect("it plays");
        while watcher.next().await.is_some() {}
    }
}

#[tokio::test]
async fn a_camera_may_refuse_the_password_and_further_sessions() {
    let simulator = two_cameras().await;
    simulator
        .change("cam-001", &change(r#"{"refuse_password":true}"#))
        .expect("it has this camera");
    let refused = Watcher::play_as(&simulator, "cam-001", Some(("admin", "admin"))).await;
    assert!(refusal(refused).contains("401"));

    simulator
        .change("cam-002", &change(r#"{"max_sessions":1}"#))
        .expect("it has this camera");
    let first = Watcher::play(&simulator, "cam-002")
        .await
        .expect("the first plays");
    assert!(refusal(Watcher::play(&simulator, "cam-002").await).contains("453"));
    drop(first);
    until("the session is free again", || {
        simulator.overview()[1].sessions == 0
    })
    .await;
    Watcher::play(&simulator, "cam-002")
        .await
        .expect("the next plays")
        .numbers(2)
        .await;
}

#[tokio::test]
async fn a_camera_may_send_garbage_instead_of_video_or_answers() {
    let simulator = two_cameras().await;
    let mut watcher = Watcher::play(&simulator, "cam-001").await.expect("it plays");
    watcher.numbers(2).await;
    simulator
        .change("cam-001", &change(r#"{"garbage":"rtp"}"#))
        .expect("it has this camera");
    while watcher.next().await.is_some() {}

    simulator
        .change("cam-001", &change(r#"{"garbage":"rtsp"}"#))
        .expect("it has this camera");
    let asked = timeout(PATIENCE, Watcher::play(&simulator, "cam-001"))
        .await
        .expect("retina gives up");
    refusal(asked);
}

#[tokio::test]
async fn an_unreachable_camera_closes_without_an_answer() {
    let simulator = two_cameras().await;
    let mut watcher = Watcher::play(&simulator, "cam-001").await.expect("it plays");
    watcher.numbers(2).await;
    simulator
        .change("cam-001", &change(r#"{"unreachable":true}"#))
        .expect("it has this camera");
    while watcher.next().await.is_some() {}
    let mut client = Bare::connect(simulator.address()).await;
    assert_eq!(client.ask("OPTIONS", &simulator.url("cam-001"), "").await, "");
    Watcher::play(&simulator, "cam-002")
        .await
        .expect("the other one plays");
}

#[tokio::test]
async fn an_unsupported_codec_is_offered_in_the_description() {
    let simulator = two_cameras().await;
    for (wish, offered) in [("mjpeg", "jpeg"), ("unknown", "x-unheard-of")] {
        let wish = change(&format!(r#"{{"unsupported_codec":"{wish}"}}"#));
        simulator.change("cam-001", &wish).expect("it has this camera");
        let url = simulator.url("cam-001").parse().expect("an address");
        let session = retina::client::Session::describe(url, retina::client::SessionOptions::default()).await;
        let session = session.expect("it describes");
        assert_eq!(session.streams()[0].encoding_name(), offered);
    }
}

#[tokio::test]
async fn behaviour_and_counts_are_reached_over_http() {
    let simulator = two_cameras().await;
    let base = format!("http://{}", simulator.control_address().expect("it has control"));
    let http = reqwest::Client::new();
    Watcher::play(&simulator, "cam-002")
        .await
        .expect("it plays")
        .numbers(20)
        .await;

    let sent = http
        .get(format!("{base}/cameras/cam-002/sent"))
        .send()
        .await
        .expect("an answer");
    let sent: CameraSent = sent.json().await.expect("a count");
    assert_eq!(sent.camera, "cam-002");
    let middle = sent.sessions[0].frames[10].1;
    let later = http
        .get(format!("{base}/sent?since={middle}"))
        .send()
        .await
        .expect("an answer");
    let later: Vec<CameraSent> = later.json().await.expect("counts");
    assert_eq!(later[1].sessions[0].frames[0], sent.sessions[0].frames[10]);

    let post = |path: &str, body: &'static str| http.post(format!("{base}{path}")).body(body).send();
    let changed = post("/cameras/cam-001/behaviour", r#"{"mute":true}"#)
        .await
        .expect("an answer");
    assert_eq!(changed.status(), 200);
    assert_eq!(
        post("/behaviour", r#"{"max_sessions":3}"#)
            .await
            .expect("an answer")
            .status(),
        204
    );
    let states = simulator.overview();
    assert!(states[0].behaviour.mute && !states[1].behaviour.mute);
    assert!(states.iter().all(|state| state.behaviour.max_sessions == Some(3)));

    assert_eq!(
        post("/cameras/cam-009/behaviour", "{}")
            .await
            .expect("an answer")
            .status(),
        404
    );
    let wrong = post("/behaviour", r#"{"mutee":true}"#).await.expect("an answer");
    assert_eq!(wrong.status(), 400);
    assert!(wrong.text().await.expect("a body").contains("mutee"));
}

#[tokio::test]
async fn a_client_that_does_not_read_is_closed_and_nobody_waits_for_it() {
    let config = SimulatorConfig {
        width: 640,
        height: 360,
        gop: 5,
        fps: 60,
        bitrate: 60_000,
        ..SimulatorConfig::default()
    };
    let simulator = Simulator::start(config).await.expect("the simulator starts");
    let _lazy = Bare::play(&simulator, "cam-001").await;
    let mut watcher = Watcher::play(&simulator, "cam-001").await.expect("it plays");
    let mut numbers = Vec::new();
    let closed = || {
        simulator.sent("cam-001", 0).expect("it has this camera").sessions[0]
            .ended_at
            .is_some()
    };
    while !closed() {
        numbers.extend(watcher.numbers(1).await);
        assert!(numbers.len() < 60 * 20, "the lazy one is closed within 20 s");
    }
    numbers.extend(watcher.numbers(10).await);
    assert!(consecutive(&numbers));
}

#[tokio::test]
async fn a_session_ends_without_a_sign_of_life() {
    let config = SimulatorConfig {
        session_timeout: 1,
        ..SimulatorConfig::default()
    };
    let simulator = Simulator::start(config).await.expect("the simulator starts");
    let mut client = Bare::play(&simulator, "cam-001").await;
    until("the session stands", || simulator.overview()[0].sessions == 1).await;
    let mut all = Vec::new();
    timeout(PATIENCE, client.stream.read_to_end(&mut all))
        .await
        .expect("it ends")
        .expect("in an orderly way");
    until("the session is gone", || simulator.overview()[0].sessions == 0).await;
}

#[tokio::test]
async fn rtsp_answers_what_the_standard_asks_for() {
    let simulator = two_cameras().await;
    let mut client = Bare::connect(simulator.address()).await;
    let url = simulator.url("cam-001");
    let answer = client.ask("OPTIONS", &url, "").await;
    assert!(
        answer.contains("200") && answer.contains("GET_PARAMETER"),
        "{answer}"
    );
    for (method, path, fields, status) in [
        ("SETUP", "/track1", "Transport: RTP/AVP;multicast\r\n", "461"),
        ("SETUP", "/track2", TCP, "404"),
        ("SETUP", "/track9", TCP, "404"),
        ("PLAY", "", "Session: 1234\r\n", "454"),
        ("RECORD", "", "", "405"),
        ("PLAY", "", "Require: onvif-replay\r\n", "551"),
        ("DESCRIBE", "x", "", "404"),
        ("SETUP", "/track1", TCP, "200"),
        ("GET_PARAMETER", "", "", "200"),
        ("TEARDOWN", "", "", "200"),
    ] {
        let answer = client.ask(method, &format!("{url}{path}"), fields).await;
        assert!(
            answer.contains(&format!("RTSP/1.0 {status}")),
            "{method} {path}: {answer}"
        );
    }
    until("the session is gone", || simulator.overview()[0].sessions == 0).await;
}

#[tokio::test]
async fn nonsense_is_refused_and_others_go_on() {
    let simulator = two_cameras().await;
    let mut watcher = Watcher::play(&simulator, "cam-001").await.expect("it plays");
    for nonsense in ["GET / HTTP/1.1\r\n\r\n", "\0\0\0\0\r\n\r\n", &"A".repeat(200_000)] {
        let mut client = Bare::connect(simulator.address()).await;
        client.write(nonsense).await;
        let mut answer = Vec::new();
        // The answer, or a reset if more was sent than was read: both end the connection.
        let ended = timeout(Duration::from_secs(10), client.stream.read_to_end(&mut answer)).await;
        assert!(ended.is_ok(), "the connection is closed");
    }
    assert!(consecutive(&watcher.numbers(5).await));
}
