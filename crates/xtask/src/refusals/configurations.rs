//! Configurations that cannot be: nothing changes on any node.

use super::{Check, NODES, SHOP, SOON, Site, rfs, vip};
use anyhow::ensure;

pub(super) const CHECKS: &[Check] = &[
    ("a wrong userconfig.xml: file:line:column and a suggestion", wrong_file),
    ("one VIP for two modules, a VIP outside every subnet", wrong_address),
    ("one directory for two modules, one inside another's", wrong_directory),
    ("a VIP that a stranger answers for is refused, with its MAC", stranger),
    ("an IPv6 VIP is served, moves with a stop, and is refused if another machine has it", ipv6),
    ("a module that runs takes what is dynamic; the last three come back; export", while_it_runs),
    ("a VIP and nodes by name: looked up once, kept as addresses", names),
    ("module install -r replaces the files; what is in force stays", replaced),
    ("confcheck of a cluster.xml: all that is wrong, with its places", cluster_file),
    ("scripts from Windows run; what was edited on the other node is told and kept there", edited_elsewhere),
    ("a directory that is replicated no more is everybody's again", taken_out),
    ("a node without power: neither install nor config change any", one_node_down),
];

fn signatures(site: &Site, module: &str) -> anyhow::Result<String> {
    let mut all = String::new();
    for node in NODES {
        all += &site.sh(
            node,
            &format!("cd /var/lib/stead/modules/{module} && find active* -type f | sort | xargs sha256sum"),
        )?;
    }
    Ok(all)
}

fn wrong_file(site: &Site) -> anyhow::Result<()> {
    site.module("typo", "<heart timeout=\"2s\"/>", &[])?;
    let before = signatures(site, "typo")?;
    let file = "/etc/stead/modules/typo/conf/userconfig.xml";
    site.sh("node1", &format!("sed -i 's/<heart timeout/<heart timeoot/' {file}"))?;
    let place = format!("{file}:3:12");
    site.refused("node1", &["config", "-m", "typo"], 1, &[&place, "timeoot", "timeout"])?;
    site.sh("node1", &format!("sed -i 's/<heart timeoot=\"2s\"/<heart timeout=\"soon\"/' {file}"))?;
    site.refused("node1", &["config", "-m", "typo"], 1, &[&format!("{file}:3:"), "soon"])?;
    site.sh("node1", &format!("head -c 60 {file} > {file}.new && mv {file}.new {file}"))?;
    site.refused("node1", &["config", "-m", "typo"], 1, &[file])?;
    site.sh("node1", &format!("head -c 4096 /dev/urandom > {file}"))?;
    site.refused("node1", &["config", "-m", "typo"], 1, &[file])?;
    site.refused("node1", &["config", "-m", SHOP, "--set", "NIX=1"], 1, &["NIX"])?;
    ensure!(signatures(site, "typo")? == before, "a refused configuration changed something");
    site.remove("typo")
}

fn wrong_address(site: &Site) -> anyhow::Result<()> {
    site.install("same", &vip(&site.cluster.vip), &[])?;
    site.refused("node1", &["config", "-m", "same"], 1, &[&site.cluster.vip, SHOP, "userconfig.xml:3:"])?;
    site.remove("same")?;
    site.install("far", &vip("192.168.77.7"), &[])?;
    site.refused(
        "node1",
        &["config", "-m", "far"],
        1,
        &["192.168.77.7", "no subnet", "10.0.1.1/24", "userconfig.xml:3:"],
    )?;
    site.remove("far")
}

fn wrong_directory(site: &Site) -> anyhow::Result<()> {
    site.module("first", &rfs("/srv/stead/taken"), &[])?;
    for dir in ["/srv/stead/taken/", "/srv/stead/taken/inside", "/srv/stead"] {
        site.install("other", &rfs(dir), &[])?;
        site.refused("node1", &["config", "-m", "other"], 1, &["/srv/stead", "userconfig.xml:3:"])?;
        site.remove("other")?;
    }
    for dir in ["relative/dir", "/var/lib/stead"] {
        site.install("other", &rfs(dir), &[])?;
        site.refused("node1", &["config", "-m", "other"], 1, &[dir, "userconfig.xml:3:"])?;
        site.remove("other")?;
    }
    // By another name; it is enough that it is so on one of the nodes.
    site.sh(
        "node2",
        "mkdir -p /srv/stead/taken/inside /srv/stead/bound && mount --bind /srv/stead/taken/inside /srv/stead/bound",
    )?;
    site.install("other", &rfs("/srv/stead/bound"), &[])?;
    let words = ["/srv/stead/taken of module first are one directory on node2", "findmnt -T /srv/stead/bound"];
    let refused = site.refused("node1", &["config", "-m", "other"], 1, &words);
    site.sh("node2", "umount /srv/stead/bound")?;
    refused?;
    site.ok("node1", &["config", "-m", "other"])?;
    site.remove("other")?;
    site.remove("first")
}

fn stranger(site: &Site) -> anyhow::Result<()> {
    let addr = site.cluster.vip.replace(".100", ".119");
    let mac = site.cluster.exec("client", &["cat", "/sys/class/net/net1/address"])?;
    site.cluster.exec("client", &["ip", "addr", "add", &format!("{addr}/24"), "dev", "net1"])?;
    site.module("vain", &vip(&addr), &[])?;
    site.ok("node1", &["start", "-m", "vain"])?;
    let refused = site.says("node1", "vain", &[&addr, mac.trim(), "stead config -m vain"]);
    site.cluster.exec("client", &["ip", "addr", "del", &format!("{addr}/24"), "dev", "net1"])?;
    refused?;
    ensure!(
        !site.cluster.exec("node1", &["ip", "addr"])?.contains(&format!("{addr}/")),
        "the address was taken all the same"
    );
    // Nobody has to come back for it.
    site.state("vain", &[("node1", "ALONE Ready")])?;
    site.remove("vain")
}

fn ipv6(site: &Site) -> anyhow::Result<()> {
    const VIP: &str = "fd00:1::100";
    let cluster = site.cluster;
    for (host, n) in [("node1", 1), ("node2", 2), ("client", 9)] {
        cluster.exec(host, &["ip", "-6", "addr", "add", &format!("fd00:1::{n}/64"), "dev", "net1", "nodad"])?;
    }
    site.module("six", &vip(VIP), &[])?;
    site.ok("node1", &["start", "-m", "six"])?;
    site.ok("node2", &["start", "-m", "six"])?;
    site.state("six", &[("node1", "PRIM Ready"), ("node2", "SECOND Ready")])?;
    let reached = || cluster.exec("client", &["ping", "-6", "-c1", "-W2", VIP]);
    reached()?;
    let holder = || cluster.exec("client", &["ip", "-6", "neigh", "show", VIP]);
    let before = holder()?;
    site.ok("node1", &["stop", "-m", "six"])?;
    site.state("six", &[("node2", "ALONE Ready")])?;
    reached()?;
    ensure!(holder()? != before, "the client still asks the former holder: {before}");
    let left = cluster.exec("node1", &["ip", "-6", "addr", "show", "dev", "net1"])?;
    ensure!(!left.contains(VIP), "node1 still has the address: {left}");
    site.ok("node2", &["stop", "-m", "six"])?;

    let mac = cluster.exec("client", &["cat", "/sys/class/net/net1/address"])?;
    cluster.exec("client", &["ip", "-6", "addr", "add", &format!("{VIP}/64"), "dev", "net1", "nodad"])?;
    site.ok("node2", &["start", "-m", "six"])?;
    let refused = site.says("node2", "six", &[VIP, mac.trim(), "stead config -m six"]);
    cluster.exec("client", &["ip", "-6", "addr", "del", &format!("{VIP}/64"), "dev", "net1"])?;
    refused?;
    site.remove("six")?;
    for (host, n) in [("node1", 1), ("node2", 2), ("client", 9)] {
        cluster.exec(host, &["ip", "-6", "addr", "del", &format!("fd00:1::{n}/64"), "dev", "net1"])?;
    }
    Ok(())
}

fn one_node_down(site: &Site) -> anyhow::Result<()> {
    site.module("even", "", &[])?;
    let before = site.sh("node1", "cd /var/lib/stead/modules/even && find active* -type f | sort | xargs sha256sum")?;
    site.sh("node1", "echo '<!-- changed -->' >> /etc/stead/modules/even/conf/userconfig.xml")?;
    site.cluster.act(&["power", "cut", "node2"])?;
    site.refused("node1", &["config", "-m", "even"], 1, &["node2"])?;
    super::write_module(&site.folder, "odd", "", &[])?;
    let odd = site.folder.join("odd");
    site.refused("node1", &["module", "install", &odd.to_string_lossy()], 1, &["node2"])?;
    site.refused("node1", &["module", "uninstall", "-m", "even"], 1, &["node2"])?;
    let after = site.sh("node1", "cd /var/lib/stead/modules/even && find active* -type f | sort | xargs sha256sum")?;
    ensure!(before == after, "a configuration that node2 does not have is in force");
    ensure!(!site.ok("node1", &["module", "list"])?.contains("odd"), "a module that node2 does not have is installed");
    site.state(SHOP, &[("node1", "ALONE Ready")])?;
    site.cluster.act(&["power", "on", "node2"])?;
    site.state(SHOP, &[("node1", "PRIM Ready"), ("node2", "SECOND Ready")])?;
    site.agents_are_now()?;
    ensure!(site.ok("node1", &["config", "-m", "even"])?.contains("applied on node1, node2"));
    site.remove("even")
}

fn in_force(site: &Site, node: &str, module: &str) -> anyhow::Result<String> {
    site.sh(node, &format!("cat /var/lib/stead/modules/{module}/active/conf/userconfig.xml"))
}

fn while_it_runs(site: &Site) -> anyhow::Result<()> {
    let start = "#!/bin/sh\nsetsid sleep 1000 </dev/null >/dev/null 2>&1 &\n";
    site.module("live", "<heart><heartbeat name=\"net1\" ident=\"flow\"/></heart>", &[("start_prim", start)])?;
    site.ok("node1", &["start", "-m", "live"])?;
    site.ok("node2", &["start", "-m", "live"])?;
    site.state("live", &[("node1", "PRIM Ready"), ("node2", "SECOND Ready")])?;
    // A network by the name that the module gives it.
    site.cluster.wait_resource("node1", "live", ("heartbeat.flow", "up"), SOON)?;
    ensure!(site.cluster.resource("node1", "live", "heartbeat.net1").is_empty(), "a network has two names");
    let application = |node: &str| site.sh(node, "pgrep -x sleep || true");
    let before = application("node1")?;
    ensure!(!before.trim().is_empty(), "the application does not run");
    let file = "/etc/stead/modules/live/conf/userconfig.xml";
    site.sh(
        "node1",
        &format!("sed -i 's/<service /<service maxloop=\"7\" /; s/<user /<user logging=\"none\" /' {file}"),
    )?;
    let planned = site.ok("node1", &["config", "-m", "live", "--dry-run"])?;
    for word in ["service: maxloop '3' becomes '7' (while it runs)", "service/user: logging 'userlog' becomes 'none'"] {
        ensure!(planned.contains(word), "the plan does not say '{word}':\n{planned}");
    }
    ensure!(!in_force(site, "node2", "live")?.contains("maxloop"), "a dry run changed node2");
    ensure!(site.ok("node1", &["config", "-m", "live"])?.contains("applied on node1, node2"));
    site.state("live", &[("node1", "PRIM Ready"), ("node2", "SECOND Ready")])?;
    ensure!(application("node1")? == before, "the application was restarted");
    for node in NODES {
        ensure!(in_force(site, node, "live")?.contains("maxloop=\"7\""), "{node} has the old configuration");
    }
    ensure!(site.ok("node1", &["config", "-m", "live"])?.contains("it was in force already"));
    site.ok("node1", &["swap", "-m", "live"])?;
    site.state("live", &[("node1", "SECOND Ready"), ("node2", "PRIM Ready")])?;
    ensure!(site.ok("node2", &["confinfo", "-m", "live"])?.contains("BEFORE"));
    ensure!(site.ok("node2", &["config", "-m", "live", "--restore"])?.contains("maxloop '7' becomes '3'"));
    ensure!(!in_force(site, "node1", "live")?.contains("maxloop"), "node1 was not restored");
    site.refused("node1", &["config", "-m", "live", "--restore", "3"], 1, &["live", "2 are kept", "stead confinfo"])?;
    site.state("live", &[("node1", "SECOND Ready"), ("node2", "PRIM Ready")])?;
    // The primary first, so that node1 is the last who served.
    site.ok("node2", &["stop", "-m", "live"])?;
    site.state("live", &[("node1", "ALONE Ready")])?;
    site.ok("node1", &["stop", "-m", "live"])?;
    // One node only, then what is in force there to the other: all or none.
    site.ok("node1", &["config", "-m", "live", "--restore", "--local"])?;
    ensure!(!in_force(site, "node2", "live")?.contains("maxloop"), "--local reached node2");
    site.refused("node1", &["-H", "node9", "-E", "live"], 1, &["node9"])?;
    // Two configurations are no pair: who is first serves, the other one waits and says why.
    site.ok("node1", &["start", "-m", "live"])?;
    site.state("live", &[("node1", "ALONE Ready")])?;
    let _ = site.stead("node2", &["start", "-m", "live", "--no-wait"])?;
    site.says("node2", "live", &["different configurations", "stead config -m live"])?;
    site.state("live", &[("node1", "ALONE Ready"), ("node2", "WAIT NotReady")])?;
    for node in NODES {
        site.ok(node, &["stop", "-m", "live"])?;
    }
    ensure!(site.ok("node1", &["-H", "node2", "-E", "live"])?.contains("applied on node2"));
    ensure!(in_force(site, "node2", "live")?.contains("maxloop=\"7\""), "node2 did not get it");
    site.ok("node1", &["start", "-m", "live"])?;
    site.ok("node2", &["start", "-m", "live"])?;
    site.state("live", &[("node1", "PRIM Ready"), ("node2", "SECOND Ready")])?;
    site.remove("live")
}

/// Only node1's resolver knows the name: what it says is what both nodes take.
fn names(site: &Site) -> anyhow::Result<()> {
    let addr = |n: u8| site.cluster.vip.replace(".100", &format!(".{n}"));
    let hosts = site.sh("node1", "cat /etc/hosts")?;
    let say = |n: u8| {
        site.sh(
            "node1",
            &format!("sed -i '/named.example/d' /etc/hosts; echo '{} named.example' >> /etc/hosts", addr(n)),
        )
    };
    site.install("named", &vip("named.example"), &[])?;
    let refused = ["userconfig.xml:3:", "named.example", "getent ahosts named.example"];
    site.refused("node1", &["config", "-m", "named"], 1, &refused)?;
    say(117)?;
    let told = site.ok("node1", &["config", "-m", "named"])?;
    ensure!(told.contains(&format!("\"named.example\" of <virtual_addr> is {}", addr(117))), "{told}");
    // The name server's next mind is not followed, and needs nobody on node2.
    say(118)?;
    site.ok("node1", &["start", "-m", "named"])?;
    site.ok("node2", &["start", "-m", "named"])?;
    site.state("named", &[("node1", "PRIM Ready"), ("node2", "SECOND Ready")])?;
    ensure!(site.cluster.exec("node1", &["ip", "addr"])?.contains(&format!("{}/", addr(117))));
    let planned = site.ok("node1", &["config", "-m", "named", "--dry-run"])?;
    for word in [format!("[{}]: removed", addr(117)), format!("[{}]: added", addr(118)), "stead stop -m named".into()] {
        ensure!(planned.contains(&word), "the plan does not say {word}:\n{planned}");
    }
    site.remove("named")?;

    let before = site.ok("node1", &["cluster", "config"])?;
    std::fs::write(site.folder.join("before.xml"), &before)?;
    let file = |name: &str| site.folder.join(name).to_string_lossy().into_owned();
    let named = NODES.iter().fold(before, |xml, node| {
        let own = site.cluster.addr(node).unwrap_or_default();
        xml.replace(&format!("addr=\"{own}\""), &format!("addr=\"{node}.example\""))
    });
    std::fs::write(site.folder.join("named.xml"), &named)?;
    let check = ["cluster", "config", &file("named.xml")];
    site.refused("node1", &check, 1, &["cluster.xml:", "node1.example", "getent ahosts"])?;
    for node in NODES {
        site.sh("node1", &format!("echo '{} {node}.example' >> /etc/hosts", site.cluster.addr(node)?))?;
    }
    let told = site.ok("node1", &check)?;
    ensure!(told.contains("applied on node1, node2") && !told.contains("no longer"), "{told}");
    ensure!(site.ok("node2", &["cluster", "config"])?.contains("node2.example"), "the name is lost");
    site.state(SHOP, &[("node1", "PRIM Ready"), ("node2", "SECOND Ready")])?;
    site.ok("node1", &["cluster", "config", &file("before.xml")])?;
    std::fs::write(site.folder.join("hosts"), hosts)?;
    site.sh("node1", &format!("cat {} > /etc/hosts", file("hosts")))?;
    Ok(())
}

fn edited_elsewhere(site: &Site) -> anyhow::Result<()> {
    let windows = [("start_prim", "#!/bin/sh\r\ntouch /tmp/windows-ran\r\n"), ("stop_prim", "#!/bin/sh\r\nexit 0\r\n")];
    site.install("crlf", "", &windows)?;
    // The installed copy has been converted; an editor of Windows comes back.
    site.sh("node1", "printf '#!/bin/sh\\r\\ntouch /tmp/windows-edited\\r\\n' > /etc/stead/modules/crlf/bin/prestart")?;
    let told = site.ok("node1", &["confcheck", "-m", "crlf"])?;
    ensure!(told.contains("bin/prestart has the line ends of Windows") && !told.contains("start_prim"), "{told}");
    let folder = site.folder.join("crlf").to_string_lossy().into_owned();
    ensure!(site.ok("node1", &["confcheck", &folder])?.contains("bin/start_prim has the line ends of Windows"));
    site.ok("node1", &["config", "-m", "crlf"])?;
    site.ok("node1", &["start", "-m", "crlf"])?;
    site.sh("node1", "rm /tmp/windows-ran /tmp/windows-edited")?;
    site.ok("node1", &["stop", "-m", "crlf"])?;
    // An interpreter that is missing is named, not the script.
    site.sh("node1", "printf '#!/opt/nosuchshell\\n' > /etc/stead/modules/crlf/bin/prestart")?;
    site.sh("node2", "echo '# only here' >> /etc/stead/modules/crlf/bin/start_prim")?;
    let lost = "on node2: edited there and not applied: bin/start_prim; it would be overwritten";
    let planned = site.ok("node1", &["config", "-m", "crlf", "--dry-run"])?;
    ensure!(planned.contains(lost), "{planned}");
    let said = site.ok("node1", &["config", "-m", "crlf"])?;
    ensure!(said.contains("on node2: edited there and not applied: bin/start_prim; overwritten, and kept"), "{said}");
    ensure!(site.ok("node2", &["confinfo", "-m", "crlf"])?.contains("edited"));
    let failed = site.stead("node1", &["start", "-m", "crlf"])?;
    let said = format!("{}{}{}", failed.stdout, failed.stderr, site.ok("node1", &["log", "-m", "crlf"])?);
    ensure!(said.contains("names /opt/nosuchshell, which is not on this node"), "{said}");
    ensure!(!said.contains("No such file"), "{said}");
    site.ok("node1", &["forcestop", "-m", "crlf"])?;
    site.ok("node2", &["config", "-m", "crlf", "--restore", "2"])?;
    for node in NODES {
        let script = site.sh(node, "cat /var/lib/stead/modules/crlf/active/bin/start_prim")?;
        ensure!(script.contains("# only here"), "{node}: {script}");
    }
    // What a file says that cannot be read is one sentence.
    site.sh("node1", "echo '<safe' > /etc/stead/modules/crlf/conf/userconfig.xml")?;
    let broken =
        site.refused("node1", &["confcheck", "-m", "crlf"], 1, &["userconfig.xml:1:", "module crlf: 1 error"])?;
    ensure!(!broken.contains("macros") && broken.matches("help:").count() <= 1, "{broken}");
    site.remove("crlf")
}

fn taken_out(site: &Site) -> anyhow::Result<()> {
    for node in NODES {
        site.sh(node, "mkdir -p /srv/stead/was /srv/stead/becomes")?;
    }
    site.module("moved", &rfs("/srv/stead/was"), &[])?;
    site.ok("node1", &["prim", "-m", "moved"])?;
    site.ok("node2", &["start", "-m", "moved"])?;
    site.state("moved", &[("node1", "PRIM Ready"), ("node2", "SECOND Ready")])?;
    site.ok("node2", &["stop", "-m", "moved"])?;
    site.ok("node1", &["stop", "-m", "moved"])?;
    for node in NODES {
        let covered = site.cluster.try_exec(node, &["touch", "/srv/stead/was/file"])?;
        ensure!(!covered.status.success(), "{node}: a stopped module's directory is not covered");
    }
    site.sh("node1", "sed -i 's,/srv/stead/was,/srv/stead/becomes,' /etc/stead/modules/moved/conf/userconfig.xml")?;
    site.ok("node1", &["config", "-m", "moved"])?;
    for node in NODES {
        site.sh(node, "touch /srv/stead/was/file")?;
    }
    site.remove("moved")
}

fn cluster_file(site: &Site) -> anyhow::Result<()> {
    let file = site.folder.join("wrong-cluster.xml");
    let text = "<cluster>\n <lans pulse=\"soon\">\n  <lan nam=\"a\">\n   <node name=\"n\" addr=\"10.0.1.300\"/>\n  </lan>\n </lans>\n</cluster>\n";
    std::fs::write(&file, text)?;
    let path = file.to_string_lossy().into_owned();
    let places = ["pulse", &format!("{path}:2:"), &format!("{path}:3:"), &format!("{path}:4:"), "did you mean 'name'?"];
    site.refused("node1", &["confcheck", &path], 1, &places)?;
    std::fs::write(&file, site.ok("node1", &["cluster", "config"])?)?;
    ensure!(site.ok("node1", &["confcheck", &path])?.contains("right"));
    Ok(())
}

fn replaced(site: &Site) -> anyhow::Result<()> {
    site.module("anew", "<heart timeout=\"2s\"/>", &[])?;
    let before = signatures(site, "anew")?;
    super::write_module(&site.folder, "anew", "<heart timeout=\"3s\"/>", &[])?;
    let folder = site.folder.join("anew").to_string_lossy().into_owned();
    site.refused("node1", &["module", "install", &folder], 1, &["is installed already", "module install -r"])?;
    site.ok("node1", &["module", "install", "-r", &folder])?;
    ensure!(signatures(site, "anew")? == before, "what is in force changed");
    for node in NODES {
        let text = site.sh(node, "cat /etc/stead/modules/anew/conf/userconfig.xml")?;
        ensure!(text.contains("3s"), "{node} has the old files: {text}");
    }
    // All or none: node2 cannot, so node1 has what it had.
    super::write_module(&site.folder, "anew", "<heart timeout=\"4s\"/>", &[])?;
    site.sh("node2", "chattr +i /etc/stead/modules/anew")?;
    let refused = site.refused("node1", &["module", "install", "-r", &folder], 1, &["anew"]);
    site.sh("node2", "chattr -i /etc/stead/modules/anew")?;
    refused?;
    ensure!(
        site.sh("node1", "cat /etc/stead/modules/anew/conf/userconfig.xml")?.contains("3s"),
        "node1 kept the new files"
    );
    ensure!(site.ok("node1", &["config", "-m", "anew"])?.contains("applied on node1, node2"));
    site.remove("anew")
}
