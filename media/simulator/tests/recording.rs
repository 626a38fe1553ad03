//! What well-behaved cameras send, as foreign clients receive it.

mod common;

use std::{path::Path, process::Stdio};

use common::{Seen, Watcher, consecutive, until};
use tokio::process::Command;
use understudy_simulator::{AuthScheme, Codec, Simulator, SimulatorConfig, numbering};

/// Has ffmpeg copy some seconds of `camera` into a byte stream at `file`.
async fn ffmpeg(simulator: &Simulator, camera: &str, user: &str, format: &str, file: &Path) {
    let url = simulator
        .url(camera)
        .replace("rtsp://", &format!("rtsp://{user}"));
    let output = Command::new("ffmpeg")
        .args([
            "-hide_banner",
            "-loglevel",
            "error",
            "-rtsp_transport",
            "tcp",
            "-i",
            &url,
        ])
        .args(["-map", "0:v", "-c", "copy", "-frames:v", "60", "-f", format])
        .arg(file)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .expect("ffmpeg is installed");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// The numbers in a byte stream, in the order of the file.
fn numbers_in(file: &Path) -> Vec<numbering::FrameNumber> {
    let bytes = std::fs::read(file).expect("ffmpeg wrote its file");
    let starts = bytes
        .windows(3)
        .enumerate()
        .filter(|(_, three)| *three == [0, 0, 1])
        .map(|(at, _)| at);
    let mut starts = starts.collect::<Vec<_>>();
    starts.push(bytes.len());
    starts
        .windows(2)
        .filter_map(|pair| numbering::frame_number(&bytes[pair[0]..pair[1]]))
        .collect()
}

#[tokio::test]
async fn ffmpeg_records_consecutive_numbers_of_the_frames_that_were_sent() {
    for (codec, format, auth, user) in [
        (Codec::H264, "h264", AuthScheme::Digest, "admin:secret@"),
        (Codec::H265, "hevc", AuthScheme::None, ""),
    ] {
        let config = SimulatorConfig {
            cameras: 2,
            codec,
            auth,
            password: "secret".to_owned(),
            ..SimulatorConfig::default()
        };
        let simulator = Simulator::start(config).await.expect("the simulator starts");
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("video");

        ffmpeg(&simulator, "cam-002", user, format, &file).await;

        let frames = numbers_in(&file);
        let numbers = frames.iter().map(|frame| frame.number).collect::<Vec<_>>();
        assert!(numbers.len() >= 55, "{codec:?}: {} frames", numbers.len());
        assert!(consecutive(&numbers), "{codec:?}: {numbers:?}");
        let sent = simulator.sent("cam-002", 0).expect("it has this camera");
        assert!(frames.iter().all(|frame| frame.camera == sent.hash));
        let counted = sent.sessions[0]
            .frames
            .iter()
            .map(|(number, ..)| *number)
            .collect::<Vec<_>>();
        assert!(numbers.iter().all(|number| counted.contains(number)));
        simulator.stop().await;
    }
}

#[tokio::test]
async fn retina_receives_what_was_counted() {
    for codec in [Codec::H264, Codec::H265] {
        let config = SimulatorConfig {
            codec,
            auth: AuthScheme::Basic,
            ..SimulatorConfig::default()
        };
        let simulator = Simulator::start(config).await.expect("the simulator starts");
        let mut watcher = Watcher::play_as(&simulator, "cam-001", Some(("admin", "admin")))
            .await
            .expect("it plays");

        let numbers = watcher.numbers(40).await;

        assert!(consecutive(&numbers), "{codec:?}: {numbers:?}");
        let sent = simulator
            .sent("cam-001", 0)
            .expect("it has this camera")
            .sessions
            .remove(0);
        let counted = sent
            .frames
            .iter()
            .map(|(number, ..)| *number)
            .take(40)
            .collect::<Vec<_>>();
        assert_eq!(counted, numbers, "from the first one on");
        assert_eq!(sent.user_agent, "watcher");
        let first_key = sent
            .frames
            .iter()
            .find(|(.., key)| *key == 1)
            .map(|(_, at, _)| *at);
        assert_eq!(sent.first_key_frame_at, first_key);
        assert_eq!(sent.first_rtp_at, Some(sent.frames[0].1));
        assert!(sent.connected_at <= sent.frames[0].1);
        drop(watcher);
        until("the session ends", || {
            simulator.sent("cam-001", 0).expect("it has this camera").sessions[0]
                .ended_at
                .is_some()
        })
        .await;
        simulator.stop().await;
    }
}

#[tokio::test]
async fn frames_keep_their_pace_whether_or_not_anybody_watches() {
    let simulator = Simulator::start(SimulatorConfig {
        cameras: 3,
        ..SimulatorConfig::default()
    })
    .await
    .expect("it starts");
    let mut first = Watcher::play(&simulator, "cam-001").await.expect("it plays");
    first.numbers(5).await;
    drop(first);
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    Watcher::play(&simulator, "cam-001")
        .await
        .expect("it plays")
        .numbers(5)
        .await;

    let sessions = simulator.sent("cam-001", 0).expect("it has this camera").sessions;
    let (early, early_at, _) = sessions[0].frames[0];
    let (late, late_at, _) = sessions[1].frames[0];
    let expected = (late_at - early_at) as f64 * 15.0 / 1e6;
    assert!(
        ((late - early) as f64 - expected).abs() < 2.0,
        "{} frames in place of {expected}",
        late - early
    );
}

#[tokio::test]
async fn cameras_are_at_different_phases_and_a_client_just_joins() {
    let simulator = Simulator::start(SimulatorConfig {
        cameras: 6,
        ..SimulatorConfig::default()
    })
    .await
    .expect("it starts");
    let mut phases = std::collections::BTreeSet::new();
    for camera in simulator.cameras().map(str::to_owned).collect::<Vec<_>>() {
        let mut watcher = Watcher::play(&simulator, &camera).await.expect("it plays");
        loop {
            if let Some(Seen::Video(Some(number), true)) = watcher.next().await {
                phases.insert(number % 15);
                break;
            }
        }
    }
    assert!(phases.len() >= 5, "{phases:?}");
}

#[tokio::test]
async fn a_key_frame_on_connect_spares_the_wait() {
    let config = SimulatorConfig {
        gop: 150,
        key_frame_on_connect: true,
        ..SimulatorConfig::default()
    };
    let simulator = Simulator::start(config).await.expect("the simulator starts");
    for _ in 0..2 {
        let mut watcher = Watcher::play(&simulator, "cam-001").await.expect("it plays");
        assert!(consecutive(&watcher.numbers(20).await));
    }
    for session in simulator.sent("cam-001", 0).expect("it has this camera").sessions {
        assert_eq!(session.first_rtp_at, session.first_key_frame_at);
    }
}

#[tokio::test]
async fn sound_comes_along() {
    let config = SimulatorConfig {
        audio: true,
        ..SimulatorConfig::default()
    };
    let simulator = Simulator::start(config).await.expect("the simulator starts");
    let mut watcher = Watcher::play(&simulator, "cam-001").await.expect("it plays");
    let (mut frames, mut sounds) = (Vec::new(), 0);
    while frames.len() < 30 {
        match watcher.next().await.expect("the stream goes on") {
            Seen::Video(number, _) => frames.extend(number),
            Seen::Audio(bytes) => {
                assert!(bytes > 0);
                sounds += 1;
            }
        }
    }
    assert!(consecutive(&frames));
    assert!((25..=40).contains(&sounds), "{sounds} AAC frames in two seconds");
}

#[tokio::test]
async fn a_taken_port_is_said_clearly() {
    let first = Simulator::start(SimulatorConfig::default())
        .await
        .expect("the simulator starts");
    let config = SimulatorConfig {
        listen: first.address(),
        ..SimulatorConfig::default()
    };
    let error = Simulator::start(config)
        .await
        .err()
        .expect("the port is taken")
        .to_string();
    assert!(error.contains(&first.address().to_string()), "{error}");
}
