//! The farm's packet filter in the kernel: loaded, shown a picture, attached to an interface, counted.
//!
//! Decides nothing: who owns what comes from `cluster` as a [`Picture`]. **Invariants:** a packet sees one whole picture; when nobody
//! renews the lease, the last picture serves until it ends, and then this node accepts nothing for the virtual IPs; an attached filter
//! outlives the process that attached it.

mod abi;
mod attach;
mod kernel;

use attach::Side;
pub use attach::Way;
pub use kernel::is_new_enough;

use crate::net::Mac;
use abi::{Entries, Rule, RuleKey, Table, View};
use aya::maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray};
use aya::{Ebpf, EbpfLoader};
use model::farm::{Fate, GROUPS_MAX, PINS_MAX, Picture};
use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// The program that clang made of `filter.c`.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/filter.o"));

/// Why the filter cannot be what it should be.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// The kernel lacks what the filter calls. Fatal on this machine.
    #[error(
        "cannot load the farm's packet filter: this kernel is {found}, and it needs {needed} or newer (`uname -r`; upgrade the kernel, or run this module on another node)"
    )]
    OldKernel {
        /// What runs.
        found: String,
        /// What is needed.
        needed: &'static str,
    },
    /// The kernel refused. State unchanged; retry safe.
    #[error("cannot {action}: {subject}")]
    Kernel {
        /// What was attempted.
        action: &'static str,
        /// On what.
        subject: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The picture is larger than the kernel's maps, or senseless. State unchanged.
    #[error(
        "cannot show the packet filter view {number}: it has more members, groups, rules or virtual IPs than a farm may have"
    )]
    TooLarge {
        /// Of the view.
        number: u64,
    },
}

impl FilterError {
    fn kernel(
        action: &'static str,
        subject: impl std::fmt::Display,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Kernel { action, subject: subject.to_string(), source: source.into() }
    }
}

/// Somebody who was no member of the view in force spoke as a virtual IP. (A member whose hardware address was not known yet is one.)
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Claim {
    /// Who.
    pub mac: Mac,
    /// How often since the filter was loaded.
    pub count: u64,
}

/// A loaded filter. Dropping it leaves what is attached as it is.
pub struct Filter {
    ebpf: Ebpf,
    word: Array<MapData, u64>,
    views: Array<MapData, View>,
    rules: HashMap<MapData, RuleKey, Rule>,
    tables: Array<MapData, Table>,
    lease: Array<MapData, u64>,
    counters: PerCpuArray<MapData, u64>,
    foes: HashMap<MapData, u64, u64>,
    own: Array<MapData, u128>,
    pins: Pins,
    /// What is in the hashed map, by slot.
    entries: [Entries; 2],
    /// The word as it was written last: generation and slot.
    now: u64,
}

impl std::fmt::Debug for Filter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Filter").field("now", &self.now).finish_non_exhaustive()
    }
}

impl Filter {
    /// Loads the program and its maps; nothing is attached yet, and without a picture it lets everything pass.
    ///
    /// # Errors
    /// [`FilterError::OldKernel`], or what the kernel said.
    pub fn load() -> Result<Self, FilterError> {
        let release = kernel::release();
        if !is_new_enough(&release) {
            return Err(FilterError::OldKernel { found: release, needed: kernel::NEEDED });
        }
        const ACTION: &str = "load the farm's packet filter";
        let loaded = EbpfLoader::new().load(OBJECT);
        let mut ebpf = loaded.map_err(|error| FilterError::kernel(ACTION, "its maps", error))?;
        for side in Side::BOTH {
            let verified = attach::classifier(&mut ebpf, side)?.load();
            verified.map_err(|error| FilterError::kernel(ACTION, "its program", error))?;
        }
        Ok(Self {
            word: array(&mut ebpf, "word")?,
            views: array(&mut ebpf, "views")?,
            rules: hash(&mut ebpf, "rules")?,
            tables: array(&mut ebpf, "tables")?,
            lease: array(&mut ebpf, "lease")?,
            counters: PerCpuArray::try_from(taken(&mut ebpf, "counters")?)
                .map_err(|error| FilterError::kernel("open a map of the packet filter", "counters", error))?,
            foes: hash(&mut ebpf, "foes")?,
            own: array(&mut ebpf, "own")?,
            pins: Pins(Arc::new(hash(&mut ebpf, "pins")?)),
            ebpf,
            entries: Default::default(),
            now: 0,
        })
    }

    /// From the next packet on, the filter decides by this picture.
    ///
    /// # Errors
    /// [`FilterError`]; the picture before stays in force.
    pub fn show(&mut self, picture: &Picture) -> Result<(), FilterError> {
        if !picture.fits() {
            return Err(FilterError::TooLarge { number: picture.number });
        }
        // Written beside the one in force. A packet that still reads what is overwritten would have begun before the switch
        // before this one: views are milliseconds apart, packets take a fraction of a microsecond.
        let slot = (self.now & 1) as u32 ^ 1;
        let refused = |error: MapError| FilterError::kernel("show the packet filter a view", picture.number, error);
        for (group, owners) in (0u32..).zip(&picture.tables) {
            self.tables.set(slot * GROUPS_MAX as u32 + group, Table::of(owners), 0).map_err(refused)?;
        }
        let entries = Entries::of(picture, slot);
        let view = View::of(picture, &entries.rules).ok_or(FilterError::TooLarge { number: picture.number })?;
        let before = self.entries[slot as usize].clone();
        // What a refusal leaves half done is known as there: it is taken away before this slot is used again.
        self.entries[slot as usize].add(&entries);
        change(&mut self.rules, &before.rules, &entries.rules).map_err(refused)?;
        self.entries[slot as usize] = entries;
        self.views.set(slot, view, 0).map_err(refused)?;
        let next = (self.now >> 1).wrapping_add(1) << 1 | u64::from(slot);
        self.word.set(0, next, 0).map_err(refused)?;
        self.now = next;
        Ok(())
    }

    /// The filter serves for so long from now, and then accepts nothing until it is renewed.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn renew(&mut self, lasts: Duration) -> Result<(), FilterError> {
        let until = crate::clock::boot_ms().saturating_mul(1_000_000).saturating_add(lasts.as_nanos() as u64);
        self.lease.set(0, until, 0).map_err(|error| FilterError::kernel("renew the packet filter's lease", "", error))
    }

    /// What became of the frames for the virtual IPs since the filter was loaded.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn counters(&self) -> Result<Vec<(Fate, u64)>, FilterError> {
        let count = |fate: Fate| {
            let values = self.counters.get(&(fate as u32), 0);
            values.map(|of_cpus| (fate, of_cpus.iter().sum()))
        };
        let counts: Result<Vec<_>, _> = Fate::ALL.into_iter().map(count).collect();
        counts.map_err(|error| FilterError::kernel("read a map of the packet filter", "counters", error))
    }

    /// The flows of UDP that it remembers, to be counted elsewhere: that takes milliseconds.
    #[must_use]
    pub fn pins(&self) -> Pins {
        self.pins.clone()
    }

    /// Who else claimed a virtual IP: one entry per hardware address, the first 64 of them.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn claims(&self) -> Result<Vec<Claim>, FilterError> {
        let claim = |(who, count): (u64, u64)| {
            let [a, b, c, d, e, f, ..] = who.to_ne_bytes();
            Claim { mac: Mac([a, b, c, d, e, f]), count }
        };
        let claims: Result<Vec<Claim>, MapError> = self.foes.iter().map(|entry| entry.map(claim)).collect();
        claims.map_err(|error| FilterError::kernel("read a map of the packet filter", "foes", error))
    }

    /// Whoever asks for a client's hardware address asks in this name from now on, never in a virtual IP's: the client would take this node's
    /// hardware address for that one's. `None`: none is known.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn speak_as(&mut self, own: Option<Ipv6Addr>) -> Result<(), FilterError> {
        // As bytes, in the network's order.
        let own = own.map_or(0, |own| u128::from_ne_bytes(own.octets()));
        let written = self.own.set(0, own, 0);
        written.map_err(|error| FilterError::kernel("change a map of the packet filter", "own", error))
    }

    /// Puts the filter on the interface, in the place of the one that an earlier process left under this `name`.
    /// `dir` is where the kernel keeps it (a BPF file system; mounted if it is not yet).
    ///
    /// # Errors
    /// [`FilterError`]; the earlier one stays.
    pub fn attach(&mut self, interface: &str, place: &Place) -> Result<Way, FilterError> {
        let way = Way::of_kernel();
        attach::attach(&mut self.ebpf, interface, place, way)?;
        Ok(way)
    }

    /// The same by a given way: the older one works on newer kernels too.
    ///
    /// # Errors
    /// As [`Filter::attach`].
    pub fn attach_by(&mut self, interface: &str, place: &Place, way: Way) -> Result<(), FilterError> {
        attach::attach(&mut self.ebpf, interface, place, way)
    }

    /// Plays one frame through the program, in this thread's network namespace, and gives the verdict and the frame afterwards.
    ///
    /// # Errors
    /// When the kernel does not play it (too short to be a frame).
    pub fn play(&mut self, frame: &[u8]) -> Result<(i32, Vec<u8>), FilterError> {
        attach::play(&mut self.ebpf, Side::In, frame)
    }

    /// The same with one that leaves.
    ///
    /// # Errors
    /// As [`Filter::play`].
    pub fn play_out(&mut self, frame: &[u8]) -> Result<(i32, Vec<u8>), FilterError> {
        attach::play(&mut self.ebpf, Side::Out, frame)
    }

    /// How long the program takes for this frame: the mean of so many runs over one copy of it (a frame that is passed on is another
    /// frame afterwards: one run).
    ///
    /// # Errors
    /// As [`Filter::play`].
    pub fn cost(&mut self, frame: &[u8], runs: u32) -> Result<Duration, FilterError> {
        attach::cost(&mut self.ebpf, frame, runs)
    }
}

/// The flows of UDP that a filter remembers. By key (client, ports, virtual IP): when it was last heard of, since which view, which node.
#[derive(Clone)]
pub struct Pins(Arc<HashMap<MapData, [u64; 3], [u64; 3]>>);

impl Pins {
    /// Of how many something came within this time. Blocking: a hundredth of a second when there are [`PINS_MAX`].
    ///
    /// # Errors
    /// What the kernel said.
    pub fn count(&self, within: Duration) -> Result<usize, FilterError> {
        let since_ns = crate::clock::boot_ms()
            .saturating_mul(1_000_000)
            .saturating_sub(u64::try_from(within.as_nanos()).unwrap_or(u64::MAX));
        // A listing that has lost its place, because the flow there is forgotten, begins anew: it ends all the same.
        let entries = self.0.iter().take(PINS_MAX);
        let alive = entries.map(|entry| entry.map(|(_, [at_ns, ..])| usize::from(at_ns >= since_ns)));
        alive
            .sum::<Result<usize, MapError>>()
            .map_err(|error| FilterError::kernel("read a map of the packet filter", "pins", error))
    }
}

/// Where an attached filter is found again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    /// Directory for the kernel's file system.
    pub dir: PathBuf,
    /// Name of the module.
    pub name: String,
    /// Its small number (1..=256): tells its filter from those of other modules.
    pub id: u16,
}

/// Takes the filter off the interface, whoever attached it. No error when there is none.
///
/// # Errors
/// What the kernel said.
pub fn detach(interface: &str, place: &Place) -> Result<(), FilterError> {
    attach::detach(interface, place)
}

/// Whoever asks for a client's hardware address on this interface says so in the node's own name, never in a virtual IP's: the answer
/// would find another member. (IPv4; of IPv6 the filter sees to it: [`Filter::speak_as`].)
///
/// # Errors
/// When the kernel's setting cannot be written.
pub fn speak_in_own_name(interface: &str) -> Result<(), FilterError> {
    let setting = format!("/proc/sys/net/ipv4/conf/{interface}/arp_announce");
    std::fs::write(&setting, "2").map_err(|error| FilterError::kernel("set the kernel's arp_announce", setting, error))
}

/// From the entries before to those wanted.
fn change<K: aya::Pod + Ord, V: aya::Pod>(
    map: &mut HashMap<MapData, K, V>,
    before: &BTreeMap<K, V>,
    wanted: &BTreeMap<K, V>,
) -> Result<(), MapError> {
    for key in before.keys().filter(|key| !wanted.contains_key(key)) {
        match map.remove(key) {
            Ok(()) | Err(MapError::KeyNotFound) => {}
            Err(error) => return Err(error),
        }
    }
    wanted.iter().try_for_each(|(key, value)| map.insert(key, value, 0))
}

fn taken(ebpf: &mut Ebpf, name: &'static str) -> Result<Map, FilterError> {
    ebpf.take_map(name)
        .ok_or_else(|| FilterError::kernel("open a map of the packet filter", name, "the program has none"))
}

fn array<T: aya::Pod>(ebpf: &mut Ebpf, name: &'static str) -> Result<Array<MapData, T>, FilterError> {
    Array::try_from(taken(ebpf, name)?)
        .map_err(|error| FilterError::kernel("open a map of the packet filter", name, error))
}

fn hash<K: aya::Pod, V: aya::Pod>(ebpf: &mut Ebpf, name: &'static str) -> Result<HashMap<MapData, K, V>, FilterError> {
    HashMap::try_from(taken(ebpf, name)?)
        .map_err(|error| FilterError::kernel("open a map of the packet filter", name, error))
}
