//! What people look at, and what wakes them: Grafana dashboards (`grafana/`) and Prometheus rules (`prometheus/`)
//! as files, and just enough code to read them, so that tests can hold them against real figures.
//!
//! It judges nothing: the rules are Prometheus' own to run, and the figures are the services' own.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail, ensure};
use serde_json::Value;

/// A dashboard.
#[derive(Clone, Debug)]
pub struct Dashboard {
    /// As people see it.
    pub title: String,
    /// By which links find it.
    pub uid: String,
    /// The names and types of its variables.
    pub variables: Vec<(String, String)>,
    /// Its panels, rows included.
    pub panels: Vec<Panel>,
    /// The file as it is.
    pub json: Value,
}

/// A panel of a dashboard.
#[derive(Clone, Debug)]
pub struct Panel {
    /// Unique within its dashboard.
    pub id: u64,
    /// As people see it.
    pub title: String,
    /// Grafana's type of it, e.g. `timeseries`; `row` is a heading.
    pub kind: String,
    /// Where it is, in columns of 24 and rows.
    pub place: Place,
    /// What it asks Prometheus, with its variables.
    pub queries: Vec<String>,
    /// The file's part as it is.
    pub json: Value,
}

/// Where a panel is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// From the left.
    pub x: u64,
    /// From the top.
    pub y: u64,
    /// Its width.
    pub width: u64,
    /// Its height.
    pub height: u64,
}

impl Place {
    /// Whether both cover a cell.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.x < other.x + other.width
            && other.x < self.x + self.width
            && self.y < other.y + other.height
            && other.y < self.y + self.height
    }
}

/// Where dashboards and rules lie.
#[must_use]
pub fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The files of rules.
#[must_use]
pub fn rule_files() -> [PathBuf; 2] {
    ["recording.yml", "alerts.yml"].map(|name| folder().join("prometheus").join(name))
}

/// Every dashboard, by file name.
///
/// # Errors
/// Names the file that is none.
pub fn dashboards() -> anyhow::Result<Vec<Dashboard>> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder().join("grafana"))
        .context("dashboards/grafana")?
        .map(|entry| Ok(entry?.path()))
        .collect::<anyhow::Result<_>>()?;
    files.sort();
    files.retain(|file| file.extension().is_some_and(|ending| ending == "json"));
    files
        .iter()
        .map(|file| read(file).with_context(|| file.display().to_string()))
        .collect()
}

fn read(file: &Path) -> anyhow::Result<Dashboard> {
    let json: Value = serde_json::from_str(&fs::read_to_string(file)?)?;
    let variables = list(&json["templating"]["list"])?
        .iter()
        .map(|variable| Ok((text(&variable["name"])?, text(&variable["type"])?)))
        .collect::<anyhow::Result<_>>()?;
    let panels = list(&json["panels"])?
        .iter()
        .map(panel)
        .collect::<anyhow::Result<_>>()?;
    Ok(Dashboard {
        title: text(&json["title"])?,
        uid: text(&json["uid"])?,
        variables,
        panels,
        json,
    })
}

fn panel(json: &Value) -> anyhow::Result<Panel> {
    let title = text(&json["title"])?;
    let place = &json["gridPos"];
    let number = |value: &Value| {
        value
            .as_u64()
            .with_context(|| format!("{title}: {value} is no number"))
    };
    let queries = match &json["targets"] {
        Value::Null => Vec::new(),
        targets => list(targets)?
            .iter()
            .map(|target| text(&target["expr"]))
            .collect::<anyhow::Result<_>>()?,
    };
    Ok(Panel {
        id: number(&json["id"])?,
        kind: text(&json["type"])?,
        place: Place {
            x: number(&place["x"])?,
            y: number(&place["y"])?,
            width: number(&place["w"])?,
            height: number(&place["h"])?,
        },
        queries,
        json: json.clone(),
        title,
    })
}

fn list(value: &Value) -> anyhow::Result<&Vec<Value>> {
    value.as_array().with_context(|| format!("{value} is no list"))
}

fn text(value: &Value) -> anyhow::Result<String> {
    let text = value.as_str().with_context(|| format!("{value} is no text"))?;
    Ok(text.to_owned())
}

/// A query with its variables filled in, as Grafana would before it asks.
///
/// # Errors
/// Names a variable that has no value.
pub fn filled<T: AsRef<str>>(query: &str, values: &[(&str, T)]) -> anyhow::Result<String> {
    // The longest first, since Grafana's own begin like one another.
    let mut values: Vec<_> = values
        .iter()
        .map(|(name, value)| (*name, value.as_ref()))
        .collect();
    values.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
    let mut query = query.to_owned();
    for (name, value) in values {
        query = query.replace(&format!("${{{name}}}"), value);
        query = query.replace(&format!("${name}"), value);
    }
    if let Some(at) = query.find('$') {
        bail!("a variable without a value: {}", &query[at..]);
    }
    Ok(query)
}

/// What Grafana puts in for a variable of which several values can be chosen. Choosing none stands for all of them.
#[must_use]
pub fn chosen(values: &[&str]) -> String {
    // A regular expression within a text of PromQL: both take backslashes away.
    let plain = |value: &&str| -> String {
        let one = |char: char| match char {
            '\\' => r"\\\\".to_owned(),
            '$' | '^' | '*' | '{' | '}' | '[' | ']' | '\'' | '+' | '?' | '.' | '(' | ')' | '|' => {
                format!(r"\\{char}")
            }
            char => char.to_string(),
        };
        value.chars().map(one).collect()
    };
    match values {
        [] => ".*".to_owned(),
        [value] => plain(value),
        several => format!("({})", several.iter().map(plain).collect::<Vec<_>>().join("|")),
    }
}

/// The figures of Understudy that a query names, recorded ones included.
#[must_use]
pub fn figures(query: &str) -> BTreeSet<String> {
    let is_part = |char: char| char.is_ascii_alphanumeric() || char == '_' || char == ':';
    query
        .split(|char| !is_part(char))
        .filter(|word| word.starts_with("understudy_") || word.contains(":understudy_"))
        .map(str::to_owned)
        .collect()
}

/// The figures that `docs/watching.md` explains to people.
///
/// # Errors
/// If it can't be read, or has no table of them.
pub fn explained() -> anyhow::Result<BTreeSet<String>> {
    let file = folder().join("../docs/watching.md");
    let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    let (_, table) = text
        .split_once("\n## Figures\n")
        .context("watching.md has no figures")?;
    let rows = table.lines().skip_while(|line| !line.starts_with('|'));
    let names: BTreeSet<String> = rows
        .take_while(|line| line.starts_with('|'))
        .filter_map(|line| line.split('|').nth(1))
        .flat_map(figures)
        .collect();
    ensure!(!names.is_empty(), "watching.md explains no figure");
    Ok(names)
}

/// The names of the alerts.
///
/// # Errors
/// If their file can't be read, or has none.
pub fn alerts() -> anyhow::Result<Vec<String>> {
    let [_, file] = rule_files();
    let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    let names: Vec<String> = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "))
        .map(str::to_owned)
        .collect();
    ensure!(!names.is_empty(), "{} has no alerts", file.display());
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_filled_in_and_a_forgotten_one_is_named() {
        let query = r#"rate(a{domain=~"$domain"}[$__range]) / $__range_s"#;
        let values = [("domain", "east"), ("__range", "60s"), ("__range_s", "60")];
        let whole = filled(query, &values).expect("all are known");
        assert_eq!(whole, r#"rate(a{domain=~"east"}[60s]) / 60"#);
        let forgotten = filled("a{server=~\"$server\"}", &values).expect_err("one is not known");
        assert!(forgotten.to_string().contains("$server"), "{forgotten}");
    }

    #[test]
    fn what_is_chosen_is_put_in_as_grafana_does() {
        assert_eq!(chosen(&[]), ".*");
        assert_eq!(chosen(&["recorder-1"]), "recorder-1");
        assert_eq!(chosen(&["gate.east"]), r"gate\\.east");
        assert_eq!(chosen(&["a", "b.c"]), r"(a|b\\.c)");
    }

    #[test]
    fn figures_are_told_from_labels_and_functions() {
        let query =
            r#"sum by (domain) (rate(understudy_a_total{job="understudy"}[1m])) / domain:understudy_b:sum"#;
        let named: Vec<String> = figures(query).into_iter().collect();
        assert_eq!(named, ["domain:understudy_b:sum", "understudy_a_total"]);
    }
}
