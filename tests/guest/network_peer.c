/*
 * Both ends of the tests of networks: the benchmark's server and clients, and
 *
 *   network-peer hold HOST PORT COUNT   opens COUNT connections, prints "N of COUNT" of which there
 *                                       is an answer, and has them until its input ends
 */
#include "../../bench/guest/net.h"

#include <arpa/inet.h>
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

int main(int argc, char **argv)
{
    if (argc == 5 && !strcmp(argv[1], "hold"))
        return hold(argv[2], argv[3], (unsigned)atoi(argv[4]));
    return net_main(argc - 1, argv + 1);
}
