//! One client's RTSP connection (RFC 2326): its requests and their answers.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use rtsp_types::{Message, Method, Request, Response, ResponseBuilder, StatusCode, Version, headers};
use tokio::time::{Instant, timeout_at};
use understudy_rtsp::{
    auth::{Gate, Scheme},
    message::{self, Offer},
};

use crate::{
    behaviour::Garbage,
    camera::{Beginning, Camera, Track, Visitor, Way},
    client::Client,
    config::{AuthScheme, SimulatorConfig},
    sdp,
    sent::now_us,
    simulator::Shared,
    udp::UdpWay,
};

const REALM: &str = "understudy-simulator";
const PUBLIC: &str = "OPTIONS, DESCRIBE, SETUP, PLAY, GET_PARAMETER, SET_PARAMETER, TEARDOWN";

/// What one connection asks of its client.
fn gate(config: &SimulatorConfig) -> Gate {
    let scheme = match config.auth {
        AuthScheme::None => Scheme::None,
        AuthScheme::Basic => Scheme::Basic,
        AuthScheme::Digest => Scheme::Digest,
    };
    let nonce = format!("{:032x}", rand::random::<u128>());
    let (user, password) = (config.user.clone(), config.password.clone());
    Gate::new(scheme, REALM, Some(user), password, nonce)
}

/// Serves a connection until it ends.
pub(crate) async fn serve(shared: Arc<Shared>, client: Arc<Client>, peer: SocketAddr) {
    let gate = gate(&shared.config);
    let mut connection = Connection {
        shared,
        client,
        peer,
        connected_at: now_us(),
        gate,
        session: None,
    };
    let client = connection.client.clone();
    let ended = tokio::select! {
        ended = connection.read() => ended,
        ended = client.write_waiting() => ended,
        () = client.closed().cancelled() => Ok(()),
    };
    connection.leave();
    client.closed().cancel();
    if let Err(error) = ended {
        tracing::debug!(client.address = %peer, error = %error, "a connection ended");
    }
}

struct Connection {
    shared: Arc<Shared>,
    client: Arc<Client>,
    peer: SocketAddr,
    connected_at: i64,
    gate: Gate,
    session: Option<(Arc<Camera>, String)>,
}

/// The connection is to be closed without an answer.
struct HangUp;

type Answer = Result<ResponseBuilder, StatusCode>;

impl Connection {
    /// Reads and answers; the end of the stream or too long a silence ends it.
    async fn read(&mut self) -> io::Result<()> {
        let patience = Duration::from_secs(self.shared.config.session_timeout.into());
        let mut buffer = BytesMut::with_capacity(4096);
        loop {
            let readable = timeout_at(Instant::now() + patience, self.client.stream().readable()).await;
            readable.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
            match self.client.stream().try_read_buf(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error),
            }
            if self.take_messages(&mut buffer).is_err() {
                return Ok(());
            }
        }
    }

    fn take_messages(&mut self, buffer: &mut BytesMut) -> Result<(), HangUp> {
        loop {
            match message::take(buffer) {
                Ok(Some(Message::Request(request))) => self.take_request(&request)?,
                Ok(Some(_)) => {}
                Ok(None) => return Ok(()),
                Err(_) => {
                    let answer = Response::builder(Version::V1_0, StatusCode::BadRequest);
                    self.client.send(written(answer, None, &[]), None);
                    return Err(HangUp);
                }
            }
        }
    }

    fn take_request(&mut self, request: &Request<Vec<u8>>) -> Result<(), HangUp> {
        let path = request.request_uri().map_or("", |uri| uri.path());
        let mut segments = path.split('/').filter(|segment| !segment.is_empty());
        let camera = segments.next().and_then(|id| self.shared.camera(id)).cloned();
        let track = segments.next().map(str::to_owned);
        if let Some(behaviour) = camera.as_ref().map(|camera| camera.behaviour()) {
            if behaviour.unreachable {
                return Err(HangUp);
            }
            if behaviour.garbage == Some(Garbage::Rtsp) {
                let rubbish = (0..200).map(|_| rand::random()).collect::<Vec<u8>>();
                self.client.send(rubbish.into(), None);
                return Ok(());
            }
            let refuses = behaviour.refuse_password;
            if *request.method() != Method::Options && !self.may_pass(request, refuses) {
                let answer = Response::builder(Version::V1_0, StatusCode::Unauthorized)
                    .header(headers::WWW_AUTHENTICATE, self.gate.challenge());
                self.answer(request, answer, &[]);
                return Ok(());
            }
        }
        self.handle(request, camera, track.as_deref());
        Ok(())
    }

    fn may_pass(&self, request: &Request<Vec<u8>>, refuses: bool) -> bool {
        let authorization = request
            .header(&headers::AUTHORIZATION)
            .map(|value| value.as_str());
        !refuses && self.gate.admits(<&str>::from(request.method()), authorization)
    }

    fn handle(&mut self, request: &Request<Vec<u8>>, camera: Option<Arc<Camera>>, track: Option<&str>) {
        if request.header(&headers::REQUIRE).is_some() {
            return self.answer_status(request, StatusCode::OptionNotSupported);
        }
        let Some(camera) = camera else {
            let status = match request.method() {
                Method::Options => StatusCode::Ok,
                _ => StatusCode::NotFound,
            };
            return self.answer_status(request, status);
        };
        match request.method() {
            Method::Describe => self.describe(request, &camera),
            Method::Setup => match self.set_up(request, camera, track) {
                Ok(answer) => self.answer(request, answer, &[]),
                Err(status) => self.answer_status(request, status),
            },
            Method::Play => self.play(request),
            Method::Options | Method::GetParameter | Method::SetParameter => {
                self.answer_status(request, StatusCode::Ok);
            }
            Method::Teardown => {
                self.answer_status(request, StatusCode::Ok);
                self.leave();
            }
            _ => self.answer_status(request, StatusCode::MethodNotAllowed),
        }
    }

    fn describe(&self, request: &Request<Vec<u8>>, camera: &Camera) {
        let base = request
            .request_uri()
            .map(|uri| uri.as_str().trim_end_matches('/'))
            .unwrap_or_default();
        let answer = Response::builder(Version::V1_0, StatusCode::Ok)
            .header(headers::CONTENT_TYPE, "application/sdp")
            .header(headers::CONTENT_BASE, format!("{base}/"));
        self.answer(request, answer, camera.describe().as_bytes());
    }

    fn set_up(&mut self, request: &Request<Vec<u8>>, camera: Arc<Camera>, track: Option<&str>) -> Answer {
        let track = match track {
            None | Some(sdp::VIDEO_TRACK) => Track::Video,
            Some(sdp::AUDIO_TRACK) => Track::Audio,
            Some(_) => return Err(StatusCode::NotFound),
        };
        let offered = request
            .header(&headers::TRANSPORT)
            .map(|value| value.as_str())
            .unwrap_or_default();
        let (way, transport) = self.way(offered, track)?;
        if self
            .session
            .as_ref()
            .is_some_and(|(held, _)| !Arc::ptr_eq(held, &camera))
        {
            return Err(StatusCode::AggregateOperationNotAllowed);
        }
        let visitor = Visitor {
            client: self.client.clone(),
            peer: self.peer,
            user_agent: request
                .header(&headers::USER_AGENT)
                .map(|value| value.as_str().to_owned())
                .unwrap_or_default(),
            connected_at: self.connected_at,
        };
        let held = self.session.as_ref().map(|(_, id)| id.as_str());
        let (session, ssrc) = camera.set_up(held, visitor, track, way)?;
        let timeout = self.shared.config.session_timeout;
        let answer = Response::builder(Version::V1_0, StatusCode::Ok)
            .header(headers::SESSION, format!("{session};timeout={timeout}"))
            .header(headers::TRANSPORT, format!("{transport};ssrc={ssrc:08X}"));
        self.session = Some((camera, session));
        Ok(answer)
    }

    /// The first way that a client offers, and how it is called in the answer.
    fn way(&self, offered: &str, track: Track) -> Result<(Way, String), StatusCode> {
        let usual = if track == Track::Video { 0 } else { 2 };
        match message::offers(offered).next() {
            None => Err(StatusCode::UnsupportedTransport),
            Some(Offer::Interleaved(wanted)) => {
                let channel = wanted.unwrap_or(usual);
                let named = format!("RTP/AVP/TCP;unicast;interleaved={channel}-{}", channel + 1);
                Ok((Way::Interleaved(channel), named))
            }
            Some(Offer::Udp(rtp, rtcp)) => {
                let local = self.client.stream().local_addr();
                let way = local.and_then(|local| UdpWay::open(local.ip(), self.peer.ip(), rtp, rtcp));
                let way = way.map_err(|_| StatusCode::InternalServerError)?;
                let port = way.port;
                let named = format!(
                    "RTP/AVP;unicast;client_port={rtp}-{rtcp};server_port={port}-{}",
                    port + 1
                );
                Ok((Way::Udp(way), named))
            }
        }
    }

    fn play(&self, request: &Request<Vec<u8>>) {
        let asked = request
            .header(&headers::SESSION)
            .map(|value| value.as_str())
            .unwrap_or_default();
        let Some((camera, session)) = &self.session else {
            return self.answer_status(request, StatusCode::SessionNotFound);
        };
        if asked.split(';').next().map(str::trim) != Some(session) {
            return self.answer_status(request, StatusCode::SessionNotFound);
        }
        let base = request
            .request_uri()
            .map(|uri| uri.as_str().trim_end_matches('/'))
            .unwrap_or_default();
        let wrong = camera.behaviour().wrong_rtp_info;
        camera.play(session, |beginnings| {
            let info = beginnings
                .iter()
                .map(|beginning| rtp_info(base, beginning, wrong))
                .collect::<Vec<_>>();
            let answer = Response::builder(Version::V1_0, StatusCode::Ok)
                .header(headers::RANGE, "npt=now-")
                .header(headers::SESSION, session.as_str())
                .header(headers::RTP_INFO, info.join(","));
            written(answer, Some(request), &[])
        });
    }

    fn answer_status(&self, request: &Request<Vec<u8>>, status: StatusCode) {
        let mut answer = Response::builder(Version::V1_0, status);
        if *request.method() == Method::Options {
            answer = answer.header(headers::PUBLIC, PUBLIC);
        }
        if let Some(session) = request.header(&headers::SESSION) {
            answer = answer.header(headers::SESSION, session.as_str());
        }
        self.answer(request, answer, &[]);
    }

    fn answer(&self, request: &Request<Vec<u8>>, answer: ResponseBuilder, body: &[u8]) {
        self.client.send(written(answer, Some(request), body), None);
    }

    fn leave(&mut self) {
        if let Some((camera, session)) = self.session.take() {
            camera.leave(&session);
        }
    }
}

fn written(answer: ResponseBuilder, request: Option<&Request<Vec<u8>>>, body: &[u8]) -> Bytes {
    message::written(answer, request, "understudy-simulator", body)
}

/// What `RTP-Info` says of a track; `wrong`: sound begins long after its packets, and pictures long before theirs.
fn rtp_info(base: &str, beginning: &Beginning, wrong: bool) -> String {
    const LONG: u32 = 0x3000_0000;
    let (track, wrongly) = match beginning.track {
        Track::Video => (sdp::VIDEO_TRACK, beginning.timestamp.wrapping_sub(LONG)),
        Track::Audio => (sdp::AUDIO_TRACK, beginning.timestamp.wrapping_add(LONG)),
    };
    let said = if wrong { wrongly } else { beginning.timestamp };
    format!("url={base}/{track};seq={};rtptime={said}", beginning.sequence)
}
