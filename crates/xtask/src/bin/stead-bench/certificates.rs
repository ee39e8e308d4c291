//! Identities of two data planes that only a benchmark knows.

use anyhow::Context;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use std::path::Path;

/// `DIR/NAME/{ca,cert,key}.pem` for each name.
pub fn make(dir: &Path, names: &[String]) -> anyhow::Result<()> {
    let mut parameters = CertificateParams::new(Vec::new())?;
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(parameters, KeyPair::generate()?)?;
    for name in names {
        let home = dir.join(name);
        std::fs::create_dir_all(&home).with_context(|| format!("cannot make {}", home.display()))?;
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new(vec![name.clone()])?.signed_by(&key, &authority)?;
        std::fs::write(home.join("ca.pem"), authority.pem())?;
        std::fs::write(home.join("cert.pem"), certificate.pem())?;
        std::fs::write(home.join("key.pem"), key.serialize_pem())?;
    }
    Ok(())
}
