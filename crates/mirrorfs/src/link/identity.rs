//! Who we are and whom we believe: the cluster's CA, this node's certificate and key, the peer's name.

use super::LinkError;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use std::sync::Arc;

/// TLS settings of both directions; there is no plaintext mode and nothing older than TLS 1.3.
#[derive(Clone)]
pub struct Identity {
    pub(super) client: Arc<ClientConfig>,
    pub(super) server: Arc<ServerConfig>,
    pub(super) peer: ServerName<'static>,
}

impl Identity {
    /// Reads the PEM files.
    ///
    /// # Errors
    /// [`LinkError::Identity`] names the file and the cause.
    pub fn load(configuration: &model::orders::Configuration) -> Result<Self, LinkError> {
        let bad = |what, path: &str, why: String| LinkError::Identity { what, path: path.to_owned(), why };
        let certificates = |what, path: &str| -> Result<Vec<CertificateDer<'static>>, LinkError> {
            let list: Result<Vec<_>, _> =
                CertificateDer::pem_file_iter(path).map_err(|e| bad(what, path, e.to_string()))?.collect();
            match list {
                Ok(list) if !list.is_empty() => Ok(list),
                Ok(_) => Err(bad(what, path, "no certificate in it".into())),
                Err(e) => Err(bad(what, path, e.to_string())),
            }
        };
        let ca = "the cluster's CA";
        let mut roots = RootCertStore::empty();
        for certificate in certificates(ca, &configuration.tls_ca)? {
            roots.add(certificate).map_err(|e| bad(ca, &configuration.tls_ca, e.to_string()))?;
        }
        let own = "this node's certificate";
        let chain = certificates(own, &configuration.tls_cert)?;
        let what = "this node's key";
        let key = PrivateKeyDer::from_pem_file(&configuration.tls_key)
            .map_err(|e| bad(what, &configuration.tls_key, e.to_string()))?;
        let peer = ServerName::try_from(configuration.peer_name.clone())
            .map_err(|e| bad("the peer's name", &configuration.peer_name, e.to_string()))?;

        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let versions = [&rustls::version::TLS13];
        let roots = Arc::new(roots);
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
            .build()
            .map_err(|e| bad(ca, &configuration.tls_ca, e.to_string()))?;
        let client = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&versions)?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain.clone(), key.clone_key())
            .map_err(|e| bad(own, &configuration.tls_cert, e.to_string()))?;
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&versions)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .map_err(|e| bad(own, &configuration.tls_cert, e.to_string()))?;
        // A ticket would be a message against the direction of the connection.
        server.send_tls13_tickets = 0;
        Ok(Self { client: Arc::new(client), server: Arc::new(server), peer })
    }
}
