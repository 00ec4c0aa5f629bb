/*
 * Networks: a server and its clients, on the host and in guests. What a client does is the first
 * byte that it sends.
 *
 * HOST is an address.
 *
 *   bench net serve [PORT]       prints "port N" and serves, TCP and UDP, until it is killed
 *   bench net send HOST PORT MS         a stream to the server for so long
 *   bench net receive HOST PORT MS      and one from it
 *   bench net latency HOST PORT MS      one byte there and back, again and again
 *   bench net connect HOST PORT COUNT   so many connections, each for one byte there and back
 *   bench net udp HOST PORT COUNT       so many datagrams there and back
 *
 * A client prints what it has done: "N bytes NS ns", or "N times NS ns".
 */
#include "net.h"

#include "bench.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHUNK (256u << 10)
enum { DISCARD = 'd', SOURCE = 's', ECHO = 'e' };

static char buffer[CHUNK];

__attribute__((noreturn)) static void fail(const char *what)
{
    fprintf(stderr, "bench net: %s: %s\n", what, strerror(errno));
    exit(1);
}

/* ---- The server: a process for each client ---- */

static void discard(int sock)
{
    uint64_t total = 0;
    ssize_t got;

    while ((got = read(sock, buffer, sizeof(buffer))) > 0)
        total += (uint64_t)got;
    if (write(sock, &total, sizeof(total)) != sizeof(total))
        fail("answer");
}

/* For as many nanoseconds as the client says. */
static void send_for_a_while(int sock)
{
    uint64_t ns, start = now_ns();

    if (read(sock, &ns, sizeof(ns)) != sizeof(ns))
        return;
    while (now_ns() - start < ns && write(sock, buffer, sizeof(buffer)) > 0)
        ;
}

static void echo(int sock)
{
    ssize_t got;

    while ((got = read(sock, buffer, sizeof(buffer))) > 0)
        if (write(sock, buffer, (size_t)got) != got)
            return;
}

static void serve_client(int sock)
{
    char what = 0;
    int on = 1;

    setsockopt(sock, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    if (read(sock, &what, 1) != 1)
        return;
    if (what == DISCARD)
        discard(sock);
    else if (what == ECHO)
        echo(sock);
    else
        send_for_a_while(sock);
}

/* A socket at PORT, in network byte order, of all addresses. */
static int socket_at(int type, uint16_t port)
{
    struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_port = port};
    struct sockaddr_in four = {.sin_family = AF_INET, .sin_port = port};
    int sock = socket(AF_INET6, type, 0), off = 0;
    int failed = 1;

    if (sock >= 0) {
        setsockopt(sock, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
        failed = bind(sock, (struct sockaddr *)&six, sizeof(six));
    } else {
        sock = socket(AF_INET, type, 0); /* a host without IPv6 */
        failed = bind(sock, (struct sockaddr *)&four, sizeof(four));
    }
    if (failed)
        fail("bind");
    return sock;
}

__attribute__((noreturn)) static void serve_datagrams(int sock)
{
    struct sockaddr_storage from;

    for (;;) {
        socklen_t size = sizeof(from);
        ssize_t got = recvfrom(sock, buffer, sizeof(buffer), 0, (struct sockaddr *)&from, &size);

        if (got >= 0)
            sendto(sock, buffer, (size_t)got, 0, (struct sockaddr *)&from, size);
    }
}

static int serve(const char *port)
{
    int sock = socket_at(SOCK_STREAM, htons((uint16_t)strtoul(port, NULL, 10)));
    struct sockaddr_storage address;
    socklen_t size = sizeof(address);
    uint16_t at;

    signal(SIGPIPE, SIG_IGN);
    signal(SIGCHLD, SIG_IGN);
    if (listen(sock, 128) || getsockname(sock, (struct sockaddr *)&address, &size))
        fail("listen");
    at = address.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&address)->sin6_port
                                       : ((struct sockaddr_in *)&address)->sin_port;
    if (fork() == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        serve_datagrams(socket_at(SOCK_DGRAM, at));
    }
    printf("port %u\n", ntohs(at));
    fflush(stdout);
    for (;;) {
        int client = accept(sock, NULL, NULL);

        if (client < 0)
            continue;
        if (fork() == 0) {
            serve_client(client);
            _exit(0);
        }
        close(client);
    }
}

/* ---- Clients ---- */

/* A socket that is connected to the server. */
static int connect_to(const char *host, const char *port, int type)
{
    struct sockaddr_in6 six = {.sin6_family = AF_INET6};
    struct sockaddr_in four = {.sin_family = AF_INET};
    bool is_six = inet_pton(AF_INET6, host, &six.sin6_addr) == 1;
    int sock = socket(is_six ? AF_INET6 : AF_INET, type, 0);

    if (!is_six && inet_pton(AF_INET, host, &four.sin_addr) != 1)
        fail(host);
    six.sin6_port = four.sin_port = htons((uint16_t)strtoul(port, NULL, 10));
    if (sock < 0 ||
        connect(sock, is_six ? (void *)&six : (void *)&four, is_six ? sizeof(six) : sizeof(four)))
        fail("connect");
    return sock;
}

static int open_connection(const char *host, const char *port, char what)
{
    int sock = connect_to(host, port, SOCK_STREAM), on = 1;

    setsockopt(sock, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    if (write(sock, &what, 1) != 1)
        fail("write");
    return sock;
}

static void send_stream(int sock, uint64_t ns)
{
    uint64_t start = now_ns(), total = 0;

    while (now_ns() - start < ns)
        if (write(sock, buffer, sizeof(buffer)) != (ssize_t)sizeof(buffer))
            fail("write");
    shutdown(sock, SHUT_WR);
    if (read(sock, &total, sizeof(total)) != sizeof(total))
        fail("read");
    printf("%llu bytes %llu ns\n", (unsigned long long)total,
           (unsigned long long)(now_ns() - start));
}

static void receive_stream(int sock, uint64_t ns)
{
    uint64_t start = now_ns(), total = 0;
    ssize_t got;

    if (write(sock, &ns, sizeof(ns)) != sizeof(ns))
        fail("write");
    while ((got = read(sock, buffer, sizeof(buffer))) > 0)
        total += (uint64_t)got;
    if (got < 0)
        fail("read");
    printf("%llu bytes %llu ns\n", (unsigned long long)total,
           (unsigned long long)(now_ns() - start));
}

static void there_and_back(int sock)
{
    char byte = 'x';

    if (write(sock, &byte, 1) != 1 || read(sock, &byte, 1) != 1 || byte != 'x')
        fail("there and back");
}

static void measure_latency(int sock, uint64_t ns)
{
    uint64_t start = now_ns(), times = 0;

    for (; now_ns() - start < ns; times++)
        there_and_back(sock);
    printf("%llu times %llu ns\n", (unsigned long long)times,
           (unsigned long long)(now_ns() - start));
}

static void connect_often(const char *host, const char *port, uint64_t count)
{
    uint64_t start = now_ns();

    for (uint64_t i = 0; i < count; i++) {
        int sock = open_connection(host, port, ECHO);

        there_and_back(sock);
        shutdown(sock, SHUT_WR);
        if (read(sock, buffer, 1) != 0)
            fail("end");
        close(sock);
    }
    printf("%llu times %llu ns\n", (unsigned long long)count,
           (unsigned long long)(now_ns() - start));
}

/* One that is lost is sent again after a second. */
static void send_datagrams(int sock, uint64_t count)
{
    const struct timeval second = {.tv_sec = 1};
    uint64_t start = now_ns(), lost = 0;

    setsockopt(sock, SOL_SOCKET, SO_RCVTIMEO, &second, sizeof(second));
    for (uint64_t i = 0; i < count; i++) {
        uint64_t seen = ~i;

        while (seen != i) {
            if (write(sock, &i, sizeof(i)) != sizeof(i))
                fail("write");
            if (read(sock, &seen, sizeof(seen)) != sizeof(seen) && ++lost > 20)
                fail("read");
        }
    }
    printf("%llu times %llu ns\n", (unsigned long long)count,
           (unsigned long long)(now_ns() - start));
}

int net_main(int argc, char **argv)
{
    uint64_t number = argc == 4 ? strtoull(argv[3], NULL, 10) : 0;

    if ((argc == 1 || argc == 2) && !strcmp(argv[0], "serve"))
        return serve(argc == 2 ? argv[1] : "0");
    if (argc != 4 || !number) {
        fputs("bench net: serve [PORT], or send, receive, latency, connect, udp HOST PORT NUMBER\n",
              stderr);
        return 2;
    }
    if (!strcmp(argv[0], "connect"))
        connect_often(argv[1], argv[2], number);
    else if (!strcmp(argv[0], "udp"))
        send_datagrams(connect_to(argv[1], argv[2], SOCK_DGRAM), number);
    else if (!strcmp(argv[0], "send"))
        send_stream(open_connection(argv[1], argv[2], DISCARD), number * 1000000);
    else if (!strcmp(argv[0], "receive"))
        receive_stream(open_connection(argv[1], argv[2], SOURCE), number * 1000000);
    else if (!strcmp(argv[0], "latency"))
        measure_latency(open_connection(argv[1], argv[2], ECHO), number * 1000000);
    else
        return 2;
    return 0;
}
