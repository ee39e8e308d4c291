//! A cluster CA and certificates of its nodes, for tests.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use std::path::{Path, PathBuf};

pub struct Files {
    pub ca: PathBuf,
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// `names` get a certificate each (several names of one with commas); the n-th one's files are in the n-th answer.
pub fn cluster(dir: &Path, names: &[&str]) -> Vec<Files> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let tag: u64 = std::fs::read_dir(dir).unwrap().count() as u64;
    let ca_path = dir.join(format!("ca{tag}.pem"));
    std::fs::write(&ca_path, ca.pem()).unwrap();
    names
        .iter()
        .map(|name| {
            let key = KeyPair::generate().unwrap();
            let cert = CertificateParams::new(name.split(',').map(str::to_owned).collect::<Vec<_>>())
                .unwrap()
                .signed_by(&key, &ca)
                .unwrap();
            let files = Files {
                ca: ca_path.clone(),
                cert: dir.join(format!("{name}{tag}.pem")),
                key: dir.join(format!("{name}{tag}.key")),
            };
            std::fs::write(&files.cert, cert.pem()).unwrap();
            std::fs::write(&files.key, key.serialize_pem()).unwrap();
            files
        })
        .collect()
}
