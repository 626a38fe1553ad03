//! The rate of failback between two servers' sync processes, beside `rsync -a --whole-file` of the same files
//! between two folders. Ours hashes, makes durable and indexes what it copies; rsync does none of these, so it
//! is timed twice: as it ends, and with the `sync` that makes its copy as safe as ours.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, ensure};
use tokio::time::Instant;
use understudy_bus::{Bus, Queue, private_broker::PrivateBroker};
use understudy_core::{
    assignment::{Assignment, Epoch, Films, Restore, Role},
    contract::{heartbeat::RestorationReport, names, segment::Segment},
    ids::{CameraId, FailoverId, ServerId},
    policy::Range,
    settings::BundleHash,
    time::Timestamp,
};
use understudy_demo::{ports, process::Process};
use understudy_media::archive::{Archive, Kind, Name};

/// A minute of 90 cameras at 2 Mbit/s, and as many again.
const SEGMENTS: u32 = 180;
/// One of them.
const SEGMENT_BYTES: usize = 15 << 20;
/// Far longer than it takes.
const PATIENCE: Duration = Duration::from_secs(300);
const SOURCE: &str = "failover-1";
const TARGET: &str = "recorder-1";
const FAILOVER: &str = "bench";

/// What was measured.
#[derive(Debug)]
pub(crate) struct Failback {
    pub(crate) bytes: u64,
    pub(crate) bytes_per_second: f64,
    pub(crate) bytes_per_second_rsync: f64,
    pub(crate) bytes_per_second_rsync_durable: f64,
}

/// Measures in `folder`: rsync, failback, rsync, so that a slow spell of the machine meets both.
pub(crate) async fn measure(executable: &Path, folder: &Path) -> anyhow::Result<Failback> {
    fs::create_dir_all(folder)?;
    let (source, target) = (folder.join(SOURCE), folder.join(TARGET));
    fs::create_dir_all(&target)?;
    let bytes = record(&source).await?;
    let first = rsync(&source, &folder.join("rsync"))?;
    let seconds = failback(executable, folder, &source, &target).await?;
    verify(&source, &target)?;
    fs::remove_dir_all(&target)?;
    let second = rsync(&source, &folder.join("rsync"))?;
    let rate = |seconds: f64| bytes as f64 / seconds;
    Ok(Failback {
        bytes,
        bytes_per_second: rate(seconds),
        bytes_per_second_rsync: rate((first.0 + second.0) / 2.0),
        bytes_per_second_rsync_durable: rate((first.1 + second.1) / 2.0),
    })
}

/// Makes the recordings of a failover, with contents of their own, as a failover server would hold them.
async fn record(data: &Path) -> anyhow::Result<u64> {
    let server = ServerId::new(SOURCE)?;
    let archive = Archive::open(data.join("archive"), server.clone())?;
    let mut contents: Vec<u8> = (0..SEGMENT_BYTES).map(|at| (at * at % 251) as u8).collect();
    let mut arrived = Vec::new();
    for index in 0..SEGMENTS {
        contents[..4].copy_from_slice(&index.to_be_bytes());
        let start = Timestamp(1_795_000_000_000 + i64::from(index / 90) * 60_000);
        let camera = CameraId::new(format!("cam-{:03}", index % 90 + 1))?;
        let name = Name {
            kind: Kind::Segment,
            camera: camera.clone(),
            start,
            server: server.clone(),
        };
        let temporary = archive.incoming().join(format!("{index}.part"));
        fs::File::create(&temporary)?.write_all(&contents)?;
        let segment = Segment {
            path: name.path(),
            camera,
            recorded_by: server.clone(),
            failover: Some(FailoverId::new(FAILOVER)?),
            start,
            end: Timestamp(start.as_millis() + 60_000),
            bytes: contents.len() as u64,
            frames: 900,
            blake3: understudy_demo::frames::hash(&contents),
        };
        arrived.push((segment, temporary));
    }
    archive.import_all(arrived).await?;
    Ok(u64::from(SEGMENTS) * SEGMENT_BYTES as u64)
}

/// Seconds until rsync ended, and until its copy was durable too.
fn rsync(source: &Path, target: &Path) -> anyhow::Result<(f64, f64)> {
    // What is dirty from before must not be counted.
    nix::unistd::sync();
    let begun = Instant::now();
    let status = std::process::Command::new("rsync")
        .args(["-a", "--whole-file"])
        .arg(source.join("archive").join(""))
        .arg(target)
        .status()
        .context("rsync can't be started; `make setup` installs it")?;
    ensure!(status.success(), "rsync failed");
    let ended = begun.elapsed().as_secs_f64();
    nix::unistd::sync();
    let durable = begun.elapsed().as_secs_f64();
    fs::remove_dir_all(target)?;
    nix::unistd::sync();
    Ok((ended, durable))
}

/// Seconds from the assignment to the report that everything is there.
async fn failback(executable: &Path, folder: &Path, source: &Path, target: &Path) -> anyhow::Result<f64> {
    let mut broker = PrivateBroker::start().await?;
    let key = folder.join("fleet.key");
    understudy_demo::rig::new_fleet_key(&key)?;
    let address = ports::one()?;
    let mut giving = sync(executable, folder, SOURCE, source, &key, &broker, address)?;
    let mut taking = sync(executable, folder, TARGET, target, &key, &broker, ports::one()?)?;
    assign(
        source,
        SOURCE,
        Role::HandsBack {
            failover: FailoverId::new(FAILOVER)?,
        },
    )?;
    giving.start()?;
    taking.start()?;
    giving.healthy().await?;
    taking.healthy().await?;

    let listener = understudy_runtime::Process::for_test("bench");
    let bus = Bus::start(&broker.config(), "bench", &listener)?;
    let mut reports = bus.subscribe(Queue::heartbeats(&["*.restoration.*"]));
    reports.consuming().await;
    nix::unistd::sync();
    let begun = Instant::now();
    assign(target, TARGET, films(&format!("http://{address}"))?)?;
    let complete = tokio::time::timeout(PATIENCE, async {
        while let Some(incoming) = reports.next().await {
            incoming.ack().await;
            let report: RestorationReport = incoming.json()?;
            if incoming.kind == names::RESTORATION_TYPE && report.complete {
                ensure!(report.damaged.is_empty(), "damaged: {:?}", report.damaged);
                return Ok(begun.elapsed().as_secs_f64());
            }
        }
        anyhow::bail!("the bus ended")
    });
    let seconds = complete.await.context("failback did not end")??;
    listener.finish().await;
    giving.stop().await;
    taking.stop().await;
    broker.stop().await;
    Ok(seconds)
}

fn sync(
    executable: &Path,
    folder: &Path,
    id: &str,
    data: &Path,
    key: &Path,
    broker: &PrivateBroker,
    listen: std::net::SocketAddr,
) -> anyhow::Result<Process> {
    let config: PathBuf = folder.join(format!("{id}.toml"));
    let text = format!(
        "[broker]\nurl = {:?}\n[server]\nid = {id:?}\ndomain = \"bench\"\ndata = {data:?}\n\
         fleet_key_file = {key:?}\n[sync]\nlisten = \"{listen}\"\n",
        broker.url()
    );
    fs::write(&config, text)?;
    let health = ports::one()?;
    let arguments = [
        "sync",
        "--die-with-parent",
        "--config",
        &config.display().to_string(),
        "--listen",
    ]
    .map(str::to_owned)
    .into_iter()
    .chain([health.to_string()])
    .collect();
    Ok(Process::new(
        executable,
        &format!("sync@{id}"),
        arguments,
        health,
        folder,
    ))
}

fn assign(data: &Path, server: &str, role: Role) -> anyhow::Result<()> {
    let assignment = Assignment {
        server: ServerId::new(server)?,
        epoch: Epoch { term: 1, number: 1 },
        role,
        erase: std::collections::BTreeSet::new(),
        erase_up_to: Default::default(),
    };
    let temporary = data.join("assignment.new");
    fs::write(&temporary, serde_json::to_vec(&assignment)?)?;
    Ok(fs::rename(temporary, data.join("assignment.json"))?)
}

fn films(address: &str) -> anyhow::Result<Role> {
    Ok(Role::Films(Films {
        identity: ServerId::new(TARGET)?,
        settings: BundleHash(String::new()),
        range: Range::default(),
        disabled: std::collections::BTreeSet::new(),
        failover: None,
        keep: Default::default(),
        restore: Some(Restore {
            failover: FailoverId::new(FAILOVER)?,
            source: ServerId::new(SOURCE)?,
            address: address.to_owned(),
        }),
    }))
}

/// Every file arrived as it was.
fn verify(source: &Path, target: &Path) -> anyhow::Result<()> {
    for (_, path) in understudy_demo::frames::files(&source.join("archive"))? {
        let arrived = target
            .join("archive")
            .join(path.strip_prefix(source.join("archive"))?);
        let same = understudy_demo::frames::hash(&fs::read(&path)?)
            == understudy_demo::frames::hash(&fs::read(&arrived).context("a segment did not arrive")?);
        ensure!(same, "{} is not what it was", arrived.display());
    }
    Ok(())
}
