//! Who we are and whom we believe: the cluster's CA, this node's certificate and key, the peer's name, number and certificate.
//!
//! A name may be given again, to the machine that takes the place of another; a number is not. Whoever has the authority's key can sign
//! both: the peer is who shows the certificate that it was admitted with.

use super::LinkError;
use model::orders::{CERTIFICATE_CONTEXT, Configuration};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// TLS settings of both directions; there is no plaintext mode and nothing older than TLS 1.3.
#[derive(Clone)]
pub struct Identity {
    pub(super) client: Arc<ClientConfig>,
    pub(super) server: Arc<ServerConfig>,
    pub(super) peer: ServerName<'static>,
    /// Whoever has the peer's name now, and where both are.
    bearer: Arc<Mutex<Bearer>>,
}

/// What tells the machine that has the peer's name from others that had it, or claim it (`None`: of an agent that did not say it), and what
/// of the cluster's configuration may become another while a module runs: addresses.
struct Bearer {
    number: Option<ServerName<'static>>,
    /// Fingerprint.
    certificate: Option<String>,
    /// Where the peer is.
    there: Vec<SocketAddr>,
    /// Where this node is.
    here: Vec<SocketAddr>,
}

fn bad(what: &'static str, path: &str, why: impl std::fmt::Display) -> LinkError {
    LinkError::Identity { what, path: path.to_owned(), why: why.to_string() }
}

impl Bearer {
    fn of(configuration: &Configuration) -> Result<Self, LinkError> {
        let (number, certificate) = (&configuration.peer_number, &configuration.peer_certificate);
        let name = (!number.is_empty()).then(|| ServerName::try_from(number.clone()));
        let number = name.transpose().map_err(|e| bad("the peer's number", number, e))?;
        Ok(Self {
            number,
            certificate: (!certificate.is_empty()).then(|| certificate.clone()),
            there: addresses(&configuration.peer_addrs)?,
            here: addresses(&configuration.listen_addrs)?,
        })
    }
}

/// `ip:port` texts of the configuration.
fn addresses(texts: &[String]) -> Result<Vec<SocketAddr>, LinkError> {
    texts
        .iter()
        .map(|t| t.parse().map_err(|_| LinkError::Protocol(format!("'{t}' in the configuration is not ip:port"))))
        .collect()
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
        Ok(Self {
            client: Arc::new(client),
            server: Arc::new(server),
            peer,
            bearer: Arc::new(Mutex::new(Bearer::of(configuration)?)),
        })
    }

    fn bearer(&self) -> MutexGuard<'_, Bearer> {
        self.bearer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the peer is now.
    #[must_use]
    pub fn there(&self) -> Vec<SocketAddr> {
        self.bearer().there.clone()
    }

    /// Where this node is now.
    #[must_use]
    pub fn here(&self) -> Vec<SocketAddr> {
        self.bearer().here.clone()
    }

    /// Does the peer call from here?
    pub(super) fn is_there(&self, from: IpAddr) -> bool {
        self.bearer().there.iter().any(|addr| addr.ip() == from)
    }

    /// Another machine has the peer's name from now on, or one of the two has other addresses: it and nobody else is believed, by every
    /// copy of this, and called where it is.
    ///
    /// # Errors
    /// [`LinkError::Identity`]; whoever was believed still is.
    pub fn follow(&self, configuration: &Configuration) -> Result<(), LinkError> {
        let bearer = Bearer::of(configuration)?;
        *self.bearer() = bearer;
        Ok(())
    }

    /// Is whoever showed this certificate the peer? (That it chains to the CA was looked at by TLS.)
    pub(super) fn is_peer(&self, certificates: Option<&[CertificateDer<'static>]>) -> Result<(), LinkError> {
        let certificate = certificates.and_then(<[_]>::first);
        let certificate = certificate.ok_or_else(|| LinkError::Protocol("no certificate".into()))?;
        let parsed = ParsedCertificate::try_from(certificate)?;
        rustls::client::verify_server_name(&parsed, &self.peer)?;
        let bearer = self.bearer();
        if let Some(number) = &bearer.number {
            rustls::client::verify_server_name(&parsed, number)?;
        }
        let shown = blake3::Hash::from(blake3::derive_key(CERTIFICATE_CONTEXT, certificate));
        if bearer.certificate.as_ref().is_some_and(|given| *given != shown.to_hex().as_str()) {
            return Err(LinkError::Protocol("a certificate of the peer's name that it was not admitted with".into()));
        }
        Ok(())
    }
}
