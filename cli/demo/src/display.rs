//! Shows the demo as it happens: lines with the time since the start, and in a terminal a line below them
//! that says how things stand.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::Instant;

/// Where the story is told: standard error, so that standard output stays for the report.
#[derive(Debug)]
pub struct Display {
    began: Instant,
    bar: Option<ProgressBar>,
}

impl Default for Display {
    fn default() -> Self {
        Self::new()
    }
}

impl Display {
    /// Begins.
    #[must_use]
    pub fn new() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner();
            let style = ProgressStyle::with_template("{spinner} {wide_msg}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
            bar.enable_steady_tick(std::time::Duration::from_millis(120));
            bar
        });
        Self {
            began: Instant::now(),
            bar,
        }
    }

    /// Something happened.
    pub fn say(&self, what: impl AsRef<str>) {
        let line = format!("{:6.1} s  {}", self.began.elapsed().as_secs_f64(), what.as_ref());
        match &self.bar {
            Some(bar) => bar.println(line),
            None => eprintln!("{line}"),
        }
    }

    /// How things stand; shown in a terminal only.
    pub fn status(&self, how: impl Into<String>) {
        if let Some(bar) = &self.bar {
            bar.set_message(how.into());
        }
    }

    /// Takes the status line away.
    pub fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
