// The farm's packet filter: which frames for a virtual IP this node keeps, and to whom it passes the others.
//
// No includes: the few shapes of the kernel's stable interface are written here, so that building needs clang alone.
// The same decision, in Rust, for people and for the tests: crates/cluster/src/farm/filter.rs. Every change is made in both.
//
// A packet reads `word` once, and with it one whole view: what another processor prepares meanwhile it does not see.
//
// A call out of the program costs more than all that is computed between two of them (returns are slow on processors with
// mitigations): headers are read in place, addresses and rules are found in tables inside the view.
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define SECTION(name) __attribute__((section(name), used))
#define INLINE static __attribute__((always_inline))

// Kept equal to crates/model/src/limits.rs by crates/platform/src/farm/abi.rs.
#define BUCKETS 16384
#define DEPTH 4
#define GROUPS 8
#define MEMBERS 64
#define VIPS 16
#define RULES 64
#define FOES 64
#define NODES 256
#define PINS 16384
#define PARTS 16384
#define SEEN 1024

#define NONE 0xff
#define BY_ADDR 0
#define BY_PORT 1
#define BY_IPID 2

// Verdicts of a traffic-control program.
#define NEXT (-1)
#define ACCEPT 0
#define DROP 2

// Indexes of `counters`: model::farm::Fate.
enum { ACCEPTED, PASSED, SECOND_CHANCE, NO_RULE, FLOODED, MALFORMED, LEASE, TTL, NOBODY, ANSWERED, SILENT, CONFLICT, OTHERS, ASTRAY, FATES };

struct skb {
	u32 len, pkt_type, mark, queue_mapping, protocol, vlan_present, vlan_tci, vlan_proto, priority, ingress_ifindex, ifindex;
	u32 tc_index, cb[5], hash, tc_classid, data, data_end;
};
struct sock {
	u32 bound_dev_if, family, type, protocol, mark, priority, src_ip4, src_ip6[4], src_port, dst_port, dst_ip4, dst_ip6[4], state;
};
#define TCP_LISTEN 10

struct map {
	u32 type, key_size, value_size, max_entries, flags;
};
#define HASH 1
#define ARRAY 2
#define PERCPU_ARRAY 6
#define LRU_HASH 9

struct address {
	u64 half[2];
};
// Found by hash, because a verifier walks a loop for every state around it. Each view has a seed for which no two of its addresses
// share a place.
#define VIP_PLACES 64
#define MAC_PLACES 1024
#define RULE_PLACES 64
struct vip_place {
	struct address address;
	u64 index; // NONE: free. Above its lowest 16 bits: the hardware address that no node sends from; 0: the members' own
};
struct rule_place {
	u32 key; // port, virtual IP, protocol; 0: free
	u16 filter, group;
};
// Rules that found their place taken, and later parts that an error quotes. `slot` keeps two views' apart.
struct rule_key {
	u16 port; // 0: any other
	u8 vip, proto, slot, is_fragment;
	u16 unused;
};
struct rule {
	u16 filter, group;
};
struct member {
	u8 mac[6];
	u8 node, unused;
};
struct view {
	u64 number;
	struct member members[MEMBERS];
	u64 vip_seed, mac_seed;
	struct vip_place vips[VIP_PLACES];
	u64 macs[MAC_PLACES]; // 0: free
	struct rule_place rules[RULE_PLACES];
	u64 since[MEMBERS]; // the view in which each of them came, and did not leave since
	u8 place_of[NODES]; // of a node's number: its index; NONE: not present
	u64 pin_ns; // how long after its last datagram a flow of UDP stays where it is
	u64 part_ns; // how long after the first part of a packet the others go where that one went
	u8 vip_count;
	u8 me, director;
	u8 arp_group; // NONE: the director answers
	u8 doubts; // a connection that nobody here has may stand elsewhere
	u8 unused[3];
};
// The last look at the clock: once in a tick is enough.
struct look {
	u64 tick, until, is_over, now_ns;
};
// A flow of UDP. Kept where clients' datagrams arrive first.
struct pin_key {
	struct address client;
	u16 client_port, vip_port;
	u8 vip, unused[3];
};
struct pin {
	u64 at_ns, since;
	u64 node;
};
// Where the first part of a packet went: only that one has ports.
struct part_key {
	struct address client;
	u32 id;
	u8 vip, proto, unused[2];
};
// A connection that was here when the kernel was asked last: asking costs more than all the rest.
struct seen {
	struct address client;
	u64 rest; // ports and virtual IP
	u64 word; // by another view it is asked again
	u64 until_ns;
};
#define SEEN_NS 1000000000ull
struct table {
	u8 owners[BUCKETS][DEPTH];
};

struct map SECTION("maps") word = {ARRAY, 4, 8, 1, 0};
struct map SECTION("maps") views = {ARRAY, 4, sizeof(struct view), 2, 0};
struct map SECTION("maps") rules = {HASH, sizeof(struct rule_key), sizeof(struct rule), 2 * VIPS * (RULES + 8), 0};
struct map SECTION("maps") tables = {ARRAY, 4, sizeof(struct table), 2 * GROUPS, 0};
struct map SECTION("maps") lease = {ARRAY, 4, 8, 1, 0};
struct map SECTION("maps") looks = {PERCPU_ARRAY, 4, sizeof(struct look), 1, 0};
struct map SECTION("maps") pins = {LRU_HASH, sizeof(struct pin_key), sizeof(struct pin), PINS, 0};
struct map SECTION("maps") parts = {LRU_HASH, sizeof(struct part_key), sizeof(struct pin), PARTS, 0};
struct map SECTION("maps") seen = {PERCPU_ARRAY, 4, sizeof(struct seen), SEEN, 0};
struct map SECTION("maps") counters = {PERCPU_ARRAY, 4, 8, FATES, 0};
// How often each hardware address spoke as a virtual IP: later some of them turn out to be members'. Past the first FOES nobody is noted.
// This node's own IPv6 address on the interface; zero: none is known.
struct map SECTION("maps") own = {ARRAY, 4, sizeof(struct address), 1, 0};
struct map SECTION("maps") foes = {HASH, 8, 8, FOES, 0};

static void *(*lookup)(void *map, const void *key) = (void *)1;
static long (*update)(void *map, const void *key, const void *value, u64 flags) = (void *)2;
static long (*store)(struct skb *, u32 at, const void *from, u32 bytes, u64 flags) = (void *)9;
static long (*redirect)(u32 ifindex, u64 flags) = (void *)23;
static long (*change_type)(struct skb *, u32 type) = (void *)32;
static long (*load)(const struct skb *, u32 at, void *to, u32 bytes) = (void *)26;
static long (*release)(struct sock *) = (void *)86;
static struct sock *(*socket_of)(struct skb *, void *tuple, u32 bytes, u64 netns, u64 flags) = (void *)99;
static u64 (*ticks)(void) = (void *)118;
static u64 (*boot_ns)(void) = (void *)125;

// Bytes of the frame at a place that is known when this is compiled: where they are, or by a copy when they lie in another piece.
#define part(skb, at, to, bytes) \
	((u8 *)(u64)(skb)->data + (at) + (bytes) <= (u8 *)(u64)(skb)->data_end \
		 ? (__builtin_memcpy(to, (u8 *)(u64)(skb)->data + (at), bytes), 0) \
		 : load(skb, at, to, bytes))

INLINE u16 be16(const u8 *at) { return (u16)at[0] << 8 | at[1]; }
INLINE u64 raw64(const u8 *at)
{
	u64 value;
	__builtin_memcpy(&value, at, 8);
	return value;
}
INLINE u32 raw32(const u8 *at)
{
	u32 value;
	__builtin_memcpy(&value, at, 4);
	return value;
}
INLINE int is_mac(const u8 *a, const u8 *b)
{
	u16 x, y;
	__builtin_memcpy(&x, a + 4, 2);
	__builtin_memcpy(&y, b + 4, 2);
	return raw32(a) == raw32(b) && x == y;
}
// IPv4 as ::ffff:a.b.c.d.
INLINE struct address v4(const u8 *at)
{
	return (struct address){{0, (u64)0xffff0000 | (u64)raw32(at) << 32}};
}
INLINE struct address v6(const u8 *at)
{
	return (struct address){{raw64(at), raw64(at + 8)}};
}

#define LATER_PART 1
#define FIRST_PART 2

// What is known of a packet on its way to a decision.
struct flow {
	struct address client;
	u16 client_port, vip_port;
	u32 id; // the packet's identification; of IPv6 only in parts
	u8 proto;
	u8 is_fragment; // LATER_PART: it has no ports; FIRST_PART
	u8 may_have_socket; // of a TCP connection that exists already
	u8 family;
	u8 ttl;
	u8 vip;
	u8 to_all; // sent to the hardware address that every member receives
	u8 is_quoted; // an ICMP error speaks of it
	struct address vip_address;
	u8 check[2]; // IPv4
	u64 word, now_ns;
};

INLINE int counted(u32 fate, int verdict)
{
	u64 *count = lookup(&counters, &fate);
	if (count)
		*count += 1;
	return verdict;
}

INLINE u64 whole(const u8 *mac)
{
	u16 low;
	__builtin_memcpy(&low, mac + 4, 2);
	return raw32(mac) | (u64)low << 32;
}

// Its index and hardware address, as in `vip_place`.
INLINE u64 vip_of(const struct view *view, struct address address)
{
	u64 hash = ((address.half[0] ^ address.half[1] >> 7) + address.half[1]) * view->vip_seed;
	const struct vip_place *place = &view->vips[(hash >> 58) % VIP_PLACES];
	int is_it = place->address.half[0] == address.half[0] && place->address.half[1] == address.half[1];
	return is_it ? place->index : NONE;
}

INLINE int is_member(const struct view *view, const u8 *mac)
{
	// Not 0: a free place is no hardware address.
	u64 it = whole(mac) | 1ull << 63;
	return view->macs[(it * view->mac_seed >> 54) % MAC_PLACES] == it;
}

INLINE int lease_is_over(u64 *now_ns)
{
	u32 zero = 0;
	u64 *until = lookup(&lease, &zero);
	struct look *look = lookup(&looks, &zero);
	if (!until || !look)
		return 1;
	u64 tick = ticks(), end = *until;
	if (look->tick != tick || look->until != end) {
		look->now_ns = boot_ns();
		look->is_over = look->now_ns >= end;
		look->tick = tick;
		look->until = end;
	}
	*now_ns = look->now_ns;
	return look->is_over != 0;
}

// Why a frame for a virtual IP is not looked into; FATES: it is.
INLINE u32 forbidden(const struct view *view, const u8 *eth, u64 vip, struct flow *flow)
{
	if (lease_is_over(&flow->now_ns))
		return LEASE;
	flow->vip = vip;
	if (is_mac(eth, view->members[view->me % MEMBERS].mac))
		return FATES;
	flow->to_all = vip >> 16 && whole(eth) == vip >> 16;
	return flow->to_all ? FATES : FLOODED;
}

INLINE int accepted(struct skb *skb, const struct flow *flow)
{
	// For the kernel it was somebody else's.
	if (flow->to_all)
		change_type(skb, 0);
	return counted(ACCEPTED, ACCEPT);
}

INLINE u64 mixed(u64 hash, u64 value)
{
	hash = (hash ^ value) * 0x9e3779b97f4a7c15ull;
	return hash ^ hash >> 29;
}
INLINE u32 bucket_of(struct address client, u64 extra)
{
	u64 hash = mixed(mixed(mixed(0x5354454144ull, client.half[0]), client.half[1]), extra);
	hash *= 0xbf58476d1ce4e5b9ull;
	return (hash >> 40) % BUCKETS;
}

INLINE const u8 *entry_of(u32 slot, u32 group, u32 bucket)
{
	u32 index = slot * GROUPS + group % GROUPS;
	struct table *table = lookup(&tables, &index);
	return table ? table->owners[bucket % BUCKETS] : 0;
}

// Who answers a question for a virtual IP's hardware address.
INLINE int asked(const struct view *view, u32 slot, struct address client)
{
	u64 now_ns;
	if (lease_is_over(&now_ns))
		return counted(LEASE, DROP);
	u8 answers = view->director;
	if (view->arp_group != NONE) {
		const u8 *entry = entry_of(slot, view->arp_group, bucket_of(client, 0));
		answers = entry ? entry[0] : NONE;
	}
	return answers == view->me ? counted(ANSWERED, ACCEPT) : counted(SILENT, DROP);
}

INLINE int contested(const u8 *mac)
{
	u64 who = 0, one = 1;
	__builtin_memcpy(&who, mac, 6);
	u64 *count = lookup(&foes, &who);
	if (count)
		__sync_fetch_and_add(count, 1);
	else
		update(&foes, &who, &one, 0);
	return counted(CONFLICT, DROP);
}

INLINE void put_mac(u8 *to, u64 mac)
{
	u32 high = mac;
	u16 low = mac >> 32;
	__builtin_memcpy(to, &high, 4);
	__builtin_memcpy(to + 4, &low, 2);
}

// The answer that names a hardware address no frame comes from: the kernel would name its own. `mac`: as in `vip_place`.
INLINE int answered4(struct skb *skb, const struct view *view, const u8 *eth, const u8 *question, u64 mac)
{
	u8 it[42];
	__builtin_memcpy(it, eth + 6, 6);
	__builtin_memcpy(it + 6, view->members[view->me % MEMBERS].mac, 6);
	__builtin_memcpy(it + 12, eth + 12, 2);
	__builtin_memcpy(it + 14, question, 6);
	it[20] = 0, it[21] = 2;
	put_mac(it + 22, mac);
	__builtin_memcpy(it + 28, question + 24, 4);
	__builtin_memcpy(it + 32, question + 8, 10);
	store(skb, 0, it, 42, 0);
	return redirect(skb->ifindex, 0);
}

// The same for IPv6. A question without room for an option gets none: who asks so knows the address, or only whether somebody has it.
INLINE int answered6(struct skb *skb, const struct view *view, const u8 *eth, const u8 *head, const u8 *nd, u64 mac)
{
	u8 it[86] = {};
	struct address from = v6(head + 8);
	int is_nobody = !from.half[0] && !from.half[1];
	u32 bytes = be16(head + 4) >= 32 && skb->len >= 86 ? 32 : 24;
	__builtin_memcpy(it, eth + 6, 6);
	if (is_nobody)
		it[0] = it[1] = 0x33, it[2] = it[3] = it[4] = 0, it[5] = 1;
	__builtin_memcpy(it + 6, view->members[view->me % MEMBERS].mac, 6);
	it[12] = 0x86, it[13] = 0xdd;
	it[14] = 0x60, it[19] = bytes, it[20] = 58, it[21] = 255;
	__builtin_memcpy(it + 22, nd + 8, 16);
	if (is_nobody)
		it[38] = 0xff, it[39] = 2, it[53] = 1;
	else
		__builtin_memcpy(it + 38, head + 8, 16);
	// "In place of what you have"; and, to somebody, "as you asked".
	it[54] = 136, it[58] = is_nobody ? 0x20 : 0x60;
	__builtin_memcpy(it + 62, nd + 8, 16);
	if (bytes == 32) {
		it[78] = 2, it[79] = 1;
		put_mac(it + 80, mac);
	}
	u32 sum = 58 + bytes;
#pragma clang loop unroll(full)
	for (u32 i = 22; i < 86; i += 2)
		sum += be16(it + i);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = ~((sum & 0xffff) + (sum >> 16));
	it[56] = sum >> 8, it[57] = sum;
	store(skb, 0, it, 78, 0);
	if (bytes == 32)
		store(skb, 78, it + 78, 8, 0);
	return redirect(skb->ifindex, 0);
}

INLINE int arp(struct skb *skb, const struct view *view, u32 slot, const u8 *eth)
{
	u8 it[28];
	if (part(skb, 14, it, 28) < 0)
		return NEXT;
	if (be16(it) != 1 || be16(it + 2) != 0x0800 || it[4] != 6 || it[5] != 4)
		return NEXT;
	u64 speaker = vip_of(view, v4(it + 14));
	if (speaker != NONE && !is_member(view, eth + 6))
		return contested(eth + 6);
	u64 vip = vip_of(view, v4(it + 24));
	if (be16(it + 6) != 1 || vip == NONE)
		return NEXT;
	if (speaker != NONE && vip >> 16)
		// A member announces it.
		return counted(SILENT, DROP);
	int verdict = asked(view, slot, v4(it + 14));
	return verdict == ACCEPT && vip >> 16 ? answered4(skb, view, eth, it, vip >> 16) : verdict;
}

INLINE int passed(struct skb *skb, const struct view *view, const struct flow *flow, u32 to, u32 fate)
{
	if (flow->ttl <= 1)
		return counted(TTL, DROP);
	u8 macs[12];
	__builtin_memcpy(macs, view->members[to % MEMBERS].mac, 6);
	// The source must be this node's own: a switch learns where it is, a hypervisor forbids any other.
	__builtin_memcpy(macs + 6, view->members[view->me % MEMBERS].mac, 6);
	u32 sum = (u32)be16(flow->check) + 0x100;
	sum = (sum & 0xffff) + (sum >> 16);
	u8 ttl = flow->ttl - 1, check[2] = {sum >> 8, sum};
	u8 *data = (u8 *)(u64)skb->data;
	if (data + 26 <= (u8 *)(u64)skb->data_end) {
		__builtin_memcpy(data, macs, 12);
		if (flow->family == 4) {
			data[22] = ttl;
			__builtin_memcpy(data + 24, check, 2);
		} else
			data[21] = ttl;
	} else {
		store(skb, flow->family == 4 ? 22 : 21, &ttl, 1, 0);
		if (flow->family == 4)
			store(skb, 24, check, 2, 0);
		store(skb, 0, macs, 12, 0);
	}
	counted(fate, 0);
	return redirect(skb->ifindex, 0);
}

INLINE int sent(struct skb *skb, const struct view *view, const struct flow *flow, u32 to, u32 fate)
{
	if (fate == ACCEPTED)
		return accepted(skb, flow);
	return fate == OTHERS ? counted(OTHERS, DROP) : passed(skb, view, flow, to, fate);
}

// Is there a connection (not a listener) of this node? Yes is good for a while: a new connection of the same ports begins with a SYN.
INLINE int has_socket(struct skb *skb, const struct flow *flow)
{
	u64 rest = (u64)flow->client_port << 32 | (u64)flow->vip_port << 16 | flow->vip;
	u32 index = mixed(flow->client.half[1] ^ flow->client.half[0], rest) % SEEN;
	struct seen *seen_here = lookup(&seen, &index);
	if (!seen_here)
		return 0;
	if (seen_here->rest == rest && seen_here->client.half[1] == flow->client.half[1] &&
	    seen_here->client.half[0] == flow->client.half[0] && seen_here->word == flow->word && flow->now_ns < seen_here->until_ns)
		return 1;
	struct {
		u8 client[16], vip[16];
		u8 client_port[2], vip_port[2];
	} six;
	struct {
		u8 client[4], vip[4];
		u8 client_port[2], vip_port[2];
	} four;
	struct sock *sock;
	if (flow->family == 4) {
		__builtin_memcpy(four.client, (u8 *)&flow->client + 12, 4);
		__builtin_memcpy(four.vip, (u8 *)&flow->vip_address + 12, 4);
		four.client_port[0] = flow->client_port >> 8, four.client_port[1] = flow->client_port;
		four.vip_port[0] = flow->vip_port >> 8, four.vip_port[1] = flow->vip_port;
		sock = socket_of(skb, &four, sizeof four, -1ll, 0);
	} else {
		__builtin_memcpy(six.client, &flow->client, 16);
		__builtin_memcpy(six.vip, &flow->vip_address, 16);
		six.client_port[0] = flow->client_port >> 8, six.client_port[1] = flow->client_port;
		six.vip_port[0] = flow->vip_port >> 8, six.vip_port[1] = flow->vip_port;
		sock = socket_of(skb, &six, sizeof six, -1ll, 0);
	}
	if (!sock)
		return 0;
	u32 state = sock->state;
	release(sock);
	if (state == TCP_LISTEN)
		return 0;
	seen_here->client = flow->client;
	seen_here->rest = rest;
	seen_here->word = flow->word;
	seen_here->until_ns = flow->now_ns + SEEN_NS;
	return 1;
}

// The member of a pin; NONE: it is not there any more.
INLINE u32 member_of(const struct view *view, const struct pin *pin)
{
	u32 place = view->place_of[pin->node % NODES];
	// Whoever left and came back has forgotten it.
	return place != NONE && view->since[place % MEMBERS] == pin->since ? place : NONE;
}

INLINE struct part_key parts_of(const struct flow *flow)
{
	return (struct part_key){flow->client, flow->id, flow->vip, flow->proto, {}};
}

// The other parts go there as well.
INLINE void remember(const struct view *view, const struct flow *flow, u32 to)
{
	struct part_key key = parts_of(flow);
	struct pin made = {flow->now_ns, view->since[to % MEMBERS], view->members[to % MEMBERS].node};
	update(&parts, &key, &made, 0);
}

// Where a flow of UDP is pinned to, or is from now on; `owner` otherwise.
INLINE u32 pinned(const struct view *view, const struct flow *flow, u32 owner)
{
	struct pin_key key = {flow->client, flow->client_port, flow->vip_port, flow->vip, {}};
	struct pin *pin = lookup(&pins, &key);
	if (pin && flow->now_ns - pin->at_ns < view->pin_ns) {
		u32 place = member_of(view, pin);
		if (place != NONE) {
			if (!flow->is_quoted)
				pin->at_ns = flow->now_ns;
			return place;
		}
	}
	if (!flow->is_quoted) {
		struct pin made = {flow->now_ns, view->since[owner % MEMBERS], view->members[owner % MEMBERS].node};
		update(&pins, &key, &made, 0);
	}
	return owner;
}

// Has it a place of its own?
INLINE const struct rule_place *place_of(const struct view *view, const struct flow *flow, u16 port)
{
	u32 key = (u32)port << 16 | (u32)flow->vip << 8 | flow->proto;
	const struct rule_place *place = &view->rules[(key * 0x9e3779b1u >> 26) % RULE_PLACES];
	return place->key == key ? place : 0;
}

INLINE int decide(struct skb *skb, const struct view *view, u32 slot, const u8 *eth, const struct flow *flow)
{
	u32 filter, group;
	// An error quotes a later part of what the virtual IP sent: it goes by address, under the first rule of its protocol.
	int has_ports = flow->is_fragment != LATER_PART;
	const struct rule_place *place = has_ports ? place_of(view, flow, flow->vip_port) : 0;
	if (place) {
		filter = place->filter, group = place->group;
	} else {
		struct rule_key key = {has_ports ? flow->vip_port : 0, flow->vip, flow->proto, slot, !has_ports, 0};
		const struct rule *rule = lookup(&rules, &key);
		if (!rule && key.port) {
			key.port = 0;
			rule = lookup(&rules, &key);
		}
		if (!rule)
			return counted(NO_RULE, DROP);
		filter = rule->filter, group = rule->group;
	}
	u64 extra = 0;
	if (filter == BY_PORT && has_ports)
		extra = 1 << 16 | flow->client_port;
	if (filter == BY_IPID && flow->family == 4)
		extra = 2 << 16 | flow->id;
	const u8 *entry = entry_of(slot, group, bucket_of(flow->client, extra));
	if (!entry || entry[0] == NONE)
		return counted(NOBODY, DROP);
	u32 to = entry[0], fate = ACCEPTED;
	if (flow->to_all) {
		// Its owner has received it as well.
		fate = to != view->me ? OTHERS : ACCEPTED;
	} else if (flow->proto == 17 || to != view->me) {
		// What comes from a member has been dealt out.
		int is_first = !is_member(view, eth + 6);
		if (is_first && flow->proto == 17 && filter != BY_IPID && has_ports)
			to = pinned(view, flow, to);
		fate = is_first && to != view->me ? PASSED : ACCEPTED;
	}
	u32 next = NONE;
	if (fate == ACCEPTED) {
		to = view->me;
		for (u32 i = 0; i + 1 < DEPTH; i++)
			if (entry[i] == view->me)
				next = entry[i + 1];
	}
	// The socket matters only where there is somebody else to ask; in doubt always.
	if (flow->may_have_socket && (next != NONE || view->doubts)) {
		if (has_socket(skb, flow)) {
			to = view->me, fate = ACCEPTED;
		} else if (fate == ACCEPTED) {
			if (next == NONE)
				return counted(NOBODY, DROP);
			to = next, fate = SECOND_CHANCE;
		}
	}
	if (flow->is_fragment == FIRST_PART)
		remember(view, flow, to);
	return sent(skb, view, flow, to, fate);
}

// A part without ports goes where the first one of its packet went, from here on. One that came before it is lost, and with it the packet: a
// sender sends them in order, and what no rule names must not come in.
INLINE int follow(struct skb *skb, const struct view *view, const struct flow *flow)
{
	struct part_key key = parts_of(flow);
	const struct pin *first = lookup(&parts, &key);
	u32 to = first && flow->now_ns - first->at_ns < view->part_ns ? member_of(view, first) : NONE;
	if (to == NONE)
		return counted(ASTRAY, DROP);
	return sent(skb, view, flow, to, to == view->me ? ACCEPTED : flow->to_all ? OTHERS : PASSED);
}

// Protocol and place of what follows an IPv6 header; 0 when it is cut off or too deep.
INLINE u32 behind_extensions(struct skb *skb, u32 at, u8 *proto, u8 *is_fragment, u32 *id)
{
	for (u32 i = 0; i < 4; i++) {
		u8 it[8];
		if (*proto != 0 && *proto != 43 && *proto != 44 && *proto != 60)
			return at;
		if (load(skb, at, it, 8) < 0)
			return 0;
		if (*proto == 44) {
			u16 place = be16(it + 2);
			// The only part is a whole packet.
			*is_fragment = place & 0xfff8 ? LATER_PART : place & 1 ? FIRST_PART : 0;
			*id = raw32(it + 4);
			*proto = it[0];
			// What follows in a later part is no header.
			return at + 8;
		}
		*proto = it[0];
		at += 8 + 8 * (u32)it[1];
	}
	return *proto != 0 && *proto != 43 && *proto != 44 && *proto != 60 ? at : 0;
}

// The flow that an ICMP error speaks of: what it carries was sent by the virtual IP.
INLINE int embedded(struct skb *skb, u32 at, struct flow *flow)
{
	u8 it[40];
	u32 ports;
	if (flow->family == 4) {
		if (load(skb, at, it, 20) < 0 || it[0] >> 4 != 4 || (it[0] & 15) < 5)
			return 0;
		struct address from = v4(it + 12);
		if (from.half[0] != flow->vip_address.half[0] || from.half[1] != flow->vip_address.half[1])
			return 0;
		flow->client = v4(it + 16);
		flow->proto = it[9];
		flow->is_fragment = be16(it + 6) & 0x1fff ? LATER_PART : 0;
		ports = at + 4 * (it[0] & 15);
	} else {
		if (load(skb, at, it, 40) < 0 || it[0] >> 4 != 6)
			return 0;
		struct address from = v6(it + 8);
		if (from.half[0] != flow->vip_address.half[0] || from.half[1] != flow->vip_address.half[1])
			return 0;
		flow->client = v6(it + 24);
		flow->proto = it[6];
		ports = behind_extensions(skb, at + 40, &flow->proto, &flow->is_fragment, &flow->id);
		if (!ports)
			return 0;
		if (flow->is_fragment == FIRST_PART)
			flow->is_fragment = 0;
	}
	// Counted by the sender, not by the client: says nothing of the client's packets.
	flow->id = 0;
	if (flow->is_fragment || (flow->proto != 6 && flow->proto != 17))
		return 1;
	u8 both[4];
	if (load(skb, ports, both, 4) < 0)
		return 0;
	flow->vip_port = be16(both);
	flow->client_port = be16(both + 2);
	flow->may_have_socket = flow->proto == 6;
	flow->is_quoted = 1;
	return 1;
}

// Most transport headers are where there are no options.
#define ports_at(skb, at, to, bytes) \
	((at) == 34 ? part(skb, 34, to, bytes) : (at) == 54 ? part(skb, 54, to, bytes) : load(skb, at, to, bytes))

// From the transport's header on: the same for both families.
INLINE int transport(struct skb *skb, const struct view *view, u32 slot, const u8 *eth, struct flow *flow, u32 at)
{
	u8 it[14];
	if (flow->proto == (flow->family == 4 ? 1 : 58)) {
		if (flow->is_fragment)
			return counted(NO_RULE, DROP);
		if (load(skb, at, it, 8) < 0)
			return counted(MALFORMED, DROP);
		u8 type = it[0];
		if (type == (flow->family == 4 ? 8 : 128))
			// An echo is answered by whom it reaches; of all whom it reaches, by one.
			return flow->to_all && view->director != view->me ? counted(OTHERS, DROP) : accepted(skb, flow);
		int is_error = flow->family == 4 ? type == 3 || type == 11 || type == 12 : type >= 1 && type <= 4;
		if (!is_error)
			return counted(NO_RULE, DROP);
		if (!embedded(skb, at + 8, flow))
			return counted(MALFORMED, DROP);
		return decide(skb, view, slot, eth, flow);
	}
	if (flow->is_fragment == LATER_PART)
		return follow(skb, view, flow);
	if (flow->proto == 6) {
		if (ports_at(skb, at, it, 14) < 0)
			return counted(MALFORMED, DROP);
		// SYN without ACK begins a connection: its owner takes it.
		flow->may_have_socket = (it[13] & 0x12) != 0x02;
	} else if (flow->proto == 17) {
		if (ports_at(skb, at, it, 8) < 0)
			return counted(MALFORMED, DROP);
	} else
		return counted(NO_RULE, DROP);
	flow->client_port = be16(it);
	flow->vip_port = be16(it + 2);
	return decide(skb, view, slot, eth, flow);
}

INLINE int four(struct skb *skb, const struct view *view, u64 word, const u8 *eth)
{
	u8 it[20];
	struct flow flow = {};
	if (part(skb, 14, it, 20) < 0)
		return NEXT;
	flow.vip_address = v4(it + 16);
	u64 vip = vip_of(view, flow.vip_address);
	if (vip == NONE)
		return NEXT;
	u32 fate = forbidden(view, eth, vip, &flow);
	if (fate != FATES)
		return counted(fate, DROP);
	if (it[0] >> 4 != 4 || (it[0] & 15) < 5)
		return counted(MALFORMED, DROP);
	flow.family = 4;
	flow.client = v4(it + 12);
	flow.id = be16(it + 4);
	u16 place = be16(it + 6) & 0x3fff;
	flow.is_fragment = place & 0x1fff ? LATER_PART : place ? FIRST_PART : 0;
	flow.ttl = it[8];
	flow.proto = it[9];
	flow.check[0] = it[10], flow.check[1] = it[11];
	flow.word = word;
	return transport(skb, view, word & 1, eth, &flow, 14 + 4 * (it[0] & 15));
}

INLINE int six(struct skb *skb, const struct view *view, u64 word, const u8 *eth)
{
	u8 it[40];
	struct flow flow = {};
	if (part(skb, 14, it, 40) < 0)
		return NEXT;
	// Neighbour discovery counts only from this very network.
	if (it[6] == 58 && it[7] == 255) {
		u8 nd[24];
		if (load(skb, 54, nd, 24) >= 0 && (nd[0] == 135 || nd[0] == 136)) {
			u64 asked_for = vip_of(view, v6(nd + 8));
			if (asked_for == NONE)
				// Of others: also what is answered to a question that the kernel asked in the virtual IP's name.
				return NEXT;
			if (nd[0] == 135) {
				int verdict = asked(view, word & 1, v6(it + 8));
				return verdict == ACCEPT && asked_for >> 16 ? answered6(skb, view, eth, it, nd, asked_for >> 16) : verdict;
			}
			return is_member(view, eth + 6) ? counted(SILENT, DROP) : contested(eth + 6);
		}
	}
	flow.vip_address = v6(it + 24);
	u64 vip = vip_of(view, flow.vip_address);
	if (vip == NONE)
		return NEXT;
	u32 fate = forbidden(view, eth, vip, &flow);
	if (fate != FATES)
		return counted(fate, DROP);
	if (it[0] >> 4 != 6)
		return counted(MALFORMED, DROP);
	flow.family = 6;
	flow.client = v6(it + 8);
	flow.ttl = it[7];
	flow.proto = it[6];
	u32 at = behind_extensions(skb, 54, &flow.proto, &flow.is_fragment, &flow.id);
	if (!at)
		return counted(MALFORMED, DROP);
	flow.word = word;
	return transport(skb, view, word & 1, eth, &flow, at);
}

// A frame of a VLAN belongs to that VLAN's interface, which has a filter of its own. A tag with the number 0 only says how urgent a
// frame is: the kernel delivers it here, as one without a tag.
INLINE int is_of_vlan(const struct skb *skb)
{
	return skb->vlan_present && (skb->vlan_tci & 0xfff);
}

SECTION("classifier")
int stead_farm(struct skb *skb)
{
	u32 zero = 0;
	u8 eth[14];
	if (is_of_vlan(skb) || part(skb, 0, eth, 14) < 0)
		return NEXT;
	const volatile u64 *now = lookup(&word, &zero);
	if (!now)
		return NEXT;
	u64 it = *now;
	u32 slot = it & 1;
	const struct view *view = lookup(&views, &slot);
	if (!view || !view->vip_count)
		return NEXT;
	u16 type = be16(eth + 12);
	if (type == 0x0806)
		return arp(skb, view, slot, eth);
	if (type == 0x0800)
		return four(skb, view, it, eth);
	if (type == 0x86dd)
		return six(skb, view, it, eth);
	return NEXT;
}

// What leaves: the kernel asks for a client's hardware address in the name of the address that it answers from. Asked in a virtual IP's name, the
// client takes this node's hardware address for the virtual IP's, and comes here from then on, where nothing is known of its flows of UDP.
// (IPv4 has a setting for it: arp_announce.) So the question is asked in this node's own name.
SECTION("classifier")
int stead_farm_out(struct skb *skb)
{
	u32 zero = 0;
	u8 eth[14], head[40], nd[4];
	if (is_of_vlan(skb) || part(skb, 0, eth, 14) < 0 || be16(eth + 12) != 0x86dd)
		return NEXT;
	if (part(skb, 14, head, 40) < 0 || head[6] != 58 || head[7] != 255 || part(skb, 54, nd, 4) < 0 || nd[0] != 135)
		return NEXT;
	const volatile u64 *now = lookup(&word, &zero);
	const struct address *mine = lookup(&own, &zero);
	if (!now || !mine || !(mine->half[0] | mine->half[1]))
		return NEXT;
	u32 slot = *now & 1;
	const struct view *view = lookup(&views, &slot);
	if (!view || vip_of(view, v6(head + 8)) == NONE)
		return NEXT;
	u8 name[16];
	__builtin_memcpy(name, mine, 16);
	u32 sum = (u16)~be16(nd + 2);
#pragma clang loop unroll(full)
	for (u32 i = 0; i < 16; i += 2)
		sum += (u16)~be16(head + 8 + i) + be16(name + i);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = ~((sum & 0xffff) + (sum >> 16));
	u8 check[2] = {sum >> 8, sum};
	store(skb, 22, name, 16, 0);
	store(skb, 56, check, 2, 0);
	return NEXT;
}

// Nothing here needs helpers reserved to GPL programs; the kernel wants a word all the same.
char spdx[] SECTION("license") = "Apache-2.0";
