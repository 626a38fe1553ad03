//! Section `[notifier]`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use understudy_core::ids::{DomainId, ServerId};
use understudy_runtime::Secret;

/// How the connection to the mail server is protected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SmtpSecurity {
    /// It begins in clear, and is encrypted before anything is said (RFC 3207); port 587.
    #[default]
    Starttls,
    /// It is encrypted from the first byte (RFC 8314); port 465.
    Tls,
    /// It is not; port 25.
    Plain,
}

/// As which part of a system the notifier speaks (RFC 5424, table 1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "they are called by their numbers")]
pub enum SyslogFacility {
    #[default]
    Daemon,
    User,
    Local0,
    Local1,
    Local2,
    Local3,
    Local4,
    Local5,
    Local6,
    Local7,
}

/// Section `[notifier]`: who is told, and how.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NotifierConfig {
    /// Who is told.
    pub receivers: Vec<ReceiverConfig>,
    /// The time zone of the receivers (IANA, e.g. `Europe/Berlin`); that of this machine, if empty.
    pub time_zone: String,
    /// For how many minutes the same is counted and not told again.
    pub repeat_minutes: u64,
    /// For how many hours a message is tried.
    pub give_up_hours: u64,
    /// The most messages that wait for one receiver.
    pub most_waiting: usize,
    /// The pause after the first failure; it doubles with each.
    pub first_pause_ms: u64,
    /// The longest pause.
    pub longest_pause_ms: u64,
    /// How long one attempt may take.
    pub deadline_ms: u64,
    /// A file with further certificate authorities (PEM), for mail servers and webhooks of one's own.
    pub ca_file: Option<PathBuf>,
    /// The sender of mails.
    pub mail_from: String,
    /// The mail server.
    pub smtp_host: String,
    /// Its port, if not the usual one.
    pub smtp_port: Option<u16>,
    /// How the connection to it is protected.
    pub smtp_security: SmtpSecurity,
    /// The user there; none: nobody has to log in.
    pub smtp_user: Option<String>,
    /// The user's password.
    pub smtp_password: Option<Secret>,
    /// A file with it.
    pub smtp_password_file: Option<PathBuf>,
    /// As which part of a system it speaks to syslog.
    pub syslog_facility: SyslogFacility,
}

impl Default for NotifierConfig {
    fn default() -> Self {
        Self {
            receivers: Vec::new(),
            time_zone: String::new(),
            repeat_minutes: 15,
            give_up_hours: 72,
            most_waiting: 1_000,
            first_pause_ms: 1_000,
            longest_pause_ms: 300_000,
            deadline_ms: 15_000,
            ca_file: None,
            mail_from: String::new(),
            smtp_host: String::new(),
            smtp_port: None,
            smtp_security: SmtpSecurity::Starttls,
            smtp_user: None,
            smtp_password: None,
            smtp_password_file: None,
            syslog_facility: SyslogFacility::Daemon,
        }
    }
}

/// One receiver: `[[notifier.receivers]]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReceiverConfig {
    /// What it is called in logs, figures and `--test`.
    pub name: String,
    /// `mailto:anna@example.org`, `https://…`, `syslog+udp://host:514`, `syslog+tcp://host:601`,
    /// `syslog+unix:/dev/log`. Many a webhook's address is its secret, so it is never shown.
    pub to: Option<Secret>,
    /// A file with it.
    pub to_file: Option<PathBuf>,
    /// What it is told of: names, `failover.*` or `*`.
    pub events: Option<Vec<String>>,
    /// Only of these domains.
    #[serde(default)]
    pub domains: Vec<DomainId>,
    /// Only of these servers.
    #[serde(default)]
    pub servers: Vec<ServerId>,
    /// When it is not disturbed: `22:00-06:00`.
    pub quiet: Option<String>,
    /// What it is told of then too.
    pub urgent: Option<Vec<String>>,
    /// Whether each fact is a message of its own; by default mails gather, others do not.
    pub each: Option<bool>,
    /// For how long more of the same story is waited for.
    pub gather_ms: Option<u64>,
    /// With which webhooks are signed (HMAC-SHA256).
    pub secret: Option<Secret>,
    /// A file with it.
    pub secret_file: Option<PathBuf>,
    /// What a webhook presents as `Authorization: Bearer …`.
    pub token: Option<Secret>,
    /// A file with it.
    pub token_file: Option<PathBuf>,
}
