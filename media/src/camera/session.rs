//! One RTSP session with one camera (RFC 2326; packets by TCP or UDP; Basic and Digest), from DESCRIBE to the last frame.
//! Keep-alive is retina's; a dropped session says TEARDOWN in the background and delays nobody.
//! Never tries again, and never decides whether a camera is silent: its supervisor does.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures::StreamExt;
use retina::{
    PacketContext,
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
    start: Start,
    /// When in the session the newest picture was taken.
    last: Option<Duration>,
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
            start: Start::default(),
            last: None,
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
                    let (stream, arrived) = (frame.stream_id(), arrival(frame.ctx()));
                    if let Some(at) = self.start.until(stream, frame.timestamp(), arrived) {
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
        let Some(format) = self.format.clone() else {
            return Ok(None);
        };
        let arrived = arrival(frame.start_ctx());
        let jumped = |detail: String| {
            Fault::new(
                CameraFault::Garbage,
                format!("the camera's clock jumped {detail}"),
            )
        };
        let at = self
            .start
            .until(self.video, frame.timestamp(), arrived)
            .ok_or_else(|| jumped("back to before the session's start".to_owned()))?;
        if let Some(last) = self.last.replace(at)
            && (at > last + JUMP || at + JUMP < last)
        {
            return Err(jumped(format!("from {last:?} to {at:?}")));
        }
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

fn arrival(packet: &PacketContext) -> SystemTime {
    SystemTime::from(packet.received_wall())
}

/// Where the timelines of a session's streams begin.
///
/// `RTP-Info` says it (RFC 2326, 12.33), and so keeps sound and pictures together. Some cameras say a time that has
/// nothing to do with the packets: such a stream begins when its first frame arrives.
#[derive(Debug, Default)]
struct Start {
    /// When the first frame of any stream arrived.
    first: Option<SystemTime>,
    /// How far each stream's own word is off, in nanoseconds, by its index.
    off: BTreeMap<usize, i128>,
}

impl Start {
    /// The time from the session's start to that of a frame of a stream; none for what lies before it.
    fn until(
        &mut self,
        stream: usize,
        timestamp: retina::Timestamp,
        arrived: SystemTime,
    ) -> Option<Duration> {
        let said = i128::from(timestamp.elapsed()) * 1_000_000_000 / i128::from(timestamp.clock_rate().get());
        self.place(stream, said, arrived)
    }

    fn place(&mut self, stream: usize, said: i128, arrived: SystemTime) -> Option<Duration> {
        let first = *self.first.get_or_insert(arrived);
        let off = self.off.entry(stream).or_insert_with(|| {
            let by_arrival = arrived.duration_since(first).unwrap_or_default();
            let plausible = 0..i128::try_from(JUMP.as_nanos()).unwrap_or(i128::MAX);
            if plausible.contains(&said) {
                0
            } else {
                said - i128::try_from(by_arrival.as_nanos()).unwrap_or(0)
            }
        });
        u64::try_from(said - *off).ok().map(Duration::from_nanos)
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i128 = 1_000_000_000;

    #[test]
    fn e1_a_stream_begins_when_rtp_info_says_and_if_that_is_wrong_with_its_first_frame() {
        let arrived = |millis| SystemTime::UNIX_EPOCH + Duration::from_millis(millis);
        let mut start = Start::default();
        // Pictures as said; sound by another clock, an hour off, first heard 200 ms later.
        assert_eq!(
            start.place(0, SECOND / 2, arrived(7_000)),
            Some(Duration::from_millis(500))
        );
        assert_eq!(
            start.place(1, 3_600 * SECOND, arrived(7_200)),
            Some(Duration::from_millis(200))
        );
        assert_eq!(
            start.place(1, 3_601 * SECOND, arrived(9_000)),
            Some(Duration::from_millis(1_200))
        );
        assert_eq!(
            start.place(0, SECOND, arrived(9_000)),
            Some(Duration::from_secs(1))
        );
        // A start that lies ahead of the first frame is wrong too.
        let mut start = Start::default();
        assert_eq!(start.place(0, -90 * SECOND, arrived(7_000)), Some(Duration::ZERO));
        assert_eq!(
            start.place(0, -89 * SECOND, arrived(8_000)),
            Some(Duration::from_secs(1))
        );
        assert_eq!(start.place(0, -91 * SECOND, arrived(8_000)), None);
    }
}
