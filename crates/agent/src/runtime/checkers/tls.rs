//! TLS to what is checked: whether it speaks, and how long its certificate is good. Whom it belongs to is not asked: a
//! service inside the cluster often has a certificate of its own making.

use crate::transport::tls::provider;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Whoever it is: a signature by a key that says nothing of whose it is proves nothing, and certificates that libraries of today do not take
/// (of version 1, with short keys or extensions unknown to them) are in use inside many a cluster.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        use SignatureScheme as S;
        vec![
            S::ECDSA_NISTP256_SHA256,
            S::ECDSA_NISTP384_SHA384,
            S::ECDSA_NISTP521_SHA512,
            S::ED25519,
            S::ED448,
            S::RSA_PSS_SHA256,
            S::RSA_PSS_SHA384,
            S::RSA_PSS_SHA512,
            S::RSA_PKCS1_SHA256,
            S::RSA_PKCS1_SHA384,
            S::RSA_PKCS1_SHA512,
            S::ECDSA_SHA1_Legacy,
            S::RSA_PKCS1_SHA1,
        ]
    }
}

/// Shakes hands; with `good_for_ms`, the certificate must be good for so much longer.
///
/// # Errors
/// The sentence why not.
pub async fn connect(stream: TcpStream, host: &str, good_for_ms: u64) -> Result<TlsStream<TcpStream>, String> {
    let provider = provider();
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody))
        .with_no_client_auth();
    let name = ServerName::try_from(host.to_string()).map_err(|error| error.to_string())?;
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(|error| error.to_string())?;
    let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let left = certificate.ok_or("it shows no certificate").and_then(|it| left(it, SystemTime::now()))?;
    match left {
        None => Err("its certificate has expired".into()),
        Some(left) if left < Duration::from_millis(good_for_ms) => {
            Err(format!("its certificate expires in {} h", left.as_secs() / 3600))
        }
        Some(_) => Ok(stream),
    }
}

/// How long a certificate is good from `now` on; `None`: it is not.
fn left(certificate: &CertificateDer<'_>, now: SystemTime) -> Result<Option<Duration>, &'static str> {
    let (_, parsed) =
        x509_parser::parse_x509_certificate(certificate).map_err(|_| "its certificate cannot be understood")?;
    let until = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0);
    Ok((UNIX_EPOCH + Duration::from_secs(until)).duration_since(now).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_of_a_certificate() {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["a".to_string()]).unwrap();
        params.not_after = rcgen::date_time_ymd(2027, 1, 1);
        let certificate = params.self_signed(&key).unwrap();
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let new_year = 1_798_761_600;
        assert_eq!(left(certificate.der(), at(new_year - 60)), Ok(Some(Duration::from_secs(60))));
        assert_eq!(left(certificate.der(), at(new_year + 1)), Ok(None));
        assert!(left(&CertificateDer::from(vec![1, 2, 3]), at(0)).is_err());
    }
}
