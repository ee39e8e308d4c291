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

#define NONE 0xff
#define BY_ADDR 0
#define BY_PORT 1
#define BY_IPID 2

// Verdicts of a traffic-control program.
#define NEXT (-1)
#define ACCEPT 0
#define DROP 2

// Indexes of `counters`: model::farm::Fate.
enum { ACCEPTED, PASSED, SECOND_CHANCE, NO_RULE, FLOODED, MALFORMED, LEASE, TTL, NOBODY, ANSWERED, SILENT, CONFLICT, FATES };

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
	u64 index; // NONE: free
};
struct rule_place {
	u32 key; // port, virtual IP, protocol; 0: free
	u16 filter, group;
};
// Rules that found their place taken, and fragments. `slot` keeps two views' apart.
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
	u8 unused[2];
};
struct view {
	u64 number;
	struct member members[MEMBERS];
	u64 vip_seed, mac_seed;
	struct vip_place vips[VIP_PLACES];
	u64 macs[MAC_PLACES]; // 0: free
	struct rule_place rules[RULE_PLACES];
	u8 vip_count;
	u8 me, director;
	u8 arp_group; // NONE: the director answers
	u8 unused[4];
};
// The last look at the clock: once in a tick is enough.
struct look {
	u64 tick, until, is_over;
};
struct table {
	u8 owners[BUCKETS][DEPTH];
};

struct map SECTION("maps") word = {ARRAY, 4, 8, 1, 0};
struct map SECTION("maps") views = {ARRAY, 4, sizeof(struct view), 2, 0};
struct map SECTION("maps") rules = {HASH, sizeof(struct rule_key), sizeof(struct rule), 2 * VIPS * (RULES + 8), 0};
struct map SECTION("maps") tables = {ARRAY, 4, sizeof(struct table), 2 * GROUPS, 0};
struct map SECTION("maps") lease = {ARRAY, 4, 8, 1, 0};
struct map SECTION("maps") looks = {PERCPU_ARRAY, 4, sizeof(struct look), 1, 0};
struct map SECTION("maps") counters = {PERCPU_ARRAY, 4, 8, FATES, 0};
// How often each hardware address spoke as a virtual IP: later some of them turn out to be members'. Past the first FOES nobody is noted.
struct map SECTION("maps") foes = {HASH, 8, 8, FOES, 0};

static void *(*lookup)(void *map, const void *key) = (void *)1;
static long (*update)(void *map, const void *key, const void *value, u64 flags) = (void *)2;
static long (*store)(struct skb *, u32 at, const void *from, u32 bytes, u64 flags) = (void *)9;
static long (*redirect)(u32 ifindex, u64 flags) = (void *)23;
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

// What is known of a packet on its way to a decision.
struct flow {
	struct address client;
	u16 client_port, vip_port, ipid;
	u8 proto;
	u8 is_fragment; // no ports, or not the same in all parts
	u8 may_have_socket; // of a TCP connection that exists already
	u8 family;
	u8 ttl;
	u8 vip;
	struct address vip_address;
	u8 check[2]; // IPv4
};

INLINE int counted(u32 fate, int verdict)
{
	u64 *count = lookup(&counters, &fate);
	if (count)
		*count += 1;
	return verdict;
}

INLINE u32 vip_of(const struct view *view, struct address address)
{
	u64 hash = ((address.half[0] ^ address.half[1] >> 7) + address.half[1]) * view->vip_seed;
	const struct vip_place *place = &view->vips[(hash >> 58) % VIP_PLACES];
	int is_it = place->address.half[0] == address.half[0] && place->address.half[1] == address.half[1];
	return is_it ? (u32)place->index : NONE;
}

INLINE int is_member(const struct view *view, const u8 *mac)
{
	u16 low;
	__builtin_memcpy(&low, mac + 4, 2);
	// Not 0: a free place is no hardware address.
	u64 whole = raw32(mac) | (u64)low << 32 | 1ull << 63;
	return view->macs[(whole * view->mac_seed >> 54) % MAC_PLACES] == whole;
}

INLINE int lease_is_over(void)
{
	u32 zero = 0;
	u64 *until = lookup(&lease, &zero);
	struct look *look = lookup(&looks, &zero);
	if (!until || !look)
		return 1;
	u64 tick = ticks(), end = *until;
	if (look->tick != tick || look->until != end) {
		look->is_over = boot_ns() >= end;
		look->tick = tick;
		look->until = end;
	}
	return look->is_over != 0;
}

// Why a frame for a virtual IP is not looked into; FATES: it is.
INLINE u32 forbidden(const struct view *view, const u8 *eth)
{
	if (lease_is_over())
		return LEASE;
	return is_mac(eth, view->members[view->me % MEMBERS].mac) ? FATES : FLOODED;
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

// A question for a virtual IP's hardware address.
INLINE int asked(const struct view *view, u32 slot, struct address client)
{
	if (lease_is_over())
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

INLINE int arp(struct skb *skb, const struct view *view, u32 slot, const u8 *eth)
{
	u8 it[28];
	if (part(skb, 14, it, 28) < 0)
		return NEXT;
	if (be16(it) != 1 || be16(it + 2) != 0x0800 || it[4] != 6 || it[5] != 4)
		return NEXT;
	if (vip_of(view, v4(it + 14)) != NONE && !is_member(view, eth + 6))
		return contested(eth + 6);
	if (be16(it + 6) == 1 && vip_of(view, v4(it + 24)) != NONE)
		return asked(view, slot, v4(it + 14));
	return NEXT;
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

// Is there a connection (not a listener) of this node?
INLINE int has_socket(struct skb *skb, const struct flow *flow)
{
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
	return state != TCP_LISTEN;
}

INLINE int decide(struct skb *skb, const struct view *view, u32 slot, const u8 *eth, const struct flow *flow)
{
	u32 filter, group;
	u32 key = (u32)flow->vip_port << 16 | (u32)flow->vip << 8 | flow->proto;
	const struct rule_place *place = &view->rules[(key * 0x9e3779b1u >> 26) % RULE_PLACES];
	if (place->key == key && !flow->is_fragment) {
		filter = place->filter, group = place->group;
	} else {
		struct rule_key key = {flow->is_fragment ? 0 : flow->vip_port, flow->vip, flow->proto, slot, flow->is_fragment, 0};
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
	if (filter == BY_PORT && !flow->is_fragment)
		extra = 1 << 16 | flow->client_port;
	if (filter == BY_IPID && flow->family == 4)
		extra = 2 << 16 | flow->ipid;
	const u8 *entry = entry_of(slot, group, bucket_of(flow->client, extra));
	if (!entry || entry[0] == NONE)
		return counted(NOBODY, DROP);
	if (entry[0] != view->me && !is_member(view, eth + 6))
		return passed(skb, view, flow, entry[0], PASSED);
	u32 next = NONE;
	for (u32 i = 0; i + 1 < DEPTH; i++)
		if (entry[i] == view->me)
			next = entry[i + 1];
	// The socket matters only where there is somebody else to ask.
	if (next == NONE || !flow->may_have_socket || has_socket(skb, flow))
		return counted(ACCEPTED, ACCEPT);
	return passed(skb, view, flow, next, SECOND_CHANCE);
}

// Protocol and place of what follows an IPv6 header; 0 when it is cut off or too deep.
INLINE u32 behind_extensions(struct skb *skb, u32 at, u8 *proto, u8 *is_fragment)
{
	for (u32 i = 0; i < 4; i++) {
		u8 it[8];
		if (*proto != 0 && *proto != 43 && *proto != 44 && *proto != 60)
			return at;
		if (load(skb, at, it, 8) < 0)
			return 0;
		if (*proto == 44) {
			*is_fragment = 1;
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
		flow->is_fragment = (be16(it + 6) & 0x3fff) != 0;
		// Counted by the sender, not by the client: says nothing of the client's packets.
		flow->ipid = 0;
		ports = at + 4 * (it[0] & 15);
	} else {
		if (load(skb, at, it, 40) < 0 || it[0] >> 4 != 6)
			return 0;
		struct address from = v6(it + 8);
		if (from.half[0] != flow->vip_address.half[0] || from.half[1] != flow->vip_address.half[1])
			return 0;
		flow->client = v6(it + 24);
		flow->proto = it[6];
		ports = behind_extensions(skb, at + 40, &flow->proto, &flow->is_fragment);
		if (!ports)
			return 0;
	}
	if (flow->is_fragment || (flow->proto != 6 && flow->proto != 17))
		return 1;
	u8 both[4];
	if (load(skb, ports, both, 4) < 0)
		return 0;
	flow->vip_port = be16(both);
	flow->client_port = be16(both + 2);
	flow->may_have_socket = flow->proto == 6;
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
			// An echo is answered by whom it reaches.
			return counted(ACCEPTED, ACCEPT);
		int is_error = flow->family == 4 ? type == 3 || type == 11 || type == 12 : type >= 1 && type <= 4;
		if (!is_error)
			return counted(NO_RULE, DROP);
		if (!embedded(skb, at + 8, flow))
			return counted(MALFORMED, DROP);
		return decide(skb, view, slot, eth, flow);
	}
	if (flow->is_fragment)
		return decide(skb, view, slot, eth, flow);
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

INLINE int four(struct skb *skb, const struct view *view, u32 slot, const u8 *eth)
{
	u8 it[20];
	struct flow flow = {};
	if (part(skb, 14, it, 20) < 0)
		return NEXT;
	flow.vip_address = v4(it + 16);
	flow.vip = vip_of(view, flow.vip_address);
	if (flow.vip == NONE)
		return NEXT;
	u32 fate = forbidden(view, eth);
	if (fate != FATES)
		return counted(fate, DROP);
	if (it[0] >> 4 != 4 || (it[0] & 15) < 5)
		return counted(MALFORMED, DROP);
	flow.family = 4;
	flow.client = v4(it + 12);
	flow.ipid = be16(it + 4);
	flow.is_fragment = (be16(it + 6) & 0x3fff) != 0;
	flow.ttl = it[8];
	flow.proto = it[9];
	flow.check[0] = it[10], flow.check[1] = it[11];
	return transport(skb, view, slot, eth, &flow, 14 + 4 * (it[0] & 15));
}

INLINE int six(struct skb *skb, const struct view *view, u32 slot, const u8 *eth)
{
	u8 it[40];
	struct flow flow = {};
	if (part(skb, 14, it, 40) < 0)
		return NEXT;
	// Neighbour discovery counts only from this very network.
	if (it[6] == 58 && it[7] == 255) {
		u8 nd[24];
		if (load(skb, 54, nd, 24) >= 0 && (nd[0] == 135 || nd[0] == 136)) {
			if (vip_of(view, v6(nd + 8)) == NONE)
				// Of others: also what is answered to a question that the kernel asked in the virtual IP's name.
				return NEXT;
			if (nd[0] == 135)
				return asked(view, slot, v6(it + 8));
			return is_member(view, eth + 6) ? counted(SILENT, DROP) : contested(eth + 6);
		}
	}
	flow.vip_address = v6(it + 24);
	flow.vip = vip_of(view, flow.vip_address);
	if (flow.vip == NONE)
		return NEXT;
	u32 fate = forbidden(view, eth);
	if (fate != FATES)
		return counted(fate, DROP);
	if (it[0] >> 4 != 6)
		return counted(MALFORMED, DROP);
	flow.family = 6;
	flow.client = v6(it + 8);
	flow.ttl = it[7];
	flow.proto = it[6];
	u32 at = behind_extensions(skb, 54, &flow.proto, &flow.is_fragment);
	if (!at)
		return counted(MALFORMED, DROP);
	return transport(skb, view, slot, eth, &flow, at);
}

SECTION("classifier")
int stead_farm(struct skb *skb)
{
	u32 zero = 0;
	u8 eth[14];
	// A tagged frame belongs to its VLAN's interface, which has a filter of its own.
	if (skb->vlan_present || part(skb, 0, eth, 14) < 0)
		return NEXT;
	u64 *now = lookup(&word, &zero);
	if (!now)
		return NEXT;
	u32 slot = *now & 1;
	const struct view *view = lookup(&views, &slot);
	if (!view || !view->vip_count)
		return NEXT;
	u16 type = be16(eth + 12);
	if (type == 0x0806)
		return arp(skb, view, slot, eth);
	if (type == 0x0800)
		return four(skb, view, slot, eth);
	if (type == 0x86dd)
		return six(skb, view, slot, eth);
	return NEXT;
}

// Nothing here needs helpers reserved to GPL programs; the kernel wants a word all the same.
char spdx[] SECTION("license") = "Apache-2.0";
