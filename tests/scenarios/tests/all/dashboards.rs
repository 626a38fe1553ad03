//! What a control room sees: a real Prometheus watches a real failover. Each panel of each dashboard has data of
//! it, and each alert is true of its fault and of nothing else.
//!
//! Alerts are asked for by their expressions, so that nobody waits for as long as they do (`for`); that part is
//! promtool's, in `dashboards/prometheus/tests`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    path::Path,
    process::{Child, Command, Stdio},
};

use anyhow::{Context, ensure};
use serde_json::Value;
use understudy_bus::{Bus, Message};
use understudy_core::{
    contract::{
        api::Phase,
        heartbeat::{Heartbeat, Package, Storage, StorageState},
    },
    ids::{DomainId, ServerId},
    time::Timestamp,
};
use understudy_dashboards::{Panel, alerts, dashboards, figures, filled, rule_files};
use understudy_demo::rig::{Plan, ServerPlan, eventually};
use understudy_runtime::{Process, clock};
use understudy_scenarios::{Fleet, PATIENCE, plan};

use crate::overlay::told;

#[tokio::test]
async fn f5_a1_each_panel_has_data_of_a_failover_and_each_alert_is_true_of_its_fault() -> anyhow::Result<()> {
    // Given: a fleet that is well, and a Prometheus that finds nothing to say.
    let mut servers = plan().servers;
    servers.insert(1, ServerPlan::recording("recorder-2", "South gate", 10));
    let mut fleet = Fleet::filming(Plan { servers, ..plan() }).await?;
    let folder = tempfile::tempdir()?;
    let prometheus = Prometheus::watch(&mut fleet, folder.path()).await?;
    let mut alerts = Alerts::known(&prometheus).await?;
    eventually("no alert", PATIENCE, async || alerts.none(&prometheus).await).await?;

    let faults = Process::for_test("faults");
    let bus = Bus::start(&fleet.rig.broker.config(), "faults", &faults)?;

    // When something goes wrong, the alert that is for it is true:
    told(&fleet, &["license", "remove", "demo-key"]).await?;
    alerts.rings("UnderstudyLicenceShortage", &prometheus).await?;
    fleet.rig.add_license("recorder-1", "another-key", 4).await?;
    fleet.rig.simulator_process.kill();
    alerts.rings("UnderstudyCamerasLost", &prometheus).await?;
    fleet.rig.simulator_process.start()?;
    fleet.films("recorder-1", 4).await?;
    eventually("no alert any more", PATIENCE, async || {
        alerts.none(&prometheus).await
    })
    .await?;

    fleet.rig.server("recorder-1").kill();
    fleet.phase("recorder-1", Phase::Serving).await?;
    alerts.rings("UnderstudyFailoverActive", &prometheus).await?;
    fleet.rig.server("failover-2").kill();
    alerts.rings("UnderstudyServerUnprotected", &prometheus).await?;
    alerts
        .rings("UnderstudyDomainWithoutFailoverServer", &prometheus)
        .await?;
    fleet.rig.server("recorder-2").kill();
    alerts.rings("UnderstudyServerDown", &prometheus).await?;
    for server in ["failover-2", "recorder-2"] {
        fleet.rig.server(server).start()?;
    }
    failback(&mut fleet, &mut alerts, &prometheus).await?;

    // what no test can do to a machine, or does elsewhere (`volumes.rs`), is said in an agent's name;
    eventually("a sick server to be seen", PATIENCE, async || {
        let beat = Message::heartbeat(&sick());
        bus.publish(beat).await.map_err(|error| error.to_string())?;
        alerts.is_true("UnderstudyClockSkew", &prometheus).await?;
        alerts.is_true("UnderstudyStorageDegraded", &prometheus).await
    })
    .await?;
    alerts
        .rung
        .extend(["UnderstudyClockSkew", "UnderstudyStorageDegraded"].map(str::to_owned));
    let mut garbage = Message::heartbeat(&sick());
    garbage.body = "{}".into();
    bus.publish(garbage).await?;
    alerts.rings("UnderstudyDeadLetters", &prometheus).await?;

    // Then every panel has data of it, and no query and no rule names a figure that nobody gives out.
    eventually("every panel to have data", PATIENCE, async || {
        prometheus.fills_every_panel().await
    })
    .await?;
    let known = prometheus.names().await?;
    for query in alerts.queries.values().chain(&alerts.recorded) {
        ensure!(
            figures(query).is_subset(&known),
            "{query} names a figure that there is not"
        );
    }

    // The host's own faults, last.
    fleet.rig.broker.kill();
    for server in &mut fleet.rig.servers {
        server.agent.kill();
    }
    alerts.rings("UnderstudyHostBlind", &prometheus).await?;
    fleet.rig.host.orchestrator.kill();
    alerts.rings("UnderstudyHostAway", &prometheus).await?;
    assert_eq!(
        alerts.rung,
        understudy_dashboards::alerts()?
            .into_iter()
            .collect::<BTreeSet<_>>()
    );
    faults.finish().await;
    fleet.rig.stop().await;
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
    alerts.rings("UnderstudyFailbackStalled", prometheus).await?;
    fleet.rig.server("recorder-1").sync.start()?;
    fleet.phase("recorder-1", Phase::Completed).await?;
    Ok(())
}

/// A beat of a server whose clock is a minute ahead and whose volume has lost a disk.
fn sick() -> Heartbeat {
    let millis = clock::wall().as_millis();
    Heartbeat {
        server: ServerId::new("recorder-9").expect("an id"),
        domain: DomainId::new("demo").expect("an id"),
        sequence: u64::try_from(millis).unwrap_or(0),
        sent_at: Timestamp(millis + 60_000),
        interval_ms: 500,
        package: Package::default(),
        storage: Storage {
            state: StorageState::Degraded,
            full: false,
            evidence: "a disk is missing".to_owned(),
        },
        farewell: None,
        started: None,
    }
}

/// The alerts, as Prometheus has read them.
struct Alerts {
    queries: BTreeMap<String, String>,
    recorded: Vec<String>,
    rung: BTreeSet<String>,
}

impl Alerts {
    async fn known(prometheus: &Prometheus) -> anyhow::Result<Self> {
        let groups = prometheus.ask("rules", &[]).await?;
        let mut known = Self {
            queries: BTreeMap::new(),
            recorded: Vec::new(),
            rung: BTreeSet::new(),
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

    async fn rings(&mut self, alert: &str, prometheus: &Prometheus) -> anyhow::Result<()> {
        eventually(alert, PATIENCE, async || self.is_true(alert, prometheus).await).await?;
        self.rung.insert(alert.to_owned());
        Ok(())
    }

    async fn none(&self, prometheus: &Prometheus) -> Result<(), String> {
        for (alert, query) in &self.queries {
            let found = prometheus.now(query).await.map_err(|error| error.to_string())?;
            if !found.is_empty() {
                return Err(format!("{alert}: {found:?}"));
            }
        }
        Ok(())
    }
}

/// A real Prometheus that scrapes each process of a fleet, twice a second.
struct Prometheus {
    child: Child,
    url: String,
    since: Timestamp,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Prometheus {
    /// Starts it, and waits until it has figures of every process, and of every rule.
    async fn watch(fleet: &mut Fleet, folder: &Path) -> anyhow::Result<Self> {
        let processes = targets(fleet);
        std::fs::write(folder.join("prometheus.yml"), configuration(&processes))?;
        let address = understudy_demo::ports::one()?;
        let log = std::fs::File::create(folder.join("log"))?;
        let child = Command::new("prometheus")
            .arg(format!(
                "--config.file={}",
                folder.join("prometheus.yml").display()
            ))
            .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("prometheus is not here: `make setup` installs it (Debian's package)")?;
        let prometheus = Self {
            child,
            url: format!("http://{address}/api/v1"),
            since: clock::wall(),
        };
        eventually("Prometheus to scrape every process", PATIENCE, async || {
            let up = prometheus
                .now("up == 1")
                .await
                .map_err(|error| error.to_string())?;
            let free = prometheus
                .now("domain:understudy_failover_servers_free:sum > 0")
                .await;
            match free {
                Ok(free) if up.len() == processes.len() && !free.is_empty() => Ok(()),
                other => Err(format!("{} of {} are up; {other:?}", up.len(), processes.len())),
            }
        })
        .await
        .with_context(|| std::fs::read_to_string(folder.join("log")).unwrap_or_default())?;
        Ok(prometheus)
    }

    async fn ask(&self, path: &str, query: &[(&str, String)]) -> anyhow::Result<Value> {
        let asked = reqwest::Client::new()
            .get(format!("{}/{path}", self.url))
            .query(query);
        let mut answer: Value = asked.send().await?.json().await?;
        ensure!(answer["status"] == "success", "{query:?}: {answer}");
        Ok(answer["data"].take())
    }

    /// What a query finds now, without what is no number.
    async fn now(&self, query: &str) -> anyhow::Result<Vec<Value>> {
        let found = self.ask("query", &[("query", query.to_owned())]).await?;
        let found = found["result"].as_array().context("no result")?;
        let is_number = |each: &&Value| each["value"][1] != "NaN";
        Ok(found.iter().filter(is_number).cloned().collect())
    }

    /// How many numbers a query finds of the time since the start.
    async fn since_start(&self, query: &str) -> anyhow::Result<usize> {
        let seconds = |time: Timestamp| (time.as_millis() as f64 / 1000.0).to_string();
        let asked = [
            ("query", query.to_owned()),
            ("start", seconds(self.since)),
            ("end", seconds(clock::wall())),
            ("step", "1".to_owned()),
        ];
        let found = self.ask("query_range", &asked).await?;
        let series = found["result"].as_array().context("no result")?;
        let values = series
            .iter()
            .filter_map(|each| each["values"].as_array())
            .flatten();
        Ok(values.filter(|value| value[1] != "NaN").count())
    }

    async fn names(&self) -> anyhow::Result<BTreeSet<String>> {
        let names = self.ask("label/__name__/values", &[]).await?;
        let names = names.as_array().context("no names")?;
        Ok(names
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect())
    }

    /// Asks everything that the dashboards ask, with their variables filled in.
    async fn fills_every_panel(&self) -> Result<(), String> {
        let empty = self.empty_panels().await.map_err(|error| error.to_string())?;
        if empty.is_empty() {
            return Ok(());
        }
        Err(format!("panels without data:\n{empty}"))
    }

    async fn empty_panels(&self) -> anyhow::Result<String> {
        assert_eq!(self.since_start("understudy_no_such_figure").await?, 0);
        let range = format!("{}ms", clock::wall().as_millis() - self.since.as_millis());
        let values = [
            ("domain", ".*"),
            ("server", ".*"),
            ("objective", "0.999"),
            ("__range", &range),
            ("__rate_interval", "4s"),
        ];
        let known = self.names().await?;
        let mut empty = String::new();
        for dashboard in dashboards()? {
            for panel in &dashboard.panels {
                for query in &panel.queries {
                    let missing: Vec<_> = figures(query).difference(&known).cloned().collect();
                    let query = filled(query, &values)?;
                    if self.numbers(panel, &query).await? == 0 || !missing.is_empty() {
                        let _ = writeln!(empty, "{}, {}: {query} {missing:?}", dashboard.title, panel.title);
                    }
                }
            }
        }
        Ok(empty)
    }

    /// As Grafana would ask: some panels show the last moment only.
    async fn numbers(&self, panel: &Panel, query: &str) -> anyhow::Result<usize> {
        if panel.json["targets"][0]["instant"] == true {
            return Ok(self.now(query).await?.len());
        }
        self.since_start(query).await
    }
}

/// Each process's service and health address.
fn targets(fleet: &mut Fleet) -> Vec<(String, String)> {
    let of = |process: &understudy_demo::process::Process| {
        let service = process.name().split('@').next().unwrap_or_default().to_owned();
        (service, process.health().to_string())
    };
    let mut targets: Vec<_> = fleet.rig.host.processes().iter().map(|each| of(each)).collect();
    for server in &fleet.rig.servers {
        targets.extend([&server.agent, &server.ingest, &server.sync].map(of));
    }
    targets
}

fn configuration(targets: &[(String, String)]) -> String {
    let rules = rule_files()
        .map(|file| format!("{:?}", file.display().to_string()))
        .join(", ");
    let mut text = format!(
        "global: {{ scrape_interval: 500ms, scrape_timeout: 500ms, evaluation_interval: 500ms }}\n\
         rule_files: [{rules}]\nscrape_configs:\n  - job_name: understudy\n    static_configs:\n"
    );
    for (service, address) in targets {
        let _ = writeln!(
            text,
            "      - {{ targets: [\"{address}\"], labels: {{ service: {service} }} }}"
        );
    }
    text
}
