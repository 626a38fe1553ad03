//! One viewer's connection (RFC 2326): its requests and their answers, and the frames that it gets.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use bytes::BytesMut;
use rtsp_types::{Message, Method, Request, Response, ResponseBuilder, StatusCode, Version, headers};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use understudy_core::{ids::CameraId, time::Timestamp};
use understudy_rtsp::{
    auth::{Gate, Scheme},
    message::{self, Offer},
};

use super::{
    feed::Feed,
    tracks::{self, Track},
};
use crate::{
    camera::{
        Fanout,
        frame::{AudioFormat, Frame, VideoFormat},
    },
    film::Studio,
};

const PUBLIC: &str = "OPTIONS, DESCRIBE, SETUP, PLAY, GET_PARAMETER, SET_PARAMETER, TEARDOWN";
const SERVER: &str = "understudy";
/// How long a viewer that does not watch may say nothing. Who watches is known by what it takes.
const IDLE: Duration = Duration::from_secs(60);
/// How long a viewer may take nothing before it counts as gone.
const STUCK: Duration = Duration::from_secs(10);
/// How long a viewer gets to sign in: who does not know the token holds no place for long.
const SIGNING_IN: Duration = Duration::from_secs(10);
/// How long it is waited for the first picture of a camera that is being connected to.
const FIRST_PICTURE: Duration = Duration::from_secs(5);

/// What one connection asks of its viewer: the token, without which nothing is told, not even what is filmed here.
fn gate(token: Option<&str>) -> Gate {
    let scheme = match token {
        Some(_) => Scheme::Digest,
        None => Scheme::None,
    };
    let nonce = format!("{:032x}", rand::random::<u128>());
    Gate::new(scheme, SERVER, None, token.unwrap_or_default().to_owned(), nonce)
}

/// Serves a connection until it ends, or its camera is not filmed here any more.
pub(super) async fn serve(stream: TcpStream, studio: Studio, viewers: Arc<AtomicUsize>, token: Option<&str>) {
    // Frames leave when they come; without it the last piece of each may wait for the next.
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let (reader, writer) = stream.into_split();
    let viewer = Viewer {
        studio,
        viewers,
        writer,
        gate: gate(token),
        signs_in_until: token.map(|_| Instant::now() + SIGNING_IN),
        place: None,
        playing: None,
        ended: CancellationToken::new(),
    };
    if let Err(error) = viewer.run(reader).await {
        tracing::debug!(%error, "a viewer's connection ended");
    }
}

struct Viewer {
    studio: Studio,
    viewers: Arc<AtomicUsize>,
    writer: OwnedWriteHalf,
    gate: Gate,
    /// Then it has to have signed in; none once it has, or needs not.
    signs_in_until: Option<Instant>,
    place: Option<Place>,
    playing: Option<Playing>,
    /// Cancelled when the camera of its place is not filmed here any more.
    ended: CancellationToken,
}

/// What was set up.
struct Place {
    camera: CameraId,
    session: String,
    fanout: Arc<Fanout>,
    video: Option<Track>,
    audio: Option<Track>,
}

/// What is being sent.
struct Playing {
    feed: Feed,
    /// The wall-clock time of the newest picture, by the viewer's time.
    wall: (Duration, Timestamp),
    _counted: Counted,
}

/// One of the viewers, for as long as it lives.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(viewers: &Arc<AtomicUsize>) -> Self {
        viewers.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(viewers))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

type Answer = Result<ResponseBuilder, StatusCode>;

fn ok() -> ResponseBuilder {
    Response::builder(Version::V1_0, StatusCode::Ok)
}

impl Viewer {
    async fn run(mut self, mut reader: OwnedReadHalf) -> io::Result<()> {
        let mut buffer = BytesMut::with_capacity(4096);
        loop {
            let idle = self.playing.is_none();
            tokio::select! {
                read = read(&mut reader, &mut buffer, idle) => {
                    if read? == 0 || !self.take(&mut buffer).await? {
                        return Ok(());
                    }
                }
                (frame, time) = next(&mut self.playing) => self.send(&frame, time).await?,
                () = self.ended.cancelled() => return Ok(()),
                () = over(self.signs_in_until) => return Err(io::ErrorKind::PermissionDenied.into()),
            }
        }
    }

    /// Answers what was received. Says whether to go on.
    async fn take(&mut self, buffer: &mut BytesMut) -> io::Result<bool> {
        loop {
            match message::take(buffer) {
                Ok(Some(Message::Request(request))) => {
                    self.answer(&request).await?;
                    if *request.method() == Method::Teardown {
                        return Ok(false);
                    }
                }
                // The viewer's own reports.
                Ok(Some(_)) => {}
                Ok(None) => return Ok(true),
                Err(_) => {
                    let answer = Response::builder(Version::V1_0, StatusCode::BadRequest);
                    self.write(&message::written(answer, None, SERVER, &[])).await?;
                    return Ok(false);
                }
            }
        }
    }

    async fn answer(&mut self, request: &Request<Vec<u8>>) -> io::Result<()> {
        let mut body = String::new();
        if *request.method() != Method::Options && !self.may_pass(request) {
            let challenge = self.gate.challenge();
            let answer = Response::builder(Version::V1_0, StatusCode::Unauthorized)
                .header(headers::WWW_AUTHENTICATE, challenge);
            return self
                .write(&message::written(answer, Some(request), SERVER, &[]))
                .await;
        }
        let answer = match request.method() {
            _ if request.header(&headers::REQUIRE).is_some() => Err(StatusCode::OptionNotSupported),
            Method::Options => Ok(ok().header(headers::PUBLIC, PUBLIC)),
            Method::Describe => self.describe(request).await.map(|(answer, description)| {
                body = description;
                answer
            }),
            Method::Setup => self.set_up(request).await,
            Method::Play => self.play(request),
            Method::GetParameter | Method::SetParameter | Method::Teardown => Ok(ok()),
            _ => Err(StatusCode::MethodNotAllowed),
        };
        let answer = answer.unwrap_or_else(|status| Response::builder(Version::V1_0, status));
        self.write(&message::written(answer, Some(request), SERVER, body.as_bytes()))
            .await
    }

    fn may_pass(&mut self, request: &Request<Vec<u8>>) -> bool {
        let authorization = request
            .header(&headers::AUTHORIZATION)
            .map(|value| value.as_str());
        let admitted = self.gate.admits(<&str>::from(request.method()), authorization);
        if admitted {
            self.signs_in_until = None;
        }
        admitted
    }

    async fn describe(&self, request: &Request<Vec<u8>>) -> Result<(ResponseBuilder, String), StatusCode> {
        let (camera, _) = asked(request)?;
        let fanout = self.studio.fanout(&camera).ok_or(StatusCode::NotFound)?;
        let (video, audio) = formats(&fanout).await?;
        let answer = ok()
            .header(headers::CONTENT_TYPE, "application/sdp")
            .header(headers::CONTENT_BASE, format!("{}/", base(request)));
        Ok((answer, tracks::describe(camera.as_str(), &video, audio.as_ref())))
    }

    async fn set_up(&mut self, request: &Request<Vec<u8>>) -> Answer {
        let (camera, track) = asked(request)?;
        if self.playing.is_some() {
            return Err(StatusCode::MethodNotValidInThisState);
        }
        let mut place = match self.place.take() {
            Some(place) if place.camera == camera => place,
            Some(other) => {
                self.place = Some(other);
                return Err(StatusCode::AggregateOperationNotAllowed);
            }
            None => Place {
                fanout: self.studio.fanout(&camera).ok_or(StatusCode::NotFound)?,
                camera,
                session: format!("{:032x}", rand::random::<u128>()),
                video: None,
                audio: None,
            },
        };
        let answer = place.set_up(request, track.as_deref()).await;
        self.ended = place.fanout.ended().clone();
        self.place = Some(place);
        answer
    }

    fn play(&mut self, request: &Request<Vec<u8>>) -> Answer {
        let session = request.header(&headers::SESSION).map(|value| value.as_str());
        let session = session.and_then(|value| value.split(';').next()).map(str::trim);
        let place = self
            .place
            .as_ref()
            .filter(|place| session == Some(&place.session))
            .ok_or(StatusCode::SessionNotFound)?;
        let base = base(request);
        let base = base.strip_suffix(&format!("/{}", tracks::VIDEO)).unwrap_or(&base);
        let infos = [(&place.video, tracks::VIDEO), (&place.audio, tracks::AUDIO)];
        let infos: Vec<String> = infos
            .into_iter()
            .filter_map(|(track, name)| Some(track.as_ref()?.info(base, name)))
            .collect();
        let mut answer = ok()
            .header(headers::SESSION, place.session.as_str())
            .header(headers::RANGE, "npt=now-");
        if self.playing.is_none() {
            answer = answer.header(headers::RTP_INFO, infos.join(","));
            self.playing = Some(Playing {
                feed: Feed::new(Arc::clone(&place.fanout)),
                wall: (Duration::ZERO, Timestamp(0)),
                _counted: Counted::new(&self.viewers),
            });
        }
        Ok(answer)
    }

    async fn send(&mut self, frame: &Frame, time: Duration) -> io::Result<()> {
        let (Some(place), Some(playing)) = (&mut self.place, &mut self.playing) else {
            return Ok(());
        };
        let track = match frame {
            Frame::Video(frame) => {
                playing.wall = (time, frame.wall);
                &mut place.video
            }
            Frame::Audio(_) => &mut place.audio,
        };
        let Some(track) = track else {
            return Ok(());
        };
        let bytes = track.packets(frame, time, wall(playing.wall, time));
        self.write(&bytes).await
    }

    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let written = timeout(STUCK, self.writer.write_all(bytes)).await;
        written.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl Place {
    async fn set_up(&mut self, request: &Request<Vec<u8>>, track: Option<&str>) -> Answer {
        let offered = request.header(&headers::TRANSPORT).map(|value| value.as_str());
        let wanted = message::offers(offered.unwrap_or_default()).find_map(|offer| match offer {
            Offer::Interleaved(channel) => Some(channel),
            // Players that prefer UDP ask again.
            Offer::Udp(..) => None,
        });
        let wanted = wanted.ok_or(StatusCode::UnsupportedTransport)?;
        let track = match track {
            None | Some(tracks::VIDEO) => self.video.insert(Track::video(wanted.unwrap_or(0))),
            Some(tracks::AUDIO) => {
                let (_, audio) = formats(&self.fanout).await?;
                let track = audio.and_then(|audio| Track::audio(wanted.unwrap_or(2), &audio));
                self.audio.insert(track.ok_or(StatusCode::NotFound)?)
            }
            Some(_) => return Err(StatusCode::NotFound),
        };
        let transport = format!(
            "RTP/AVP/TCP;unicast;interleaved={}-{};ssrc={:08X}",
            track.channel,
            track.channel + 1,
            track.ssrc()
        );
        Ok(ok()
            .header(
                headers::SESSION,
                format!("{};timeout={}", self.session, IDLE.as_secs()),
            )
            .header(headers::TRANSPORT, transport))
    }
}

/// Reads some more; too long a silence of somebody `idle` is an error.
async fn read(reader: &mut OwnedReadHalf, buffer: &mut BytesMut, idle: bool) -> io::Result<usize> {
    if !idle {
        return reader.read_buf(buffer).await;
    }
    let read = timeout(IDLE, reader.read_buf(buffer)).await;
    read.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

async fn over(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

async fn next(playing: &mut Option<Playing>) -> (Frame, Duration) {
    match playing {
        Some(playing) => playing.feed.next().await,
        None => std::future::pending().await,
    }
}

/// How a camera is encoded; it is waited for while it is being connected to.
async fn formats(fanout: &Fanout) -> Result<(Arc<VideoFormat>, Option<AudioFormat>), StatusCode> {
    tokio::select! {
        formats = timeout(FIRST_PICTURE, fanout.formats()) => formats.map_err(|_| StatusCode::ServiceUnavailable),
        () = fanout.ended().cancelled() => Err(StatusCode::NotFound),
    }
}

/// The camera and the track that a request is about.
fn asked(request: &Request<Vec<u8>>) -> Result<(CameraId, Option<String>), StatusCode> {
    let path = request.request_uri().map_or("", |uri| uri.path());
    let mut segments = path.split('/').filter(|segment| !segment.is_empty());
    let camera = segments.next().and_then(|id| CameraId::new(id).ok());
    let track = segments.next().map(str::to_owned);
    match segments.next() {
        None => Ok((camera.ok_or(StatusCode::NotFound)?, track)),
        Some(_) => Err(StatusCode::NotFound),
    }
}

/// The request's address without what is behind the path.
fn base(request: &Request<Vec<u8>>) -> String {
    let uri = request.request_uri().map_or("", |uri| uri.as_str());
    let path = uri.split(['?', '#']).next().unwrap_or_default();
    path.trim_end_matches('/').to_owned()
}

/// The wall-clock time of a viewer's time, by that of the newest picture.
fn wall((picture, at): (Duration, Timestamp), time: Duration) -> SystemTime {
    let at = Duration::from_millis(u64::try_from(at.as_millis()).unwrap_or(0));
    SystemTime::UNIX_EPOCH + (at + time).saturating_sub(picture)
}
