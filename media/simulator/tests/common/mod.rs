//! Clients of the simulator that tests share: retina, as the product uses it, and bare RTSP.

// Each test program uses a part of this.
#![allow(dead_code, unreachable_pub)]

use std::{net::SocketAddr, pin::Pin, time::Duration};

use futures::StreamExt;
use retina::{
    client::{
        Credentials, Demuxed, PlayOptions, Session, SessionOptions, SetupOptions, TcpTransportOptions,
        Transport,
    },
    codec::{CodecItem, VideoFrame},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use understudy_simulator::{BehaviourChange, Simulator, numbering};

/// Long enough for anything that happens at all, on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A change of behaviour, as it would be sent over HTTP.
pub fn change(json: &str) -> BehaviourChange {
    serde_json::from_str(json).expect("a change of behaviour")
}

/// Waits until `holds`.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, waiting)
        .await
        .unwrap_or_else(|_| panic!("waited in vain: {what}"));
}

/// What retina makes of a camera.
pub struct Watcher {
    session: Pin<Box<Demuxed>>,
}

/// One thing that came.
pub enum Seen {
    /// A frame's number (none if it has none), and whether it is a key frame.
    Video(Option<u64>, bool),
    /// An audio frame's bytes.
    Audio(usize),
}

impl Watcher {
    /// Plays everything that the camera offers.
    pub async fn play(simulator: &Simulator, camera: &str) -> Result<Self, retina::Error> {
        Self::play_as(simulator, camera, None).await
    }

    pub async fn play_as(
        simulator: &Simulator,
        camera: &str,
        user: Option<(&str, &str)>,
    ) -> Result<Self, retina::Error> {
        let url = simulator.url(camera).parse().expect("an address");
        let creds = user.map(|(username, password)| Credentials {
            username: username.to_owned(),
            password: password.to_owned(),
        });
        let options = SessionOptions::default()
            .creds(creds)
            .user_agent("watcher".to_owned());
        let mut session = Session::describe(url, options).await?;
        for stream in 0..session.streams().len() {
            let transport = Transport::Tcp(TcpTransportOptions::default());
            session
                .setup(stream, SetupOptions::default().transport(transport))
                .await?;
        }
        let session = session.play(PlayOptions::default()).await?.demuxed()?;
        Ok(Self {
            session: Box::pin(session),
        })
    }

    /// The next thing; an error or the end is none.
    pub async fn next(&mut self) -> Option<Seen> {
        loop {
            match timeout(PATIENCE, self.session.next())
                .await
                .expect("something comes in time")?
                .ok()?
            {
                CodecItem::VideoFrame(frame) => return Some(Seen::Video(number(&frame), is_key(&frame))),
                CodecItem::AudioFrame(frame) => return Some(Seen::Audio(frame.data().len())),
                _ => {}
            }
        }
    }

    /// The numbers of the next `count` video frames.
    pub async fn numbers(&mut self, count: usize) -> Vec<u64> {
        let mut numbers = Vec::new();
        while numbers.len() < count {
            if let Seen::Video(number, _) = self.next().await.expect("the stream goes on") {
                numbers.push(number.expect("each frame has a number"));
            }
        }
        numbers
    }
}

fn number(frame: &VideoFrame) -> Option<u64> {
    numbering::frame_number(frame.data()).map(|frame| frame.number)
}

fn is_key(frame: &VideoFrame) -> bool {
    frame.is_random_access_point()
}

/// Whether each number follows the one before it.
pub fn consecutive(numbers: &[u64]) -> bool {
    numbers.windows(2).all(|pair| pair[1] == pair[0] + 1)
}

/// A client that speaks RTSP by hand.
pub struct Bare {
    pub stream: TcpStream,
}

impl Bare {
    pub async fn connect(address: SocketAddr) -> Self {
        Self {
            stream: TcpStream::connect(address).await.expect("the simulator listens"),
        }
    }

    pub async fn write(&mut self, text: &str) {
        self.stream
            .write_all(text.as_bytes())
            .await
            .expect("the connection stands");
    }

    /// Sends a request; gives the head of its answer, empty if the connection was closed instead.
    pub async fn ask(&mut self, method: &str, url: &str, fields: &str) -> String {
        self.write(&format!("{method} {url} RTSP/1.0\r\nCSeq: 1\r\n{fields}\r\n"))
            .await;
        self.head().await
    }

    /// Reads an answer's head.
    pub async fn head(&mut self) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            match timeout(PATIENCE, self.stream.read(&mut byte))
                .await
                .expect("an answer in time")
            {
                Ok(1) => head.push(byte[0]),
                _ => return String::new(),
            }
        }
        String::from_utf8(head).expect("a head is text")
    }

    /// Opens a session and plays; reads nothing of what comes.
    pub async fn play(simulator: &Simulator, camera: &str) -> Self {
        let mut client = Self::connect(simulator.address()).await;
        let url = simulator.url(camera);
        let answer = client
            .ask(
                "SETUP",
                &format!("{url}/track1"),
                "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n",
            )
            .await;
        let session = answer
            .split("Session: ")
            .nth(1)
            .and_then(|rest| rest.split(';').next())
            .expect("a session");
        client
            .write(&format!(
                "PLAY {url} RTSP/1.0\r\nCSeq: 2\r\nSession: {session}\r\n\r\n"
            ))
            .await;
        client
    }
}
