//! Garbage on every port: nothing is disturbed, nothing answers without authentication but the health URL.

use super::{Check, SHOP, Site};
use anyhow::{Context, bail, ensure};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

pub(super) const CHECKS: &[Check] =
    &[("garbage on every port; strangers learn nothing", everywhere), ("the health URL: one bit, one path", health)];

const PORTS: [u16; 6] = [9453, 5600, 5604, 5608, 9454, 9010];

fn everywhere(site: &Site) -> anyhow::Result<()> {
    let moved = |site: &Site| site.cluster.view("node1", SHOP).map(|v| v["since_unix_ms"].clone());
    let (before, since) = (moved(site), crate::stories::now_ms());
    // Not this program itself: the build of everything may have replaced it meanwhile.
    let me = site.cluster.programs().join("xtask");
    let pesters: Vec<_> = ["10.0.1.1", "10.0.1.2"]
        .iter()
        .map(|addr| {
            site.cluster.spawn(
                "client",
                &[&me.to_string_lossy(), "pester", addr],
                &site.folder.join(format!("pester-{addr}")),
            )
        })
        .collect::<Result<_, _>>()?;
    for (mut pester, addr) in pesters.into_iter().zip(["10.0.1.1", "10.0.1.2"]) {
        while pester.try_wait()?.is_none() {
            site.ok("node1", &["state"])?;
            ensure!(moved(site) == before, "the module's state changed: {}", site.reason("node1", SHOP));
        }
        let said = std::fs::read_to_string(site.folder.join(format!("pester-{addr}")))?;
        ensure!(pester.wait()?.success(), "{said}");
    }
    let outage = site.load.outage_ms(since);
    ensure!(outage < 2_000, "the clients paused for {outage} ms");
    // TLS without a certificate: a stranger, who may only ask to join.
    for path in ["/v1/modules", "/v1/node", "/v1/cluster", "/v1/peer/numbers", "/v1/modules/shop/state", "/"] {
        let url = format!("https://10.0.1.1:9453{path}");
        let answer = site.cluster.try_exec("client", &["curl", "-sk", "-m", "3", "-w", "%{http_code}", &url])?;
        ensure!(!answer.stdout.contains("200") && !answer.stdout.contains("node1"), "{path}: {}", answer.stdout);
    }
    Ok(())
}

fn health(site: &Site) -> anyhow::Result<()> {
    let status = |addr: &str, path: &str, method: &str| {
        let url = format!("http://{addr}:9010{path}");
        site.cluster
            .exec("client", &["curl", "-s", "-o", "/dev/null", "-m", "3", "-X", method, "-w", "%{http_code}", &url])
    };
    let ready = format!("/var/modules/{SHOP}/ready.txt");
    ensure!(status("10.0.1.1", &ready, "GET")? == "200");
    ensure!(status("10.0.1.2", &ready, "GET")? == "404");
    for path in [
        "/",
        "/var/modules/nix/ready.txt",
        "/var/modules/../../etc/passwd",
        "/v1/modules",
        "/var/modules/shop/ready.txt/",
    ] {
        ensure!(status("10.0.1.1", path, "GET")? == "404", "{path}");
    }
    ensure!(status("10.0.1.1", &ready, "POST")? != "200");
    Ok(())
}

/// Run inside the client host: throws garbage at one node, and fails when something answers it.
///
/// # Errors
/// The port, and what it answered.
pub fn pester(addr: IpAddr) -> anyhow::Result<()> {
    let udp = UdpSocket::bind("0.0.0.0:0")?;
    let noise = noise(64 * 1024);
    for i in 0..3_000usize {
        let from = i * 7 % 60_000;
        // A refused port answers with ICMP, which is an error here, and no matter.
        let _ = udp.send_to(&noise[from..from + i % 1_400], (addr, 4800));
    }
    udp.set_read_timeout(Some(Duration::from_millis(200)))?;
    ensure!(udp.recv(&mut [0; 64]).is_err(), "UDP 4800 answers a stranger");
    let mut held = Vec::new();
    for port in PORTS {
        let to = SocketAddr::new(addr, port);
        if !knock(to, &noise[..8192], port)? {
            continue;
        }
        knock(to, b"GET /v1/modules HTTP/1.1\r\nHost: x\r\n\r\n", port)?;
        knock(to, b"POST /v1/modules/shop/command HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n{", port)?;
        knock(to, &[0; 4096], port)?;
        knock(to, &[0x16, 3, 1, 0x40, 0, 1, 0, 0x3f, 0xfc, 3, 3], port)?;
        for i in 0..100usize {
            if let Ok(mut stream) = TcpStream::connect_timeout(&to, Duration::from_millis(500)) {
                // Half of them say the beginning of something.
                if i % 2 == 0 {
                    let _ = stream.write_all(&noise[..i]);
                }
                held.push(stream);
            }
        }
    }
    std::thread::sleep(Duration::from_secs(2));
    println!("{} connections were held", held.len());
    Ok(())
}

/// Says `words` and listens; `false`: nobody there. The answer may be a TLS alert, or the health URL's 404.
fn knock(to: SocketAddr, words: &[u8], port: u16) -> anyhow::Result<bool> {
    let mut stream = match TcpStream::connect_timeout(&to, Duration::from_secs(2)) {
        Ok(stream) => stream,
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => return Ok(false),
        Err(error) => return Err(error).with_context(|| format!("connecting to {to}")),
    };
    stream.set_read_timeout(Some(Duration::from_millis(300)))?;
    let _ = stream.write_all(words);
    let mut answer = [0; 512];
    let read = stream.read(&mut answer).unwrap_or(0);
    let answer = &answer[..read];
    let is_health = port == 9010 && (answer.starts_with(b"HTTP/1.1 4") || answer.starts_with(b"HTTP/1.0 4"));
    if !answer.is_empty() && answer[0] != 0x15 && !is_health {
        bail!("{to} answers a stranger: {}", String::from_utf8_lossy(answer));
    }
    Ok(true)
}

/// Bytes without a pattern, the same in every run.
fn noise(bytes: usize) -> Vec<u8> {
    let mut x = 0x9e37_79b9_7f4a_7c15_u64;
    (0..bytes)
        .map(|_| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            x.to_le_bytes()[3]
        })
        .collect()
}
