//! The table in `docs/requirements.md`: each promise, and how far it is kept. Reads text, and nothing else.

use anyhow::{Context as _, bail, ensure};

/// How far a row is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// Nothing of it yet.
    Open,
    /// Some of it; what is missing.
    Partial(String),
    /// Every sentence of it.
    Whole,
}

/// One promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    /// Its number, e.g. `A5`.
    pub(crate) id: String,
    /// What it promises, in short.
    pub(crate) promise: String,
    /// How far it is kept.
    pub(crate) status: Status,
}

/// Whether `text` is the number of a row: a letter from A to K and one or two digits.
pub(crate) fn is_row(text: &str) -> bool {
    let mut letters = text.chars();
    let digits = text.get(1..).unwrap_or_default();
    letters.next().is_some_and(|letter| ('A'..='K').contains(&letter))
        && (1..=2).contains(&digits.len())
        && !digits.starts_with('0')
        && digits.chars().all(|digit| digit.is_ascii_digit())
}

/// The rows of the table, in its order.
///
/// # Errors
/// With the line that is no row of three cells, names a row twice or has an unknown status.
pub(crate) fn parse(text: &str) -> anyhow::Result<Vec<Row>> {
    let mut rows: Vec<Row> = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let Some(inner) = line.trim().strip_prefix('|') else {
            continue;
        };
        let cells: Vec<&str> = inner.trim_end_matches('|').split('|').map(str::trim).collect();
        if !cells.first().is_some_and(|id| is_row(id)) {
            continue;
        }
        let [id, promise, status] = cells[..] else {
            bail!("line {number}: a row has three cells, its number, its promise and its status: {line}");
        };
        ensure!(
            rows.iter().all(|known| known.id != id),
            "line {number}: {id} is there twice"
        );
        rows.push(Row {
            id: id.to_owned(),
            promise: promise.to_owned(),
            status: status_of(status).with_context(|| format!("line {number}"))?,
        });
    }
    ensure!(!rows.is_empty(), "no row in it");
    Ok(rows)
}

fn status_of(cell: &str) -> anyhow::Result<Status> {
    match (cell, cell.strip_prefix("partial:").map(str::trim)) {
        ("open", _) => Ok(Status::Open),
        ("whole", _) => Ok(Status::Whole),
        (_, Some(missing)) if !missing.is_empty() => Ok(Status::Partial(missing.to_owned())),
        _ => bail!("{cell:?} is no status: open, whole, or `partial: ` and what is missing"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_and_other_tables_and_text_passed_over() {
        let text = "# Title\n\n| row | promise | status |\n| --- | --- | --- |\n\
                    | A1 | One host. | open |\n| K10 | Swap. | partial: the disk |\ntext\n| B2 | Found. | whole |\n";
        let rows = parse(text).expect("a table");
        let read: Vec<_> = rows.iter().map(|row| (row.id.as_str(), &row.status)).collect();
        assert_eq!(
            read,
            [
                ("A1", &Status::Open),
                ("K10", &Status::Partial("the disk".to_owned())),
                ("B2", &Status::Whole)
            ]
        );
    }

    #[test]
    fn what_is_no_status_is_refused_with_its_line() {
        for cell in ["done", "partial", "partial: ", ""] {
            let error = parse(&format!("\n| A1 | One host. | {cell} |")).expect_err(cell);
            assert!(format!("{error:#}").contains("line 2"), "{error:#}");
        }
    }

    #[test]
    fn a_row_is_there_once() {
        assert!(parse("| A1 | One. | open |\n| A1 | Again. | open |").is_err());
    }

    #[test]
    fn only_a_letter_and_a_number_are_a_row() {
        for (text, row) in [
            ("A1", true),
            ("K10", true),
            ("L1", false),
            ("a1", false),
            ("A", false),
            ("A01", false),
            ("H265", false),
        ] {
            assert_eq!(is_row(text), row, "{text}");
        }
    }
}
