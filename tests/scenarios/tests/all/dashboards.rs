//! What a control room sees: a real Prometheus watches a real failover. Each alert is true of its fault, which is a
//! real one, and of nothing else; each panel of each dashboard has data of it.
//!
//! Alerts are asked for by their expressions, so that nobody waits for as long as they do (`for`); that part is
//! promtool's, in `dashboards/prometheus/tests`.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use anyhow::{Context, ensure};
use understudy_bus::{Bus, Message};
use understudy_core::{
    contract::{api::Phase, heartbeat::Heartbeat},
    policy::Policy,
};
use understudy_dashboards::{alerts, explained, figures};
use understudy_demo::rig::{Plan, ServerPlan, eventually};
use understudy_runtime::{Process, testing::left_out};
use understudy_scenarios::{Fleet, PATIENCE, command_line::told, folder, mirror::Mirror, plan, wrong_clock};

use crate::prometheus::{ALL, Choice, Prometheus};

/// Where the answers to all panels are put for `dashboards/draw`, if anywhere.
const ANSWERS_FILE: &str = "UNDERSTUDY_PANEL_ANSWERS";

/// What a failover server has no figures of: it is not failed over, and nobody stands in for it.
const OF_A_RECORDING_SERVER: [&str; 4] = [
    "understudy_failover_phase",
    "understudy_failover_step_seconds",
    "understudy_failback_progress_ratio",
    "understudy_server_protected",
];

/// Two recording servers, the second without cameras and with a mirror for its recordings; two failover servers.
async fn fleet() -> anyhow::Result<(Fleet, Result<Mirror, String>)> {
    let folder = folder()?;
    let archive = folder.path().join("recorder-2/data/archive");
    let mirror = Mirror::mounted_at(&archive, folder.path());
    let mut servers = plan().servers;
    servers.insert(1, ServerPlan::recording("recorder-2", "South gate", 10));
    let fleet = Fleet::filming_in(folder, Plan { servers, ..plan() }).await?;
    // It is stopped and started again below, and nobody is to take over meanwhile.
    let by_hand = Policy {
        automatic: false,
        ..plan().policy
    };
    fleet.rig.api.set_policy("recorder-2", &by_hand).await?;
    Ok((fleet, mirror))
}

#[tokio::test]
async fn f5_a1_each_panel_has_data_of_a_failover_and_each_alert_is_true_of_its_fault() -> anyhow::Result<()> {
    // Given: a fleet that is well, and a Prometheus that finds nothing to say.
    let (mut fleet, mirror) = fleet().await?;
    let folder = tempfile::tempdir()?;
    let prometheus = Prometheus::watch(&mut fleet, folder.path()).await?;
    let mut alerts = Alerts::known(&prometheus).await?;
    alerts.none(&prometheus).await?;

    // When something goes wrong, the alert that is for it is true, and no other is:
    licences_and_cameras(&mut fleet, &mut alerts, &prometheus).await?;
    servers_die(&mut fleet, &mut alerts, &prometheus).await?;
    servers_ail(&mut fleet, mirror, &mut alerts, &prometheus).await?;
    failback(&mut fleet, &mut alerts, &prometheus).await?;
    dead_letter(&fleet, &mut alerts, &prometheus).await?;

    // Then every panel has data of it, whether all is chosen or one server: the one that was failed over, or the one
    // that stood in for it. No query and no rule names a figure that nobody gives out, and each figure is explained.
    let one = |servers, without| Choice {
        domains: &["demo"],
        servers,
        without,
    };
    let choices = [
        ALL,
        one(&["recorder-1"], &[]),
        one(&["failover-1"], &OF_A_RECORDING_SERVER),
        one(&["recorder-1", "failover-1"], &[]),
    ];
    eventually("every panel to have data", PATIENCE, async || {
        prometheus.fills_every_panel(&choices).await
    })
    .await?;
    let known = prometheus.names().await?;
    let explained = explained()?;
    for name in known.iter().filter(|name| name.starts_with("understudy_")) {
        let of_histogram = ["_bucket", "_sum", "_count"].map(|part| name.strip_suffix(part).unwrap_or(name));
        ensure!(
            of_histogram.iter().any(|name| explained.contains(*name)),
            "{name} is not in the table of docs/watching.md"
        );
    }
    for query in alerts.queries.values().chain(&alerts.recorded) {
        ensure!(
            figures(query).is_subset(&known),
            "{query} names a figure that there is not"
        );
    }
    prometheus
        .is_carried_for_a_thousand_servers(fleet.rig.servers.len())
        .await?;
    if let Some(file) = std::env::var_os(ANSWERS_FILE) {
        let answers = prometheus.answers().await?.to_string();
        std::fs::write(&file, answers).with_context(|| Path::new(&file).display().to_string())?;
    }

    // The host's own faults, last.
    host_fails(&mut fleet, &mut alerts, &prometheus).await?;
    let wanted: BTreeSet<String> = understudy_dashboards::alerts()?.into_iter().collect();
    assert_eq!(
        alerts
            .rung
            .union(&alerts.left_out)
            .cloned()
            .collect::<BTreeSet<_>>(),
        wanted
    );
    fleet.rig.stop().await;
    Ok(())
}

/// Another program publishes what is none of Understudy's messages.
async fn dead_letter(fleet: &Fleet, alerts: &mut Alerts, prometheus: &Prometheus) -> anyhow::Result<()> {
    let stranger = Process::for_test("stranger");
    let bus = Bus::start(&fleet.rig.broker.config(), "stranger", &stranger)?;
    ensure!(bus.connected().await, "the broker is there");
    let beat = r#"{"server": "stranger", "domain": "demo", "sequence": 1, "sent_at": 0, "interval_ms": 500}"#;
    let mut message = Message::heartbeat(&serde_json::from_str::<Heartbeat>(beat)?);
    message.body = "{}".into();
    bus.publish(message).await?;
    alerts
        .rings("UnderstudyDeadLetters", &[SKEW, STORAGE], prometheus)
        .await?;
    stranger.finish().await;
    Ok(())
}

const SKEW: &str = "UnderstudyClockSkew";
const STORAGE: &str = "UnderstudyStorageDegraded";
const ACTIVE: &str = "UnderstudyFailoverActive";
const UNPROTECTED: &str = "UnderstudyServerUnprotected";
const NOBODY_FREE: &str = "UnderstudyDomainWithoutFailoverServer";
const LOST: &str = "UnderstudyCamerasLost";
const DOWN: &str = "UnderstudyServerDown";

/// A key is removed; all cameras are switched off.
async fn licences_and_cameras(
    fleet: &mut Fleet,
    alerts: &mut Alerts,
    prometheus: &Prometheus,
) -> anyhow::Result<()> {
    told(fleet, &["license", "remove", "demo-key"]).await?;
    alerts.rings("UnderstudyLicenceShortage", &[], prometheus).await?;
    fleet.rig.add_license("recorder-1", "another-key", 4).await?;
    alerts.none(prometheus).await?;

    fleet.rig.simulator_process.kill();
    alerts.rings(LOST, &[], prometheus).await?;
    fleet.rig.simulator_process.start()?;
    fleet.films("recorder-1", 4).await?;
    alerts.none(prometheus).await
}

/// Both failover servers are killed, then the recording server; one failover server comes back.
async fn servers_die(fleet: &mut Fleet, alerts: &mut Alerts, prometheus: &Prometheus) -> anyhow::Result<()> {
    fleet.rig.server("failover-2").kill();
    fleet.rig.server("failover-1").kill();
    alerts.rings(UNPROTECTED, &[NOBODY_FREE], prometheus).await?;
    alerts.rings(NOBODY_FREE, &[UNPROTECTED], prometheus).await?;

    fleet.rig.server("recorder-1").kill();
    let besides = [NOBODY_FREE, UNPROTECTED, LOST, ACTIVE];
    alerts.rings(DOWN, &besides, prometheus).await?;
    // Nobody films, and the availability says so while that lasts, not only when somebody has taken over.
    available(prometheus, "0").await?;
    let besides = [NOBODY_FREE, UNPROTECTED, DOWN, ACTIVE];
    alerts.rings(LOST, &besides, prometheus).await?;

    fleet.rig.server("failover-1").start()?;
    fleet.phase("recorder-1", Phase::Serving).await?;
    available(prometheus, "1").await?;
    alerts
        .rings(ACTIVE, &[NOBODY_FREE, UNPROTECTED], prometheus)
        .await
}

async fn available(prometheus: &Prometheus, share: &str) -> anyhow::Result<()> {
    let what = format!("an availability of {share}");
    Ok(eventually(&what, PATIENCE, async || {
        let found = prometheus
            .now("domain:understudy_camera_availability:ratio")
            .await;
        match found {
            Ok(found) if found.iter().any(|each| each["value"][1] == share) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await?)
}

/// A server's clock is off; another has lost a disk of its mirror, and then can't write at all.
async fn servers_ail(
    fleet: &mut Fleet,
    mirror: Result<Mirror, String>,
    alerts: &mut Alerts,
    prometheus: &Prometheus,
) -> anyhow::Result<()> {
    let server = fleet.rig.server("failover-2");
    let off = wrong_clock::put_ahead(&mut server.agent, 60);
    server.start()?;
    match off {
        Ok(()) => alerts.rings(SKEW, &[ACTIVE], prometheus).await?,
        Err(why) => alerts.leaves_out(SKEW, &why),
    }
    fleet.stands_by("failover-2").await?;

    let mut mirror = match mirror {
        Ok(mirror) => mirror,
        Err(why) => {
            alerts.leaves_out(STORAGE, &why);
            return Ok(());
        }
    };
    fleet.rig.server("recorder-2").kill();
    let swapped = async || mirror.loses_a_disk();
    eventually("the volume to be let go of", PATIENCE, swapped).await?;
    fleet.rig.server("recorder-2").start()?;
    alerts.rings(STORAGE, &[ACTIVE, SKEW], prometheus).await?;
    let state = async |state: &str| -> Result<(), String> {
        let query = format!("understudy_storage_state{{server=\"recorder-2\", state=\"{state}\"}} == 1");
        let found = prometheus.now(&query).await.map_err(|error| error.to_string())?;
        (!found.is_empty()).then_some(()).ok_or(query)
    };
    eventually("degraded", PATIENCE, async || state("degraded").await).await?;
    // The kernel refuses while somebody writes a file on it.
    let server = fleet.rig.server("recorder-2");
    server.ingest.kill();
    server.sync.kill();
    let read_only = async || mirror.turns_read_only();
    eventually("a volume that is read-only", PATIENCE, read_only).await?;
    eventually("damaged", PATIENCE, async || state("damaged").await).await?;
    fleet.rig.server("recorder-2").kill();
    drop(mirror);
    fleet.rig.server("recorder-2").start()?;
    Ok(())
}

/// Ends the failover, at first without the service that fetches the recordings.
async fn failback(fleet: &mut Fleet, alerts: &mut Alerts, prometheus: &Prometheus) -> anyhow::Result<()> {
    let recorder = fleet.rig.server("recorder-1");
    recorder.ingest.start()?;
    recorder.agent.start()?;
    fleet.is_back("recorder-1").await?;
    fleet.rig.api.stop_failover("recorder-1").await?;
    fleet.phase("recorder-1", Phase::Restoring).await?;
    let besides = [ACTIVE, SKEW];
    alerts
        .rings("UnderstudyFailbackStalled", &besides, prometheus)
        .await?;
    fleet.rig.server("recorder-1").sync.start()?;
    let over = fleet.phase("recorder-1", Phase::Completed).await?;
    // The host has counted each byte once.
    let bytes = over.progress.bytes_done;
    ensure!(bytes > 0, "something was handed back");
    let counted = format!("sum(understudy_failback_bytes_total{{server=\"\"}}) == {bytes}");
    Ok(eventually(&counted, PATIENCE, async || {
        let found = prometheus
            .now(&counted)
            .await
            .map_err(|error| error.to_string())?;
        (!found.is_empty())
            .then_some(())
            .ok_or(over.progress.bytes_done.to_string())
    })
    .await?)
}

/// The broker dies alone: servers are heard directly, so nobody is blind. Then the servers' agents, then the
/// orchestrator.
async fn host_fails(fleet: &mut Fleet, alerts: &mut Alerts, prometheus: &Prometheus) -> anyhow::Result<()> {
    fleet.rig.broker.kill();
    // Nothing is known of any server without it.
    let besides = [
        UNPROTECTED,
        NOBODY_FREE,
        DOWN,
        LOST,
        SKEW,
        "UnderstudyDeadLetters",
    ];
    alerts.rings("UnderstudyBrokerDown", &besides, prometheus).await?;
    for server in &mut fleet.rig.servers {
        server.agent.kill();
    }
    let besides = [&besides[..], &["UnderstudyBrokerDown"]].concat();
    alerts.rings("UnderstudyHostBlind", &besides, prometheus).await?;
    fleet.rig.host.orchestrator.kill();
    let besides = [&besides[..], &["UnderstudyHostBlind"]].concat();
    alerts.rings("UnderstudyHostAway", &besides, prometheus).await
}

/// The alerts, as Prometheus has read them.
struct Alerts {
    queries: BTreeMap<String, String>,
    recorded: Vec<String>,
    rung: BTreeSet<String>,
    /// What this machine can't bring about.
    left_out: BTreeSet<String>,
}

impl Alerts {
    async fn known(prometheus: &Prometheus) -> anyhow::Result<Self> {
        let groups = prometheus.ask("rules", &[]).await?;
        let mut known = Self {
            queries: BTreeMap::new(),
            recorded: Vec::new(),
            rung: BTreeSet::new(),
            left_out: BTreeSet::new(),
        };
        for group in groups["groups"].as_array().context("groups")? {
            for rule in group["rules"].as_array().context("rules")? {
                let query = rule["query"].as_str().context("a query")?.to_owned();
                let name = rule["name"].as_str().context("a name")?.to_owned();
                if rule["type"] == "alerting" {
                    known.queries.insert(name, query);
                } else {
                    known.recorded.push(query);
                }
            }
        }
        let names: BTreeSet<&String> = known.queries.keys().collect();
        assert_eq!(
            names,
            alerts()?.iter().collect(),
            "Prometheus has read every alert"
        );
        Ok(known)
    }

    fn leaves_out(&mut self, alert: &str, why: &str) {
        left_out(format!("that {alert} is true of its fault: {why}"));
        self.left_out.insert(alert.to_owned());
    }

    async fn is_true(&self, alert: &str, prometheus: &Prometheus) -> Result<(), String> {
        let query = self
            .queries
            .get(alert)
            .ok_or_else(|| format!("no alert {alert}"))?;
        let found = prometheus.now(query).await.map_err(|error| error.to_string())?;
        if found.is_empty() {
            return Err(format!("{query} finds nothing"));
        }
        Ok(())
    }

    /// Waits until `alert` is true, and no other that is not in `besides`: what else is wrong at that time.
    async fn rings(&mut self, alert: &str, besides: &[&str], prometheus: &Prometheus) -> anyhow::Result<()> {
        eventually(alert, PATIENCE, async || {
            self.is_true(alert, prometheus).await?;
            let expected = |other: &str| other == alert || besides.contains(&other);
            self.none_but(expected, prometheus).await
        })
        .await?;
        self.rung.insert(alert.to_owned());
        Ok(())
    }

    /// That no alert is true.
    async fn none(&self, prometheus: &Prometheus) -> anyhow::Result<()> {
        let none = async || self.none_but(|_| false, prometheus).await;
        Ok(eventually("no alert", PATIENCE, none).await?)
    }

    async fn none_but(&self, expected: impl Fn(&str) -> bool, prometheus: &Prometheus) -> Result<(), String> {
        for (alert, query) in self.queries.iter().filter(|(alert, _)| !expected(alert)) {
            let found = prometheus.now(query).await.map_err(|error| error.to_string())?;
            if !found.is_empty() {
                return Err(format!("{alert}: {found:?}"));
            }
        }
        Ok(())
    }
}
