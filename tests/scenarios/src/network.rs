//! Networks that a test has to itself: network namespaces (network_namespaces(7)), joined by lines that can be cut
//! or made bad.
//!
//! A line is a pair of TUN devices, one in each namespace, between which this process carries every IP packet, or
//! does not, or late: what `tc netem` does, on kernels that have no netem too. Nothing here has a name outside: a
//! namespace lives for as long as its keeper, which ends when the test does, however that ends.
//!
//! It takes root. The calling thread moves into a namespace of its own for good, so that nothing that it or its
//! children do reaches the machine's network.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    fs::File,
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr},
    os::fd::{AsFd as _, AsRawFd as _},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use nix::{
    libc,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sched::{CloneFlags, setns, unshare},
};
use tokio::time::Instant;
use understudy_demo::rig::Place;

/// The largest packet that is carried.
const PACKET: usize = 1500;
/// The most packets on their way in one direction: a line's buffer. Beyond it packets are dropped, as netem does.
const ON_THE_WAY: usize = 4096;
/// How often a carrier looks whether it is to end.
const LOOK: Duration = Duration::from_millis(50);

/// How a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quality {
    /// It carries every packet at once.
    Good,
    /// It carries nothing, and tells nobody.
    Cut,
    /// `loss 10% delay 100ms 50ms`, in netem's words: each packet on its own, so that later ones may overtake.
    Bad,
}

/// A namespace, and its keeper.
#[derive(Debug)]
pub struct Namespace {
    /// Its address.
    pub address: Ipv4Addr,
    /// None for the one that the test itself is in.
    keeper: Option<Child>,
}

/// A network with the test, and so the host, in its first namespace.
#[derive(Debug)]
pub struct Network {
    /// The host's namespace first.
    pub namespaces: Vec<Namespace>,
    lines: Vec<(usize, usize, Line)>,
}

impl Network {
    /// A network of the host's namespace and `others` more, each joined to each by a good line.
    ///
    /// # Errors
    /// What this machine or user lacks, in words.
    pub fn of(others: usize) -> Result<Self, String> {
        if !nix::unistd::geteuid().is_root() {
            return Err("network namespaces and TUN devices take root".to_owned());
        }
        unshare(CloneFlags::CLONE_NEWNET).map_err(|error| format!("unshare: {error}"))?;
        let mut namespaces = Vec::new();
        for index in 0..=others {
            let keeper = if index == 0 { None } else { Some(keeper()?) };
            let last = u8::try_from(index + 1).map_err(|error| error.to_string())?;
            let namespace = Namespace {
                address: Ipv4Addr::new(10, 77, 0, last),
                keeper,
            };
            namespace.run(&["ip", "link", "set", "lo", "up"])?;
            let address = format!("{}/32", namespace.address);
            namespace.run(&["ip", "address", "add", &address, "dev", "lo"])?;
            namespaces.push(namespace);
        }
        let mut lines = Vec::new();
        for one in 0..=others {
            for other in one + 1..=others {
                let line = Line::between(&namespaces[one], &namespaces[other])?;
                lines.push((one, other, line));
            }
        }
        Ok(Self { namespaces, lines })
    }

    /// Makes the line between two namespaces so.
    pub fn line(&self, one: usize, other: usize, quality: Quality) {
        for (near, far, line) in &self.lines {
            if (*near, *far) == (one.min(other), one.max(other)) {
                line.quality.store(quality as u32, Ordering::Relaxed);
            }
        }
    }

    /// The host's address.
    #[must_use]
    pub fn host(&self) -> IpAddr {
        self.namespaces[0].address.into()
    }

    /// Where a server in this namespace runs.
    #[must_use]
    pub fn place(&self, index: usize) -> Place {
        let namespace = &self.namespaces[index];
        Place {
            address: namespace.address.into(),
            host: self.host(),
            enter: namespace.enter(),
        }
    }
}

impl Namespace {
    /// The program that runs in it what follows.
    #[must_use]
    pub fn enter(&self) -> Vec<String> {
        match &self.keeper {
            Some(_) => vec![
                "nsenter".to_owned(),
                format!("--net={}", self.path().display()),
                "--".to_owned(),
            ],
            None => Vec::new(),
        }
    }

    fn path(&self) -> PathBuf {
        match &self.keeper {
            Some(keeper) => PathBuf::from(format!("/proc/{}/ns/net", keeper.id())),
            None => PathBuf::from(format!("/proc/self/task/{}/ns/net", nix::unistd::gettid())),
        }
    }

    fn run(&self, words: &[&str]) -> Result<(), String> {
        let mut all = self.enter();
        all.extend(words.iter().map(|word| (*word).to_owned()));
        let output = Command::new(&all[0])
            .args(&all[1..])
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .output()
            .map_err(|error| format!("{}: {error}", words.join(" ")))?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(format!("{}: {}", words.join(" "), said.trim()))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Some(keeper) = &mut self.keeper {
            // Its standard input ends, and so does it.
            drop(keeper.stdin.take());
            let _ = keeper.wait();
        }
    }
}

/// A process in a new namespace that waits for the end of its standard input: the end of whoever holds the pipe.
fn keeper() -> Result<Child, String> {
    let mut keeper = Command::new("unshare")
        .args(["--net", "--", "sh", "-c", "echo in; read -r _"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("unshare: {error}"))?;
    let mut said = [0; 3];
    let out = keeper.stdout.as_mut().ok_or("no pipe")?;
    out.read_exact(&mut said)
        .map_err(|error| format!("no namespace was made: {error}"))?;
    Ok(keeper)
}

#[derive(Debug)]
struct Line {
    quality: Arc<AtomicU32>,
    ends: Arc<AtomicBool>,
    carriers: Vec<JoinHandle<()>>,
}

impl Line {
    fn between(one: &Namespace, other: &Namespace) -> Result<Self, String> {
        let (near, far) = (end(one, other)?, end(other, one)?);
        let line = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicBool::new(false)));
        let mut carriers = Vec::new();
        for (from, to, seed) in [(&near, &far, 1), (&far, &near, 2)] {
            let cloned = |file: &File| file.try_clone().map_err(|error| error.to_string());
            let carrier = Carrier {
                from: cloned(from)?,
                to: cloned(to)?,
                quality: line.0.clone(),
                ends: line.1.clone(),
                on_the_way: BinaryHeap::new(),
                count: 0,
                random: seed,
            };
            carriers.push(std::thread::spawn(move || carrier.run()));
        }
        Ok(Self {
            quality: line.0,
            ends: line.1,
            carriers,
        })
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        for carrier in self.carriers.drain(..) {
            let _ = carrier.join();
        }
    }
}

/// The end of a line in `here`, that leads to `there`.
fn end(here: &Namespace, there: &Namespace) -> Result<File, String> {
    let name = format!("to-{}", there.address.octets()[3]);
    let namespace = File::open(here.path()).map_err(|error| error.to_string())?;
    let wanted = name.clone();
    // A thread of its own: the namespace that a thread is in decides where its device is.
    let opened = std::thread::spawn(move || {
        setns(&namespace, CloneFlags::CLONE_NEWNET).map_err(|error| format!("setns: {error}"))?;
        tun(&wanted)
    });
    let device = opened.join().map_err(|_| "the thread died".to_owned())??;
    here.run(&["ip", "link", "set", &name, "mtu", &PACKET.to_string(), "up"])?;
    let (to, from) = (format!("{}/32", there.address), here.address.to_string());
    here.run(&["ip", "route", "add", &to, "dev", &name, "src", &from])?;
    Ok(device)
}

/// A TUN device of that name (the kernel's `Documentation/networking/tuntap.rst`), without the packet header.
#[expect(
    unsafe_code,
    reason = "the kernel has no other door to it, and no crate here knows it"
)]
fn tun(name: &str) -> Result<File, String> {
    nix::ioctl_write_ptr_bad!(set_interface, libc::TUNSETIFF, libc::ifreq);
    let device = File::options()
        .read(true)
        .write(true)
        .open("/dev/net/tun")
        .map_err(|error| format!("/dev/net/tun: {error}"))?;
    // SAFETY: an `ifreq` is plain old data, for which zeros are a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()).take(15) {
        *to = from.cast_signed();
    }
    let flags = i16::try_from(libc::IFF_TUN | libc::IFF_NO_PI).map_err(|error| error.to_string())?;
    request.ifr_ifru.ifru_flags = flags;
    // SAFETY: the descriptor is open, and the request is initialised and outlives the call.
    unsafe { set_interface(device.as_raw_fd(), &raw const request) }
        .map_err(|error| format!("TUNSETIFF: {error}"))?;
    Ok(device)
}

/// One direction of a line.
struct Carrier {
    from: File,
    to: File,
    quality: Arc<AtomicU32>,
    ends: Arc<AtomicBool>,
    on_the_way: BinaryHeap<Reverse<(Instant, u64, Vec<u8>)>>,
    count: u64,
    random: u64,
}

impl Carrier {
    fn run(mut self) {
        let mut packet = [0; PACKET];
        while !self.ends.load(Ordering::Relaxed) {
            let now = Instant::now();
            while self
                .on_the_way
                .peek()
                .is_some_and(|Reverse((due, ..))| *due <= now)
            {
                if let Some(Reverse((_, _, packet))) = self.on_the_way.pop() {
                    // The other end may be down: then it is lost.
                    let _ = self.to.write(&packet);
                }
            }
            let wait = self.on_the_way.peek().map_or(LOOK, |Reverse((due, ..))| {
                due.saturating_duration_since(now).min(LOOK)
            });
            // Rounded up: to wake too early would be to spin.
            let timeout = PollTimeout::try_from(wait + Duration::from_millis(1)).unwrap_or(PollTimeout::ZERO);
            let mut there = [PollFd::new(self.from.as_fd(), PollFlags::POLLIN)];
            if !matches!(poll(&mut there, timeout), Ok(1..)) {
                continue;
            }
            if let Ok(length) = self.from.read(&mut packet) {
                self.take(packet[..length].to_vec());
            }
        }
    }

    fn take(&mut self, packet: Vec<u8>) {
        let delay = match self.quality.load(Ordering::Relaxed) {
            quality if quality == Quality::Good as u32 => Duration::ZERO,
            quality if quality == Quality::Bad as u32 => {
                if self.random(100) < 10 {
                    return;
                }
                Duration::from_micros(50_000 + self.random(100_000))
            }
            _ => return,
        };
        if self.on_the_way.len() < ON_THE_WAY {
            self.count += 1;
            let due = Instant::now() + delay;
            self.on_the_way.push(Reverse((due, self.count, packet)));
        }
    }

    /// SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014), below `bound`.
    fn random(&mut self, bound: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % bound
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends back what comes to port 7 of a namespace, until it is told the end.
    fn echo(namespace: &Namespace) -> JoinHandle<()> {
        let (door, address) = (
            File::open(namespace.path()).expect("its namespace"),
            namespace.address,
        );
        std::thread::spawn(move || {
            setns(&door, CloneFlags::CLONE_NEWNET).expect("entered");
            let there = std::net::UdpSocket::bind((address, 7)).expect("a port");
            let mut said = [0; 4];
            while let Ok((_, from)) = there.recv_from(&mut said) {
                if said == [0xFF; 4] {
                    return;
                }
                let _ = there.send_to(&said, from);
            }
        })
    }

    /// How many of `count` messages come back, and how long that takes on the average, in milliseconds.
    fn round_trips(network: &Network, quality: Quality, count: u32) -> (u32, f64) {
        network.line(0, 1, quality);
        let here = std::net::UdpSocket::bind((network.namespaces[0].address, 0)).expect("a port");
        here.connect((network.namespaces[1].address, 7))
            .expect("connected");
        here.set_read_timeout(Some(Duration::from_millis(400)))
            .expect("set");
        let (mut back, mut taken) = (0, 0.0);
        for number in 0..count {
            let sent = Instant::now();
            here.send(&number.to_be_bytes()).expect("sent");
            let mut answer = [0; 4];
            if here.recv(&mut answer).is_ok() && answer == number.to_be_bytes() {
                back += 1;
                taken += sent.elapsed().as_secs_f64() * 1000.0;
            }
        }
        network.line(0, 1, Quality::Good);
        (back, taken / f64::from(back.max(1)))
    }

    #[test]
    fn a_line_is_good_cut_or_bad_as_netem_would_make_it() {
        let network = match Network::of(1) {
            Ok(network) => network,
            Err(why) => return understudy_runtime::testing::left_out(why),
        };
        let echo = echo(&network.namespaces[1]);
        let ready = Instant::now() + Duration::from_secs(10);
        while round_trips(&network, Quality::Good, 1).0 == 0 {
            assert!(Instant::now() < ready, "nothing is carried");
        }
        let (back, taken) = round_trips(&network, Quality::Good, 20);
        assert!(back >= 19 && taken < 50.0, "good: {back} of 20 in {taken} ms");
        let (back, _) = round_trips(&network, Quality::Cut, 3);
        assert_eq!(back, 0, "cut");
        // Both ways: 81 % on the average, in 200 ms.
        let (back, taken) = round_trips(&network, Quality::Bad, 40);
        assert!((20..40).contains(&back), "bad: {back} of 40");
        assert!((150.0..260.0).contains(&taken), "bad: {taken} ms");
        let here = std::net::UdpSocket::bind((network.namespaces[0].address, 0)).expect("a port");
        here.send_to(&[0xFF; 4], (network.namespaces[1].address, 7))
            .expect("sent");
        echo.join().expect("it ends");
    }
}
