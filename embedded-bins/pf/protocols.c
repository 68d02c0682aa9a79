/*
 * The names of IP protocols without /etc/protocols, which small hosts lack: nft would then
 * list tcp as 6, which not every reader of its lists knows what to do with. Loaded before
 * the C library, whose functions these replace.
 */
#define _GNU_SOURCE
#include <netdb.h>
#include <string.h>

static char *none[] = { NULL };

/* As in IANA's registry, with the names of Debian's /etc/protocols. */
static struct protoent protocols[] = {
	{ "tcp", none, 6 },        { "udp", none, 17 },     { "icmp", none, 1 },
	{ "ipv6-icmp", none, 58 }, { "icmpv6", none, 58 },  { "sctp", none, 132 },
	{ "ip", none, 0 },         { "igmp", none, 2 },     { "ipencap", none, 4 },
	{ "ipip", none, 4 },       { "dccp", none, 33 },    { "ipv6", none, 41 },
	{ "ipv6-route", none, 43 }, { "ipv6-frag", none, 44 }, { "gre", none, 47 },
	{ "esp", none, 50 },       { "ah", none, 51 },      { "ipv6-nonxt", none, 59 },
	{ "ipv6-opts", none, 60 }, { "eigrp", none, 88 },   { "ospf", none, 89 },
	{ "pim", none, 103 },      { "ipcomp", none, 108 }, { "vrrp", none, 112 },
	{ "l2tp", none, 115 },     { "mobility-header", none, 135 }, { "udplite", none, 136 },
};

#define END (protocols + sizeof(protocols) / sizeof(protocols[0]))

static struct protoent found;
static char buffer[1024];

struct protoent *getprotobyname(const char *name)
{
	struct protoent *result;

	for (struct protoent *p = protocols; p < END; p++)
		if (strcmp(p->p_name, name) == 0)
			return p;
	return getprotobyname_r(name, &found, buffer, sizeof(buffer), &result) ? NULL : result;
}

struct protoent *getprotobynumber(int number)
{
	struct protoent *result;

	for (struct protoent *p = protocols; p < END; p++)
		if (p->p_proto == number)
			return p;
	return getprotobynumber_r(number, &found, buffer, sizeof(buffer), &result) ? NULL : result;
}
