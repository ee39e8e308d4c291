//! A farm whose address is at a hardware address that no node sends from (`vmac_invisible`): the switch brings every frame to all.

use super::{Clients, DRAINED, Farm, MODULE, NODES, Story, Told};
use crate::shell::wait_for;
use anyhow::{Context, ensure};

pub(super) const STORIES: &[Story] = &[("farm-invisible", invisible)];

const ALL: &str = "all";
const VIP: &str = "10.0.1.111";
const VMAC: &str = "5a:fe:0a:00:01:6f";

/// A death, a return and a planned stop, under clients whose neighbour entry never changes.
fn invisible(farm: &Farm) -> anyhow::Result<()> {
    let folder = farm.dir.join(ALL);
    farm.copy_of_module(&folder, |text| text.replace("type=\"vmac_directed\"", "type=\"vmac_invisible\""))?;
    // Its application is the first module's, which listens on every address once it has been started.
    let ready = "#!/bin/bash\nfor _ in {1..100}; do (exec 3<> /dev/tcp/127.0.0.1/80) 2> /dev/null && exit 0; sleep 0.05; done\nexit 1\n";
    std::fs::write(folder.join("bin/start_both"), ready)?;
    farm.stead("node1", &["module", "install", &folder.to_string_lossy(), "-m", ALL])?;
    let set = format!("VIP={VIP}");
    farm.stead("node1", &["config", "-m", ALL, "--set", &set, "--set", "FILTER=on_port"])?;
    farm.stead("node1", &["start", "-m", ALL, "-H", "*"])?;
    let all_serve = || {
        farm.cluster.wait_states(ALL, &NODES.map(|node| (node, "UP Ready")), DRAINED)?;
        NODES.iter().try_for_each(|node| farm.share_of(ALL, "node1", node, true))
    };
    all_serve()?;

    let clients = Clients::begin_with(farm.cluster, &farm.dir, "all-death", VIP, super::SOME, None)?;
    is_at_nobodys(farm)?;
    for node in NODES {
        wait_for("a member receives what is for all, and leaves it to its owner", DRAINED, || {
            Ok((farm.fate_of(ALL, node, "others") > 0).then_some(()))
        })?;
        ensure!(farm.fate_of(ALL, node, "passed") == 0, "{node} passed frames on");
    }
    farm.cluster.act(&["power", "cut", "node2"])?;
    farm.share_of(ALL, "node1", "node2", false)?;
    clients.go_on(100)?;
    let death = clients.end()?;
    death.only_of("node2").context("after a member's death")?;
    ensure!(death.of("broken", "node2") > 0, "nothing stood on the dead node: {}", death.0);

    let clients = Clients::begin_with(farm.cluster, &farm.dir, "all-return", VIP, super::MANY, None)?;
    farm.cluster.act(&["power", "on", "node2"])?;
    farm.all_serve()?;
    all_serve()?;
    clients.go_on(200)?;
    let back = clients.end()?;
    back.moved_by_agreement().context("when the member returned")?;
    ensure!(back.of("answered", "node2") > 0, "the member that returned has no clients: {}", back.0);

    // Planned, and of who answers for the address.
    let director = farm.cluster.view("node1", ALL).and_then(|view| view["farm"]["director"].as_str().map(String::from));
    let director = director.context("nobody directs")?;
    let other = NODES.into_iter().find(|node| *node != director).unwrap_or("node1");
    let clients = Clients::begin_with(farm.cluster, &farm.dir, "all-stop", VIP, super::SOME, Some("1"))?;
    farm.stead(&director, &["stop", "-m", ALL, "--no-wait"])?;
    farm.share_of(ALL, other, &director, false)?;
    farm.cluster.wait_states(ALL, &[(&director, "STOP NotReady")], DRAINED)?;
    clients.go_on(100)?;
    clients.end()?.moved_by_agreement().context("while the director was stopped")?;
    is_at_nobodys(farm)?;
    farm.stead(&director, &["start", "-m", ALL])?;
    all_serve()?;
    println!(
        "      one hardware address that no node sends from: new connections failed for {} ms at a death, only the dead node's broke; \
         none at the return ({} asked again) and at a planned stop of the director",
        death.span_ms(),
        back.failed()
    );
    farm.remove(ALL)?;
    // An interface does not receive for ever what nobody wants any more.
    for node in NODES {
        wait_for("the hardware address is given up", DRAINED, || {
            Ok((!farm.sh(node, "bridge fdb show dev net1")?.contains(VMAC)).then_some(()))
        })?;
    }
    ensure!(!farm.stead("node1", &["farm", "show", "-m", MODULE])?.is_empty());
    Ok(())
}

impl Told {
    /// Nothing broke. Between who loses a client and who gains it a frame is nobody's: the client sends it again.
    fn moved_by_agreement(&self) -> anyhow::Result<()> {
        ensure!(self.sum("broken") == 0, "connections broke: {}", self.0);
        ensure!(self.span_ms() < 1_000 && self.failed() * 20 < self.sum("answered"), "many asked again: {}", self.0);
        Ok(())
    }
}

/// The client's neighbour entry, and what the switch knows.
fn is_at_nobodys(farm: &Farm) -> anyhow::Result<()> {
    let seen = farm.sh("client", &format!("ip neigh show {VIP}"))?;
    ensure!(seen.contains(VMAC), "the client believes that {VIP} is elsewhere: {seen}");
    Ok(())
}
