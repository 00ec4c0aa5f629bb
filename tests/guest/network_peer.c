/*
 * Both ends of the tests of networks: the benchmark's server and clients, and
 *
 *   network-peer hold HOST PORT COUNT   opens COUNT connections, prints "N of COUNT" of which there
 *                                       is an answer, and has them until its input ends
 *   network-peer disorder HOST PORT COUNT   opens COUNT connections, one after the other, and sends
 *                                       every second byte of a window on each, the last one first:
 *                                       nothing of it can be passed on
 */
#include "../../bench/guest/net.h"

#include <arpa/inet.h>
#include <linux/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define COUNT_MOST 1000
#define SILENT_MS  3000 /* then no more answers are waited for */

static int open_one(const struct sockaddr_in *to)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);

    if (fd >= 0)
        connect(fd, (const struct sockaddr *)to, sizeof(*to));
    return fd;
}

static int hold(const char *host, const char *port, unsigned count)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((unsigned short)atoi(port))};
    struct pollfd pfd[COUNT_MOST] = {{0}};
    unsigned open = 0;
    char byte;

    if (count > COUNT_MOST || inet_pton(AF_INET, host, &to.sin_addr) != 1)
        return 2;
    for (unsigned i = 0; i < count; i++)
        pfd[i] = (struct pollfd){open_one(&to), POLLOUT, 0};
    while (open < count && poll(pfd, count, SILENT_MS) > 0) {
        for (unsigned i = 0; i < count; i++) {
            open += (pfd[i].revents & POLLOUT) && !(pfd[i].revents & (POLLERR | POLLHUP));
            if (pfd[i].revents)
                pfd[i].fd = -1; /* it stays open */
        }
    }
    printf("%u of %u\n", open, count);
    fflush(stdout);
    while (read(STDIN_FILENO, &byte, 1) > 0) {}
    return 0;
}

/* ---- Disorder ---- */

#define WINDOW 60000u

/* The number of the next byte that is sent (TCP_SEND_QUEUE) or received by the connection FD. */
static uint32_t next_byte(int fd, int queue)
{
    uint32_t number = 0;
    socklen_t size = sizeof(number);
    int on = 1, off = TCP_REPAIR_OFF_NO_WP;

    setsockopt(fd, IPPROTO_TCP, TCP_REPAIR, &on, sizeof(on));
    setsockopt(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, &queue, sizeof(queue));
    getsockopt(fd, IPPROTO_TCP, TCP_QUEUE_SEQ, &number, &size);
    setsockopt(fd, IPPROTO_TCP, TCP_REPAIR, &off, sizeof(off));
    return number;
}

static uint32_t sum(const void *data, size_t size, uint32_t total)
{
    const uint8_t *at = data;

    for (size_t i = 0; i < size; i++)
        total += i % 2 ? at[i] : (uint32_t)at[i] << 8;
    return total;
}

/* Sends one byte, number NUMBER, by the raw socket RAW. */
static void send_byte(int raw, const struct sockaddr_in *from, const struct sockaddr_in *to,
                      uint32_t number, uint32_t ack)
{
    struct {
        struct tcphdr tcp;
        uint8_t byte;
    } __attribute__((packed)) segment = {.tcp = {.source = from->sin_port,
                                                 .dest = to->sin_port,
                                                 .seq = htonl(number),
                                                 .ack_seq = htonl(ack),
                                                 .doff = 5,
                                                 .ack = 1,
                                                 .psh = 1,
                                                 .window = htons(65535)},
                                         .byte = 'x'};
    uint32_t total = IPPROTO_TCP + sizeof(segment);

    total = sum(&from->sin_addr, 4, sum(&to->sin_addr, 4, sum(&segment, sizeof(segment), total)));
    total = (total & 0xffff) + (total >> 16);
    segment.tcp.check = htons((uint16_t)~(total + (total >> 16)));
    sendto(raw, &segment, sizeof(segment), 0, (const struct sockaddr *)to, sizeof(*to));
}

static int disorder(const char *host, const char *port, unsigned count)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((unsigned short)atoi(port))};
    int raw = socket(AF_INET, SOCK_RAW, IPPROTO_TCP);

    if (raw < 0 || inet_pton(AF_INET, host, &to.sin_addr) != 1)
        return 2;
    for (unsigned i = 0; i < count; i++) {
        struct sockaddr_in from;
        socklen_t size = sizeof(from);
        int fd = socket(AF_INET, SOCK_STREAM, 0);
        uint32_t next, ack;

        if (connect(fd, (const struct sockaddr *)&to, sizeof(to)) < 0 ||
            getsockname(fd, (struct sockaddr *)&from, &size) < 0)
            return 1;
        next = next_byte(fd, TCP_SEND_QUEUE);
        ack = next_byte(fd, TCP_RECV_QUEUE);
        for (uint32_t at = WINDOW; at > 0; at -= 2)
            send_byte(raw, &from, &to, next + at, ack);
    }
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 5 && !strcmp(argv[1], "hold"))
        return hold(argv[2], argv[3], (unsigned)atoi(argv[4]));
    if (argc == 5 && !strcmp(argv[1], "disorder"))
        return disorder(argv[2], argv[3], (unsigned)atoi(argv[4]));
    return net_main(argc - 1, argv + 1);
}
