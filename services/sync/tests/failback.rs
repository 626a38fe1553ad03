//! Recordings go back from the server that made them to the one they belong to, whatever happens on the way.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use tokio::{sync::watch, time::timeout};
use understudy_core::{
    assignment::{Assignment, Epoch, Films, Restore, Role},
    contract::{heartbeat::RestorationReport, segment::Segment},
    ids::{CameraId, DomainId, FailoverId, ServerId},
    policy::Range,
    settings::BundleHash,
    time::Timestamp,
};
use understudy_media::archive::{Archive, Filter, Kind, Name, Verdict};
use understudy_runtime::{FleetConfig, Process, Secret, ServerConfig};
use understudy_sync::{SyncConfig, SyncService};

/// Long enough for anything that happens at all, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// Tells [`a_server_process`] which server it is and where it listens.
const ROLE: &str = "UNDERSTUDY_TEST_SYNC";

fn failover() -> FailoverId {
    FailoverId::new("failover-1").expect("an id")
}

/// One server's folder and identity.
struct Side {
    config: ServerConfig,
    fleet: FleetConfig,
}

impl Side {
    fn new(folder: &Path, id: &str) -> Self {
        let config = ServerConfig {
            id: ServerId::new(id).expect("an id"),
            domain: DomainId::new("east").expect("an id"),
            data: folder.join(id),
            ..ServerConfig::default()
        };
        fs::create_dir_all(&config.data).expect("a folder");
        Self {
            config,
            fleet: FleetConfig::default(),
        }
    }

    fn archive(&self) -> Archive {
        Archive::open(self.config.data.join("archive"), self.config.id.clone()).expect("an archive")
    }

    fn assign(&self, number: u64, role: Role) {
        let epoch = Epoch { term: 1, number };
        let assignment = Assignment {
            server: self.config.id.clone(),
            epoch,
            role,
            erase: Default::default(),
            erase_up_to: Default::default(),
        };
        let temporary = self.config.data.join("assignment.new");
        fs::write(&temporary, serde_json::to_vec(&assignment).expect("JSON")).expect("it is written");
        fs::rename(temporary, self.config.data.join("assignment.json")).expect("it is renamed");
    }

    fn hands_back(&self) {
        self.assign(1, Role::HandsBack { failover: failover() });
    }

    fn films(&self, number: u64, restore: Option<Restore>) {
        self.assign(
            number,
            Role::Films(Films {
                identity: self.config.id.clone(),
                settings: BundleHash(String::new()),
                range: Range::default(),
                disabled: Default::default(),
                failover: None,
                restore,
                keep: std::collections::BTreeSet::new(),
            }),
        );
    }

    fn fetches_from(&self, source: &Side, address: SocketAddr) {
        let source = source.config.id.clone();
        self.films(
            1,
            Some(Restore {
                failover: failover(),
                source,
                address: format!("http://{address}"),
            }),
        );
    }

    async fn start(&self) -> Running {
        self.start_with(SyncConfig {
            listen: ([127, 0, 0, 1], 0).into(),
            ..SyncConfig::default()
        })
        .await
    }

    async fn start_with(&self, config: SyncConfig) -> Running {
        let process = Process::for_test("sync");
        let service = SyncService::start(config, &self.fleet, self.config.clone(), &process)
            .await
            .expect("it starts");
        Running { process, service }
    }

    /// Puts `count` segments of `bytes` each into the archive, as if they had been recorded here.
    async fn records(&self, count: u32, bytes: usize) -> Vec<Segment> {
        let archive = self.archive();
        let mut arrived = Vec::new();
        for index in 0..count {
            let contents = (0..bytes)
                .map(|at| (at as u32 ^ index.wrapping_mul(97)) as u8)
                .collect::<Vec<_>>();
            let segment = self.segment(index, &contents);
            let temporary = archive.incoming().join(format!("made-{index}"));
            fs::write(&temporary, contents).expect("it is written");
            arrived.push((segment, temporary));
        }
        let segments = arrived.iter().map(|(segment, _)| segment.clone()).collect();
        archive.import_all(arrived).await.expect("it is indexed");
        segments
    }

    fn segment(&self, index: u32, contents: &[u8]) -> Segment {
        let start = Timestamp(1_795_000_000_000 + i64::from(index) * 60_000);
        let camera = CameraId::new(format!("cam-{:03}", index % 3 + 1)).expect("an id");
        let recorded_by = self.config.id.clone();
        let name = Name {
            kind: Kind::Segment,
            camera: camera.clone(),
            start,
            server: recorded_by.clone(),
        };
        Segment {
            path: name.path(),
            camera,
            recorded_by,
            failover: Some(failover()),
            start,
            end: Timestamp(start.as_millis() + 60_000),
            bytes: contents.len() as u64,
            frames: 900,
            blake3: blake3::hash(contents).to_hex().to_string(),
        }
    }

    /// What another server recorded and is here, whole.
    async fn received(&self) -> Vec<Segment> {
        let archive = self.archive();
        let filter = Filter {
            failover: Some(failover()),
            ..Filter::default()
        };
        let segments = archive.segments(filter).await.expect("an index");
        for segment in &segments {
            assert_eq!(
                archive.verify(segment).await.expect("readable"),
                Verdict::Whole,
                "{}",
                segment.path
            );
        }
        segments
    }

    fn file(&self, segment: &Segment) -> PathBuf {
        self.config.data.join("archive").join(&segment.path)
    }

    fn incoming(&self) -> usize {
        fs::read_dir(self.config.data.join("archive/.incoming")).map_or(0, Iterator::count)
    }
}

struct Running {
    process: Process,
    service: SyncService,
}

impl Running {
    async fn until(&self, what: &str, holds: impl Fn(&RestorationReport) -> bool) -> RestorationReport {
        let mut status = self.service.status();
        let waited = timeout(
            PATIENCE,
            status.wait_for(|report| report.as_ref().is_some_and(&holds)),
        )
        .await;
        match waited {
            Ok(Ok(report)) => report.clone().expect("it was there"),
            _ => panic!(
                "waited in vain: {what}; it is {:?}",
                self.service.status().borrow()
            ),
        }
    }

    async fn complete(&self) -> RestorationReport {
        self.until("everything is here", |report| report.complete).await
    }

    /// Ends as by a crash for the other side: connections are cut, nothing is said.
    async fn stop(self) {
        self.process.finish().await;
    }
}

fn sides(folder: &Path) -> (Side, Side) {
    (Side::new(folder, "standby-a"), Side::new(folder, "recorder-1"))
}

#[tokio::test]
async fn g2_recordings_of_the_failover_go_back_verified_and_indexed() {
    let folder = tempfile::tempdir().expect("a folder");
    let (source, target) = sides(folder.path());
    let made = source.records(20, 100_000).await;
    source.hands_back();
    let giving = source.start().await;
    target.fetches_from(&source, giving.service.address());
    let fetching = target.start().await;

    let report = fetching.complete().await;

    assert_eq!(target.received().await, made);
    assert_eq!(
        (report.progress.segments_done, report.progress.segments_total),
        (20, 20)
    );
    assert_eq!(
        (report.progress.bytes_done, report.progress.bytes_total),
        (2_000_000, 2_000_000)
    );
    assert_eq!((report.failover, report.epoch.number), (failover(), 1));
    assert!(report.damaged.is_empty() && report.waiting.is_empty());
    let metrics = fetching.process.registry().gather();
    let bytes = metrics
        .iter()
        .find(|family| family.name() == "understudy_failback_bytes_total")
        .expect("a metric");
    assert_eq!(bytes.get_metric()[0].get_counter().get_value(), 2_000_000.0);
    fetching.stop().await;
    giving.stop().await;
}

#[tokio::test]
async fn g2_what_is_closed_later_is_fetched_too_and_only_then_it_is_complete() {
    let folder = tempfile::tempdir().expect("a folder");
    let (source, target) = sides(folder.path());
    source.records(3, 1000).await;
    let giving = source.start().await;
    target.fetches_from(&source, giving.service.address());
    let fetching = target.start().await;
    let early = fetching
        .until("the first are here", |report| report.progress.segments_done == 3)
        .await;
    assert!(!early.complete, "the source may still film");

    source.records(5, 1000).await;
    source.hands_back();

    assert_eq!(fetching.complete().await.progress.segments_done, 5);
    assert_eq!(target.received().await.len(), 5);
}

#[tokio::test]
async fn g2_a_damaged_segment_is_reported_and_the_others_are_transferred() {
    let folder = tempfile::tempdir().expect("a folder");
    let (source, target) = sides(folder.path());
    let made = source.records(6, 50_000).await;
    let mut contents = fs::read(source.file(&made[1])).expect("it is there");
    contents[25_000] ^= 1;
    fs::write(source.file(&made[1]), contents).expect("a bit flips");
    fs::write(source.file(&made[3]), b"cut off").expect("it is cut off");
    fs::remove_file(source.file(&made[4])).expect("it goes missing");
    source.hands_back();
    let giving = source.start().await;
    target.fetches_from(&source, giving.service.address());
    let fetching = target.start().await;

    let report = fetching.complete().await;

    let whole = [0, 2, 5].map(|index| made[index].clone());
    assert_eq!(target.received().await, whole);
    let reasons = report
        .damaged
        .into_iter()
        .map(|damaged| (damaged.path, damaged.reason));
    let reasons = reasons.collect::<BTreeMap<_, _>>();
    assert_eq!(reasons.len(), 3, "{reasons:?}");
    assert!(reasons[&made[1].path].contains("hash"), "{reasons:?}");
    assert!(reasons[&made[3].path].contains("7 bytes"), "{reasons:?}");
    assert!(reasons[&made[4].path].contains("can't be read"), "{reasons:?}");
    assert_eq!(
        (report.progress.segments_done, report.progress.bytes_done),
        (6, 150_000)
    );
    assert_eq!(target.incoming(), 0, "nothing half is left");
}

#[tokio::test]
async fn j7_it_waits_for_a_source_that_is_away_and_goes_on_by_itself() {
    let folder = tempfile::tempdir().expect("a folder");
    let (source, target) = sides(folder.path());
    source.records(4, 1000).await;
    source.hands_back();
    let giving = source.start().await;
    let address = giving.service.address();
    giving.stop().await;
    target.fetches_from(&source, address);
    let fetching = target.start().await;
    let report = fetching
        .until("it says that it waits", |report| !report.waiting.is_empty())
        .await;
    assert!(
        report.waiting.contains("standby-a does not answer"),
        "{}",
        report.waiting
    );

    let _giving = source
        .start_with(SyncConfig {
            listen: address,
            ..SyncConfig::default()
        })
        .await;

    assert!(fetching.complete().await.waiting.is_empty());
    assert_eq!(target.received().await.len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn j7_a_slow_volume_is_fetched_to_slowly_but_completely() {
    // Given a server for which any volume is a slow one,
    let folder = tempfile::tempdir().expect("a folder");
    let (source, target) = sides(folder.path());
    let listed = source.records(6, 1 << 20).await;
    source.hands_back();
    let giving = source.start().await;
    target.fetches_from(&source, giving.service.address());
    let begun = tokio::time::Instant::now();
    let fetching = target
        .start_with(SyncConfig {
            listen: ([127, 0, 0, 1], 0).into(),
            yield_latency_ms: 0,
            ..SyncConfig::default()
        })
        .await;
    // when six megabytes are handed back, they come at the trickle that is left, and all of them come.
    fetching.complete().await;
    assert!(begun.elapsed() > Duration::from_secs(2), "{:?}", begun.elapsed());
    assert_eq!(target.received().await.len(), listed.len());
    fetching.stop().await;
    giving.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn k2_it_waits_while_the_volume_is_nearly_full() {
    let folder = tempfile::tempdir().expect("a folder");
    let (source, target) = sides(folder.path());
    source.records(2, 1000).await;
    source.hands_back();
    let giving = source.start().await;
    target.fetches_from(&source, giving.service.address());
    let config = SyncConfig {
        listen: ([127, 0, 0, 1], 0).into(),
        free_floor_mib: 1 << 40,
        ..SyncConfig::default()
    };
    let fetching = target.start_with(config).await;
    let report = fetching
        .until("it says that it waits", |report| !report.waiting.is_empty())
        .await;
    assert!(report.waiting.contains("MiB free"), "{}", report.waiting);
    assert!(!report.complete && target.received().await.is_empty());
}

#[tokio::test]
async fn g5_an_assignment_without_it_stops_it_and_what_is_half_fetched_goes() {
    let folder = tempfile::tempdir().expect("a folder");
    let (source, target) = sides(folder.path());
    let made = source.records(2, 100_000).await;
    let giving = source.start().await;
    let archive = target.archive();
    fs::write(archive.incoming().join("half.part"), b"half").expect("a crash left it");
    target.fetches_from(&source, giving.service.address());
    let fetching = target.start().await;
    fetching
        .until("some are here", |report| report.progress.segments_done == 2)
        .await;

    target.films(2, None);

    let mut status = fetching.service.status();
    timeout(PATIENCE, status.wait_for(Option::is_none))
        .await
        .expect("in time")
        .expect("it runs");
    timeout(PATIENCE, async {
        while target.incoming() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("what is half fetched goes");
    assert_eq!(target.received().await, made, "what is whole stays");
}

#[tokio::test]
async fn g3_the_same_failover_again_fetches_what_was_recorded_since() {
    let folder = tempfile::tempdir().expect("a folder");
    let (source, target) = sides(folder.path());
    source.records(2, 1000).await;
    source.hands_back();
    let giving = source.start().await;
    target.fetches_from(&source, giving.service.address());
    let fetching = target.start().await;
    fetching.complete().await;

    source.records(3, 1000).await;
    let restore = Restore {
        failover: failover(),
        source: source.config.id.clone(),
        address: format!("http://{}", giving.service.address()),
    };
    target.films(7, Some(restore));

    let newer = |report: &RestorationReport| report.complete && report.epoch.number == 7;
    let report = fetching.until("it is complete in the new epoch", newer).await;
    assert_eq!(report.progress.segments_done, 3);
    assert_eq!(target.received().await.len(), 3);
}

#[tokio::test]
async fn g3_a_newer_epoch_while_it_still_fetches_looks_at_the_source_once_more() {
    let folder = tempfile::tempdir().expect("a folder");
    let (source, target) = sides(folder.path());
    let made = [0, 1].map(|index| source.segment(index, b"good"));
    let manifest = |segments: &[Segment]| {
        serde_json::json!({
            "failover": failover(), "server": source.config.id, "complete": true, "segments": segments,
        })
    };
    // Given a failback whose only segment is under way,
    let (list, listed) = watch::channel(manifest(&made[..1]));
    let (gate, gated) = watch::channel(false);
    let address = held_at(listed, gated).await;
    target.fetches_from(&source, address);
    let fetching = target.start().await;
    fetching
        .until("the first list is known", |report| {
            report.progress.segments_total == 1
        })
        .await;

    // when the source films for the same failover again, of which this server hears only the end,
    list.send_replace(manifest(&made));
    let restore = Restore {
        failover: failover(),
        source: source.config.id.clone(),
        address: format!("http://{address}"),
    };
    target.films(5, Some(restore));
    fetching
        .until("the newer epoch is known", |report| report.epoch.number == 5)
        .await;
    gate.send_replace(true);

    // then it is complete only once what was filmed in between is here, too.
    let report = fetching.complete().await;
    assert_eq!((report.epoch.number, report.progress.segments_done), (5, 2));
    assert_eq!(target.received().await, made);
}

#[tokio::test]
async fn g2_a_file_that_can_not_be_opened_at_the_moment_is_not_damaged() {
    let folder = tempfile::tempdir().expect("a folder");
    let (source, target) = sides(folder.path());
    let made = source.records(3, 1000).await;
    // Given a file that the source can't open now, though nothing says that it is lost: as with too many
    // open files (EMFILE), here ELOOP, which a test can bring about.
    let (file, aside) = (source.file(&made[1]), folder.path().join("aside"));
    fs::rename(&file, &aside).expect("it is moved");
    std::os::unix::fs::symlink(&file, &file).expect("a loop");
    source.hands_back();
    let giving = source.start().await;
    let base = format!("http://{}/v1/restorations/failover-1", giving.service.address());
    let verdict = reqwest::get(format!("{base}/verdicts/{}", made[1].path)).await;
    assert_eq!(
        verdict.expect("an answer").status(),
        500,
        "not a word on whether it is whole"
    );
    target.fetches_from(&source, giving.service.address());
    let fetching = target.start().await;
    let report = fetching
        .until("it says that it waits", |report| !report.waiting.is_empty())
        .await;
    assert!(report.damaged.is_empty(), "{report:?}");

    // When it can be opened again, it is fetched.
    fs::rename(&aside, &file).expect("it is moved back");
    let report = fetching.complete().await;
    assert!(report.damaged.is_empty(), "{report:?}");
    assert_eq!(target.received().await, made);
}

fn fleet(token: &str) -> FleetConfig {
    FleetConfig {
        token: Some(Secret::new(token)),
        token_file: None,
    }
}

#[tokio::test]
async fn recordings_are_given_to_who_presents_the_fleets_token_and_to_nobody_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut source, mut target) = sides(folder.path());
    let made = source.records(2, 1000).await;
    source.hands_back();
    let token = "0123456789abcdef0123456789abcdef";
    source.fleet = fleet(token);
    let giving = source.start().await;
    let http = reqwest::Client::new();
    let base = format!("http://{}", giving.service.address());
    let asks = async |path: &str, token: Option<&str>| {
        let mut request = http.get(format!("{base}/{path}"));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        request.send().await.expect("an answer")
    };
    let paths = [
        "manifest".to_owned(),
        format!("segments/{}", made[0].path),
        format!("verdicts/{}", made[0].path),
    ];
    for path in paths.map(|path| format!("v1/restorations/failover-1/{path}")) {
        for stranger in [None, Some("guessed"), Some(&token[1..])] {
            let answer = asks(&path, stranger).await;
            assert_eq!(answer.status(), 401, "{path} for {stranger:?}");
            assert_eq!(answer.headers()["www-authenticate"], "Bearer");
            assert_eq!(answer.headers()["content-type"], "application/problem+json");
        }
        assert_eq!(asks(&path, Some(token)).await.status(), 200, "{path}");
    }
    // Whoever looks for a server that is missed needs no token, and nothing else is there.
    assert_eq!(asks("healthz", None).await.status(), 200);
    assert_eq!(asks("v2", None).await.status(), 404);

    // Another server of the fleet that has another token says what to do, and loses nothing.
    target.fleet = fleet("fedcba9876543210fedcba9876543210");
    target.fetches_from(&source, giving.service.address());
    let fetching = target.start().await;
    let report = fetching
        .until("it says that it waits", |report| !report.waiting.is_empty())
        .await;
    assert!(report.waiting.contains("fleet.token_file"), "{}", report.waiting);
    assert!(report.damaged.is_empty() && target.received().await.is_empty());
    fetching.stop().await;
    target.fleet = fleet(token);
    let fetching = target.start().await;
    fetching.complete().await;
    assert_eq!(target.received().await, made);
}

#[tokio::test]
async fn beyond_this_machine_nothing_is_given_out_without_the_fleets_token() {
    let folder = tempfile::tempdir().expect("a folder");
    let side = Side::new(folder.path(), "standby-a");
    let config = SyncConfig {
        listen: ([0, 0, 0, 0], 0).into(),
        ..SyncConfig::default()
    };
    let process = Process::for_test("sync");
    let start = SyncService::start(config.clone(), &side.fleet, side.config.clone(), &process);
    let error = start.await.expect_err("anybody could have them").to_string();
    assert!(
        error.contains("sync.listen = 0.0.0.0:0") && error.contains("fleet.token_file"),
        "{error}"
    );
    let ours = fleet("0123456789abcdef0123456789abcdef");
    let start = SyncService::start(config, &ours, side.config.clone(), &process);
    assert!(start.await.is_ok());
    process.shutdown().cancel();
    process.finish().await;
}

#[tokio::test]
async fn only_segments_of_that_failover_are_given_out() {
    let folder = tempfile::tempdir().expect("a folder");
    let source = Side::new(folder.path(), "standby-a");
    let made = source.records(1, 1000).await;
    fs::write(source.config.data.join("secret"), b"secret").expect("it is written");
    source.hands_back();
    let giving = source.start().await;
    let http = reqwest::Client::new();
    // Where it gives recordings out it says that it is there, and of which version, as at its health address.
    let there = http
        .get(format!("http://{}/healthz", giving.service.address()))
        .send()
        .await
        .expect("an answer");
    assert_eq!(there.status(), 200);
    assert!(there.headers().contains_key("understudy-version"));
    let base = format!("http://{}/v1/restorations", giving.service.address());
    let get = |path: String| {
        let request = http.get(format!("{base}/{path}"));
        async move { request.send().await.expect("an answer") }
    };
    let path = &made[0].path;
    for wrong in [
        format!("failover-2/segments/{path}"),
        "failover-1/segments/index.db".to_owned(),
        "failover-1/segments/..%2F..%2Fsecret".to_owned(),
        "failover-1/segments/cam-001/%2e%2e/%2e%2e/secret".to_owned(),
        "failover-1/segments//etc/passwd".to_owned(),
        "UPPER/manifest".to_owned(),
    ] {
        assert_eq!(get(wrong.clone()).await.status(), 404, "{wrong}");
    }
    let whole = get(format!("failover-1/segments/{path}")).await;
    assert_eq!(
        (
            whole.status().as_u16(),
            whole.bytes().await.expect("a body").len()
        ),
        (200, 1000)
    );
    let request = http.get(format!("{base}/failover-1/segments/{path}"));
    let part = request
        .header("range", "bytes=990-")
        .send()
        .await
        .expect("an answer");
    assert_eq!(part.headers()["content-range"], "bytes 990-999/1000");
    assert_eq!(
        (part.status().as_u16(), part.bytes().await.expect("a body").len()),
        (206, 10)
    );
    let request = http.get(format!("{base}/failover-1/segments/{path}"));
    assert_eq!(
        request
            .header("range", "bytes=1000-")
            .send()
            .await
            .expect("an answer")
            .status(),
        416
    );
}

#[tokio::test]
async fn paths_that_lead_elsewhere_are_refused_and_the_rest_is_fetched() {
    let folder = tempfile::tempdir().expect("a folder");
    let (source, target) = sides(folder.path());
    let good = source.segment(0, b"good");
    let mut segments = vec![good.clone()];
    for path in [
        "../../evil.mp4",
        "cam-001/../../evil.mp4",
        "/tmp/evil.mp4",
        "cam-001/evil.mp4",
    ] {
        segments.push(Segment {
            path: path.to_owned(),
            ..source.segment(3, b"evil")
        });
    }
    let manifest = serde_json::json!({
        "failover": failover(), "server": source.config.id, "complete": true, "segments": segments,
    });
    let manifest = warp_at(manifest, good.path.clone()).await;
    target.fetches_from(&source, manifest);
    let fetching = target.start().await;

    let report = fetching.complete().await;

    assert_eq!(target.received().await, [good]);
    assert_eq!(report.damaged.len(), 4, "{:?}", report.damaged);
    assert!(!folder.path().join("evil.mp4").exists() && !target.config.data.join("evil.mp4").exists());
}

/// A source of our own that promises what it likes.
async fn warp_at(manifest: serde_json::Value, good: String) -> SocketAddr {
    use warp::Filter as _;
    let list =
        warp::path!("v1" / "restorations" / String / "manifest").map(move |_| warp::reply::json(&manifest));
    let bytes = warp::path!("v1" / "restorations" / String / "segments" / ..)
        .and(warp::path::tail())
        .map(move |_, path: warp::path::Tail| if path.as_str() == good { "good" } else { "evil" });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(warp::serve(list.or(bytes)).incoming(listener).run());
    address
}

/// A source of our own that lists what it is told to, and gives segments only once the gate is open.
async fn held_at(listed: watch::Receiver<serde_json::Value>, gated: watch::Receiver<bool>) -> SocketAddr {
    use warp::Filter as _;
    let list = warp::path!("v1" / "restorations" / String / "manifest")
        .map(move |_| warp::reply::json(&*listed.borrow()));
    let bytes = warp::path!("v1" / "restorations" / String / "segments" / ..)
        .and(warp::path::tail())
        .then(move |_, _| {
            let mut gate = gated.clone();
            async move {
                gate.wait_for(|open| *open).await.expect("the test goes on");
                "good"
            }
        });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(warp::serve(list.or(bytes)).incoming(listener).run());
    address
}

/// A sync service in a process of its own, to be killed.
struct Killable {
    child: Child,
}

impl Killable {
    fn start(side: &Side, listen: SocketAddr) -> Self {
        let child = Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "a_server_process", "--ignored"])
            .env(ROLE, format!("{} {listen}", side.config.data.display()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a process");
        Self { child }
    }

    fn kill(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
    }
}

impl Drop for Killable {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Not a test: what [`Killable`] runs.
#[tokio::test]
#[ignore = "the other tests run it as a process of its own"]
async fn a_server_process() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let (data, listen) = role.split_once(' ').expect("folder and address");
    let data = Path::new(data);
    let id = data
        .file_name()
        .and_then(|name| name.to_str())
        .expect("a server's id");
    let side = Side::new(data.parent().expect("a folder above"), id);
    let config = SyncConfig {
        listen: listen.parse().expect("an address"),
        parallel: 2,
        ..SyncConfig::default()
    };
    let _running = side.start_with(config).await;
    std::future::pending::<()>().await;
}

fn free_address() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address")
}

/// Waits until at least `count` segments are here and something is under way.
async fn under_way(target: &Side, count: usize) {
    let archive = target.archive();
    let waited = timeout(PATIENCE, async {
        loop {
            let filter = Filter {
                failover: Some(failover()),
                ..Filter::default()
            };
            let here = archive.segments(filter).await.expect("an index").len();
            if here >= count && target.incoming() > 0 {
                return here;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    waited.await.expect("segments arrive");
}

#[tokio::test]
async fn j7_a_killed_receiver_goes_on_where_it_stopped() {
    let folder = tempfile::tempdir().expect("a folder");
    let (source, target) = sides(folder.path());
    let made = source.records(60, 4 << 20).await;
    source.hands_back();
    let giving = source.start().await;
    target.fetches_from(&source, giving.service.address());
    for kills in 1..=2 {
        let mut receiver = Killable::start(&target, free_address());
        under_way(&target, kills * 5).await;
        receiver.kill();
    }
    let before = target.received().await.len() as u64;
    assert!(before < 60, "it was interrupted");

    let fetching = target.start().await;
    let report = fetching.complete().await;

    assert_eq!(target.received().await, made);
    assert_eq!(report.progress.segments_done, 60);
    let metrics = fetching.process.registry().gather();
    let family = metrics
        .iter()
        .find(|family| family.name() == "understudy_failback_segments_total");
    let fetched = family.expect("a metric").get_metric()[0]
        .get_counter()
        .get_value() as u64;
    assert_eq!(fetched, 60 - before, "what was here is not fetched again");
}

#[tokio::test]
async fn j7_a_killed_source_that_comes_back_is_gone_on_with() {
    let folder = tempfile::tempdir().expect("a folder");
    let (source, target) = sides(folder.path());
    let made = source.records(60, 4 << 20).await;
    source.hands_back();
    let address = free_address();
    let mut giving = Killable::start(&source, address);
    target.fetches_from(&source, address);
    let fetching = target.start().await;
    under_way(&target, 5).await;
    giving.kill();
    fetching
        .until("it says that it waits", |report| !report.waiting.is_empty())
        .await;

    let _giving = Killable::start(&source, address);

    assert_eq!(fetching.complete().await.progress.segments_done, 60);
    assert_eq!(target.received().await, made);
}

#[tokio::test]
async fn a_half_fetched_segment_is_gone_on_with_or_begun_anew() {
    let folder = tempfile::tempdir().expect("a folder");
    let (source, target) = sides(folder.path());
    let made = source.records(3, 100_000).await;
    let contents = fs::read(source.file(&made[0])).expect("it is there");
    let name = |segment: &Segment| {
        let mut hasher = blake3::Hasher::new();
        hasher.update(format!("{}\0{}", segment.path, segment.blake3).as_bytes());
        target
            .archive()
            .incoming()
            .join(format!("{}.part", hasher.finalize().to_hex()))
    };
    fs::write(name(&made[0]), &contents[..60_000]).expect("a crash left it");
    fs::write(name(&made[1]), vec![7; 60_000]).expect("a crash left nonsense");
    fs::write(name(&made[2]), vec![7; 200_000]).expect("a crash left too much");
    source.hands_back();
    let giving = source.start().await;
    target.fetches_from(&source, giving.service.address());
    let fetching = target.start().await;

    assert!(fetching.complete().await.damaged.is_empty());
    assert_eq!(target.received().await, made);
    assert_eq!(target.incoming(), 0);
}
