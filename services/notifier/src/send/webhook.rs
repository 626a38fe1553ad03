//! Webhooks: a POST of JSON, the same key each time, signed if there is a secret. Redirects are refused: whoever is
//! told is configured, and not named by an answer.

use bytes::Bytes;
use hmac::{Hmac, Mac as _};
use http_body_util::Full;
use hyper::{Method, Request, StatusCode, Uri, header};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use sha2::Sha256;
use understudy_runtime::{Secret, VERSION};

use super::{Failed, tls::Trust};
use crate::{
    config::ReceiverConfig,
    plan::{either, wrong},
    service::NotifierError,
    text::Letter,
};

/// The same for each attempt to deliver one message.
const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// HMAC-SHA256 of the body with the receiver's secret: `sha256=<hexadecimal>`.
const SIGNATURE: &str = "x-understudy-signature";

pub(crate) struct Webhook {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    uri: Uri,
    secret: Option<Secret>,
    token: Option<Secret>,
}

impl Webhook {
    pub(crate) fn new(
        receiver: &ReceiverConfig,
        address: &str,
        trust: &Trust,
    ) -> Result<Self, NotifierError> {
        let key = |key: &str| format!("receivers.{}.{key}", receiver.name);
        let given = |value: &Option<Secret>, file: &Option<std::path::PathBuf>, name: &str| {
            (value.is_some() || file.is_some())
                .then(|| either(value, file, &key(name)))
                .transpose()
        };
        // `Url` finds what `Uri` takes: a name without a host, spaces.
        let uri = url::Url::parse(address)
            .ok()
            .filter(url::Url::has_host)
            .and_then(|url| url.as_str().parse::<Uri>().ok())
            .ok_or_else(|| wrong(key("to"), "it is no URL: write it like https://example.org/hook"))?;
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(trust.client()?)
            .https_or_http()
            .enable_http1()
            .build();
        Ok(Self {
            client: Client::builder(TokioExecutor::new()).build(connector),
            uri,
            secret: given(&receiver.secret, &receiver.secret_file, "secret")?,
            token: given(&receiver.token, &receiver.token_file, "token")?,
        })
    }

    pub(crate) fn shown(&self) -> String {
        format!("webhook at {}", self.uri.host().unwrap_or_default())
    }

    pub(crate) async fn send(&self, letter: &Letter) -> Result<(), Failed> {
        let body = letter.json().to_string();
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(self.uri.clone())
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, format!("understudy/{VERSION}"))
            .header(IDEMPOTENCY_KEY, &letter.id);
        if let Some(secret) = &self.secret {
            request = request.header(SIGNATURE, signature(secret, body.as_bytes()));
        }
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {}", token.expose()));
        }
        let request = request
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| Failed::away(format!("the request can't be made: {error}")))?;
        let answer = self.client.request(request).await.map_err(|error| {
            let mut why = error.to_string();
            let mut cause = std::error::Error::source(&error);
            while let Some(deeper) = cause {
                why = format!("{why}: {deeper}");
                cause = deeper.source();
            }
            Failed::away(why)
        })?;
        judge(answer.status())
    }
}

/// What an answer means. Its body is not read.
fn judge(status: StatusCode) -> Result<(), Failed> {
    if status.is_success() {
        return Ok(());
    }
    let why = if status.is_redirection() {
        format!("it answered {status}, and redirects are not followed: configure where it leads to")
    } else {
        format!("it answered {status}")
    };
    // Of what is left these say that it may go well later, or that it would of no message.
    let later = [
        StatusCode::UNAUTHORIZED,
        StatusCode::FORBIDDEN,
        StatusCode::NOT_FOUND,
        StatusCode::REQUEST_TIMEOUT,
        StatusCode::TOO_EARLY,
        StatusCode::TOO_MANY_REQUESTS,
    ];
    let refused = status.is_client_error() && !later.contains(&status);
    Err(Failed { why, refused })
}

fn signature(secret: &Secret, body: &[u8]) -> String {
    let mut mac =
        Hmac::<Sha256>::new_from_slice(secret.expose().as_bytes()).expect("HMAC takes keys of any length");
    mac.update(body);
    let sum = mac.finalize().into_bytes();
    sum.iter()
        .fold("sha256=".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn k4_the_signature_is_that_of_rfc_4231() {
        // Test case 2 there.
        let signed = signature(&Secret::new("Jefe"), b"what do ya want for nothing?");
        assert_eq!(
            signed,
            "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }

    #[test]
    fn k4_only_what_is_about_this_message_is_a_refusal() {
        let refused = |code: u16| {
            judge(StatusCode::from_u16(code).expect("a code"))
                .err()
                .map(|failed| failed.refused)
        };
        for taken in [200, 202, 204] {
            assert_eq!(refused(taken), None, "{taken}");
        }
        for later in [301, 307, 401, 404, 408, 429, 500, 503] {
            assert_eq!(refused(later), Some(false), "{later}");
        }
        for no in [400, 410, 413, 422] {
            assert_eq!(refused(no), Some(true), "{no}");
        }
    }
}
