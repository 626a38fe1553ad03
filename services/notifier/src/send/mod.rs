//! Where receivers are, and how each kind is spoken to.

pub(crate) mod mail;
pub(crate) mod syslog;
pub(crate) mod tls;
pub(crate) mod webhook;

use std::time::Duration;

use understudy_runtime::Secret;

use self::{mail::Mail, syslog::Syslog, tls::Trust, webhook::Webhook};
use crate::{
    config::{NotifierConfig, ReceiverConfig},
    plan::wrong,
    service::NotifierError,
    text::Letter,
};

/// Why a message was not taken.
#[derive(Debug)]
pub(crate) struct Failed {
    /// In words, without secrets.
    pub(crate) why: String,
    /// The receiver was there, and does not want this message.
    pub(crate) refused: bool,
}

impl Failed {
    /// The receiver can't be reached, or has troubles of its own.
    pub(crate) fn away(why: impl std::fmt::Display) -> Self {
        Self {
            why: why.to_string(),
            refused: false,
        }
    }
}

/// Where a receiver is.
pub(crate) enum Target {
    Mail(Box<Mail>),
    Webhook(Box<Webhook>),
    Syslog(Syslog),
}

impl Target {
    /// Understands a receiver's address.
    pub(crate) fn new(
        config: &NotifierConfig,
        receiver: &ReceiverConfig,
        address: &Secret,
        trust: &Trust,
    ) -> Result<Self, NotifierError> {
        let address = address.expose().trim();
        let key = format!("receivers.{}.to", receiver.name);
        let scheme = address.split_once(':').map_or("", |(scheme, _)| scheme);
        let webhook = matches!(scheme, "http" | "https");
        for (set, which) in [
            (
                receiver.secret.is_some() || receiver.secret_file.is_some(),
                "secret",
            ),
            (receiver.token.is_some() || receiver.token_file.is_some(), "token"),
        ] {
            if set && !webhook {
                let key = format!("receivers.{}.{which}", receiver.name);
                return Err(wrong(key, "only webhooks (https://…) have one: leave it out"));
            }
        }
        match scheme {
            "http" | "https" => Ok(Self::Webhook(Box::new(Webhook::new(receiver, address, trust)?))),
            "mailto" => Ok(Self::Mail(Box::new(Mail::new(config, receiver, address, trust)?))),
            "" if address.contains('@') => {
                Ok(Self::Mail(Box::new(Mail::new(config, receiver, address, trust)?)))
            }
            "syslog+udp" | "syslog+tcp" | "syslog+unix" => {
                Ok(Self::Syslog(Syslog::new(config.syslog_facility, &key, address)?))
            }
            // The address is not repeated: it may be a secret.
            _ => Err(wrong(
                key,
                "it begins with none of mailto:, https://, http://, syslog+udp://, syslog+tcp://, syslog+unix:",
            )),
        }
    }

    pub(crate) fn is_mail(&self) -> bool {
        matches!(self, Self::Mail(_))
    }

    /// What it is, without secrets, for people.
    pub(crate) fn shown(&self) -> String {
        match self {
            Self::Mail(mail) => mail.shown(),
            Self::Webhook(webhook) => webhook.shown(),
            Self::Syslog(syslog) => syslog.shown(),
        }
    }

    /// One attempt.
    pub(crate) async fn send(&self, letter: &Letter, deadline: Duration) -> Result<(), Failed> {
        let attempt = async {
            match self {
                Self::Mail(mail) => mail.send(letter, deadline).await,
                Self::Webhook(webhook) => webhook.send(letter).await,
                Self::Syslog(syslog) => syslog.send(letter).await,
            }
        };
        match tokio::time::timeout(deadline, attempt).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Failed::away(format!(
                "no answer within {} ms",
                deadline.as_millis()
            ))),
        }
    }
}
