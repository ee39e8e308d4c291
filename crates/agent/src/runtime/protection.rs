//! What protects a mirror module from two nodes that serve, in words, and what that cannot promise.

use super::agent::Agent;
use cluster::mirror::{Arbiter, View};
use model::NodeName;
use model::schema::module::Vip;
use platform::net::Network;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// What is asked before a node serves alone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Asked {
    /// A third machine grants; its name, unless the pair goes over to another now. Others that could take its place.
    Witness(Option<NodeName>, Vec<NodeName>),
    /// The takeover proof, with these addresses of `<splitbrain>`.
    Checker(Vec<IpAddr>),
    /// The takeover proof, with the default gateway.
    Gateway(IpAddr),
    /// The takeover proof, with nobody to ask.
    Nobody,
}

/// The sentence, and what is not promised.
pub(super) fn protection(asked: &Asked, vips: &[Vip]) -> (String, Vec<String>) {
    let vip = if vips.is_empty() { "" } else { ", nobody answers for the virtual IP" };
    let proof = |answer: &str| format!("takeover proof: the peer is silent, carrier{vip}{answer}");
    let words = |addrs: &[IpAddr]| addrs.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ");
    // Only the virtual IP tells a node whose programs hang, or that is cut from its peer alone, from a dead one.
    let both = match vips.is_empty() {
        true => "; without a virtual IP both may serve when the nodes are cut from each other",
        false => "; a primary whose programs hang while its kernel answers for the virtual IP is not taken over",
    };
    let kept = "the losing side's files are kept in quarantine";
    match asked {
        Asked::Witness(name, spares) => {
            let name = name.as_ref().map_or_else(String::new, |name| format!(" {name}"));
            let spares: String = spares.iter().map(|spare| format!("; spare: {spare}")).collect();
            (format!("witness{name}: it grants one node at a time the right to serve alone{spares}"), Vec::new())
        }
        Asked::Checker(addrs) => {
            let addrs = words(addrs);
            let no = format!(
                "no witness, split-brain checker {addrs} is asked: a node that it does not answer serves nobody when its peer is lost, whether it is cut off or the checker is down{both}; {kept}"
            );
            (proof(&format!(", and split-brain checker {addrs} answers")), vec![no])
        }
        Asked::Gateway(addr) => {
            let no = format!(
                "no witness, gateway {addr} is asked: a node that it does not answer serves nobody when its peer is lost, whether it is cut off or the gateway is down{both}; {kept}"
            );
            (proof(&format!(", and gateway {addr} answers")), vec![no])
        }
        Asked::Nobody => {
            let no = format!(
                "no witness, nobody to ask: when all networks of a node are cut at once, both may serve{both}; {kept}; a witness, <splitbrain> or a default gateway closes this"
            );
            (proof("; neither <splitbrain> nor a default gateway to ask"), vec![no])
        }
    }
}

/// The default gateway, looked up once for all modules of an answer.
#[derive(Debug, Default)]
pub struct KnownGateway(tokio::sync::Mutex<Option<(Instant, Option<IpAddr>)>>);

impl KnownGateway {
    const FRESH: Duration = Duration::from_secs(1);

    async fn get(&self, network: &Network) -> Option<IpAddr> {
        let mut known = self.0.lock().await;
        if let Some((at, gateway)) = *known
            && at.elapsed() < Self::FRESH
        {
            return gateway;
        }
        let gateway = network.default_gateways().await.ok().and_then(|all| all.first().map(|it| it.ip));
        *known = Some((Instant::now(), gateway));
        gateway
    }
}

impl Asked {
    /// As [`super::proof::Prover`] asks.
    pub(super) async fn of(agent: &Agent, mirror: &View, checker: &[IpAddr]) -> Self {
        match mirror.arbiter {
            Arbiter::Witness => {
                let Some(cluster) = agent.cluster.current() else { return Self::Witness(None, Vec::new()) };
                let name = mirror.voter.and_then(|voter| cluster.name_of(voter).cloned());
                let others = cluster.configuration.witnesses.iter().map(|it| it.name.clone());
                let spares = others.filter(|other| name.as_ref().is_some_and(|name| name != other)).collect();
                Self::Witness(name, spares)
            }
            Arbiter::Proof if !checker.is_empty() => Self::Checker(checker.to_vec()),
            Arbiter::Proof => agent.gateway.get(&agent.network).await.map_or(Self::Nobody, Self::Gateway),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 1, 254));

    fn vip() -> Vec<Vip> {
        let addr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 1, 100));
        vec![Vip { addr, prefix: None, interface: None, vmac: None }]
    }

    #[test]
    fn each_protection_names_what_is_asked_and_what_is_not_promised() {
        let (witness, nothing) =
            protection(&Asked::Witness(NodeName::new("third").ok(), vec![NodeName::new("fourth").unwrap()]), &vip());
        assert!(witness.contains("witness third") && witness.ends_with("; spare: fourth"), "{witness}");
        assert_eq!(nothing, Vec::<String>::new(), "with a witness only L1 to L3 are open, and they are told apart");

        let v6 = "fd00::1".parse().expect("an address");
        let (checker, no) = protection(&Asked::Checker(vec![ROUTER, v6]), &vip());
        assert!(checker.contains("split-brain checker 10.0.1.254 or fd00::1 answers"), "{checker}");
        assert!(no[0].starts_with("no witness, split-brain checker 10.0.1.254 or fd00::1 is asked: "), "{no:?}");
        assert!(no[0].contains("the checker is down") && !no[0].contains("both may serve"), "{no:?}");

        let (gateway, no) = protection(&Asked::Gateway(ROUTER), &vip());
        assert!(gateway.contains("nobody answers for the virtual IP, and gateway 10.0.1.254 answers"), "{gateway}");
        assert!(no[0].contains("the gateway is down"), "{no:?}");

        let (nobody, no) = protection(&Asked::Nobody, &vip());
        assert!(nobody.contains("neither <splitbrain> nor a default gateway"), "{nobody}");
        assert!(no[0].contains("both may serve"), "{no:?}");
    }

    /// Without a virtual IP nobody tells a cut between the nodes from a death, whoever else answers.
    #[test]
    fn without_a_virtual_ip_a_cut_between_the_nodes_is_not_promised() {
        for asked in [Asked::Checker(vec![ROUTER]), Asked::Gateway(ROUTER), Asked::Nobody] {
            let (proof, no) = protection(&asked, &[]);
            assert!(!proof.contains("virtual IP"), "{proof}");
            assert!(no[0].contains("without a virtual IP both may serve"), "{no:?}");
        }
    }
}
