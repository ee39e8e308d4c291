//! TLS 1.3 with the cluster's own authority and nothing else: no other root, version, session ticket or resumption
//! (a resumed session would carry the rights of a member that has been taken off the list).

use crate::cluster_config::Member;
use crate::identity::{Identity, fingerprint, number_dns_name};
use crate::pairing::Token;
use crate::transport::Peer;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};
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

/// For a machine that wants to join: it knows the authority's fingerprint only, and has no certificate.
pub(crate) fn joiner_config(token: Token) -> Result<Arc<ClientConfig>, TlsError> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Fingerprint {
            token,
            algorithms: provider().signature_verification_algorithms,
        }))
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// Accepts a server only when its chain ends in the authority that the token names. The server's own name is not
/// known yet; it is proven with the token instead.
#[derive(Debug)]
struct Fingerprint {
    token: Token,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Fingerprint {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let ca = intermediates
            .iter()
            .find(|certificate| self.token.is_of(certificate))
            .ok_or(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer))?;
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone().into_owned())?;
        let end_entity = ParsedCertificate::try_from(end_entity)?;
        verify_server_cert_signed_by_trust_anchor(&end_entity, &roots, &[], now, self.algorithms.all)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2 is not spoken".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// What TLS said, when it was TLS that refused. In TLS 1.3 a client learns only with the first answer that its own
/// certificate was refused, so this is asked of every error.
pub(crate) fn rustls_error<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a rustls::Error> {
    let mut source = Some(error);
    while let Some(error) = source {
        if let Some(tls) = error.downcast_ref::<rustls::Error>() {
            return Some(tls);
        }
        source = match error.downcast_ref::<std::io::Error>() {
            Some(io) => io.get_ref().map(|inner| inner as &(dyn std::error::Error + 'static)),
            None => error.source(),
        };
    }
    None
}

/// Which of these members a verified certificate belongs to: both its name and its number must be in it, and it must be the one that this
/// member was given. (Every node has the authority's key, also one that has been taken off the list.)
pub(crate) fn member_of<'a>(
    identity: &Identity,
    members: impl IntoIterator<Item = &'a Member>,
    certificate: &CertificateDer<'_>,
) -> Option<Peer> {
    let parsed = ParsedCertificate::try_from(certificate).ok()?;
    let carries =
        |name: String| ServerName::try_from(name).is_ok_and(|name| verify_server_name(&parsed, &name).is_ok());
    let shown = fingerprint(certificate);
    members
        .into_iter()
        .find(|member| {
            carries(identity.dns_name_of(&member.name))
                && carries(number_dns_name(identity.cluster, member.id))
                && member.certificate.as_ref().is_none_or(|given| *given == shown)
        })
        .map(|member| Peer { node: member.id, name: member.name.clone(), role: member.role })
}
