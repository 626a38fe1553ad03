//! Mails, against a real mail server.

use understudy_bus::testing::Broker;
use understudy_core::{
    contract::event::Event,
    ids::{CameraId, FailoverId, ServerId},
};
use understudy_notifier::{NotifierConfig, SmtpSecurity, try_each};
use understudy_runtime::Secret;

use crate::{
    desk::{Teller, config, figure, host, listens, receiver, start, started},
    receivers::{Hook, Smtpd, eventually},
};

fn mails(port: u16) -> NotifierConfig {
    let mut receiver = receiver("anna", "mailto:anna@example.org");
    receiver.gather_ms = Some(300);
    NotifierConfig {
        smtp_host: "127.0.0.1".to_owned(),
        smtp_port: Some(port),
        smtp_security: SmtpSecurity::Plain,
        mail_from: "Understudy <understudy@example.org>".to_owned(),
        time_zone: "Europe/Berlin".to_owned(),
        ..config(vec![receiver])
    }
}

fn serving(failover: &str) -> Event {
    Event::FailoverServing {
        failover: FailoverId::new(failover).unwrap(),
        server: ServerId::new("recorder-1").unwrap(),
        stand_in: ServerId::new("failover-1").unwrap(),
        filming: 3,
        lost: [CameraId::new("gate-4").unwrap()].into(),
    }
}

#[tokio::test]
async fn k4_a_mail_server_that_is_away_gets_one_mail_of_one_failover_that_says_what_to_do() {
    if !Smtpd::is_here() {
        return;
    }
    let (folder, broker) = (tempfile::tempdir().unwrap(), Broker::start().await.unwrap());
    let address = Hook::free();
    let hook = Hook::listen(Hook::free(), Vec::new()).await;
    let mut config = mails(address.port());
    config.receivers[0].events = Some(vec!["failover.*".to_owned()]);
    let mut marker = receiver("marker", &format!("http://{}/hook", hook.address()));
    marker.events = Some(vec!["server.recovered".to_owned()]);
    config.receivers.push(marker);
    let process = start(&config, &host(folder.path()), &broker);
    listens(&broker).await;
    let teller = Teller::new(&broker).await;
    teller.tell(started("f1")).await;
    eventually("attempts", async || {
        let failed = [("receiver", "anna"), ("outcome", "failed")];
        (figure(&process, "understudy_notices_total", &failed) >= 2.0).then_some(())
    })
    .await;
    teller.tell(serving("f1")).await;
    teller.tell(serving("f1")).await;
    // Facts are heard in their order: whoever hears of the last, knows of those before.
    let server = ServerId::new("recorder-1").unwrap();
    teller.tell(Event::ServerRecovered { server }).await;
    eventually("the facts to be heard", async || hook.taken(1)).await;

    let smtpd = Smtpd::start(address.port(), folder.path(), &[]);
    let mail = eventually("the mail", async || smtpd.taken(1)).await.remove(0);
    for line in [
        "From: Understudy <understudy@example.org>",
        "To: anna@example.org",
        "Subject: Understudy: failover-1 films for recorder-1, but for 1 camera(s)",
        "Auto-Submitted: auto-generated",
        "References: <failover.f1@example.org>",
        "2026-07-01 00:00:00 UTC (2026-07-01 02:00:00 CEST)",
        "  recorder-1 failed, and failover-1 takes over.",
        "  Why: not heard for 1 s",
        "  Lost: 1 camera (gate-4).",
        "  The same was told 1 more time(s); this is the last.",
        "What to do: see why those cameras are not reached",
        "About failover/f1, domain east.",
    ] {
        // A header's further lines begin with a blank; quoted-printable ends a line that goes on with `=`.
        let (header, text) = (mail.replace("\r\n ", " "), mail.replace("=\r\n", ""));
        assert!(
            header.contains(line) || text.contains(line),
            "{line:?} is missing in:\n{mail}"
        );
    }
    let waiting = [("receiver", "anna")];
    eventually("nothing to wait", async || {
        (figure(&process, "understudy_notices_waiting", &waiting) == 0.0).then_some(())
    })
    .await;
    assert_eq!(smtpd.taken(2), None, "one mail");
    process.finish().await;
    teller.done().await;
}

#[tokio::test]
async fn k4_mails_are_sent_by_starttls_and_tls_with_a_password_to_whom_the_authority_vouches_for() {
    if !Smtpd::is_here() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    Smtpd::certificate(folder.path());
    let password = folder.path().join("password");
    std::fs::write(&password, "pass word\n").unwrap();
    let certificate = ["--cert", "server.pem", "--key", "server.key"];
    let login = ["--user", "understudy", "--password", "pass word"];
    for (security, more) in [
        (SmtpSecurity::Starttls, &[] as &[&str]),
        (SmtpSecurity::Tls, &["--implicit"]),
    ] {
        let box_ = tempfile::tempdir().unwrap();
        for file in ["server.pem", "server.key"] {
            std::fs::copy(folder.path().join(file), box_.path().join(file)).unwrap();
        }
        let port = Hook::free().port();
        let smtpd = Smtpd::start(port, box_.path(), &[&certificate, &login, more].concat());
        let good = NotifierConfig {
            smtp_security: security,
            smtp_user: Some("understudy".to_owned()),
            smtp_password_file: Some(password.clone()),
            ca_file: Some(folder.path().join("client.pem")),
            ..mails(port)
        };
        let failure = async |config: &NotifierConfig| try_each(config).await.unwrap().remove(0).failure;

        assert_eq!(failure(&good).await, None, "{security:?}");
        let mail = smtpd.taken(1).expect("it was taken").remove(0);
        assert!(
            mail.contains("X-Tls: True") && mail.contains("X-Login: True"),
            "{mail}"
        );

        let unknown = NotifierConfig {
            ca_file: None,
            ..good.clone()
        };
        let said = failure(&unknown).await.expect("nobody vouches for it");
        assert!(said.contains("certificate"), "{security:?}: {said}");
        let wrong = NotifierConfig {
            smtp_password_file: None,
            smtp_password: Some(Secret::new("hunter2")),
            ..good
        };
        let said = failure(&wrong).await.expect("a wrong password");
        assert!(
            said.contains("535") && !said.contains("hunter2"),
            "{security:?}: {said}"
        );
        assert_eq!(smtpd.taken(2), None);
    }
    // A server that can't be spoken to in secret is not spoken to.
    let (clear, port) = (tempfile::tempdir().unwrap(), Hook::free().port());
    let smtpd = Smtpd::start(port, clear.path(), &[]);
    let config = NotifierConfig {
        smtp_security: SmtpSecurity::Starttls,
        ..mails(port)
    };
    let said = try_each(&config)
        .await
        .unwrap()
        .remove(0)
        .failure
        .expect("no STARTTLS");
    assert!(said.to_lowercase().contains("starttls"), "{said}");
    assert_eq!(smtpd.taken(1), None);
}

#[tokio::test]
async fn k4_an_address_that_is_refused_holds_up_no_other() {
    if !Smtpd::is_here() {
        return;
    }
    let (folder, broker) = (tempfile::tempdir().unwrap(), Broker::start().await.unwrap());
    let port = Hook::free().port();
    let smtpd = Smtpd::start(port, folder.path(), &["--refuse", "nobody@example.org"]);
    let mut config = mails(port);
    let mut nobody = receiver("nobody", "nobody@example.org");
    nobody.gather_ms = Some(0);
    config.receivers.push(nobody);
    let process = start(&config, &host(folder.path()), &broker);
    listens(&broker).await;
    let teller = Teller::new(&broker).await;
    teller.tell(started("f1")).await;
    let mail = eventually("the mail", async || smtpd.taken(1)).await.remove(0);
    assert!(mail.contains("To: anna@example.org"), "{mail}");
    eventually("a refusal", async || {
        let refused = [("receiver", "nobody"), ("outcome", "refused")];
        (figure(&process, "understudy_notices_total", &refused) >= 1.0).then_some(())
    })
    .await;
    process.finish().await;
    teller.done().await;
}
