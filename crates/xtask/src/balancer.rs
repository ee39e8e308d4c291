//! HAProxy on a host of a lab that is no node, told what a cloud's load balancer is told: which servers, and how to ask whether they serve.

use crate::cluster::Cluster;
use std::path::Path;
use std::process::Child;

/// Time between two probes of one server. One that takes as long has failed.
pub const EVERY_MS: u64 = 1_000;
/// Failures in a row after which a server is sent nothing any more; successes after which it is again.
pub const THRESHOLD: u64 = 2;

/// What is dealt out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// Requests.
    Http,
    /// Connections; those of a server that fails are ended.
    Tcp,
}

/// Running. It ends with this.
pub struct Balancer(Child);

impl Balancer {
    /// Listens on `client`, port `listen` of its own, in front of `servers` (name and address with port), of which each is asked
    /// for `module`'s health URL.
    pub fn start(
        cluster: &Cluster,
        dir: &Path,
        module: &str,
        (mode, listen): (Mode, u16),
        servers: &[(&str, String)],
    ) -> anyhow::Result<Self> {
        let (word, more) = match mode {
            Mode::Http => ("http", ""),
            Mode::Tcp => ("tcp", " on-marked-down shutdown-sessions"),
        };
        let servers: String = servers
            .iter()
            .map(|(name, addr)| {
                format!(
                    " server {name} {addr} check port 9010 inter {EVERY_MS}ms fall {THRESHOLD} rise {THRESHOLD}{more}\n"
                )
            })
            .collect();
        let configuration = format!(
            "global\n maxconn 1000\ndefaults\n mode {word}\n timeout connect 1s\n timeout client 5s\n timeout server 5s\n retries 0\nlisten {module}\n bind 127.0.0.1:{listen}\n balance roundrobin\n option httpchk GET /var/modules/{module}/ready.txt\n http-check expect status 200\n{servers}"
        );
        let path = dir.join("haproxy.cfg");
        std::fs::write(&path, configuration)?;
        let arguments = ["haproxy", "-db", "-f", &path.to_string_lossy()];
        Ok(Self(cluster.spawn("client", &arguments, &dir.join("haproxy.log"))?))
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        if let Err(error) = self.0.kill().and_then(|()| self.0.wait()) {
            eprintln!("ending the load balancer: {error}");
        }
    }
}
