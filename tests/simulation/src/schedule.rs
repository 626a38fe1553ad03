//! Which schedule is played: a seed, and what is left out of it.

use std::{collections::BTreeSet, fmt, num::ParseIntError, str::FromStr};

use crate::bug::Bug;

/// A schedule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Schedule {
    /// Everything that happens follows from it.
    pub seed: u64,
    /// The mistake that is planted.
    pub bug: Option<Bug>,
    /// Faults that are left out, by their number in the order in which they strike.
    pub without: BTreeSet<u32>,
    /// Faults stop after this many ticks at the latest.
    pub until: Option<u32>,
    /// No packet is lost, repeated or late.
    pub calm: bool,
}

impl Schedule {
    /// The whole schedule of a seed.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        Self {
            seed,
            ..Self::default()
        }
    }

    /// The same with a mistake planted.
    #[must_use]
    pub fn with(self, bug: Bug) -> Self {
        Self {
            bug: Some(bug),
            ..self
        }
    }
}

/// As it is given on the command line: `17`, or shrunk `17:calm:until=40:without=3,8`.
impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.seed)?;
        if self.calm {
            write!(f, ":calm")?;
        }
        if let Some(until) = self.until {
            write!(f, ":until={until}")?;
        }
        if !self.without.is_empty() {
            let without: Vec<String> = self.without.iter().map(ToString::to_string).collect();
            write!(f, ":without={}", without.join(","))?;
        }
        Ok(())
    }
}

impl FromStr for Schedule {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Self, ParseIntError> {
        let mut parts = text.trim().split(':');
        let mut schedule = Self::of(parts.next().unwrap_or_default().parse()?);
        for part in parts {
            match part.split_once('=') {
                Some(("until", ticks)) => schedule.until = Some(ticks.parse()?),
                Some((_, faults)) => {
                    schedule.without = faults.split(',').map(str::parse).collect::<Result<_, _>>()?;
                }
                None => schedule.calm = true,
            }
        }
        Ok(schedule)
    }
}

/// Schedules that failed once, with what they showed: they must never fail again.
///
/// # Panics
/// If a line of the list is no schedule.
#[must_use]
pub fn pinned() -> Vec<Schedule> {
    let lines = include_str!("../pinned.txt").lines();
    lines
        .map(|line| line.split('#').next().unwrap_or_default().trim())
        .filter(|line| !line.is_empty())
        .map(|line| {
            line.parse()
                .expect("each line of pinned.txt begins with a schedule")
        })
        .collect()
}
