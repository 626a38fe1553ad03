//! Each reason for a failover on its own (C1): where it is switched on it is one, where it is not it is none.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::time::sleep;
use understudy_core::{
    contract::api::{Phase, ReasonKind},
    policy::Policy,
};
use understudy_demo::{
    rig::{Plan, ServerPlan, ServerRig},
    volume::Volume,
};
use understudy_runtime::testing::left_out;
use understudy_scenarios::{Fleet, executable, folder, plan};

/// Far longer than any of the three takes.
const LONG: Duration = Duration::from_secs(5);

const RECORDERS: [&str; 3] = ["recorder-1", "recorder-2", "recorder-3"];

/// Three recording servers with a camera and one trigger each: disconnection, package, storage.
async fn fleet(folder: tempfile::TempDir) -> anyhow::Result<Fleet> {
    let policies = [0, 1, 2].map(|index| Policy {
        on_disconnection: index == 0,
        on_package: index == 1,
        on_storage: index == 2,
        ..plan().policy
    });
    fleet_of(folder, policies).await
}

/// Three recording servers with a camera each, and a failover server for each.
async fn fleet_of(folder: tempfile::TempDir, policies: [Policy; 3]) -> anyhow::Result<Fleet> {
    let mut servers: Vec<ServerPlan> = RECORDERS
        .iter()
        .map(|id| ServerPlan::recording(id, id, 10))
        .collect();
    servers.extend(["failover-1", "failover-2", "failover-3"].map(|id| ServerPlan::failover(id, id, 10)));
    let fleet_plan = Plan {
        cameras: 3,
        enroll_cameras: false,
        servers,
        ..plan()
    };
    let fleet = Fleet::start_in(folder, fleet_plan).await?;
    for (index, (server, policy)) in RECORDERS.into_iter().zip(policies).enumerate() {
        fleet.rig.api.set_policy(server, &policy).await?;
        let camera = fleet.rig.cameras(server, index..index + 1)?;
        fleet.rig.api.add_cameras(&camera).await?;
    }
    all_film(&fleet).await?;
    Ok(fleet)
}

async fn all_film(fleet: &Fleet) -> anyhow::Result<()> {
    for server in RECORDERS {
        fleet.films(server, 1).await?;
        fleet
            .server(server, "to be protected", |view| view.protected)
            .await?;
    }
    Ok(())
}

#[tokio::test]
async fn c1_each_trigger_starts_a_failover_where_it_is_on_and_none_where_it_is_off() -> anyhow::Result<()> {
    let folder = folder()?;
    let archive = folder.path().join("recorder-3/data/archive");
    let volume = Volume::mounted_at(&archive, &folder.path().join("volume.img"), 256 << 20);
    if let Err(why) = &volume {
        left_out(format!("that a broken volume starts one: {why}"));
    }
    let mut fleet = fleet(folder).await?;

    // Something happens to each that is no reason with it.
    fleet.rig.server("recorder-1").ingest.kill();
    fleet.rig.server("recorder-2").kill();
    fleet.rig.server("recorder-3").ingest.kill();
    sleep(LONG).await;
    assert_eq!(
        fleet.rig.api.failovers().await?,
        [],
        "none of them asked for that"
    );
    fleet.rig.server("recorder-1").ingest.start()?;
    fleet.rig.server("recorder-2").start()?;
    fleet.rig.server("recorder-3").ingest.start()?;
    all_film(&fleet).await?;

    // And then what is.
    fleet.rig.server("recorder-1").kill();
    fleet.rig.server("recorder-2").ingest.kill();
    let mut reasons = vec![
        ("recorder-1", ReasonKind::Disconnection),
        ("recorder-2", ReasonKind::Package),
    ];
    if let Ok(volume) = &volume {
        volume.breaks().map_err(anyhow::Error::msg)?;
        reasons.push(("recorder-3", ReasonKind::Storage));
    }
    for (server, reason) in &reasons {
        let failover = fleet.phase(server, Phase::Serving).await?;
        assert_eq!(failover.reason.kind, *reason, "{server}: {:?}", failover.reason);
    }
    assert_eq!(fleet.rig.api.failovers().await?.len(), reasons.len());
    fleet.rig.stop().await;
    drop(volume);
    Ok(())
}

/// What the agent's configuration says besides, from its next start on.
fn configure(server: &mut ServerRig, agent: &str) -> anyhow::Result<()> {
    let file = server.folder.join("server.toml");
    let text = fs::read_to_string(&file)?;
    fs::write(&file, text.replace("[agent]\n", &format!("[agent]\n{agent}\n")))?;
    Ok(())
}

/// The words before a command line that run it from another executable.
fn instead(executable: &Path) -> Vec<String> {
    let script = format!("shift; exec '{}' \"$@\"", executable.display());
    ["sh", "-c", &script, "sh"].map(str::to_owned).to_vec()
}

/// The program as another version of it: the same, with another number.
fn another_version(at: &Path) -> anyhow::Result<()> {
    let version = understudy_runtime::VERSION.as_bytes();
    let mut other = version.to_vec();
    other[0] = b'9';
    let mut program = fs::read(executable())?;
    let mut from = 0;
    while let Some(found) = find(&program[from..], version) {
        program[from + found..from + found + version.len()].copy_from_slice(&other);
        from += found + version.len();
    }
    fs::write(at, program)?;
    fs::set_permissions(at, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).position(|window| window == wanted)
}

const UNIT: &str = "understudy-ingest.service";

/// A folder of units with one that is enabled, and the words that let a process see it as the machine's. It takes root,
/// for a mount of its own; nobody else sees it.
fn units(folder: &Path) -> anyhow::Result<(PathBuf, Vec<String>)> {
    let wants = folder.join("multi-user.target.wants");
    fs::create_dir_all(&wants)?;
    let unit = "[Service]\nExecStart=/usr/bin/understudy ingest\n\n[Install]\nWantedBy=multi-user.target\n";
    fs::write(folder.join(UNIT), unit)?;
    let enabled = wants.join(UNIT);
    symlink(Path::new("..").join(UNIT), &enabled)?;
    let script = format!(
        "mount --bind '{}' /etc/systemd/system && exec \"$@\"",
        folder.display()
    );
    let words = ["unshare", "--mount", "--", "sh", "-c", &script, "sh"];
    Ok((enabled, words.map(str::to_owned).to_vec()))
}

#[tokio::test]
async fn c4_a_recording_service_that_is_uninstalled_disabled_or_of_another_version_is_failed_over()
-> anyhow::Result<()> {
    let may_mount = nix::unistd::geteuid().is_root() && Path::new("/etc/systemd/system").is_dir();
    let policies = [(); 3].map(|()| Policy {
        on_disconnection: false,
        on_package: true,
        ..plan().policy
    });
    let mut fleet = fleet_of(folder()?, policies).await?;
    let at = fleet.rig.plan.folder.clone();
    // Given three servers: one whose agent knows where its recording service is installed,
    let installed = at.join("understudy-as-installed");
    symlink(executable(), &installed)?;
    let one = fleet.rig.server("recorder-1");
    configure(one, &format!("ingest_executable = {installed:?}"))?;
    one.ingest.enter(&instead(&installed));
    // one whose agent knows by which unit it is started,
    let (enabled, see_units) = units(&at.join("units"))?;
    let two = fleet.rig.server("recorder-2");
    if may_mount {
        configure(two, &format!("ingest_unit = {UNIT:?}"))?;
        two.agent.enter(&see_units);
    } else {
        left_out("that a disabled unit is a reason: it takes root, and /etc/systemd/system".to_owned());
    }
    // and one that gives an upgrade two seconds.
    configure(fleet.rig.server("recorder-3"), "package_version_ms = 2000")?;
    for server in RECORDERS {
        let server = fleet.rig.server(server);
        server.kill();
        server.start()?;
    }
    all_film(&fleet).await?;
    assert_eq!(fleet.rig.api.failovers().await?, []);

    // When one is removed, one is disabled, and one goes on as another version,
    fs::remove_file(&installed)?;
    fs::remove_file(enabled)?;
    for server in ["recorder-1", "recorder-2"] {
        fleet.rig.server(server).ingest.kill();
    }
    let another = at.join("understudy-another");
    another_version(&another)?;
    let three = fleet.rig.server("recorder-3");
    three.ingest.kill();
    three.ingest.enter(&instead(&another));
    three.ingest.start()?;
    // then each is failed over, and told apart.
    let disabled = match may_mount {
        true => "disabled",
        false => "crashed",
    };
    for (server, words) in [
        ("recorder-1", ["uninstalled", "is not there"]),
        ("recorder-2", [disabled, disabled]),
        ("recorder-3", ["version 9", "its agent"]),
    ] {
        let failover = fleet.phase(server, Phase::Serving).await?;
        assert_eq!(failover.reason.kind, ReasonKind::Package, "{failover:?}");
        let said = format!("{:?}", failover.reason);
        for part in words {
            assert!(said.contains(part), "{server}: {part:?} is missing in: {said}");
        }
    }
    fleet.rig.stop().await;
    Ok(())
}
