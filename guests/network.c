/*
 * The network of the default guest. busybox's udhcpc gets the addresses (IPv4); it starts init
 * again to have them set, which is quicker than a shell script. The kernel gets those of IPv6.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "network.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <net/route.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CARDS_MOST  8
#define WAIT_MS     2000 /* a network without DHCP must not hold up the boot */
#define RESOLV_CONF "/etc/resolv.conf"

static void write_text(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

    if (fd < 0)
        return;
    if (write(fd, text, strlen(text)) < 0)
        fprintf(stderr, "init: cannot write %s: %s\n", path, strerror(errno));
    close(fd);
}

static void set_ipv6(const char *card, const char *setting, const char *value)
{
    char path[128];

    snprintf(path, sizeof(path), "/proc/sys/net/ipv6/conf/%s/%s", card, setting);
    if (access(path, F_OK) == 0)
        write_text(path, value);
}

static bool turn_on(const char *card)
{
    struct ifreq request = {.ifr_flags = IFF_UP | IFF_RUNNING};
    int sock = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    bool on;

    /* Nobody else has this machine's addresses, and nobody waits for its routers. */
    set_ipv6(card, "accept_dad", "0");
    set_ipv6(card, "router_solicitation_delay", "0");
    snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", card);
    on = sock >= 0 && ioctl(sock, SIOCSIFFLAGS, &request) == 0;
    if (sock >= 0)
        close(sock);
    return on;
}

/* Starts the client for CARD. It goes on in the background when it has got an address. */
static pid_t ask(const char *card)
{
    pid_t pid = fork();

    if (pid == 0) {
        int null = open("/dev/null", O_RDWR);

        for (int fd = 0; fd < 3; fd++)
            dup2(null, fd);
        execl("/bin/busybox", "udhcpc", "-i", card, "-s", "/init", "-T", "1", "-A", "2", "-O",
              "mtu", (char *)NULL);
        _exit(127);
    }
    return pid;
}

static long now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Waits for COUNT children. SIGCHLD is blocked. */
static void await(unsigned count, const sigset_t *child)
{
    long end = now_ms() + WAIT_MS;

    for (;;) {
        long left = end - now_ms();
        struct timespec timeout = {left / 1000, left % 1000 * 1000000};

        while (count > 0 && waitpid(-1, NULL, WNOHANG) > 0)
            count--;
        if (count == 0 || left <= 0)
            return;
        sigtimedwait(child, NULL, &timeout);
    }
}

void network_begin(void)
{
    struct if_nameindex *cards = if_nameindex();
    sigset_t child, before;
    unsigned asked = 0;

    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    sigprocmask(SIG_BLOCK, &child, &before);
    for (unsigned i = 0; cards && cards[i].if_index && asked < CARDS_MOST; i++)
        if (strncmp(cards[i].if_name, "eth", 3) == 0 && turn_on(cards[i].if_name))
            asked += ask(cards[i].if_name) > 0;
    if (cards)
        if_freenameindex(cards);
    if (asked)
        await(asked, &child);
    sigprocmask(SIG_SETMASK, &before, NULL);
}

/* ---- What the client says ---- */

static const char *said(const char *name)
{
    const char *value = getenv(name);

    return value ? value : "";
}

static bool read_address(const char *text, struct sockaddr *address)
{
    struct sockaddr_in in = {.sin_family = AF_INET};
    bool good = inet_pton(AF_INET, text, &in.sin_addr) == 1;

    memcpy(address, &in, sizeof(in));
    return good;
}

static void set_address(int sock, const char *card)
{
    struct ifreq request = {0};

    snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", card);
    if (!read_address(said("ip"), &request.ifr_addr))
        return;
    if (ioctl(sock, SIOCSIFADDR, &request))
        fprintf(stderr, "init: %s: cannot set the address: %s\n", card, strerror(errno));
    if (read_address(said("subnet"), &request.ifr_netmask))
        ioctl(sock, SIOCSIFNETMASK, &request);
}

/* The kernel refuses what the card cannot. */
static void set_mtu(int sock, const char *card)
{
    struct ifreq request = {.ifr_mtu = atoi(said("mtu"))};

    snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", card);
    if (request.ifr_mtu && ioctl(sock, SIOCSIFMTU, &request))
        fprintf(stderr, "init: %s: cannot set an MTU of %d: %s\n", card, request.ifr_mtu,
                strerror(errno));
}

/* The first card's route is the best one. */
static void set_route(int sock, const char *card)
{
    struct rtentry route = {.rt_flags = RTF_UP | RTF_GATEWAY};
    char router[64], device[IFNAMSIZ];

    snprintf(router, sizeof(router), "%s", said("router"));
    router[strcspn(router, " ")] = 0;
    snprintf(device, sizeof(device), "%s", card);
    if (!read_address(router, &route.rt_gateway))
        return;
    read_address("0.0.0.0", &route.rt_dst);
    read_address("0.0.0.0", &route.rt_genmask);
    route.rt_dev = device;
    route.rt_metric = (short)(if_nametoindex(card) + 1);
    if (ioctl(sock, SIOCADDRT, &route) && errno != EEXIST)
        fprintf(stderr, "init: %s: cannot set the route: %s\n", card, strerror(errno));
}

/* Where names are looked up, for programs of the C library: a part of the file for each card. */
static void set_names(const char *card)
{
    char text[1024], path[64], part[sizeof(text)];
    const char *domain = said("domain"), *at = said("dns");
    size_t size = 0;
    int to;

    if (*domain)
        size += (size_t)snprintf(text, sizeof(text), "search %.200s\n", domain);
    for (; *at && size < sizeof(text) - 100; at += strcspn(at, " "), at += strspn(at, " "))
        size += (size_t)snprintf(text + size, sizeof(text) - size, "nameserver %.*s\n",
                                 (int)(strcspn(at, " ") % 64), at);
    if (!size)
        return;
    snprintf(path, sizeof(path), "/run/resolv.%.15s", card);
    write_text(path, text);
    to = open(RESOLV_CONF ".new", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    for (unsigned i = 0; to >= 0 && i < CARDS_MOST; i++) {
        ssize_t got = -1;
        int from;

        snprintf(path, sizeof(path), "/run/resolv.eth%u", i);
        from = open(path, O_RDONLY | O_CLOEXEC);
        if (from >= 0)
            got = read(from, part, sizeof(part));
        if (got > 0 && write(to, part, (size_t)got) != got)
            fprintf(stderr, "init: cannot write %s: %s\n", RESOLV_CONF, strerror(errno));
        if (from >= 0)
            close(from);
    }
    if (to >= 0)
        close(to);
    rename(RESOLV_CONF ".new", RESOLV_CONF);
}

static void set_hostname(void)
{
    const char *name = said("hostname");

    if (!*name || strlen(name) > 63)
        return;
    sethostname(name, strlen(name));
    write_text("/etc/hostname", name);
}

void network_event(const char *event)
{
    const char *card = said("interface");
    int sock = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    if (sock < 0)
        return;
    if (strcmp(event, "bound") == 0 || strcmp(event, "renew") == 0) {
        set_mtu(sock, card);
        set_address(sock, card);
        set_route(sock, card);
        set_names(card);
        set_hostname();
    }
    close(sock);
}
