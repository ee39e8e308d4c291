//! Debian packages and programs that tests and demo use. What is missing is installed; nothing else is touched.

use crate::{build, shell};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// What compiling the workspace needs beside Rust: the farm's packet filter is C.
pub const BUILD: &[&str] = &["gcc", "libc6-dev", "clang"];
/// What the engine of the fuzz targets is compiled with, beside [`BUILD`].
pub const FUZZ: &[&str] = &["g++"];
/// What labs need.
pub const LAB: &[&str] =
    &["iproute2", "iputils-ping", "nftables", "e2fsprogs", "mount", "util-linux", "procps", "gcc", "libc6-dev", "curl"];
/// What the tests of the configuration's schema use: `xmllint`.
pub const SCHEMA: &[&str] = &["libxml2-utils"];
/// What the PostgreSQL stories need.
pub const POSTGRESQL: &[&str] = &["postgresql", "postgresql-contrib", "postgresql-client"];
/// What the farm's stories and the modules nginx and apache use.
pub const FARM: &[&str] = &["python3", "nginx", "apache2", "curl"];
/// What the tests of the file system use beside the compiler: ACLs, and the public suites.
pub const SUITES: &[&str] = &["acl", "attr", "python3", "fio", "stress-ng", "dbench", "mariadb-server", "mariadb-test"];
/// What the figures under MariaDB need.
pub const MARIADB: &[&str] = &["mariadb-server", "sysbench"];
/// Peers that are measured beside us.
pub const PEERS: &[&str] = &["keepalived"];
/// Another peer: an address under corosync and pacemaker.
pub const PACEMAKER: &[&str] =
    &["corosync", "pacemaker", "pacemaker-cli-utils", "pacemaker-resource-agents", "resource-agents"];
/// Peers of the farm.
pub const FARM_PEERS: &[&str] = &["haproxy", "nginx", "libnginx-mod-stream", "curl"];
/// What stands before a pair of another place.
pub const BALANCER: &[&str] = &["haproxy"];
/// Peers of the mirror, and the small database that is measured on them.
pub const MIRROR_PEERS: &[&str] = &["glusterfs-server", "glusterfs-client", "sqlite3", "rsync"];

/// Public suites that are programs of Rust: name and version.
const SUITE_PROGRAMS: &[(&str, &str)] = &[("pjdfstest", "0.2.2"), ("fsx", "0.3.2")];

/// Builds the suites' programs that are missing in `root`; the folder they are in.
pub fn suite_programs(root: &Path) -> anyhow::Result<PathBuf> {
    let wanted = SUITE_PROGRAMS.iter().filter(|(name, _)| !root.join("bin").join(name).exists());
    let wanted: Vec<_> = wanted.map(|(name, version)| format!("{name}@{version}")).collect();
    if !wanted.is_empty() {
        println!("building {}", wanted.join(" and "));
        let mut install = build::cargo();
        install.args(["install", "--quiet", "--locked", "--debug", "--root"]).arg(root).args(&wanted);
        shell::live_within(&mut install, Duration::from_secs(900))?;
    }
    Ok(root.join("bin"))
}

fn is_installed(package: &str) -> bool {
    Command::new("dpkg-query")
        .args(["-W", "-f=${db:Status-Status}", package])
        .output()
        .is_ok_and(|o| o.status.success() && o.stdout == b"installed")
}

/// Installs those of `packages` that are missing.
pub fn ensure(packages: &[&str]) -> anyhow::Result<()> {
    let missing: Vec<&str> = packages.iter().copied().filter(|p| !is_installed(p)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    println!("installing Debian packages: {}", missing.join(" "));
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command
            .args(["-q", "-y", "-o", "DPkg::Lock::Timeout=120"])
            .args(arguments)
            .env("DEBIAN_FRONTEND", "noninteractive");
        command
    };
    // A package that starts a service at installation has no business here: policy-rc.d forbids it meanwhile.
    let policy = std::path::Path::new("/usr/sbin/policy-rc.d");
    let ours = !policy.exists();
    if ours {
        std::fs::write(policy, "#!/bin/sh\nexit 101\n")?;
        std::fs::set_permissions(policy, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    }
    let mut install = vec!["install", "--no-install-recommends"];
    install.extend(&missing);
    let done = shell::must(&mut apt(&install), Duration::from_secs(600)).or_else(|_| {
        shell::must(&mut apt(&["update"]), Duration::from_secs(300))
            .and_then(|_| shell::must(&mut apt(&install), Duration::from_secs(600)))
    });
    if ours {
        std::fs::remove_file(policy)?;
    }
    done.map(drop)
}
