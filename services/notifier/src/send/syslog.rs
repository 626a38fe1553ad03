//! Syslog: a line as RFC 5424 has it, by UDP (RFC 5426), by TCP with counted octets (RFC 6587, 3.4.1), or to the
//! socket of the machine's own. By UDP nobody says whether it arrived; by TCP only that the other side took it.

use std::{path::PathBuf, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UdpSocket, UnixDatagram},
};

use super::Failed;
use crate::{
    config::SyslogFacility,
    plan::wrong,
    service::NotifierError,
    text::{Letter, rfc3339},
};

/// What every receiver should take (RFC 5426, 3.2).
const LONGEST: usize = 2_048;
/// For how long the other side may take to close after the last line.
const FAREWELL: Duration = Duration::from_secs(1);

#[derive(Clone, Debug)]
pub(crate) struct Syslog {
    facility: SyslogFacility,
    way: Way,
    /// What this machine is called.
    hostname: String,
}

#[derive(Clone, Debug)]
enum Way {
    Udp(String),
    Tcp(String),
    Unix(PathBuf),
}

impl Syslog {
    pub(crate) fn new(facility: SyslogFacility, key: &str, address: &str) -> Result<Self, NotifierError> {
        let way = way(address).ok_or_else(|| {
            let how = "write it like syslog+udp://host:514, syslog+tcp://host:601 or syslog+unix:/dev/log";
            wrong(key, format!("there is no host or path in it: {how}"))
        })?;
        // The nil value, where the kernel has no name (RFC 5424, 6.2.4).
        let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let hostname = hostname.trim();
        let printable = !hostname.is_empty() && hostname.bytes().all(|byte| byte.is_ascii_graphic());
        Ok(Self {
            facility,
            way,
            hostname: if printable { hostname } else { "-" }.to_owned(),
        })
    }

    pub(crate) fn shown(&self) -> String {
        match &self.way {
            Way::Udp(address) => format!("syslog at {address} by UDP"),
            Way::Tcp(address) => format!("syslog at {address} by TCP"),
            Way::Unix(path) => format!("syslog at {}", path.display()),
        }
    }

    pub(crate) async fn send(&self, letter: &Letter) -> Result<(), Failed> {
        let line = self.line(letter);
        match &self.way {
            Way::Udp(address) => by_udp(address, &line).await,
            Way::Tcp(address) => by_tcp(address, &line).await,
            Way::Unix(path) => {
                let socket = UnixDatagram::unbound().and_then(|socket| socket.connect(path).map(|()| socket));
                match socket {
                    Ok(socket) => socket.send(line.as_bytes()).await.map(drop),
                    Err(error) => Err(error),
                }
            }
        }
        .map_err(Failed::away)
    }

    /// `<PRI>1 TIMESTAMP HOSTNAME APP-NAME PROCID MSGID STRUCTURED-DATA MSG`; without structured data, whose names
    /// need a number of one's own.
    fn line(&self, letter: &Letter) -> String {
        let priority = facility(self.facility) * 8 + letter.severity.number();
        let head = format!(
            "<{priority}>1 {} {} understudy {} {} - ",
            rfc3339(letter.at),
            self.hostname,
            std::process::id(),
            letter.event,
        );
        let message = format!("{} [id={} about={}]", letter.subject, letter.id, letter.story);
        // One line, whatever names and reasons have in them.
        let message: String = message
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        let mut line = head + &message;
        let mut end = LONGEST.min(line.len());
        while !line.is_char_boundary(end) {
            end -= 1;
        }
        line.truncate(end);
        line
    }
}

fn way(address: &str) -> Option<Way> {
    if let Some(path) = address.strip_prefix("syslog+unix:") {
        // `syslog+unix:/dev/log` and `syslog+unix:///dev/log`.
        let path = path.strip_prefix("//").unwrap_or(path);
        return path.starts_with('/').then(|| Way::Unix(path.into()));
    }
    let (scheme, rest) = address.split_once("://")?;
    let host = rest.trim_end_matches('/');
    // An IPv6 address stands in brackets.
    let has_port = host
        .rsplit_once(':')
        .is_some_and(|(name, port)| !name.is_empty() && port.parse::<u16>().is_ok() && !name.ends_with(':'));
    let usual = if scheme == "syslog+udp" { 514 } else { 601 };
    let host = match host {
        "" => return None,
        host if has_port => host.to_owned(),
        host => format!("{host}:{usual}"),
    };
    Some(if scheme == "syslog+udp" {
        Way::Udp(host)
    } else {
        Way::Tcp(host)
    })
}

async fn by_udp(address: &str, line: &str) -> std::io::Result<()> {
    let mut last = std::io::Error::other("the name has no address");
    for address in tokio::net::lookup_host(address).await? {
        let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(any).await?;
        let sent = async {
            socket.connect(address).await?;
            socket.send(line.as_bytes()).await
        };
        match sent.await {
            Ok(_) => return Ok(()),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn by_tcp(address: &str, line: &str) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    stream
        .write_all(format!("{} {line}", line.len()).as_bytes())
        .await?;
    stream.shutdown().await?;
    // A connection that nobody serves any more says so now, if at all.
    let mut rest = [0; 64];
    match tokio::time::timeout(FAREWELL, stream.read(&mut rest)).await {
        Ok(Err(error)) => Err(error),
        Ok(Ok(_)) | Err(_) => Ok(()),
    }
}

fn facility(facility: SyslogFacility) -> u8 {
    match facility {
        SyslogFacility::User => 1,
        SyslogFacility::Daemon => 3,
        SyslogFacility::Local0 => 16,
        SyslogFacility::Local1 => 17,
        SyslogFacility::Local2 => 18,
        SyslogFacility::Local3 => 19,
        SyslogFacility::Local4 => 20,
        SyslogFacility::Local5 => 21,
        SyslogFacility::Local6 => 22,
        SyslogFacility::Local7 => 23,
    }
}
