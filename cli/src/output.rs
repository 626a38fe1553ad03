//! What commands print: JSON for programs, tables and sentences for people. A closed pipe is no panic.

use std::{fmt::Display, io::Write};

use comfy_table::{ContentArrangement, Table, presets};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use understudy_core::{contract::api::Phase, time::Timestamp};

use crate::failure::Failure;

/// Where a command prints.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    /// JSON, not tables.
    pub(crate) json: bool,
}

impl Output {
    /// Prints an answer of the API: as it is, or as `shown` says. The fields that this version does not know
    /// are in the JSON all the same.
    pub(crate) fn answer<T: DeserializeOwned, D: Display>(
        self,
        answer: Value,
        shown: impl FnOnce(T) -> D,
    ) -> Result<(), Failure> {
        if self.json {
            return self.line(serde_json::to_string_pretty(&answer).unwrap_or_default());
        }
        let typed = serde_json::from_value(answer).map_err(Failure::while_doing(
            "the API's answer can't be read; is it of another version?",
        ))?;
        self.line(shown(typed))
    }

    /// Prints one value: on a line of its own as JSON, or as `shown` says.
    pub(crate) fn item<T: Serialize, D: Display>(
        self,
        item: &T,
        shown: impl FnOnce(&T) -> D,
    ) -> Result<(), Failure> {
        if self.json {
            self.line(serde_json::to_string(item).unwrap_or_default())
        } else {
            self.line(shown(item))
        }
    }

    /// Prints a line, at once.
    pub(crate) fn line(self, line: impl Display) -> Result<(), Failure> {
        let mut out = std::io::stdout().lock();
        writeln!(out, "{line}")?;
        Ok(out.flush()?)
    }

    /// Says that something was done; programs get nothing, as the API gave nothing.
    pub(crate) fn done(self, line: impl Display) -> Result<(), Failure> {
        if self.json { Ok(()) } else { self.line(line) }
    }
}

/// A table without lines, which `awk` and `cut` can read as well; or what to say if it has no row.
pub(crate) fn table<const N: usize>(head: [&str; N], rows: Vec<[String; N]>, none: &str) -> String {
    if rows.is_empty() {
        return none.to_owned();
    }
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(head.map(str::to_uppercase)).add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let text = table.to_string();
    text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

/// The ids of a list, or a dash.
pub(crate) fn list<T: Display>(items: impl IntoIterator<Item = T>) -> String {
    let names: Vec<_> = items.into_iter().map(|item| item.to_string()).collect();
    if names.is_empty() {
        "-".into()
    } else {
        names.join(", ")
    }
}

/// What is there, or a dash.
pub(crate) fn or_dash<T: Display>(item: Option<T>) -> String {
    item.map_or_else(|| "-".into(), |item| item.to_string())
}

/// A value by the name that the API gives it.
pub(crate) fn word<T: Serialize>(value: &T) -> String {
    match serde_json::to_value(value) {
        Ok(Value::String(text)) => text.replace('_', " "),
        Ok(Value::Object(fields)) => fields
            .get("state")
            .and_then(Value::as_str)
            .map_or_else(|| "?".into(), |state| state.replace('_', " ")),
        _ => "?".into(),
    }
}

/// A point in time, in UTC.
pub(crate) fn time(at: Timestamp) -> String {
    jiff::Timestamp::from_millisecond(at.as_millis()).map_or_else(
        |_| "?".into(),
        |at| at.strftime("%Y-%m-%d %H:%M:%S%.3fZ").to_string(),
    )
}

/// A duration in seconds.
pub(crate) fn seconds(millis: u64) -> String {
    format!("{}.{:03} s", millis / 1_000, millis % 1_000)
}

/// A phase in words.
pub(crate) fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Selecting => "seeking a failover server",
        Phase::TakingOver => "taking over",
        Phase::Serving => "serving",
        Phase::Restoring => "handing back",
        Phase::Replacing => "replacing",
        Phase::Completed => "completed",
        Phase::Aborted => "aborted",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_stands_in_columns() {
        let rows = vec![
            ["recorder-1".to_owned(), "90".to_owned()],
            ["r2".to_owned(), "7".to_owned()],
        ];
        let text = table(["server", "cameras"], rows, "none");
        assert_eq!(text, "SERVER      CAMERAS\nrecorder-1  90\nr2          7");
        assert_eq!(table(["server"], Vec::new(), "no server yet"), "no server yet");
    }

    #[test]
    fn times_can_be_read() {
        assert_eq!(seconds(1_042), "1.042 s");
        assert_eq!(time(Timestamp(0)), "1970-01-01 00:00:00.000Z");
    }
}
