//! What needs a stop is what the reference calls static: a plan says so part by part, by meaning and not by spelling.

use agent::configuration::expanded;
use model::schema::plan::changes;

fn plan(old: &str, new: &str) -> Vec<String> {
    let tree = |service: &str| {
        expanded(
            format!("<safe><macro name='A' value='/srv/a'/><service {service}</service></safe>").as_bytes(),
            &model::schema::names::NO_NAMES,
        )
        .expect("readable")
    };
    changes(&tree(old), &tree(new)).iter().map(model::schema::plan::Change::sentence).collect()
}

#[test]
fn the_same_meaning_is_no_change() {
    let spelt = [
        "mode='mirror'><heart pulse='100ms'/><rfs async='none'><replicated dir='%A%'/></rfs><user nicestoptimeout='5m'/>",
        "mode='mirror' boot='ignore' maxloop='3'><heart pulse='100'/><rfs><replicated dir='/srv//a/'/></rfs><user nicestoptimeout='300'/>",
    ];
    assert_eq!(plan(spelt[0], spelt[1]), [""; 0]);
    assert_eq!(plan(spelt[1], spelt[0]), [""; 0]);
}

#[test]
fn what_the_reference_calls_dynamic_needs_no_stop() {
    let old = "mode='mirror' boot='on'><heart><heartbeat name='net1'/></heart><user><var name='A' value='1'/></user><check><tcp ident='x' when='prim'><to addr='a' port='1'/></tcp></check>";
    let new = "mode='mirror' boot='off' automatic_reboot='on'><heart><heartbeat name='net1'/><heartbeat name='net2'/></heart><user><var name='A' value='2'/><var name='B' value='3'/></user><check><tcp ident='x' when='prim'><to addr='a' port='2'/></tcp><ping ident='p'><to addr='a'/></ping></check>";
    assert_eq!(
        plan(old, new),
        [
            "service: boot 'on' becomes 'off' (while it runs)",
            "service: automatic_reboot 'off' becomes 'on' (while it runs)",
            "service/heart/heartbeat[net2]: added (while it runs)",
            "service/user/var[A]: value '1' becomes '2' (while it runs)",
            "service/user/var[B]: added (while it runs)",
            "service/check/tcp[x]/to: port '1' becomes '2' (while it runs)",
            "service/check/ping[p]: added (while it runs)",
        ]
    );
}

#[test]
fn what_is_static_needs_a_stop() {
    let old = "mode='mirror'><heart timeout='1s'><heartbeat name='net1'/></heart><rfs><replicated dir='%A%'/></rfs><failover>a: if (x.y == down) then stop();</failover>";
    let new = "mode='mirror' failover='off'><heart timeout='2s'><heartbeat name='net1' ident='flow'/></heart><rfs ack='commit' nbrei='9'><replicated dir='/srv/b'/></rfs><failover>a: if (x.y == up) then stop();</failover>";
    assert_eq!(
        plan(old, new),
        [
            "service: failover 'on' becomes 'off' (needs a stop)",
            "service/heart: timeout '1000ms' becomes '2000ms' (needs a stop)",
            "service/heart/heartbeat[net1]: ident nothing becomes 'flow' (needs a stop)",
            "service/rfs: ack 'write' becomes 'commit' (needs a stop)",
            "service/rfs: nbrei nothing becomes '9' (while it runs)",
            "service/rfs/replicated[/srv/a]: removed (needs a stop)",
            "service/rfs/replicated[/srv/b]: added (needs a stop)",
            "service/failover: its text is another (needs a stop)",
        ]
    );
}
