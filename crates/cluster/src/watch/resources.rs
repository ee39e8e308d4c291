//! Resources by name, with their dates and a short past.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use model::resource::Value;
use model::rules::{Name, Several};

/// Resources of one module; more are not taken.
pub const RESOURCES_MAX: usize = 512;
/// Values kept of one resource.
pub const HISTORY_MAX: usize = 16;
/// Characters kept of a reason.
const WHY_MAX: usize = 240;

/// Now: one clock that decides, one for people.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Time {
    /// Boot-time clock.
    pub boot_ms: u64,
    /// Since 1970.
    pub unix_ms: u64,
}

/// One resource.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Resource {
    /// What it is.
    pub value: Value,
    /// Why, in a few words.
    pub why: String,
    /// Since when.
    pub since: Time,
    /// What it was before, the oldest first.
    pub past: VecDeque<Past>,
}

/// What a resource was.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Past {
    /// The value.
    pub value: Value,
    /// From when on.
    pub at_unix_ms: u64,
}

/// A resource got another value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    /// Its name.
    pub name: String,
    /// Before; `None`: it is new.
    pub from: Option<Value>,
    /// Now.
    pub to: Value,
    /// Why.
    pub why: String,
}

/// All resources one node knows of a module: its own, and the other node's under `remote.`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Resources {
    all: BTreeMap<String, Resource>,
}

impl Resources {
    /// By name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Resource)> {
        self.all.iter().map(|(name, resource)| (name.as_str(), resource))
    }

    /// One of them.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Resource> {
        self.all.get(name)
    }

    /// A value; nothing happens when it is the same, but for the reason.
    pub(super) fn set(&mut self, name: &str, value: Value, why: &str, since: Time) -> Option<Change> {
        let why: String = why.chars().filter(|c| !c.is_control()).take(WHY_MAX).collect();
        let Some(resource) = self.all.get_mut(name) else {
            if self.all.len() >= RESOURCES_MAX {
                return None;
            }
            let fresh = Resource { value: value.clone(), why: why.clone(), since, past: VecDeque::new() };
            self.all.insert(name.to_string(), fresh);
            return Some(Change { name: name.to_string(), from: None, to: value, why });
        };
        resource.why.clone_from(&why);
        if resource.value == value {
            return None;
        }
        let from = core::mem::replace(&mut resource.value, value.clone());
        if resource.past.len() == HISTORY_MAX {
            resource.past.pop_front();
        }
        resource.past.push_back(Past { value: from.clone(), at_unix_ms: resource.since.unix_ms });
        resource.since = since;
        Some(Change { name: name.to_string(), from: Some(from), to: value, why })
    }

    pub(super) fn set_remote(&mut self, theirs: &BTreeMap<String, Value>, time: Time) -> Vec<Change> {
        let own = |name: &str| name.strip_prefix("remote.").map(ToString::to_string);
        let gone: Vec<String> =
            self.all.keys().filter(|name| own(name).is_some_and(|name| !theirs.contains_key(&name))).cloned().collect();
        let mut changes: Vec<Change> =
            gone.iter().filter_map(|name| self.set(name, Value::Unknown, "the other node is silent", time)).collect();
        for (name, value) in theirs.iter().filter(|(name, _)| !name.starts_with("remote.")) {
            changes.extend(self.set(&alloc::format!("remote.{name}"), value.clone(), "", time));
        }
        changes
    }

    /// What a name of a rule stands for; a single resource that nobody has said anything about is not known.
    #[must_use]
    pub fn matching(&self, name: &Name) -> Vec<(String, Value)> {
        let side = if name.remote { "remote." } else { "" };
        if name.several().is_none() {
            let name = name.to_string();
            let value = self.all.get(&name).map_or(Value::Unknown, |resource| resource.value.clone());
            return alloc::vec![(name, value)];
        }
        let start = alloc::format!("{side}{}.", name.class);
        let of_class = self.all.range(start.clone()..).take_while(|(name, _)| name.starts_with(&start));
        of_class.map(|(name, resource)| (name.clone(), resource.value.clone())).collect()
    }
}

/// Does the predicate hold for the values, as many of them as `several` says?
pub(super) fn enough(several: Option<Several>, mut holds: impl Iterator<Item = bool>) -> bool {
    match several {
        None | Some(Several::Any) => holds.any(|it| it),
        Some(Several::All) => {
            let mut some = false;
            let all = holds.all(|it| {
                some = true;
                it
            });
            all && some
        }
    }
}
