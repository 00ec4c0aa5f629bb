/*
 * A guest's part of the tests of machines that are moved: it has bytes echoed by the host, again
 * and again, and compares them.
 *
 *      moved-guest tcp ADDRESS PORT      through a network card
 *      moved-guest vsock PORT            through a virtio socket
 *      moved-guest both ADDRESS PORT VSOCKPORT
 *      moved-guest serve PORT            is the other end: echoes, one connection at a time
 *
 * Each round through all of its connections is a line, "@@round N". It ends when there is a file
 * P_tmpdir/end, with a line for each connection that counts the rounds and how often it was lost,
 * "@@last NAME ROUNDS LOST". A connection is lost that ends; with `both` also one that is silent
 * for some seconds, since who has ended it cannot say so any more. Then another one is made.
 */
#include <arpa/inet.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <linux/vm_sockets.h>

#define SILENT_S 2
#define SIZE     50000

struct end {
    const char *name;
    union {
        struct sockaddr any;
        struct sockaddr_in in;
        struct sockaddr_vm vm;
    } address;
    socklen_t size;
    int fd; /* -1: it is not connected */
    unsigned rounds, lost;
};

static struct end ends[2];
static unsigned count;
static bool impatient;

static void add_tcp(const char *address, const char *port)
{
    struct end *e = &ends[count++];

    *e = (struct end){.name = "tcp", .size = sizeof(e->address.in), .fd = -1};
    e->address.in.sin_family = AF_INET;
    e->address.in.sin_port = htons((unsigned short)atoi(port));
    inet_pton(AF_INET, address, &e->address.in.sin_addr);
}

static void add_vsock(const char *port)
{
    struct end *e = &ends[count++];

    *e = (struct end){.name = "vsock", .size = sizeof(e->address.vm), .fd = -1};
    e->address.vm.svm_family = AF_VSOCK;
    e->address.vm.svm_cid = VMADDR_CID_HOST;
    e->address.vm.svm_port = (unsigned)atoi(port);
}

static bool dial(struct end *e)
{
    const struct timeval patience = {SILENT_S, 0};
    int fd = socket(e->address.any.sa_family, SOCK_STREAM, 0);

    if (fd < 0)
        return false;
    if (impatient) {
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
    }
    if (connect(fd, &e->address.any, e->size) == 0)
        e->fd = fd;
    else
        close(fd);
    return e->fd >= 0;
}

/* Sends all of DATA, or receives as much to it. */
static bool pass(int fd, unsigned char *data, bool sends)
{
    for (size_t done = 0; done < SIZE;) {
        ssize_t n = sends ? send(fd, data + done, SIZE - done, MSG_NOSIGNAL)
                          : recv(fd, data + done, SIZE - done, 0);

        if (n <= 0)
            return false;
        done += (size_t)n;
    }
    return true;
}

/* Has bytes echoed once. False: the connection is lost. */
static bool echo(struct end *e)
{
    static unsigned char sent[SIZE], got[SIZE];

    for (size_t i = 0; i < SIZE; i++)
        sent[i] = (unsigned char)((i + e->rounds) * 2654435761u >> 13);
    if (!pass(e->fd, sent, true) || !pass(e->fd, got, false))
        return false;
    if (memcmp(sent, got, SIZE) != 0)
        printf("@@bad: %s: other bytes come back in round %u\n", e->name, e->rounds);
    e->rounds++;
    return true;
}

/* The same, as often as it takes. */
static void go_round(struct end *e)
{
    for (;;) {
        if (e->fd >= 0 || dial(e)) {
            if (echo(e))
                return;
            e->lost++;
            close(e->fd);
            e->fd = -1;
        }
        usleep(20000);
    }
}

/* Echoes to whoever connects, and says "ready" first. Does not return. */
static int serve(const char *port)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((unsigned short)atoi(port))};
    int listener = socket(AF_INET, SOCK_STREAM, 0), fd;
    char data[SIZE];
    ssize_t n;

    if (bind(listener, (struct sockaddr *)&at, sizeof(at)) < 0 || listen(listener, 1) < 0)
        return 1;
    printf("ready\n");
    for (;;) {
        fd = accept(listener, NULL, NULL);
        while ((n = recv(fd, data, sizeof(data), 0)) > 0)
            for (ssize_t done = 0, part = 1; done < n && part > 0; done += part)
                part = send(fd, data + done, (size_t)(n - done), MSG_NOSIGNAL);
        close(fd);
    }
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";

    setvbuf(stdout, NULL, _IOLBF, 0);
    if (!strcmp(what, "serve") && argc == 3)
        return serve(argv[2]);
    impatient = !strcmp(what, "both");
    if ((!strcmp(what, "tcp") && argc == 4) || (impatient && argc == 5))
        add_tcp(argv[2], argv[3]);
    if ((!strcmp(what, "vsock") && argc == 3) || (impatient && argc == 5))
        add_vsock(argv[argc - 1]);
    if (!count)
        return 2;
    for (unsigned n = 1; access(P_tmpdir "/end", F_OK) != 0; n++) {
        for (unsigned i = 0; i < count; i++)
            go_round(&ends[i]);
        printf("@@round %u\n", n);
    }
    for (unsigned i = 0; i < count; i++)
        printf("@@last %s %u %u\n", ends[i].name, ends[i].rounds, ends[i].lost);
    return 0;
}
