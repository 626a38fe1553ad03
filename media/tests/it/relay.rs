//! Live view: foreign players (ffmpeg, ffprobe, retina) at the relay, a numbered camera behind it, and its own count of
//! who connected to it.

use std::{collections::BTreeMap, net::SocketAddr, path::Path, time::Duration};

use anyhow::{Context, ensure};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    process::Command,
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use understudy_core::{
    camera::{Camera, Credentials},
    contract::heartbeat::CameraStatus,
    policy::Range,
};
use understudy_media::{
    archive::mp4,
    camera::{Session, frame::Frame, session::Received},
    film::Film,
    relay::Relay,
};
use understudy_simulator::{BehaviourChange, Codec, SimulatorConfig, Switch, numbering};

use crate::rig::{DEADLINE, Rig, camera, camera_id, failover, numbers, server, until};

/// A relay that serves.
struct Served {
    relay: Relay,
    address: SocketAddr,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Served {
    async fn start(rig: &Rig) -> anyhow::Result<Self> {
        Self::of(Relay::new(rig.studio.clone())).await
    }

    async fn of(relay: Relay) -> anyhow::Result<Self> {
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(relay.clone().run(([127, 0, 0, 1], 0).into(), shutdown.clone()));
        let mut address = relay.address();
        let address = *timeout(DEADLINE, address.wait_for(Option::is_some)).await??;
        Ok(Self {
            relay,
            address: address.context("no address")?,
            shutdown,
            task,
        })
    }

    fn url(&self, number: u32) -> String {
        format!("rtsp://{}/{}", self.address, camera_id(number))
    }

    /// A viewer, as the product itself would be one: retina.
    async fn watch(&self, rig: &Rig, number: u32) -> anyhow::Result<Session> {
        let at_the_relay = Camera {
            url: self.url(number),
            ..camera(&rig.simulator, number)
        };
        Ok(Session::open(&at_the_relay, DEADLINE).await?)
    }

    async fn end(self) -> anyhow::Result<()> {
        self.shutdown.cancel();
        Ok(timeout(DEADLINE, self.task).await??)
    }
}

/// The numbers of the next `count` pictures of a viewer, of which the first is a key frame if it is the viewer's first.
async fn watched(viewer: &mut Session, count: usize) -> anyhow::Result<Vec<u64>> {
    let mut seen = Vec::new();
    while seen.len() < count {
        let received = timeout(DEADLINE, viewer.next())
            .await
            .context("nothing comes")??;
        if let Received::Frame(Frame::Video(frame)) = received {
            let number = numbering::frame_number(&frame.data).context("a picture has no number")?;
            seen.push(number.number);
        }
    }
    Ok(seen)
}

async fn ffmpeg(url: &str, frames: u32, file: &Path) -> anyhow::Result<()> {
    let output = Command::new("ffmpeg")
        .args([
            "-v",
            "error",
            "-y",
            "-rtsp_transport",
            "tcp",
            "-i",
            url,
            "-c",
            "copy",
        ])
        .args(["-frames:v", &frames.to_string()])
        .args([
            "-movflags",
            "frag_keyframe+empty_moov+default_base_moof",
            "-f",
            "mp4",
        ])
        .arg(file)
        .kill_on_drop(true)
        .output();
    let output = timeout(DEADLINE, output).await.context("ffmpeg hangs")??;
    ensure!(
        output.status.success(),
        "ffmpeg: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// What ffprobe finds: codec names, or what it says is wrong.
async fn ffprobe(url: &str) -> anyhow::Result<Result<String, String>> {
    let output = Command::new("ffprobe")
        .args(["-v", "error", "-rtsp_transport", "tcp"])
        .args(["-show_entries", "stream=codec_name", "-of", "csv=p=0", url])
        .kill_on_drop(true)
        .output();
    let output = timeout(DEADLINE, output).await.context("ffprobe hangs")??;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().replace('\n', " ");
    Ok(match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => Err(text(&output.stderr)),
    })
}

/// The slices of each picture in a file, by its number.
fn slices(file: &Path, codec: Codec) -> anyhow::Result<BTreeMap<u64, Vec<Vec<u8>>>> {
    let mut samples = mp4::samples(file)?;
    let mut pictures = BTreeMap::new();
    while let Some((_, bytes)) = samples.next_video()? {
        let number = numbering::frame_number(&bytes).context("a picture has no number")?;
        let mut rest = &bytes[..];
        let mut units = Vec::new();
        while let Some((length, behind)) = rest.split_first_chunk::<4>() {
            let (unit, behind) = behind.split_at(usize::try_from(u32::from_be_bytes(*length))?);
            rest = behind;
            let is_slice = match codec {
                Codec::H264 => (1..=5).contains(&(unit[0] & 0x1f)),
                Codec::H265 => unit[0] >> 1 & 0x3f < 32,
            };
            // A unit never ends with a zero; ffmpeg leaves what belongs to the next start code.
            let end = unit
                .iter()
                .rposition(|byte| *byte != 0)
                .map_or(0, |last| last + 1);
            units.extend(is_slice.then(|| unit[..end].to_vec()));
        }
        pictures.insert(number.number, units);
    }
    Ok(pictures)
}

/// ffmpeg watches a camera; what it gets is what is recorded, picture by picture and byte by byte.
async fn a_player_gets_what_the_camera_sends(cameras: SimulatorConfig, codecs: &str) -> anyhow::Result<()> {
    let codec = cameras.codec;
    let rig = Rig::start(cameras).await?;
    let served = Served::start(&rig).await?;
    rig.film(rig.cameras(1)).await;
    rig.until_recording(1).await?;
    assert_eq!(ffprobe(&served.url(1)).await?, Ok(codecs.to_owned()));
    let file = rig.path().join("watched.mp4");
    ffmpeg(&served.url(1), 40, &file).await?;
    rig.studio.stop_filming().await;
    let watched = numbers(&file)?;
    assert_eq!(watched.len(), 40);
    assert_eq!(watched, (watched[0]..watched[0] + 40).collect::<Vec<_>>());
    let mut recorded = BTreeMap::new();
    for segment in rig.segments(1).await? {
        recorded.extend(slices(&rig.archive.file(&segment.path)?, codec)?);
    }
    for (number, units) in slices(&file, codec)? {
        assert!(!units.is_empty());
        assert!(recorded.get(&number) == Some(&units), "picture {number} differs");
    }
    assert_eq!(rig.simulator.sent("cam-001", 0)?.sessions.len(), 1);
    served.end().await?;
    rig.end().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn d2_a_player_gets_an_h264_camera_with_sound_as_it_was_encoded() -> anyhow::Result<()> {
    let cameras = SimulatorConfig {
        audio: true,
        ..SimulatorConfig::default()
    };
    a_player_gets_what_the_camera_sends(cameras, "h264 aac").await
}

#[tokio::test(flavor = "multi_thread")]
async fn d2_a_player_gets_an_h265_camera_as_it_was_encoded() -> anyhow::Result<()> {
    let cameras = SimulatorConfig {
        codec: Codec::H265,
        ..SimulatorConfig::default()
    };
    a_player_gets_what_the_camera_sends(cameras, "hevc").await
}

#[tokio::test(flavor = "multi_thread")]
async fn d2_twenty_viewers_are_one_session_at_the_camera_and_one_that_reads_nothing_harms_nobody()
-> anyhow::Result<()> {
    // Given a camera that allows one session and is recorded,
    let rig = Rig::start(SimulatorConfig {
        max_sessions: Some(1),
        bitrate: 2000,
        // Long GOPs: whoever had to wait for the next key frame would wait for four seconds.
        gop: 60,
        ..SimulatorConfig::default()
    })
    .await?;
    let served = Served::start(&rig).await?;
    rig.film(rig.cameras(1)).await;
    rig.until_recording(1).await?;
    // and a viewer that never reads,
    let mut stuck = stuck(&served).await?;

    // when twenty watch it,
    let mut viewers = Vec::new();
    for _ in 0..20 {
        viewers.push(served.watch(&rig, 1).await?);
    }
    assert_eq!(rig.simulator.overview()[0].sessions, 1);
    let watching = viewers
        .iter_mut()
        .map(|viewer| async move { watched(viewer, 45).await });
    for seen in futures::future::join_all(watching).await {
        let seen = seen?;
        // each sees every picture,
        assert_eq!(seen, (seen[0]..seen[0] + 45).collect::<Vec<_>>());
    }
    drop(viewers);
    // the one that reads nothing is let go of,
    until("the relay has no viewer", || served.relay.viewers() == 0).await?;
    let mut rest = Vec::new();
    timeout(DEADLINE, stuck.read_to_end(&mut rest)).await?.ok();
    rig.studio.stop_filming().await;
    // and no picture is missing in the recordings.
    let mut recorded = Vec::new();
    for segment in rig.segments(1).await? {
        recorded.extend(numbers(&rig.archive.file(&segment.path)?)?);
    }
    assert!(recorded.len() > 45);
    assert_eq!(
        recorded,
        (recorded[0]..recorded[0] + recorded.len() as u64).collect::<Vec<_>>()
    );
    assert_eq!(rig.simulator.sent("cam-001", 0)?.sessions.len(), 1);
    served.end().await?;
    rig.end().await;
    Ok(())
}

/// A viewer with a small buffer that plays and reads nothing more.
async fn stuck(served: &Served) -> anyhow::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(4096)?;
    let mut stream = socket.connect(served.address).await?;
    let url = served.url(1);
    let set_up = format!("SETUP {url}/video RTSP/1.0\r\nCSeq: 1\r\nTransport: RTP/AVP/TCP;unicast\r\n\r\n");
    stream.write_all(set_up.as_bytes()).await?;
    let mut answer = vec![0; 2048];
    let length = stream.read(&mut answer).await?;
    let answer = String::from_utf8(answer[..length].to_vec())?;
    let session = answer
        .split("Session: ")
        .nth(1)
        .and_then(|rest| rest.split(';').next());
    let session = session.with_context(|| answer.clone())?;
    let play = format!("PLAY {url} RTSP/1.0\r\nCSeq: 2\r\nSession: {session}\r\n\r\n");
    stream.write_all(play.as_bytes()).await?;
    until("the viewer counts", || served.relay.viewers() == 1).await?;
    Ok(stream)
}

#[tokio::test(flavor = "multi_thread")]
async fn a4_d2_only_what_is_filmed_is_there_and_live_only_leaves_nothing_on_disk() -> anyhow::Result<()> {
    // Given a server on standby,
    let rig = Rig::start(SimulatorConfig::default()).await?;
    let served = Served::start(&rig).await?;
    let absent = ffprobe(&served.url(1)).await?.expect_err("nothing is filmed");
    assert!(absent.contains("404"), "{absent}");
    // when it films live-only for a failover,
    let film = Film {
        identity: server(),
        failover: Some(failover("f-1")),
        range: Range::LiveOnly,
        cameras: rig.cameras(1),
    };
    rig.studio.film(film).await;
    // a viewer may come at once: it is waited for the first picture.
    assert_eq!(ffprobe(&served.url(1)).await?, Ok("h264".to_owned()));
    assert_eq!(rig.status(1), Some(CameraStatus::LiveOnly));
    let mut viewer = served.watch(&rig, 1).await?;
    watched(&mut viewer, 20).await?;
    assert_eq!(rig.segments(1).await?.len(), 0);
    // Back on standby, the viewer is told by the end of its connection, and there is nothing any more.
    rig.studio.stop_filming().await;
    let end = async { while viewer.next().await.is_ok() {} };
    timeout(DEADLINE, end)
        .await
        .context("the viewer's session goes on")?;
    let absent = ffprobe(&served.url(1)).await?.expect_err("nothing is filmed");
    assert!(absent.contains("404"), "{absent}");
    served.end().await?;
    rig.end().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn d2_a_viewer_stays_while_the_camera_is_connected_to_anew() -> anyhow::Result<()> {
    let rig = Rig::start(SimulatorConfig::default()).await?;
    let served = Served::start(&rig).await?;
    rig.film(rig.cameras(1)).await;
    let mut viewer = served.watch(&rig, 1).await?;
    let before = watched(&mut viewer, 10).await?;
    let drop_now = BehaviourChange {
        drop: Some(Switch::On(true)),
        ..BehaviourChange::default()
    };
    rig.simulator.change("cam-001", &drop_now)?;
    let mut after = watched(&mut viewer, 60).await?;
    after.retain(|number| *number > before[9] + 1);
    assert!(after.len() > 30, "{after:?}");
    assert!(after.is_sorted_by(|earlier, later| earlier < later), "{after:?}");
    assert_eq!(rig.simulator.sent("cam-001", 0)?.sessions.len(), 2);
    served.end().await?;
    rig.end().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn d2_an_address_that_is_taken_is_tried_again() -> anyhow::Result<()> {
    let rig = Rig::start(SimulatorConfig::default()).await?;
    let taken = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
    let (address, shutdown) = (taken.local_addr()?, CancellationToken::new());
    let relay = Relay::new(rig.studio.clone());
    let mut announced = relay.address();
    let task = tokio::spawn(relay.run(address, shutdown.clone()));
    let early = timeout(Duration::from_millis(300), announced.changed()).await;
    assert!(early.is_err(), "it is announced before it listens");
    drop(taken);
    let now = *timeout(DEADLINE, announced.wait_for(Option::is_some)).await??;
    assert_eq!(now, Some(address));
    shutdown.cancel();
    timeout(DEADLINE, task).await??;
    rig.end().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn d2_with_a_token_only_those_who_know_it_watch_and_the_others_hear_nothing() -> anyhow::Result<()> {
    const TOKEN: &str = "0123456789abcdef0123456789abcdef";
    let rig = Rig::start(SimulatorConfig::default()).await?;
    rig.film(rig.cameras(1)).await;
    rig.until_recording(1).await?;
    let served = Served::of(Relay::new(rig.studio.clone()).guarded_by(TOKEN)).await?;
    let url =
        |user: &str, token: &str, camera: &str| format!("rtsp://{user}:{token}@{}/{camera}", served.address);
    // By any name, with ffmpeg and with retina.
    assert_eq!(
        ffprobe(&url("anna", TOKEN, "cam-001")).await?,
        Ok("h264".to_owned())
    );
    assert_eq!(
        ffprobe(&url("bert", TOKEN, "cam-001")).await?,
        Ok("h264".to_owned())
    );
    let viewer = |password: &str| Camera {
        url: served.url(1),
        credentials: Some(Credentials {
            username: "viewer".to_owned(),
            password: password.to_owned(),
        }),
        ..camera(&rig.simulator, 1)
    };
    let mut retina = Session::open(&viewer(TOKEN), DEADLINE).await?;
    assert_eq!(watched(&mut retina, 5).await?.len(), 5);
    // Without it nobody does, nor learns which cameras there are.
    let wrong = TOKEN.replace('0', "1");
    assert!(Session::open(&viewer(&wrong), DEADLINE).await.is_err());
    for camera in ["cam-001", "cam-999"] {
        for refused in [
            url("anna", &wrong, camera),
            format!("rtsp://{}/{camera}", served.address),
        ] {
            let said = ffprobe(&refused).await?.expect_err("nobody may watch");
            assert!(said.contains("401"), "{refused}: {said}");
        }
    }
    // And who does not sign in holds no place.
    let mut idle = TcpStream::connect(served.address).await?;
    let request = format!("OPTIONS rtsp://{}/ RTSP/1.0\r\nCSeq: 1\r\n\r\n", served.address);
    idle.write_all(request.as_bytes()).await?;
    let mut said = Vec::new();
    timeout(DEADLINE, idle.read_to_end(&mut said)).await??;
    assert!(
        said.starts_with(b"RTSP/1.0 200"),
        "{}",
        String::from_utf8_lossy(&said)
    );
    drop(retina);
    served.end().await?;
    rig.end().await;
    Ok(())
}
