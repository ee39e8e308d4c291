//! The lab of `bench farm`: eight nodes with nginx, of which three serve; two proxies on the last of them; a client with a hundred
//! addresses.

use crate::cluster::Cluster;
use crate::shell::{must, wait_for};
use anyhow::{Context, bail, ensure};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::Duration;

const LAB: &str = "bench-farm";
const NODES: usize = 8;
/// Where the proxies are: no server but when eight are.
const PROXY: &str = "node8";
const CLIENTS: u32 = 100;
const SOON: Duration = Duration::from_secs(40);
/// Virtual addresses: the farm's with steered questions, the farm's by connection, and nftables'.
const VIPS: [&str; 3] = ["10.0.1.100", "10.0.1.101", "10.0.1.102"];
const MODULES: [&str; 2] = ["steered", "byport"];

/// Who deals out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Candidate {
    Direct,
    Addr,
    Port,
    Haproxy,
    Nginx,
    Jhash,
}

impl Candidate {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Addr => "farm, on_addr, steered",
            Self::Port => "farm, on_port",
            Self::Haproxy => "HAProxy TCP",
            Self::Nginx => "nginx stream",
            Self::Jhash => "nftables jhash",
        }
    }

    /// Address and port, but for direct.
    fn to(self, servers: usize, port: u16) -> String {
        match self {
            Self::Direct => (1..=servers).map(|node| format!("10.0.1.{node}:{port}")).collect::<Vec<_>>().join(","),
            Self::Addr => format!("{}:{port}", VIPS[0]),
            Self::Port => format!("{}:{port}", VIPS[1]),
            Self::Jhash => format!("{}:{port}", VIPS[2]),
            Self::Haproxy => format!("10.0.1.{NODES}:{}", port + 8_000),
            Self::Nginx => format!("10.0.1.{NODES}:{}", port + 9_000),
        }
    }
}

/// What one load saw.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    pub per_s: f64,
    pub failed: f64,
    /// Processor time per request of servers and proxies.
    pub servers_us: f64,
    /// Of all hosts.
    pub all_us: f64,
}

pub struct Bench {
    pub cluster: Cluster,
    dir: PathBuf,
    groups: PathBuf,
    _neighbours: Neighbours,
}

/// One table of neighbours serves all namespaces of a machine, and a thousand entries are too few for a hundred clients.
struct Neighbours(Vec<(PathBuf, String)>);

impl Neighbours {
    fn enough() -> anyhow::Result<Self> {
        let mut before = Vec::new();
        // The largest first: each must be above the next.
        for (name, value) in [("gc_thresh3", "32768"), ("gc_thresh2", "16384"), ("gc_thresh1", "8192")] {
            let path = Path::new("/proc/sys/net/ipv4/neigh/default").join(name);
            before.push((path.clone(), std::fs::read_to_string(&path)?));
            std::fs::write(&path, value)?;
        }
        Ok(Self(before))
    }
}

impl Drop for Neighbours {
    fn drop(&mut self) {
        for (path, value) in self.0.iter().rev() {
            if let Err(error) = std::fs::write(path, value.trim()) {
                eprintln!("{} was {}, and cannot be set again: {error}", path.display(), value.trim());
            }
        }
    }
}

impl Bench {
    pub fn up(programs: &Path) -> anyhow::Result<Self> {
        let cluster = Cluster::up(programs, LAB, &["--nodes", &NODES.to_string(), "--disk", "256"])?;
        let dir = std::env::temp_dir().join(format!("stead-{LAB}"));
        if dir.exists() {
            std::fs::remove_dir_all(&dir)?;
        }
        std::fs::create_dir_all(&dir)?;
        let mounts = std::fs::read_to_string("/proc/mounts")?;
        let root = mounts.lines().find_map(|line| {
            let mut words = line.split(' ').skip(1);
            let (at, kind) = (words.next()?, words.next()?);
            (kind == "cgroup2").then(|| PathBuf::from(at))
        });
        let groups = root.context("no cgroup v2 is mounted")?.join("stead-lab").join(LAB);
        let bench = Self { cluster, dir, groups, _neighbours: Neighbours::enough()? };
        bench.clients()?;
        bench.modules()?;
        bench.proxies()?;
        bench.jhash()?;
        Ok(bench)
    }

    fn shell(&self, host: &str, script: &str) -> anyhow::Result<String> {
        self.cluster.exec(host, &["sh", "-ec", script])
    }

    /// A hundred addresses, each on an interface with a hardware address of its own: clients ask by themselves.
    fn clients(&self) -> anyhow::Result<()> {
        let mut script = String::from(
            "for s in all default; do echo 0 > /proc/sys/net/ipv4/conf/$s/rp_filter; echo 1 > /proc/sys/net/ipv4/conf/$s/arp_ignore; echo 2 > /proc/sys/net/ipv4/conf/$s/arp_announce; done; echo 1 > /proc/sys/net/ipv4/tcp_tw_reuse\n",
        );
        for number in 1..=CLIENTS {
            let name = format!("c{number}");
            script += &format!(
                "ip link add {name} link net1 type macvlan mode private; ip addr add {}/24 dev {name}; ip link set {name} up\n",
                address(number)
            );
        }
        self.shell("client", &script).map(drop)
    }

    /// Nginx and a farm by address on the servers; a second farm, by connection, without an application of its own.
    fn modules(&self) -> anyhow::Result<()> {
        for node in 1..=NODES {
            self.configure(&format!("node{node}"))?;
        }
        for (module, vip) in MODULES.into_iter().zip(VIPS) {
            let folder = self.dir.join(module);
            for (name, text) in [
                ("conf/userconfig.xml", include_str!("userconfig.xml").replace("VIP", vip)),
                ("bin/start_both", format!("#!/bin/sh\n[ {module} = byport ] && exit 0\n{}\n", self.serve())),
                ("bin/stop_both", "#!/bin/sh\nexit 0\n".to_string()),
            ] {
                // Questions are answered by the client's owner in one farm, connections dealt out by themselves in the other.
                let text = match module {
                    "byport" => {
                        text.replace("<rule proto=\"arp\" filter=\"on_addr\"/>", "").replace("on_addr", "on_port")
                    }
                    _ => text,
                };
                let path = folder.join(name);
                std::fs::create_dir_all(path.parent().context("a file in a folder")?)?;
                std::fs::write(&path, text)?;
                let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
                std::fs::set_permissions(&path, mode)?;
            }
            self.cluster.exec("node1", &["stead", "module", "install", &folder.to_string_lossy(), "-m", module])?;
            self.cluster.exec("node1", &["stead", "config", "-m", module])?;
        }
        self.members(super::SERVERS)
    }

    /// What a node's nginx reads; not on its disk.
    pub fn configure(&self, node: &str) -> anyhow::Result<()> {
        let conf = include_str!("nginx.conf");
        self.shell(node, &format!("mkdir -p /run/bench && cat > /run/bench/nginx.conf <<'END'\n{conf}\nEND")).map(drop)
    }

    /// Servers of a node: small answers, and streams.
    fn serve(&self) -> String {
        let hand = self.cluster.programs().join("stead-bench");
        let conf = include_str!("nginx.conf");
        format!(
            "mkdir -p /run/bench; cd /run/bench; cat > nginx.conf <<'END'\n{conf}\nEND\n[ -e pid ] && kill -0 $(cat pid) 2>/dev/null || nginx -p /run/bench -c /run/bench/nginx.conf; {} serve 0.0.0.0:81 $(hostname) > /dev/null 2>&1 &",
            hand.display()
        )
    }

    /// So many nodes serve, the first ones.
    pub fn members(&self, count: usize) -> anyhow::Result<()> {
        for module in MODULES {
            for number in 1..=8 {
                let node = format!("node{number}");
                let is_up = self.cluster.state(&node, module).starts_with("UP");
                let verb = if number <= count { "start" } else { "stop" };
                if is_up != (number <= count) {
                    self.cluster.exec(&node, &["stead", verb, "-m", module, "--no-wait"])?;
                }
            }
        }
        self.all_serve(count)
    }

    /// The first so many nodes serve, no others, and each has its share.
    pub fn all_serve(&self, count: usize) -> anyhow::Result<()> {
        for module in MODULES {
            for number in 1..=8 {
                let wanted = if number <= count { "UP Ready" } else { "STOP NotReady" };
                self.cluster.wait_states(module, &[(&format!("node{number}"), wanted)], SOON)?;
            }
            wait_for("every member has its share", SOON, || {
                let Some(view) = self.cluster.view("node1", module) else { return Ok(None) };
                let shares = view["farm"]["groups"][0]["shares"].as_array().cloned().unwrap_or_default();
                let owners = shares.iter().filter(|share| share[1].as_u64().is_some_and(|buckets| buckets > 0)).count();
                Ok((owners == count).then_some(()))
            })?;
        }
        Ok(())
    }

    fn proxies(&self) -> anyhow::Result<()> {
        let servers = |template: &str| {
            (1..=super::SERVERS).map(|node| template.replace('#', &node.to_string())).collect::<Vec<_>>().join("\n")
        };
        let haproxy = include_str!("haproxy.cfg")
            .replace("SERVERS80", &servers(" server s# 10.0.1.#:80"))
            .replace("SERVERS81", &servers(" server s# 10.0.1.#:81"));
        let nginx = include_str!("stream.conf").replace("SERVERS", &servers("server 10.0.1.#:80;"));
        for (name, text) in [("haproxy.cfg", haproxy), ("stream.conf", nginx)] {
            self.shell(PROXY, &format!("cat > /run/bench/{name} <<'END'\n{text}\nEND"))?;
        }
        let log = |name: &str| self.dir.join(name);
        self.cluster.spawn(PROXY, &["haproxy", "-db", "-f", "/run/bench/haproxy.cfg"], &log("haproxy.log"))?;
        let stream = ["nginx", "-p", "/run/bench", "-c", "/run/bench/stream.conf", "-g", "daemon off;"];
        self.cluster.spawn(PROXY, &stream, &log("stream.log"))?;
        for candidate in [Candidate::Haproxy, Candidate::Nginx] {
            let ask = format!("curl -sf -m 1 http://{}/", candidate.to(0, 80));
            wait_for("the proxies answer", SOON, || {
                Ok(self.cluster.try_exec("client", &["sh", "-c", &ask])?.status.success().then_some(()))
            })
            .with_context(|| {
                let said = |name: &str| std::fs::read_to_string(log(name)).unwrap_or_default();
                format!("{}: {}{}", candidate.name(), said("haproxy.log"), said("stream.log"))
            })?;
        }
        Ok(())
    }

    /// The rule that a person would write: node1 deals out, the others have the address and are not asked for it.
    fn jhash(&self) -> anyhow::Result<()> {
        let (vip, count) = (VIPS[2], super::SERVERS);
        let mac = |node: usize| format!("02:00:0a:00:01:{node:02x}");
        for node in 1..=count {
            self.shell(&format!("node{node}"), &format!("ip addr add {vip}/32 dev lo"))?;
        }
        let others: Vec<String> = (2..=count).map(|node| format!("{} : {}", node - 1, mac(node))).collect();
        let hash = format!("jhash ip saddr . tcp sport mod {count} seed 0x5ead");
        let rules = format!(
            "table netdev bench {{\nchain in {{\ntype filter hook ingress device \"net1\" priority -500;\n ip daddr {vip} {hash} 0 accept\n ip daddr {vip} ether daddr set {hash} map {{ {} }} ether saddr set {} fwd to \"net1\"\n}}\n}}",
            others.join(", "),
            mac(1)
        );
        self.shell("node1", &format!("nft -f - <<'END'\n{rules}\nEND"))?;
        let known: Vec<String> =
            (1..=CLIENTS).map(|c| format!("ip neigh replace {vip} lladdr {} dev c{c}", mac(1))).collect();
        self.shell("client", &known.join("\n")).map(drop)
    }

    /// Addresses as the load wants them.
    pub fn from(&self, count: u32) -> String {
        (1..=count).map(|number| format!("{}@c{number}", address(number))).collect::<Vec<_>>().join(",")
    }

    fn hand(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        let program = self.cluster.programs().join("stead-bench").to_string_lossy().into_owned();
        let mut all = vec![program.as_str()];
        all.extend(arguments);
        let said = must(&mut self.cluster.command("client", &all), Duration::from_secs(60))?;
        serde_json::from_str(&said).with_context(|| format!("stead-bench said: {said}"))
    }

    /// One load; `servers` is how many there are.
    pub fn load(&self, candidate: Candidate, load: &str, ms: u64, servers: usize) -> anyhow::Result<Seen> {
        let (to, from, ms) = (candidate.to(servers, 80), self.from(CLIENTS), ms.to_string());
        let before = self.usage()?;
        let said = self.hand(&["web", &to, load, "--ms", &ms, "--at-once", "100", "--from", &from])?;
        let after = self.usage()?;
        let of = |name: &str| said[name].as_f64().with_context(|| format!("no {name} in {said}"));
        let requests = of("requests")?;
        ensure!(requests > 0.0, "{}: nothing was answered", candidate.name());
        let per_request = |part: fn(&Usage) -> u64| (part(&after) - part(&before)) as f64 / requests;
        let (servers_us, all_us) = (per_request(|it| it.servers), per_request(|it| it.servers + it.client));
        Ok(Seen { per_s: of("per_s")?, failed: of("failed")?, servers_us, all_us })
    }

    /// Gbit/s of one stream, from a client whose traffic is not the director's.
    pub fn stream(&self, candidate: Candidate, load: &str, ms: u64) -> anyhow::Result<f64> {
        // By connection: several, until one is another member's. Rounds do the same: many ports.
        let said = self.hand(&["web", &candidate.to(1, 81), load, "--ms", &ms.to_string(), "--from", &self.from(1)])?;
        said["gbit_per_s"].as_f64().with_context(|| format!("no gbit_per_s in {said}"))
    }

    fn usage(&self) -> anyhow::Result<Usage> {
        let of = |host: &str| -> anyhow::Result<u64> {
            let path = self.groups.join(host).join("cpu.stat");
            let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            let used = text.lines().find_map(|line| line.strip_prefix("usage_usec ")?.parse().ok());
            used.with_context(|| format!("{}: no usage_usec", path.display()))
        };
        let servers = (1..=NODES).map(|node| of(&format!("node{node}"))).sum::<anyhow::Result<u64>>()?;
        Ok(Usage { servers, client: of("client")? })
    }

    /// Milliseconds from the first of eight tables to the last, for the views that all of them logged. (Of a planned change the
    /// director's own is the last.)
    pub fn view_reaches_all(&self) -> anyhow::Result<Vec<f64>> {
        let mut times: std::collections::BTreeMap<String, Vec<f64>> = Default::default();
        for number in 1..=8 {
            let log = self.cluster.exec(&format!("node{number}"), &["stead", "log", "-m", MODULES[0], "-s", "200"])?;
            for line in log.lines().filter(|line| line.contains("farm membership:") && line.contains("(view ")) {
                let view = line.split("(view ").nth(1).and_then(|rest| rest.split(',').next()).unwrap_or_default();
                let seconds = seconds_of(line).with_context(|| format!("no time in {line}"))?;
                times.entry(view.to_string()).or_default().push(seconds);
            }
        }
        let of_all = times.values().filter(|seen| seen.len() == 8);
        let reached: Vec<f64> = of_all
            .map(|seen| {
                let first = seen.iter().copied().fold(f64::INFINITY, f64::min);
                (seen.iter().copied().fold(0.0, f64::max) - first) * 1_000.0
            })
            .collect();
        if reached.is_empty() {
            bail!("no view was logged by all of eight members");
        }
        Ok(reached)
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

struct Usage {
    servers: u64,
    client: u64,
}

fn address(number: u32) -> String {
    // Between the pool of virtual addresses and the client's own, and above that.
    format!("10.0.1.{}", if number <= 80 { 119 + number } else { 121 + number })
}

/// Seconds of the day in `| 2026-11-29 10:11:12.123456 | …`.
fn seconds_of(line: &str) -> Option<f64> {
    let time = line.split_whitespace().find(|word| word.matches(':').count() == 2 && word.contains('.'))?;
    let mut parts = time.split(':').map(|part| part.parse::<f64>().ok());
    Some(parts.next()?? * 3_600.0 + parts.next()?? * 60.0 + parts.next()??)
}
