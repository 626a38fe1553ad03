//! Receivers for tests: a web server, a syslog daemon, and a mail server of another make. The scenarios use them too.

use std::{
    io::Read as _,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use hmac::{Hmac, Mac as _};
use tokio::{
    io::AsyncReadExt as _,
    net::{UdpSocket, UnixDatagram},
    time::Instant,
};
use warp::{Filter as _, http::StatusCode};

const PATIENCE: Duration = Duration::from_secs(60);

/// Asks until there is an answer.
pub(crate) async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The signature that a webhook has.
pub(crate) fn signature(secret: &str, body: &[u8]) -> String {
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(body);
    let sum = mac.finalize().into_bytes();
    let hex: String = sum.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256={hex}")
}

/// One POST that was taken.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Post {
    pub(crate) key: String,
    pub(crate) signature: String,
    pub(crate) authorization: String,
    pub(crate) raw: Vec<u8>,
    pub(crate) body: serde_json::Value,
}

/// A web server.
#[derive(Clone, Default)]
pub(crate) struct Hook {
    taken: Arc<Mutex<Vec<Post>>>,
    refused: Arc<Mutex<Vec<String>>>,
    /// What it answers first.
    answers: Arc<Mutex<Vec<u16>>>,
    address: Option<SocketAddr>,
}

impl Hook {
    /// An address at which nobody listens: on it, connections are refused.
    pub(crate) fn free() -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.local_addr().unwrap()
    }

    /// Answers `answers`, one after the other, and 204 from then on.
    pub(crate) async fn listen(address: SocketAddr, answers: Vec<u16>) -> Self {
        let hook = Self::default();
        *hook.answers.lock().unwrap() = answers;
        hook.serve(address, None).await
    }

    /// Sends everybody to another address.
    pub(crate) async fn redirect(address: SocketAddr, to: &str) -> Self {
        Self::default().serve(address, Some(to.to_owned())).await
    }

    async fn serve(mut self, address: SocketAddr, location: Option<String>) -> Self {
        self.address = Some(address);
        let hook = self.clone();
        let header = |name: &'static str| warp::header::optional::<String>(name);
        let limited = warp::body::content_length_limit(1024 * 1024);
        #[expect(clippy::disallowed_methods, reason = "what it takes is limited above")]
        let body = limited.and(warp::body::bytes());
        let route = warp::post()
            .and(warp::path("hook").or(warp::path("secret-path")).unify())
            .and(header("idempotency-key"))
            .and(header("x-understudy-signature"))
            .and(header("authorization"))
            .and(body)
            .map(
                move |key: Option<String>,
                      signature: Option<String>,
                      authorization: Option<String>,
                      raw: bytes::Bytes| {
                    let key = key.unwrap_or_default();
                    if let Some(to) = &location {
                        hook.refused.lock().unwrap().push(key);
                        let reply = warp::reply::with_header("", "location", to.clone());
                        return warp::reply::with_status(reply, StatusCode::TEMPORARY_REDIRECT);
                    }
                    let mut answers = hook.answers.lock().unwrap();
                    let status = if answers.is_empty() {
                        204
                    } else {
                        answers.remove(0)
                    };
                    if status == 204 {
                        hook.taken.lock().unwrap().push(Post {
                            key,
                            signature: signature.unwrap_or_default(),
                            authorization: authorization.unwrap_or_default(),
                            body: serde_json::from_slice(&raw).unwrap(),
                            raw: raw.to_vec(),
                        });
                    } else {
                        hook.refused.lock().unwrap().push(key);
                    }
                    let reply = warp::reply::with_header("", "location", "");
                    warp::reply::with_status(reply, StatusCode::from_u16(status).unwrap())
                },
            );
        let listener = tokio::net::TcpListener::bind(address).await.unwrap();
        tokio::spawn(warp::serve(route).incoming(listener).run());
        self
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address.unwrap()
    }

    /// What was taken, if it is that much at least.
    pub(crate) fn taken(&self, least: usize) -> Option<Vec<Post>> {
        let taken = self.taken.lock().unwrap();
        (taken.len() >= least).then(|| taken.clone())
    }

    /// The keys of what was not.
    pub(crate) fn refused(&self) -> Vec<String> {
        self.refused.lock().unwrap().clone()
    }
}

/// A mail server: aiosmtpd, which `scripts/tools` gets. Ends when it is dropped.
pub(crate) struct Smtpd {
    child: Child,
    folder: PathBuf,
}

impl Smtpd {
    fn python() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/tools/python/bin/python")
    }

    /// Whether one could be had; says so if not.
    pub(crate) fn is_here() -> bool {
        let asked = Command::new(Self::python())
            .args(["-c", "import aiosmtpd, trustme"])
            .output();
        let here = asked.is_ok_and(|asked| asked.status.success());
        if !here {
            understudy_runtime::testing::left_out("mail: aiosmtpd could not be had (scripts/tools)");
        }
        here
    }

    /// Makes a certificate for 127.0.0.1: `server.pem`, `server.key`, and `client.pem` of who vouches for it.
    pub(crate) fn certificate(folder: &Path) {
        let made = Command::new(Self::python())
            .args(["-m", "trustme", "-q", "-d"])
            .arg(folder)
            .args(["-i", "localhost", "127.0.0.1"])
            .status();
        assert!(made.unwrap().success());
    }

    /// Starts one that puts mails into `folder`.
    pub(crate) fn start(port: u16, folder: &Path, arguments: &[&str]) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../services/notifier/tests/telling/receivers/smtpd.py");
        let mut child = Command::new(Self::python())
            .arg(script)
            .arg(port.to_string())
            .arg(folder)
            .args(arguments)
            .current_dir(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = [0; 6];
        child.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
        assert_eq!(&ready, b"ready\n");
        Self {
            child,
            folder: folder.to_owned(),
        }
    }

    /// The mails that it took, if it is that many at least.
    pub(crate) fn taken(&self, least: usize) -> Option<Vec<String>> {
        let mut files: Vec<PathBuf> = std::fs::read_dir(&self.folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|ending| ending == "eml"))
            .collect();
        files.sort();
        let read = |path: &PathBuf| std::fs::read_to_string(path).unwrap();
        (files.len() >= least).then(|| files.iter().map(read).collect())
    }
}

impl Drop for Smtpd {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// A syslog daemon that listens in each way.
pub(crate) struct Syslogd {
    pub(crate) udp: SocketAddr,
    pub(crate) tcp: SocketAddr,
    pub(crate) unix: PathBuf,
    heard: Arc<Mutex<Vec<(&'static str, String)>>>,
}

impl Syslogd {
    pub(crate) async fn listen(folder: &Path) -> Self {
        let unix = folder.join("log");
        let heard: Arc<Mutex<Vec<(&'static str, String)>>> = Arc::default();
        let datagrams = UnixDatagram::bind(&unix).unwrap();
        let packets = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let stream = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .unwrap();
        let (udp, tcp) = (packets.local_addr().unwrap(), stream.local_addr().unwrap());
        let into = heard.clone();
        tokio::spawn(async move {
            let (mut from_udp, mut from_unix) = ([0; 4096], [0; 4096]);
            loop {
                let (way, line) = tokio::select! {
                    got = packets.recv(&mut from_udp) => ("udp", from_udp[..got.unwrap()].to_vec()),
                    got = datagrams.recv(&mut from_unix) => ("unix", from_unix[..got.unwrap()].to_vec()),
                    got = stream.accept() => ("tcp", counted(got.unwrap().0).await),
                };
                into.lock().unwrap().push((way, String::from_utf8(line).unwrap()));
            }
        });
        Self {
            udp,
            tcp,
            unix,
            heard,
        }
    }

    /// The line that came this way, if one did.
    pub(crate) fn heard(&self, way: &str) -> Option<String> {
        let heard = self.heard.lock().unwrap();
        heard
            .iter()
            .find(|(by, _)| *by == way)
            .map(|(_, line)| line.clone())
    }
}

/// A line with its octets counted before it (RFC 6587, 3.4.1).
async fn counted(mut stream: tokio::net::TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).await.unwrap();
    let space = all.iter().position(|byte| *byte == b' ').unwrap();
    let count: usize = std::str::from_utf8(&all[..space]).unwrap().parse().unwrap();
    assert_eq!(all.len(), space + 1 + count, "the octets are counted");
    all[space + 1..].to_vec()
}
