//! The floor: what two nodes and one wire cost without any file system between. Write here and send; sync here
//! while the other side writes and syncs; wait for its word. One TCP connection with TLS 1.3, one writer.

use crate::latency::{Figures, Latencies};
use anyhow::Context;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

const BLOCK: usize = 4096;
/// Blocks of the file.
const BLOCKS: u64 = 2048;
const NAME: &str = "floor";

fn certificate(tls: &Path) -> anyhow::Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
    let cert = CertificateDer::from_pem_file(tls.join("cert.pem")).context("cert.pem")?;
    Ok((vec![cert], PrivateKeyDer::from_pem_file(tls.join("key.pem")).context("key.pem")?))
}

pub fn serve(at: SocketAddr, tls: &Path, path: &Path) -> anyhow::Result<()> {
    let (chain, key) = certificate(tls)?;
    let config = Arc::new(ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key)?);
    let file = File::create(path)?;
    file.write_all_at(&vec![7; BLOCK * BLOCKS as usize], 0)?;
    for socket in TcpListener::bind(at)?.incoming() {
        let socket = socket?;
        socket.set_nodelay(true)?;
        let mut wire = StreamOwned::new(ServerConnection::new(config.clone())?, socket);
        let mut message = [0; 8 + BLOCK];
        while wire.read_exact(&mut message).is_ok() {
            let offset = u64::from_le_bytes(*message.first_chunk().expect("eight bytes"));
            file.write_all_at(&message[8..], offset)?;
            file.sync_all()?;
            wire.write_all(&[1])?;
            wire.flush()?;
        }
    }
    Ok(())
}

pub fn run(to: SocketAddr, tls: &Path, path: &Path, ms: u64) -> anyhow::Result<Figures> {
    let mut authorities = RootCertStore::empty();
    authorities.add(CertificateDer::from_pem_file(tls.join("ca.pem"))?)?;
    let config = ClientConfig::builder().with_root_certificates(authorities).with_no_client_auth();
    let socket = TcpStream::connect(to)?;
    socket.set_nodelay(true)?;
    let name = ServerName::try_from(NAME)?;
    let mut wire = StreamOwned::new(ClientConnection::new(Arc::new(config), name)?, socket);
    let file = File::create(path)?;
    file.write_all_at(&vec![7; BLOCK * BLOCKS as usize], 0)?;
    file.sync_all()?;
    let (mut latencies, begin) = (Latencies::default(), Instant::now());
    let (mut message, mut block) = ([0u8; 8 + BLOCK], 1u64);
    while begin.elapsed() < Duration::from_millis(ms) {
        block = block.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let offset = (block >> 33) % BLOCKS * BLOCK as u64;
        message[..8].copy_from_slice(&offset.to_le_bytes());
        message[8..16].copy_from_slice(&block.to_le_bytes());
        let one = Instant::now();
        file.write_all_at(&message[8..], offset)?;
        wire.write_all(&message)?;
        wire.flush()?;
        file.sync_all()?;
        wire.read_exact(&mut [0])?;
        latencies.add(one.elapsed());
    }
    Ok(latencies.figures(begin.elapsed()))
}
