//! The peer: GlusterFS replica 2, its two servers on the same two networks, default options.
//!
//! Each server lives in namespaces of its own (its state directories cannot be moved otherwise); its bricks end
//! with it. The client's mount is where the other candidates' mounts are.

use super::stage::{Disk, Running, Stage, sh, start};
use crate::shell::{must, wait_for};
use anyhow::Context;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const DEADLINE: Duration = Duration::from_secs(60);

/// A mounted volume.
pub struct Volume {
    /// Where.
    pub mount: PathBuf,
    _client: Running,
    _servers: Vec<Running>,
}

impl Drop for Volume {
    fn drop(&mut self) {
        let _ = sh(&format!("umount -l {}", self.mount.display()));
    }
}

impl Volume {
    /// One brick on each disk.
    pub fn start(stage: &Stage, bricks: &[Disk; 2]) -> anyhow::Result<Self> {
        let mut servers = Vec::new();
        for (node, brick) in bricks.iter().enumerate() {
            let home = stage.path(&format!("gluster{node}"));
            let h = home.display();
            sh(&format!("mkdir -p {h}/lib {h}/run/gluster {h}/log {}/brick", brick.root.display()))?;
            let inside = format!(
                "mkdir -p /var/lib/glusterd /var/log/glusterfs; mount --bind {h}/lib /var/lib/glusterd;
                 mount --bind {h}/log /var/log/glusterfs; mount --bind {h}/run /run; exec glusterd -N"
            );
            let mut server = stage.on(node, Path::new("unshare"));
            server.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-ec", &inside]);
            servers.push(Running(start(&mut server, Some(&home.join("stderr")))?));
        }
        let first = servers[0].0.id();
        wait_for("glusterd answers", DEADLINE, || Ok(gluster(first, "peer status").is_ok().then_some(())))?;
        wait_for("glusterd knows the other", DEADLINE, || {
            let _ = gluster(first, "peer probe 10.99.0.2");
            Ok(gluster(first, "peer status")?.contains("Peer in Cluster (Connected)").then_some(()))
        })?;
        let [a, b] = [&bricks[0], &bricks[1]].map(|disk| disk.root.join("brick").display().to_string());
        gluster(first, &format!("volume create bench replica 2 10.99.0.1:{a} 10.99.0.2:{b} force"))?;
        gluster(first, "volume start bench")?;
        let mount = stage.path("gluster");
        std::fs::create_dir_all(&mount)?;
        let mut client = stage.on(0, Path::new("glusterfs"));
        let log = stage.path("gluster.log");
        client.args(["--no-daemon", "--volfile-server=10.99.0.1", "--volfile-id=bench", "-l"]).arg(&log).arg(&mount);
        let client = Running(start(&mut client, None)?);
        let volume = Self { mount: mount.clone(), _client: client, _servers: servers };
        wait_for("GlusterFS is mounted and writable", DEADLINE, || {
            let mounts = std::fs::read_to_string("/proc/self/mounts")?;
            let mounted =
                mounts.lines().any(|l| l.contains(" fuse.glusterfs ") && l.contains(&*mount.to_string_lossy()));
            Ok((mounted && std::fs::write(mount.join("probe"), "x").is_ok()).then_some(()))
        })?;
        Ok(volume)
    }
}

/// The command line of the first server, in its namespaces.
fn gluster(server: u32, arguments: &str) -> anyhow::Result<String> {
    let children = std::fs::read_to_string(format!("/proc/{server}/task/{server}/children"))?;
    let inside = children.split_whitespace().next().context("glusterd is not running")?;
    let mut command = Command::new("nsenter");
    command.args(["--target", inside, "--mount", "--net", "--pid", "gluster", "--mode=script"]);
    must(command.args(arguments.split(' ')), Duration::from_secs(60))
}
