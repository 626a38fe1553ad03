//! The configuration, understood: rules for the core, and where each receiver is. What can't work is refused here,
//! by the name of its key, with what to do.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use jiff::tz::TimeZone;
use understudy_core::{
    contract::event::Event,
    notice::{ALL, Quiet, Rule, Settings, TOLD, URGENT, matches},
};
use understudy_runtime::{Secret, secret::secret};

use crate::{
    config::{NotifierConfig, ReceiverConfig},
    send::{Target, tls::Trust},
    service::NotifierError,
};

/// For how long a mail waits for more of its story: a failover server serves a second after it has started to.
const MAIL_GATHERS: Duration = Duration::from_secs(5);
/// Receivers; each has a task and a connection of its own.
const MOST_RECEIVERS: usize = 100;

/// What is configured, checked.
pub(crate) struct Plan {
    pub(crate) settings: Settings,
    /// Where each receiver is, by its name.
    pub(crate) targets: BTreeMap<String, Target>,
    pub(crate) zone: TimeZone,
    pub(crate) deadline: Duration,
}

/// A complaint about a key of `[notifier]`.
pub(crate) fn wrong(key: impl std::fmt::Display, what: impl std::fmt::Display) -> NotifierError {
    NotifierError::Configuration(format!("notifier.{key}: {what}"))
}

impl Plan {
    pub(crate) fn of(config: &NotifierConfig) -> Result<Self, NotifierError> {
        if config.receivers.len() > MOST_RECEIVERS {
            return Err(wrong("receivers", format!("at most {MOST_RECEIVERS}")));
        }
        for (key, value) in [
            ("first_pause_ms", config.first_pause_ms),
            ("longest_pause_ms", config.longest_pause_ms),
            ("deadline_ms", config.deadline_ms),
            ("most_waiting", config.most_waiting as u64),
        ] {
            if value == 0 {
                return Err(wrong(key, "0 can't work: set it to 1 or more, or leave it out"));
            }
        }
        let trust = Trust::read(config.ca_file.as_deref())?;
        let (mut rules, mut targets) = (Vec::new(), BTreeMap::new());
        for (index, receiver) in config.receivers.iter().enumerate() {
            check_name(index, receiver)?;
            let key = |key: &str| format!("receivers.{}.{key}", receiver.name);
            let address = either(&receiver.to, &receiver.to_file, &key("to"))?;
            let target = Target::new(config, receiver, &address, &trust)?;
            let each = receiver.each.unwrap_or(!target.is_mail());
            let gather = if each { Duration::ZERO } else { MAIL_GATHERS };
            rules.push(Rule {
                name: receiver.name.clone(),
                events: patterns(&receiver.events, &TOLD, &key("events"))?,
                domains: receiver.domains.clone(),
                servers: receiver.servers.clone(),
                quiet: quiet(receiver)?,
                urgent: patterns(&receiver.urgent, &URGENT, &key("urgent"))?,
                each,
                gather: receiver.gather_ms.map_or(gather, Duration::from_millis),
            });
            if targets.insert(receiver.name.clone(), target).is_some() {
                return Err(wrong(
                    key("name"),
                    "there are two of this name: give each its own",
                ));
            }
        }
        let settings = Settings {
            rules,
            repeat: Duration::from_secs(config.repeat_minutes.saturating_mul(60)),
            give_up: Duration::from_secs(config.give_up_hours.saturating_mul(3_600)),
            most_waiting: config.most_waiting,
            first_pause: Duration::from_millis(config.first_pause_ms),
            longest_pause: Duration::from_millis(config.longest_pause_ms),
        };
        Ok(Self {
            settings,
            targets,
            zone: zone(&config.time_zone)?,
            deadline: Duration::from_millis(config.deadline_ms),
        })
    }

    /// Routing keys of all that anybody is told of.
    pub(crate) fn routing_keys(&self) -> Vec<String> {
        let patterns = self.settings.rules.iter().flat_map(|rule| &rule.events);
        let keys: std::collections::BTreeSet<String> = patterns
            .map(|pattern| match pattern.as_str() {
                ALL => "#".to_owned(),
                pattern => format!("*.{pattern}"),
            })
            .collect();
        keys.into_iter().collect()
    }
}

/// A secret from its value or its file; which one is missing, and how it is set, is in the error.
pub(crate) fn either(
    value: &Option<Secret>,
    file: &Option<PathBuf>,
    key: &str,
) -> Result<Secret, NotifierError> {
    let read = secret(value, file, key)
        .map_err(|error| NotifierError::Configuration(format!("notifier.{error}")))?;
    if read.expose().trim().is_empty() {
        return Err(wrong(
            key,
            format!("it is empty: set {key}, or put it into the file that {key}_file names"),
        ));
    }
    Ok(read)
}

fn check_name(index: usize, receiver: &ReceiverConfig) -> Result<(), NotifierError> {
    let name = &receiver.name;
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if (1..=64).contains(&name.len()) && name.bytes().all(allowed) {
        return Ok(());
    }
    Err(wrong(
        format!("receivers[{index}].name"),
        format!("{name:?} can't be a name: use 1 to 64 letters, digits, dots, hyphens and underscores"),
    ))
}

fn patterns(given: &Option<Vec<String>>, default: &[&str], key: &str) -> Result<Vec<String>, NotifierError> {
    let Some(given) = given else {
        return Ok(default.iter().map(|&name| name.to_owned()).collect());
    };
    for pattern in given {
        if Event::NAMES.iter().any(|name| matches(pattern, name)) {
            continue;
        }
        let resembles = |name: &&&str| (strsim::jaro_winkler(pattern, name) * 1000.0) as u32;
        let nearest = Event::NAMES
            .iter()
            .max_by_key(resembles)
            .unwrap_or(&"failover.started");
        return Err(wrong(
            key,
            format!(
                "{pattern:?} is no event; did you mean {nearest:?}? Patterns are like \"failover.*\", or \"*\""
            ),
        ));
    }
    Ok(given.clone())
}

fn quiet(receiver: &ReceiverConfig) -> Result<Option<Quiet>, NotifierError> {
    let Some(text) = &receiver.quiet else {
        return Ok(None);
    };
    let quiet = Quiet::parse(text).ok_or_else(|| {
        let key = format!("receivers.{}.quiet", receiver.name);
        wrong(
            key,
            format!("{text:?} is no time of day: write it like \"22:00-06:30\""),
        )
    })?;
    Ok(Some(quiet))
}

fn zone(name: &str) -> Result<TimeZone, NotifierError> {
    if name.is_empty() {
        // A container without one lives in UTC.
        return Ok(TimeZone::try_system().unwrap_or(TimeZone::UTC));
    }
    TimeZone::get(name).map_err(|_| {
        wrong(
            "time_zone",
            format!("{name:?} is no time zone: use an IANA name like \"Europe/Berlin\""),
        )
    })
}
