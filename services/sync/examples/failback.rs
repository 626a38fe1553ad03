//! Measures failback over loopback: makes a failover's recordings, has one sync service fetch them from
//! another (hash included, durable and indexed at the end), and prints bytes, seconds and rate. With
//! `--rsync`, the same files are copied by `rsync -a --whole-file` before and after, for comparison.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Parser;
use tokio::time::Instant;
use understudy_core::{
    assignment::{Assignment, Epoch, Films, Restore, Role},
    contract::segment::Segment,
    ids::{CameraId, DomainId, FailoverId, ServerId},
    policy::Range,
    settings::BundleHash,
    time::Timestamp,
};
use understudy_media::archive::{Archive, Kind, Name};
use understudy_runtime::{FleetConfig, Process, ServerConfig};
use understudy_sync::{SyncConfig, SyncService};

#[derive(Parser)]
struct Arguments {
    /// How many segments.
    #[arg(long, default_value_t = 200)]
    segments: u32,
    /// Size of each, in MiB (2 Mbit/s for a minute is 15).
    #[arg(long, default_value_t = 15)]
    mebibytes: usize,
    /// How many are fetched at once.
    #[arg(long)]
    parallel: Option<usize>,
    /// Compares with rsync.
    #[arg(long)]
    rsync: bool,
    /// Where the two servers' folders are made.
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    folder: PathBuf,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let folder = tempfile::tempdir_in(&arguments.folder)?;
    let (source, target) = (
        server(folder.path(), "standby-a"),
        server(folder.path(), "recorder-1"),
    );
    let bytes = record(&source, &arguments).await?;
    nix::unistd::sync();
    if arguments.rsync {
        rsync(&source.data, folder.path(), bytes)?;
    }

    assign(&source, Role::HandsBack { failover: failover() })?;
    let giving = Process::for_test("source");
    let fleet = FleetConfig::default();
    let config = SyncConfig {
        listen: ([127, 0, 0, 1], 0).into(),
        ..SyncConfig::default()
    };
    let source_service = SyncService::start(config.clone(), &fleet, source.clone(), &giving).await?;
    let address = format!("http://{}", source_service.address());
    let fetching = Process::for_test("target");
    let config = SyncConfig {
        parallel: arguments.parallel.unwrap_or(config.parallel),
        ..config
    };
    let service = SyncService::start(config, &fleet, target.clone(), &fetching).await?;
    let mut status = service.status();
    assign(&target, Role::Films(films(&target, &source, address)))?;
    status.wait_for(Option::is_some).await?;
    let begun = Instant::now();
    status
        .wait_for(|report| report.as_ref().is_some_and(|report| report.complete))
        .await?;
    print("failback", bytes, begun.elapsed());
    giving.finish().await;
    fetching.finish().await;

    if arguments.rsync {
        fs::remove_dir_all(&target.data)?;
        rsync(&source.data, folder.path(), bytes)?;
    }
    Ok(())
}

fn failover() -> FailoverId {
    FailoverId::new("failover-1").expect("an id")
}

fn server(folder: &Path, id: &str) -> ServerConfig {
    ServerConfig {
        id: ServerId::new(id).expect("an id"),
        domain: DomainId::new("east").expect("an id"),
        data: folder.join(id),
        ..ServerConfig::default()
    }
}

fn films(target: &ServerConfig, source: &ServerConfig, address: String) -> Films {
    Films {
        identity: target.id.clone(),
        settings: BundleHash(String::new()),
        range: Range::default(),
        disabled: Default::default(),
        failover: None,
        keep: Default::default(),
        restore: Some(Restore {
            failover: failover(),
            source: source.id.clone(),
            address,
        }),
    }
}

fn assign(server: &ServerConfig, role: Role) -> anyhow::Result<()> {
    let epoch = Epoch { term: 1, number: 1 };
    let assignment = Assignment {
        server: server.id.clone(),
        epoch,
        role,
        erase: Default::default(),
        erase_up_to: Default::default(),
    };
    let temporary = server.data.join("assignment.new");
    fs::write(&temporary, serde_json::to_vec(&assignment)?)?;
    Ok(fs::rename(temporary, server.data.join("assignment.json"))?)
}

/// Makes segments with contents of their own and puts them into the archive's index.
async fn record(server: &ServerConfig, arguments: &Arguments) -> anyhow::Result<u64> {
    let archive = Archive::open(server.data.join("archive"), server.id.clone())?;
    let mut contents = (0..arguments.mebibytes << 20)
        .map(|at| (at * at % 251) as u8)
        .collect::<Vec<_>>();
    let mut arrived = Vec::new();
    for index in 0..arguments.segments {
        contents[..4].copy_from_slice(&index.to_be_bytes());
        let start = Timestamp(1_795_000_000_000 + i64::from(index / 90) * 60_000);
        let camera = CameraId::new(format!("cam-{:03}", index % 90 + 1))?;
        let name = Name {
            kind: Kind::Segment,
            camera: camera.clone(),
            start,
            server: server.id.clone(),
        };
        let temporary = archive.incoming().join(format!("{index}.part"));
        fs::File::create(&temporary)?.write_all(&contents)?;
        let segment = Segment {
            path: name.path(),
            camera,
            recorded_by: server.id.clone(),
            failover: Some(failover()),
            start,
            end: Timestamp(start.as_millis() + 60_000),
            bytes: contents.len() as u64,
            frames: 900,
            blake3: blake3::hash(&contents).to_hex().to_string(),
        };
        arrived.push((segment, temporary));
    }
    archive.import_all(arrived).await?;
    Ok(u64::from(arguments.segments) * contents.len() as u64)
}

fn rsync(source: &Path, folder: &Path, bytes: u64) -> anyhow::Result<()> {
    let target = folder.join("rsync");
    let begun = Instant::now();
    let status = std::process::Command::new("rsync")
        .args(["-a", "--whole-file"])
        .arg(source.join("archive").join(""))
        .arg(&target)
        .status()?;
    anyhow::ensure!(status.success(), "rsync failed");
    print("rsync", bytes, begun.elapsed());
    nix::unistd::sync();
    print("rsync and sync", bytes, begun.elapsed());
    fs::remove_dir_all(target)?;
    nix::unistd::sync();
    Ok(())
}

fn print(what: &str, bytes: u64, took: Duration) {
    let seconds = took.as_secs_f64();
    println!(
        "{what}: {bytes} bytes in {seconds:.2} s, {:.0} MB/s",
        bytes as f64 / 1e6 / seconds
    );
}
