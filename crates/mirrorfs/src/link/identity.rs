//! Who we are and whom we believe: the cluster's CA, this node's certificate and key, the peer's name and number.
//!
//! A name may be given again, to the machine that takes the place of another; a number is not.

use super::LinkError;
use model::orders::Configuration;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

/// TLS settings of both directions; there is no plaintext mode and nothing older than TLS 1.3.
#[derive(Clone)]
pub struct Identity {
    pub(super) client: Arc<ClientConfig>,
    pub(super) server: Arc<ServerConfig>,
    pub(super) peer: ServerName<'static>,
    /// `None`: of an agent that did not say it.
    number: Arc<Mutex<Option<ServerName<'static>>>>,
    /// Where the peer calls from.
    pub(super) peer_addrs: Vec<IpAddr>,
}

fn bad(what: &'static str, path: &str, why: impl std::fmt::Display) -> LinkError {
    LinkError::Identity { what, path: path.to_owned(), why: why.to_string() }
}

fn number_of(configuration: &Configuration) -> Result<Option<ServerName<'static>>, LinkError> {
    let number = &configuration.peer_number;
    let name = (!number.is_empty()).then(|| ServerName::try_from(number.clone()));
    name.transpose().map_err(|e| bad("the peer's number", number, e))
}

impl Identity {
    /// Reads the PEM files.
    ///
    /// # Errors
    /// [`LinkError::Identity`] names the file and the cause.
    pub fn load(configuration: &Configuration) -> Result<Self, LinkError> {
        let certificates = |what, path: &str| -> Result<Vec<CertificateDer<'static>>, LinkError> {
            let list: Result<Vec<_>, _> =
                CertificateDer::pem_file_iter(path).map_err(|e| bad(what, path, e))?.collect();
            match list {
                Ok(list) if !list.is_empty() => Ok(list),
                Ok(_) => Err(bad(what, path, "no certificate in it")),
                Err(e) => Err(bad(what, path, e)),
            }
        };
        let ca = "the cluster's CA";
        let mut roots = RootCertStore::empty();
        for certificate in certificates(ca, &configuration.tls_ca)? {
            roots.add(certificate).map_err(|e| bad(ca, &configuration.tls_ca, e))?;
        }
        let own = "this node's certificate";
        let chain = certificates(own, &configuration.tls_cert)?;
        let what = "this node's key";
        let key =
            PrivateKeyDer::from_pem_file(&configuration.tls_key).map_err(|e| bad(what, &configuration.tls_key, e))?;
        let peer = ServerName::try_from(configuration.peer_name.clone())
            .map_err(|e| bad("the peer's name", &configuration.peer_name, e))?;

        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let versions = [&rustls::version::TLS13];
        let roots = Arc::new(roots);
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
            .build()
            .map_err(|e| bad(ca, &configuration.tls_ca, e))?;
        let client = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&versions)?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain.clone(), key.clone_key())
            .map_err(|e| bad(own, &configuration.tls_cert, e))?;
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&versions)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .map_err(|e| bad(own, &configuration.tls_cert, e))?;
        // A ticket would be a message against the direction of the connection.
        server.send_tls13_tickets = 0;
        let addrs = configuration.peer_addrs.iter().filter_map(|addr| addr.parse::<SocketAddr>().ok());
        Ok(Self {
            client: Arc::new(client),
            server: Arc::new(server),
            peer,
            number: Arc::new(Mutex::new(number_of(configuration)?)),
            peer_addrs: addrs.map(|addr| addr.ip()).collect(),
        })
    }

    /// Another machine has the peer's name from now on: it and nobody else is believed, by every copy of this.
    ///
    /// # Errors
    /// [`LinkError::Identity`]; whoever was believed still is.
    pub fn follow(&self, configuration: &Configuration) -> Result<(), LinkError> {
        let number = number_of(configuration)?;
        *self.number.lock().unwrap_or_else(PoisonError::into_inner) = number;
        Ok(())
    }

    /// Is whoever showed this certificate the peer? (That it chains to the CA was looked at by TLS.)
    pub(super) fn is_peer(&self, certificates: Option<&[CertificateDer<'static>]>) -> Result<(), LinkError> {
        let certificate = certificates.and_then(<[_]>::first);
        let certificate = certificate.ok_or_else(|| LinkError::Protocol("no certificate".into()))?;
        let parsed = ParsedCertificate::try_from(certificate)?;
        rustls::client::verify_server_name(&parsed, &self.peer)?;
        match &*self.number.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(number) => Ok(rustls::client::verify_server_name(&parsed, number)?),
            None => Ok(()),
        }
    }
}
