//! Three nginx in front of PostgreSQL on a mirror of two of the three nodes: what clients send crosses the farm and is committed by the database.

use super::{DRAINED, Farm, NODES, SOON, Story};
use crate::app::{App, Load};
use crate::shell::wait_for;
use crate::stories::now_ms;
use anyhow::ensure;
use std::time::Duration;

pub(super) const STORIES: &[Story] = &[("farm-mirror-database", database)];

const FRONT: &str = "front-of-pg";
/// The farm's address and nginx's port; the database's. (`stream.conf` names the latter.)
const FRONT_ADDR: &str = "10.0.1.114";
const FRONT_PORT: &str = "6432";
const DATABASE_ADDR: &str = "10.0.1.113";
/// Until each of three nginx has some of their connections: with so many, all but never one has none.
const CLIENTS_MAX: usize = 30;
/// For nginx to give up an address that does not answer, and the client a connection.
const SLACK_MS: u64 = 4_000;

/// The database's primary, which is a member of the farm as well, loses power under clients that are counted by what was acknowledged to them.
fn database(farm: &Farm) -> anyhow::Result<()> {
    let cluster = farm.cluster;
    let module = App::Postgresql.module();
    farm.lans_of_two()?;
    postgresql(farm)?;
    front(farm)?;
    let whole = [("node1", "PRIM Ready"), ("node2", "SECOND Ready")];
    let all_up = NODES.map(|node| (node, "UP Ready"));
    cluster.wait_states(module, &whole, Duration::from_secs(90))?;
    cluster.wait_states(FRONT, &all_up, DRAINED)?;
    NODES.iter().try_for_each(|node| farm.share_of(FRONT, "node2", node, true))?;

    let to = format!("{FRONT_ADDR}:{FRONT_PORT}");
    let mut load = App::Postgresql.load_at(cluster, FRONT, &to, 3)?;
    let crossing = |node: &str| -> anyhow::Result<usize> {
        let connections = format!("ss -Htn state established '( src {FRONT_ADDR} and sport = :{FRONT_PORT} )'");
        Ok(farm.sh(node, &connections)?.lines().count())
    };
    let mut clients = 3;
    wait_for("each nginx has some of the clients", SOON, || {
        for node in NODES {
            if crossing(node)? == 0 {
                ensure!(clients < CLIENTS_MAX, "none of {clients} clients' connections is {node}'s");
                load.add_to(cluster, FRONT, &to)?;
                clients += 1;
                return Ok(None);
            }
        }
        Ok(Some(()))
    })?;
    load.wait_more(100, SOON)?;

    let cut = now_ms();
    cluster.act(&["power", "cut", "node1"])?;
    cluster.wait_states(module, &[("node2", "ALONE Ready")], SOON)?;
    let served = now_ms() - cut;
    load.wait_more(200, DRAINED)?;
    let outage = load.outage_ms(cut);
    cluster.wait_states(FRONT, &[("node2", "UP Ready"), ("node3", "UP Ready")], DRAINED)?;
    cluster.act(&["power", "on", "node1"])?;
    farm.more_addresses("node1")?;
    let whole = [("node2", "PRIM Ready"), ("node1", "SECOND Ready")];
    cluster.wait_states(module, &whole, Duration::from_secs(120))?;
    cluster.wait_states(FRONT, &all_up, DRAINED)?;
    load.wait_more(100, SOON)?;
    load.stop()?;

    let (acknowledged, lost) = load.check_at(cluster, &format!("{DATABASE_ADDR}:5432"))?;
    ensure!(lost == 0, "{lost} of {acknowledged} requests that were acknowledged are not in the database");
    let by = |node: &str| load.acknowledged().iter().filter(|it| it.node == node).count();
    ensure!(
        by("node1") >= 100 && by("node2") >= 200,
        "acknowledged: {} by node1, {} by node2",
        by("node1"),
        by("node2")
    );
    ensure!(load.unexpected_moves(1) == 0, "two databases acknowledged in turn");
    ensure!(
        outage <= served + SLACK_MS,
        "nothing was acknowledged for {outage} ms; the database served after {served} ms"
    );
    println!(
        "      {clients} clients through three nginx to PostgreSQL on a mirror: {acknowledged} requests acknowledged ({} by node1, {} by node2 after its power cut), 0 lost; \
         a pause of {outage} ms; the other database was seen to serve after {served} ms",
        by("node1"),
        by("node2")
    );
    end(farm, load)
}

fn end(farm: &Farm, load: Load) -> anyhow::Result<()> {
    drop(load);
    farm.remove(FRONT)?;
    for node in ["node1", "node2"] {
        farm.stead(node, &["stop", "-m", App::Postgresql.module()])?;
        farm.stead(node, &["deconfig", "-m", App::Postgresql.module()])?;
    }
    farm.all_serve()
}

fn postgresql(farm: &Farm) -> anyhow::Result<()> {
    let app = App::Postgresql;
    let folder = farm.dir.join(app.module());
    farm.copy(app.module(), &folder, |text| text.replace("<heart/>", "<heart><heartbeat name=\"pair\"/></heart>"))?;
    for node in ["node1", "node2"] {
        farm.cluster.exec(node, &["mkdir", "-p", app.dir()])?;
    }
    farm.stead("node1", &["module", "install", &folder.to_string_lossy()])?;
    let settings =
        [format!("VIP={DATABASE_ADDR}"), format!("PGDATA={}", app.dir()), "TRUST_NETWORK=10.0.0.0/8".to_string()];
    let mut config = vec!["config", "-m", app.module()];
    settings.iter().for_each(|setting| config.extend(["--set", setting]));
    farm.stead("node1", &config)?;
    farm.stead("node1", &["prim", "-m", app.module()])?;
    farm.stead("node2", &["start", "-m", app.module()])?;
    farm.cluster.wait_states(app.module(), &[("node1", "PRIM Ready")], Duration::from_secs(90))?;
    let table = "create table if not exists ledger (client text, seq bigint, primary key (client, seq))";
    let psql = ["psql", "-h", DATABASE_ADDR, "-U", "postgres", "-qtA", "-v", "ON_ERROR_STOP=1", "-c", table];
    farm.cluster.exec("client", &psql).map(drop)
}

/// The module nginx with another port and configuration, and a look at the database's address.
fn front(farm: &Farm) -> anyhow::Result<()> {
    for node in NODES {
        let conf = include_str!("stream.conf");
        farm.sh(node, &format!("cat > /srv/front.conf <<'END'\n{conf}\nEND\nsync /srv/front.conf /srv"))?;
    }
    let folder = farm.dir.join(FRONT);
    farm.copy("nginx", &folder, |text| {
        let rule = format!("<rule port=\"{FRONT_PORT}\" proto=\"tcp\" filter=\"on_port\"/>");
        let look = format!(
            "<check>\n      <module name=\"postgresql\"><to addr=\"{DATABASE_ADDR}\" interval=\"1s\"/></module>"
        );
        text.replace("<rule port=\"80\" proto=\"tcp\" filter=\"on_addr\"/>", &rule).replace("<check>", &look)
    })?;
    farm.stead("node1", &["module", "install", &folder.to_string_lossy(), "-m", FRONT])?;
    let settings = [format!("VIP={FRONT_ADDR}"), format!("PORT={FRONT_PORT}"), "CONF=/srv/front.conf".to_string()];
    let mut config = vec!["config", "-m", FRONT];
    settings.iter().for_each(|setting| config.extend(["--set", setting]));
    farm.stead("node1", &config)?;
    farm.stead("node1", &["start", "-m", FRONT, "-H", "*"]).map(drop)
}
