//! One certificate authority per test process, one certificate per bench; all benches have the same name.

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use std::path::Path;
use std::sync::OnceLock;

pub const NAME: &str = "node.test.stead";

struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

fn authority() -> &'static Authority {
    static AUTHORITY: OnceLock<Authority> = OnceLock::new();
    AUTHORITY.get_or_init(|| {
        let key = KeyPair::generate().expect("key");
        let mut parameters = CertificateParams::new(vec![]).expect("parameters");
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = parameters.self_signed(&key).expect("certificate").pem();
        Authority { pem, issuer: Issuer::new(parameters, key) }
    })
}

/// `ca.pem`, `cert.pem`, `key.pem` in `home`, unless they are there.
pub fn make(home: &Path) {
    if home.join("key.pem").exists() {
        return;
    }
    let key = KeyPair::generate().expect("key");
    let parameters = CertificateParams::new(vec![NAME.into()]).expect("parameters");
    let certificate = parameters.signed_by(&key, &authority().issuer).expect("certificate");
    std::fs::write(home.join("ca.pem"), &authority().pem).expect("write");
    std::fs::write(home.join("cert.pem"), certificate.pem()).expect("write");
    std::fs::write(home.join("key.pem"), key.serialize_pem()).expect("write");
}
