//! TLS 1.3 with the cluster's own authority and nothing else: no other root, version, session ticket or resumption
//! (a resumed session would carry the rights of a member that has been taken off the list).

use crate::identity::{Identity, number_dns_name};
use crate::transport::{Peer, PeerRole};
use model::{NodeId, NodeName};
use rustls::client::Resumption;
use rustls::client::verify_server_name;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use std::sync::Arc;

/// The identity cannot be used for TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Not PEM.
    #[error("a certificate or key is not PEM: {0}")]
    Pem(#[from] rustls::pki_types::pem::Error),
    /// Certificate and key do not belong together, or not to the authority.
    #[error("certificate, key and authority do not fit together: {0}")]
    Rustls(#[from] rustls::Error),
    /// The authority's certificate cannot verify anybody.
    #[error("the authority's certificate is unusable: {0}")]
    Verifier(#[from] rustls::client::VerifierBuilderError),
}

pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn roots(ca_pem: &str) -> Result<Arc<RootCertStore>, TlsError> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca_pem.as_bytes())?)?;
    Ok(Arc::new(roots))
}

/// Own certificate, then the authority's: a joiner that knows only a fingerprint must see it.
fn chain(identity: &Identity) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    Ok(vec![
        CertificateDer::from_pem_slice(identity.certificate_pem.as_bytes())?,
        CertificateDer::from_pem_slice(identity.ca_pem.as_bytes())?,
    ])
}

/// For accepting members; with `strangers`, clients without a certificate too (they reach the join endpoint only).
pub(crate) fn server_config(identity: &Identity, strangers: bool) -> Result<Arc<ServerConfig>, TlsError> {
    let verifier = WebPkiClientVerifier::builder_with_provider(roots(&identity.ca_pem)?, provider());
    let verifier = if strangers { verifier.allow_unauthenticated() } else { verifier };
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier.build()?)
        .with_single_cert(chain(identity)?, PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes())?)?;
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(Arc::new(config))
}

/// For calling members.
pub(crate) fn client_config(identity: &Identity) -> Result<Arc<ClientConfig>, TlsError> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_root_certificates(roots(&identity.ca_pem)?)
        .with_client_auth_cert(chain(identity)?, PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes())?)?;
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// Which of these members a verified certificate belongs to: both its name and its number must be in it.
pub(crate) fn member_of(
    identity: &Identity,
    members: impl IntoIterator<Item = (NodeId, NodeName, PeerRole)>,
    certificate: &CertificateDer<'_>,
) -> Option<Peer> {
    let certificate = ParsedCertificate::try_from(certificate).ok()?;
    let carries = |name: String| ServerName::try_from(name).is_ok_and(|name| verify_server_name(&certificate, &name).is_ok());
    members
        .into_iter()
        .find(|(node, name, _)| {
            carries(identity.dns_name_of(name)) && carries(number_dns_name(identity.cluster, *node))
        })
        .map(|(node, name, role)| Peer { node, name, role })
}
