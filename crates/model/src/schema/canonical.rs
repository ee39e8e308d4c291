//! One text for one meaning: what two nodes compare to know that they run the same module.
//!
//! **Invariant:** equal configurations give equal text on every version. A field added later writes its line
//! only when it differs from its default, so that N and N−1 agree about a module that does not use it.

use super::module::{DefaultPrim, ModuleConfiguration, Timings};
use crate::farm::{Filter, Proto};
use crate::orders::{AckPolicy, AsyncPolicy};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use serde::{Deserialize, Serialize};

/// Fingerprint of a module's expanded configuration and scripts: 64 hexadecimal digits.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Signature(pub String);

impl Signature {
    /// The first digits: enough to compare by eye.
    #[must_use]
    pub fn short(&self) -> &str {
        self.0.get(..12).unwrap_or(&self.0)
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl ModuleConfiguration {
    /// Every value, defaults included, one per line, lists in their order; no notes.
    #[must_use]
    pub fn canonical(&self) -> String {
        let mut text = String::from("stead module configuration 1\n");
        let mut line = |key: &str, values: &[Value<'_>]| {
            text.push_str(key);
            for value in values {
                text.push(' ');
                value.write(&mut text);
            }
            text.push('\n');
        };
        line("mode", &[Value::Word(self.mode.word())]);
        line("boot", &[Value::Word(self.boot.word())]);
        line("boot_delay_ms", &[Value::Number(self.boot_delay_ms)]);
        // Absent when off: signatures of configurations that do not name it stay what they were.
        if self.automatic_reboot {
            line("automatic_reboot", &[Value::flag(true)]);
        }
        line("failover", &[Value::flag(self.failover)]);
        line(
            "defaultprim",
            &[Value::Word(match &self.default_prim {
                DefaultPrim::Alone => "alone",
                DefaultPrim::LastPrim => "lastprim",
                DefaultPrim::Node(node) => node.as_str(),
            })],
        );
        line("maxloop", &[Value::Number(self.maxloop.into())]);
        line("loop_interval_ms", &[Value::Number(self.loop_interval_ms)]);
        line("heart", &[Value::Number(self.timings.pulse_ms), Value::Number(self.timings.timeout_ms)]);
        for it in &self.heartbeats {
            let Timings { pulse_ms, timeout_ms } = it.timings;
            line(
                "heartbeat",
                &[Value::Text(&it.lan), Value::Text(&it.ident), Value::Number(pulse_ms), Value::Number(timeout_ms)],
            );
        }
        line("flow", &[Value::optional(self.flow.as_deref())]);
        for vip in &self.vips {
            let prefix = vip.prefix.map_or(Value::Word("-"), |prefix| Value::Number(prefix.into()));
            line("vip", &[Value::Word(&vip.addr.to_string()), prefix, Value::optional(vip.interface.as_deref())]);
            // Absent when it is the nodes' own, as above.
            if let Some(vmac) = vip.vmac {
                let digits: Vec<String> = vmac.iter().map(|byte| format!("{byte:02x}")).collect();
                line("vip vmac", &[Value::Word(&digits.join(":"))]);
            }
        }
        line("tcpreset", &[Value::flag(self.tcpreset)]);
        if let Some(farm) = &self.farm {
            let Timings { pulse_ms, timeout_ms } = farm.timings;
            line("farm", &[Value::Number(pulse_ms), Value::Number(timeout_ms), Value::Number(farm.drain_ms)]);
            // Absent when off, as above.
            if farm.by_script {
                line("by_script", &[Value::flag(true)]);
            }
            farm.lans.iter().for_each(|lan| line("farm_lan", &[Value::Text(lan)]));
            for group in &farm.groups {
                line("group", &[Value::Text(&group.name)]);
                group.powers.iter().for_each(|(node, power)| {
                    line("power", &[Value::Word(node.as_str()), Value::Number(*power)]);
                });
            }
            for rule in &farm.rules {
                let addr = rule.addr.map_or_else(|| String::from("*"), |addr| addr.to_string());
                line(
                    "rule",
                    &[
                        Value::Number(rule.group.into()),
                        Value::Word(&addr),
                        rule.port.map_or(Value::Word("*"), |port| Value::Number(port.into())),
                        Value::Word(match rule.proto {
                            Some(Proto::Tcp) => "tcp",
                            Some(Proto::Udp) => "udp",
                            None => "arp",
                        }),
                        Value::Word(match rule.filter {
                            Filter::OnAddr => "on_addr",
                            Filter::OnPort => "on_port",
                            Filter::OnIpid => "on_ipid",
                        }),
                    ],
                );
            }
        }
        if let Some(rfs) = &self.rfs {
            line(
                "ack",
                &[Value::Word(match rfs.ack {
                    AckPolicy::Write => "write",
                    AckPolicy::Commit => "commit",
                })],
            );
            line(
                "async",
                &[Value::Word(match rfs.sync {
                    AsyncPolicy::None => "none",
                    AsyncPolicy::Second => "second",
                })],
            );
            line("resync_bytes_per_s", &[Value::Number(rfs.resync_bytes_per_s)]);
            // Absent when not named: as above.
            if let Some(schedule) = &rfs.syncat {
                line("syncat", &[Value::Text(schedule.text())]);
            }
            if rfs.syncdelta_ms > 0 {
                line("syncdelta_ms", &[Value::Number(rfs.syncdelta_ms)]);
            }
            for dir in &rfs.dirs {
                line("replicated", &[Value::Text(&dir.path)]);
                dir.tocheck.iter().for_each(|path| line("tocheck", &[Value::Text(path)]));
                dir.notreplicated.iter().for_each(|path| line("notreplicated", &[Value::Text(path)]));
                dir.notreplicated_names.iter().for_each(|name| line("notreplicated_names", &[Value::Text(name)]));
            }
        }
        if let Some(user) = &self.user {
            line(
                "user",
                &[
                    Value::Number(user.nice_stop_timeout_ms),
                    Value::Number(user.force_stop_timeout_ms),
                    Value::flag(user.logging),
                    Value::Number(user.user_log_bytes),
                ],
            );
            // Only what is said: nodes of the version before know neither.
            let times = (user.start_timeout_ms, user.transition_timeout_ms);
            if times != super::module::SCRIPT_TIMES_MS {
                line("script_times", &[Value::Number(times.0), Value::Number(times.1)]);
            }
            for variable in &user.variables {
                line("var", &[Value::Text(&variable.name), Value::Text(&variable.value)]);
            }
        }
        for address in &self.splitbrain {
            line("splitbrain", &[Value::Word(&address.to_string())]);
        }
        self.waiting.iter().for_each(|it| line("waiting", &[Value::Text(it)]));
        text
    }
}

/// One value of a line. Text is quoted by a rule of our own: `{:?}` changes with the Unicode tables of the
/// compiler, and two nodes may have been built by different ones.
enum Value<'a> {
    Number(u64),
    Word(&'a str),
    Text(&'a str),
}

impl<'a> Value<'a> {
    fn flag(on: bool) -> Self {
        Self::Word(if on { "on" } else { "off" })
    }

    fn optional(text: Option<&'a str>) -> Self {
        text.map_or(Self::Word("-"), Self::Text)
    }

    fn write(&self, to: &mut String) {
        match self {
            Self::Number(number) => to.push_str(&format!("{number}")),
            Self::Word(word) => to.push_str(word),
            Self::Text(text) => {
                to.push('"');
                for c in text.chars() {
                    match c {
                        '"' | '\\' => to.extend(['\\', c]),
                        '\n' => to.push_str("\\n"),
                        c => to.push(c),
                    }
                }
                to.push('"');
            }
        }
    }
}
