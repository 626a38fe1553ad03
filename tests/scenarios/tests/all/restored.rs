//! A host that is restored from a backup believes what is not so any more: nothing is erased for that (decision 024).

use std::{fs, path::Path};

use reqwest::Method;
use understudy_bus::{Bus, Message, Queue};
use understudy_core::{
    contract::{api::Phase, heartbeat::RestorationReport, names},
    policy::Policy,
};
use understudy_demo::{
    frames,
    rig::{Plan, eventually},
};
use understudy_runtime::Process;
use understudy_scenarios::{Fleet, PATIENCE, plan};

/// The files of the host's database, in another folder.
fn copy_database(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to)?;
    for folder in [to, from] {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name();
            if !name.to_string_lossy().starts_with("understudy.db") {
                continue;
            }
            match folder == to {
                true => fs::remove_file(entry.path())?,
                false => drop(fs::copy(entry.path(), to.join(name))?),
            }
        }
    }
    Ok(())
}

/// Whoever has the database open is killed.
fn host_dies(fleet: &mut Fleet) {
    fleet.rig.host.orchestrator.kill();
    fleet.rig.host.license.kill();
}

async fn host_starts(fleet: &mut Fleet) -> anyhow::Result<()> {
    for process in [&mut fleet.rig.host.orchestrator, &mut fleet.rig.host.license] {
        process.start()?;
        process.healthy().await?;
    }
    Ok(())
}

/// The host is the one of the backup, and hears what the recording server said to the host of before.
async fn restored(
    fleet: &mut Fleet,
    backup: &Path,
    bus: &Bus,
    late: &RestorationReport,
) -> anyhow::Result<()> {
    host_dies(fleet);
    copy_database(backup, &fleet.rig.plan.folder.join("host/data"))?;
    host_starts(fleet).await?;
    eventually("the late word to be believed", PATIENCE, async || {
        let all = fleet
            .rig
            .api
            .failovers()
            .await
            .map_err(|error| error.to_string())?;
        if all.iter().all(|view| view.phase == Phase::Completed) {
            return Ok(());
        }
        bus.publish(Message::restoration(late))
            .await
            .map_err(|error| error.to_string())?;
        Err(format!("{all:?}"))
    })
    .await?;
    Ok(())
}

/// All that the failover server has on its disk, and it is as much as it was.
fn nothing_is_erased(fleet: &mut Fleet, had: &frames::Recorded) -> anyhow::Result<()> {
    for (camera, numbers) in &fleet.recorded("failover-1")? {
        let missing: Vec<_> = had[camera].difference(numbers).collect();
        assert_eq!(
            missing,
            Vec::<&u64>::new(),
            "{camera}: the failover server erased"
        );
    }
    Ok(())
}

/// A failover by hand that is being handed back, of which nothing can arrive yet; and the host's backup of then.
async fn backed_up_while_handing_back() -> anyhow::Result<Fleet> {
    // By hand only: a dead recording server is no reason, so that the restored host does not begin anew by itself.
    let policy = Policy {
        automatic: false,
        ..plan().policy
    };
    let mut fleet = Fleet::filming(Plan { policy, ..plan() }).await?;
    fleet.rig.api.start_failover("recorder-1").await?;
    fleet.phase("recorder-1", Phase::Serving).await?;
    fleet.files("failover-1", 4).await?;
    fleet.rig.server("failover-1").sync.kill();
    fleet.rig.api.stop_failover("recorder-1").await?;
    fleet
        .failover("recorder-1", "to be fetched", |view| {
            view.steps
                .iter()
                .any(|step| step.what.contains("they are fetched"))
        })
        .await?;
    Ok(fleet)
}

#[tokio::test]
async fn g2_g4_k9_a_host_restored_to_before_a_failover_began_again_erases_nothing_that_did_not_arrive()
-> anyhow::Result<()> {
    // Given a backup of a host, made while a failover was handed back,
    let mut fleet = backed_up_while_handing_back().await?;
    let backup = fleet.rig.plan.folder.join("backup");
    host_dies(&mut fleet);
    copy_database(&fleet.rig.plan.folder.join("host/data"), &backup)?;
    // a recording server that says that everything arrived, and nobody who hears it,
    let listener = Process::for_test("listener");
    let bus = Bus::start(&fleet.rig.broker.config(), "listener", &listener)?;
    let mut words = bus.subscribe(Queue::heartbeats(&["#"]));
    words.consuming().await;
    fleet.rig.server("failover-1").sync.start()?;
    let late = tokio::time::timeout(PATIENCE, async {
        while let Some(word) = words.next().await {
            if word.kind == names::RESTORATION_TYPE
                && let Ok(report) = word.json::<RestorationReport>()
                && report.complete
            {
                return Some(report);
            }
        }
        None
    })
    .await?
    .ok_or_else(|| anyhow::anyhow!("the broker has gone"))?;
    assert_eq!(late.begun, Some(1), "{late:?}");
    // and the failover, which begins again after the backup.
    fleet.rig.server("recorder-1").sync.kill();
    host_starts(&mut fleet).await?;
    fleet.phase("recorder-1", Phase::Restoring).await?;
    fleet.is_back("failover-1").await?;
    let arrived = frames::files(&fleet.rig.server("failover-1").archive())?.len();
    fleet.rig.api.start_failover("recorder-1").await?;
    let again = fleet.phase("recorder-1", Phase::Serving).await?;
    assert_eq!(again.stand_in.as_ref().map(|id| id.as_str()), Some("failover-1"));
    fleet.films("failover-1", 4).await?;
    fleet.files("failover-1", arrived + 8).await?;
    fleet.rig.server("failover-1").kill();
    fleet.rig.server("recorder-1").kill();
    let had = fleet.recorded("failover-1")?;

    // When the host is the one of the backup, it takes the late word for said to itself.
    restored(&mut fleet, &backup, &bus, &late).await?;
    // The failover server is told to erase, and keeps what it filmed since: it is handed back as well.
    fleet.rig.server("failover-1").start()?;
    let owed = fleet
        .failover("recorder-1", "to wait for its server", |view| {
            view.phase == Phase::Restoring && view.waits_for == "recorder-1 to be heard"
        })
        .await?;
    assert_eq!(owed.id, again.id);
    assert!(
        owed.steps
            .iter()
            .any(|step| step.what.contains("has more recordings than had arrived")),
        "{:?}",
        owed.steps
    );
    nothing_is_erased(&mut fleet, &had)?;

    // Once more, and the recording server is removed before a failover server is heard, which knows better:
    fleet.rig.server("failover-1").kill();
    fleet.rig.server("failover-2").kill();
    restored(&mut fleet, &backup, &bus, &late).await?;
    let nothing = None::<&()>;
    let _: serde_json::Value = fleet
        .rig
        .api
        .call(Method::DELETE, "servers/recorder-1", nothing)
        .await?;
    fleet.rig.server("failover-1").start()?;
    fleet.rig.server("failover-2").start()?;
    // it says what it waits for, and erases nothing,
    let waits = "recorder-1 to be a recording server of the fleet again";
    fleet
        .failover("recorder-1", "to wait for a person", |view| {
            view.phase == Phase::Completed && view.waits_for.contains(waits)
        })
        .await?;
    nothing_is_erased(&mut fleet, &had)?;
    // until that is so. Then everything is handed back, and the copies are gone.
    let enrolled = fleet.rig.enrolled(&fleet.rig.servers[0])?;
    let cameras = fleet.rig.cameras("recorder-1", 0..4)?;
    fleet.rig.api.add_server(&enrolled).await?;
    fleet.rig.api.add_cameras(&cameras).await?;
    fleet.phase("recorder-1", Phase::Restoring).await?;
    fleet.rig.server("recorder-1").start()?;
    fleet.whole_again(&["recorder-1"], 4).await?;
    let recorded = fleet.recorded("recorder-1")?;
    for (camera, numbers) in &had {
        let missing: Vec<_> = numbers.difference(&recorded[camera]).collect();
        assert_eq!(missing, Vec::<&u64>::new(), "{camera}");
    }
    assert_eq!(frames::files(&fleet.rig.server("failover-1").archive())?, []);
    listener.finish().await;
    fleet.rig.stop().await;
    Ok(())
}
