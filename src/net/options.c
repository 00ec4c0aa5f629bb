/*
 * What a user says of a network, as text.
 */
#include "net/options.h"

#include "base/field.h"
#include "base/settings.h"
#include "base/time.h"
#include "base/util.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MTU_LEAST 68u /* RFC 791 */
#define MTU_MOST  65535u
/* What the guest of a user network is told, unless the user says otherwise. What a packet costs, it
 * costs whatever its size, so data should come in few and large ones. But libslirp knows no
 * scaling, so it never offers a window above 65,535 bytes; and it says that a window has opened
 * again only when that is by two segments, or by half of its buffer, which has 128 KiB
 * (tcp_output). With segments of more than 32,767 bytes neither can be: a guest that sends to a
 * slow server then stands still until it probes. */
#define MTU_USER      16384u
#define MTU_USER_MOST 65521u /* that libslirp takes */

struct parser {
    struct net_options *options;
    char *what;        /* the first field, for messages */
    uint64_t allowed;  /* by number of the key: it may be given, */
    const char *whose; /* ... as it is for this */
    struct settings settings;
};

enum key {
    KEY_MAC,
    KEY_MTU,
    KEY_QUEUES,
    KEY_HOSTNAME,
    KEY_DELAY,
    KEY_JITTER,
    KEY_LOSS,
    KEY_RATE,
    KEY_CAPTURE,
    KEY_ISOLATE,
    KEY_FORWARD,
    KEY_NET,
    KEY_HOST,
    KEY_DNS,
    KEY_DHCP,
    KEY_IPV6,
    KEY_TFTP,
    KEY_BOOTFILE,
    KEY_RESTRICT,
    KEYS,
};

static const char *const key_names[KEYS] = {
    [KEY_MAC] = "mac",           [KEY_MTU] = "mtu",         [KEY_QUEUES] = "queues",
    [KEY_HOSTNAME] = "hostname", [KEY_DELAY] = "delay",     [KEY_JITTER] = "jitter",
    [KEY_LOSS] = "loss",         [KEY_RATE] = "rate",       [KEY_CAPTURE] = "capture",
    [KEY_ISOLATE] = "isolate",   [KEY_FORWARD] = "forward", [KEY_NET] = "net",
    [KEY_HOST] = "host",         [KEY_DNS] = "dns",         [KEY_DHCP] = "dhcp",
    [KEY_IPV6] = "ipv6",         [KEY_TFTP] = "tftp",       [KEY_BOOTFILE] = "bootfile",
    [KEY_RESTRICT] = "restrict",
};

#define BIT(key) (UINT64_C(1) << (key))
/* What each kind takes. */
#define EVERY  (BIT(KEY_MAC) | BIT(KEY_MTU) | BIT(KEY_QUEUES) | BIT(KEY_HOSTNAME))
#define SHAPED (BIT(KEY_DELAY) | BIT(KEY_JITTER) | BIT(KEY_LOSS) | BIT(KEY_RATE) | BIT(KEY_CAPTURE))
#define OWN                                                                                        \
    (BIT(KEY_ISOLATE) | BIT(KEY_FORWARD) | BIT(KEY_NET) | BIT(KEY_HOST) | BIT(KEY_DNS) |           \
     BIT(KEY_DHCP) | BIT(KEY_IPV6) | BIT(KEY_TFTP) | BIT(KEY_BOOTFILE) | BIT(KEY_RESTRICT))

static const struct {
    const char *name;
    bool target; /* its name is followed by = and something */
    uint64_t keys;
} kinds[NET_KINDS] = {
    [NET_NONE] = {"none", false, EVERY | SHAPED},
    [NET_USER] = {"user", false, EVERY | SHAPED | OWN},
    [NET_TAP] = {"tap", true, EVERY | SHAPED},
    [NET_SWITCH] = {"switch", true, EVERY | SHAPED},
    [NET_STREAM] = {"stream", true, EVERY | SHAPED},
    [NET_VHOST_USER] = {"vhost-user", true, EVERY},
};

/* Says that VALUE of KEY is not WANTED. */
static int wrong(const struct parser *p, enum key key, const char *wanted, const char *value)
{
    return error_set(p->settings.err, EINVAL, "network '%s': %s= must be %s, not '%s'",
                     p->settings.name, key_names[key], wanted, value);
}

/* ---- Values ---- */

/* Reads a number with up to six digits behind its point, at most to MOST, as millionths, and steps
 * behind it. */
static bool take_millionths(const char **text, uint64_t most, uint64_t *millionths)
{
    uint64_t digit = 1000000, value;

    if (!field_number(text, most, &value))
        return false;
    value *= 1000000;
    if (**text == '.') {
        const char *first = ++*text;

        for (; **text >= '0' && **text <= '9' && digit > 1; ++*text) {
            digit /= 10;
            value += (uint64_t)(**text - '0') * digit;
        }
        if (*text == first)
            return false;
    }
    *millionths = value;
    return true;
}

static int set_ipv6(const struct parser *p, const char *value)
{
    bool on = true;
    int ret = settings_switch(&p->settings, KEY_IPV6, value, &on);

    p->options->no_ipv6 = !on;
    return ret;
}

static int set_number(const struct parser *p, enum key key, const char *value, unsigned least,
                      unsigned most, unsigned *number)
{
    const char *at = value;
    uint64_t got;
    char wanted[64];

    if (!field_number(&at, most, &got) || *at || got < least) {
        snprintf(wanted, sizeof(wanted), "a number from %u to %u", least, most);
        return wrong(p, key, wanted, value);
    }
    *number = (unsigned)got;
    return 0;
}

/* A time: milliseconds, unless a unit is given. At most an hour. */
static int set_time(const struct parser *p, enum key key, const char *value, uint64_t *ns)
{
    static const struct {
        const char *name;
        uint64_t ns;
    } units[] = {{"", NS_PER_MS}, {"us", NS_PER_US}, {"ms", NS_PER_MS}, {"s", NS_PER_S}};
    const char *at = value;
    uint64_t number;

    if (take_millionths(&at, 3600000000, &number)) {
        for (unsigned i = 0; i < ARRAY_SIZE(units); i++) {
            unsigned __int128 got = (unsigned __int128)number * units[i].ns / 1000000;

            if (strcmp(at, units[i].name) == 0 && got <= 3600 * NS_PER_S) {
                *ns = (uint64_t)got;
                return 0;
            }
        }
    }
    return wrong(p, key, "a time like 10ms, 500us or 1.5s, at most an hour", value);
}

static int set_loss(const struct parser *p, const char *value, uint32_t *loss)
{
    const char *at = value;
    uint64_t percent;

    if (!take_millionths(&at, 100, &percent) || (*at && strcmp(at, "%") != 0) ||
        percent > 100000000)
        return wrong(p, KEY_LOSS, "percents from 0 to 100", value);
    *loss = (uint32_t)(percent / 100);
    return 0;
}

static int set_rate(const struct parser *p, const char *value, uint64_t *rate)
{
    static const char units[] = "KMG";
    const char *at = value;
    uint64_t number, factor = 1;

    if (!take_millionths(&at, 1000000000000, &number))
        return wrong(p, KEY_RATE, "bits a second, like 500K, 10M or 1G", value);
    if (*at && strchr(units, *at))
        for (ptrdiff_t n = strchr(units, *at++) - units + 1; n > 0; n--)
            factor *= 1000;
    number =
        (uint64_t)MIN((unsigned __int128)number * factor / 1000000, (unsigned __int128)INT64_MAX);
    if (*at || (number > 0 && number < 1000))
        return wrong(p, KEY_RATE, "bits a second, like 500K, 10M or 1G; or 0", value);
    *rate = number;
    return 0;
}

static int set_mac(const struct parser *p, const char *value)
{
    if (!field_mac(value, p->options->mac))
        return wrong(p, KEY_MAC, "six pairs of hexadecimal digits with colons between them", value);
    if (p->options->mac[0] & 1)
        return wrong(p, KEY_MAC, "the address of one card: the first byte is even", value);
    p->options->has_mac = true;
    return 0;
}

bool net_valid_hostname(const char *name)
{
    size_t length = strlen(name);

    return length >= 1 && length <= NET_NAME_MOST && name[0] != '-' && name[length - 1] != '-' &&
           strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-") ==
               length;
}

static int set_hostname(const struct parser *p, const char *value)
{
    if (!net_valid_hostname(value))
        return wrong(p, KEY_HOSTNAME, "letters, digits and '-', at most 63", value);
    return settings_copy(&p->settings, &p->options->hostname, value);
}

/* ---- The user's network ---- */

static bool read_address(const char *text, uint32_t *address)
{
    struct in_addr in;

    if (inet_pton(AF_INET, text, &in) != 1)
        return false;
    *address = ntohl(in.s_addr);
    return true;
}

static int set_address(const struct parser *p, enum key key, const char *value, uint32_t *address)
{
    if (!read_address(value, address) || !*address)
        return wrong(p, key, "an IPv4 address", value);
    return 0;
}

static int set_net(const struct parser *p, const char *value)
{
    static const char wanted[] = "an IPv4 network like 10.0.2.0/24, of 8 to 29 bits";
    struct net_options *o = p->options;
    const char *slash = strchr(value, '/'), *at = slash ? slash + 1 : "";
    char address[INET_ADDRSTRLEN];
    uint64_t bits;

    if (!slash || (size_t)(slash - value) >= sizeof(address))
        return wrong(p, KEY_NET, wanted, value);
    memcpy(address, value, (size_t)(slash - value));
    address[slash - value] = '\0';
    if (!read_address(address, &o->network) || !field_number(&at, 29, &bits) || *at || bits < 8)
        return wrong(p, KEY_NET, wanted, value);
    o->mask = UINT32_MAX << (32 - bits);
    if (o->network & ~o->mask || !o->network)
        return wrong(p, KEY_NET, "a network: the bits behind its mask are 0", value);
    return 0;
}

/* Reads "ADDRESS:" or "[ADDRESS]:" at *TEXT, if there is one, and steps behind it. */
static bool read_forward_address(const char **text, struct net_forward *forward)
{
    const char *at = *text;
    bool brackets = *at == '[';
    size_t length = strcspn(at, brackets ? "]" : ":");
    char address[INET6_ADDRSTRLEN];

    if (!brackets && !memchr(at, '.', length))
        return true;
    at += brackets;
    length -= brackets;
    if (length >= sizeof(address))
        return false;
    memcpy(address, at, length);
    address[length] = '\0';
    forward->ipv6 = brackets;
    *text = field_after(at + length, brackets ? "]:" : ":");
    return *text && (brackets ? inet_pton(AF_INET6, address, forward->address6) == 1
                              : read_address(address, &forward->address));
}

/* Reads [tcp:|udp:][ADDRESS:]PORT:GUESTPORT. */
static bool read_forward(const char *text, struct net_forward *forward)
{
    const char *udp = field_after(text, "udp:"), *tcp = field_after(text, "tcp:");
    const char *at = udp ? udp : tcp ? tcp : text;
    uint64_t port, guest_port;

    *forward = (struct net_forward){.udp = udp != NULL, .address = INADDR_LOOPBACK};
    if (!read_forward_address(&at, forward))
        return false;
    if (!field_number(&at, UINT16_MAX, &port) || *at++ != ':' ||
        !field_number(&at, UINT16_MAX, &guest_port) || *at || guest_port == 0)
        return false;
    forward->port = (uint16_t)port;
    forward->guest_port = (uint16_t)guest_port;
    return true;
}

static int add_forward(const struct parser *p, const char *value)
{
    struct net_options *o = p->options;
    struct net_forward forward, *grown;

    if (!read_forward(value, &forward))
        return error_set(p->settings.err, EINVAL,
                         "network '%s': -p or forward= must be "
                         "[tcp:|udp:][ADDRESS:]PORT:GUESTPORT, not '%s'",
                         p->settings.name, value);
    if (o->forwards == NET_FORWARDS_MOST)
        return error_set(p->settings.err, EINVAL, "network '%s': %d forwards are the most",
                         p->settings.name, NET_FORWARDS_MOST);
    grown = reallocarray(o->forward, o->forwards + 1, sizeof(*grown));
    if (!grown)
        return settings_no_memory(&p->settings);
    o->forward = grown;
    o->forward[o->forwards++] = forward;
    return 0;
}

/* ---- Keys ---- */

/* Sets what KEY, which needs a value, stands for. */
static int set_value(const struct parser *p, enum key key, const char *value)
{
    struct net_options *o = p->options;

    switch (key) {
    case KEY_MAC: return set_mac(p, value);
    case KEY_MTU: return set_number(p, key, value, MTU_LEAST, MTU_MOST, &o->mtu);
    case KEY_QUEUES: return set_number(p, key, value, 1, NET_QUEUES_MOST, &o->queues);
    case KEY_HOSTNAME: return set_hostname(p, value);
    case KEY_DELAY: return set_time(p, key, value, &o->shape.delay);
    case KEY_JITTER: return set_time(p, key, value, &o->shape.jitter);
    case KEY_LOSS: return set_loss(p, value, &o->shape.loss);
    case KEY_RATE: return set_rate(p, value, &o->shape.rate);
    case KEY_CAPTURE: return settings_text(&p->settings, key, value, &o->capture);
    case KEY_FORWARD: return add_forward(p, value);
    case KEY_NET: return set_net(p, value);
    case KEY_HOST: return set_address(p, key, value, &o->host);
    case KEY_DNS: return set_address(p, key, value, &o->dns);
    case KEY_DHCP: return set_address(p, key, value, &o->dhcp);
    case KEY_TFTP: return settings_text(&p->settings, key, value, &o->tftp);
    case KEY_BOOTFILE: return settings_text(&p->settings, key, value, &o->bootfile);
    default: return 0;
    }
}

/* Sets what KEY stands for. VALUE is NULL if there is no '='. */
static int set_key(void *opaque, unsigned number, const char *value)
{
    const struct parser *p = opaque;
    struct net_options *o = p->options;
    enum key key = (enum key)number;

    if (!(p->allowed & BIT(key)))
        return error_set(p->settings.err, EINVAL, "network '%s': %s is not for %s",
                         p->settings.name, key_names[key], p->whose);
    switch (key) {
    case KEY_ISOLATE: return settings_switch(&p->settings, key, value, &o->isolate);
    case KEY_IPV6: return set_ipv6(p, value);
    case KEY_RESTRICT: return settings_switch(&p->settings, key, value, &o->restricted);
    default: break;
    }
    if (!value)
        return error_set(p->settings.err, EINVAL, "network '%s': %s= needs a value",
                         p->settings.name, key_names[key]);
    return set_value(p, key, value);
}

/* ---- The whole ---- */

const char *net_kind_name(enum net_kind kind)
{
    return kinds[kind].name;
}

static int set_kind(void *opaque, const char *field)
{
    struct parser *p = opaque;
    const char *equals = strchr(field, '=');
    size_t length = equals ? (size_t)(equals - field) : strlen(field);

    if (settings_copy(&p->settings, &p->what, field) < 0)
        return -ENOMEM;
    p->settings.name = p->what;
    for (unsigned i = 0; i < NET_KINDS; i++) {
        if (strlen(kinds[i].name) != length || strncmp(kinds[i].name, field, length) != 0)
            continue;
        p->options->kind = (enum net_kind)i;
        p->allowed = kinds[i].keys;
        p->whose = kinds[i].name;
        if (kinds[i].target && (!equals || !equals[1]))
            return error_set(p->settings.err, EINVAL, "network '%s': write %s=NAME", field,
                             kinds[i].name);
        if (!kinds[i].target && equals)
            return error_set(p->settings.err, EINVAL, "network '%s': nothing follows '%s'", field,
                             kinds[i].name);
        return equals ? settings_copy(&p->settings, &p->options->target, equals + 1) : 0;
    }
    return error_set(p->settings.err, EINVAL,
                     "there is no network '%s': it is user, none, tap=, switch=, stream= or "
                     "vhost-user=",
                     field);
}

/* Fills in the addresses that were not said, and sees that all lie in the network. */
static int check_addresses(const struct parser *p)
{
    struct net_options *o = p->options;
    struct {
        enum key key;
        uint32_t *address, rule;
    } own[] = {{KEY_HOST, &o->host, 2}, {KEY_DNS, &o->dns, 3}, {KEY_DHCP, &o->dhcp, 15}};

    if (!o->network) {
        o->network = 0x0a000200; /* 10.0.2.0/24 */
        o->mask = 0xffffff00;
    }
    for (unsigned i = 0; i < ARRAY_SIZE(own); i++) {
        uint32_t *address = own[i].address;

        if (!*address) /* in a network with 6 addresses, the guest's is the last one */
            *address = o->network + MIN(own[i].rule, ~o->mask - 1);
        if ((*address & o->mask) != o->network || *address == o->network ||
            *address == (o->network | ~o->mask))
            return error_set(p->settings.err, EINVAL,
                             "network '%s': the address of %s= is not in net=", p->settings.name,
                             key_names[own[i].key]);
        for (unsigned j = 0; j < i; j++)
            if (*own[j].address == *address)
                return error_set(p->settings.err, EINVAL,
                                 "network '%s': %s= and %s= are the same address", p->settings.name,
                                 key_names[own[j].key], key_names[own[i].key]);
    }
    return 0;
}

/* What one setting wants of another. */
static int check(const struct parser *p)
{
    struct net_options *o = p->options;

    if (o->bootfile && strlen(o->bootfile) > 127)
        return error_set(p->settings.err, EINVAL, "network '%s': bootfile= has at most 127 bytes",
                         p->settings.name);
    if (o->kind == NET_SWITCH && !net_valid_hostname(o->target))
        return error_set(p->settings.err, EINVAL,
                         "network '%s': a switch's name is of letters, digits and '-', at most 63",
                         p->settings.name);
    for (unsigned i = 0; i < o->forwards; i++) {
        if (o->forward[i].ipv6 && o->forward[i].udp)
            return error_set(p->settings.err, EINVAL,
                             "network '%s': forward= has an address of IPv6 for TCP only",
                             p->settings.name);
        if (o->forward[i].ipv6 && o->no_ipv6)
            return error_set(p->settings.err, EINVAL,
                             "network '%s': forward= has an address of IPv6, and ipv6=off",
                             p->settings.name);
    }
    if (o->kind != NET_USER)
        return 0;
    o->mtu = MIN(o->mtu ? o->mtu : MTU_USER, MTU_USER_MOST);
    return check_addresses(p);
}

/* Begins to read settings. The caller frees P->what. */
static void begin(struct parser *p, struct net_options *options, struct error *err)
{
    *p = (struct parser){.options = options,
                         .settings = {.thing = "network",
                                      .keys = key_names,
                                      .key_count = KEYS,
                                      .repeated = BIT(KEY_FORWARD),
                                      .err = err,
                                      .what = set_kind,
                                      .set = set_key,
                                      .opaque = p}};
}

int net_options_parse(const char *text, struct net_options *options, struct error *err)
{
    struct parser p;
    int ret;

    *options = (struct net_options){.kind = NET_NONE};
    begin(&p, options, err);
    ret = settings_parse(&p.settings, text);
    if (ret == 0)
        ret = check(&p);
    if (ret < 0)
        net_options_free(options);
    free(p.what);
    return ret;
}

void net_options_free(struct net_options *options)
{
    free(options->target);
    free(options->hostname);
    free(options->capture);
    free(options->forward);
    free(options->tftp);
    free(options->bootfile);
    *options = (struct net_options){.kind = NET_NONE};
}

/* capture= alone, which ends a capture, has no value here. */
static int change_key(void *opaque, unsigned key, const char *value)
{
    const struct parser *p = opaque;

    if (key == KEY_CAPTURE && value && !*value)
        return settings_copy(&p->settings, &p->options->capture, "");
    return set_key(opaque, key, value);
}

int net_options_change(const char *text, struct net_shape *shape, char **capture, struct error *err)
{
    struct net_options changed = {.shape = *shape};
    struct parser p;
    int ret;

    begin(&p, &changed, err);
    p.settings.name = text;
    p.settings.set = change_key;
    p.allowed = SHAPED;
    p.whose = "a network that runs";
    ret = settings_parse_all(&p.settings, text);
    if (ret < 0) {
        free(changed.capture);
        return ret;
    }
    *shape = changed.shape;
    *capture = changed.capture;
    return 0;
}
