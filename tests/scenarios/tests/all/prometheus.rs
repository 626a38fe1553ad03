//! A real Prometheus beside a fleet, and what the dashboards ask it.

use std::{
    collections::BTreeSet,
    fmt::{self, Write as _},
    path::Path,
    process::{Child, Command, Stdio},
};

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use understudy_core::time::Timestamp;
use understudy_dashboards::{Panel, chosen, dashboards, figures, filled, rule_files};
use understudy_demo::rig::eventually;
use understudy_runtime::clock;
use understudy_scenarios::{Fleet, PATIENCE};

/// What is chosen in the dashboards' variables; an empty list stands for *All*.
pub(crate) struct Choice<'a> {
    pub(crate) domains: &'a [&'a str],
    pub(crate) servers: &'a [&'a str],
    /// Figures that there need not be for these servers.
    pub(crate) without: &'a [&'a str],
}

/// What people see who choose nothing.
pub(crate) const ALL: Choice<'_> = Choice {
    domains: &[],
    servers: &[],
    without: &[],
};

impl Choice<'_> {
    /// Whether a series is of what is chosen, or of no server.
    fn covers(&self, labels: &Value) -> bool {
        let server = labels["server"].as_str().unwrap_or_default();
        self.servers.is_empty() || server.is_empty() || self.servers.contains(&server)
    }
}

impl fmt::Display for Choice<'_> {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let said = |values: &[&str]| match values {
            [] => "all".to_owned(),
            values => values.join(" and "),
        };
        write!(to, "domain {}, server {}", said(self.domains), said(self.servers))
    }
}

/// A real Prometheus that scrapes each process of a fleet, twice a second.
pub(crate) struct Prometheus {
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
    pub(crate) async fn watch(fleet: &mut Fleet, folder: &Path) -> anyhow::Result<Self> {
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

    pub(crate) async fn ask(&self, path: &str, query: &[(&str, String)]) -> anyhow::Result<Value> {
        let asked = reqwest::Client::new()
            .get(format!("{}/{path}", self.url))
            .query(query);
        let mut answer: Value = asked.send().await?.json().await?;
        ensure!(answer["status"] == "success", "{query:?}: {answer}");
        Ok(answer["data"].take())
    }

    /// What a query finds now, without what is no number.
    pub(crate) async fn now(&self, query: &str) -> anyhow::Result<Vec<Value>> {
        let found = self.ask("query", &[("query", query.to_owned())]).await?;
        let found = found["result"].as_array().context("no result")?;
        let is_number = |each: &&Value| each["value"][1] != "NaN";
        Ok(found.iter().filter(is_number).cloned().collect())
    }

    async fn range(&self, query: &str) -> anyhow::Result<Value> {
        let seconds = |time: Timestamp| (time.as_millis() as f64 / 1000.0).to_string();
        let asked = [
            ("query", query.to_owned()),
            ("start", seconds(self.since)),
            ("end", seconds(clock::wall())),
            ("step", "1".to_owned()),
        ];
        self.ask("query_range", &asked).await
    }

    /// What a query finds of the time since the start, without what has no number in it.
    async fn since_start(&self, query: &str) -> anyhow::Result<Vec<Value>> {
        let found = self.range(query).await?;
        let found = found["result"].as_array().context("no result")?;
        let has_numbers = |each: &&Value| {
            let values = each["values"].as_array();
            values.is_some_and(|values| values.iter().any(|value| value[1] != "NaN"))
        };
        Ok(found.iter().filter(has_numbers).cloned().collect())
    }

    pub(crate) async fn names(&self) -> anyhow::Result<BTreeSet<String>> {
        let names = self.ask("label/__name__/values", &[]).await?;
        let names = names.as_array().context("no names")?;
        Ok(names
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect())
    }

    /// Asks everything that the dashboards ask, for each choice of their variables.
    pub(crate) async fn fills_every_panel(&self, choices: &[Choice<'_>]) -> Result<(), String> {
        let mut wrong = String::new();
        for choice in choices {
            wrong += &self
                .wrong_panels(choice)
                .await
                .map_err(|error| error.to_string())?;
        }
        if wrong.is_empty() {
            return Ok(());
        }
        Err(format!("panels without data, or with another server's:\n{wrong}"))
    }

    /// How many series there would be for 1,000 servers in ten domains, by those of this fleet: what its servers give
    /// out and what the host says of each grows with the servers, the rest of the host's with the domains.
    pub(crate) async fn is_carried_for_a_thousand_servers(&self, servers: usize) -> anyhow::Result<()> {
        let host = r#"job="understudy", service=~"orchestrator|monitor|license|console|notifier""#;
        let count = async |selector: String| -> anyhow::Result<f64> {
            let found = self.now(&format!("count({{{selector}}})")).await?;
            let number = found.first().context("no series")?["value"][1].as_str();
            Ok(number.context("no number")?.parse()?)
        };
        let own =
            count(r#"job="understudy", service=~"agent|ingest|sync""#.to_owned()).await? / servers as f64;
        let of_host = count(format!(r#"{host}, server!="""#)).await? / servers as f64;
        let recorded = count(r#"__name__=~".+:.+""#.to_owned()).await?;
        let domain = count(format!(r#"{host}, server="", domain!="""#)).await? + recorded;
        let rest = count(format!(r#"{host}, server="", domain="""#)).await?;
        let all = 1000.0 * (own + of_host) + 10.0 * domain + rest;
        eprintln!(
            "series: {own} of a server's own processes and {of_host} of the host's for it, {domain} for a domain, \
             {rest} of the host's processes: {all} for 1,000 servers in ten domains"
        );
        ensure!(all < 100_000.0, "{all} series for 1,000 servers");
        Ok(())
    }

    /// The dashboards' variables, and Grafana's own for the time since the start.
    fn variables(&self, choice: &Choice<'_>) -> Vec<(&'static str, String)> {
        let range = format!("{}ms", clock::wall().as_millis() - self.since.as_millis());
        vec![
            ("domain", chosen(choice.domains)),
            ("server", chosen(choice.servers)),
            ("objective", "0.999".to_owned()),
            ("__range", range),
            ("__rate_interval", "4s".to_owned()),
        ]
    }

    async fn wrong_panels(&self, choice: &Choice<'_>) -> anyhow::Result<String> {
        let of_nobody = self.since_start("understudy_no_such_figure").await?;
        ensure!(of_nobody.is_empty(), "{of_nobody:?}");
        let known = self.names().await?;
        let mut wrong = String::new();
        for dashboard in dashboards()? {
            for panel in &dashboard.panels {
                for query in &panel.queries {
                    if let Some(why) = self.is_wrong(panel, query, choice, &known).await? {
                        let _ = writeln!(wrong, "{}, {}, of {choice}: {why}", dashboard.title, panel.title);
                    }
                }
            }
        }
        Ok(wrong)
    }

    /// What is wrong with a query's answer, if anything.
    async fn is_wrong(
        &self,
        panel: &Panel,
        query: &str,
        choice: &Choice<'_>,
        known: &BTreeSet<String>,
    ) -> anyhow::Result<Option<String>> {
        let named = figures(query);
        let asked = filled(query, &self.variables(choice))?;
        let found = self.found(panel, &asked).await?;
        let stray = found
            .iter()
            .map(|series| &series["metric"])
            .find(|labels| query.contains("$server") && !choice.covers(labels));
        let may_be_empty = choice.without.iter().any(|figure| named.contains(*figure));
        Ok(if let Some(missing) = named.difference(known).next() {
            Some(format!("{asked} names {missing}, which nobody gives out"))
        } else if found.is_empty() && !may_be_empty {
            Some(format!("{asked} finds nothing"))
        } else {
            stray.map(|labels| format!("{asked} finds {labels}"))
        })
    }

    /// As Grafana would ask: some panels show the last moment only.
    async fn found(&self, panel: &Panel, query: &str) -> anyhow::Result<Vec<Value>> {
        if is_instant(panel) {
            return self.now(query).await;
        }
        self.since_start(query).await
    }

    /// The answers to everything that the dashboards ask, for `dashboards/draw`.
    pub(crate) async fn answers(&self) -> anyhow::Result<Value> {
        let until = clock::wall();
        let mut panels = Vec::new();
        for dashboard in dashboards()? {
            for panel in &dashboard.panels {
                let mut answers = Vec::new();
                for query in &panel.queries {
                    let query = filled(query, &self.variables(&ALL))?;
                    answers.push(match is_instant(panel) {
                        true => self.ask("query", &[("query", query)]).await?,
                        false => self.range(&query).await?,
                    });
                }
                panels.push(json!({ "dashboard": dashboard.uid, "panel": panel.id, "answers": answers }));
            }
        }
        Ok(json!({ "from": self.since.as_millis(), "to": until.as_millis(), "panels": panels }))
    }
}

fn is_instant(panel: &Panel) -> bool {
    panel.json["targets"][0]["instant"] == true
}

/// A process that is scraped, with the labels that the dashboards know it by.
struct Target {
    address: String,
    service: String,
    server: Option<String>,
}

fn targets(fleet: &mut Fleet) -> Vec<Target> {
    let of = |process: &understudy_demo::process::Process, server: Option<&str>| Target {
        address: process.health().to_string(),
        service: process.name().split('@').next().unwrap_or_default().to_owned(),
        server: server.map(str::to_owned),
    };
    let mut targets: Vec<_> = fleet
        .rig
        .host
        .processes()
        .iter()
        .map(|each| of(each, None))
        .collect();
    for server in &fleet.rig.servers {
        let id = Some(server.plan.id.as_str());
        targets.extend([&server.agent, &server.ingest, &server.sync].map(|each| of(each, id)));
    }
    targets
}

fn configuration(targets: &[Target]) -> String {
    let rules = rule_files()
        .map(|file| format!("{:?}", file.display().to_string()))
        .join(", ");
    let mut text = format!(
        "global: {{ scrape_interval: 500ms, scrape_timeout: 500ms, evaluation_interval: 500ms }}\n\
         rule_files: [{rules}]\nscrape_configs:\n  - job_name: understudy\n    honor_labels: true\n    \
         static_configs:\n"
    );
    for Target {
        address,
        service,
        server,
    } in targets
    {
        let server = server
            .as_ref()
            .map_or_else(String::new, |id| format!(", server: {id}"));
        let _ = writeln!(
            text,
            "      - {{ targets: [\"{address}\"], labels: {{ service: {service}{server} }} }}"
        );
    }
    text
}
