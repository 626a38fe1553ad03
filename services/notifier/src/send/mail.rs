//! E-mail by SMTP (lettre): one connection for each message.

use std::time::Duration;

use lettre::{
    Address, AsyncSmtpTransport, AsyncTransport as _, Message, Tokio1Executor,
    message::{
        Mailbox,
        header::{ContentType, Header, HeaderName, HeaderValue},
    },
    transport::smtp::{
        authentication::Credentials,
        client::{Certificate, Tls, TlsParameters},
        extension::ClientId,
    },
};

use super::{Failed, tls::Trust};
use crate::{
    config::{NotifierConfig, ReceiverConfig, SmtpSecurity},
    plan::{either, wrong},
    service::NotifierError,
    text::Letter,
};

pub(crate) struct Mail {
    from: Mailbox,
    to: Mailbox,
    host: String,
    port: u16,
    tls: Tls,
    login: Option<Credentials>,
}

/// Told by a machine: nobody's absence note need answer it (RFC 3834).
#[derive(Clone)]
struct AutoSubmitted;

impl Header for AutoSubmitted {
    fn name() -> HeaderName {
        HeaderName::new_from_ascii_str("Auto-Submitted")
    }

    fn parse(_: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Self)
    }

    fn display(&self) -> HeaderValue {
        HeaderValue::new(Self::name(), "auto-generated".to_owned())
    }
}

impl Mail {
    pub(crate) fn new(
        config: &NotifierConfig,
        receiver: &ReceiverConfig,
        address: &str,
        trust: &Trust,
    ) -> Result<Self, NotifierError> {
        let key = format!("receivers.{}.to", receiver.name);
        let to: Address = address
            .strip_prefix("mailto:")
            .unwrap_or(address)
            .parse()
            .map_err(|_| {
                wrong(
                    key,
                    "it is no e-mail address: write it like mailto:anna@example.org",
                )
            })?;
        if config.smtp_host.is_empty() {
            return Err(wrong(
                "smtp_host",
                "set it to the mail server: there is a receiver of mails",
            ));
        }
        let from: Mailbox = config.mail_from.parse().map_err(|_| {
            let given = &config.mail_from;
            wrong(
                "mail_from",
                format!("{given:?} is no e-mail address; set it to the sender of mails, e.g. understudy@example.org"),
            )
        })?;
        let usual = match config.smtp_security {
            SmtpSecurity::Starttls => 587,
            SmtpSecurity::Tls => 465,
            SmtpSecurity::Plain => 25,
        };
        Ok(Self {
            from,
            to: Mailbox::new(None, to),
            host: config.smtp_host.clone(),
            port: config.smtp_port.unwrap_or(usual),
            tls: tls(config, trust)?,
            login: login(config)?,
        })
    }

    pub(crate) fn shown(&self) -> String {
        format!("mail to {} by {}:{}", self.to.email, self.host, self.port)
    }

    pub(crate) async fn send(&self, letter: &Letter, deadline: Duration) -> Result<(), Failed> {
        let mut transport = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&self.host)
            .port(self.port)
            .tls(self.tls.clone())
            .hello_name(ClientId::Domain(self.from.email.domain().to_owned()))
            .timeout(Some(deadline));
        if let Some(login) = &self.login {
            transport = transport.credentials(login.clone());
        }
        transport
            .build()
            .send(self.message(letter)?)
            .await
            .map(drop)
            .map_err(|error| failed(&error))
    }

    fn message(&self, letter: &Letter) -> Result<Message, Failed> {
        let domain = self.from.email.domain();
        let story: String = letter
            .story
            .chars()
            .map(|c| {
                if c.is_ascii_alphanumeric() || c == '-' {
                    c
                } else {
                    '.'
                }
            })
            .collect();
        Message::builder()
            .from(self.from.clone())
            .to(self.to.clone())
            .subject(&letter.subject)
            // Sent again, it is the same mail; and the mails of one story lie together.
            .message_id(Some(format!("<{}@{domain}>", letter.id)))
            .references(format!("<{story}@{domain}>"))
            .header(AutoSubmitted)
            .header(ContentType::TEXT_PLAIN)
            .body(letter.text.clone())
            .map_err(|error| Failed {
                why: format!("the mail can't be written: {error}"),
                refused: true,
            })
    }
}

fn tls(config: &NotifierConfig, trust: &Trust) -> Result<Tls, NotifierError> {
    if config.smtp_security == SmtpSecurity::Plain {
        return Ok(Tls::None);
    }
    let mut parameters = TlsParameters::builder(config.smtp_host.clone());
    for certificate in trust.own() {
        let certificate =
            Certificate::from_der(certificate.to_vec()).map_err(|error| wrong("ca_file", error))?;
        parameters = parameters.add_root_certificate(certificate);
    }
    let parameters = parameters
        .build_rustls()
        .map_err(|error| wrong("smtp_host", format!("TLS can't be spoken with it: {error}")))?;
    Ok(if config.smtp_security == SmtpSecurity::Tls {
        Tls::Wrapper(parameters)
    } else {
        Tls::Required(parameters)
    })
}

fn login(config: &NotifierConfig) -> Result<Option<Credentials>, NotifierError> {
    let given = config.smtp_password.is_some() || config.smtp_password_file.is_some();
    let Some(user) = &config.smtp_user else {
        if given {
            return Err(wrong("smtp_user", "set it: there is a password, and no user"));
        }
        return Ok(None);
    };
    let password = either(&config.smtp_password, &config.smtp_password_file, "smtp_password")?;
    let near = matches!(config.smtp_host.as_str(), "localhost" | "127.0.0.1" | "::1");
    if config.smtp_security == SmtpSecurity::Plain && !near {
        return Err(wrong(
            "smtp_security",
            "\"plain\" would send the password in clear over the network: use \"starttls\" or \"tls\", or no smtp_user",
        ));
    }
    Ok(Some(Credentials::new(user.clone(), password.expose().to_owned())))
}

fn failed(error: &lettre::transport::smtp::Error) -> Failed {
    // 530, 534, 535 and 538 are about who logs in (RFC 4954), and so about every message.
    let login = error
        .status()
        .is_some_and(|code| code.to_string().starts_with("53"));
    Failed {
        why: error.to_string(),
        refused: error.is_permanent() && !login,
    }
}
