//! `understudy dead-letters`: messages that nobody could handle.

use clap::Subcommand;
use reqwest::Method;
use understudy_core::contract::api::{DeadLetterView, DeadLettersView};

use crate::{
    client::Connection,
    confirm::Consent,
    failure::Failure,
    output::{or_dash, table, time},
};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// The oldest, and why each could not be handled; they stay where they are
    List {
        /// How many at most
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=1000))]
        limit: u16,
    },
    /// One of them, with its headers and its body
    Show {
        /// Which
        id: String,
    },
    /// Send it to its queue again; it stays until a queue has it
    Replay {
        /// Which
        id: String,
    },
    /// Drop it for good
    Drop {
        /// Which
        id: String,
        #[command(flatten)]
        consent: Consent,
    },
}

pub(crate) async fn run(connection: &Connection, command: Command) -> Result<(), Failure> {
    let (api, output) = (connection.client()?, connection.output());
    match command {
        Command::List { limit } => {
            let answer = api.get(&format!("dead-letters?limit={limit}")).await?;
            output.answer(answer, |letters: DeadLettersView| overview(&letters))
        }
        Command::Show { id } => {
            let answer = api.get(&path(&id)?).await?;
            output.answer(answer, |letter: DeadLetterView| details(&letter))
        }
        Command::Replay { id } => {
            let path = format!("{}/replay", path(&id)?);
            let answer = api.send_confirmed(Method::POST, &path, None::<&()>, None).await?;
            output.answer(answer, |letter: DeadLetterView| {
                format!("{} is in {} again", letter.id, letter.queue)
            })
        }
        Command::Drop { id, consent } => {
            let Some(answer) = consent
                .send(&api, Method::DELETE, &path(&id)?, None::<&()>)
                .await?
            else {
                return output.done("nothing was dropped");
            };
            output.answer(answer, |letter: DeadLetterView| format!("{} is gone", letter.id))
        }
    }
}

/// An id is made of hexadecimal digits: anything else names nothing, and is no path.
fn path(id: &str) -> Result<String, Failure> {
    if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(Failure::Usage(format!(
            "{id:?} is no dead letter's id; `understudy dead-letters list` shows them"
        )));
    }
    Ok(format!("dead-letters/{id}"))
}

fn overview(letters: &DeadLettersView) -> String {
    let row = |letter: &DeadLetterView| {
        [
            letter.id.clone(),
            or_dash(letter.time.map(time)),
            or_dash(Some(&letter.kind).filter(|kind| !kind.is_empty())),
            or_dash(Some(&letter.queue).filter(|queue| !queue.is_empty())),
            letter.bytes.to_string(),
            if letter.not_replayable.is_empty() {
                "yes"
            } else {
                "no"
            }
            .to_owned(),
            letter.reason.clone(),
        ]
    };
    let head = ["id", "sent", "type", "from", "bytes", "replay", "why"];
    let rows: Vec<_> = letters.letters.iter().map(row).collect();
    let shown = rows.len() as u64;
    let mut text = table(
        head,
        rows,
        "there is no dead letter: every message could be handled",
    );
    if letters.total > shown {
        text.push_str(&format!("\n{} more behind them", letters.total - shown));
    }
    text
}

fn details(letter: &DeadLetterView) -> String {
    let mut text = format!(
        "{}\n  why       {}\n  from      {}\n  sent to   {} as {}\n  sent      {}\n  replay    {}\n",
        letter.id,
        letter.reason,
        letter.queue,
        letter.exchange,
        letter.routing_key,
        or_dash(letter.time.map(time)),
        if letter.not_replayable.is_empty() {
            "possible"
        } else {
            &letter.not_replayable
        },
    );
    for (name, value) in &letter.headers {
        text.push_str(&format!("  {name}: {value}\n"));
    }
    let body = letter.body.as_deref().unwrap_or_default();
    // Whatever it is, it must not write over the terminal.
    let printable: String = body
        .chars()
        .map(|each| {
            if each.is_control() && each != '\n' {
                '\u{fffd}'
            } else {
                each
            }
        })
        .collect();
    text.push('\n');
    text.push_str(&printable);
    text
}
