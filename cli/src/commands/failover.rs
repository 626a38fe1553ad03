//! `understudy failover`.

use std::time::Duration;

use clap::Subcommand;
use reqwest::Method;
use serde_json::json;
use understudy_core::{
    contract::api::{FailoverView, Phase, StartMode},
    ids::{FailoverId, ServerId},
    words::size,
};

use super::{
    overlay::{self, OffersArgs},
    timeline,
};
use crate::{
    client::{Api, Connection, who},
    confirm::Consent,
    failure::Failure,
    output::{Output, list, or_dash, phase, seconds, table, time, word},
};

/// How often a failover that is watched is looked at.
const LOOK: Duration = Duration::from_millis(250);

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start a failover by hand
    Start {
        /// The recording server
        server: ServerId,
        /// The failover server; the closest match without it
        #[arg(long, value_name = "SERVER")]
        stand_in: Option<ServerId>,
        /// Lose no frame: neither server stops before the other films all that it films
        #[arg(long)]
        planned: bool,
        #[command(flatten)]
        consent: Consent,
    },
    /// End a failover: the recording server films again, and gets what was recorded meanwhile
    Stop {
        /// The recording server
        server: ServerId,
        #[command(flatten)]
        consent: Consent,
    },
    /// The failovers that go on
    Status {
        /// Only those of this recording server
        server: Option<ServerId>,
        /// Those that are over too
        #[arg(long)]
        all: bool,
    },
    /// One failover: why, by whom, what was considered, step by step
    Show {
        /// Its id, or a recording server's for its newest
        which: String,
    },
    /// What was changed in a device during a failover, its address or password: keep it or not
    Offers(OffersArgs),
    /// Follow a failover until it is over
    Watch {
        /// Its id, or a recording server's for its newest
        which: String,
    },
}

pub(crate) async fn run(connection: &Connection, command: Command) -> Result<(), Failure> {
    let (api, output) = (connection.client()?, connection.output());
    match command {
        Command::Start {
            server,
            stand_in,
            planned,
            consent,
        } => {
            let mode = if planned {
                StartMode::Planned
            } else {
                StartMode::Manual
            };
            let body = json!({ "stand_in": stand_in, "mode": mode, "by": who() });
            let path = format!("servers/{server}/failover");
            match consent.send(&api, Method::POST, &path, Some(&body)).await? {
                Some(answer) => output.answer(answer, |view: FailoverView| started(&view)),
                None => output.done("nothing was changed"),
            }
        }
        Command::Stop { server, consent } => {
            let path = format!("servers/{server}/failover/stop");
            let body = json!({ "by": who() });
            match consent.send(&api, Method::POST, &path, Some(&body)).await? {
                Some(answer) => output.answer(answer, |view: FailoverView| stopped(&view)),
                None => output.done("nothing was changed"),
            }
        }
        Command::Status { server, all } => {
            let mut path = String::from("failovers?");
            if let Some(server) = server {
                path.push_str(&format!("server={server}&"));
            }
            if !all {
                path.push_str("active=true");
            }
            let path = path.trim_end_matches(['?', '&']);
            output.answer(api.get(path).await?, |views: Vec<FailoverView>| {
                overview(&views, all)
            })
        }
        Command::Show { which } => {
            let id = resolve(&api, &which).await?;
            output.answer(
                api.get(&format!("failovers/{id}")).await?,
                |view: FailoverView| detail(&view),
            )
        }
        Command::Offers(arguments) => overlay::offers(&api, output, arguments).await,
        Command::Watch { which } => {
            let id = resolve(&api, &which).await?;
            watch(&api, output, &id).await
        }
    }
}

/// The failover that is meant by its own id or by its recording server's.
pub(crate) async fn resolve(api: &Api, which: &str) -> Result<FailoverId, Failure> {
    let views: Vec<FailoverView> = api.get_as("failovers").await?;
    let by_id = views.iter().find(|view| view.id.as_str() == which);
    let found = by_id.or_else(|| views.iter().find(|view| view.server.as_str() == which));
    let none = || {
        Failure::Failed(format!(
            "there is no failover {which}, and none of a server {which}"
        ))
    };
    found.map(|view| view.id.clone()).ok_or_else(none)
}

async fn watch(api: &Api, output: Output, id: &FailoverId) -> Result<(), Failure> {
    let path = format!("failovers/{id}");
    let mut told = Told::default();
    loop {
        match api.get_as::<FailoverView>(&path).await {
            Ok(view) => {
                told.tell(output, &view)?;
                match view.phase {
                    Phase::Completed => return Ok(()),
                    Phase::Aborted => return Err(Failure::Failed(format!("{id} was aborted"))),
                    _ => {}
                }
            }
            // Watching outlives a restart of the host; a failover that is gone does not come back.
            Err(Failure::Refused(problem)) if problem.status != 503 => return Err(Failure::Refused(problem)),
            Err(failure @ Failure::NobodyReads) => return Err(failure),
            Err(failure) => told.trouble(output, &failure)?,
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// What a watcher was told already.
#[derive(Default)]
struct Told {
    steps: usize,
    waits_for: String,
    percent: Option<u64>,
    trouble: String,
}

impl Told {
    fn tell(&mut self, output: Output, view: &FailoverView) -> Result<(), Failure> {
        self.trouble.clear();
        for step in view.steps.iter().skip(self.steps) {
            output.item(step, |step| {
                format!("{}  {:<26}{}", time(step.at), phase(step.phase), step.what)
            })?;
        }
        self.steps = view.steps.len();
        if view.waits_for != self.waits_for {
            self.waits_for.clone_from(&view.waits_for);
            if !self.waits_for.is_empty() {
                output.done(format!("  waits for {}", self.waits_for))?;
            }
        }
        let percent = percent(view).filter(|_| view.phase.hands_back());
        if percent.is_some() && percent != self.percent {
            self.percent = percent;
            output.done(format!("  {}", progress(view)))?;
        }
        Ok(())
    }

    fn trouble(&mut self, output: Output, failure: &Failure) -> Result<(), Failure> {
        let trouble = failure.to_string();
        if trouble != self.trouble {
            output.done(format!("  {trouble}"))?;
            self.trouble = trouble;
        }
        Ok(())
    }
}

fn stopped(view: &FailoverView) -> String {
    match view.phase {
        Phase::Completed | Phase::Aborted => format!("{}: {}", view.id, phase(view.phase)),
        _ => format!(
            "{}: it ends; {} films again first, then {} stops\nfollow it with: understudy failover watch {}",
            view.id,
            view.server,
            view.stand_in
                .as_ref()
                .map_or("the failover server", |id| id.as_str()),
            view.id
        ),
    }
}

fn started(view: &FailoverView) -> String {
    let by = match &view.stand_in {
        Some(stand_in) => format!("{stand_in} takes over from {}", view.server),
        None => format!(
            "no failover server is free for {}: {}",
            view.server, view.waits_for
        ),
    };
    format!(
        "{}: {by}\nfollow it with: understudy failover watch {}",
        view.id, view.id
    )
}

fn overview(views: &[FailoverView], all: bool) -> String {
    let row = |view: &FailoverView| {
        [
            view.id.to_string(),
            view.server.to_string(),
            or_dash(view.stand_in.as_ref()),
            phase(view.phase).to_owned(),
            if view.reason_cleared {
                "cleared".into()
            } else {
                word(&view.reason.kind)
            },
            time(view.started_at),
            seconds(view.detection_ms),
            view.takeover_ms.map_or_else(|| "-".into(), seconds),
            percent(view).map_or_else(|| "-".into(), |percent| format!("{percent} %")),
        ]
    };
    let head = [
        "failover",
        "server",
        "stand-in",
        "phase",
        "reason",
        "started",
        "detection",
        "takeover",
        "handed back",
    ];
    let none = if all {
        "there was no failover yet"
    } else {
        "no failover goes on"
    };
    table(head, views.iter().map(row).collect(), none)
}

fn detail(view: &FailoverView) -> String {
    let mut lines = vec![
        format!(
            "{}  {} → {}",
            view.id,
            view.server,
            or_dash(view.stand_in.as_ref())
        ),
        format!("phase       {}", phase(view.phase)),
        format!(
            "reason      {} ({}{})",
            view.reason.summary,
            word(&view.reason.kind),
            if view.reason_cleared { ", cleared" } else { "" }
        ),
        format!("started     {}", time(view.started_at)),
        format!("ended       {}", view.ended_at.map_or_else(|| "-".into(), time)),
        format!("took        {}", timeline::durations(view)),
        format!(
            "licences    {}",
            if view.licenses_settled {
                "where they belong"
            } else {
                "on their way"
            }
        ),
        format!("disabled    {}", list(&view.disabled)),
        format!("handed back {}", progress(view)),
    ];
    lines.extend(timeline::cameras(view).map(|cameras| format!("cameras     {cameras}")));
    lines.extend(timeline::trace(view).map(|trace| format!("trace       {trace}")));
    if !view.waits_for.is_empty() {
        lines.push(format!("waits for   {}", view.waits_for));
    }
    lines.extend(overlay::lines(view));
    lines.push("considered".into());
    lines.extend(view.selection.iter().map(|one| {
        format!(
            "  {} {}: {}",
            if one.chosen { "→" } else { " " },
            one.server,
            one.why
        )
    }));
    lines.push("timeline".into());
    lines.extend(timeline::lines(view));
    if !view.damaged.is_empty() {
        lines.push(format!("not handed back ({} segments)", view.damaged_count));
        lines.extend(
            view.damaged
                .iter()
                .map(|one| format!("  {}: {}", one.path, one.reason)),
        );
        let named = u64::try_from(view.damaged.len()).unwrap_or(u64::MAX);
        let more = view.damaged_count.saturating_sub(named);
        if more > 0 {
            lines.push(format!("  and {more} more"));
        }
    }
    lines.join("\n")
}

/// How much was handed back, in per cent of the bytes; none as long as nothing is known of it.
pub(crate) fn percent(view: &FailoverView) -> Option<u64> {
    let progress = view.progress;
    let scaled = progress
        .bytes_done
        .saturating_mul(100)
        .checked_div(progress.bytes_total)?;
    Some(scaled.min(100))
}

fn progress(view: &FailoverView) -> String {
    let progress = view.progress;
    let Some(percent) = percent(view) else {
        return "nothing so far".into();
    };
    let left = progress.bytes_total.saturating_sub(progress.bytes_done);
    let mut text = format!(
        "{percent} %: {} of {}, {} of {} segments",
        size(progress.bytes_done),
        size(progress.bytes_total),
        progress.segments_done,
        progress.segments_total,
    );
    if let Some(rest) = left.checked_div(progress.bytes_per_second).filter(|_| left > 0) {
        text.push_str(&format!(", {}/s, {rest} s left", size(progress.bytes_per_second)));
    }
    text
}
