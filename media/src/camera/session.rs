//! One RTSP session with one camera (RFC 2326; packets by TCP or UDP; Basic and Digest), from DESCRIBE to the last frame.
//! Keep-alive is retina's; a dropped session says TEARDOWN in the background and delays nobody.
//! Never tries again, and never decides whether a camera is silent: its supervisor does.

use std::{
    pin::Pin,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures::StreamExt;
use retina::{
    client::{
        Demuxed, Described, InitialTimestampPolicy, PlayOptions, Session as RtspSession, SessionOptions,
        SetupOptions, Stream, TcpTransportOptions, Transport as RtspTransport, UdpTransportOptions,
    },
    codec::{CodecItem, FrameFormat, ParametersRef, VideoParameters, VideoParametersCodec},
};
use understudy_core::{
    camera::{Camera, Credentials, Transport},
    contract::heartbeat::CameraFault,
    time::Timestamp,
};
use url::Url;

use super::{
    fault::Fault,
    frame::{AudioFormat, AudioFrame, Frame, VideoCodec, VideoFormat, VideoFrame, WallMapping},
    loss::{Losses, Picture},
    nal,
};

/// A camera's clock that goes on by more than this between two frames, or back by more, has been set.
const JUMP: Duration = Duration::from_secs(10);

/// A session that plays.
pub struct Session {
    stream: Pin<Box<Demuxed>>,
    credentials: Option<Credentials>,
    video: usize,
    format: Option<Arc<VideoFormat>>,
    audio: Option<(usize, AudioFormat)>,
    wall: WallMapping,
    last: Duration,
    /// What packets that were lost on the way spoil; none where none can be lost.
    losses: Option<Losses>,
}

/// What came of a session.
#[derive(Clone, Debug)]
pub enum Received {
    /// A frame.
    Frame(Frame),
    /// A picture that was damaged on the way, or that builds on one: it is left out.
    Damaged,
}

impl Session {
    /// Connects, signs in, and starts to play: video, and audio if the camera has some that can be recorded.
    ///
    /// # Errors
    /// The [`Fault`], also if it takes longer than `within`.
    pub async fn open(camera: &Camera, within: Duration) -> Result<Self, Fault> {
        let (url, credentials) = address(camera)?;
        // Boxed: retina's futures are large, and there is one per camera.
        let opening = Box::pin(Self::play(url, credentials, camera.transport));
        tokio::time::timeout(within, opening)
            .await
            .map_err(|_| Fault::no_answer(within))?
    }

    async fn play(url: Url, credentials: Option<Credentials>, transport: Transport) -> Result<Self, Fault> {
        let fault = |error: retina::Error| Fault::of_session(&error, credentials.as_ref());
        let retina_credentials = credentials
            .as_ref()
            .map(|credentials| retina::client::Credentials {
                username: credentials.username.clone(),
                password: credentials.password.clone(),
            });
        let options = SessionOptions::default()
            .creds(retina_credentials)
            .user_agent("understudy".to_owned());
        let mut session = RtspSession::describe(url, options).await.map_err(fault)?;
        let video = video_stream(&session)?;
        let audio = session
            .streams()
            .iter()
            .enumerate()
            .find_map(|(index, stream)| Some((index, audio_format(stream)?)));
        let setup = || {
            SetupOptions::default()
                .frame_format(FrameFormat::MP4)
                .transport(match transport {
                    Transport::Tcp => RtspTransport::Tcp(TcpTransportOptions::default()),
                    Transport::Udp => RtspTransport::Udp(UdpTransportOptions::default()),
                })
        };
        session.setup(video, setup()).await.map_err(fault)?;
        if let Some((index, _)) = audio {
            session.setup(index, setup()).await.map_err(fault)?;
        }
        // Many cameras with sound leave `rtptime` out.
        let play = PlayOptions::default().initial_timestamp(InitialTimestampPolicy::Permissive);
        let stream = session
            .play(play)
            .await
            .map_err(fault)?
            .demuxed()
            .map_err(fault)?;
        Ok(Self {
            stream: Box::pin(stream),
            credentials,
            video,
            format: None,
            audio,
            wall: WallMapping::default(),
            last: Duration::ZERO,
            losses: (transport == Transport::Udp).then(Losses::default),
        })
    }

    /// How the camera encodes the sound that is recorded with its pictures.
    #[must_use]
    pub fn audio(&self) -> Option<&AudioFormat> {
        self.audio.as_ref().map(|(_, format)| format)
    }

    /// What comes next. Can be dropped and called again.
    ///
    /// # Errors
    /// The [`Fault`] that ended the session.
    pub async fn next(&mut self) -> Result<Received, Fault> {
        loop {
            let item = match self.stream.next().await {
                None => return Err(Fault::closed()),
                Some(Err(error)) => return Err(Fault::of_session(&error, self.credentials.as_ref())),
                Some(Ok(item)) => item,
            };
            match item {
                CodecItem::VideoFrame(frame) if frame.stream_id() == self.video => {
                    if let Some(received) = self.video_frame(frame)? {
                        return Ok(received);
                    }
                }
                CodecItem::AudioFrame(frame) => {
                    if let Some(at) = since_start(frame.timestamp()) {
                        return Ok(Received::Frame(Frame::Audio(AudioFrame {
                            data: Bytes::copy_from_slice(frame.data()),
                            at,
                        })));
                    }
                }
                _ => {}
            }
        }
    }

    /// None for what comes before the camera has said how it encodes.
    fn video_frame(&mut self, frame: retina::codec::VideoFrame) -> Result<Option<Received>, Fault> {
        if self.format.is_none() || frame.has_new_parameters() {
            self.format = match self.stream.streams()[self.video].parameters() {
                Some(ParametersRef::Video(parameters)) => Some(Arc::new(video_format(parameters)?)),
                _ => None,
            };
        }
        let (Some(format), Some(at)) = (self.format.clone(), since_start(frame.timestamp())) else {
            return Ok(None);
        };
        if at > self.last + JUMP || at + JUMP < self.last {
            let detail = format!("the camera's clock jumped from {:?} to {at:?}", self.last);
            return Err(Fault::new(CameraFault::Garbage, detail));
        }
        self.last = at;
        let picture = Picture {
            after_loss: frame.loss() > 0,
            key: frame.is_random_access_point(),
            has_its_beginning: nal::has_its_beginning(format.codec, frame.data()),
        };
        if let Some(losses) = &mut self.losses
            && !losses.pass(picture)
        {
            return Ok(Some(Received::Damaged));
        }
        let arrived = SystemTime::from(frame.start_ctx().received_wall());
        Ok(Some(Received::Frame(Frame::Video(VideoFrame {
            format,
            key: picture.key,
            at,
            wall: self.wall.map(at, timestamp(arrived)),
            data: Bytes::from(frame.into_data()),
        }))))
    }
}

fn timestamp(time: SystemTime) -> Timestamp {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// None for what the camera's clock puts before the session's start.
fn since_start(timestamp: retina::Timestamp) -> Option<Duration> {
    let units = u128::try_from(timestamp.elapsed()).ok()?;
    let nanos = units * 1_000_000_000 / u128::from(timestamp.clock_rate().get());
    u64::try_from(nanos).ok().map(Duration::from_nanos)
}

/// The address without credentials, and these.
fn address(camera: &Camera) -> Result<(Url, Option<Credentials>), Fault> {
    let unusable = |what: &str| {
        Fault::new(
            CameraFault::Unreachable,
            format!("its address can't be used: {what}"),
        )
    };
    let mut url = Url::parse(&camera.url).map_err(|error| unusable(&error.to_string()))?;
    if url.scheme() != "rtsp" {
        return Err(unusable(&format!("{} is not supported, only rtsp", url.scheme())));
    }
    let within = url.password().map(|password| Credentials {
        username: url.username().to_owned(),
        password: password.to_owned(),
    });
    url.set_username("")
        .and_then(|()| url.set_password(None))
        .map_err(|()| unusable("it names no machine"))?;
    Ok((url, camera.credentials.clone().or(within)))
}

fn video_stream(session: &RtspSession<Described>) -> Result<usize, Fault> {
    let offered = |stream: &Stream| format!("{}/{}", stream.media(), stream.encoding_name());
    let streams = session.streams();
    let usable =
        |stream: &Stream| stream.media() == "video" && matches!(stream.encoding_name(), "h264" | "h265");
    streams.iter().position(usable).ok_or_else(|| {
        let offered: Vec<String> = streams.iter().map(offered).collect();
        let detail = format!("offers no H.264 or H.265 video, but {}", offered.join(", "));
        Fault::new(CameraFault::UnsupportedCodec, detail)
    })
}

fn video_format(parameters: &VideoParameters) -> Result<VideoFormat, Fault> {
    let codec = match parameters.codec_params() {
        VideoParametersCodec::H264 { .. } => VideoCodec::H264,
        VideoParametersCodec::H265 { .. } => VideoCodec::H265,
        _ => {
            return Err(Fault::new(
                CameraFault::UnsupportedCodec,
                "sends neither H.264 nor H.265 video",
            ));
        }
    };
    let (width, height) = parameters.pixel_dimensions();
    Ok(VideoFormat {
        codec,
        configuration: Bytes::copy_from_slice(parameters.extra_data()),
        width,
        height,
    })
}

fn audio_format(stream: &Stream) -> Option<AudioFormat> {
    let Some(ParametersRef::Audio(parameters)) = stream.parameters() else {
        return None;
    };
    let channels = parameters.channels().get();
    match stream.encoding_name() {
        "mpeg4-generic" => Some(AudioFormat::Aac {
            configuration: Bytes::copy_from_slice(parameters.extra_data()),
            rate: parameters.clock_rate(),
            channels,
        }),
        "pcma" if parameters.clock_rate() == 8000 => Some(AudioFormat::G711A { channels }),
        "pcmu" if parameters.clock_rate() == 8000 => Some(AudioFormat::G711U { channels }),
        other => {
            tracing::warn!(
                codec = other,
                "a camera's sound is not recorded: its codec is not supported"
            );
            None
        }
    }
}
