//! What can be said of dashboards and rules without any figures. Whether the queries find some is asked by the
//! scenario `dashboards`, of a real Prometheus that has watched a real failover.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use anyhow::{Context, ensure};
use understudy_dashboards::{Panel, alerts, dashboards, explained, folder, rule_files};
use understudy_runtime::testing::left_out;

fn promtool(arguments: &[&Path]) -> anyhow::Result<Output> {
    let words = arguments.iter().map(|argument| argument.as_os_str());
    let output = Command::new("promtool").args(words).output();
    output.context("promtool is not here: `make setup` installs it (Debian's package prometheus)")
}

fn fine(arguments: &[&Path]) -> anyhow::Result<()> {
    let output = promtool(arguments)?;
    ensure!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

fn tests() -> std::path::PathBuf {
    folder().join("prometheus/tests/alerts.yml")
}

#[test]
fn f5_prometheus_takes_the_rules_and_each_fires_and_stays_quiet_as_told() -> anyhow::Result<()> {
    for file in rule_files() {
        fine(&["check".as_ref(), "rules".as_ref(), &file])?;
    }
    fine(&["test".as_ref(), "rules".as_ref(), &tests()])
}

#[test]
fn f5_a_rule_that_is_changed_fails_its_test() -> anyhow::Result<()> {
    let copy = tempfile::tempdir()?;
    fs::create_dir(copy.path().join("tests"))?;
    for file in rule_files().iter().chain([&tests()]) {
        let name = file.strip_prefix(folder().join("prometheus"))?;
        fs::copy(file, copy.path().join(name))?;
    }
    let alerts = copy.path().join("alerts.yml");
    let text = fs::read_to_string(&alerts)?;
    ensure!(
        text.contains("> 2\n"),
        "the threshold of clocks is somewhere else"
    );
    fs::write(&alerts, text.replace("> 2\n", "> 20\n"))?;
    let tests = copy.path().join("tests/alerts.yml");
    let output = promtool(&["test".as_ref(), "rules".as_ref(), &tests])?;
    assert!(!output.status.success(), "{output:?}");
    Ok(())
}

#[test]
fn f5_each_alert_has_a_runbook_and_is_tested_both_ways() -> anyhow::Result<()> {
    let rules = fs::read_to_string(&rule_files()[1])?;
    let tests = fs::read_to_string(tests())?;
    let runbooks = folder().join("../docs/runbooks");
    let index = fs::read_to_string(runbooks.join("README.md"))?;
    let mut linked = BTreeSet::new();
    for link in rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("runbook_url: "))
    {
        let name = link.rsplit('/').next().context("a link")?;
        let runbook = fs::read_to_string(runbooks.join(name)).with_context(|| link.to_owned())?;
        ensure!(
            index.contains(&format!("({name})")),
            "{name} is not in docs/runbooks/README.md"
        );
        for part in ["**It ends**", "**Do"] {
            ensure!(runbook.contains(part), "{name} does not say {part}");
        }
        ensure!(linked.insert(name.to_owned()), "{name} is for two alerts");
    }
    let alerts = alerts()?;
    assert_eq!(linked.len(), alerts.len(), "each alert has a runbook of its own");
    for alert in alerts {
        let healthy = format!("{{ eval_time: 1h, alertname: {alert} }}");
        ensure!(tests.contains(&healthy), "{alert} is not known to stay quiet");
        let fires = format!("alertname: {alert}\n        exp_alerts:");
        ensure!(tests.contains(&fires), "{alert} is not known to fire");
        ensure!(
            index.contains(&format!("`{alert}`")),
            "{alert} is not in docs/runbooks/README.md"
        );
    }
    Ok(())
}

/// Grafana's own types, as `scripts/tools` fetches them; none where they could not be had.
fn schema(files: &[PathBuf]) -> anyhow::Result<Option<Output>> {
    let tools = folder().join("../target/tools/grafana");
    if !tools.join("node_modules/@grafana/schema").exists() || !tools.join("node_modules/typescript").exists()
    {
        left_out(
            "Grafana's own schema: @grafana/schema is not in target/tools (scripts/tools fetches it, with npm)",
        );
        return Ok(None);
    }
    let mut node = Command::new("node");
    node.arg(folder().join("schema/check.mjs")).arg(tools).args(files);
    let output = node.output().context("node is not here, although npm was")?;
    Ok(Some(output))
}

#[test]
fn f5_dashboards_are_what_grafana_s_own_schema_says() -> anyhow::Result<()> {
    let files: Vec<PathBuf> = ["failover", "fleet", "server", "services"]
        .map(|name| folder().join("grafana").join(name).with_extension("json"))
        .to_vec();
    if let Some(output) = schema(&files)? {
        ensure!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}

#[test]
fn f5_a_dashboard_that_grafana_would_not_know_fails_its_schema() -> anyhow::Result<()> {
    let copy = tempfile::tempdir()?;
    let text = fs::read_to_string(folder().join("grafana/fleet.json"))?;
    let mistakes = [
        // A value that there is not, an option of another kind of panel, a field that there is not.
        (r#""showPoints": "never""#, r#""showPoints": "seldom""#, "seldom"),
        (
            r#""colorMode": ""#,
            r#""lineWidth": 3, "colorMode": ""#,
            "lineWidth",
        ),
        (r#""refresh": "10s""#, r#""refreshed": "10s""#, "refreshed"),
    ];
    let mut files = Vec::new();
    for (number, (good, bad, _)) in mistakes.iter().enumerate() {
        ensure!(text.contains(good), "{good} is not in the dashboard any more");
        let file = copy.path().join(format!("mistake-{number}.json"));
        fs::write(&file, text.replacen(good, bad, 1))?;
        files.push(file);
    }
    let Some(output) = schema(&files)? else {
        return Ok(());
    };
    assert!(!output.status.success(), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    for (number, (_, _, named)) in mistakes.iter().enumerate() {
        let of_this = said
            .lines()
            .filter(|line| line.contains(&format!("mistake-{number}.json")));
        ensure!(
            of_this.clone().any(|line| line.contains(named)),
            "{named}: {said}"
        );
    }
    Ok(())
}

/// The names of figures in the sources below a folder: the only texts that begin so.
fn named_in_sources(folder: &Path, names: &mut BTreeSet<String>) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            named_in_sources(&path, names)?;
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            let text = fs::read_to_string(&path)?;
            let texts = text.split('"').filter(|text| text.starts_with("understudy_"));
            let is_part = |char: char| char.is_ascii_lowercase() || char == '_';
            names.extend(texts.filter(|text| text.chars().all(is_part)).map(str::to_owned));
        }
    }
    Ok(())
}

#[test]
fn f5_each_figure_that_a_process_gives_out_is_explained_and_no_other() -> anyhow::Result<()> {
    let mut given_out = BTreeSet::new();
    for part in ["services", "libs"] {
        for package in fs::read_dir(folder().join("..").join(part))? {
            let sources = package?.path().join("src");
            if sources.exists() {
                named_in_sources(&sources, &mut given_out)?;
            }
        }
    }
    assert_eq!(
        given_out,
        explained()?,
        "the sources, and the table of docs/watching.md"
    );
    Ok(())
}

#[test]
fn f5_dashboards_are_laid_out_without_overlap_and_say_what_they_show() -> anyhow::Result<()> {
    let dashboards = dashboards()?;
    let titles: Vec<&str> = dashboards.iter().map(|each| each.title.as_str()).collect();
    let wanted =
        ["Failover", "Fleet", "Server", "Bus and services"].map(|name| format!("Understudy / {name}"));
    assert_eq!(titles, wanted);
    for dashboard in &dashboards {
        let sources = dashboard
            .variables
            .iter()
            .filter(|(_, kind)| kind == "datasource");
        assert_eq!(sources.count(), 1, "{}: one data source", dashboard.title);
        let has = |name: &str| dashboard.variables.iter().any(|(known, _)| known == name);
        for name in ["domain", "server"] {
            ensure!(has(name), "{}: no variable {name}", dashboard.title);
            let used = |panel: &Panel| {
                panel
                    .queries
                    .iter()
                    .any(|query| query.contains(&format!("${name}")))
            };
            ensure!(
                dashboard.panels.iter().any(used),
                "{}: {name} filters nothing",
                dashboard.title
            );
        }
        let servers = dashboard.json["templating"]["list"]
            .as_array()
            .and_then(|list| list.iter().find(|each| each["name"] == "server"))
            .context("the variable server")?;
        let asks = servers["query"]["query"].as_str().unwrap_or_default();
        ensure!(
            asks.contains("$domain"),
            "{}: servers of other domains too",
            dashboard.title
        );
        assert_eq!(
            (&servers["multi"], &servers["includeAll"]),
            (&true.into(), &true.into())
        );
        let mut ids = BTreeSet::new();
        for panel in &dashboard.panels {
            ensure!(ids.insert(panel.id), "{}: {} twice", dashboard.title, panel.id);
            well_made(panel).with_context(|| format!("{}: {}", dashboard.title, panel.title))?;
        }
        for (number, panel) in dashboard.panels.iter().enumerate() {
            for other in &dashboard.panels[number + 1..] {
                let apart = !panel.place.overlaps(&other.place);
                ensure!(
                    apart,
                    "{}: {} lies on {}",
                    dashboard.title,
                    panel.title,
                    other.title
                );
            }
        }
    }
    Ok(())
}

fn well_made(panel: &Panel) -> anyhow::Result<()> {
    ensure!(panel.place.width > 0 && panel.place.height > 0, "it has no size");
    ensure!(panel.place.x + panel.place.width <= 24, "wider than the page");
    if panel.kind == "row" {
        return Ok(());
    }
    ensure!(!panel.queries.is_empty(), "it asks nothing");
    let said = |part: &serde_json::Value| part.as_str().is_some_and(|text| !text.is_empty());
    ensure!(said(&panel.json["description"]), "no description");
    ensure!(said(&panel.json["fieldConfig"]["defaults"]["unit"]), "no unit");
    let mut sources = vec![&panel.json["datasource"]];
    if let Some(targets) = panel.json["targets"].as_array() {
        sources.extend(targets.iter().map(|target| &target["datasource"]));
    }
    for source in sources {
        ensure!(
            source["uid"] == "${datasource}",
            "asks {source}, not the chosen data source"
        );
    }
    Ok(())
}
