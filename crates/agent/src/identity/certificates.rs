//! The cluster's own certificate authority, and the certificates of its members.
//!
//! Clocks prove nothing here: every certificate is valid from 2000 to 9999, so that two nodes whose clocks disagree by
//! years still recognise each other. Who is a member is decided by the chain to the pinned authority *and* by the list
//! of members in the applied configuration; taking a node off that list is how it is shut out.

use super::random;
use crate::transport::PeerRole;
use model::{ClusterId, NodeId, NodeName};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SerialNumber, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer, ServerName, pem::PemObject as _};

/// A certificate could not be made or read. Nothing was stored.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// From the certificate library.
    #[error("cannot make a certificate")]
    Make(#[from] rcgen::Error),
    /// Not PEM, or no certificate inside.
    #[error("the authority's certificate cannot be read")]
    Read(#[from] rustls::pki_types::pem::Error),
    /// The name cannot stand in a certificate.
    #[error("'{0}' cannot be the name of a node: use letters, digits and dashes, as in a host name")]
    Name(NodeName),
}

/// The TLS name of a member: `NODE.CLUSTERIDHEX.stead`.
#[must_use]
pub fn dns_name(cluster: ClusterId, name: &NodeName) -> String {
    format!("{name}.{:016x}.stead", cluster.0)
}

/// The second TLS name: `NUMBER.id.CLUSTERIDHEX.stead`. A number is never given twice, a name may be.
#[must_use]
pub fn number_dns_name(cluster: ClusterId, node: NodeId) -> String {
    format!("{}.id.{:016x}.stead", node.0, cluster.0)
}

/// What tells a member's certificate from every other, also from one that the same authority signed for the same name: a member keeps
/// the one it was admitted with.
#[must_use]
pub fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    super::to_hex(&blake3::derive_key(model::orders::CERTIFICATE_CONTEXT, certificate))
}

/// The same, of a certificate that was just made.
pub(crate) fn fingerprint_of_pem(certificate_pem: &str) -> Result<String, CertificateError> {
    Ok(fingerprint(&CertificateDer::from_pem_slice(certificate_pem.as_bytes())?))
}

/// The authority: certificate and key.
pub struct Authority {
    pem: String,
    der: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// A new one.
    ///
    /// # Errors
    /// [`CertificateError::Make`].
    pub fn create(cluster: ClusterId) -> Result<(Self, String), CertificateError> {
        let key = KeyPair::generate()?;
        let key_pem = key.serialize_pem();
        let mut params = base(format!("Stead cluster {:016x}", cluster.0));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key)?;
        Ok((Self { pem: certificate.pem(), der: certificate.der().clone(), issuer: Issuer::new(params, key) }, key_pem))
    }

    /// The one in these files.
    ///
    /// # Errors
    /// Unreadable PEM.
    pub fn load(certificate_pem: &str, key_pem: &str) -> Result<Self, CertificateError> {
        let key = KeyPair::from_pem(key_pem)?;
        let der = CertificateDer::from_pem_slice(certificate_pem.as_bytes())?;
        Ok(Self { pem: certificate_pem.to_owned(), issuer: Issuer::from_ca_cert_der(&der, key)?, der })
    }

    /// Certificate as PEM.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// Certificate as DER.
    #[must_use]
    pub const fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// Signs a member's public key. Of the request only the key is taken: names and rights are the authority's to give.
    ///
    /// # Errors
    /// A request that is malformed or not signed by its own key; a name that no certificate can carry.
    pub fn sign(
        &self,
        request_der: &[u8],
        cluster: ClusterId,
        node: NodeId,
        name: &NodeName,
        role: PeerRole,
    ) -> Result<String, CertificateError> {
        let names = vec![dns_name(cluster, name), number_dns_name(cluster, node)];
        if ServerName::try_from(names[0].as_str()).is_err() {
            return Err(CertificateError::Name(name.clone()));
        }
        let mut request = CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(request_der))?;
        let mut params =
            base(format!("{name} {} {}", if role == PeerRole::Witness { "witness" } else { "node" }, node.0));
        params.subject_alt_names = CertificateParams::new(names)?.subject_alt_names;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        request.params = params;
        Ok(request.signed_by(&self.issuer)?.pem())
    }
}

/// A member's key pair, before and while it has a certificate.
pub struct NodeKey {
    /// PKCS#8 PEM.
    pub pem: String,
    /// Request for a certificate (DER), signed by the key.
    pub request: Vec<u8>,
}

impl NodeKey {
    /// A new one.
    ///
    /// # Errors
    /// [`CertificateError::Make`].
    pub fn create() -> Result<Self, CertificateError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        let request = params.serialize_request(&key)?;
        Ok(Self { pem: key.serialize_pem(), request: request.der().to_vec() })
    }
}

fn base(common_name: String) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.not_before = date_time_ymd(2000, 1, 1);
    params.not_after = date_time_ymd(9999, 12, 31);
    params.serial_number = Some(SerialNumber::from_slice(&{
        let mut serial = random::<16>();
        serial[0] &= 0x7f; // positive
        serial
    }));
    params
}
