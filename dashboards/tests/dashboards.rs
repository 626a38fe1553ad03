//! What can be said of dashboards and rules without any figures. Whether the queries find some is asked by the
//! scenario `dashboards`, of a real Prometheus that has watched a real failover.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    process::{Command, Output},
};

use anyhow::{Context, ensure};
use understudy_dashboards::{Panel, alerts, dashboards, folder, rule_files};

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
        ensure!(has("domain"), "{}: no variable domain", dashboard.title);
        let of_one_server = dashboard.title.ends_with("Failover") || dashboard.title.ends_with("Server");
        assert_eq!(
            has("server"),
            of_one_server,
            "{}: variable server",
            dashboard.title
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
