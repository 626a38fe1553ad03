//! Whom to believe: the machine's certificate authorities, and those that are configured besides.

use std::path::Path;

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};

use crate::{plan::wrong, service::NotifierError};

/// The certificate authorities.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trust {
    /// Those that are configured.
    own: Vec<CertificateDer<'static>>,
}

impl Trust {
    pub(crate) fn read(file: Option<&Path>) -> Result<Self, NotifierError> {
        let Some(file) = file else {
            return Ok(Self::default());
        };
        let refused = |why: String| wrong("ca_file", format!("{}: {why}", file.display()));
        let read = CertificateDer::pem_file_iter(file).map_err(|error| refused(error.to_string()))?;
        let own: Vec<_> = read
            .collect::<Result<_, _>>()
            .map_err(|error| refused(error.to_string()))?;
        if own.is_empty() {
            return Err(refused(
                "there is no certificate in it (-----BEGIN CERTIFICATE-----)".to_owned(),
            ));
        }
        Ok(Self { own })
    }

    /// Those that are configured.
    pub(crate) fn own(&self) -> &[CertificateDer<'static>] {
        &self.own
    }

    /// For a client that believes them.
    pub(crate) fn client(&self) -> Result<ClientConfig, NotifierError> {
        let mut roots = RootCertStore::empty();
        // A machine without any still reaches those that are configured, and what is not encrypted.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        for certificate in &self.own {
            roots
                .add(certificate.clone())
                .map_err(|error| wrong("ca_file", error))?;
        }
        let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
        let versions = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| wrong("receivers", error))?;
        Ok(versions.with_root_certificates(roots).with_no_client_auth())
    }
}
