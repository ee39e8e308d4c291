//! One checker at work: a look, a pause, the next look.

use super::super::agent::Agent;
use super::super::module::Input;
use super::super::peer_macs::PeerMacs;
use super::{custom, tls};
use cluster::watch::{Finding, Outcome};
use model::patterns::Expression;
use model::schema::checkers::{Check, Probe};
use model::schema::module::Heartbeat;
use model::{ModuleName, ModuleState, NodeName, Status};
use platform::net::link_events::LinkEvents;
use platform::net::{Network, neighbour, ping};
use platform::probe::{self, Look, http};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

/// Of so many looks at an address, one asks whether somebody else has it, too.
const DUPLICATE_EVERY: u32 = 10;

/// What looks need.
pub struct Around {
    /// The agent, for what it knows of other modules.
    pub agent: Weak<Agent>,
    /// Whose checkers these are.
    pub module: ModuleName,
    /// The other node of a mirror.
    pub peer: Option<NodeName>,
    /// Networks that the module names its heartbeats by.
    pub heartbeats: Vec<Heartbeat>,
    /// Kernel's network tables.
    pub network: Arc<Network>,
    /// To tell the other nodes' network cards from a stranger's.
    pub peer_macs: Vec<Arc<PeerMacs>>,
    /// Another node's answer for an address is no duplicate: all nodes of a farm have it, and a mirror's peer that is
    /// fenced may answer for a while yet.
    pub peer_may_answer: Arc<AtomicBool>,
    /// Hardware addresses at which all nodes of a farm have the virtual addresses: who answers with one of them is no other machine.
    pub shared_macs: Vec<platform::net::Mac>,
    /// The module's programs.
    pub bin: PathBuf,
    /// What programs find in their environment.
    pub env: Vec<(String, String)>,
}

/// Tells the loop; what does not fit is found again by the next look.
pub fn tell(own: &mpsc::Sender<Input>, resource: &str, look: Look) {
    tell_how(own, resource, look, "");
}

/// The same, and how it is watched: that stands beside the resource as long as it is well.
pub fn tell_how(own: &mpsc::Sender<Input>, resource: &str, look: Look, how: &str) {
    let finding = match look {
        Look::Well => Finding { outcome: Outcome::Up, why: how.to_string() },
        Look::Gone(why) => Finding { outcome: Outcome::Gone, why },
        Look::Silent(why) => Finding { outcome: Outcome::Silent, why },
    };
    let _ = own.try_send(Input::Found { resource: resource.to_string(), finding });
}

/// Looks until it is ended.
pub async fn run(check: Check, around: Arc<Around>, own: mpsc::Sender<Input>) {
    let every = Duration::from_millis(check.interval_ms.max(100));
    if let Probe::Custom { exec, arg, ends: false } = &check.probe {
        return custom::keep(exec, arg, &check.resource, &around, &own).await;
    }
    if let Probe::Connections { host } = &check.probe {
        return count(host, &check.resource, every, &own).await;
    }
    // The kernel tells of changes of interfaces; without its word, the interval has to do.
    let events =
        matches!(check.probe, Probe::Intf { .. } | Probe::Ip { .. }).then(|| LinkEvents::open().ok()).flatten();
    // Of the other module, at the last look that found it well.
    let mut starts = None;
    for n in 0_u32.. {
        let next = Instant::now() + every;
        let found = match &check.probe {
            Probe::Module { name, to: None } => module(name, &around, &mut starts).await,
            _ => look(&check, n, &around).await,
        };
        tell(&own, &check.resource, found);
        match &events {
            None => sleep_until(next).await,
            Some(events) => {
                tokio::select! {
                    () = sleep_until(next) => {}
                    () = events.changed() => {}
                }
            }
        }
    }
}

/// Tells a number as long as it is asked for; what cannot be counted is not known.
async fn count(host: &str, resource: &str, every: Duration, own: &mpsc::Sender<Input>) {
    let Ok(ip) = host.parse::<IpAddr>() else { return };
    loop {
        let next = Instant::now() + every;
        let counted = tokio::task::spawn_blocking(move || platform::net::tcp_reset::standing_connections(ip)).await;
        let count = counted.ok().and_then(Result::ok);
        let _ = own.try_send(Input::Counted { resource: resource.to_string(), count });
        sleep_until(next).await;
    }
}

async fn look(check: &Check, n: u32, around: &Around) -> Look {
    let within = Duration::from_millis(check.timeout_ms.max(1));
    match &check.probe {
        Probe::Tcp { host, port } => probe::tcp(host, *port, within).await,
        Probe::Http { url, status, body, expires_ms } => {
            let wanted = http::Wanted { status: *status, body: body.as_deref().and_then(Expression::new) };
            page(url, &wanted, *expires_ms, within).await
        }
        Probe::Ping { host } => echo(host, within).await,
        Probe::Splitbrain { hosts } => {
            for host in hosts {
                if echo(host, within).await == Look::Well {
                    return Look::Well;
                }
            }
            Look::Silent("none of its addresses answers".into())
        }
        Probe::Intf { local } => carrier(local, around).await,
        Probe::Ip { host } => address(host, n, around).await,
        // Counted, not judged.
        Probe::Connections { .. } => Look::Well,
        Probe::Custom { exec, arg, .. } => custom::once(exec, arg, &check.resource, around, within).await,
        Probe::Module { name, to: None } => module(name, around, &mut None).await,
        Probe::Module { name, to: Some((host, port)) } => {
            let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
            let url = format!("http://{host}:{port}/var/modules/{name}/ready.txt");
            page(&url, &http::Wanted { status: Some(200), body: None }, 0, within).await
        }
    }
}

async fn page(url: &str, wanted: &http::Wanted, expires_ms: u64, within: Duration) -> Look {
    let Some(url) = http::Url::new(url) else { return Look::Gone(format!("'{url}' is no URL")) };
    let asked = async {
        let stream = match probe::connect(&url.host, url.port).await {
            Ok(stream) => stream,
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                return Look::Gone("connection refused".into());
            }
            Err(error) => return Look::Silent(error.to_string()),
        };
        if !url.tls {
            return http::ask(stream, &url, wanted).await;
        }
        match tls::connect(stream, &url.host, expires_ms).await {
            Ok(stream) => http::ask(stream, &url, wanted).await,
            Err(why) => Look::Silent(why),
        }
    };
    tokio::time::timeout(within, asked).await.unwrap_or_else(|_| Look::late(within))
}

async fn echo(host: &str, within: Duration) -> Look {
    let addresses = match tokio::time::timeout(within, probe::addresses(host, 0)).await {
        Ok(Ok(addresses)) => addresses,
        Ok(Err(error)) => return Look::Silent(error.to_string()),
        Err(_) => return Look::late(within),
    };
    let Some(ip) = addresses.first().map(std::net::SocketAddr::ip) else {
        return Look::Silent(format!("{host} has no address"));
    };
    match tokio::task::spawn_blocking(move || ping::ping(ip, None, within)).await {
        Ok(Ok(Some(_))) => Look::Well,
        Ok(Ok(None)) => Look::late(within),
        Ok(Err(error)) => Look::Silent(crate::cluster_config::causes(&error)),
        Err(error) => Look::Silent(error.to_string()),
    }
}

/// The interface that has the address, or whose network it is.
async fn carrier(local: &str, around: &Around) -> Look {
    let interfaces = match around.network.interfaces().await {
        Ok(interfaces) => interfaces,
        Err(error) => return Look::Silent(crate::cluster_config::causes(&error)),
    };
    let Ok(ip) = local.parse::<IpAddr>() else {
        return match interfaces.iter().find(|it| it.name == local) {
            None => Look::Gone(format!("there is no interface {local}")),
            Some(interface) if interface.is_usable() => Look::Well,
            Some(_) => Look::Gone(format!("{local} has no carrier")),
        };
    };
    let exactly = interfaces.iter().find(|it| it.addresses.iter().any(|address| address.ip == ip));
    let near = || {
        let has = |own: IpAddr, prefix| model::schema::Subnet { addr: own, prefix }.contains(ip);
        interfaces.iter().find(|it| it.addresses.iter().any(|a| !a.is_ours && a.prefix > 0 && has(a.ip, a.prefix)))
    };
    match exactly.or_else(near) {
        None => Look::Gone(format!("no interface has {local}")),
        Some(interface) if interface.is_usable() => Look::Well,
        Some(interface) => Look::Gone(format!("{} has no carrier", interface.name)),
    }
}

/// Another card of this node, in the same network: Linux answers for all addresses on each.
async fn is_own(mac: platform::net::Mac, around: &Around) -> bool {
    let interfaces = around.network.interfaces().await.unwrap_or_default();
    interfaces.iter().any(|interface| interface.mac == Some(mac))
}

async fn address(host: &str, n: u32, around: &Around) -> Look {
    let Ok(ip) = host.parse::<IpAddr>() else { return Look::Silent(format!("'{host}' is no IP address")) };
    let interface = match around.network.holder_of(ip).await {
        Ok(Some(interface)) => interface,
        Ok(None) => return Look::Gone("this node does not have it".into()),
        Err(error) => return Look::Silent(crate::cluster_config::causes(&error)),
    };
    if n.is_multiple_of(DUPLICATE_EVERY) {
        let name = interface.name.clone();
        // Not being able to ask is no proof of a duplicate.
        if let Ok(Ok(Some(mac))) = tokio::task::spawn_blocking(move || neighbour::probe_duplicate(&name, ip)).await
            && !around.shared_macs.contains(&mac)
            && !is_own(mac, around).await
        {
            let is_peer = around.peer_macs.iter().any(|macs| macs.contains(mac));
            if is_peer && around.peer_may_answer.load(Ordering::SeqCst) {
                return Look::Well;
            }
            let whose = if is_peer { " (the other node)" } else { "" };
            return Look::Gone(format!("{mac}{whose} answers for it, too"));
        }
    }
    Look::Well
}

/// Another module of this node: up where it serves. One whose application was started again since is gone for one look:
/// who needs it starts again, too.
async fn module(name: &str, around: &Around, starts: &mut Option<u32>) -> Look {
    let (Some(agent), Ok(name)) = (around.agent.upgrade(), ModuleName::new(name)) else {
        return Look::Silent("this agent leaves".into());
    };
    let instances = agent.instances.read().await;
    let Some(instance) = instances.get(&name) else { return Look::Gone(format!("module {name} does not run here")) };
    let (state, status, started) = {
        let published = instance.published.borrow();
        (published.mirror.state, published.mirror.status, published.starts)
    };
    // One that serves and is not well otherwise (its disk fails, its files are lost) serves all the same.
    let serves = match state {
        ModuleState::Alone | ModuleState::Prim => status != Status::Transient,
        ModuleState::Up => status == Status::Ready,
        _ => false,
    };
    if serves {
        return match starts.replace(started) {
            Some(before) if before != started => Look::Gone(format!("module {name} was started again here")),
            _ => Look::Well,
        };
    }
    let why = format!("module {name} is {state} {status} here");
    match (state, status) {
        // On the way from one to the other it serves on: it is given three looks.
        (ModuleState::Alone | ModuleState::Prim | ModuleState::Up, Status::Transient) => Look::Silent(why),
        _ => Look::Gone(why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::pki_types::PrivateKeyDer;
    use std::time::SystemTime;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// An https server whose certificate is good for so many seconds from now; its URL.
    async fn server(good_for_s: i64) -> String {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() as i64;
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["localhost".to_string()]).unwrap();
        let at = |s: i64| rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(u64::try_from(s).unwrap());
        (params.not_before, params.not_after) = (at(now - 86_400), at(now + good_for_s));
        let certificate = params.self_signed(&key).unwrap();
        let config = rustls::ServerConfig::builder_with_provider(crate::transport::tls::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let _ = stream.read(&mut [0; 1024]).await;
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
                let _ = stream.shutdown().await;
            }
        });
        format!("https://127.0.0.1:{port}/")
    }

    #[tokio::test]
    async fn a_certificate_that_is_about_to_expire_is_a_page_that_is_not_well() {
        const HOUR_MS: u64 = 3_600_000;
        let wanted = http::Wanted { status: None, body: None };
        let within = Duration::from_secs(20);
        let url = server(30 * 3_600 + 60).await;
        for expires_ms in [0, 24 * HOUR_MS, 30 * HOUR_MS] {
            assert_eq!(page(&url, &wanted, expires_ms, within).await, Look::Well, "{expires_ms}");
        }
        let soon = page(&url, &wanted, 31 * HOUR_MS, within).await;
        assert_eq!(soon, Look::Silent("its certificate expires in 30 h".into()));
        // One that has expired is not good for anything, whatever `expires` says.
        let url = server(-60).await;
        for expires_ms in [0, HOUR_MS] {
            let over = page(&url, &wanted, expires_ms, within).await;
            assert_eq!(over, Look::Silent("its certificate has expired".into()));
        }
        // A short life ends between two looks.
        let url = server(3).await;
        assert_eq!(page(&url, &wanted, 0, within).await, Look::Well);
        let end = Instant::now() + within;
        loop {
            let look = page(&url, &wanted, 0, within).await;
            if look == Look::Silent("its certificate has expired".into()) {
                break;
            }
            assert_eq!(look, Look::Well);
            assert!(Instant::now() < end, "a certificate of three seconds is good after {within:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}
